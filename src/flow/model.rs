//! One model, computed and committed: read the inputs' versions → compute → check → commit once.
//!
//! Dates are computed in groups of bounded size, so memory does not grow with the lake; all groups are one commit.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::Date32Type;
use datafusion::common::{Column, ScalarValue};
use datafusion::prelude::{DataFrame, Expr, SessionContext, lit};
use futures::TryStreamExt;
use serde_json::json;

use super::decide::{hashes, partition_keys};
use super::dirty::{self, Work, dates_of, stored_table};
use super::partial::{self, Partial};
use super::recent::{Append, Part};
use super::{Run, inputs};
use crate::error::{During, Error, Result};
use crate::lake::commit::{Change, Commit};
use crate::lake::partition::date_text;
use crate::lake::table::Table;
use crate::project::fingerprint;
use crate::project::model::{Model, Span};
use crate::telemetry::counted;

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
    /// Partitions that a check keeps out.
    pub num_withheld: usize,
    pub cache: Option<Vec<RecordBatch>>,
    /// The rows, where they are appended.
    pub appended: Option<Vec<RecordBatch>>,
    /// What a stream keeps of the dates that were computed.
    pub partials: BTreeMap<i32, Partial>,
}

/// Computes what is dirty and writes its files. The caller commits, so that the files of several models become durable
/// together.
///
/// # Errors
/// Those of the query and of the stores; `Data` where the model's key is not unique.
#[tracing::instrument(
    target = "hop",
    name = "compute",
    skip_all,
    fields(otel.name = %format!("compute {}", model.table), table = %model.table, rows)
)]
pub async fn compute(run: &Run, model: &Model, part: &Part) -> Result<Computed> {
    let computed = compute_part(run, model, part)
        .await
        .during(|| format!("computing `{}` ({})", model.table, model.file.display()))?;
    tracing::Span::current().record("rows", computed.rows);
    Ok(computed)
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
        // said again as they are: rows are appended to what these versions gave, and to nothing that has gone on meanwhile
        for name in dirty::positions(run, model)?.into_keys() {
            if let Some(position) = computed.table.position(&name) {
                computed.commit.positions.insert(name, position);
            }
        }
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
        .with_tags(tags)
        .keeping(usize::MAX);
    let mut rows = 0;
    if !append.rows.is_empty() {
        let context = inputs::append_context(run, model, append).await?;
        let mut keys = UniqueKey::new(model);
        let mut stream = context.sql(&model.sql).await?.execute_stream().await?;
        while let Some(batch) = stream.try_next().await? {
            let batch = only_dates(&batch, model, Some(&append.dates))?;
            rows += batch.num_rows() as u64;
            keys.check(&batch)?;
            writer.write(&batch).await?;
        }
    }
    let (adds, appended) = writer.close_with_rows().await?;
    let commit = Commit {
        change: Change::Append,
        schema: Arc::clone(&model.schema),
        partition: model.partition.clone(),
        adds,
        positions: dirty::positions(run, model)?,
        once: None,
        info: json!({"run": run.id, "rows": rows}),
        description: model.description.clone(),
    };
    Ok(Computed {
        table,
        commit,
        rows,
        num_unchanged: 0,
        num_withheld: 0,
        cache: None,
        appended,
        partials: BTreeMap::new(),
    })
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
    let recent = run.recent.as_ref();
    let summed = match recent {
        Some(recent) => partial::summed_input(run, &recent.partials, model).await?,
        None => None,
    };
    let mut partials = BTreeMap::new();
    let groups: Vec<Option<BTreeSet<i32>>> = match work {
        Work::Nothing => Vec::new(),
        Work::Whole => vec![None],
        Work::Dates(dates) if summed.is_some() => {
            dates.iter().map(|date| Some(BTreeSet::from([*date]))).collect()
        }
        Work::Dates(dates) => group_dates(run, model, dates)?.into_iter().map(Some).collect(),
    };
    for dates in &groups {
        let of_date = dates.as_ref().and_then(BTreeSet::first).copied();
        let mut stream = match (recent, &summed, of_date) {
            (Some(recent), Some(input), Some(date)) => {
                let kept = (&recent.partials, &recent.appended);
                let (stream, partial) = partial::rows_of(run, kept, model, input, date).await?;
                partials.insert(date, partial);
                stream
            }
            _ => {
                let context = inputs::model_context(run, model, dates.as_ref()).await?;
                query(&context, model, dates.as_ref()).await?.execute_stream().await?
            }
        };
        let mut writer = table
            .writer(Arc::clone(&model.schema), &model.partition)
            .with_unique_columns(&unique)
            .with_tags(tags.clone());
        if cache.is_some() {
            writer = writer.keeping(room);
        }
        let mut keys = UniqueKey::new(model);
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
    let num_continued = partials.values().filter(|partial| partial.is_continued).count();
    let commit = Commit {
        change,
        schema: Arc::clone(&model.schema),
        partition: model.partition.clone(),
        adds,
        positions,
        once: None,
        info: json!({"run": run.id, "rows": rows, "fingerprint": model.fingerprint, "continued": num_continued}),
        description: model.description.clone(),
    };
    Ok(Computed { table, commit, rows, num_unchanged: 0, num_withheld: 0, cache, appended: None, partials })
}

/// The model's query. One that reads more than the wanted dates makes rows of others, too, from too little: saying so to the
/// query spares the work on them.
async fn query(context: &SessionContext, model: &Model, dates: Option<&BTreeSet<i32>>) -> Result<DataFrame> {
    let frame = context.sql(&model.sql).await?;
    let (Some(dates), Some(column)) = (dates, model.partition.first()) else {
        return Ok(frame);
    };
    if model.inputs.values().all(|span| *span == Span::SAME_DATE) {
        return Ok(frame);
    }
    // the first of its name, as everywhere
    let Some(column) = frame.schema().qualified_fields_with_unqualified_name(column).first().copied() else {
        return Ok(frame);
    };
    let column = Expr::Column(Column::from(column));
    let date = |date: &i32| lit(ScalarValue::Date32(Some(*date)));
    Ok(frame.filter(column.in_list(dates.iter().map(date).collect(), false))?)
}

/// The rows of the wanted dates, whatever the query gives.
pub(super) fn only_dates(
    batch: &RecordBatch,
    model: &Model,
    dates: Option<&BTreeSet<i32>>,
) -> Result<RecordBatch> {
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

/// `2025-08-01..2025-08-31 (31)`, for people.
pub fn describe(work: &Work) -> String {
    match work {
        Work::Nothing => "nothing".to_owned(),
        Work::Whole => "whole table".to_owned(),
        Work::Dates(dates) => match (dates.first(), dates.last()) {
            (Some(first), Some(last)) => {
                let dates = counted(dates.len(), "date");
                format!("{}..{} ({dates})", date_text(*first), date_text(*last))
            }
            _ => "no dates".to_owned(),
        },
    }
}
