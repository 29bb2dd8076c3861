with

tickets as (
    select
        created_at,
        coalesce(severity, 'unknown') as severity,
        resolved_at,
        csat,
        sla_breached
    from silver.support_tickets
),

counted as (
    select
        severity,
        created_at as ticket_date,
        count(*) as total_tickets,
        count(*) - count(resolved_at) as open_tickets,
        count(*) filter (where sla_breached) as sla_breach_count,
        sum(csat) as csat_sum,
        count(csat) as num_csat,
        sum(resolved_at - created_at) as resolution_days,
        count(resolved_at) as num_resolved
    from tickets
    group by severity, created_at
)

select
    severity,
    ticket_date,
    total_tickets,
    open_tickets,
    sla_breach_count,
    decimal_divide(sla_breach_count, total_tickets, 6) as sla_breach_rate,
    decimal_divide(csat_sum, num_csat, 6) as avg_csat,
    decimal_divide(resolution_days, num_resolved, 6) as avg_resolution_days
from counted
