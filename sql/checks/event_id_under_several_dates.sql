with

events as (
    select event_id, date
    from silver.usage_events
),

counted as (
    select
        event_id,
        count(*) as num_dates,
        min(date) as first_date,
        max(date) as last_date
    from events
    group by event_id
)

select event_id, num_dates, first_date, last_date
from counted
where num_dates > 1
