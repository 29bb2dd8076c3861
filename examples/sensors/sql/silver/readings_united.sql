with

streamed as (
    select
        device_id,
        timestamp as measured_at,
        metric as metric_raw,
        value as value_raw,
        nullif(unit, '') as unit_raw,
        battery_percent,
        'readings' as source,
        is_late,
        ingest_ts,
        source_file,
        source_line,
        batch_id,
        _rescued,
        date
    from accepted.readings
),

logged as (
    select
        device as device_id,
        recorded_at as measured_at,
        channel as metric_raw,
        reading as value_raw,
        nullif(unit, '') as unit_raw,
        cast(null as int) as battery_percent,
        'logger_exports' as source,
        is_late,
        ingest_ts,
        source_file,
        source_line,
        batch_id,
        _rescued,
        date
    from accepted.logger_exports
),

metrics as (
    select * from reference.metrics
),

units as (
    select
        variant,
        unit,
        cast(subtract as decimal(18, 6)) as subtract,
        cast(multiply as decimal(18, 6)) as multiply,
        cast(divide as decimal(18, 6)) as divide
    from reference.units
),

united as (
    select * from streamed
    union all
    select * from logged
),

conformed as (
    select
        united.*,
        coalesce(metrics.metric, fold(united.metric_raw)) as metric,
        metrics.unit,
        united.unit_raw is null as unit_imputed,
        coalesce(fold(united.unit_raw), metrics.unit) as unit_variant
    from united
    left join metrics on fold(united.metric_raw) = metrics.variant
),

-- a unit counts only where it measures the metric: 20 ppm are no temperature
converted as (
    select
        conformed.*,
        decimal_divide((value_raw - units.subtract) * units.multiply, units.divide, 6) as value
    from conformed
    left join units on conformed.unit_variant = units.variant and conformed.unit = units.unit
)

select
    device_id,
    measured_at,
    metric,
    metric_raw,
    value,
    value_raw,
    unit,
    unit_raw,
    unit_imputed,
    battery_percent,
    source,
    is_late,
    ingest_ts,
    source_file,
    source_line,
    batch_id,
    _rescued,
    date
from converted
