-- Ten users per organisation, on average.
with
    person as (
        select
            'user_' || lpad(to_hex((value * 2654435761 + cast(uniform($seed, 0, 101) * 4294967296 as bigint)) % 4294967296), 8, '0') as user_id,
            value as n,
            1 + cast(floor(uniform($seed, value, 401) * greatest(8, $events / 540)) as bigint) as org,
            uniform($seed, value, 402) as u_role
        from generate_series(1, 10 * greatest(8, $events / 540))
    )
select
    user_id,
    'org_' || lpad(to_hex((org * 2654435761 + cast(uniform($seed, 0, 100) * 4294967296 as bigint)) % 4294967296), 8, '0') as org_id,
    user_id || '@example.com' as email,
    case
        when u_role < 0.25 then 'data_engineer'
        when u_role < 0.45 then 'devops'
        when u_role < 0.61 then 'developer'
        when u_role < 0.75 then 'analyst'
        when u_role < 0.89 then 'ml_engineer'
        else 'admin'
    end as role,
    case when uniform($seed, n, 403) < 0.91 then 'True' else 'False' end as active,
    cast(cast(20332 - $days - 60 + floor(uniform($seed, n, 404) * (60 + $days * 2 / 3)) as int) as date) as created_at,
    case
        when uniform($seed, n, 405) >= 0.17
            then cast(cast(20332 - $days - 60 + floor(uniform($seed, n, 406) * (60 + $days)) as int) as date)
    end as last_login
from person
