//! Batch: everything that waits, once.

use crate::error::{ErrorKind, Result};
use crate::flow::report::Report;
use crate::flow::{self, Run};

/// Runs the flow until nothing waits.
///
/// # Errors
/// `Conflict` where another run holds the lake, and those of [`flow::advance`].
pub async fn run(run: &mut Run, is_full_refresh: bool) -> Result<Report> {
    run.is_full_refresh = is_full_refresh;
    let done = flow::advance(run).await;
    told(run, done).await
}

/// An error that stopped a run is told to the ledger too, where it can be; one that another run caused is not news.
async fn told(run: &mut Run, done: Result<Report>) -> Result<Report> {
    if let Err(error) = &done
        && !matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Usage)
        && let Err(again) = flow::runs::record_error(run, error).await
    {
        tracing::warn!(error = %again, "the ledger could not be told of the error");
    }
    done
}

/// Runs the flow from bronze on: what is wanted, and what waits there; landing is not looked at.
///
/// # Errors
/// As [`run`].
pub async fn rerun(run: &mut Run) -> Result<Report> {
    let done = async {
        let mut report = Report::begin(run);
        flow::finish_begun(run, &mut report).await?;
        flow::refresh(run, &mut report).await?;
        flow::settle(run, &mut report).await?;
        Ok(report)
    }
    .await;
    told(run, done).await
}
