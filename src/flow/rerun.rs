//! Reruns: partitions that an operator wants computed again, and everything that depends on them.
//!
//! A rerun is a run with a longer list: what is [`Wanted`] is added to what the logs say changed, and the same hops
//! compute it in the same order. A partition that comes out as it was is left as it is, so what reads it is not computed
//! again either, and a rerun of a sound lake changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::compute::cast;
use futures::stream::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::decide::hashes;
use super::dirty::{self, Work};
use super::model::Computed;
use super::recent::Part;
use super::{Run, decisions, gate};
use crate::error::{Error, Result};
use crate::lake::commit::Change;
use crate::lake::log::Add;
use crate::lake::maintain::location;
use crate::lake::partition::{PartitionKey, date_text, partition_key};
use crate::lake::schema::to_delta;
use crate::lake::table::Table;
use crate::project::model::{Model, Span};
use crate::project::source::{Mode, Source};
use crate::project::sql::TableName;
use crate::zone;

/// Files that are compared at the same time.
const CONCURRENT_FILES: usize = 4;

/// What an operator asked for beyond what has changed.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Dates of partitioned models.
    pub dates: BTreeMap<TableName, BTreeSet<i32>>,
    /// Models without partitions.
    pub whole: BTreeSet<TableName>,
    /// Bronze dates to be decided again, by source; any date stands for all of an `upserts` source.
    pub decide: BTreeMap<String, BTreeSet<i32>>,
    /// Nothing else is computed: what depends on it waits for the next run.
    pub is_only: bool,
    /// Whether partitions that come out as they were are left as they are.
    pub compares: bool,
}

/// What has changed and what is wanted of a model.
///
/// # Errors
/// Those of [`dirty::work`].
pub async fn part(run: &Run, model: &Model) -> Result<Part> {
    let dirty = dirty::work(run, model).await?;
    let wanted = &run.wanted;
    let asked = match wanted.dates.get(&model.table) {
        Some(dates) if model.is_partitioned() => {
            let known = &dirty::known_dates(run, model)? & dates;
            if known.is_empty() { Work::Nothing } else { Work::Dates(known) }
        }
        _ if !model.is_partitioned() && wanted.whole.contains(&model.table) => Work::Whole,
        _ => Work::Nothing,
    };
    Ok(match (dirty, asked, wanted.is_only) {
        (dirty, Work::Nothing, false) => Part::all(dirty),
        (Work::Dates(dirty), Work::Dates(asked), false) => Part::all(Work::Dates(&dirty | &asked)),
        (dirty, asked, true) => {
            let leaves_some = match (&dirty, &asked) {
                (Work::Nothing, _) | (_, Work::Whole) => false,
                (Work::Dates(dirty), Work::Dates(asked)) => !dirty.is_subset(asked),
                _ => true,
            };
            Part { work: asked, append: None, leaves_some }
        }
        (_, Work::Dates(mut asked), false) => {
            asked.extend(gate::to_retry(run, model, true).await?.unwrap_or_default());
            Part::all(Work::Dates(asked))
        }
        (_, asked, false) => Part::all(asked),
    })
}

/// The records that the work reads and that were decided by older rules.
///
/// # Errors
/// The store's.
pub async fn to_decide(run: &Run, todo: &[(&Model, Part)]) -> Result<Vec<(Source, Option<BTreeSet<i32>>)>> {
    let mut found: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    let mut stale = None;
    for (model, part) in todo {
        for (input, span) in &model.inputs {
            if !matches!(input.schema.as_str(), zone::ACCEPTED | zone::VERSIONS) {
                continue;
            }
            if stale.is_none() {
                stale = Some(decisions::stale(run).await?);
            }
            let Some(stale) = stale.as_ref().and_then(|stale| stale.get(&input.table)) else {
                continue;
            };
            let read = match (&part.work, span) {
                (Work::Nothing, _) => BTreeSet::new(),
                (Work::Dates(dates), Span::Days { from, to }) => {
                    let before = dates
                        .iter()
                        .flat_map(|date| (*from..=*to).map(|days| date.saturating_sub(days.cast_signed())));
                    &before.collect::<BTreeSet<i32>>() & stale
                }
                _ => stale.clone(),
            };
            found.entry(input.table.clone()).or_default().extend(read);
        }
    }
    let sources = run.project.sources.iter().filter_map(|source| {
        let dates = found.remove(&source.name).filter(|dates| !dates.is_empty())?;
        let dates = match source.mode {
            Mode::Events => Some(dates),
            Mode::Upserts => None,
        };
        Some((source.clone(), dates))
    });
    Ok(sources.collect())
}

/// Leaves partitions that came out as they were as they are: their new files are taken back, their old ones are said to
/// be of today's form, which is no change for who reads the log.
///
/// # Errors
/// The store's.
pub async fn leave_out_unchanged(model: &Model, work: &Work, mut computed: Computed) -> Result<Computed> {
    let table = computed.table.clone();
    let Some(snapshot) = table.snapshot() else {
        return Ok(computed);
    };
    let columns = &snapshot.metadata.partition_columns;
    if snapshot.metadata.schema_string != to_delta(&model.schema)? || *columns != model.partition {
        return Ok(computed);
    }
    let depth = columns.len();
    let dates: Option<BTreeSet<String>> = match work {
        Work::Dates(dates) => Some(dates.iter().map(|date| date_text(*date)).collect()),
        _ => None,
    };
    let is_touched = |key: &PartitionKey| match (&dates, key.first()) {
        (Some(dates), Some(Some(date))) => dates.contains(date),
        (Some(_), _) => false,
        (None, _) => true,
    };
    let mut before: BTreeMap<PartitionKey, Vec<Arc<Add>>> = BTreeMap::new();
    for file in snapshot.files.values() {
        let key = partition_key(columns, &file.partition_values, depth);
        if is_touched(&key) {
            before.entry(key).or_default().push(Arc::clone(file));
        }
    }
    let mut after: BTreeMap<PartitionKey, Vec<Arc<Add>>> = BTreeMap::new();
    for file in &computed.commit.adds {
        let key = partition_key(columns, &file.partition_values, depth);
        after.entry(key).or_default().push(Arc::new(file.clone()));
    }
    let rows_of = |files: &[Arc<Add>]| files.iter().map(|file| file.num_records()).sum::<u64>();
    let candidates = after.iter().filter_map(|(key, new)| {
        let old = before.get(key)?;
        (rows_of(old) == rows_of(new)).then(|| (key.clone(), old.clone(), new.clone()))
    });
    let unchanged: BTreeSet<PartitionKey> = futures::stream::iter(candidates.collect::<Vec<_>>())
        .map(|(key, old, new)| async {
            // a file that can't be read is to be replaced, whatever it held
            let Ok(was) = content(&table, model, old).await else {
                return Result::Ok(None);
            };
            Ok((content(&table, model, new).await? == was).then_some(key))
        })
        .buffer_unordered(CONCURRENT_FILES)
        .try_filter_map(|key| async { Ok(key) })
        .try_collect()
        .await?;
    let is_left = |file: &Add| unchanged.contains(&partition_key(columns, &file.partition_values, depth));
    let store = table.lake().store();
    for file in computed.commit.adds.extract_if(.., |file| is_left(file)) {
        // never committed, so nobody reads it; left behind it would only wait for a vacuum
        let _ = store.delete(&location(&table, &file.path)?).await;
    }
    for file in before.values().flatten().filter(|file| is_left(file)) {
        if file.tag(dirty::FORM) != Some(model.fingerprint.as_str()) {
            let mut again = Add::clone(file);
            again.data_change = false;
            let tags = again.tags.get_or_insert_default();
            tags.insert(dirty::FORM.to_owned(), Some(model.fingerprint.clone()));
            computed.commit.adds.push(again);
        }
    }
    let replaced: BTreeSet<PartitionKey> =
        before.keys().chain(after.keys()).filter(|key| !unchanged.contains(*key)).cloned().collect();
    computed.commit.change = match (replaced.is_empty(), depth) {
        (true, _) => Change::Append,
        (false, 0) => Change::ReplaceAll,
        (false, _) => Change::Replace(replaced),
    };
    computed.num_unchanged = unchanged.len();
    Ok(computed)
}

/// Whether the commit would say nothing that the table does not say already.
pub fn is_empty(computed: &Computed) -> bool {
    let commit = &computed.commit;
    computed.table.version() >= 0
        && commit.change == Change::Append
        && commit.adds.is_empty()
        && commit.positions.iter().all(|(name, position)| computed.table.position(name) == Some(*position))
}

/// A number that does not depend on the order of the files' rows, nor on how they are spread over files.
async fn content(table: &Table, model: &Model, files: Vec<Arc<Add>>) -> Result<u128> {
    let num_file_columns = model.schema.fields().len() - model.partition.len();
    let fields = model.schema.fields()[..num_file_columns].to_vec();
    let store = table.lake().store();
    let mut sum: u128 = 0;
    for file in files {
        let bytes = store.get(&location(table, &file.path)?).await?.bytes().await?;
        if !file.is_as_written(&bytes) {
            return Err(Error::data(format!("the file `{}` has other bytes than were written", file.path)));
        }
        let fields = fields.clone();
        let part = tokio::task::spawn_blocking(move || {
            let mut sum: u128 = 0;
            for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
                let batch = batch?;
                let columns = fields
                    .iter()
                    .map(|field| match batch.column_by_name(field.name()) {
                        Some(column) => Ok(cast(column, field.data_type())?),
                        None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
                    })
                    .collect::<Result<Vec<_>>>()?;
                for hash in hashes(&columns, batch.num_rows())? {
                    sum = sum.wrapping_add(hash);
                }
            }
            Result::Ok(sum)
        });
        sum = sum.wrapping_add(part.await??);
    }
    Ok(sum)
}
