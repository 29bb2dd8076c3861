with

events as (
    select * from silver.usage_events_conformed
),

organisations as (
    select org_id, org_name, industry, plan_tier, hq_region, version, valid_from, valid_to
    from silver.customers_orgs_history
),

users as (
    select user_id, role, active, version, valid_from, valid_to
    from silver.users_history
),

resources as (
    select resource_id, service, state, tags_json, version, valid_from, valid_to
    from silver.resources_history
),

-- a null metric is a metric like any other: `metric_key` makes it one that joins
organisation_baselines as (
    select *, coalesce('=' || metric, '') as metric_key
    from silver.cost_baselines
    where org_id is not null
),

service_baselines as (
    select *, coalesce('=' || metric, '') as metric_key
    from silver.cost_baselines
    where org_id is null
),

keyed as (
    select *, coalesce('=' || metric, '') as metric_key
    from events
),

-- the version that was current at the event's time, the first one for earlier events
enriched as (
    select
        keyed.*,
        organisations.org_name,
        organisations.industry,
        organisations.plan_tier,
        organisations.hq_region,
        users.role as user_role,
        users.active as user_active,
        resources.service as resource_service,
        resources.state as resource_state,
        resources.tags_json as resource_tags
    from keyed
    left join organisations
        on keyed.org_id = organisations.org_id
        and (organisations.version = 1 or keyed.timestamp >= organisations.valid_from)
        and (organisations.valid_to is null or keyed.timestamp < organisations.valid_to)
    left join users
        on keyed.user_id = users.user_id
        and (users.version = 1 or keyed.timestamp >= users.valid_from)
        and (users.valid_to is null or keyed.timestamp < users.valid_to)
    left join resources
        on keyed.resource_id = resources.resource_id
        and (resources.version = 1 or keyed.timestamp >= resources.valid_from)
        and (resources.valid_to is null or keyed.timestamp < resources.valid_to)
),

-- what was normal: for the organisation where it has enough events, else for the service
compared as (
    select
        enriched.*,
        cast(enriched.cost_usd_increment as double) as cost,
        coalesce(organisation_baselines.mean, service_baselines.mean) as mean,
        coalesce(organisation_baselines.sd, service_baselines.sd) as sd,
        coalesce(organisation_baselines.median, service_baselines.median) as median,
        coalesce(organisation_baselines.mad, service_baselines.mad) as mad,
        coalesce(organisation_baselines.p99, service_baselines.p99) as p99
    from enriched
    left join organisation_baselines
        on enriched.date = organisation_baselines.date
        and enriched.org_id = organisation_baselines.org_id
        and enriched.service = organisation_baselines.service
        and enriched.metric_key = organisation_baselines.metric_key
    left join service_baselines
        on enriched.date = service_baselines.date
        and enriched.service = service_baselines.service
        and enriched.metric_key = service_baselines.metric_key
),

scored as (
    select
        *,
        (cost - mean) / nullif(sd, 0) as anomaly_score,
        0.6745 * (cost - median) / nullif(mad, 0) as mad_score
    from compared
),

flagged as (
    select
        *,
        coalesce(anomaly_score > 3, false) as is_anomaly_zscore,
        coalesce(mad_score > 3.5, false) as is_anomaly_mad,
        coalesce(cost > 1.5 * p99, false) as is_anomaly_p99
    from scored
)

select
    event_id,
    timestamp,
    org_id,
    resource_id,
    user_id,
    service_raw,
    region,
    region_raw,

    metric,
    value,
    unit,
    unit_imputed,
    cost_usd_increment,
    schema_version,
    carbon_kg,
    genai_tokens,

    org_name,
    industry,
    plan_tier,
    hq_region,
    user_role,
    user_active,
    resource_service,
    resource_state,
    resource_tags,

    anomaly_score,
    mad_score,
    is_anomaly_zscore,
    is_anomaly_mad,
    is_anomaly_p99,
    cast(is_anomaly_zscore as int) + cast(is_anomaly_mad as int)
        + cast(is_anomaly_p99 as int) >= 2 as is_anomaly,

    is_late,
    ingest_ts,
    source_file,
    source_line,
    batch_id,
    _rescued,
    date,
    service
from flagged
