//! What a rerun is going to do, before it does it: which partitions are asked for, and which read them.

mod pace;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::dirty::{self, Work, dates_of, known_dates, readers, stored_table};
use super::model::describe;
use super::rerun::Wanted;
use super::{Run, decisions, gate};
use crate::error::{Error, Result};
use crate::lake::maintain::{location, stored_files};
use crate::lake::partition::partition_key;
use crate::lake::table::Table;
use crate::project::model::{Model, Span};
use crate::project::source::Mode;
use crate::project::sql::TableName;
use crate::zone;

/// Which partitions are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All of the dates.
    Dates,
    /// Those that were computed or decided by an older form of the project.
    Stale,
    /// Those that were never computed, or whose files are gone.
    Missing,
    /// Those that an earlier run has left undone, or that a check withholds.
    Failed,
}

/// Which come first where there is a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    #[default]
    OldestFirst,
    NewestFirst,
}

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct Request {
    pub which: Which,
    /// Days since the epoch, both included.
    pub from: Option<i32>,
    pub to: Option<i32>,
    /// Tables; every one that the dates concern where empty.
    pub select: Vec<TableName>,
    /// Leave what depends on them to the next run.
    pub is_only: bool,
    /// Compute what depends on them even where its input came out as it was.
    pub is_forced: bool,
    pub order: Order,
    pub max_partitions: Option<usize>,
}

/// What is going to be done.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Of all steps: what could be computed at most, as it is now.
    pub partitions: usize,
    pub rows: u64,
    pub bytes: i64,
    /// Partitions that are asked for and were left to a later call by the limit.
    pub partitions_left: usize,
    /// For all of that, as the pace of past runs says, where they know.
    pub estimated_seconds: Option<f64>,
    /// What is computed even if every partition comes out as it was.
    pub at_least: Size,
    pub at_least_seconds: Option<f64>,
    #[serde(skip)]
    pub wanted: Wanted,
}

/// How much is to be computed: partitions, and the rows and bytes that they hold now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    pub partitions: usize,
    pub rows: u64,
    pub bytes: i64,
}

impl Size {
    fn of(table: &Table, work: &Work) -> Self {
        let (partitions, (rows, bytes)) = match work {
            Work::Nothing => return Self::default(),
            Work::Whole => (1, size(table, None)),
            Work::Dates(dates) => (dates.len(), size(table, Some(dates))),
        };
        Self { partitions, rows, bytes }
    }
}

/// One table of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub table: String,
    /// `2025-08-01..2025-08-03 (3 dates)`.
    pub scope: String,
    pub partitions: usize,
    /// Rows and bytes that those partitions hold now.
    pub rows: u64,
    pub bytes: i64,
    /// Of that, what is computed even if all that it reads comes out as it was.
    pub at_least: Size,
    pub why: &'static str,
}

/// A partition that is asked for: its date (none for a whole table), and of which table.
type Asked = (Option<i32>, TableName);

/// Makes the plan.
///
/// # Errors
/// `Usage` where a table is unknown, and the store's.
pub async fn plan(run: &Run, request: &Request) -> Result<Plan> {
    for table in &request.select {
        refuse_unknown(run, table)?;
    }
    let mut asked = asked(run, request).await?;
    let mut plan = Plan::default();
    if request.order == Order::NewestFirst {
        asked.reverse();
    }
    if let Some(limit) = request.max_partitions
        && asked.len() > limit
    {
        plan.partitions_left = asked.len() - limit;
        asked.truncate(limit);
    }
    plan.wanted = Wanted { is_only: request.is_only, compares: true, ..Wanted::default() };
    for (date, table) in asked {
        match (date, table.schema.as_str()) {
            (Some(date), zone::BRONZE) => {
                plan.wanted.decide.entry(table.table).or_default().insert(date);
            }
            (Some(date), _) => {
                plan.wanted.dates.entry(table).or_default().insert(date);
            }
            (None, _) => {
                plan.wanted.whole.insert(table);
            }
        }
    }
    if request.which == Which::Stale && plan.partitions_left == 0 {
        add_partitions_without_rows(run, request, &mut plan.wanted)?;
    }
    spread(run, request, &mut plan).await?;
    plan.partitions = plan.steps.iter().map(|step| step.partitions).sum();
    plan.rows = plan.steps.iter().map(|step| step.rows).sum();
    plan.bytes = plan.steps.iter().map(|step| step.bytes).sum();
    for step in &plan.steps {
        plan.at_least.partitions += step.at_least.partitions;
        plan.at_least.rows += step.at_least.rows;
        plan.at_least.bytes += step.at_least.bytes;
    }
    pace::estimate(run, &mut plan).await?;
    Ok(plan)
}

fn refuse_unknown(run: &Run, table: &TableName) -> Result<()> {
    let is_known = match table.schema.as_str() {
        zone::BRONZE | zone::QUARANTINE => run.project.source(&table.table).is_some(),
        _ => run.project.model(table).is_some_and(|model| !model.is_view),
    };
    if is_known {
        return Ok(());
    }
    let models = run.project.stored_models().map(|model| model.table.to_string());
    let sources = run.project.sources.iter().map(|source| format!("bronze.{}", source.name));
    let known: Vec<String> = models.chain(sources).collect();
    Err(Error::usage(format!("there is no stored table `{table}`, known: {}", known.join(", "))))
}

fn is_selected(request: &Request, table: &TableName) -> bool {
    request.select.is_empty()
        || request.select.iter().any(|selected| {
            selected == table || (selected.schema == zone::QUARANTINE && stored_decisions(selected) == *table)
        })
}

/// Quarantine's silver part is decided from bronze.
fn stored_decisions(table: &TableName) -> TableName {
    TableName::new(zone::BRONZE, &table.table)
}

/// The partitions that are asked for, oldest first, whole tables last.
async fn asked(run: &Run, request: &Request) -> Result<Vec<Asked>> {
    let is_within =
        |date: &i32| request.from.is_none_or(|from| from <= *date) && request.to.is_none_or(|to| *date <= to);
    let mut dated: BTreeSet<(i32, usize)> = BTreeSet::new();
    let mut whole = BTreeSet::new();
    let mut tables: Vec<TableName> = Vec::new();
    let mut decisions = decisions::stale(run).await?;
    for source in &run.project.sources {
        let table = TableName::new(zone::BRONZE, &source.name);
        if !is_selected(request, &table) {
            continue;
        }
        let dates = match request.which {
            // without a word about them, masters are not decided again: their history is one whole
            Which::Dates if request.select.is_empty() && source.mode == Mode::Upserts => BTreeSet::new(),
            Which::Dates => dates_of(run.bronze_of(&source.name)?.partitions(1)),
            Which::Stale => decisions.remove(&source.name).unwrap_or_default(),
            Which::Missing | Which::Failed => BTreeSet::new(),
        };
        tables.push(table);
        dated.extend(dates.into_iter().filter(is_within).map(|date| (date, tables.len() - 1)));
    }
    for model in run.project.stored_models().filter(|model| is_selected(request, &model.table)) {
        let (dates, is_whole) = match request.which {
            Which::Dates => (known_dates(run, model)?, !request.select.is_empty() && !model.is_partitioned()),
            Which::Stale => {
                let stale = dirty::stale(run, model)?;
                let is_whole = !model.is_partitioned() && !stale.is_empty();
                (stale.dates, is_whole)
            }
            Which::Missing => missing(run, model).await?,
            Which::Failed => {
                let withheld = gate::withheld(run.table(&model.table)?);
                let dates: BTreeSet<i32> = withheld.iter().filter_map(|withheld| withheld.place).collect();
                match dirty::work(run, model).await? {
                    Work::Nothing => (dates, !withheld.is_empty()),
                    Work::Whole => (dates, true),
                    Work::Dates(dirty) => (&dirty | &dates, false),
                }
            }
        };
        tables.push(model.table.clone());
        match model.is_partitioned() {
            true => dated.extend(dates.into_iter().filter(is_within).map(|date| (date, tables.len() - 1))),
            false if is_whole => {
                whole.insert(tables.len() - 1);
            }
            false => {}
        }
    }
    let dated = dated.into_iter().map(|(date, at)| (Some(date), tables[at].clone()));
    Ok(dated.chain(whole.into_iter().map(|at| (None, tables[at].clone()))).collect())
}

/// Dates that the model can have, has no rows of and has not been computed for; and those whose files are gone from the disk.
/// What was computed and came out empty is not missing.
async fn missing(run: &Run, model: &Model) -> Result<(BTreeSet<i32>, bool)> {
    let table = run.table(&model.table)?;
    let lost = lost_partitions(table).await?;
    let is_whole = table.version() < 0 || !lost.is_empty();
    let mut dates = dates_of(lost);
    if model.is_partitioned() {
        let mut absent = &dirty::domain(run, model)? - &dates_of(table.partitions(1));
        // an older version was put in the place of what was computed
        let is_restored =
            table.version() >= 0 && !table.info_at(table.version()).await?["restored"].is_null();
        if !is_restored {
            absent = match dirty::work(run, model).await? {
                Work::Dates(waiting) => &absent & &waiting,
                _ => BTreeSet::new(),
            };
        }
        dates.extend(absent);
    }
    Ok((dates, is_whole))
}

/// The leading partition values of files that the log names and the store does not have.
async fn lost_partitions(table: &Table) -> Result<BTreeSet<Vec<Option<String>>>> {
    let mut lost = BTreeSet::new();
    let Some(snapshot) = table.snapshot() else {
        return Ok(lost);
    };
    let stored = stored_files(table).await?;
    for file in snapshot.files.values() {
        let is_there = stored.get(&location(table, &file.path)?);
        if is_there.is_none_or(|there| there.bytes != file.size.cast_unsigned()) {
            lost.insert(partition_key(&snapshot.metadata.partition_columns, &file.partition_values, 1));
        }
    }
    Ok(lost)
}

/// Partitions without rows say nothing of their form: they come with the last stale ones that do.
fn add_partitions_without_rows(run: &Run, request: &Request, wanted: &mut Wanted) -> Result<()> {
    if request.from.is_some() || request.to.is_some() {
        return Ok(());
    }
    for model in run.project.stored_models().filter(|model| is_selected(request, &model.table)) {
        let stale = dirty::stale(run, model)?;
        if !stale.without_rows.is_empty() {
            wanted.dates.entry(model.table.clone()).or_default().extend(stale.without_rows);
        }
    }
    Ok(())
}

/// Adds what reads the partitions that are asked for, and what waits anyway.
async fn spread(run: &Run, request: &Request, plan: &mut Plan) -> Result<()> {
    let mut planned: BTreeMap<TableName, BTreeSet<i32>> = BTreeMap::new();
    let mut whole: BTreeSet<TableName> = BTreeSet::new();
    for (source, dates) in &plan.wanted.decide {
        let table = TableName::new(zone::BRONZE, source);
        let files = size(run.bronze_of(source)?, Some(dates));
        plan.steps.push(Step {
            table: format!("quarantine.{source}"),
            scope: describe(&Work::Dates(dates.clone())),
            partitions: dates.len(),
            rows: files.0,
            bytes: files.1,
            at_least: Size { partitions: dates.len(), rows: files.0, bytes: files.1 },
            why: "decided again",
        });
        planned.insert(table, dates.clone());
    }
    let mut forced = plan.wanted.clone();
    for model in run.project.stored_models() {
        let asked = plan.wanted.dates.get(&model.table).cloned().unwrap_or_default();
        let is_asked = !asked.is_empty() || plan.wanted.whole.contains(&model.table);
        let mut read = BTreeSet::new();
        let mut reads_all = false;
        let waiting = match request.is_only {
            true => Work::Nothing,
            false => {
                for (input, span) in &model.inputs {
                    let stored = stored_table(input);
                    let dates = planned.get(&stored);
                    match (dates, span) {
                        (_, Span::Partitions) => {}
                        (None, _) if !whole.contains(&stored) => {}
                        (Some(dates), Span::Days { .. }) if !whole.contains(&stored) => {
                            read.extend(readers(*span, dates));
                        }
                        _ => reads_all = true,
                    }
                }
                dirty::work(run, model).await?
            }
        };
        let known = known_dates(run, model)?;
        let why = match (is_asked, reads_all || !read.is_empty(), waiting == Work::Nothing) {
            (true, ..) => "asked for",
            (_, true, _) => "reads what is computed again",
            (_, _, false) => "waits",
            _ => continue,
        };
        let (work, certain) = match model.is_partitioned() {
            false if is_asked || waiting != Work::Nothing => (Work::Whole, Work::Whole),
            false => (Work::Whole, Work::Nothing),
            true => {
                let mut certain = asked;
                if let Work::Dates(waiting) = waiting {
                    certain.extend(waiting);
                }
                let mut dates = &certain | &read;
                if reads_all {
                    dates.extend(&known);
                }
                (Work::Dates(&dates & &known), Work::Dates(&certain & &known))
            }
        };
        if matches!(&work, Work::Dates(dates) if dates.is_empty()) {
            continue;
        }
        let table = run.table(&model.table)?;
        let Size { partitions, rows, bytes } = Size::of(table, &work);
        plan.steps.push(Step {
            table: model.table.to_string(),
            scope: describe(&work),
            partitions,
            rows,
            bytes,
            at_least: match request.is_forced {
                true => Size { partitions, rows, bytes },
                false => Size::of(table, &certain),
            },
            why,
        });
        match work {
            Work::Dates(dates) => {
                forced.dates.insert(model.table.clone(), dates.clone());
                planned.insert(model.table.clone(), dates);
            }
            _ => {
                forced.whole.insert(model.table.clone());
                whole.insert(model.table.clone());
            }
        }
    }
    if request.is_forced && !request.is_only {
        plan.wanted = forced;
    }
    Ok(())
}

/// Rows and bytes of a table's dates.
fn size(table: &Table, dates: Option<&BTreeSet<i32>>) -> (u64, i64) {
    let Some(snapshot) = table.snapshot() else {
        return (0, 0);
    };
    let columns = &snapshot.metadata.partition_columns;
    let is_wanted = |key: Vec<Option<String>>| {
        dates.is_none_or(|dates| !dates_of(BTreeSet::from([key])).is_disjoint(dates))
    };
    let files =
        snapshot.files.values().filter(|file| is_wanted(partition_key(columns, &file.partition_values, 1)));
    files.fold((0, 0), |(rows, bytes), file| (rows + file.num_records(), bytes + file.size))
}

/// The name of a table as a person writes it.
///
/// # Errors
/// `Usage` where it has no zone.
pub fn parse_table(text: &str) -> Result<TableName> {
    TableName::parse(text)
        .filter(|table| table.schema != zone::LEDGER)
        .ok_or_else(|| Error::usage(format!("`{text}` is no table; write it as `zone.table`")))
}
