//! What runs did, as `ledger.runs` keeps it.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use serde::Serialize;

use super::Run;
use crate::error::{Error, Result};
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
    pub report: serde_json::Value,
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

/// Tells the ledger of a run that an error has stopped. What it had committed stays; the next run goes on from there.
///
/// # Errors
/// The store's.
pub async fn record_error(run: &mut Run, error: &Error) -> Result<()> {
    let report =
        serde_json::json!({"run_id": run.id, "error": error.to_string(), "commits": run.num_commits});
    let rows = row(run, "error", run.num_commits, &report.to_string())?;
    ledger::append(&mut run.ledger.runs, &rows, None).await?;
    run.lake.sync().await
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
