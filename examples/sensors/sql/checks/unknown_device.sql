with

readings as (
    select device_id, date
    from silver.readings
    where not is_known_device
),

counted as (
    select
        device_id,
        count(*) as num_readings,
        min(date) as first_date,
        max(date) as last_date
    from readings
    group by device_id
)

select device_id, num_readings, first_date, last_date
from counted
