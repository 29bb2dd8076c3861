//! Batch: everything that waits, once.

use crate::error::Result;
use crate::flow::report::Report;
use crate::flow::{self, Run, lock};

/// Runs the flow until nothing waits.
///
/// # Errors
/// `Conflict` where another run holds the lake, and those of [`flow::advance`].
pub async fn run(run: &mut Run, is_full_refresh: bool) -> Result<Report> {
    run.is_full_refresh = is_full_refresh;
    flow::advance(run).await
}

/// Takes the lake for a run.
///
/// # Errors
/// As [`lock::acquire`].
pub fn lock(lake: &crate::lake::Lake) -> Result<lock::Lock> {
    lock::acquire(lake)
}
