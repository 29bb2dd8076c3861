//! Refused records: rows with a reason and the raw bytes, by date and error type.
//!
//! Bronze appends what it could not type. Silver's part (conflicts, broken rules) is a function of bronze, so it is
//! replaced for the dates that were decided again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, Date32Array, Decimal128Array, Int64Array, RecordBatch,
    StringViewArray,
};
use arrow::datatypes::{Date32Type, Decimal128Type, Int64Type};
use serde_json::json;
use tokio::runtime::Handle;

use super::decide::{DISCARDED, quoted};
use super::landing::POSITION;
use super::{Run, inputs, interventions};
use crate::decode::{ErrorType, RawReader, Type};
use crate::engine;
use crate::error::Result;
use crate::lake::commit::{Change, Commit};
use crate::lake::partition::{PartitionKey, date_text};
use crate::lake::table::Table;
use crate::ledger;
use crate::project::manifest::Limits;
use crate::project::source::{DATE, Source};
use crate::project::sql::TableName;
use crate::source::files;

/// Where on its way a record was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Bronze,
    Silver,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Bronze => "bronze",
            Stage::Silver => "silver",
        }
    }

    /// The inverse of its name.
    pub fn parse(text: &str) -> Self {
        match text {
            "bronze" => Stage::Bronze,
            _ => Stage::Silver,
        }
    }
}

/// One refused record.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Writes what a batch's decoding refused, for the caller to commit.
///
/// # Errors
/// The store's.
pub async fn prepare(
    table: &Table,
    source: &Source,
    batch_id: i64,
    refused: &[Refused],
    run: &Run,
) -> Result<Commit> {
    let rows = rows(source, refused, run.started_at)?;
    let once = Some((POSITION.to_owned(), batch_id));
    written(run, table, source, &rows, Change::Append, once).await
}

/// Replaces silver's part for the decided dates; where it is as it was, nothing is committed.
///
/// # Errors
/// The stores'.
pub async fn replace(
    run: &mut Run,
    source: &Source,
    dates: Option<&BTreeSet<i32>>,
    mut refused: Vec<Refused>,
) -> Result<()> {
    let before = read_of_silver(run, source, dates).await?;
    // what bronze refused and an operator discarded follows from no bronze record
    refused.extend(before.iter().filter(|record| record.stage == Stage::Bronze).cloned());
    put(run, source, dates, before, refused).await
}

/// Adds to silver's part what was refused of further records.
///
/// # Errors
/// The stores'.
pub async fn add(run: &mut Run, source: &Source, mut refused: Vec<Refused>) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    let dates: BTreeSet<i32> = refused.iter().map(|record| record.date).collect();
    let before = read_of_silver(run, source, Some(&dates)).await?;
    let place = |record: &Refused| (record.source_file.clone(), record.source_line);
    let added: BTreeSet<_> = refused.iter().map(place).collect();
    refused.extend(before.iter().filter(|record| !added.contains(&place(record))).cloned());
    put(run, source, Some(&dates), before, refused).await
}

async fn read_of_silver(run: &Run, source: &Source, dates: Option<&BTreeSet<i32>>) -> Result<Vec<Refused>> {
    let condition = format!("(stage = 'silver' or error_type = '{DISCARDED}')");
    read(run, source, dates, &condition).await
}

/// Puts `refused` in the place of what was there `before` of the dates.
async fn put(
    run: &mut Run,
    source: &Source,
    dates: Option<&BTreeSet<i32>>,
    mut before: Vec<Refused>,
    mut refused: Vec<Refused>,
) -> Result<()> {
    let mut table = run.quarantine_of(&source.name)?.clone();
    fetch_raw(run, source, &mut refused, &before).await?;
    for records in [&mut before, &mut refused] {
        records.sort_by(|a, b| (&a.source_file, a.source_line).cmp(&(&b.source_file, b.source_line)));
    }
    if before == refused {
        return Ok(());
    }
    let is_decided = |date: &Option<String>| match (dates, date) {
        (None, _) => true,
        (Some(dates), Some(date)) => dates.iter().any(|day| date_text(*day) == *date),
        (Some(_), None) => false,
    };
    let is_of_silver = |error_type: &String| !ErrorType::ALL.iter().any(|ty| ty.as_str() == error_type);
    let mut replaced: BTreeSet<_> = table
        .partitions(2)
        .into_iter()
        .filter(|key| is_decided(&key[0]) && key[1].as_ref().is_some_and(is_of_silver))
        .collect();
    for record in &refused {
        replaced.insert(vec![Some(date_text(record.date)), Some(record.error_type.clone())]);
    }
    let rows = rows(source, &refused, run.started_at)?;
    let mut commit = written(run, &table, source, &rows, Change::Replace(replaced), None).await?;
    let bronze_version = run.bronze_of(&source.name)?.version();
    commit.positions.insert(format!("bronze.{}", source.name), bronze_version);
    table.commit(&commit).await?;
    run.quarantine.insert(source.name.clone(), table);
    run.num_commits += 1;
    Ok(())
}

/// Takes records of bronze's part out of quarantine, or puts others in their place, in one commit that is made once.
///
/// # Errors
/// The stores'.
pub async fn amend(
    run: &mut Run,
    source: &Source,
    taken_out: &BTreeSet<(String, i64)>,
    put_in: Vec<Refused>,
    once: (String, i64),
) -> Result<()> {
    let mut table = run.quarantine_of(&source.name)?.clone();
    let all = read(run, source, None, "true").await?;
    let key_of = |record: &Refused| vec![Some(date_text(record.date)), Some(record.error_type.clone())];
    let is_out = |record: &Refused| {
        record.stage == Stage::Bronze && taken_out.contains(&(record.source_file.clone(), record.source_line))
    };
    let touched: BTreeSet<PartitionKey> =
        all.iter().filter(|record| is_out(record)).chain(&put_in).map(key_of).collect();
    let mut kept: Vec<Refused> =
        all.into_iter().filter(|record| touched.contains(&key_of(record)) && !is_out(record)).collect();
    kept.extend(put_in);
    kept.sort_by(|a, b| (&a.source_file, a.source_line).cmp(&(&b.source_file, b.source_line)));
    let rows = rows(source, &kept, run.started_at)?;
    let commit = written(run, &table, source, &rows, Change::Replace(touched), Some(once)).await?;
    table.commit(&commit).await?;
    run.quarantine.insert(source.name.clone(), table);
    run.num_commits += 1;
    Ok(())
}

/// Refused records that a condition over quarantine's columns lets through, whole.
///
/// # Errors
/// The store's.
pub async fn read(
    run: &Run,
    source: &Source,
    dates: Option<&BTreeSet<i32>>,
    condition: &str,
) -> Result<Vec<Refused>> {
    let mut found = Vec::new();
    if run.quarantine_of(&source.name)?.version() < 0 {
        return Ok(found);
    }
    let context = engine::context(&run.state);
    let name = TableName::new("quarantine", &source.name);
    inputs::register_input(run, &context, &name, dates.cloned()).await?;
    let money: Vec<String> = source.money().map(|column| format!(", {}", quoted(column))).collect();
    let query = format!(
        "select stage, column_name, reason, raw, raw_bytes, source_file, source_line, batch_id, error_type, date{} \
         from quarantine.{} where {condition} order by source_file, source_line",
        money.concat(),
        quoted(&source.name)
    );
    for batch in context.sql(&query).await?.collect().await? {
        let text = |at: usize, row: usize| batch.column(at).as_string_view().value(row).to_owned();
        let integer = |at: usize, row: usize| batch.column(at).as_primitive::<Int64Type>().value(row);
        for row in 0..batch.num_rows() {
            let money = (0..money.len()).map(|at| {
                let column = batch.column(10 + at).as_primitive::<Decimal128Type>();
                column.is_valid(row).then(|| column.value(row))
            });
            found.push(Refused {
                stage: Stage::parse(&text(0, row)),
                error_type: text(8, row),
                column: batch.column(1).is_valid(row).then(|| text(1, row)),
                reason: text(2, row),
                raw: batch.column(3).as_binary_view().value(row).to_vec(),
                raw_bytes: integer(4, row),
                source_file: text(5, row),
                source_line: integer(6, row),
                date: batch.column(9).as_primitive::<Date32Type>().value(row),
                money: money.collect(),
                batch_id: integer(7, row),
            });
        }
    }
    Ok(found)
}

async fn written(
    run: &Run,
    table: &Table,
    source: &Source,
    rows: &RecordBatch,
    change: Change,
    once: Option<(String, i64)>,
) -> Result<Commit> {
    let schema = source.quarantine_schema();
    let mut writer = table.writer(Arc::clone(&schema), &partition());
    writer.write(rows).await?;
    let known = run.ledger.interventions.position(interventions::POSITION);
    let known = known.max(table.position(interventions::KNOWN));
    Ok(Commit {
        change,
        schema,
        partition: partition(),
        adds: writer.close().await?,
        positions: known.map(|known| (interventions::KNOWN.to_owned(), known)).into_iter().collect(),
        once,
        info: json!({"run": run.id}),
        description: format!("Refused records of {}.", source.name),
    })
}

/// The raw bytes of records: those that an operator has put in their place, those that quarantine has kept already, the
/// others from their landing files. A landing file that is gone or has changed costs the raw bytes, never the record.
async fn fetch_raw(run: &Run, source: &Source, refused: &mut [Refused], before: &[Refused]) -> Result<()> {
    let place = |record: &Refused| (record.source_file.clone(), record.source_line);
    let mut kept: BTreeMap<(String, i64), Vec<u8>> = before
        .iter()
        .filter(|record| record.raw_bytes > 0)
        .map(|record| (place(record), record.raw.clone()))
        .collect();
    kept.extend(interventions::edited(run, source).await?);
    let mut wanted: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for record in refused.iter_mut().filter(|record| record.stage == Stage::Silver) {
        match kept.get(&place(record)) {
            Some(raw) => record.keep(raw),
            None => {
                let line = record.source_line.cast_unsigned();
                wanted.entry(record.source_file.clone()).or_default().insert(line);
            }
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let found = read_lines(run, source, wanted).await?;
    for record in refused.iter_mut().filter(|record| record.stage == Stage::Silver) {
        if let Some(raw) = found.get(&(record.source_file.clone(), record.source_line.cast_unsigned())) {
            record.keep(raw);
        }
    }
    Ok(())
}

/// The line of the record that stands for all of a compressed file that could not be read.
pub const NO_LINE: i64 = 0;

/// Said of that record: its bytes are the file's.
pub const IN_FILE: &str = "its bytes are in the landing file; quarantine keeps none of them";

/// Said of a record whose bytes are not all there.
pub const PART: &str =
    "only its beginning: the landing file is gone or has changed, or the record is longer than 64 MiB";

/// The exact bytes of one record, from its landing file; `None` where the file is gone or has changed.
///
/// # Errors
/// The ledger's.
pub async fn raw_bytes(run: &Run, source: &str, path: &str, line: i64) -> Result<Option<Vec<u8>>> {
    let Some(source) = run.project.source(source).filter(|_| line != NO_LINE) else {
        return Ok(None);
    };
    let line = line.cast_unsigned();
    let wanted = BTreeMap::from([(path.to_owned(), BTreeSet::from([line]))]);
    Ok(read_lines(run, source, wanted).await?.remove(&(path.to_owned(), line)))
}

/// Records by file and line, from landing files that are as they were when they were taken in.
///
/// # Errors
/// The ledger's.
pub async fn read_lines(
    run: &Run,
    source: &Source,
    wanted: BTreeMap<String, BTreeSet<u64>>,
) -> Result<BTreeMap<(String, u64), Vec<u8>>> {
    let hashes = super::landing::landed_hashes(run).await?;
    // what was taken in once was within the limits of its time
    let limits = Limits { unpacked_bytes: u64::MAX, unpacked_ratio: u64::MAX, ..run.project.limits.clone() };
    let landing = Arc::clone(&run.landing);
    let (layout, runtime) = (Arc::clone(&source.layout), Handle::current());
    let found = tokio::task::spawn_blocking(move || {
        let mut found: BTreeMap<(String, u64), Vec<u8>> = BTreeMap::new();
        for (path, lines) in wanted {
            let mut reader = RawReader::new(&layout, lines.into_iter().collect());
            let read = files::read(&landing, &path, &limits, &runtime, |bytes| {
                reader.push(bytes);
                Ok(!reader.is_done())
            });
            reader.finish();
            match read {
                Ok((_, hash)) if hashes.get(&path).is_none_or(|known| *known == hash.to_hex().as_str()) => {
                    found.extend(reader.take().into_iter().map(|(line, raw)| ((path.clone(), line), raw)));
                }
                Ok(_) => {
                    tracing::warn!(%path, "landing file changed: raw bytes of refused records are not kept")
                }
                Err(error) => tracing::warn!(%path, %error, "raw bytes of refused records are not kept"),
            }
        }
        found
    })
    .await?;
    Ok(found)
}

impl Refused {
    fn keep(&mut self, raw: &[u8]) {
        self.raw = raw.to_vec();
        self.raw_bytes = i64::try_from(raw.len()).unwrap_or(i64::MAX);
    }
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
