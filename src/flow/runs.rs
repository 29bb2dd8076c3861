//! What runs did, as `ledger.runs` keeps it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use serde::Serialize;
use serde_json::Value;

use super::landing::{self, POSITION};
use super::lost::RUN;
use super::{Run, lock};
use crate::error::{Error, Result};
use crate::lake::table::Table;
use crate::ledger::{self, Ledger};

/// One run that changed something, or failed.
#[derive(Debug, Clone, Serialize)]
pub struct RunRecord {
    pub run_id: i64,
    pub command: String,
    /// Microseconds since the epoch.
    pub started: i64,
    pub finished: i64,
    /// `done`, `failed` (something is for a person to look at) or `error` (it was stopped).
    pub status: String,
    pub commits: i64,
    /// Its whole report.
    pub report: Value,
}

impl RunRecord {
    /// How long it took, in seconds.
    pub fn seconds(&self) -> f64 {
        (self.finished - self.started) as f64 / 1e6
    }
}

/// The last run.
///
/// # Errors
/// The store's.
pub async fn last(ledger: &Ledger) -> Result<Option<RunRecord>> {
    let records = parse(&ledger::read_newest(&ledger.runs).await?)?;
    Ok(records.into_iter().last())
}

/// Every run, oldest first.
///
/// # Errors
/// The store's.
pub async fn all(ledger: &Ledger) -> Result<Vec<RunRecord>> {
    parse(&ledger::read(&ledger.runs).await?)
}

/// The newest `limit` runs, oldest first.
///
/// # Errors
/// The store's.
pub async fn newest(ledger: &Ledger, limit: usize) -> Result<Vec<RunRecord>> {
    let batches = ledger::read(&ledger.runs).await?;
    let mut rows: Vec<(i64, RecordBatch)> = Vec::new();
    for batch in &batches {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        rows.extend(ids.values().iter().enumerate().map(|(row, id)| (*id, batch.slice(row, 1))));
    }
    rows.sort_by_key(|(id, _)| *id);
    let older = rows.len().saturating_sub(limit);
    let rows: Vec<RecordBatch> = rows.drain(older..).map(|(_, row)| row).collect();
    parse(&rows)
}

/// The run as a row of `ledger.runs`, ended now.
pub(super) fn row(run: &Run, outcome: &str, num_commits: usize, report: &str) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new(
        ledger::runs_schema(),
        vec![
            ledger::integers([run.id]),
            ledger::texts([&run.command]),
            ledger::timestamps([run.started_at]),
            ledger::timestamps([chrono::Utc::now().timestamp_micros()]),
            ledger::texts([outcome]),
            ledger::integers([i64::try_from(num_commits).unwrap_or(i64::MAX)]),
            ledger::texts([report]),
        ],
    )?)
}

/// Appends a run's row, without saying that checks and balance speak of the tables as they are.
pub(super) async fn append(run: &mut Run, row: &RecordBatch) -> Result<()> {
    let positions = BTreeMap::from([(RUN.to_owned(), run.id)]);
    ledger::append_with_positions(&mut run.ledger.runs, row, positions).await.map(|_| ())
}

/// Tells the ledger of a run that an error has stopped. What it had committed stays; the next run goes on from there.
///
/// # Errors
/// The store's.
pub async fn record_error(run: &mut Run, error: &Error) -> Result<()> {
    let report =
        serde_json::json!({"run_id": run.id, "error": error.to_string(), "commits": run.num_commits});
    let rows = row(run, "error", run.num_commits, &report.to_string())?;
    append(run, &rows).await?;
    run.lake.sync().await
}

/// On an object store, which has no locks, a run that has committed nothing for so long has ended. Milliseconds.
const SILENCE: i64 = 60 * 60 * 1000;

/// What a run has done that has not reported and is not going to, in a sentence: it was killed. Read off the logs.
///
/// # Errors
/// The store's.
pub async fn unreported(run: &Run) -> Result<Option<String>> {
    let Some(newest) = newest_unreported(run, &run.ledger).await? else {
        return Ok(None);
    };
    let is_at_work = lock::is_written(&run.lake)
        .unwrap_or_else(|| chrono::Utc::now().timestamp_millis() - newest < SILENCE);
    if is_at_work {
        return Ok(None);
    }
    // one that has ended just now has reported
    let ledger = Ledger::open(&run.lake).await?;
    Ok(newest_unreported(run, &ledger).await?.map(|_| {
        "a run has ended without a report, it was killed; `medallion run` goes on where it stopped".to_owned()
    }))
}

/// When something was committed last that no run has reported, milliseconds since the epoch.
async fn newest_unreported(run: &Run, ledger: &Ledger) -> Result<Option<i64>> {
    let (runs, files) = (&ledger.runs, &ledger.files);
    let reported = match runs.version() {
        ..0 => -1,
        version => runs.committed_at(version).await?,
    };
    let mut newest = None;
    if files.position(POSITION).unwrap_or(0) > landing::newest_taken(run) {
        newest = Some(files.committed_at(files.version()).await?).filter(|time| *time > reported);
    }
    for table in run.zone_tables().filter(|table| table.version() >= 0) {
        let time = table.committed_at(table.version()).await?;
        if time <= reported {
            continue;
        }
        let known = runs.position(table.name()).unwrap_or(-1);
        // a compaction changes nothing, and what a restore leaves to the next run was asked for
        let is_changed = table.changed_since(known, 1).await?.is_none_or(|changed| !changed.is_empty());
        if is_changed && table.info_at(table.version()).await?["restored"].is_null() {
            newest = newest.max(Some(time));
        }
    }
    Ok(newest)
}

/// The rows of `ledger.steps`, of the runs that the table holds.
///
/// # Errors
/// The store's.
pub async fn steps(runs: &Table) -> Result<RecordBatch> {
    let runs = parse(&ledger::read(runs).await?)?;
    let steps: Vec<(&RunRecord, usize, &Value)> = runs
        .iter()
        .flat_map(|run| {
            let steps = run.report["steps"].as_array().into_iter().flatten().enumerate();
            steps.map(move |(at, step)| (run, at, step))
        })
        .collect();
    let integers = |name: &str| -> ArrayRef {
        Arc::new(steps.iter().map(|(.., step)| step[name].as_i64()).collect::<Int64Array>())
    };
    let texts = |name: &str| -> ArrayRef {
        Arc::new(steps.iter().map(|(.., step)| step[name].as_str()).collect::<StringViewArray>())
    };
    let times = |name: &str| -> ArrayRef {
        let times = steps.iter().map(|(.., step)| step[name].as_i64());
        Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    let seconds =
        steps.iter().map(|(.., step)| match (step["started"].as_i64(), step["finished"].as_i64()) {
            (Some(started), Some(finished)) => Some((finished - started) as f64 / 1e6),
            _ => step["seconds"].as_f64(),
        });
    let columns: Vec<ArrayRef> = vec![
        ledger::integers(steps.iter().map(|(run, ..)| run.run_id)),
        ledger::texts(steps.iter().map(|(run, ..)| &run.command)),
        ledger::integers(steps.iter().map(|(_, at, _)| i64::try_from(at + 1).unwrap_or(i64::MAX))),
        texts("table"),
        texts("scope"),
        integers("partitions"),
        integers("rows"),
        integers("unchanged"),
        integers("withheld"),
        integers("landed"),
        integers("quarantined"),
        integers("late"),
        integers("version"),
        times("started"),
        times("finished"),
        Arc::new(seconds.collect::<Float64Array>()),
    ];
    Ok(RecordBatch::try_new(ledger::steps_schema(), columns)?)
}

fn parse(batches: &[RecordBatch]) -> Result<Vec<RunRecord>> {
    let mut found = Vec::new();
    for batch in batches {
        let text = |at: usize, row: usize| batch.column(at).as_string_view().value(row);
        let integer = |at: usize, row: usize| batch.column(at).as_primitive::<Int64Type>().value(row);
        let time =
            |at: usize, row: usize| batch.column(at).as_primitive::<TimestampMicrosecondType>().value(row);
        for row in 0..batch.num_rows() {
            found.push(RunRecord {
                run_id: integer(0, row),
                command: text(1, row).to_owned(),
                started: time(2, row),
                finished: time(3, row),
                status: text(4, row).to_owned(),
                commits: integer(5, row),
                report: serde_json::from_str(text(6, row))?,
            });
        }
    }
    found.sort_by_key(|run| (run.run_id, run.started));
    Ok(found)
}
