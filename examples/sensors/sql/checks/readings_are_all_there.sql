with

accepted as (
    select device_id, metric, measured_at, date
    from silver.readings_united
),

readings as (
    select device_id, metric, measured_at, date
    from silver.readings
),

accepted_keys as (
    select device_id, metric, measured_at, date, count(*) as num_accepted
    from accepted
    group by device_id, metric, measured_at, date
),

reading_keys as (
    select device_id, metric, measured_at, date, count(*) as num_readings
    from readings
    group by device_id, metric, measured_at, date
),

compared as (
    select
        coalesce(accepted_keys.device_id, reading_keys.device_id) as device_id,
        coalesce(accepted_keys.metric, reading_keys.metric) as metric,
        coalesce(accepted_keys.measured_at, reading_keys.measured_at) as measured_at,
        coalesce(accepted_keys.num_accepted, 0) as num_accepted,
        coalesce(reading_keys.num_readings, 0) as num_readings
    from accepted_keys
    full join reading_keys
        on accepted_keys.device_id = reading_keys.device_id
        and accepted_keys.metric = reading_keys.metric
        and accepted_keys.measured_at = reading_keys.measured_at
        and accepted_keys.date = reading_keys.date
)

select device_id, metric, measured_at, num_accepted, num_readings
from compared
where num_accepted = 0 or num_readings <> 1
