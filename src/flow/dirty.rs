//! Which partitions of a model must be computed again: those that its inputs' logs say changed since the versions that
//! the model last consumed, widened by the days that it looks back.
//!
//! Nothing is remembered beside the logs, so nothing can disagree with them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;

use super::Run;
use crate::error::{Error, Result};
use crate::lake::table::Table;
use crate::lake::write::PartitionKey;
use crate::project::model::{Dates, Model, Span};
use crate::project::sql::{PARTITIONS_SUFFIX, TableName};

/// What a model has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    Nothing,
    /// Everything at once: a model without partitions.
    Whole,
    /// Some dates; those that turn out empty lose their rows.
    Dates(BTreeSet<i32>),
}

/// The lake table behind a name that a query uses.
pub fn stored_table(name: &TableName) -> TableName {
    match name.schema.as_str() {
        "accepted" | "versions" => TableName::new("bronze", &name.table),
        _ => {
            let table = name.table.strip_suffix(PARTITIONS_SUFFIX).unwrap_or(&name.table);
            TableName::new(&name.schema, table)
        }
    }
}

/// The positions that a model's output reflects once it has been computed.
pub fn positions(run: &Run, model: &Model) -> Result<BTreeMap<String, i64>> {
    let tables = model.inputs.keys().map(stored_table);
    tables.map(|table| Ok((table.to_string(), run.table(&table)?.version()))).collect()
}

/// What `model` has to compute for its inputs as they are now.
///
/// # Errors
/// The store's.
pub async fn work(run: &Run, model: &Model) -> Result<Work> {
    work_since(run, model, &Since::default()).await
}

/// From where changes count, where it is not from what the output has consumed.
#[derive(Debug, Default)]
pub struct Since<'a> {
    /// Versions of inputs; changes after them count.
    pub versions: Option<&'a BTreeMap<String, i64>>,
    /// An input whose changes do not count.
    pub left_out: Option<&'a TableName>,
}

impl Since<'_> {
    fn consumed(&self, output: &Table, stored: &TableName) -> Option<i64> {
        let name = stored.to_string();
        let version = self.versions.and_then(|versions| versions.get(&name)).copied();
        version.or_else(|| output.position(&name))
    }

    fn counts(&self, input: &TableName) -> bool {
        self.left_out != Some(input)
    }
}

/// What `model` has to compute for what has changed since.
///
/// # Errors
/// The store's.
pub async fn work_since(run: &Run, model: &Model, since: &Since<'_>) -> Result<Work> {
    let output = run.table(&model.table)?;
    let is_new = output.version() < 0 || run.is_full_refresh;
    if !model.is_partitioned() {
        if is_new {
            return Ok(Work::Whole);
        }
        for input in model.inputs.keys().filter(|input| since.counts(input)) {
            if !changes(run, output, input, since).await?.is_empty() {
                return Ok(Work::Whole);
            }
        }
        return Ok(Work::Nothing);
    }
    let domain = domain(run, model)?;
    let existing = dates_of(output.partitions(1));
    if is_new {
        return Ok(Work::Dates(&domain | &existing));
    }
    let mut dirty = BTreeSet::new();
    for (input, span) in model.inputs.iter().filter(|(input, _)| since.counts(input)) {
        let changed = changes(run, output, input, since).await?;
        match (&changed, span) {
            (Changes::Everything, _) => return Ok(Work::Dates(&domain | &existing)),
            (Changes::Dates(dates), Span::Whole) if !dates.is_empty() => {
                return Ok(Work::Dates(&domain | &existing));
            }
            (Changes::Dates(dates), Span::Days { from, to }) => {
                for date in dates {
                    dirty.extend((*from..=*to).map(|days| date.saturating_add(days.cast_signed())));
                }
            }
            _ => {}
        }
    }
    dirty.extend(moved_domain(run, model, output, since).await?);
    let known = &domain | &existing;
    dirty.retain(|date| known.contains(date));
    Ok(match dirty.is_empty() {
        true => Work::Nothing,
        false => Work::Dates(dirty),
    })
}

/// What changed in `input` since `output` consumed it.
async fn changes(run: &Run, output: &Table, input: &TableName, since: &Since<'_>) -> Result<Changes> {
    let stored = stored_table(input);
    let table = run.table(&stored)?;
    let Some(consumed) = since.consumed(output, &stored) else {
        return Ok(Changes::Everything);
    };
    if consumed > table.version() {
        return Err(Error::data(format!(
            "`{}` has consumed version {consumed} of `{stored}`, which is at version {} now; it was restored or rebuilt, \
             run with `--full-refresh`",
            output.name(),
            table.version()
        )));
    }
    Ok(match table.changed_since(consumed, 1).await? {
        None => Changes::Everything,
        Some(keys) => {
            let is_dated = keys.iter().all(|key| !key.is_empty());
            match is_dated || keys.is_empty() {
                true => Changes::Dates(dates_of(keys)),
                false => Changes::Everything,
            }
        }
    })
}

/// What changed in an input.
enum Changes {
    /// The input has no dates, or its log no longer tells.
    Everything,
    Dates(BTreeSet<i32>),
}

impl Changes {
    fn is_empty(&self) -> bool {
        matches!(self, Changes::Dates(dates) if dates.is_empty())
    }
}

/// The dates that the output can have.
fn domain(run: &Run, model: &Model) -> Result<BTreeSet<i32>> {
    Ok(match &model.dates {
        Dates::Of(table) => dates_of(run.table(&stored_table(table))?.partitions(1)),
        Dates::CalendarOf(table) => calendar(&dates_of(run.table(&stored_table(table))?.partitions(1))),
        Dates::OfInputs => {
            let mut dates = BTreeSet::new();
            for (input, span) in &model.inputs {
                if let Span::Days { .. } = span {
                    dates.extend(dates_of(run.table(&stored_table(input))?.partitions(1)));
                }
            }
            dates
        }
    })
}

/// Dates that have come into or fallen out of the domain since the output was computed.
async fn moved_domain(run: &Run, model: &Model, output: &Table, since: &Since<'_>) -> Result<BTreeSet<i32>> {
    let (Dates::Of(name) | Dates::CalendarOf(name)) = &model.dates else {
        return Ok(BTreeSet::new());
    };
    let stored = stored_table(name);
    let table = run.table(&stored)?;
    let consumed = since.consumed(output, &stored).unwrap_or(-1);
    if consumed == table.version() {
        return Ok(BTreeSet::new());
    }
    let now = domain(run, model)?;
    let Some(before) = table.at(consumed).await else {
        return Ok(now);
    };
    let columns = &before.metadata.partition_columns;
    let keys = before
        .files
        .values()
        .map(|file| crate::lake::table::partition_key(columns, &file.partition_values, 1))
        .collect();
    let before = match &model.dates {
        Dates::CalendarOf(_) => calendar(&dates_of(keys)),
        _ => dates_of(keys),
    };
    Ok(&now ^ &before)
}

fn calendar(dates: &BTreeSet<i32>) -> BTreeSet<i32> {
    match (dates.first(), dates.last()) {
        (Some(first), Some(last)) => (*first..=*last).collect(),
        _ => BTreeSet::new(),
    }
}

/// Partition values that are dates, as days since the epoch.
pub fn dates_of(keys: BTreeSet<PartitionKey>) -> BTreeSet<i32> {
    let parse = |text: &String| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    keys.iter()
        .filter_map(|key| key.first()?.as_ref().and_then(parse))
        .map(|date| date.to_epoch_days())
        .collect()
}
