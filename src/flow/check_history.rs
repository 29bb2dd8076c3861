//! How the checks of each run ended, as `ledger.checks` keeps it.
//!
//! The rows of a run are written before the run's own row. A run that was killed in between is followed by one of the same
//! number, whose rows then take their place.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use serde::Serialize;

use super::Run;
use super::checks::CheckResult;
use super::lost::RUN;
use crate::error::Result;
use crate::ledger::{self, Ledger};
use crate::project::check::Outcome;

/// Dates of a check that are kept by name.
const MOST_DATES: usize = 100;

/// How a check of a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckRecord {
    pub run_id: i64,
    pub name: String,
    pub severity: String,
    /// `passed`, `warned`, `withheld` or `failed`.
    pub outcome: String,
    pub rows_found: i64,
    pub partitions_withheld: i64,
    pub dates: String,
    pub details: String,
    /// Microseconds since the epoch.
    pub checked: i64,
}

impl CheckRecord {
    /// Whether more was found than is tolerated.
    pub fn has_found_fault(&self) -> bool {
        self.rows_found > 0 && self.outcome != Outcome::Passed.as_str()
    }
}

/// Every check of every run, oldest first.
///
/// # Errors
/// The store's.
pub async fn all(ledger: &Ledger) -> Result<Vec<CheckRecord>> {
    Ok(parse(&ledger::read(&ledger.checks).await?))
}

/// The checks of the newest run that had any, by name.
///
/// # Errors
/// The store's.
pub async fn last(ledger: &Ledger) -> Result<BTreeMap<String, CheckRecord>> {
    let newest = parse(&ledger::read_newest(&ledger.checks).await?);
    let run_id = newest.iter().map(|record| record.run_id).max();
    let of_run = newest.into_iter().filter(|record| Some(record.run_id) == run_id);
    Ok(of_run.map(|record| (record.name.clone(), record)).collect())
}

/// Whether the checks ended as they did in the run before.
pub fn is_news(results: &[CheckResult], last: &BTreeMap<String, CheckRecord>) -> bool {
    results.iter().any(|result| {
        last.get(&result.name).is_none_or(|record| {
            // what is tolerated depends on which dates were asked
            let is_passed = result.outcome == Outcome::Passed;
            record.outcome != result.outcome.as_str()
                || (record.rows_found != result.rows && !is_passed)
                || record.partitions_withheld != count(&result.withheld)
        })
    })
}

/// Adds how the checks of this run ended.
///
/// # Errors
/// The store's.
pub async fn record(run: &mut Run, results: &[CheckResult]) -> Result<()> {
    if results.is_empty() {
        return Ok(());
    }
    let rows = rows(run.id, results)?;
    let positions = BTreeMap::from([(RUN.to_owned(), run.id)]);
    let table = &mut run.ledger.checks;
    if table.position(RUN) == Some(run.id) {
        let rows = ledger::with_rows_of_run(table, run.id, rows).await?;
        ledger::replace(table, &rows, positions).await?;
    } else {
        ledger::append_with_positions(table, &rows, positions).await?;
    }
    run.num_commits += 1;
    Ok(())
}

fn count(items: &[String]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

/// The first of them, and whether there are more.
fn listed(items: &[String]) -> String {
    let mut text = items.iter().take(MOST_DATES).map(String::as_str).collect::<Vec<_>>().join("; ");
    if items.len() > MOST_DATES {
        text.push_str("; …");
    }
    text
}

fn rows(run_id: i64, results: &[CheckResult]) -> Result<RecordBatch> {
    let now = chrono::Utc::now().timestamp_micros();
    let dates = results.iter().map(|result| {
        let mut dates: Vec<String> = result.dates.iter().chain(&result.withheld).cloned().collect();
        dates.sort();
        dates.dedup();
        listed(&dates)
    });
    Ok(RecordBatch::try_new(
        ledger::checks_schema(),
        vec![
            ledger::integers(results.iter().map(|_| run_id)),
            ledger::texts(results.iter().map(|result| &result.name)),
            ledger::texts(results.iter().map(|result| result.severity)),
            ledger::texts(results.iter().map(|result| result.outcome.as_str())),
            ledger::integers(results.iter().map(|result| result.rows)),
            ledger::integers(results.iter().map(|result| count(&result.withheld))),
            ledger::texts(dates),
            ledger::texts(results.iter().map(|result| listed(&result.details))),
            ledger::timestamps(results.iter().map(|_| now)),
        ],
    )?)
}

fn parse(batches: &[RecordBatch]) -> Vec<CheckRecord> {
    let mut found = Vec::new();
    for batch in batches {
        let text = |at: usize, row: usize| batch.column(at).as_string_view().value(row).to_owned();
        let integer = |at: usize, row: usize| batch.column(at).as_primitive::<Int64Type>().value(row);
        let times = batch.column(8).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            found.push(CheckRecord {
                run_id: integer(0, row),
                name: text(1, row),
                severity: text(2, row),
                outcome: text(3, row),
                rows_found: integer(4, row),
                partitions_withheld: integer(5, row),
                dates: text(6, row),
                details: text(7, row),
                checked: times.value(row),
            });
        }
    }
    found.sort_by(|a, b| (a.run_id, &a.name, a.checked).cmp(&(b.run_id, &b.name, b.checked)));
    found
}
