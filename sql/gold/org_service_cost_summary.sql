with

daily_costs as (
    select org_id, usage_date, service, total_cost_usd
    from gold.finops_daily_usage
),

last_day as (
    select max(usage_date) as usage_date
    from gold."finops_daily_usage$partitions"
),

-- a day's cost counts on that day and on the 13 days after it
aged as (
    select
        org_id,
        usage_date,
        service,
        total_cost_usd,
        cast(unnest(range(0, 14)) as int) as age_days
    from daily_costs
),

dated as (
    select
        org_id,
        cast(cast(usage_date as int) + age_days as date) as summary_date,
        service,
        total_cost_usd,
        age_days
    from aged
),

summed as (
    select
        org_id,
        summary_date,
        service,
        sum(total_cost_usd) filter (where age_days < 1) as cost_1d,
        sum(total_cost_usd) filter (where age_days < 7) as cost_7d,
        sum(total_cost_usd) as cost_14d
    from dated
    where summary_date <= (select usage_date from last_day)
    group by org_id, summary_date, service
),

ranked as (
    select
        *,
        row_number() over (
            partition by org_id, summary_date
            order by cost_14d desc, service
        ) as rank_14d
    from summed
)

select
    org_id,
    summary_date,
    service,
    cast(coalesce(cost_1d, 0) as decimal(38, 6)) as cost_1d,
    cast(coalesce(cost_7d, 0) as decimal(38, 6)) as cost_7d,
    cast(cost_14d as decimal(38, 6)) as cost_14d,
    cast(rank_14d as int) as rank_14d
from ranked
