-- Twelve and a half tickets per organisation, on average.
with
    ticket as (
        select
            value as n,
            1 + cast(floor(uniform($seed, value, 701) * greatest(8, $events / 540)) as bigint) as org,
            uniform($seed, value, 702) as u_severity,
            20332 - $days - 55 + cast(floor(uniform($seed, value, 703) * (55 + $days)) as bigint) as created,
            uniform($seed, value, 704) as u_days,
            uniform($seed, value, 705) as u_csat
        from generate_series(1, greatest(8, $events / 540) * 25 / 2)
    )
select
    'tkt_' || lpad(to_hex((n * 2654435761 + cast(uniform($seed, 0, 104) * 4294967296 as bigint)) % 4294967296), 8, '0') as ticket_id,
    'org_' || lpad(to_hex((org * 2654435761 + cast(uniform($seed, 0, 100) * 4294967296 as bigint)) % 4294967296), 8, '0') as org_id,
    array_element(
        ['availability', 'billing', 'integration', 'performance', 'security', 'usability'],
        1 + cast(floor(uniform($seed, n, 706) * 6) as bigint)
    ) as category,
    case
        when u_severity < 0.412 then 'low'
        when u_severity < 0.74 then 'medium'
        when u_severity < 0.944 then 'high'
        else 'critical'
    end as severity,
    cast(cast(created as int) as date) as created_at,
    -- most are resolved in a week, a few take a month
    case
        when uniform($seed, n, 707) >= 0.24
            then cast(cast(created + cast(floor(u_days * u_days * 14 + power(u_days, 12) * 12) as bigint) as int) as date)
    end as resolved_at,
    case
        when u_csat < 0.254 then null
        when u_csat < 0.265 then 0.0
        when u_csat < 0.31 then 1.0
        when u_csat < 0.437 then 2.0
        when u_csat < 0.679 then 3.0
        when u_csat < 0.876 then 4.0
        when u_csat < 0.971 then 5.0
        when u_csat < 0.999 then 6.0
        else 7.0
    end as csat,
    case when uniform($seed, n, 708) < 0.095 then 'True' else 'False' end as sla_breached
from ticket
