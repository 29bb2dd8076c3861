-- Events that at least two of the three methods flag, as they arrive.
select
    timestamp,
    event_id,
    org_id,
    service,
    metric,
    cost_usd_increment,
    anomaly_score,
    mad_score,
    is_late
from silver.usage_events
where is_anomaly
order by timestamp, event_id
