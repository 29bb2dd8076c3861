with

device_days as (
    select * from silver.device_days
),

readings as (
    select
        device_id,
        metric,
        date,
        cast(date_part('hour', measured_at) as bigint) * 60
            + cast(date_part('minute', measured_at) as bigint) as minute_of_day
    from silver.readings
),

-- the day is cut into intervals from midnight; one with a reading is filled, however many it has
filled as (
    select distinct
        device_days.device_id,
        device_days.date,
        readings.minute_of_day / device_days.interval_minutes as slot
    from device_days
    inner join readings
        on device_days.device_id = readings.device_id
        and device_days.metric = readings.metric
        and device_days.date = readings.date
),

-- the day's end stands behind the last interval, so that what is missing there shows too
marked as (
    select device_id, date, slot from filled
    union all
    select device_id, date, expected_readings as slot from device_days
),

spaced as (
    select
        device_id,
        date,
        slot - lag(slot, 1, -1) over (partition by device_id, date order by slot) - 1 as num_missing
    from marked
),

counted as (
    select
        device_id,
        date,
        sum(num_missing) as missing_readings,
        count(*) filter (where num_missing > 0) as gap_count,
        max(num_missing) as longest_gap
    from spaced
    group by device_id, date
)

select
    device_days.device_id,
    device_days.date as gap_date,
    device_days.interval_minutes,
    device_days.expected_readings,
    counted.missing_readings,
    counted.gap_count,
    counted.longest_gap * device_days.interval_minutes as longest_gap_minutes
from device_days
inner join counted
    on device_days.device_id = counted.device_id
    and device_days.date = counted.date
