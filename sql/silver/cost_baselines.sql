with

events as (
    select org_id, service, metric, cost_usd_increment, date
    from silver.usage_events_conformed
),

-- for every date: the 30 days before it, where these have at least 50 events
rolled_by_organisation as (
    select
        org_id,
        service,
        metric,
        unnest(rolling_baseline(date, cost_usd_increment, 30, 50)) as baseline
    from events
    group by org_id, service, metric
),

rolled_by_service as (
    select
        cast(null as text) as org_id,
        service,
        metric,
        unnest(rolling_baseline(date, cost_usd_increment, 30, 50)) as baseline
    from events
    group by service, metric
),

united as (
    select org_id, service, metric, baseline from rolled_by_organisation
    union all
    select org_id, service, metric, baseline from rolled_by_service
)

select
    org_id,
    service,
    metric,
    baseline['n'] as n,
    baseline['mean'] as mean,
    baseline['sd'] as sd,
    baseline['median'] as median,
    baseline['mad'] as mad,
    baseline['p99'] as p99,
    baseline['date'] as date
from united
