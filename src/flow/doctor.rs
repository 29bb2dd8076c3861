//! Is the lake sound? Looks at logs, checkpoints, files and the ledger, changes nothing, and says what to do.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use super::{Run, balance, dirty, interventions, landing, maintain};
use crate::error::Result;
use crate::lake::Lake;
use crate::lake::log::{self, Snapshot};
use crate::lake::maintain::{location, stored_files};
use crate::lake::table::Table;
use crate::ledger;
use crate::project::Project;
use crate::project::sql::TableName;
use crate::source::files;
use crate::zone;

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
            found.push(Finding::new(PROBLEM, name, error.to_string(), restore_log(name)));
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

fn restore_log(name: &TableName) -> String {
    match name.schema.as_str() {
        zone::SILVER | zone::GOLD => format!(
            "restore the file from a backup, or delete the folder `{}/{}` and run `medallion run --full-refresh`",
            name.schema, name.table
        ),
        _ => "restore the file from a backup, or begin a new lake from the same landing files".to_owned(),
    }
}

fn mend_rows(name: &TableName) -> String {
    match name.schema.as_str() {
        zone::SILVER | zone::GOLD => {
            "`medallion rerun --missing` computes what is gone again; for a damaged file \
                              `medallion rerun --from DATE --to DATE`"
                .to_owned()
        }
        _ => "restore the file from a backup, or begin a new lake from the same landing files".to_owned(),
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
            found.push(Finding::new(kind, name, format!("log entry {version} is {what}"), restore_log(name)));
        }
    }
    if !is_whole {
        return Ok(());
    }
    let replayed = log::load_version(store.as_ref(), table.root(), None, snapshot.version).await?;
    for checkpoint in checkpoints {
        let remedy = format!(
            "delete the file `{folder}/{checkpoint:020}.checkpoint.parquet`: the log has all it says"
        );
        match log::load_version(store.as_ref(), table.root(), Some(checkpoint), snapshot.version).await {
            Ok(read) if read.files.keys().eq(replayed.files.keys()) && read.txns == replayed.txns => {}
            Ok(_) => found.push(Finding::new(
                PROBLEM,
                name,
                format!("checkpoint {checkpoint} says other than the log before it"),
                remedy,
            )),
            Err(error) => {
                let what = format!("checkpoint {checkpoint} can't be read: {error}");
                found.push(Finding::new(PROBLEM, name, what, remedy));
            }
        }
    }
    Ok(())
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
        let what = match stored.get(&place) {
            None => Some("is gone".to_owned()),
            Some(there) if there.bytes != file.size.cast_unsigned() => {
                Some(format!("has {} bytes, the log says {}", there.bytes, file.size))
            }
            Some(_) if is_deep => {
                let bytes = table.lake().store().get(&place).await?.bytes().await?;
                let read = tokio::task::spawn_blocking(move || -> Result<u64> {
                    let mut rows = 0;
                    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
                        rows += batch?.num_rows() as u64;
                    }
                    Ok(rows)
                });
                match read.await? {
                    Ok(rows) if rows == file.num_records() => None,
                    Ok(rows) => Some(format!("has {rows} rows, the log says {}", file.num_records())),
                    Err(error) => Some(format!("can't be read: {error}")),
                }
            }
            Some(_) => None,
        };
        if let Some(what) = what {
            found.push(Finding::new(
                PROBLEM,
                name,
                format!("the file `{}` {what}", file.path),
                mend_rows(name),
            ));
        }
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

/// Compares the tables and the ledger with each other.
///
/// # Errors
/// The store's.
pub async fn compare(run: &Run) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for file in ledger::files(&run.ledger.files).await? {
        let Ok(table) = run.bronze_of(&file.source) else {
            continue;
        };
        if table.position(landing::POSITION).is_none_or(|taken| taken < file.batch_id) {
            let what = format!("batch {} was written ahead and is not taken in", file.batch_id);
            if !found.iter().any(|there: &Finding| there.what == what && there.table == table.name()) {
                found.push(Finding::new(NOTE, table.name(), what, "`medallion run` takes it in"));
            }
        }
    }
    found.extend(landed_files_gone(run).await?);
    for source in &run.project.sources {
        let table = run.bronze_of(&source.name)?;
        let reported = run.ledger.landed.position(table.name());
        if reported.is_some_and(|reported| reported > table.version()) {
            found.push(Finding::new(
                PROBLEM,
                table.name(),
                format!(
                    "`ledger.landed` has seen version {} of it, it is at {}: it was restored from a backup that is \
                     older than the ledger's",
                    reported.unwrap_or(-1),
                    table.version()
                ),
                "restore the whole lake from one backup, or begin a new lake from the same landing files",
            ));
        }
    }
    for model in run.project.stored_models() {
        let table = run.table(&model.table)?;
        for (name, version) in dirty::positions(run, model)? {
            if table.position(&name).is_some_and(|consumed| consumed > version) {
                found.push(Finding::new(
                    PROBLEM,
                    &model.table,
                    format!(
                        "it was computed from a version of `{name}` that is not there: `{name}` was restored"
                    ),
                    "`medallion run --full-refresh`",
                ));
            }
        }
    }
    if let Some((name, newest)) = interventions::position(run)
        && run.ledger.decisions.position(&name) != Some(newest)
    {
        let what = format!("intervention {newest} is not applied yet");
        found.push(Finding::new(NOTE, "ledger.interventions", what, "`medallion run` applies it"));
    }
    for row in balance::stored(run).await?.iter().filter(|row| row.scope == "lake" && row.difference != 0) {
        found.push(Finding::new(
            PROBLEM,
            &row.source,
            format!(
                "the balance of `{}` does not hold: difference {}",
                row.measure,
                row.amount(row.difference)
            ),
            "see \"The balance does not hold\" in docs/operations.md",
        ));
    }
    Ok(found)
}

/// Files that were taken in should stay: exact bytes of refused records, and a new lake, come from there.
async fn landed_files_gone(run: &Run) -> Result<Option<Finding>> {
    let note =
        |what: String| Finding::new(NOTE, "landing", what, "put it back from a backup: landing is to stay");
    let listing = match files::list(&run.project, &run.landing).await {
        Ok(listing) => listing,
        Err(error) => return Ok(Some(note(error.to_string()))),
    };
    let there: BTreeSet<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
    let known = ledger::files(&run.ledger.files).await?;
    let gone: BTreeSet<&str> =
        known.iter().map(|file| file.path.as_str()).filter(|path| !there.contains(path)).collect();
    Ok(gone.first().map(|first| {
        note(format!(
            "{} of {} files that were taken in are gone, for example `{first}`",
            gone.len(),
            known.len()
        ))
    }))
}
