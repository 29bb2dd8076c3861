with

daily_usage as (
    select
        org_id,
        usage_date,
        total_genai_tokens as total_tokens,
        total_requests,
        total_cost_usd
    from gold.finops_daily_usage
    where service = 'genai'
)

select
    org_id,
    usage_date,
    total_tokens,
    total_requests,
    total_cost_usd,
    cast(
        decimal_divide(nullif(total_tokens, 0), total_requests, 0) as bigint
    ) as avg_tokens_per_request
from daily_usage
