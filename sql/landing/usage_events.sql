-- $events events, evenly over the $days days that end with 2025-08-31. Every row is computed from its number alone:
-- nothing is sorted, joined or aggregated, so that any number of events streams.
with
    event as (
        select
            value as n,
            1 + cast(floor(uniform($seed, value, 1) * (5 * greatest(8, $events / 540))) as bigint) as resource,
            value % $days as day,
            uniform($seed, value, 2) as u_metric,
            -- about normal, with mean 0 and deviation 1
            (uniform($seed, value, 3) + uniform($seed, value, 4) + uniform($seed, value, 5) - 1.5) * 2 as z_value,
            (uniform($seed, value, 6) + uniform($seed, value, 7) + uniform($seed, value, 8) - 1.5) * 2 as z_cost,
            (uniform($seed, value, 9) + uniform($seed, value, 10) + uniform($seed, value, 11) - 1.5) * 2 as z_tokens,
            uniform($seed, value, 12) as u_odd,
            uniform($seed, value, 13) as u_odd_size,
            uniform($seed, value, 14) as u_value,
            uniform($seed, value, 15) as u_unit
        from generate_series(1, $events)
    ),
    -- the resource's organisation, service and region, as in resources.sql
    placed as (
        select
            *,
            case
                when resource <= greatest(8, $events / 540) then resource
                else 1 + cast(floor(uniform($seed, resource, 201) * greatest(8, $events / 540)) as bigint)
            end as org,
            uniform($seed, resource, 202) as u_service,
            uniform($seed, resource, 203) as u_region,
            case when day < $days / 4 then 1 else 2 end as schema_version,
            case
                when u_metric < 0.4517 then 'requests'
                when u_metric < 0.7525 then 'storage_gb_hours'
                else 'cpu_hours'
            end as metric
        from event
    ),
    measured as (
        select
            *,
            case
                when u_service < 0.29 then 'compute'
                when u_service < 0.4675 then 'storage'
                when u_service < 0.6375 then 'database'
                when u_service < 0.7975 then 'networking'
                when u_service < 0.9025 then 'analytics'
                else 'genai'
            end as service,
            case metric
                when 'requests' then round(120 + 11 * z_value)
                when 'storage_gb_hours' then round(greatest(0, 10 + 8 * z_value), 4)
                else round(greatest(0, 1.8 + 1.5 * z_value), 4)
            end as used
        from placed
    )
select
    'evt_' || lpad(to_hex((n * 2654435761 + cast(uniform($seed, 0, 106) * 4294967296 as bigint)) % 4294967296), 8, '0')
        || lpad(to_hex(cast(uniform($seed, n, 16) * 65536 as bigint)), 4, '0') as event_id,
    to_timestamp_seconds((20332 - $days + day) * 86400 + cast(floor(uniform($seed, n, 17) * 1440) as bigint) * 60)
        as timestamp,
    'org_' || lpad(to_hex((org * 2654435761 + cast(uniform($seed, 0, 100) * 4294967296 as bigint)) % 4294967296), 8, '0') as org_id,
    'res_' || lpad(to_hex((resource * 2654435761 + cast(uniform($seed, 0, 102) * 4294967296 as bigint)) % 4294967296), 8, '0') as resource_id,
    service,
    case
        when u_region < 0.18 then 'ap-northeast'
        when u_region < 0.3525 then 'us-east'
        when u_region < 0.505 then 'us-west'
        when u_region < 0.6475 then 'sa-east'
        when u_region < 0.785 then 'ap-south'
        when u_region < 0.90 then 'eu-west'
        else 'eu-central'
    end as region,
    metric,
    case when u_value >= 0.02 then used end as value,
    u_value >= 0.97 as "value$text",
    case
        when u_unit < 0.048 then null
        when metric = 'requests' then 'count'
        when metric = 'storage_gb_hours' then 'gb_hours'
        else 'hours'
    end as unit,
    round(
        used * (1 + 0.15 * z_cost)
        * case service
            when 'compute' then 0.08
            when 'storage' then 0.02
            when 'database' then 0.05
            when 'networking' then 0.01
            when 'analytics' then 0.07
            else 0.12
        end
        -- one in 200 is a spike, one in 200 is wrong and negative
        * case
            when u_odd < 0.0045 then 11 + 14 * u_odd_size
            when u_odd < 0.005 then 4 + 7 * u_odd_size
            when u_odd < 0.0103 then -0.8 - 0.4 * u_odd_size
            when u_odd < 0.0104 then -20.0
            else 1.0
        end,
        4
    ) as cost_usd_increment,
    schema_version,
    case when u_value >= 0.02 then round(used * 0.0002, 6) else 0.0 end as carbon_kg,
    schema_version < 2 as "carbon_kg$absent",
    cast(round(greatest(0, 800 + 475 * z_tokens)) as bigint) as genai_tokens,
    schema_version < 2 or service <> 'genai' as "genai_tokens$absent"
from measured
