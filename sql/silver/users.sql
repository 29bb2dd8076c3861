with

users as (
    select * from accepted.users
)

select
    user_id,
    org_id,
    lower(nullif(email, '')) as email,
    nullif(role, '') as role,
    active,
    created_at,
    last_login,
    source_file,
    source_line,
    ingest_ts,
    batch_id,
    _rescued,
    date
from users
