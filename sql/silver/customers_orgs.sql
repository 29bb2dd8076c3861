with

organisations as (
    select * from accepted.customers_orgs
)

select
    org_id,
    nullif(org_name, '') as org_name,
    nullif(industry, '') as industry,
    nullif(hq_region, '') as hq_region,
    nullif(plan_tier, '') as plan_tier,
    is_enterprise,
    signup_date,
    nullif(sales_rep, '') as sales_rep,
    nullif(lifecycle_stage, '') as lifecycle_stage,
    nullif(marketing_source, '') as marketing_source,
    case when nps_score between -100 and 100 then nps_score end as nps_score,
    source_file,
    source_line,
    ingest_ts,
    batch_id,
    _rescued,
    date
from organisations
