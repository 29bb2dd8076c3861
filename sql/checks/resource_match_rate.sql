with

events as (
    select resource_id, count(*) as num_events
    from silver.usage_events
    group by resource_id
),

resources as (
    select resource_id from silver.resources
),

matched as (
    select
        sum(events.num_events) as num_events,
        sum(events.num_events) filter (where resources.resource_id is not null) as num_matched
    from events
    left join resources on events.resource_id = resources.resource_id
),

rated as (
    select
        num_events,
        num_matched,
        decimal_divide(coalesce(num_matched, 0), num_events, 6) as match_rate
    from matched
)

select num_events, num_matched, match_rate
from rated
where match_rate < 0.8
