//! Checks: queries of the project that must return no row.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::StreamExt;
use serde::Serialize;

use super::{Run, dirty, inputs};
use crate::engine;
use crate::error::{During, Error, Result};
use crate::project::manifest::{CheckScope, SeverityName};
use crate::project::sql::TableName;
use crate::project::{Check, sql};

/// How a check ended.
#[derive(Debug, Clone, Serialize)]
pub struct CheckResult {
    pub name: String,
    pub description: String,
    /// `warn` or `fail`.
    pub severity: &'static str,
    /// Rows that the query returned.
    pub rows: i64,
}

impl CheckResult {
    pub fn has_failed(&self) -> bool {
        self.severity == "fail" && self.rows > 0
    }
}

/// Runs every check on the tables as they are now.
///
/// # Errors
/// Those of the queries.
#[tracing::instrument(target = "hop", name = "checks", skip_all)]
pub async fn run(run: &Run) -> Result<Vec<CheckResult>> {
    run.progress.stage("checks");
    let results: Vec<Result<CheckResult>> = futures::stream::iter(&run.project.checks)
        .map(|check| run_one(run, check))
        .buffered(2)
        .collect()
        .await;
    results.into_iter().collect()
}

#[tracing::instrument(
    target = "hop",
    name = "check",
    skip_all,
    fields(otel.name = %format!("check {}", check.name), check = check.name, rows)
)]
async fn run_one(run: &Run, check: &Check) -> Result<CheckResult> {
    let counted = async {
        let inputs = sql::inputs(&check.sql).map_err(|(_, message)| Error::project(message))?;
        let dates = match check.scope {
            CheckScope::All => None,
            CheckScope::Changed => changed_dates(run, &inputs).await?,
        };
        if dates.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(0);
        }
        let context = engine::context(&run.state);
        inputs::register_dates_of(run, &context, &inputs, dates.as_ref()).await?;
        let text = check.sql.trim().trim_end_matches(';');
        let batches = context
            .sql(&format!("select count(*) as n from (\n{text}\n) as rows_found"))
            .await?
            .collect()
            .await?;
        let counts = batches.first().map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0));
        Result::Ok(counts.unwrap_or(0))
    };
    let rows = counted.await.during(|| format!("running the check `{}`", check.file.display()))?;
    tracing::Span::current().record("rows", rows);
    Ok(CheckResult {
        name: check.name.clone(),
        description: check.description.clone(),
        severity: match check.severity {
            SeverityName::Warn => "warn",
            SeverityName::Fail => "fail",
        },
        rows,
    })
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
    let inputs = sql::inputs(query).map_err(|(_, message)| crate::error::Error::usage(message))?;
    inputs::register_named(run, context, &inputs).await
}
