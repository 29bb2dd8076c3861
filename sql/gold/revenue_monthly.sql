with

invoices as (
    select
        org_id,
        to_char(month, '%Y-%m') as billing_month,
        subtotal,
        credits,
        taxes,
        currency,
        fx_rate
    from silver.billing_monthly
),

-- each invoice's amounts are rounded on their own, half away from zero, and then summed
converted as (
    select
        *,
        cast(subtotal * fx_rate as decimal(18, 6)) as subtotal_usd,
        cast(credits * fx_rate as decimal(18, 6)) as credits_usd,
        cast(taxes * fx_rate as decimal(18, 6)) as taxes_usd
    from invoices
),

summed as (
    select
        org_id,
        billing_month,
        cast(sum(subtotal_usd) as decimal(38, 6)) as gross_revenue_usd,
        cast(sum(credits_usd) as decimal(38, 6)) as credits_applied_usd,
        cast(sum(taxes_usd) as decimal(38, 6)) as taxes_usd,
        count(*) as invoice_count,
        min(currency) as currency,
        min(fx_rate) as fx_rate,
        min(currency) = max(currency) and min(fx_rate) = max(fx_rate) as is_uniform
    from converted
    group by org_id, billing_month
)

select
    org_id,
    billing_month,
    gross_revenue_usd,
    credits_applied_usd,
    taxes_usd,
    cast(gross_revenue_usd - credits_applied_usd as decimal(38, 6)) as net_revenue_usd,
    cast(
        gross_revenue_usd - credits_applied_usd + taxes_usd as decimal(38, 6)
    ) as total_invoiced_usd,
    invoice_count,
    case when is_uniform then currency end as currency_original,
    case when is_uniform then fx_rate end as fx_rate
from summed
