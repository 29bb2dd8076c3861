with

events as (
    select org_id, count(*) as num_events
    from silver.usage_events
    group by org_id
),

organisations as (
    select org_id from silver.customers_orgs
),

matched as (
    select
        sum(events.num_events) as num_events,
        sum(events.num_events) filter (where organisations.org_id is not null) as num_matched
    from events
    left join organisations on events.org_id = organisations.org_id
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
