//! What a query sees: tables of the lake, restricted to the dates that it needs, the accepted records of a source and their
//! versions, reference tables and views.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionContext, col, not};

use super::decide::{quoted, versions_table};
use super::dirty::{dates_of, stored_table};
use super::recent::Append;
use super::{Run, runs};
use crate::engine;
use crate::error::{Error, Result};
use crate::lake::scan::LakeScan;
use crate::lake::table::Table;
use crate::ledger;
use crate::project::model::{Model, Span};
use crate::project::source::{DATE, Mode};
use crate::project::sql::{PARTITIONS_SUFFIX, TableName};
use crate::zone;

/// Registers the named tables whole, with the reference tables and views that they need.
///
/// # Errors
/// `Usage` where the project has no such table, and those of reading.
pub async fn register_named(run: &Run, context: &SessionContext, names: &BTreeSet<TableName>) -> Result<()> {
    register_dates_of(run, context, names, None).await
}

/// As [`register_named`], but tables that are partitioned by a date first hold only `dates`.
///
/// # Errors
/// As [`register_named`].
pub async fn register_dates_of(
    run: &Run,
    context: &SessionContext,
    names: &BTreeSet<TableName>,
    dates: Option<&BTreeSet<i32>>,
) -> Result<()> {
    register_instead(run, context, names, dates, None).await
}

/// As [`register_dates_of`], but `instead` stands for the table of its name.
///
/// # Errors
/// As [`register_named`].
pub async fn register_instead(
    run: &Run,
    context: &SessionContext,
    names: &BTreeSet<TableName>,
    dates: Option<&BTreeSet<i32>>,
    instead: Option<&Table>,
) -> Result<()> {
    register_references(run, context)?;
    let mut stored: BTreeSet<&TableName> = BTreeSet::new();
    for name in names {
        match run.project.model(name) {
            Some(view) if view.is_view => stored.extend(view.inputs.keys()),
            _ if name.schema == zone::REFERENCE => {}
            _ => {
                refuse_unknown(run, name)?;
                stored.insert(name);
            }
        }
    }
    for input in &stored {
        let dates = dates.filter(|_| is_by_date(run, input));
        match instead.filter(|table| table.name() == stored_table(input).to_string()) {
            Some(table) => register_table(run, context, input, table, dates)?,
            None => register_input(run, context, input, dates.cloned()).await?,
        }
    }
    register_views(run, context, |input| stored.contains(input)).await
}

/// Whether a stored table's first partition column is a date.
pub fn is_by_date(run: &Run, table: &TableName) -> bool {
    run.declared(&stored_table(table)).is_ok_and(|(schema, partition)| {
        let first = partition.first().and_then(|name| schema.field_with_name(name).ok());
        first.is_some_and(|field| *field.data_type() == arrow::datatypes::DataType::Date32)
    })
}

/// # Errors
/// `Usage`, listing the zone's tables, where there is no table of that name.
fn refuse_unknown(run: &Run, name: &TableName) -> Result<()> {
    if run.declared(&stored_table(name)).is_ok() {
        return Ok(());
    }
    let of_zone = |zone: &str| -> Vec<String> {
        match zone {
            zone::BRONZE | zone::QUARANTINE | zone::ACCEPTED | zone::VERSIONS => {
                run.project.sources.iter().map(|source| source.name.clone()).collect()
            }
            zone::LEDGER => {
                let tables = ledger::schemas().map(|(table, _)| table);
                tables.into_iter().chain([ledger::STEPS]).map(str::to_owned).collect()
            }
            _ => {
                let models = run.project.models.iter().filter(|model| model.table.schema == zone);
                models.map(|model| model.table.table.clone()).collect()
            }
        }
    };
    let known = of_zone(&name.schema);
    Err(Error::usage(match known.is_empty() {
        true => format!(
            "there is no zone `{}`; known: bronze, accepted, versions, silver, gold, quarantine, reference, ledger",
            name.schema
        ),
        false => format!("there is no table `{name}`; `{}` has: {}", name.schema, known.join(", ")),
    }))
}

/// Registers the views whose inputs are all there; models come in reading order, so a view finds the views before it.
async fn register_views(
    run: &Run,
    context: &SessionContext,
    is_there: impl Fn(&TableName) -> bool,
) -> Result<()> {
    for view in run.project.models.iter().filter(|model| model.is_view) {
        if view.inputs.keys().all(&is_there) {
            let frame = context.sql(&view.sql).await?;
            engine::register(context, &view.table, frame.into_view());
        }
    }
    Ok(())
}

/// Registers the project's reference tables.
///
/// # Errors
/// Never in practice.
pub fn register_references(run: &Run, context: &SessionContext) -> Result<()> {
    for reference in &run.project.references {
        let rows = reference.rows.clone();
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        engine::register(context, &TableName::new(zone::REFERENCE, &reference.name), Arc::new(table));
    }
    Ok(())
}

/// A context in which the model's query sees its inputs, restricted to what `dates` need.
///
/// # Errors
/// As [`register_input`].
pub async fn model_context(
    run: &Run,
    model: &Model,
    dates: Option<&BTreeSet<i32>>,
) -> Result<SessionContext> {
    context_with(run, model, dates, None).await
}

/// A context in which the model's query sees, of one input, a table, only these rows.
///
/// # Errors
/// As [`register_input`].
pub async fn context_of_rows(
    run: &Run,
    model: &Model,
    dates: &BTreeSet<i32>,
    input: &TableName,
    rows: Vec<RecordBatch>,
) -> Result<SessionContext> {
    let (schema, _) = run.declared(input)?;
    context_with(
        run,
        model,
        Some(dates),
        Some((input, Arc::new(LakeScan::in_memory(schema, Arc::new(rows))))),
    )
    .await
}

/// A context in which the model's query sees, of one input, only the records that are appended.
///
/// # Errors
/// As [`register_input`].
pub async fn append_context(run: &Run, model: &Model, append: &Append) -> Result<SessionContext> {
    let source = run.project.source(&append.input.table);
    let source = source.ok_or_else(|| Error::bug(format!("there is no source behind `{}`", append.input)))?;
    let rows = Arc::new(LakeScan::in_memory(source.bronze_schema(), Arc::new(append.rows.clone())));
    context_with(run, model, Some(&append.dates), Some((&append.input, rows))).await
}

async fn context_with(
    run: &Run,
    model: &Model,
    dates: Option<&BTreeSet<i32>>,
    instead: Option<(&TableName, Arc<LakeScan>)>,
) -> Result<SessionContext> {
    let context = engine::context(&run.state);
    register_references(run, &context)?;
    for (input, span) in &model.inputs {
        if let Some((name, rows)) = &instead
            && *name == input
        {
            engine::register(&context, input, Arc::clone(rows) as Arc<dyn TableProvider>);
            continue;
        }
        let wanted = match (span, dates) {
            (Span::Days { from, to }, Some(dates)) => Some(
                dates
                    .iter()
                    .flat_map(|date| (*from..=*to).map(|days| date.saturating_sub(days.cast_signed())))
                    .collect(),
            ),
            _ => None,
        };
        register_input(run, &context, input, wanted).await?;
    }
    register_views(run, &context, |input| model.inputs.contains_key(input)).await?;
    Ok(context)
}

/// Lets a query read `input`: a table of the lake, the accepted records of a source, or their versions.
///
/// # Errors
/// Those of deciding and of the store.
pub async fn register_input(
    run: &Run,
    context: &SessionContext,
    input: &TableName,
    wanted: Option<BTreeSet<i32>>,
) -> Result<()> {
    if matches!(input.schema.as_str(), zone::ACCEPTED | zone::VERSIONS) {
        return register_decided(run, context, input, wanted).await;
    }
    let table = run.table(&stored_table(input))?;
    if input.schema == zone::LEDGER && input.table == ledger::STEPS {
        let rows = runs::steps(table).await?;
        engine::register(
            context,
            input,
            Arc::new(MemTable::try_new(ledger::steps_schema(), vec![vec![rows]])?),
        );
        return Ok(());
    }
    register_table(run, context, input, table, wanted.as_ref())
}

fn register_table(
    run: &Run,
    context: &SessionContext,
    input: &TableName,
    table: &Table,
    wanted: Option<&BTreeSet<i32>>,
) -> Result<()> {
    if input.table.ends_with(PARTITIONS_SUFFIX) {
        return register_partitions(run, context, input, table);
    }
    let (schema, partition) = run.declared(input)?;
    let provider = run.scan(table, schema, &partition, wanted)?;
    engine::register(context, input, Arc::new(provider));
    Ok(())
}

fn register_partitions(run: &Run, context: &SessionContext, input: &TableName, table: &Table) -> Result<()> {
    let stored = stored_table(input);
    let (schema, partition) = run.declared(&stored)?;
    let num_file_columns = schema.fields().len() - partition.len();
    let fields = schema.fields()[num_file_columns..].to_vec();
    let keys = table.partitions(partition.len());
    let columns = fields
        .iter()
        .enumerate()
        .map(|(at, field)| {
            let values = keys.iter().map(|key| match &key[at] {
                Some(text) => ScalarValue::try_from_string(text.clone(), field.data_type()),
                None => ScalarValue::try_from(field.data_type()),
            });
            let values = values.collect::<datafusion::error::Result<Vec<_>>>()?;
            match values.is_empty() {
                true => Ok(arrow::array::new_empty_array(field.data_type())),
                false => ScalarValue::iter_to_array(values),
            }
        })
        .collect::<datafusion::error::Result<Vec<_>>>()?;
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    engine::register(context, input, Arc::new(MemTable::try_new(schema, vec![vec![batch]])?));
    Ok(())
}

/// `accepted.<source>` is bronze without the records that were not accepted; `versions.<source>` is bronze with each
/// record's place in the history of its key.
async fn register_decided(
    run: &Run,
    context: &SessionContext,
    input: &TableName,
    wanted: Option<BTreeSet<i32>>,
) -> Result<()> {
    let source = run
        .project
        .source(&input.table)
        .ok_or_else(|| Error::bug(format!("there is no source behind `{input}`")))?;
    let bronze = run.bronze_of(&source.name)?;
    let dates = match source.mode {
        Mode::Events => Some(match wanted {
            Some(wanted) => &wanted & &dates_of(bronze.partitions(1)),
            None => dates_of(bronze.partitions(1)),
        }),
        Mode::Upserts => None,
    };
    let decided = run.decided(source, dates.as_ref()).await?;
    let schema = source.bronze_schema();
    let name = TableName::new(zone::BRONZE, &source.name);
    let provider = run.scan(bronze, schema, &[DATE.to_owned()], dates.as_ref())?;
    let bronze_name = quoted(&source.name);
    if input.schema == zone::VERSIONS {
        engine::register(context, &name, Arc::new(provider));
        let versions = TableName::new(zone::BRONZE, &format!("{}$versions", source.name));
        engine::register(context, &versions, versions_table(&decided.versions)?);
        let query = format!(
            "select b.*, v.version, v.valid_from, v.valid_to, v.is_current from bronze.{bronze_name} b join \
             bronze.{} v on b.source_file = v.source_file and b.source_line = v.source_line",
            quoted(&versions.table)
        );
        let frame = context.sql(&query).await?;
        engine::register(context, input, frame.into_view());
        return Ok(());
    }
    let is_wanted = |date: &i32| dates.as_ref().is_none_or(|dates| dates.contains(date));
    let rejected: Vec<_> =
        decided.rejected.iter().filter(|(date, _)| is_wanted(date)).flat_map(|(_, places)| places).collect();
    if rejected.is_empty() {
        engine::register(context, input, Arc::new(provider));
        return Ok(());
    }
    let places = rejected.into_iter().map(|(file, line)| (file.as_ref(), *line));
    let is_rejected = engine::is_listed(col("source_file"), col("source_line"), places)?;
    let frame = context.read_table(Arc::new(provider))?.filter(not(is_rejected))?;
    engine::register(context, input, frame.into_view());
    Ok(())
}
