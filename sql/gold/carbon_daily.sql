with

daily_usage as (
    select org_id, usage_date, total_carbon_kg
    from gold.finops_daily_usage
),

summed as (
    select org_id, usage_date, sum(total_carbon_kg) as carbon_kg
    from daily_usage
    group by org_id, usage_date
)

select
    org_id,
    usage_date,
    cast(carbon_kg as decimal(38, 6)) as total_carbon_kg
from summed
