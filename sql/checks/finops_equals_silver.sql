with

events as (
    select
        org_id,
        date as usage_date,
        service,
        cast(sum(cost_usd_increment) as decimal(38, 6)) as cost_usd,
        count(*) as num_events
    from silver.usage_events
    group by org_id, date, service
),

finops as (
    select org_id, usage_date, service, total_cost_usd as cost_usd, event_count as num_events
    from gold.finops_daily_usage
),

compared as (
    select
        coalesce(events.org_id, finops.org_id) as org_id,
        coalesce(events.usage_date, finops.usage_date) as usage_date,
        coalesce(events.service, finops.service) as service,
        events.cost_usd as silver_cost_usd,
        finops.cost_usd as gold_cost_usd,
        events.num_events as num_silver_events,
        finops.num_events as num_gold_events
    from events
    full join finops
        on events.org_id = finops.org_id
        and events.usage_date = finops.usage_date
        and events.service = finops.service
)

select
    org_id,
    usage_date,
    service,
    silver_cost_usd,
    gold_cost_usd,
    num_silver_events,
    num_gold_events
from compared
where
    (silver_cost_usd is distinct from gold_cost_usd)
    or (num_silver_events is distinct from num_gold_events)
