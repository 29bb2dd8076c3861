//! How old tables are, against what the project says that they may be.
//!
//! A source is as old as its last commit: nothing new has come since. A model is as old as the oldest change of its inputs
//! that it has not computed yet, and fresh where nothing waits. Read off the logs, no data.

use std::fmt;

use super::Run;
use super::dirty::{self, Work};
use crate::error::Result;
use crate::lake::table::Table;
use crate::project::model::Model;
use crate::project::source::Source;
use crate::project::sql::TableName;
use crate::telemetry::duration_text;

/// The age of a table at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    pub table: String,
    /// `None`: it has never come.
    pub age_seconds: Option<i64>,
    /// What the project says it may be at most.
    pub objective_seconds: Option<i64>,
    is_fresh: Option<bool>,
}

impl Freshness {
    fn new(table: &Table, objective: Option<i64>, since: Option<i64>, now: i64) -> Self {
        let age = since.map(|since| (now - since).max(0));
        Self {
            table: table.name().to_owned(),
            age_seconds: age.map(|age| age / 1_000_000),
            objective_seconds: objective.map(|objective| objective / 1_000_000),
            // what has never come is not fresh
            is_fresh: objective.map(|objective| age.is_some_and(|age| age <= objective)),
        }
    }

    /// `None` where the project declares no objective.
    pub fn is_fresh(&self) -> Option<bool> {
        self.is_fresh
    }
}

/// Whether it is fresh, in a sentence.
impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objective = duration_text(self.objective_seconds.unwrap_or(0));
        match (self.is_fresh, self.age_seconds) {
            (Some(false), None) => {
                write!(f, "`{}` has never had anything, it may be {objective} old", self.table)
            }
            (Some(false), Some(age)) => {
                write!(f, "`{}` is {} old, it may be {objective}", self.table, duration_text(age))
            }
            _ => write!(f, "`{}` is fresh", self.table),
        }
    }
}

/// Every table with a declared objective, at `now`: microseconds since the epoch.
///
/// # Errors
/// The store's.
pub async fn declared(run: &Run, now: i64) -> Result<Vec<Freshness>> {
    let mut found = Vec::new();
    for source in run.project.sources.iter().filter(|source| source.freshness.is_some()) {
        found.push(of_source(run, source, now)?);
    }
    for model in run.project.stored_models().filter(|model| model.freshness.is_some()) {
        let work = dirty::work(run, model).await?;
        found.push(of_model(run, model, &work, now).await?);
    }
    Ok(found)
}

/// # Errors
/// As [`Run::table`].
pub fn of_source(run: &Run, source: &Source, now: i64) -> Result<Freshness> {
    let table = run.bronze_of(&source.name)?;
    let since = table.snapshot().map(|snapshot| snapshot.timestamp * 1000);
    Ok(Freshness::new(table, source.freshness, since, now))
}

/// # Errors
/// The store's.
pub async fn of_model(run: &Run, model: &Model, work: &Work, now: i64) -> Result<Freshness> {
    let table = run.table(&model.table)?;
    let since = match work {
        Work::Nothing => Some(now),
        // where nothing came that it has not seen, what it would compute is of our own making: a full refresh, a
        // withheld partition that is tried again
        _ => match waiting_since(run, model, table).await? {
            None if table.version() >= 0 => Some(now),
            since => since,
        },
    };
    Ok(Freshness::new(table, model.freshness, since, now))
}

/// When the oldest change that the model has not computed yet was committed.
async fn waiting_since(run: &Run, model: &Model, table: &Table) -> Result<Option<i64>> {
    let mut oldest: Option<i64> = None;
    for (name, version) in dirty::positions(run, model)? {
        let consumed = table.position(&name).unwrap_or(-1);
        let Some(input) = TableName::parse(&name).filter(|_| consumed < version) else {
            continue;
        };
        if let Ok(time) = run.table(&input)?.committed_at(consumed + 1).await {
            oldest = Some(oldest.map_or(time, |oldest| oldest.min(time)));
        }
    }
    Ok(oldest.map(|millis| millis * 1000))
}
