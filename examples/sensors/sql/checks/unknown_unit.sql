with

readings as (
    select metric_raw, unit_raw, date
    from silver.readings
    where value is null
),

counted as (
    select
        metric_raw,
        unit_raw,
        count(*) as num_readings,
        min(date) as first_date,
        max(date) as last_date
    from readings
    group by metric_raw, unit_raw
)

select metric_raw, unit_raw, num_readings, first_date, last_date
from counted
