with

tickets as (
    select * from accepted.support_tickets
)

select
    ticket_id,
    org_id,
    nullif(category, '') as category,
    nullif(severity, '') as severity,
    created_at,
    resolved_at,
    case when csat between 1 and 5 then csat end as csat,
    sla_breached,
    source_file,
    source_line,
    ingest_ts,
    batch_id,
    _rescued,
    date
from tickets
