-- Two rounds of surveys, which 58 % of the organisations answer; never twice on one day.
with
    answer as (
        select
            value as n,
            1 + (value - 1) / 2 as org,
            (value - 1) % 2 as round,
            (uniform($seed, value, 901) + uniform($seed, value, 902) + uniform($seed, value, 903) - 1.5) * 2 as z_score
        from generate_series(1, 2 * greatest(8, $events / 540))
    )
select
    'org_' || lpad(to_hex((org * 2654435761 + cast(uniform($seed, 0, 100) * 4294967296 as bigint)) % 4294967296), 8, '0') as org_id,
    cast(
        cast(20332 - $days - 40 + floor((round + uniform($seed, n, 904)) * floor((40 + $days) / 2)) as int) as date
    ) as survey_date,
    case when uniform($seed, n, 905) >= 0.2 then round(25 + 15 * z_score) end as nps_score,
    array_element(
        [null, 'Complex billing', 'Great support', 'Love genAI features', 'Missing features', 'Stable but slow', 'Too expensive'],
        1 + cast(floor(uniform($seed, n, 906) * 7) as bigint)
    ) as comment
from answer
where uniform($seed, n, 907) < 0.58
