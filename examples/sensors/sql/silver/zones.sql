with

zones as (
    select * from accepted.zones
)

select
    zone_id,
    nullif(zone_name, '') as zone_name,
    nullif(building, '') as building,
    floor,
    opened_on,
    source_file,
    source_line,
    ingest_ts,
    batch_id,
    _rescued,
    date
from zones
