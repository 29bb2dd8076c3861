with

readings as (
    select device_id, metric, measured_at, value
    from silver.readings_united
),

compared as (
    select
        device_id,
        metric,
        measured_at,
        min(value) as lowest_value,
        max(value) as highest_value
    from readings
    group by device_id, metric, measured_at
)

-- a logger rounds: what it exports may be off by one
select device_id, metric, measured_at, lowest_value, highest_value
from compared
where highest_value - lowest_value > 1
