//! Checks: queries of the project that must return no row, and tables that must be as they used to be.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, Int64Type};
use futures::StreamExt;
use serde::Serialize;

use super::check_history::{self, CheckRecord};
use super::decide::quoted;
use super::run::rows_by_date;
use super::{Run, anomaly, dirty, gate, inputs};
use crate::engine;
use crate::error::{During, Error, Result};
use crate::lake::partition::date_text;
use crate::lake::table::Table;
use crate::project::check::{Check, Finds, Outcome};
use crate::project::manifest::{CheckScope, SeverityName};
use crate::project::sql;
use crate::project::sql::TableName;
use crate::telemetry::counted;

/// Details of a check that are told in one line.
const TOLD_DETAILS: usize = 3;

/// How a check ended.
#[derive(Debug, Clone, Serialize)]
pub struct CheckResult {
    pub name: String,
    pub description: String,
    /// `warn` or `fail`: what it may do at most.
    pub severity: &'static str,
    pub outcome: Outcome,
    /// What it found in the tables as they are, without what is withheld from them.
    pub rows: i64,
    /// The dates of those rows, where the check says so.
    pub dates: Vec<String>,
    /// What is unusual about them, for people.
    pub details: Vec<String>,
    /// Partitions that it keeps out of the table that it guards.
    pub withheld: Vec<String>,
}

impl CheckResult {
    pub fn has_failed(&self) -> bool {
        self.outcome == Outcome::Failed
    }

    /// What was found, and what should be true instead.
    pub fn finding(&self) -> String {
        format!(
            "{} of which this is not true: {}",
            counted(usize::try_from(self.rows).unwrap_or(0), "row"),
            self.description
        )
    }
}

/// What it found, in one line.
impl std::fmt::Display for CheckResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the check `{}` found {}", self.name, self.finding())?;
        for detail in self.details.iter().take(TOLD_DETAILS) {
            write!(f, "; {detail}")?;
        }
        Ok(())
    }
}

/// What a check has found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Rows by date; `None` where they have none, or where the check does not say.
    pub rows: BTreeMap<Option<i32>, i64>,
    pub details: BTreeMap<i32, String>,
}

impl Found {
    fn num_rows(&self) -> i64 {
        self.rows.values().sum()
    }
}

/// Runs every check on the tables as they are now.
///
/// # Errors
/// Those of the queries.
#[tracing::instrument(target = "hop", name = "checks", skip_all)]
pub async fn run(run: &Run) -> Result<Vec<CheckResult>> {
    run.progress.stage("checks");
    run_some(run, run.project.checks.iter()).await
}

/// Runs the checks whose outcome the clock alone can change.
///
/// # Errors
/// As [`run`].
pub async fn run_those_by_the_clock(run: &Run) -> Result<Vec<CheckResult>> {
    run_some(run, run.project.checks.iter().filter(|check| check.follows_clock())).await
}

async fn run_some(run: &Run, checks: impl Iterator<Item = &Check>) -> Result<Vec<CheckResult>> {
    let last = check_history::last(&run.ledger).await?;
    let results: Vec<Result<CheckResult>> =
        futures::stream::iter(checks).map(|check| run_one(run, check, &last)).buffered(2).collect().await;
    results.into_iter().collect()
}

#[tracing::instrument(
    target = "hop",
    name = "check",
    skip_all,
    fields(otel.name = %format!("check {}", check.name), check = check.name, rows)
)]
async fn run_one(run: &Run, check: &Check, last: &BTreeMap<String, CheckRecord>) -> Result<CheckResult> {
    let dates = match check.scope {
        CheckScope::All => None,
        CheckScope::Changed => dates_to_ask(run, check, last.get(&check.name)).await?,
    };
    let mut found = match dates.as_ref().is_some_and(BTreeSet::is_empty) {
        true => Found::default(),
        false => find(run, check, dates.as_ref(), None).await?,
    };
    let mut withheld = Vec::new();
    if let Some(guarded) = &check.guards {
        let all = gate::withheld(run.table(guarded)?);
        // what is not in the table is told by the gate
        found.rows.retain(|date, _| !all.iter().any(|withheld| withheld.place == *date));
        withheld = all
            .into_iter()
            .filter(|withheld| withheld.check == check.name)
            .map(|withheld| gate::place_text(withheld.place))
            .collect();
    }
    let mut outcome = match check.guards {
        // each date by itself, as when it was let in
        Some(_) => judge_dates(run, check, &found, None)?.into_values().max().unwrap_or(Outcome::Passed),
        None => check.tolerance.judge(found.num_rows(), whole(run, check, dates.as_ref(), None)?),
    };
    if !withheld.is_empty() {
        outcome = outcome.max(Outcome::Withheld);
    }
    tracing::Span::current().record("rows", found.num_rows());
    Ok(CheckResult {
        name: check.name.clone(),
        description: check.description.clone(),
        severity: match check.severity {
            SeverityName::Warn => "warn",
            SeverityName::Fail => "fail",
        },
        outcome,
        rows: found.num_rows(),
        dates: found.rows.keys().flatten().map(|date| date_text(*date)).collect(),
        details: found.details.into_values().collect(),
        withheld,
    })
}

/// Asks a check. Of inputs by date it sees `dates` (`None`: all); `instead` stands for the table of its name.
///
/// # Errors
/// Those of the query.
pub async fn find(
    run: &Run,
    check: &Check,
    dates: Option<&BTreeSet<i32>>,
    instead: Option<&Table>,
) -> Result<Found> {
    let found = match &check.finds {
        Finds::Rows(text) => find_rows(run, check, text, dates, instead).await,
        Finds::Deviations(declared) => anomaly::find(run, declared, dates, instead).await,
    };
    found.during(|| format!("running the check `{}`", check.file.display()))
}

async fn find_rows(
    run: &Run,
    check: &Check,
    text: &str,
    dates: Option<&BTreeSet<i32>>,
    instead: Option<&Table>,
) -> Result<Found> {
    let context = engine::context(&run.state);
    inputs::register_instead(run, &context, &check.reads, dates, instead).await?;
    let text = text.trim().trim_end_matches(';');
    let guarded = check.guards.as_ref().and_then(|table| run.project.model(table));
    let query = match guarded.and_then(|model| model.partition.first()) {
        Some(column) => {
            let column = quoted(column);
            format!(
                "select {column} as date, count(*) as n from (\n{text}\n) as rows_found group by {column}"
            )
        }
        None => format!("select cast(null as date) as date, count(*) as n from (\n{text}\n) as rows_found"),
    };
    let mut found = Found::default();
    for batch in context.sql(&query).await?.collect().await? {
        let (dates, counts) =
            (batch.column(0).as_primitive::<Date32Type>(), batch.column(1).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            let date = dates.is_valid(row).then(|| dates.value(row));
            *found.rows.entry(date).or_default() += counts.value(row);
        }
    }
    found.rows.retain(|_, rows| *rows > 0);
    Ok(found)
}

/// What becomes of each date of which the check has found rows.
///
/// # Errors
/// `Bug` where a table is not open.
pub fn judge_dates(
    run: &Run,
    check: &Check,
    found: &Found,
    instead: Option<&Table>,
) -> Result<BTreeMap<Option<i32>, Outcome>> {
    let judged = found.rows.iter().map(|(date, rows)| {
        let only = date.map(|date| BTreeSet::from([date]));
        Ok((*date, check.tolerance.judge(*rows, whole(run, check, only.as_ref(), instead)?)))
    });
    judged.collect()
}

/// The number of rows that shares are of.
fn whole(run: &Run, check: &Check, dates: Option<&BTreeSet<i32>>, instead: Option<&Table>) -> Result<i64> {
    let Some(of) = &check.tolerance.of else {
        return Ok(0);
    };
    let table = match instead.filter(|table| table.name() == of.to_string()) {
        Some(table) => table,
        None => run.table(of)?,
    };
    let rows = match dates.filter(|_| inputs::is_by_date(run, of)) {
        None => table.num_records(),
        Some(dates) => {
            let rows = rows_by_date(table);
            dates.iter().filter_map(|date| rows.get(date)).sum()
        }
    };
    Ok(i64::try_from(rows).unwrap_or(i64::MAX))
}

/// The dates that have changed; `None`: all, also where a query found fault with any when it was last asked.
async fn dates_to_ask(run: &Run, check: &Check, last: Option<&CheckRecord>) -> Result<Option<BTreeSet<i32>>> {
    // what is unusual of a date stays so, and was told
    if matches!(check.finds, Finds::Rows(_)) && last.is_some_and(CheckRecord::has_found_fault) {
        return Ok(None);
    }
    changed_dates(run, &check.reads).await
}

/// The dates that changed in any of the inputs since the last report in the ledger; `None`: any may have.
async fn changed_dates(run: &Run, inputs: &BTreeSet<TableName>) -> Result<Option<BTreeSet<i32>>> {
    let mut dates = BTreeSet::new();
    for input in inputs.iter().filter(|input| inputs::is_by_date(run, input)) {
        let table = run.table(&dirty::stored_table(input))?;
        let Some(reported) = run.ledger.runs.position(table.name()) else {
            return Ok(None);
        };
        let Some(changed) = table.changed_since(reported, 1).await? else {
            return Ok(None);
        };
        dates.extend(dirty::dates_of(changed));
    }
    Ok(Some(dates))
}

/// Registers every table that a query names, views and reference tables included.
///
/// # Errors
/// `Project` where the query names a table that there is not.
pub async fn register_inputs(
    run: &Run,
    context: &datafusion::prelude::SessionContext,
    query: &str,
) -> Result<()> {
    let inputs = sql::inputs(query).map_err(|(_, message)| Error::usage(message))?;
    inputs::register_named(run, context, &inputs).await
}
