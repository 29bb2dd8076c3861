//! What tables and ledger have seen of each other and is not there: a part of the lake was put back to an older state, or lost.
//! Read off the open tables' logs; what they say is missing is looked for once more.
//!
//! Tables name the run that wrote them, and quarantine and bronze the newest decision that they know. A run that was killed
//! is named by tables too and has not reported, so one unknown run proves nothing; it is continued under its number.

use std::collections::BTreeMap;
use std::fmt;

use super::landing::{self, POSITION};
use super::{Run, dirty, interventions};
use crate::error::Result;
use crate::lake::table::Table;
use crate::ledger::Ledger;
use crate::project::sql::TableName;

/// The position that says of which run a ledger table's newest rows are.
pub const RUN: &str = "run";

/// Something that the tables know up to `newest` and the ledger up to `known`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    pub known: i64,
    pub newest: i64,
    /// The table that names the newest.
    pub named_by: String,
}

impl Unknown {
    /// How many the ledger does not know.
    pub fn count(&self) -> u64 {
        (self.newest - self.known).max(0).cast_unsigned()
    }

    /// `run 7`, `runs 5 to 7`: their numbers, for people.
    pub fn numbers(&self, noun: &str) -> String {
        match self.count() {
            1 => format!("{noun} {}", self.newest),
            _ => format!("{noun}s {} to {}", self.known + 1, self.newest),
        }
    }

    /// `decision 7 over refused records is lost: …`, where these are operators' decisions.
    pub fn decisions_text(&self) -> String {
        let verb = if self.count() == 1 { "is" } else { "are" };
        let numbers = self.numbers("decision");
        format!("{numbers} over refused records {verb} lost: `{}` knows of it", self.named_by)
    }
}

/// The newest run that has reported, 0 before the first.
pub fn newest_reported(ledger: &Ledger) -> i64 {
    // reports of before the position was kept: one per commit
    ledger.runs.position(RUN).unwrap_or(ledger.runs.version() + 1)
}

fn newest(known: i64, named: impl Iterator<Item = (i64, String)>) -> Option<Unknown> {
    let (newest, named_by) = named.max()?;
    (newest > known).then_some(Unknown { known, newest, named_by })
}

/// Runs that have written tables or closed books and not reported.
pub fn unreported_runs(run: &Run) -> Option<Unknown> {
    let by_zones = run.zone_tables().filter_map(|table| {
        let named = table.snapshot()?.newest_run?;
        Some((named, table.name().to_owned()))
    });
    newest(newest_reported(&run.ledger), by_zones.chain(kept(&run.ledger)))
}

/// The newest runs of which the ledger keeps a balance or checks.
fn kept(ledger: &Ledger) -> impl Iterator<Item = (i64, String)> {
    let of_runs = [&ledger.balances, &ledger.checks].into_iter();
    of_runs.filter_map(|table| Some((table.position(RUN)?, table.name().to_owned())))
}

/// Runs that have reported, and whose reports are not there: more than one that was killed can leave.
pub fn lost_runs(run: &Run) -> Option<Unknown> {
    unreported_runs(run).filter(|unknown| unknown.count() > 1)
}

/// The number of a run that begins now: above that of every run that has left anything. One that has not reported is
/// continued under its number, and what it said of its checks and balance is replaced: it was killed, as far as can be told.
pub fn next_run(run: &Run) -> i64 {
    let next = newest_reported(&run.ledger) + 1;
    let Some(unreported) = unreported_runs(run) else {
        return next;
    };
    let has_lost = landing::newest_taken(run) > run.ledger.files.position(POSITION).unwrap_or(0)
        || lost_decisions(run).is_some();
    match has_lost || unreported.newest > next {
        true => unreported.newest + 1,
        false => next,
    }
}

/// The newest operators' decision that a table has taken in or knows of.
pub fn newest_decision(run: &Run) -> Option<(i64, String)> {
    let tables = run.zone_tables().chain([&run.ledger.decisions, &run.ledger.interventions]);
    let of_table = |table: &Table| {
        let names = [interventions::POSITION, interventions::KNOWN];
        let newest = names.into_iter().filter_map(|name| table.position(name)).max()?;
        Some((newest, table.name().to_owned()))
    };
    tables.filter_map(of_table).max()
}

/// Decisions that tables have taken in or know of, and that the ledger does not have.
pub fn lost_decisions(run: &Run) -> Option<Unknown> {
    let known = run.ledger.interventions.position(interventions::POSITION).unwrap_or(0);
    newest(known, newest_decision(run).into_iter())
}

/// The same, where the ledger does not have them either when it is opened again: an operator may have decided meanwhile.
///
/// # Errors
/// The store's.
pub async fn lost_decisions_still(run: &Run) -> Result<Option<Unknown>> {
    let Some(lost) = lost_decisions(run) else {
        return Ok(None);
    };
    let interventions = Ledger::open(&run.lake).await?.interventions;
    let known = interventions.position(interventions::POSITION).unwrap_or(0);
    Ok((lost.newest > known).then_some(Unknown { known, ..lost }))
}

/// A table that is behind what was seen of it: it has lost commits.
#[derive(Debug, Clone)]
pub struct Behind {
    /// As it is now.
    pub table: Table,
    /// The newest version that anybody has seen.
    pub newest: i64,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table.version() {
            ..0 => write!(f, "the table is gone; it was at version {}", self.newest),
            version => {
                write!(f, "it has lost commits: version {} was there, it is at {version}", self.newest)
            }
        }
    }
}

/// Tables that are behind what other tables, or a run that closed its books, have seen of them. Beside a writer a table may
/// have been opened before what others have seen was committed: each is opened again.
///
/// # Errors
/// The store's.
pub async fn lost_commits(run: &Run) -> Result<Vec<Behind>> {
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    let mut see = |name: String, version: i64| {
        let newest = seen.entry(name).or_insert(version);
        *newest = (*newest).max(version);
    };
    for model in run.project.stored_models() {
        let table = run.table(&model.table)?;
        // what it read in an earlier form may have been given up
        for name in dirty::positions(run, model)?.into_keys() {
            if let Some(version) = table.position(&name) {
                see(name, version);
            }
        }
    }
    let ledger = [&run.ledger.runs, &run.ledger.landed, &run.ledger.decisions];
    let others = run.bronze.values().chain(run.quarantine.values()).chain(ledger);
    for (name, version) in others.filter_map(Table::snapshot).flat_map(|snapshot| &snapshot.txns) {
        see(name.clone(), *version);
    }
    let mut found = Vec::new();
    for table in run.zone_tables().chain(run.ledger.tables()) {
        let Some(newest) = seen.get(table.name()).copied().filter(|newest| *newest > table.version()) else {
            continue;
        };
        let Some(name) = TableName::parse(table.name()) else {
            continue;
        };
        let table = run.lake.table(&name.schema, &name.table).await?;
        if newest > table.version() {
            found.push(Behind { table, newest });
        }
    }
    Ok(found)
}
