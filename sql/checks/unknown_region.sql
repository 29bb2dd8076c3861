with

events as (
    select region_raw, date
    from silver.usage_events
    where region = 'unknown'
),

counted as (
    select
        region_raw,
        count(*) as num_events,
        min(date) as first_date,
        max(date) as last_date
    from events
    group by region_raw
)

select region_raw, num_events, first_date, last_date
from counted
