-- One invoice per organisation and month: the last $days / 30 + 1 months, at least 3, ending with 2025-08.
with
    month as (
        select
            value as n,
            1 + (value - 1) / greatest(3, $days / 30 + 1) as org,
            2025 * 12 + 7 - (value - 1) % greatest(3, $days / 30 + 1) as month_number,
            uniform($seed, value, 601) as u_currency,
            (uniform($seed, value, 602) + uniform($seed, value, 603) + uniform($seed, value, 604) - 1.5) * 2 as z_amount,
            (uniform($seed, value, 605) + uniform($seed, value, 606) + uniform($seed, value, 607) - 1.5) * 2 as z_rate
        from generate_series(1, greatest(8, $events / 540) * greatest(3, $days / 30 + 1))
    ),
    invoice as (
        select
            *,
            -- one in twenty is a credit note
            round((800 + 420 * abs(z_amount)) * case when uniform($seed, n, 608) < 0.054 then -1 else 1 end, 2) as subtotal,
            case when u_currency < 0.667 then 'USD' when u_currency < 0.88 then 'ARS' else 'EUR' end as currency
        from month
    )
select
    'inv_' || lpad(to_hex((n * 2654435761 + cast(uniform($seed, 0, 103) * 4294967296 as bigint)) % 4294967296), 8, '0') as invoice_id,
    'org_' || lpad(to_hex((org * 2654435761 + cast(uniform($seed, 0, 100) * 4294967296 as bigint)) % 4294967296), 8, '0') as org_id,
    cast(month_number / 12 as text) || '-' || lpad(cast(month_number % 12 + 1 as text), 2, '0') || '-01' as month,
    subtotal,
    case when uniform($seed, n, 609) < 0.43 then round(subtotal * uniform($seed, n, 610) * 0.06, 2) end as credits,
    round(subtotal * 0.21, 2) as taxes,
    currency,
    case currency
        when 'USD' then round(1 + 0.05 * z_rate, 5)
        when 'EUR' then round(1.1 + 0.05 * z_rate, 5)
        else round(0.0015 + 0.00008 * z_rate, 5)
    end as exchange_rate_to_usd
from invoice
