with

users as (
    select * from versions.users
)

select
    user_id,
    org_id,
    lower(nullif(email, '')) as email,
    nullif(role, '') as role,
    active,
    created_at,
    last_login,
    version,
    valid_from,
    valid_to,
    is_current,
    source_file,
    source_line,
    ingest_ts,
    batch_id,
    _rescued,
    date
from users
