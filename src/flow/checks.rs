//! Checks: queries of the project that must return no row.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::StreamExt;
use serde::Serialize;

use super::{Run, model};
use crate::engine;
use crate::error::{During, Result};
use crate::project::manifest::SeverityName;
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
pub async fn run(run: &Run) -> Result<Vec<CheckResult>> {
    run.progress.stage("checks");
    let results: Vec<Result<CheckResult>> = futures::stream::iter(&run.project.checks)
        .map(|check| run_one(run, check))
        .buffered(2)
        .collect()
        .await;
    results.into_iter().collect()
}

async fn run_one(run: &Run, check: &Check) -> Result<CheckResult> {
    let counted = async {
        let context = engine::context(&run.state);
        register_inputs(run, &context, &check.sql).await?;
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
    model::register_named(run, context, &inputs).await
}
