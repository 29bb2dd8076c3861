//! What `status --monitor` rings for.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use futures::StreamExt;
use object_store::ObjectStoreExt;

use crate::error::Result;
use crate::flow::checks::CheckResult;
use crate::flow::runs::{self, RunRecord};
use crate::flow::{Run, gate, interventions, landing, lost};
use crate::lake::maintain::location;
use crate::ledger;

/// What a person has to look at, beside what `status` finds of each table.
///
/// # Errors
/// The stores'.
pub async fn look(run: &Run, last: Option<&RunRecord>, by_the_clock: &[CheckResult]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if let Some(last) = last.filter(|last| last.status != "done") {
        let why = last.report["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default();
        found.push(format!(
            "run {} ({}) ended as `{}`{why}; see `medallion runs show {}`",
            last.run_id, last.command, last.status, last.run_id
        ));
    }
    if let Some(newest) = interventions::waiting(run).await? {
        found.push(format!("intervention {newest} is not applied yet; `medallion run` applies it"));
    }
    found.extend(gate::tell(run)?.iter().map(ToString::to_string));
    found.extend(by_the_clock.iter().filter(|check| check.has_failed()).map(ToString::to_string));
    found.extend(lost_from_the_lake(run).await?);
    found.extend(wrong_in_landing(run).await?);
    found.extend(runs::unreported(run).await?);
    found.extend(newest_files_gone(run).await?);
    Ok(found)
}

/// Commits and decisions that were there and are not.
async fn lost_from_the_lake(run: &Run) -> Result<Vec<String>> {
    let mut found: Vec<String> = lost::lost_commits(run)
        .await?
        .into_iter()
        .map(|behind| format!("`{}`: {behind}; `medallion doctor` says what to do", behind.table.name()))
        .collect();
    if let Some(lost) = lost::lost_decisions_still(run).await? {
        found.push(format!("{}; `medallion doctor` says what to do", lost.decisions_text()));
    }
    Ok(found)
}

/// Landed files that can't be taken in or are other than they were: a run says so too, but one that found nothing new may
/// have been long ago. A lake can be watched without its landing.
async fn wrong_in_landing(run: &Run) -> Result<Vec<String>> {
    let known = ledger::files(&run.ledger.files).await?;
    match landing::left(run, &known).await {
        Ok(left) => Ok(left.problems()),
        Err(error) => {
            tracing::warn!("landing was not looked at: {error}");
            Ok(Vec::new())
        }
    }
}

/// So many of a table's files are looked for; `doctor` looks for all.
const FILES_LOOKED_FOR: usize = 4;

/// Tables whose newest files are not there.
async fn newest_files_gone(run: &Run) -> Result<Vec<String>> {
    let mut looks = Vec::new();
    for table in run.zone_tables() {
        let mut files: Vec<_> =
            table.snapshot().map(|snapshot| snapshot.files.values().collect()).unwrap_or_default();
        files.sort_unstable_by_key(|file| (Reverse(file.modification_time), &file.path));
        for file in files.into_iter().take(FILES_LOOKED_FOR) {
            looks.push((table, location(table, &file.path)?));
        }
    }
    let store = run.lake.store();
    let gone: BTreeSet<&str> = futures::stream::iter(looks)
        .map(|(table, place)| {
            let store = &store;
            async move {
                let found = store.head(&place).await;
                matches!(found, Err(object_store::Error::NotFound { .. })).then(|| table.name())
            }
        })
        .buffer_unordered(CONCURRENT_LOOKS)
        .filter_map(|gone| async move { gone })
        .collect()
        .await;
    let told = |table| format!("files of `{table}` are gone; `medallion doctor` says which, and what to do");
    Ok(gone.into_iter().map(told).collect())
}

const CONCURRENT_LOOKS: usize = 16;
