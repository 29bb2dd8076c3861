with

days as (
    select min(date) as first_date, max(date) as last_date
    from silver."readings$partitions"
),

devices as (
    select device_id, zone_id, model, installed_on, version, valid_from, valid_to
    from silver.devices_history
),

models as (
    select
        model,
        metric,
        cast(interval_minutes as bigint) as interval_minutes
    from reference.device_models
),

calendar as (
    select cast(unnest(generate_series(first_date, last_date, interval '1 day')) as date) as date
    from days
)

-- the version that was current as the day began, the first one for earlier days
select
    devices.device_id,
    devices.zone_id,
    devices.model,
    models.metric,
    models.interval_minutes,
    1440 / models.interval_minutes as expected_readings,
    calendar.date
from calendar
inner join devices
    on calendar.date >= devices.installed_on
    and (devices.version = 1 or calendar.date >= devices.valid_from)
    and (devices.valid_to is null or calendar.date < devices.valid_to)
inner join models on devices.model = models.model
