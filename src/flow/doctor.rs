//! Is the lake sound? Looks at logs, checkpoints, files and the ledger, changes nothing, and says what to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use super::dirty::dates_of;
use super::maintain;
use crate::error::Result;
use crate::lake::Lake;
use crate::lake::log::{self, Add, Hint, Snapshot};
use crate::lake::maintain::{location, stored_files};
use crate::lake::partition::date_text;
use crate::lake::partition::partition_key;
use crate::lake::table::Table;
use crate::ledger;
use crate::project::Project;
use crate::project::sql::TableName;
use crate::zone;

mod compare;

pub use self::compare::compare;

/// Something that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// `problem`: the lake is not as it should be. `note`: it is, and something can be done.
    pub kind: &'static str,
    pub table: String,
    pub what: String,
    pub remedy: String,
}

impl Finding {
    fn new(
        kind: &'static str,
        table: impl ToString,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding { kind, table: table.to_string(), what: what.into(), remedy: remedy.into() }
    }
}

const PROBLEM: &str = "problem";
const NOTE: &str = "note";

/// Every table that the project has in its lake.
pub fn tables(project: &Project) -> Vec<TableName> {
    let sources = project
        .sources
        .iter()
        .flat_map(|source| [zone::BRONZE, zone::QUARANTINE].map(|zone| TableName::new(zone, &source.name)));
    let models = project.stored_models().map(|model| model.table.clone());
    let ledger = ledger::schemas().into_iter().map(|(name, _)| TableName::new(zone::LEDGER, name));
    sources.chain(models).chain(ledger).collect()
}

/// Looks at one table's log and files; with `is_deep` every row is read.
///
/// # Errors
/// The store's, where not even listing works.
pub async fn examine(lake: &Lake, name: &TableName, is_deep: bool) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let table = match lake.table(&name.schema, &name.table).await {
        Ok(table) => table,
        Err(error) => {
            found.push(Finding::new(PROBLEM, name, error.to_string(), make_again(name)));
            return Ok(found);
        }
    };
    let Some(snapshot) = table.snapshot() else {
        return Ok(found);
    };
    examine_log(&table, name, snapshot, &mut found).await?;
    examine_files(&table, name, snapshot, is_deep, &mut found).await?;
    Ok(found)
}

/// Where nothing else has what is lost.
const NEW_LAKE: &str = "restore the file from a backup, or begin a new lake from the same landing files";

/// What mends a table whose log or whose file can't be read, where it follows from other tables.
fn make_again(name: &TableName) -> String {
    let folder = format!("`{}/{}`", name.schema, name.table);
    match (name.schema.as_str(), name.table.as_str()) {
        (zone::SILVER | zone::GOLD, _) => format!(
            "restore the file from a backup, or delete the folder {folder} and run `medallion run --full-refresh`"
        ),
        (zone::LEDGER, "files" | "landed" | "decisions") => {
            format!("delete the folder {folder}: `medallion run` writes it again")
        }
        (zone::LEDGER, "balances" | "checks") => format!(
            "restore the file from a backup, or delete the folder {folder}: `medallion run` writes how things stand, what \
             older runs found is lost"
        ),
        (zone::LEDGER, "runs") => "restore the file from a backup, or delete the folders `ledger/runs`, \
             `ledger/balances` and `ledger/checks`: `medallion run` begins them anew, what older runs did is lost"
            .to_owned(),
        (zone::LEDGER, "interventions") => INTERVENTIONS.to_owned(),
        _ => NEW_LAKE.to_owned(),
    }
}

const INTERVENTIONS: &str =
    "restore the folder `ledger/interventions` from a backup: what operators decided is nowhere else";

/// What is wrong with a data file.
enum Harm {
    /// It is not there, or not all of it.
    Gone(String),
    /// It has its size, and can't be read.
    Damaged(String),
}

/// What mends a data file. A rerun of what is missing sees sizes only.
fn mend_file(name: &TableName, harm: &Harm, date: Option<&str>) -> String {
    match (name.schema.as_str(), harm, date) {
        (zone::SILVER | zone::GOLD, Harm::Gone(_), _) => "`medallion rerun --missing`".to_owned(),
        (zone::SILVER | zone::GOLD, Harm::Damaged(_), Some(date)) => {
            format!("`medallion rerun --select {name} --from {date} --to {date}`")
        }
        (zone::SILVER | zone::GOLD, Harm::Damaged(_), None) => {
            format!("`medallion rerun --select {name}`")
        }
        _ => make_again(name),
    }
}

async fn examine_log(
    table: &Table,
    name: &TableName,
    snapshot: &Snapshot,
    found: &mut Vec<Finding>,
) -> Result<()> {
    let folder = table.root().clone().join("_delta_log");
    let listed: Vec<_> = table.lake().store().list(Some(&folder)).try_collect().await?;
    let mut entries = BTreeSet::new();
    let mut checkpoints = BTreeSet::new();
    for meta in &listed {
        let Some((version, rest)) = meta.location.filename().and_then(|name| name.split_once('.')) else {
            continue;
        };
        match (version.parse::<i64>(), rest) {
            (Ok(version), "json") => {
                entries.insert(version);
            }
            (Ok(version), "checkpoint.parquet") => {
                checkpoints.insert(version);
            }
            _ => {}
        }
    }
    let store = table.lake().store();
    let mut is_whole = true;
    for version in 0..=snapshot.version {
        let is_there = entries.contains(&version);
        let is_read = is_there && log::read_entry(store.as_ref(), table.root(), version).await.is_ok();
        if !is_read {
            is_whole = false;
            let what = if is_there { "damaged" } else { "missing" };
            // what a checkpoint stands for is not needed to read the table, only to look back
            let covered = checkpoints.last().is_some_and(|checkpoint| version <= *checkpoint);
            let kind = if covered { NOTE } else { PROBLEM };
            found.push(Finding::new(kind, name, format!("log entry {version} is {what}"), make_again(name)));
        }
    }
    if is_whole {
        let replayed = log::load_version(store.as_ref(), table.root(), None, snapshot.version).await?;
        for checkpoint in &checkpoints {
            let path = log::checkpoint_path(table.root(), *checkpoint);
            let read =
                log::load_version(store.as_ref(), table.root(), Some(*checkpoint), snapshot.version).await;
            let what = match read {
                Ok(read) if read.files.keys().eq(replayed.files.keys()) && read.txns == replayed.txns => {
                    continue;
                }
                Ok(_) => format!("checkpoint {checkpoint} says other than the log before it"),
                Err(error) => format!("checkpoint {checkpoint} can't be read: {error}"),
            };
            let remedy = format!("delete the file `{path}`: the log has all it says");
            found.push(Finding::new(PROBLEM, name, what, remedy));
        }
    }
    let what = match log::last_checkpoint(store.as_ref(), table.root()).await? {
        Hint::Damaged => "`_last_checkpoint` can't be read".to_owned(),
        // beside a writer the log may be longer than when it was listed
        Hint::Version(version)
            if version > snapshot.version
                && log::read_entry(store.as_ref(), table.root(), version).await.is_err() =>
        {
            format!("`_last_checkpoint` names version {version}, the log ends at {}", snapshot.version)
        }
        Hint::Version(version) if store.head(&log::checkpoint_path(table.root(), version)).await.is_err() => {
            format!("`_last_checkpoint` names checkpoint {version}, which is not there")
        }
        _ => return Ok(()),
    };
    let remedy = format!("delete the file `{folder}/_last_checkpoint`: the next checkpoint writes it again");
    found.push(Finding::new(PROBLEM, name, what, remedy));
    Ok(())
}

/// What is wrong with a file's bytes.
fn damage(bytes: Bytes, file: &Add) -> Option<Harm> {
    if !file.is_as_written(&bytes) {
        return Some(Harm::Damaged("has other bytes than were written".to_owned()));
    }
    let read = || -> Result<u64> {
        let mut rows = 0;
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
            rows += batch?.num_rows() as u64;
        }
        Ok(rows)
    };
    match read() {
        Ok(rows) if rows == file.num_records() => None,
        Ok(rows) => Some(Harm::Damaged(format!("has {rows} rows, the log says {}", file.num_records()))),
        Err(error) => Some(Harm::Damaged(format!("can't be read: {error}"))),
    }
}

async fn examine_files(
    table: &Table,
    name: &TableName,
    snapshot: &Snapshot,
    is_deep: bool,
    found: &mut Vec<Finding>,
) -> Result<()> {
    let stored = stored_files(table).await?;
    for file in snapshot.files.values() {
        let place = location(table, &file.path)?;
        let harm = match stored.get(&place) {
            None => Some(Harm::Gone("is gone".to_owned())),
            Some(there) if there.bytes != file.size.cast_unsigned() => {
                Some(Harm::Gone(format!("has {} bytes, the log says {}", there.bytes, file.size)))
            }
            Some(_) if is_deep => {
                let bytes = table.lake().store().get(&place).await?.bytes().await?;
                let file = Arc::clone(file);
                tokio::task::spawn_blocking(move || damage(bytes, &file)).await?
            }
            Some(_) => None,
        };
        let Some(harm) = harm else {
            continue;
        };
        let key = partition_key(&snapshot.metadata.partition_columns, &file.partition_values, 1);
        let dates = dates_of(BTreeSet::from([key]));
        let date = dates.first().map(|date| date_text(*date));
        let remedy = mend_file(name, &harm, date.as_deref());
        let (Harm::Gone(what) | Harm::Damaged(what)) = harm;
        found.push(Finding::new(PROBLEM, name, format!("the file `{}` {what}", file.path), remedy));
    }
    let now = chrono::Utc::now().timestamp_millis();
    if let Ok(unneeded) = maintain::unneeded(table, now).await
        && unneeded.files > 0
    {
        let what = format!("{} files, {} bytes, are of the past only", unneeded.files, unneeded.bytes);
        found.push(Finding::new(NOTE, name, what, "`medallion vacuum` says what can be deleted"));
    }
    Ok(())
}
