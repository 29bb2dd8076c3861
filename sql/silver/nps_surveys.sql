with

surveys as (
    select * from accepted.nps_surveys
)

select
    org_id,
    survey_date,
    case when nps_score between -100 and 100 then nps_score end as nps_score,
    nullif(comment, '') as comment,
    source_file,
    source_line,
    ingest_ts,
    batch_id,
    _rescued,
    date
from surveys
