-- One organisation per 540 events, at least 8; all of them signed up in the 60 days before the first event.
with
    organisation as (
        select
            value as n,
            uniform($seed, value, 301) as u_tier,
            uniform($seed, value, 302) as u_stage,
            (uniform($seed, value, 303) + uniform($seed, value, 304) + uniform($seed, value, 305) - 1.5) * 2 as z_nps
        from generate_series(1, greatest(8, $events / 540))
    )
select
    'org_' || lpad(to_hex((n * 2654435761 + cast(uniform($seed, 0, 100) * 4294967296 as bigint)) % 4294967296), 8, '0') as org_id,
    array_element(
        ['Alpha', 'Apex', 'Beta', 'Delta', 'Gamma', 'Nimbus', 'Nova', 'Omega', 'Vertex', 'Zenith'],
        1 + cast(floor(uniform($seed, n, 306) * 10) as bigint)
    ) || ' ' || array_element(
        ['AI', 'Cloud', 'Data', 'Digital', 'Labs', 'Tech'],
        1 + cast(floor(uniform($seed, n, 307) * 6) as bigint)
    ) || ' ' || cast(n - 1 as text) as org_name,
    array_element(
        ['E-commerce', 'Education', 'Energy', 'Fintech', 'Gaming', 'Government', 'Healthcare', 'Manufacturing', 'Media', 'Retail'],
        1 + cast(floor(uniform($seed, n, 308) * 10) as bigint)
    ) as industry,
    array_element(
        ['ap-northeast', 'ap-south', 'eu-central', 'eu-west', 'sa-east', 'us-east', 'us-west'],
        1 + cast(floor(uniform($seed, n, 309) * 7) as bigint)
    ) as hq_region,
    case
        when u_tier < 0.51 then 'standard'
        when u_tier < 0.77 then 'pro'
        when u_tier < 0.90 then 'enterprise'
        else 'free'
    end as plan_tier,
    case when uniform($seed, n, 310) < 0.21 then 'True' else 'False' end as is_enterprise,
    cast(cast(20332 - $days - 60 + floor(uniform($seed, n, 311) * 60) as int) as date) as signup_date,
    array_element(
        ['rep_a', 'rep_b', 'rep_c', 'rep_d', 'rep_e'], 1 + cast(floor(uniform($seed, n, 312) * 5) as bigint)
    ) as sales_rep,
    case
        when u_stage < 0.68 then 'active'
        when u_stage < 0.82 then 'at_risk'
        when u_stage < 0.89 then 'churned'
        when u_stage < 0.96 then 'prospect'
        else 'lead'
    end as lifecycle_stage,
    array_element(
        ['ads', 'event', 'organic', 'partner', 'referral'], 1 + cast(floor(uniform($seed, n, 313) * 5) as bigint)
    ) as marketing_source,
    case when uniform($seed, n, 314) >= 0.14 then round(17 + 25 * z_nps) end as nps_score
from organisation
