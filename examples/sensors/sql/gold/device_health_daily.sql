with

device_days as (
    select * from silver.device_days
),

gaps as (
    select * from gold.reading_gaps
),

readings as (
    select device_id, date, calibrated_value, battery_percent
    from silver.readings
),

measured as (
    select
        device_id,
        date,
        count(*) as reading_count,
        count(calibrated_value) as num_values,
        count(distinct calibrated_value) as distinct_values,
        min(battery_percent) as min_battery_percent
    from readings
    group by device_id, date
),

joined as (
    select
        device_days.device_id,
        device_days.date as health_date,
        coalesce(device_days.zone_id, 'unknown') as zone_id,
        device_days.model,
        coalesce(measured.reading_count, 0) as reading_count,
        gaps.expected_readings,
        decimal_divide(
            gaps.expected_readings - gaps.missing_readings, gaps.expected_readings, 6
        ) as completeness,
        gaps.longest_gap_minutes,
        coalesce(measured.distinct_values, 0) as distinct_values,
        coalesce(measured.num_values >= 10 and measured.distinct_values = 1, false) as is_stuck,
        measured.min_battery_percent
    from device_days
    inner join gaps
        on device_days.device_id = gaps.device_id
        and device_days.date = gaps.gap_date
    left join measured
        on device_days.device_id = measured.device_id
        and device_days.date = measured.date
)

select
    zone_id,
    health_date,
    device_id,
    model,
    reading_count,
    expected_readings,
    completeness,
    longest_gap_minutes,
    distinct_values,
    is_stuck,
    min_battery_percent,
    case
        when reading_count = 0 then 'silent'
        when is_stuck then 'stuck'
        when completeness < 0.9 then 'gappy'
        when min_battery_percent < 20 then 'low_battery'
        else 'healthy'
    end as status
from joined
