with

events as (
    select user_id, count(*) as num_events
    from silver.usage_events
    where user_id is not null
    group by user_id
),

users as (
    select user_id from silver.users
),

matched as (
    select
        sum(events.num_events) as num_events,
        sum(events.num_events) filter (where users.user_id is not null) as num_matched
    from events
    left join users on events.user_id = users.user_id
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
