//! One model, computed and committed: read the inputs' versions → compute → check → commit once.
//!
//! Dates are computed in groups of bounded size, so memory does not grow with the lake; all groups are one commit.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::Date32Type;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionContext, col, not};
use futures::TryStreamExt;
use serde_json::json;

use super::Run;
use super::decide::{hashes, partition_keys, quoted, versions_table};
use super::dirty::{self, Work, dates_of, stored_table};
use super::recent::{Append, Part};
use crate::engine;
use crate::error::{During, Error, Result};
use crate::lake::scan::LakeScan;
use crate::lake::table::{Change, Commit, Table};
use crate::lake::write::date_text;
use crate::project::fingerprint;
use crate::project::model::{Model, Span};
use crate::project::source::{DATE, Mode};
use crate::project::sql::{PARTITIONS_SUFFIX, TableName};
use crate::zone;

/// Rows of same-date inputs that one group of dates may read.
const GROUP_ROWS: u64 = 300_000;

/// Rows of look-back inputs that one group of dates may read: they are narrow.
const WINDOW_ROWS: u64 = 6_000_000;

/// Rows of a new table that may stay in memory for the models after it.
const CACHED_ROWS: usize = 128 * 1024;

/// A model's new rows, written but not yet committed.
#[derive(Debug)]
pub struct Computed {
    pub table: Table,
    pub commit: Commit,
    pub rows: u64,
    /// Partitions that came out as they were, and were left as they are.
    pub num_unchanged: usize,
    pub cache: Option<Vec<RecordBatch>>,
}

/// Computes what is dirty and writes its files. The caller commits, so that the files of several models become durable
/// together.
///
/// # Errors
/// Those of the query and of the stores; `Data` where the model's key is not unique.
pub async fn compute(run: &Run, model: &Model, part: &Part) -> Result<Computed> {
    compute_part(run, model, part)
        .await
        .during(|| format!("computing `{}` ({})", model.table, model.file.display()))
}

async fn compute_part(run: &Run, model: &Model, part: &Part) -> Result<Computed> {
    let mut computed = match (&part.work, &part.append) {
        (Work::Nothing, Some(append)) => append_rows(run, model, append).await?,
        (work, append) => {
            let mut computed = compute_groups(run, model, work).await?;
            if let Some(append) = append {
                let appended = append_rows(run, model, append).await?;
                computed.commit.adds.extend(appended.commit.adds);
                computed.rows += appended.rows;
                computed.cache = None;
            }
            computed
        }
    };
    if part.leaves_some {
        // what else has changed still waits
        computed.commit.positions.retain(|name, _| name == dirty::FORM);
    }
    Ok(computed)
}

/// The model's rows of some accepted records, for a commit that adds them.
async fn append_rows(run: &Run, model: &Model, append: &Append) -> Result<Computed> {
    let table = run.table(&model.table)?.clone();
    let tags = BTreeMap::from([("fingerprint".to_owned(), Some(model.fingerprint.clone()))]);
    let unique = if model.key.len() == 1 { model.key.clone() } else { Vec::new() };
    let mut writer = table
        .writer(Arc::clone(&model.schema), &model.partition)
        .with_unique_columns(&unique)
        .with_tags(tags);
    let mut rows = 0;
    if !append.rows.is_empty() {
        let context = append_context(run, model, append).await?;
        let mut keys = UniqueKey::new(model);
        let mut stream = context.sql(&model.sql).await?.execute_stream().await?;
        while let Some(batch) = stream.try_next().await? {
            let batch = only_dates(&batch, model, Some(&append.dates))?;
            rows += batch.num_rows() as u64;
            keys.check(&batch)?;
            writer.write(&batch).await?;
        }
    }
    let commit = Commit {
        change: Change::Append,
        schema: Arc::clone(&model.schema),
        partition: model.partition.clone(),
        adds: writer.close().await?,
        positions: dirty::positions(run, model)?,
        once: None,
        info: json!({"run": run.id, "rows": rows}),
        description: model.description.clone(),
    };
    Ok(Computed { table, commit, rows, num_unchanged: 0, cache: None })
}

async fn compute_groups(run: &Run, model: &Model, work: &Work) -> Result<Computed> {
    let table = run.table(&model.table)?.clone();
    let mut positions = dirty::positions(run, model)?;
    let form = fingerprint::position(&model.fingerprint);
    if dirty::becomes_current(run, model, work)? {
        positions.insert(dirty::FORM.to_owned(), form);
    } else if table.position(dirty::FORM) != Some(form) {
        // of several forms from now on
        positions.insert(dirty::FORM.to_owned(), 0);
    }
    let tags = BTreeMap::from([(dirty::FORM.to_owned(), Some(model.fingerprint.clone()))]);
    let unique = if model.key.len() == 1 { model.key.clone() } else { Vec::new() };
    let mut adds = Vec::new();
    let mut rows = 0;
    let mut cache = is_whole(&table, work).then(Vec::new);
    let mut room = CACHED_ROWS;
    let groups: Vec<Option<BTreeSet<i32>>> = match work {
        Work::Nothing => Vec::new(),
        Work::Whole => vec![None],
        Work::Dates(dates) => group_dates(run, model, dates)?.into_iter().map(Some).collect(),
    };
    for dates in &groups {
        let context = context(run, model, dates.as_ref()).await?;
        let frame = context.sql(&model.sql).await?;
        let mut writer = table
            .writer(Arc::clone(&model.schema), &model.partition)
            .with_unique_columns(&unique)
            .with_tags(tags.clone());
        if cache.is_some() {
            writer = writer.keeping(room);
        }
        let mut keys = UniqueKey::new(model);
        let mut stream = frame.execute_stream().await?;
        while let Some(batch) = stream.try_next().await? {
            let batch = only_dates(&batch, model, dates.as_ref())?;
            rows += batch.num_rows() as u64;
            run.progress.inc(batch.num_rows() as u64);
            keys.check(&batch)?;
            writer.write(&batch).await?;
        }
        let (added, kept) = writer.close_with_rows().await?;
        adds.extend(added);
        cache = cache.zip(kept).map(|(mut batches, kept)| {
            room -= kept.iter().map(RecordBatch::num_rows).sum::<usize>();
            batches.extend(kept);
            batches
        });
    }
    let change = match work {
        Work::Whole => Change::ReplaceAll,
        Work::Dates(dates) if !is_whole(&table, work) => Change::Replace(partition_keys(dates)),
        _ => Change::ReplaceAll,
    };
    let commit = Commit {
        change,
        schema: Arc::clone(&model.schema),
        partition: model.partition.clone(),
        adds,
        positions,
        once: None,
        info: json!({"run": run.id, "rows": rows, "fingerprint": model.fingerprint}),
        description: model.description.clone(),
    };
    Ok(Computed { table, commit, rows, num_unchanged: 0, cache })
}

/// The rows of the wanted dates. A query that looks back gives more than those, computed from too little.
fn only_dates(batch: &RecordBatch, model: &Model, dates: Option<&BTreeSet<i32>>) -> Result<RecordBatch> {
    let column = model.partition.first().and_then(|name| batch.column_by_name(name));
    let (Some(dates), Some(column)) = (dates, column) else {
        return Ok(batch.clone());
    };
    let column = column.as_primitive::<Date32Type>();
    let is_wanted: BooleanArray =
        column.iter().map(|date| Some(date.is_some_and(|date| dates.contains(&date)))).collect();
    if is_wanted.true_count() == batch.num_rows() {
        return Ok(batch.clone());
    }
    Ok(arrow::compute::filter_record_batch(batch, &is_wanted)?)
}

/// Finds a second row with the same key. Keys are kept as 128-bit hashes; a group of dates at a time, since the first
/// partition column is part of every partitioned model's key or of its rows' identity.
struct UniqueKey<'a> {
    model: &'a Model,
    seen: HashSet<u128, ahash::RandomState>,
}

impl<'a> UniqueKey<'a> {
    fn new(model: &'a Model) -> Self {
        Self { model, seen: HashSet::default() }
    }

    fn check(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns: Vec<_> =
            self.model.key.iter().filter_map(|name| batch.column_by_name(name)).cloned().collect();
        for (row, hash) in hashes(&columns, batch.num_rows())?.into_iter().enumerate() {
            if !self.seen.insert(hash) {
                let values = columns
                    .iter()
                    .map(|column| ScalarValue::try_from_array(column, row).map(|value| format!("`{value}`")));
                let values = values.collect::<datafusion::error::Result<Vec<_>>>()?;
                return Err(Error::data(format!(
                    "the key `{}` is not unique: {} comes twice; nothing was committed, mend the query or its `key`",
                    self.model.key.join(", "),
                    values.join(", ")
                )));
            }
        }
        Ok(())
    }
}

/// Whether the work leaves nothing of what the table held.
fn is_whole(table: &Table, work: &Work) -> bool {
    match work {
        Work::Nothing => false,
        Work::Whole => true,
        Work::Dates(dates) => dates_of(table.partitions(1)).is_subset(dates),
    }
}

/// Cuts the dates into runs whose inputs are small enough to be computed at once.
fn group_dates(run: &Run, model: &Model, dates: &BTreeSet<i32>) -> Result<Vec<BTreeSet<i32>>> {
    let mut same_date: BTreeMap<i32, u64> = BTreeMap::new();
    let mut window: BTreeMap<i32, u64> = BTreeMap::new();
    let mut look_back = 0;
    for (input, span) in &model.inputs {
        let rows = match span {
            Span::Days { from: 0, to: 0 } => &mut same_date,
            Span::Days { to, .. } => {
                look_back = look_back.max(to.cast_signed());
                &mut window
            }
            _ => continue,
        };
        for (date, count) in run.rows_by_date(&stored_table(input))? {
            *rows.entry(date).or_default() += count;
        }
    }
    let window_rows = |from: i32, to: i32| -> u64 {
        window.range(from.saturating_sub(look_back)..=to).map(|(_, rows)| rows).sum()
    };
    let mut groups: Vec<BTreeSet<i32>> = Vec::new();
    let mut num_rows = 0;
    for date in dates {
        let rows = same_date.get(date).copied().unwrap_or(0);
        let fits = groups
            .last()
            .and_then(BTreeSet::first)
            .is_some_and(|first| num_rows + rows <= GROUP_ROWS && window_rows(*first, *date) <= WINDOW_ROWS);
        match groups.last_mut() {
            Some(group) if fits => {
                group.insert(*date);
                num_rows += rows;
            }
            _ => {
                groups.push(BTreeSet::from([*date]));
                num_rows = rows;
            }
        }
    }
    Ok(groups)
}

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
        register_input(run, context, input, dates.cloned()).await?;
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
            crate::ledger::ZONE => crate::ledger::schemas().map(|(table, _)| table.to_owned()).to_vec(),
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
async fn context(run: &Run, model: &Model, dates: Option<&BTreeSet<i32>>) -> Result<SessionContext> {
    context_with(run, model, dates, None).await
}

/// A context in which the model's query sees, of one input, only the records that are appended.
///
/// # Errors
/// As [`register_input`].
pub async fn append_context(run: &Run, model: &Model, append: &Append) -> Result<SessionContext> {
    context_with(run, model, Some(&append.dates), Some(append)).await
}

async fn context_with(
    run: &Run,
    model: &Model,
    dates: Option<&BTreeSet<i32>>,
    append: Option<&Append>,
) -> Result<SessionContext> {
    let context = engine::context(&run.state);
    register_references(run, &context)?;
    for (input, span) in &model.inputs {
        if let Some(append) = append.filter(|append| append.input == *input)
            && let Some(source) = run.project.source(&input.table)
        {
            let rows = LakeScan::in_memory(source.bronze_schema(), Arc::new(append.rows.clone()));
            engine::register(&context, input, Arc::new(rows));
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
    if input.table.ends_with(PARTITIONS_SUFFIX) {
        return register_partitions(run, context, input);
    }
    if matches!(input.schema.as_str(), zone::ACCEPTED | zone::VERSIONS) {
        return register_decided(run, context, input, wanted).await;
    }
    let (schema, partition) = run.declared(input)?;
    let table = run.table(input)?;
    let provider = run.scan(table, schema, &partition, wanted.as_ref())?;
    engine::register(context, input, Arc::new(provider));
    Ok(())
}

fn register_partitions(run: &Run, context: &SessionContext, input: &TableName) -> Result<()> {
    let stored = stored_table(input);
    let (schema, partition) = run.declared(&stored)?;
    let num_file_columns = schema.fields().len() - partition.len();
    let fields = schema.fields()[num_file_columns..].to_vec();
    let keys = run.table(&stored)?.partitions(partition.len());
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

impl Run {
    /// Rows of a table, from memory where this run has just written all of it.
    pub fn scan(
        &self,
        table: &Table,
        schema: arrow::datatypes::SchemaRef,
        partition: &[String],
        dates: Option<&BTreeSet<i32>>,
    ) -> Result<LakeScan> {
        let all = dates.is_none_or(|dates| dates_of(table.partitions(1)).is_subset(dates));
        if all && let Some(batches) = self.cached(table) {
            return Ok(LakeScan::in_memory(schema, batches));
        }
        let only = dates.map(partition_keys);
        LakeScan::new(table, schema, partition, only.as_ref())
    }

    /// Rows per date of a table's current version.
    pub fn rows_by_date(&self, name: &TableName) -> Result<BTreeMap<i32, u64>> {
        let mut rows = BTreeMap::new();
        if let Some(snapshot) = self.table(name)?.snapshot() {
            let columns = &snapshot.metadata.partition_columns;
            for file in snapshot.files.values() {
                let key = crate::lake::table::partition_key(columns, &file.partition_values, 1);
                for date in dates_of(BTreeSet::from([key])) {
                    *rows.entry(date).or_default() += file.num_records();
                }
            }
        }
        Ok(rows)
    }
}

/// `2025-08-01..2025-08-31 (31)`, for people.
pub fn describe(work: &Work) -> String {
    match work {
        Work::Nothing => "nothing".to_owned(),
        Work::Whole => "whole table".to_owned(),
        Work::Dates(dates) => match (dates.first(), dates.last()) {
            (Some(first), Some(last)) => {
                format!("{}..{} ({} dates)", date_text(*first), date_text(*last), dates.len())
            }
            _ => "no dates".to_owned(),
        },
    }
}
