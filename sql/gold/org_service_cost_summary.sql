with

daily_costs as (
    select org_id, usage_date, service, total_cost_usd
    from gold.finops_daily_usage
),

last_day as (
    select max(usage_date) as usage_date
    from gold."finops_daily_usage$partitions"
),

-- for every day: what it and the 6 and 13 days before it cost
rolled as (
    select
        org_id,
        service,
        unnest(rolling_sum(usage_date, total_cost_usd, 1, 7, 14)) as totals
    from daily_costs
    group by org_id, service
),

summed as (
    select
        org_id,
        totals['date'] as summary_date,
        service,
        totals['sum_1'] as cost_1d,
        totals['sum_2'] as cost_7d,
        totals['sum_3'] as cost_14d
    from rolled
    where totals['date'] <= (select usage_date from last_day)
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
    cost_1d,
    cost_7d,
    cost_14d,
    cast(rank_14d as int) as rank_14d
from ranked
