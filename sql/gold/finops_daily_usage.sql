with

events as (
    select
        org_id,
        date as usage_date,
        service,
        metric,
        value,
        cost_usd_increment,
        carbon_kg,
        genai_tokens,
        is_anomaly,
        anomaly_score
    from silver.usage_events
),

summed as (
    select
        org_id,
        usage_date,
        service,
        sum(cost_usd_increment) as cost_usd,
        sum(value) filter (where metric = 'requests') as requests,
        sum(value) filter (where metric = 'cpu_hours') as cpu_hours,
        sum(value) filter (where metric = 'storage_gb_hours') as storage_gb_hours,
        sum(carbon_kg) as carbon_kg,
        sum(genai_tokens) as genai_tokens,
        count(*) as num_events,
        bool_or(is_anomaly) as is_anomaly,
        max(anomaly_score) as anomaly_score
    from events
    group by org_id, usage_date, service
),

-- a cast to a decimal rounds half away from zero, one to a bigint would cut
typed as (
    select
        *,
        cast(cost_usd as decimal(38, 6)) as total_cost_usd,
        cast(cast(coalesce(requests, 0) as decimal(38, 0)) as bigint) as total_requests
    from summed
)

select
    org_id,
    usage_date,
    service,
    total_cost_usd,
    total_requests,
    cast(coalesce(cpu_hours, 0) as decimal(38, 6)) as total_cpu_hours,
    cast(coalesce(storage_gb_hours, 0) as decimal(38, 6)) as total_storage_gb_hours,
    cast(carbon_kg as decimal(38, 6)) as total_carbon_kg,
    genai_tokens as total_genai_tokens,
    num_events as event_count,
    decimal_divide(total_cost_usd, total_requests, 6) as avg_cost_per_request,
    is_anomaly,
    anomaly_score
from typed
