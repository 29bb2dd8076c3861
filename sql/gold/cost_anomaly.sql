with

anomalies as (
    select
        event_id,
        org_id,
        date as usage_date,
        service,
        cost_usd_increment,
        anomaly_score,
        is_anomaly_zscore,
        is_anomaly_mad,
        is_anomaly_p99
    from silver.usage_events
    where is_anomaly
),

summed as (
    select
        org_id,
        usage_date,
        service,
        count(*) as anomaly_count,
        sum(cost_usd_increment) as anomalous_cost_usd,
        max(cost_usd_increment) as max_cost_usd,
        count(*) filter (where is_anomaly_zscore) as zscore_count,
        count(*) filter (where is_anomaly_mad) as mad_count,
        count(*) filter (where is_anomaly_p99) as p99_count,
        max(anomaly_score) as max_anomaly_score,
        array_agg(arrow_cast(event_id, 'Utf8') order by event_id) as events
    from anomalies
    group by org_id, usage_date, service
)

select
    org_id,
    usage_date,
    service,
    anomaly_count,
    cast(anomalous_cost_usd as decimal(38, 6)) as anomalous_cost_usd,
    max_cost_usd,
    zscore_count,
    mad_count,
    p99_count,
    max_anomaly_score,
    events
from summed
