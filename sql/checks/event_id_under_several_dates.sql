with

events as (
    select event_id, date
    from silver.usage_events
),

-- an event id comes once per date, so a hash that comes twice may be an id under two dates: few, and looked at below
repeated as (
    select hash64(event_id) as id_hash
    from events
    group by hash64(event_id)
    having count(*) > 1
),

suspects as (
    select events.event_id, events.date
    from repeated
    inner join events on repeated.id_hash = hash64(events.event_id)
),

counted as (
    select
        event_id,
        count(*) as num_dates,
        min(date) as first_date,
        max(date) as last_date
    from suspects
    group by event_id
)

select event_id, num_dates, first_date, last_date
from counted
where num_dates > 1
