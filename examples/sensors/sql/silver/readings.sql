with

readings as (
    select * from silver.readings_united
),

devices as (
    select device_id, zone_id, model, calibration_offset, version, valid_from, valid_to
    from silver.devices_history
),

models as (
    select * from reference.device_models
),

-- a device that sends what its logger exports too is counted once, and what it sent is the reading
ordered as (
    select
        *,
        row_number() over (
            partition by date, device_id, metric, measured_at
            order by source desc, source_file, source_line
        ) as position
    from readings
),

-- the version that was current at the reading's time, the first one for earlier readings
enriched as (
    select
        ordered.*,
        devices.zone_id,
        devices.model,
        devices.device_id is not null as is_known_device,
        case when models.metric = ordered.metric then devices.calibration_offset end as calibration_offset
    from ordered
    left join devices
        on ordered.device_id = devices.device_id
        and (devices.version = 1 or ordered.measured_at >= devices.valid_from)
        and (devices.valid_to is null or ordered.measured_at < devices.valid_to)
    left join models on devices.model = models.model
    where ordered.position = 1
)

select
    device_id,
    measured_at,
    metric,
    metric_raw,
    value,
    cast(value + coalesce(calibration_offset, 0) as decimal(18, 6)) as calibrated_value,
    value_raw,
    unit,
    unit_raw,
    unit_imputed,
    battery_percent,

    coalesce(zone_id, 'unknown') as zone_id,
    model,
    is_known_device,

    source,
    is_late,
    ingest_ts,
    source_file,
    source_line,
    batch_id,
    _rescued,
    date
from enriched
