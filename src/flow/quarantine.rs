//! Refused records: rows with a reason and the raw bytes, by date and error type.
//!
//! Bronze appends what it could not type. Silver's part (conflicts, broken rules) is a function of bronze, so it is
//! replaced for the dates that were decided again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewArray, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringViewArray,
};
use serde_json::Value;
use tokio::runtime::Handle;

use super::Run;
use super::landing::POSITION;
use crate::decode::{RawReader, Type};
use crate::error::{During, Result};
use crate::lake::table::{Change, Commit, Table};
use crate::lake::write::date_text;
use crate::ledger;
use crate::project::source::{DATE, Source};
use crate::source::files;

/// Where on its way a record was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Bronze,
    Silver,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Stage::Bronze => "bronze",
            Stage::Silver => "silver",
        }
    }
}

/// One refused record.
#[derive(Debug, Clone)]
pub struct Refused {
    pub stage: Stage,
    pub error_type: String,
    pub column: Option<String>,
    pub reason: String,
    pub raw: Vec<u8>,
    /// The record's real length; more than `raw` has where only a prefix was kept.
    pub raw_bytes: i64,
    pub source_file: String,
    pub source_line: i64,
    /// Days since the epoch.
    pub date: i32,
    /// Per money column, where it could be read.
    pub money: Vec<Option<i128>>,
    pub batch_id: i64,
}

fn partition() -> Vec<String> {
    vec![DATE.to_owned(), "error_type".to_owned()]
}

/// Appends what a batch's decoding refused.
///
/// # Errors
/// The store's.
pub async fn append(
    table: &mut Table,
    source: &Source,
    batch_id: i64,
    refused: &[Refused],
    ingest_ts: i64,
) -> Result<()> {
    let rows = rows(source, refused, ingest_ts)?;
    let once = Some((POSITION.to_owned(), batch_id));
    commit(table, source, &rows, Change::Append, once).await
}

/// Replaces silver's part for the decided dates.
///
/// # Errors
/// The stores'.
pub async fn replace(
    run: &mut Run,
    source: &Source,
    dates: Option<&BTreeSet<i32>>,
    mut refused: Vec<Refused>,
) -> Result<()> {
    let mut table = run.quarantine_of(&source.name)?.clone();
    let silver_types = silver_error_types(source);
    let is_decided = |date: &Option<String>| match (dates, date) {
        (None, _) => true,
        (Some(dates), Some(date)) => dates.iter().any(|day| date_text(*day) == *date),
        (Some(_), None) => false,
    };
    let mut replaced: BTreeSet<_> = table
        .partitions(2)
        .into_iter()
        .filter(|key| is_decided(&key[0]))
        .filter(|key| key[1].as_ref().is_some_and(|error_type| silver_types.contains(error_type)))
        .collect();
    if replaced.is_empty() && refused.is_empty() {
        return Ok(());
    }
    fetch_raw(run, source, &mut refused).await?;
    refused.sort_by(|a, b| (&a.source_file, a.source_line).cmp(&(&b.source_file, b.source_line)));
    for record in &refused {
        replaced.insert(vec![Some(date_text(record.date)), Some(record.error_type.clone())]);
    }
    let rows = rows(source, &refused, run.started_at)?;
    commit(&mut table, source, &rows, Change::Replace(replaced), None).await?;
    run.quarantine.insert(source.name.clone(), table);
    run.num_commits += 1;
    Ok(())
}

/// The error types that are decided from bronze, not while decoding.
pub fn silver_error_types(source: &Source) -> BTreeSet<String> {
    let rules = source.rules.iter().map(|rule| rule.error_type.clone());
    rules.chain([super::decide::CONFLICT.to_owned()]).collect()
}

async fn commit(
    table: &mut Table,
    source: &Source,
    rows: &RecordBatch,
    change: Change,
    once: Option<(String, i64)>,
) -> Result<()> {
    let schema = source.quarantine_schema();
    let mut writer = table.writer(Arc::clone(&schema), &partition());
    writer.write(rows).await?;
    let adds = writer.close().await?;
    table
        .commit(&Commit {
            change,
            schema,
            partition: partition(),
            adds,
            positions: BTreeMap::new(),
            once,
            info: Value::Null,
            description: format!("Refused records of {}.", source.name),
        })
        .await?;
    Ok(())
}

/// Reads the raw bytes of records from their landing files; they were known only as typed rows.
async fn fetch_raw(run: &Run, source: &Source, refused: &mut [Refused]) -> Result<()> {
    let mut wanted: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for record in refused.iter() {
        let lines = wanted.entry(record.source_file.clone()).or_default();
        lines.insert(record.source_line.cast_unsigned());
    }
    let (landing, limits) = (Arc::clone(&run.landing), run.project.limits.clone());
    let (layout, runtime) = (Arc::clone(&source.layout), Handle::current());
    let found = tokio::task::spawn_blocking(move || {
        let mut found: BTreeMap<(String, u64), Vec<u8>> = BTreeMap::new();
        for (path, lines) in wanted {
            let mut reader = RawReader::new(&layout, lines.into_iter().collect());
            let read = files::read(&landing, &path, &limits, &runtime, |bytes| {
                reader.push(bytes);
                Ok(!reader.is_done())
            });
            read.during(|| format!("fetching the raw bytes of refused records from `{path}`"))?;
            reader.finish();
            found.extend(reader.take().into_iter().map(|(line, raw)| ((path.clone(), line), raw)));
        }
        Result::Ok(found)
    })
    .await??;
    for record in refused {
        let place = (record.source_file.clone(), record.source_line.cast_unsigned());
        if let Some(raw) = found.get(&place) {
            record.raw.clone_from(raw);
            record.raw_bytes = i64::try_from(raw.len()).unwrap_or(i64::MAX);
        }
    }
    Ok(())
}

fn rows(source: &Source, refused: &[Refused], ingest_ts: i64) -> Result<RecordBatch> {
    let integers = |value: fn(&Refused) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(refused.iter().map(value)))
    };
    let column_names: StringViewArray = refused.iter().map(|record| record.column.as_deref()).collect();
    let raw = BinaryViewArray::from_iter_values(refused.iter().map(|record| &record.raw));
    let mut columns: Vec<ArrayRef> = vec![
        ledger::texts(refused.iter().map(|_| &source.name)),
        ledger::texts(refused.iter().map(|record| record.stage.as_str())),
        Arc::new(column_names),
        ledger::texts(refused.iter().map(|record| &record.reason)),
        Arc::new(raw),
        integers(|record| record.raw_bytes),
        ledger::texts(refused.iter().map(|record| &record.source_file)),
        integers(|record| record.source_line),
        integers(|record| record.batch_id),
        ledger::timestamps(refused.iter().map(|_| ingest_ts)),
    ];
    for (at, index) in source.layout.money.iter().enumerate() {
        let amounts = refused.iter().map(|record| record.money[at]);
        let array: Decimal128Array = amounts.collect();
        columns.push(match source.layout.columns[*index].ty {
            Type::Decimal { precision, scale } => Arc::new(array.with_precision_and_scale(precision, scale)?),
            _ => Arc::new(array),
        });
    }
    columns.push(Arc::new(Date32Array::from_iter_values(refused.iter().map(|record| record.date))));
    columns.push(ledger::texts(refused.iter().map(|record| &record.error_type)));
    Ok(RecordBatch::try_new(source.quarantine_schema(), columns)?)
}
