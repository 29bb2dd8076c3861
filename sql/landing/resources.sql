-- Five resources per organisation, on average, and at least one. usage_events.sql draws a resource by its number and
-- gives the event the organisation, service and region that are computed here: change both together.
with
    resource as (
        select
            value as n,
            case
                when value <= greatest(8, $events / 540) then value
                else 1 + cast(floor(uniform($seed, value, 201) * greatest(8, $events / 540)) as bigint)
            end as org,
            uniform($seed, value, 202) as u_service,
            uniform($seed, value, 203) as u_region,
            uniform($seed, value, 501) as u_state,
            uniform($seed, value, 502) as u_tags,
            cast(floor(uniform($seed, value, 503) * 8) as bigint) as tag
        from generate_series(1, 5 * greatest(8, $events / 540))
    ),
    tagged as (
        select
            *,
            ['env:dev', 'team:ml', 'pii:true', 'env:prod', 'team:core', 'costcenter:beta', 'costcenter:alpha', 'backup:daily']
                as tags
        from resource
    )
select
    'res_' || lpad(to_hex((n * 2654435761 + cast(uniform($seed, 0, 102) * 4294967296 as bigint)) % 4294967296), 8, '0') as resource_id,
    'org_' || lpad(to_hex((org * 2654435761 + cast(uniform($seed, 0, 100) * 4294967296 as bigint)) % 4294967296), 8, '0') as org_id,
    case
        when u_service < 0.29 then 'compute'
        when u_service < 0.4675 then 'storage'
        when u_service < 0.6375 then 'database'
        when u_service < 0.7975 then 'networking'
        when u_service < 0.9025 then 'analytics'
        else 'genai'
    end as service,
    case
        when u_region < 0.18 then 'ap-northeast'
        when u_region < 0.3525 then 'us-east'
        when u_region < 0.505 then 'us-west'
        when u_region < 0.6475 then 'sa-east'
        when u_region < 0.785 then 'ap-south'
        when u_region < 0.90 then 'eu-west'
        else 'eu-central'
    end as region,
    cast(cast(20332 - $days - 60 + floor(uniform($seed, n, 504) * (60 + $days * 5 / 6)) as int) as date) as created_at,
    case when u_state < 0.605 then 'running' when u_state < 0.90 then 'stopped' else 'terminated' end as state,
    case
        when u_tags < 0.21 then null
        when u_tags < 0.47 then '["' || array_element(tags, 1 + tag) || '"]'
        when u_tags < 0.71
            then '["' || array_element(tags, 1 + tag) || '", "' || array_element(tags, 1 + (tag + 3) % 8) || '"]'
        else '["' || array_element(tags, 1 + tag) || '", "' || array_element(tags, 1 + (tag + 2) % 8) || '", "'
            || array_element(tags, 1 + (tag + 5) % 8) || '"]'
    end as tags_json
from tagged
