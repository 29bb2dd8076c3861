with

organisations as (
    select * from silver.customers_orgs
),

holdings as (
    select * from silver.org_holdings
),

-- keys of maps are cast to `Utf8`: see silver.org_holdings
daily_usage as (
    select org_id, arrow_cast(service, 'Utf8') as service, total_cost_usd
    from gold.finops_daily_usage
),

summed_services as (
    select
        org_id,
        service,
        cast(sum(total_cost_usd) as decimal(38, 6)) as cost_usd
    from daily_usage
    group by org_id, service
),

cost_profiles as (
    select
        org_id,
        map(
            array_agg(service order by service),
            array_agg(cost_usd order by service)
        ) as cost_by_service,
        sum(cost_usd) as lifetime_cost_usd
    from summed_services
    group by org_id
),

joined as (
    select
        organisations.org_id,
        organisations.org_name,
        organisations.industry,
        organisations.hq_region,
        organisations.plan_tier,
        organisations.is_enterprise,
        organisations.lifecycle_stage,
        organisations.signup_date,
        holdings.users_by_role,
        holdings.active_users,
        holdings.resources_by_service,
        holdings.tags,
        holdings.last_nps_date,
        holdings.last_nps_score,
        holdings.touches_by_channel,
        holdings.clicks_by_channel,
        holdings.conversions_by_channel,
        cost_profiles.lifetime_cost_usd,
        cost_profiles.cost_by_service
    from organisations
    inner join holdings on organisations.org_id = holdings.org_id
    left join cost_profiles on organisations.org_id = cost_profiles.org_id
)

select
    org_id,
    org_name,
    industry,
    hq_region,
    plan_tier,
    is_enterprise,
    lifecycle_stage,
    signup_date,
    users_by_role,
    active_users,
    resources_by_service,
    tags,
    last_nps_date,
    last_nps_score,
    touches_by_channel,
    clicks_by_channel,
    conversions_by_channel,
    cast(coalesce(lifetime_cost_usd, 0) as decimal(38, 6)) as lifetime_cost_usd,
    coalesce(cost_by_service, map {}) as cost_by_service
from joined
