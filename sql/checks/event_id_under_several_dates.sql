with

events as (
    select event_id, date, hash64(event_id) as event_hash
    from silver.usage_events
),

-- an event id comes once per date; 64 bits stand for it here, which take a fraction of its memory and spill where it is short
repeated as (
    select event_hash
    from events
    group by event_hash
    having count(*) > 1
),

-- nearly always of nothing
counted as (
    select
        events.event_id,
        count(*) as num_dates,
        min(events.date) as first_date,
        max(events.date) as last_date
    from repeated
    inner join events on repeated.event_hash = events.event_hash
    group by events.event_id
)

select event_id, num_dates, first_date, last_date
from counted
where num_dates > 1
