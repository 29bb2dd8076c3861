//! The tables and the ledger against each other: what one has seen of another must be there.
//!
//! Every table's log says which versions of others it was made from, and a run closes its books with the versions of all
//! tables. A table that is behind what was seen of it has lost commits: it was removed, or restored from an older backup.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::{Finding, NEW_LAKE, NOTE, PROBLEM};
use crate::decode::ErrorType;
use crate::error::Result;
use crate::flow::landing::{self, POSITION};
use crate::flow::lost::{self, Behind};
use crate::flow::{Run, balance, dirty, interventions};
use crate::lake::partition::partition_key;
use crate::lake::table::Table;
use crate::ledger::{self, FileRecord, Ledger};
use crate::project::sql::TableName;
use crate::source::files;
use crate::zone;

const RUN: &str = "`medallion run`";
const FULL_REFRESH: &str = "`medallion run --full-refresh`";
const DECIDE_AGAIN: &str = "restore the folder `ledger/interventions` from a backup that has them, or decide again, before \
    anything runs: `medallion quarantine list` shows what is refused, and what is still `discarded` there is recorded again by \
    a discard of it; any redrive or discard settles this";

/// What mends each table that has lost commits, by its name.
type Remedies = BTreeMap<String, String>;

/// Compares the tables and the ledger with each other.
///
/// # Errors
/// The store's.
pub async fn compare(run: &Run) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    // opened after the tables: beside a writer the tables are then not ahead of it
    let ledger = Ledger::open(&run.lake).await?;
    let files = ledger::files(&ledger.files).await?;
    for file in &files {
        let Ok(table) = run.bronze_of(&file.source) else {
            continue;
        };
        if table.position(POSITION).is_none_or(|taken| taken < file.batch_id) {
            let what = format!("batch {} was written ahead and is not taken in", file.batch_id);
            if !found.iter().any(|there: &Finding| there.what == what && there.table == table.name()) {
                found.push(Finding::new(NOTE, table.name(), what, format!("{RUN} takes it in")));
            }
        }
    }
    found.extend(landed_files_gone(run, &files).await?);
    let remedies = lost(run, &ledger, &files, &mut found).await?;
    for model in run.project.stored_models() {
        let table = run.table(&model.table)?;
        for (name, version) in dirty::positions(run, model)? {
            if table.position(&name).is_some_and(|consumed| consumed > version) {
                let remedy = remedies.get(&name).map_or(FULL_REFRESH, String::as_str);
                let what = format!(
                    "it was computed from a version of `{name}` that is not there: `{name}` was restored"
                );
                found.push(Finding::new(PROBLEM, &model.table, what, remedy));
            }
        }
        let is_told = remedies.contains_key(&model.table.to_string());
        let has_inputs = dirty::positions(run, model)?.values().any(|version| *version >= 0);
        let has_dates = !model.is_partitioned() || !dirty::domain(run, model)?.is_empty();
        if table.version() < 0 && !is_told && has_inputs && has_dates {
            found.push(Finding::new(
                NOTE,
                &model.table,
                "it was not computed yet",
                format!("{RUN} computes it"),
            ));
        }
    }
    if let Some(newest) = interventions::waiting(run).await? {
        let what = format!("intervention {newest} is not applied yet");
        found.push(Finding::new(NOTE, "ledger.interventions", what, format!("{RUN} applies it")));
    }
    found.extend(lost_decisions(run, &remedies).await?);
    found.extend(lost_runs(run));
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

/// Tables that are behind what was seen of them, and what mends each.
async fn lost(
    run: &Run,
    ledger: &Ledger,
    files: &[FileRecord],
    found: &mut Vec<Finding>,
) -> Result<Remedies> {
    let mut remedies = Remedies::new();
    let taken = landing::newest_taken(run);
    let known = ledger.files.position(POSITION).unwrap_or(0);
    let mut tell = |table: &str, what: String, remedy: String| {
        found.push(Finding::new(PROBLEM, table, what, remedy.clone()));
        remedies.insert(table.to_owned(), remedy);
    };
    if taken > known {
        let what =
            format!("bronze has taken in batch {taken}, of which it does not know: it has lost commits");
        let remedy = format!("{RUN} writes it again, from bronze's log and the landing files");
        tell(ledger.files.name(), what, remedy);
    }
    for behind in lost::lost_commits(run).await? {
        let name = behind.table.name();
        if name == ledger.files.name() && taken > known {
            continue;
        }
        tell(name, behind.to_string(), remedy(run, ledger, files, &behind).await?);
    }
    Ok(remedies)
}

/// What brings back the commits that a table has lost.
async fn remedy(
    run: &Run,
    ledger: &Ledger,
    files: &[FileRecord],
    Behind { table, newest }: &Behind,
) -> Result<String> {
    let Some(name) = TableName::parse(table.name()) else {
        return Ok(NEW_LAKE.to_owned());
    };
    let whole_lake = || {
        "restore the whole lake from one backup, or begin a new lake from the same landing files".to_owned()
    };
    Ok(match (name.schema.as_str(), name.table.as_str()) {
        (zone::BRONZE, source) => {
            let taken = table.position(POSITION).unwrap_or(0);
            let batches = files.iter().filter(|file| file.source == source && file.batch_id > taken);
            let batches: BTreeSet<i64> = batches.map(|file| file.batch_id).collect();
            // each of the commits took in a batch, and none was a redrive or a compaction
            match i64::try_from(batches.len()).is_ok_and(|lost| lost == newest - table.version()) {
                true => format!("{RUN} takes in the same landing files again"),
                false => whole_lake(),
            }
        }
        (zone::QUARANTINE, source) => {
            match refused(table) == refused_when_landed(&ledger.landed, source).await? {
                true => FULL_REFRESH.to_owned(),
                false => whole_lake(),
            }
        }
        (zone::LEDGER, "interventions") => DECIDE_AGAIN.to_owned(),
        (zone::LEDGER, "balances" | "checks") => {
            format!("{RUN} writes how things stand; what older runs found is lost, unless a backup has it")
        }
        (zone::LEDGER, _) => format!("{RUN} writes it again"),
        _ => {
            let mut is_read = false;
            for model in run.project.stored_models() {
                let read = run.table(&model.table)?.position(table.name());
                is_read |= dirty::positions(run, model)?.contains_key(table.name())
                    && read.is_some_and(|read| read > table.version());
            }
            match is_read {
                true => FULL_REFRESH.to_owned(),
                false => format!("{RUN} computes it again"),
            }
        }
    })
}

/// Records in quarantine that bronze has refused.
fn refused(table: &Table) -> i64 {
    let Some(snapshot) = table.snapshot() else {
        return 0;
    };
    let columns = &snapshot.metadata.partition_columns;
    let is_of_bronze = |key: &[Option<String>]| {
        key.get(1).is_some_and(|name| ErrorType::ALL.iter().any(|ty| Some(ty.as_str()) == name.as_deref()))
    };
    let of_bronze = snapshot
        .files
        .values()
        .filter(|file| is_of_bronze(&partition_key(columns, &file.partition_values, 2)));
    of_bronze.map(|file| i64::try_from(file.num_records()).unwrap_or(i64::MAX)).sum()
}

/// Records of a source that could not be typed, as its files were reported.
async fn refused_when_landed(landed: &Table, source: &str) -> Result<i64> {
    let mut sum = 0;
    for batch in ledger::read(landed).await? {
        let (sources, counts) =
            (batch.column(1).as_string_view(), batch.column(6).as_primitive::<Int64Type>());
        let of_source = sources.iter().zip(counts.values()).filter(|(name, _)| *name == Some(source));
        sum += of_source.map(|(_, count)| count).sum::<i64>();
    }
    Ok(sum)
}

/// Decisions of operators that tables have taken in, where the ledger was put back to before they were made.
async fn lost_decisions(run: &Run, told: &Remedies) -> Result<Option<Finding>> {
    let name = run.ledger.interventions.name();
    let Some(lost) = lost::lost_decisions_still(run).await?.filter(|_| !told.contains_key(name)) else {
        return Ok(None);
    };
    let what = format!(
        "{}, the newest that is there is {}; what was discarded may come in again",
        lost.decisions_text(),
        lost.known
    );
    Ok(Some(Finding::new(PROBLEM, name, what, DECIDE_AGAIN)))
}

/// Runs that tables, balances or checks name, and that have not reported.
fn lost_runs(run: &Run) -> Option<Finding> {
    let name = run.ledger.runs.name();
    let unreported = lost::unreported_runs(run)?;
    if lost::lost_runs(run).is_some() {
        let what = format!(
            "it has lost commits: `{}` was written by run {}, the newest report is of run {}",
            unreported.named_by, unreported.newest, unreported.known
        );
        let remedy = format!(
            "{RUN} closes the books again, under a number above these; what the others did is lost, unless a backup has it"
        );
        return Some(Finding::new(PROBLEM, name, what, remedy));
    }
    let what = format!(
        "run {} has written `{}` and has not reported: it is at work, was killed, or its report is lost",
        unreported.newest, unreported.named_by
    );
    Some(Finding::new(NOTE, name, what, format!("{RUN} goes on with it and closes the books")))
}

/// Files that were taken in should stay: exact bytes of refused records, and a new lake, come from there.
async fn landed_files_gone(run: &Run, known: &[FileRecord]) -> Result<Option<Finding>> {
    let note =
        |what: String| Finding::new(NOTE, "landing", what, "put it back from a backup: landing is to stay");
    let listing = match files::list(&run.project, &run.landing).await {
        Ok(listing) => listing,
        Err(error) => return Ok(Some(note(error.to_string()))),
    };
    let there: BTreeSet<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
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
