with

events as (
    select event_id, date
    from silver.usage_events
),

-- an event id comes once per date; 128 bits stand for it, which take a fraction of its memory and spill where it is short
counted as (
    select
        min(event_id) as event_id,
        count(*) as num_dates,
        min(date) as first_date,
        max(date) as last_date
    from events
    group by hash64(event_id), hash64(reverse(event_id))
)

select event_id, num_dates, first_date, last_date
from counted
where num_dates > 1
