-- Nineteen touches per organisation, on average.
with
    touch as (
        select value as n, 1 + cast(floor(uniform($seed, value, 801) * greatest(8, $events / 540)) as bigint) as org
        from generate_series(1, greatest(8, $events / 540) * 75 / 4)
    )
select
    'mkt_' || lpad(to_hex((n * 2654435761 + cast(uniform($seed, 0, 105) * 4294967296 as bigint)) % 4294967296), 8, '0') as touch_id,
    'org_' || lpad(to_hex((org * 2654435761 + cast(uniform($seed, 0, 100) * 4294967296 as bigint)) % 4294967296), 8, '0') as org_id,
    array_element(
        ['genai_launch', 'security_week', 'upgrade_enterprise', 'upgrade_pro', 'webinar_finops', 'welcome'],
        1 + cast(floor(uniform($seed, n, 802) * 6) as bigint)
    ) as campaign,
    array_element(['ads', 'email', 'event', 'in_app'], 1 + cast(floor(uniform($seed, n, 803) * 4) as bigint)) as channel,
    cast(cast(20332 - $days - 60 + floor(uniform($seed, n, 804) * (60 + $days)) as int) as date) as timestamp,
    case when uniform($seed, n, 805) < 0.30 then 'True' else 'False' end as clicked,
    case when uniform($seed, n, 806) < 0.096 then 'True' else 'False' end as converted
from touch
