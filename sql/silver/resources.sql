with

resources as (
    select * from accepted.resources
)

select
    resource_id,
    org_id,
    nullif(service, '') as service,
    nullif(region, '') as region,
    created_at,
    nullif(state, '') as state,
    json_list(tags_json) as tags_json,
    source_file,
    source_line,
    ingest_ts,
    batch_id,
    _rescued,
    date
from resources
