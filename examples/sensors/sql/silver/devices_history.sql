with

devices as (
    select * from versions.devices
)

select
    device_id,
    zone_id,
    nullif(model, '') as model,
    installed_on,
    case when calibration_offset between -100 and 100 then calibration_offset end as calibration_offset,
    version,
    valid_from,
    valid_to,
    is_current,
    source_file,
    source_line,
    ingest_ts,
    batch_id,
    _rescued,
    date
from devices
