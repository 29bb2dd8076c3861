-- Keys and items of maps and lists are cast to `Utf8`: gathering thousands of lists of text views costs time and
-- memory in the square of their number.
with

organisations as (
    select org_id from silver.customers_orgs
),

users as (
    select
        org_id,
        arrow_cast(coalesce(role, 'unknown'), 'Utf8') as role,
        active
    from silver.users
),

resources as (
    select org_id, service, tags_json
    from silver.resources
),

services as (
    select * from reference.service_taxonomy
),

surveys as (
    select org_id, survey_date, nps_score
    from silver.nps_surveys
    where nps_score is not null
),

touches as (
    select
        org_id,
        arrow_cast(coalesce(channel, 'unknown'), 'Utf8') as channel,
        clicked,
        converted
    from silver.marketing_touches
),

counted_roles as (
    select
        org_id,
        role,
        cast(count(*) as int) as num_users,
        count(*) filter (where active) as num_active
    from users
    group by org_id, role
),

user_profiles as (
    select
        org_id,
        map(
            array_agg(role order by role),
            array_agg(num_users order by role)
        ) as users_by_role,
        sum(num_active) as active_users
    from counted_roles
    group by org_id
),

conformed_resources as (
    select
        resources.org_id,
        arrow_cast(coalesce(services.service, 'unknown'), 'Utf8') as service
    from resources
    left join services on fold(resources.service) = services.variant
),

counted_resources as (
    select org_id, service, cast(count(*) as int) as num_resources
    from conformed_resources
    group by org_id, service
),

resource_profiles as (
    select
        org_id,
        map(
            array_agg(service order by service),
            array_agg(num_resources order by service)
        ) as resources_by_service
    from counted_resources
    group by org_id
),

unnested_tags as (
    select org_id, arrow_cast(unnest(tags_json), 'Utf8') as tag
    from resources
),

tag_profiles as (
    select org_id, array_agg(distinct tag order by tag) as tags
    from unnested_tags
    where tag is not null
    group by org_id
),

survey_profiles as (
    select
        org_id,
        max(survey_date) as last_nps_date,
        last_value(nps_score order by survey_date) as last_nps_score
    from surveys
    group by org_id
),

counted_channels as (
    select
        org_id,
        channel,
        cast(count(*) as int) as num_touches,
        cast(count(*) filter (where clicked) as int) as num_clicks,
        cast(count(*) filter (where converted) as int) as num_conversions
    from touches
    group by org_id, channel
),

touch_profiles as (
    select
        org_id,
        map(
            array_agg(channel order by channel),
            array_agg(num_touches order by channel)
        ) as touches_by_channel,
        map(
            array_agg(channel order by channel) filter (where num_clicks > 0),
            array_agg(num_clicks order by channel) filter (where num_clicks > 0)
        ) as clicks_by_channel,
        map(
            array_agg(channel order by channel) filter (where num_conversions > 0),
            array_agg(num_conversions order by channel) filter (where num_conversions > 0)
        ) as conversions_by_channel
    from counted_channels
    group by org_id
),

joined as (
    select
        organisations.org_id,
        user_profiles.users_by_role,
        user_profiles.active_users,
        resource_profiles.resources_by_service,
        tag_profiles.tags,
        survey_profiles.last_nps_date,
        survey_profiles.last_nps_score,
        touch_profiles.touches_by_channel,
        touch_profiles.clicks_by_channel,
        touch_profiles.conversions_by_channel
    from organisations
    left join user_profiles on organisations.org_id = user_profiles.org_id
    left join resource_profiles on organisations.org_id = resource_profiles.org_id
    left join tag_profiles on organisations.org_id = tag_profiles.org_id
    left join survey_profiles on organisations.org_id = survey_profiles.org_id
    left join touch_profiles on organisations.org_id = touch_profiles.org_id
)

select
    org_id,
    coalesce(users_by_role, map {}) as users_by_role,
    coalesce(active_users, 0) as active_users,
    coalesce(resources_by_service, map {}) as resources_by_service,
    coalesce(tags, []) as tags,
    last_nps_date,
    last_nps_score,
    coalesce(touches_by_channel, map {}) as touches_by_channel,
    coalesce(clicks_by_channel, map {}) as clicks_by_channel,
    coalesce(conversions_by_channel, map {}) as conversions_by_channel
from joined
