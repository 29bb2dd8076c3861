with

readings as (
    select
        zone_id,
        metric,
        date as trend_date,
        date_trunc('hour', measured_at) as hour,
        calibrated_value
    from silver.readings
    where calibrated_value is not null
),

-- equal values may swap places, which changes no sum over places
ranked as (
    select
        *,
        row_number() over (partition by zone_id, metric, hour order by calibrated_value) as position,
        count(*) over (partition by zone_id, metric, hour) as num_readings
    from readings
),

-- the median and the 95th percentile as weights, in hundredths: a rank between two places takes from both
weighted as (
    select
        *,
        case
            when position = (num_readings + 1) / 2 and position = (num_readings + 2) / 2 then 100
            when position in ((num_readings + 1) / 2, (num_readings + 2) / 2) then 50
            else 0
        end as median_weight,
        case
            when position = 95 * (num_readings - 1) / 100 + 1 then 100 - 95 * (num_readings - 1) % 100
            when position = 95 * (num_readings - 1) / 100 + 2 then 95 * (num_readings - 1) % 100
            else 0
        end as p95_weight
    from ranked
),

summed as (
    select
        zone_id,
        metric,
        trend_date,
        hour,
        count(*) as reading_count,
        sum(calibrated_value) as value_sum,
        sum(calibrated_value * median_weight) as median_sum,
        sum(calibrated_value * p95_weight) as p95_sum,
        min(calibrated_value) as min_value,
        max(calibrated_value) as max_value
    from weighted
    group by zone_id, metric, trend_date, hour
)

select
    zone_id,
    metric,
    trend_date,
    hour,
    reading_count,
    decimal_divide(value_sum, reading_count, 6) as avg_value,
    decimal_divide(median_sum, 100, 6) as median_value,
    decimal_divide(p95_sum, 100, 6) as p95_value,
    min_value,
    max_value
from summed
