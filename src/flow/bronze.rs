//! Batch → bronze: every record that can be typed, as often as it landed; the others go to quarantine first.
//!
//! Files are decoded in parallel, each with its own decoder. The order of the commits is quarantine, bronze, report; all
//! three carry the batch's number, so a replay after a crash in between repeats only what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{Decimal128Type, Int64Type};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::landed::FileReport;
use super::landing::POSITION;
use super::late::{self, Lateness};
use super::quarantine::{Refused, Stage};
use super::{Run, quarantine};
use crate::decode::{Decoded, Decoder, ErrorType, RawReader};
use crate::error::{During, Error, Result};
use crate::lake::Root;
use crate::lake::commit::{Change, Commit};
use crate::lake::partition::partition_key;
use crate::lake::table::Table;
use crate::ledger::FileRecord;
use crate::project::manifest::{LatePolicy, Limits};
use crate::project::source::Source;
use crate::source::files::{self, End};

/// The newest event time that bronze has seen, as a position in its log: the watermark is derived from it.
pub const MAX_EVENT_TIME: &str = "max_event_time";

/// How many late records bronze holds, as a position in its log.
pub const LATE: &str = "late_records";

/// A decoder hands its rows over when it has so many.
const ROWS_PER_BATCH: usize = 64 * 1024;

/// … or so many bytes, rows and rejects together.
const BYTES_PER_BATCH: usize = 32 * 1024 * 1024;

/// Rows that may stay in memory for silver when bronze was empty before.
const CACHED_ROWS: usize = 256 * 1024;

/// Of so many refused records of one file the log tells, where they are most of what the file holds.
const MANY_REFUSED: u64 = 1000;

enum Piece {
    /// Rows, and the newest event time that can move the watermark.
    Rows(RecordBatch, Option<i64>),
    Refused(Vec<Refused>),
    File(FileReport),
}

/// One source's part of a batch, written but not yet committed.
#[derive(Debug)]
pub struct Ingested {
    pub bronze: Table,
    pub bronze_commit: Commit,
    pub quarantine: Table,
    /// `None` where nothing was refused.
    pub quarantine_commit: Option<Commit>,
    pub reports: Vec<FileReport>,
    pub cache: Option<Vec<RecordBatch>>,
    /// The rows themselves, for a stream to append; `None` where there are too many.
    pub fresh: Option<Vec<RecordBatch>>,
}

/// Decodes one source's part of a batch and writes its files. The caller commits quarantine, then bronze, so that the
/// files of all sources become durable together.
///
/// # Errors
/// The stores'.
#[tracing::instrument(
    target = "hop",
    name = "ingest",
    skip_all,
    fields(otel.name = %format!("ingest {}", source.name), source = source.name, files = batch.len())
)]
pub async fn ingest(run: &Run, source: &Source, batch_id: i64, batch: &[FileRecord]) -> Result<Ingested> {
    let table = run.bronze_of(&source.name)?.clone();
    let quarantine = run.quarantine_of(&source.name)?.clone();
    let watermark = match (source.watermark_delay, table.position(MAX_EVENT_TIME)) {
        (Some(delay), Some(newest)) => Some(newest - delay),
        _ => None,
    };
    let (sender, mut receiver) = mpsc::channel::<Result<Piece>>(4);
    let files: Arc<std::sync::Mutex<std::vec::IntoIter<FileRecord>>> =
        Arc::new(std::sync::Mutex::new(Vec::from(batch).into_iter()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..threads.min(batch.len()) {
        let worker = Worker {
            landing: run.landing.clone(),
            limits: run.project.limits.clone(),
            runtime: Handle::current(),
            arrival: Arrival { source: source.clone(), started: run.started_at, batch_id, watermark },
        };
        let (files, sender, decoders) = (Arc::clone(&files), sender.clone(), Arc::clone(&run.decoders));
        tokio::spawn(async move {
            // writers need blocking threads too: decoders that wait for them must not hold them all
            let Ok(permit) = decoders.acquire_owned().await else {
                return;
            };
            let decoding = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                while let Some(file) =
                    { files.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next() }
                {
                    if let Err(error) = worker.decode(&file, &sender) {
                        // the receiver is gone when another file has failed already
                        let _ = sender.blocking_send(Err(error.during(format!("reading `{}`", file.path))));
                        break;
                    }
                }
            });
            if let Err(error) = decoding.await {
                tracing::error!(%error, "a decoder ended early");
            }
        });
    }
    drop(sender);

    let schema = source.bronze_schema();
    let partition = vec![crate::project::source::DATE.to_owned()];
    let unique: Vec<String> = source.key().map(str::to_owned).collect();
    let unique = if unique.len() == 1 { unique } else { Vec::new() };
    let mut writer = table.writer(Arc::clone(&schema), &partition).with_unique_columns(&unique);
    let (is_cached, is_recent) = (table.version() < 0, run.recent.is_some());
    if is_cached || is_recent {
        writer = writer.keeping(CACHED_ROWS);
    }
    let mut refused = Vec::new();
    let mut reports = Vec::new();
    let mut max_event_time = table.position(MAX_EVENT_TIME);
    let mut num_late = table.position(LATE).unwrap_or(0);
    while let Some(piece) = receiver.recv().await {
        match piece? {
            Piece::Rows(rows, newest) => {
                run.progress.inc(rows.num_rows() as u64);
                writer.write(&rows).await?;
                max_event_time = max_event_time.max(newest);
                num_late += late(&rows);
            }
            Piece::Refused(records) => refused.extend(records),
            Piece::File(report) => reports.push(report),
        }
    }
    reports.sort_by(|a, b| a.path.cmp(&b.path));
    for FileReport { path, landed, quarantined, .. } in &reports {
        if *quarantined >= MANY_REFUSED && *quarantined > landed / 2 {
            tracing::warn!(
                "of {landed} records in `{path}` {quarantined} are refused: is it what its name says?"
            );
        }
    }
    refused.sort_by(|a, b| (&a.source_file, a.source_line).cmp(&(&b.source_file, b.source_line)));
    let (adds, kept) = writer.close_with_rows().await?;
    let fresh = kept.clone().filter(|_| is_recent);
    let cache = kept.filter(|_| is_cached);
    let quarantine_commit = match refused.is_empty() {
        true => None,
        false => Some(quarantine::prepare(&quarantine, source, batch_id, &refused, run).await?),
    };
    let mut positions = BTreeMap::new();
    if source.watermark_delay.is_some()
        && let Some(newest) = max_event_time
    {
        positions.insert(MAX_EVENT_TIME.to_owned(), newest);
        positions.insert(LATE.to_owned(), num_late);
    }
    let files: Vec<serde_json::Value> = reports.iter().map(FileReport::to_json).collect();
    let bronze_commit = Commit {
        change: Change::Append,
        schema,
        partition,
        adds,
        positions,
        once: Some((POSITION.to_owned(), batch_id)),
        info: json!({"run": run.id, "batch": batch_id, "files": files}),
        description: source.description.clone(),
    };
    Ok(Ingested { bronze: table, bronze_commit, quarantine, quarantine_commit, reports, cache, fresh })
}

impl Ingested {
    /// How many of bronze's partitions got rows.
    pub fn num_partitions(&self) -> usize {
        let commit = &self.bronze_commit;
        let keys = commit.adds.iter().map(|add| partition_key(&commit.partition, &add.partition_values, 1));
        keys.collect::<BTreeSet<_>>().len()
    }
}

fn late(rows: &RecordBatch) -> i64 {
    let is_late = rows.column_by_name("is_late").and_then(|column| column.as_boolean_opt());
    is_late.map_or(0, |is_late| i64::try_from(is_late.true_count()).unwrap_or(i64::MAX))
}

struct Worker {
    landing: Arc<Root>,
    limits: Limits,
    runtime: Handle,
    arrival: Arrival,
}

/// What bronze adds to the records of one batch.
pub(super) struct Arrival {
    pub source: Source,
    pub started: i64,
    pub batch_id: i64,
    pub watermark: Option<i64>,
}

impl Worker {
    fn decode(&self, file: &FileRecord, sender: &mpsc::Sender<Result<Piece>>) -> Result<()> {
        let mut decoder = Decoder::new(Arc::clone(&self.arrival.source.layout), file.modified);
        let mut report = FileReport {
            path: file.path.clone(),
            hash: String::new(),
            landed: 0,
            typed: 0,
            quarantined: 0,
            released: 0,
            money: vec![0; self.arrival.source.layout.money.len()],
            warnings: BTreeMap::new(),
            late: Lateness::default(),
        };
        let read = files::read(&self.landing, &file.path, &self.limits, &self.runtime, |bytes| {
            decoder.push(bytes);
            if decoder.rows() >= ROWS_PER_BATCH || decoder.buffered_bytes() >= BYTES_PER_BATCH {
                self.hand_over(&mut decoder, file, &mut report, sender)?;
            }
            Ok(true)
        });
        let (end, hash) = read.during(|| format!("reading `{}`", file.path))?;
        decoder.finish();
        self.hand_over(&mut decoder, file, &mut report, sender)?;
        if let End::Damaged(reason) = end {
            // one record stands for all that could not be read
            report.landed += 1;
            report.quarantined += 1;
            send(sender, Piece::Refused(vec![self.damaged(file, reason)]))?;
        }
        report.hash = hash.to_hex().to_string();
        send(sender, Piece::File(report))
    }

    fn hand_over(
        &self,
        decoder: &mut Decoder,
        file: &FileRecord,
        report: &mut FileReport,
        sender: &mpsc::Sender<Result<Piece>>,
    ) -> Result<()> {
        let decoded = decoder.take()?;
        report.landed += decoded.landed;
        report.typed += decoded.batch.num_rows() as u64;
        report.quarantined += decoded.rejects.len() as u64;
        for (total, sum) in report.money.iter_mut().zip(&decoded.money) {
            *total = total.wrapping_add(*sum);
        }
        for (column, count) in &decoded.warnings {
            *report.warnings.entry(column.clone()).or_default() += count;
        }
        let Decoded { mut batch, rejects, .. } = decoded;
        if !rejects.is_empty() {
            let refused = rejects.into_iter().map(|reject| Refused {
                stage: Stage::Bronze,
                error_type: reject.error_type.as_str().to_owned(),
                column: reject.column,
                reason: reject.reason,
                raw: reject.raw,
                raw_bytes: i64::try_from(reject.raw_bytes).unwrap_or(i64::MAX),
                source_file: file.path.clone(),
                source_line: i64::try_from(reject.line).unwrap_or(i64::MAX),
                date: reject.date.unwrap_or_else(|| date_of(file.file_time)),
                money: reject.money,
                batch_id: self.arrival.batch_id,
            });
            send(sender, Piece::Refused(refused.collect()))?;
        }
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let newest = late::newest(&self.arrival.source, &batch, file.modified);
        let mut is_late = late::mark(&self.arrival.source, &batch, self.arrival.watermark, &mut report.late);
        if self.arrival.source.late == LatePolicy::Quarantine && is_late.true_count() > 0 {
            let refused = self.refuse_late(&batch, &is_late, file)?;
            report.typed -= refused.len() as u64;
            report.quarantined += refused.len() as u64;
            send(sender, Piece::Refused(refused))?;
            batch = filter_record_batch(&batch, &not(&is_late)?)?;
            is_late = BooleanArray::from(vec![false; batch.num_rows()]);
        }
        if batch.num_rows() > 0 {
            send(sender, Piece::Rows(self.arrival.rows(&batch, is_late, file)?, newest))?;
        }
        Ok(())
    }

    /// Records behind the watermark as refused ones, with their raw bytes.
    fn refuse_late(
        &self,
        decoded: &RecordBatch,
        is_late: &BooleanArray,
        file: &FileRecord,
    ) -> Result<Vec<Refused>> {
        let late = filter_record_batch(decoded, is_late)?;
        let layout = &self.arrival.source.layout;
        let lines = late.column(layout.columns.len()).as_primitive::<Int64Type>();
        let wanted = lines.values().iter().map(|line| line.cast_unsigned()).collect();
        let mut reader = RawReader::new(layout, wanted);
        files::read(&self.landing, &file.path, &self.limits, &self.runtime, |bytes| {
            reader.push(bytes);
            Ok(!reader.is_done())
        })?;
        reader.finish();
        let raw: BTreeMap<u64, Vec<u8>> = reader.take().into_iter().collect();
        let dates = late::dates(&self.arrival.source, &late);
        let refused = lines.values().iter().enumerate().map(|(row, line)| {
            let raw = raw.get(&line.cast_unsigned()).cloned().unwrap_or_default();
            Refused {
                stage: Stage::Bronze,
                error_type: late::ERROR_TYPE.to_owned(),
                column: None,
                reason: "the event time is behind the watermark".to_owned(),
                raw_bytes: i64::try_from(raw.len()).unwrap_or(i64::MAX),
                raw,
                source_file: file.path.clone(),
                source_line: *line,
                date: dates.get(row).copied().flatten().unwrap_or_else(|| date_of(file.file_time)),
                money: layout
                    .money
                    .iter()
                    .map(|at| {
                        let amounts = late.column(*at).as_primitive_opt::<Decimal128Type>()?;
                        amounts.is_valid(row).then(|| amounts.value(row))
                    })
                    .collect(),
                batch_id: self.arrival.batch_id,
            }
        });
        Ok(refused.collect())
    }

    fn damaged(&self, file: &FileRecord, reason: String) -> Refused {
        Refused {
            stage: Stage::Bronze,
            error_type: ErrorType::Malformed.as_str().to_owned(),
            column: None,
            reason,
            raw: Vec::new(),
            raw_bytes: file.bytes,
            source_file: file.path.clone(),
            source_line: quarantine::NO_LINE,
            date: date_of(file.file_time),
            money: vec![None; self.arrival.source.layout.money.len()],
            batch_id: self.arrival.batch_id,
        }
    }
}

impl Arrival {
    /// Adds where the record came from to what the decoder gave.
    pub(super) fn rows(
        &self,
        decoded: &RecordBatch,
        is_late: BooleanArray,
        file: &FileRecord,
    ) -> Result<RecordBatch> {
        let num_rows = decoded.num_rows();
        let num_columns = self.source.layout.columns.len();
        let timestamp = |value: i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(vec![value; num_rows]).with_timezone("UTC"))
        };
        let mut columns = decoded.columns()[..num_columns].to_vec();
        let source_file: StringViewArray = std::iter::repeat_n(Some(file.path.as_str()), num_rows).collect();
        columns.push(timestamp(self.started));
        columns.push(Arc::new(source_file));
        columns.push(timestamp(file.file_time));
        columns.push(Arc::clone(decoded.column(num_columns)));
        columns.push(Arc::new(Int64Array::from(vec![self.batch_id; num_rows])));
        if self.source.watermark_delay.is_some() {
            columns.push(Arc::new(is_late));
        }
        columns.push(Arc::clone(decoded.column(num_columns + 1)));
        columns.push(Arc::clone(decoded.column(num_columns + 2)));
        Ok(RecordBatch::try_new(self.source.bronze_schema(), columns)?)
    }
}

fn send(sender: &mpsc::Sender<Result<Piece>>, piece: Piece) -> Result<()> {
    sender.blocking_send(Ok(piece)).map_err(|_| Error::bug("the run has given up on this batch"))
}

/// The UTC date of a time in microseconds, as days since the epoch.
fn date_of(micros: i64) -> i32 {
    i32::try_from(micros.div_euclid(86_400_000_000)).unwrap_or(0)
}
