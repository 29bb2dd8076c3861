//! Housekeeping of the lake's tables: fewer and sorted files, no files that nobody needs, old ledger rows.
//!
//! A compaction changes no row: its entry says so, nothing is computed after it, and another writer's commit that it meets
//! stands. A vacuum deletes only what neither the newest version needs nor one that is young enough to be kept, and nothing
//! that a running job may just have written.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::Serialize;
use serde_json::json;

use super::Run;
use super::compact::{rewrite, small_files};
use crate::error::{ErrorKind, Result};
use crate::lake::log::{self, Action};
use crate::lake::maintain::{location, stored_files};
use crate::lake::table::Table;
use crate::ledger;
use crate::project::sql::TableName;
use crate::zone;

/// Rows of one partition that are sorted at once; a partition with more is left as it is.
const MOST_ROWS: u64 = 20_000_000;

/// What a compaction did to one table.
#[derive(Debug, Clone, Serialize)]
pub struct Compacted {
    pub table: String,
    pub files_before: usize,
    pub files_after: usize,
    pub bytes_before: i64,
    pub bytes_after: i64,
    /// Another writer changed the table meanwhile: nothing was done.
    pub was_busy: bool,
}

/// Every table of the lake, the ledger's too.
pub fn all_tables(run: &Run) -> Vec<TableName> {
    let names = run.zone_tables().chain(run.ledger.tables()).map(|table| table.name().to_owned());
    let mut names: Vec<TableName> = names.filter_map(|name| TableName::parse(&name)).collect();
    names.sort();
    names
}

/// Makes one file of a partition's small ones, sorted by the table's key. `None` where there is nothing to do.
///
/// # Errors
/// The store's.
pub async fn compact(
    run: &Run,
    name: &TableName,
    target_bytes: i64,
    min_files: usize,
) -> Result<Option<Compacted>> {
    let mut table = run.table(name)?.clone();
    let mut groups = small_files(&table, target_bytes);
    groups.retain(|files| {
        files.len() >= min_files.max(2)
            && files.iter().map(|file| file.num_records()).sum::<u64>() <= MOST_ROWS
    });
    if groups.is_empty() {
        return Ok(None);
    }
    let mut commit = rewrite(&table, &run.state, &groups, &run.key_of(name)).await?;
    let replaced = groups.iter().flatten();
    let mut report = Compacted {
        table: name.to_string(),
        files_before: replaced.clone().count(),
        files_after: commit.adds.len(),
        bytes_before: replaced.map(|file| file.size).sum(),
        bytes_after: commit.adds.iter().map(|add| add.size).sum(),
        was_busy: false,
    };
    commit.info = json!({"optimize": report});
    let store = table.lake().store();
    match table.commit(&commit).await {
        Ok(_) => Ok(Some(report)),
        Err(error) if error.kind() == ErrorKind::Conflict => {
            for add in &commit.adds {
                let _ = store.delete(&location(&table, &add.path)?).await;
            }
            report.was_busy = true;
            Ok(Some(report))
        }
        Err(error) => Err(error),
    }
}

impl Run {
    /// The columns that tell a table's rows apart, the most asked for first.
    pub fn key_of(&self, name: &TableName) -> Vec<String> {
        match name.schema.as_str() {
            zone::BRONZE | zone::QUARANTINE => vec!["source_file".to_owned(), "source_line".to_owned()],
            zone::LEDGER => Vec::new(),
            _ => self.project.model(name).map(|model| model.key.clone()).unwrap_or_default(),
        }
    }
}

/// What a vacuum deletes, or would, of one table.
#[derive(Debug, Clone, Serialize)]
pub struct Vacuumed {
    pub table: String,
    pub files: usize,
    pub bytes: u64,
    #[serde(skip)]
    pub locations: Vec<Path>,
}

/// The files of a table's folder that no version since `cutoff` needs and that are older than `cutoff` themselves;
/// milliseconds since the epoch.
///
/// # Errors
/// The store's; `Data` where the log can't tell.
pub async fn unneeded(table: &Table, cutoff: i64) -> Result<Vacuumed> {
    let mut found = Vacuumed { table: table.name().to_owned(), files: 0, bytes: 0, locations: Vec::new() };
    let Some(snapshot) = table.snapshot() else {
        return Ok(found);
    };
    let mut needed: BTreeSet<Path> = BTreeSet::new();
    for path in snapshot.files.keys() {
        needed.insert(location(table, path)?);
    }
    let store = table.lake().store();
    for version in (0..=snapshot.version).rev() {
        let actions = log::read_entry(store.as_ref(), table.root(), version).await?;
        let time = actions.iter().find_map(|action| match action {
            Action::CommitInfo(info) => info["timestamp"].as_i64(),
            _ => None,
        });
        if time.is_some_and(|time| time < cutoff) {
            break;
        }
        for action in &actions {
            let path = match action {
                Action::Add(add) => &add.path,
                Action::Remove(remove) => &remove.path,
                _ => continue,
            };
            needed.insert(location(table, path)?);
        }
    }
    for (path, stored) in stored_files(table).await? {
        if stored.modified < cutoff && !needed.contains(&path) {
            found.files += 1;
            found.bytes += stored.bytes;
            found.locations.push(path);
        }
    }
    Ok(found)
}

/// Deletes them.
///
/// # Errors
/// The store's.
pub async fn delete(table: &Table, unneeded: &Vacuumed) -> Result<()> {
    let store = table.lake().store();
    for path in &unneeded.locations {
        match store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Forgets the reports, balances and checks of all but the newest runs; returns how many rows are gone.
///
/// # Errors
/// The store's.
pub async fn forget_runs(run: &mut Run, keep: usize) -> Result<usize> {
    let mut ids: Vec<i64> = super::runs::all(&run.ledger).await?.iter().map(|run| run.run_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let Some(first_kept) = ids.len().checked_sub(keep.max(1)).map(|at| ids[at]) else {
        return Ok(0);
    };
    let mut gone = 0;
    for table in [&mut run.ledger.runs, &mut run.ledger.balances, &mut run.ledger.checks] {
        let mut kept = Vec::new();
        let mut gone_here = 0;
        for batch in ledger::read(table).await? {
            let ids = batch.column(0).as_primitive::<Int64Type>();
            let is_kept: BooleanArray = ids.iter().map(|id| Some(id >= Some(first_kept))).collect();
            gone_here += batch.num_rows() - is_kept.true_count();
            kept.push(filter_record_batch(&batch, &is_kept)?);
        }
        if gone_here == 0 {
            continue;
        }
        gone += gone_here;
        if let Some(first) = kept.first() {
            let rows = arrow::compute::concat_batches(&first.schema(), &kept)?;
            ledger::replace(table, &rows, BTreeMap::new()).await?;
            run.num_commits += 1;
        }
    }
    Ok(gone)
}
