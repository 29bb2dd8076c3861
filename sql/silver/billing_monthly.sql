with

invoices as (
    select * from accepted.billing_monthly
),

-- an invoice in USD has the rate 1, whatever its file says
rated as (
    select
        *,
        case
            when currency = 'USD' then cast(1 as decimal(18, 6))
            else exchange_rate_to_usd
        end as fx_rate
    from invoices
)

select
    invoice_id,
    org_id,
    month,
    subtotal,
    cast(coalesce(credits, 0) as decimal(18, 6)) as credits,
    cast(coalesce(taxes, 0) as decimal(18, 6)) as taxes,
    currency,
    exchange_rate_to_usd,
    fx_rate,
    cast(subtotal * fx_rate as decimal(18, 6)) as cost_usd,
    subtotal < 0 as is_credit_note,
    source_file,
    source_line,
    ingest_ts,
    batch_id,
    _rescued,
    date
from rated
