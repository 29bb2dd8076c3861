with

events as (
    select * from accepted.usage_events
),

services as (
    select * from reference.service_taxonomy
),

regions as (
    select * from reference.region_codes
),

metric_units as (
    select * from reference.metric_units
),

-- an empty text says nothing: it is null, as in the batch sources
emptied as (
    select
        event_id,
        timestamp,
        org_id,
        nullif(resource_id, '') as resource_id,
        nullif(user_id, '') as user_id,
        nullif(service, '') as service_raw,
        nullif(region, '') as region_raw,
        nullif(metric, '') as metric,
        value,
        nullif(unit, '') as unit,
        cost_usd_increment,
        cast(coalesce(schema_version, 1) as int) as schema_version,
        carbon_kg,
        genai_tokens,
        is_late,
        ingest_ts,
        source_file,
        source_line,
        batch_id,
        _rescued,
        date
    from events
),

conformed as (
    select
        emptied.*,
        coalesce(services.service, 'unknown') as service,
        coalesce(regions.region, 'unknown') as region,
        emptied.value is not null and emptied.unit is null as unit_imputed,
        coalesce(metric_units.unit, 'count') as unit_of_metric
    from emptied
    left join services on fold(emptied.service_raw) = services.variant
    left join regions on fold(emptied.region_raw) = regions.variant
    left join metric_units on emptied.metric = metric_units.metric
)

select
    event_id,
    timestamp,
    org_id,
    resource_id,
    user_id,
    service,
    service_raw,
    region,
    region_raw,
    metric,
    value,
    case when unit_imputed then unit_of_metric else unit end as unit,
    unit_imputed,
    cost_usd_increment,
    schema_version,
    carbon_kg,
    genai_tokens,
    is_late,
    ingest_ts,
    source_file,
    source_line,
    batch_id,
    _rescued,
    date
from conformed
