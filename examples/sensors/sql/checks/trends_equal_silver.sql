with

readings as (
    select zone_id, metric, date as trend_date, count(*) as num_readings
    from silver.readings
    where value is not null
    group by zone_id, metric, date
),

trends as (
    select zone_id, metric, trend_date, sum(reading_count) as num_readings
    from gold.hourly_trends
    group by zone_id, metric, trend_date
),

compared as (
    select
        coalesce(readings.zone_id, trends.zone_id) as zone_id,
        coalesce(readings.metric, trends.metric) as metric,
        coalesce(readings.trend_date, trends.trend_date) as trend_date,
        readings.num_readings as num_silver_readings,
        trends.num_readings as num_gold_readings
    from readings
    full join trends
        on readings.zone_id = trends.zone_id
        and readings.metric = trends.metric
        and readings.trend_date = trends.trend_date
)

select zone_id, metric, trend_date, num_silver_readings, num_gold_readings
from compared
where num_silver_readings is distinct from num_gold_readings
