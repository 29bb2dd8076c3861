with

events as (
    select service_raw, date
    from silver.usage_events
    where service = 'unknown'
),

counted as (
    select
        service_raw,
        count(*) as num_events,
        min(date) as first_date,
        max(date) as last_date
    from events
    group by service_raw
)

select service_raw, num_events, first_date, last_date
from counted
