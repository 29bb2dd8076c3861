with

touches as (
    select * from accepted.marketing_touches
)

select
    touch_id,
    org_id,
    nullif(campaign, '') as campaign,
    nullif(channel, '') as channel,
    timestamp,
    clicked,
    converted,
    source_file,
    source_line,
    ingest_ts,
    batch_id,
    _rescued,
    date
from touches
