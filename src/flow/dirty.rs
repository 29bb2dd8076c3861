//! Which partitions of a model must be computed again: those that its inputs' logs say changed since the versions that
//! the model last consumed, widened by the days that it looks back.
//!
//! Nothing is remembered beside the logs, so nothing can disagree with them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;

use super::{Run, gate};
use crate::decode::ErrorType;
use crate::error::{Error, Result};
use crate::lake::partition::PartitionKey;
use crate::lake::table::Table;
use crate::ledger;
use crate::project::fingerprint;
use crate::project::model::{Dates, Model, Span};
use crate::project::sql::{PARTITIONS_SUFFIX, TableName};
use crate::zone;

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
        zone::ACCEPTED | zone::VERSIONS => TableName::new(zone::BRONZE, &name.table),
        zone::LEDGER if name.table == ledger::STEPS => TableName::new(zone::LEDGER, "runs"),
        _ => {
            let table = name.table.strip_suffix(PARTITIONS_SUFFIX).unwrap_or(&name.table);
            TableName::new(&name.schema, table)
        }
    }
}

/// All lake tables behind a name. What is accepted of bronze follows from its records and from the rules: where those
/// decide otherwise, quarantine's log says so.
pub(super) fn behind(name: &TableName) -> Vec<TableName> {
    match name.schema.as_str() {
        zone::ACCEPTED | zone::VERSIONS => {
            vec![stored_table(name), TableName::new(zone::QUARANTINE, &name.table)]
        }
        _ => vec![stored_table(name)],
    }
}

/// The positions that a model's output reflects once it has been computed.
///
/// # Errors
/// Those of [`Run::table`].
pub fn positions(run: &Run, model: &Model) -> Result<BTreeMap<String, i64>> {
    let tables = model.inputs.keys().flat_map(behind);
    tables.map(|table| Ok((table.to_string(), run.table(&table)?.version()))).collect()
}

/// So many versions of an input may a table have left unmentioned because none of them concerned it. To look for changes
/// means to read the entries of all of them.
const UNMENTIONED_VERSIONS: i64 = 32;

/// The positions to say of a model that has nothing to compute, where it has said nothing for long.
///
/// # Errors
/// Those of [`Run::table`].
pub fn unmentioned(run: &Run, model: &Model) -> Result<Option<BTreeMap<String, i64>>> {
    let is_told_of_new_dates = match &model.dates {
        Dates::Of(_) | Dates::CalendarOf(_) => true,
        // a date that comes to be reads changes of before it: these are to be found then
        Dates::OfInputs => model.inputs.values().all(|span| !matches!(span, Span::Days { from: 1.., .. })),
    };
    let output = run.table(&model.table)?;
    if !is_told_of_new_dates || output.version() < 0 {
        return Ok(None);
    }
    let now = positions(run, model)?;
    let is_long_ago = |(name, version): (&String, &i64)| {
        output.position(name).is_some_and(|said| version - said >= UNMENTIONED_VERSIONS)
    };
    Ok(now.iter().any(is_long_ago).then_some(now))
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
        return Ok(match gate::to_retry(run, model, false).await? {
            Some(_) => Work::Whole,
            None => Work::Nothing,
        });
    }
    let domain = domain(run, model)?;
    // a withheld date can be one that the table does not have
    let existing = &dates_of(output.partitions(1)) | &gate::withheld_dates(output);
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
                dirty.extend(readers(Span::Days { from: *from, to: *to }, dates));
            }
            _ => {}
        }
    }
    dirty.extend(moved_domain(run, model, output, since).await?);
    let known = &domain | &existing;
    dirty.retain(|date| known.contains(date));
    if let Some(withheld) = gate::to_retry(run, model, !dirty.is_empty()).await? {
        dirty.extend(withheld);
    }
    Ok(match dirty.is_empty() {
        true => Work::Nothing,
        false => Work::Dates(dirty),
    })
}

/// What changed in `input` since `output` consumed it.
async fn changes(run: &Run, output: &Table, input: &TableName, since: &Since<'_>) -> Result<Changes> {
    let mut all = BTreeSet::new();
    for stored in behind(input) {
        match changes_of(run, output, &stored, since).await? {
            Changes::Everything => return Ok(Changes::Everything),
            Changes::Dates(dates) => all.extend(dates),
        }
    }
    Ok(Changes::Dates(all))
}

async fn changes_of(run: &Run, output: &Table, stored: &TableName, since: &Since<'_>) -> Result<Changes> {
    let table = run.table(stored)?;
    let Some(consumed) = since.consumed(output, stored) else {
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
    let is_quarantine = stored.schema == zone::QUARANTINE;
    let depth = if is_quarantine { 2 } else { 1 };
    Ok(match table.changed_since(consumed, depth).await? {
        None => Changes::Everything,
        Some(mut keys) => {
            if is_quarantine {
                // what bronze refused was never accepted
                keys.retain(|key| !is_refused_by_bronze(key));
            }
            let is_dated = keys.iter().all(|key| !key.is_empty());
            match is_dated || keys.is_empty() {
                true => Changes::Dates(dates_of(keys)),
                false => Changes::Everything,
            }
        }
    })
}

/// Whether a quarantine partition holds records that could not be typed.
fn is_refused_by_bronze(key: &PartitionKey) -> bool {
    key.get(1)
        .and_then(Option::as_deref)
        .is_some_and(|name| ErrorType::ALL.iter().any(|ty| ty.as_str() == name))
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

/// What of a model's table was computed by an older form of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stale {
    /// Dates whose files say so; empty for a table without partitions.
    pub dates: BTreeSet<i32>,
    /// Dates without rows of which the log does not say that today's form was asked.
    pub without_rows: BTreeSet<i32>,
    /// A table without partitions is stale as a whole.
    pub is_whole: bool,
    pub num_files: usize,
}

impl Stale {
    pub fn is_empty(&self) -> bool {
        self.num_files == 0 && self.without_rows.is_empty() && !self.is_whole
    }

    /// Dates, or 1 for a table without partitions.
    pub fn num_partitions(&self) -> usize {
        match self.dates.len() + self.without_rows.len() {
            0 => usize::from(!self.is_empty()),
            dates => dates,
        }
    }
}

/// The position that says with which form of the model *all* of its table was computed.
pub const FORM: &str = "fingerprint";

/// What is stale of a model's table.
///
/// # Errors
/// Those of [`Run::table`].
pub fn stale(run: &Run, model: &Model) -> Result<Stale> {
    let table = run.table(&model.table)?;
    let Some(snapshot) = table.snapshot() else {
        return Ok(Stale::default());
    };
    let mut stale = Stale::default();
    let columns = &snapshot.metadata.partition_columns;
    for file in snapshot.files.values() {
        if file.tag(FORM) != Some(model.fingerprint.as_str()) {
            stale.num_files += 1;
            let key = crate::lake::partition::partition_key(columns, &file.partition_values, 1);
            stale.dates.extend(dates_of(BTreeSet::from([key])));
        }
    }
    if table.position(FORM) != Some(fingerprint::position(&model.fingerprint)) {
        match model.is_partitioned() {
            true => stale.without_rows = &domain(run, model)? - &dates_of(table.partitions(1)),
            false => stale.is_whole = true,
        }
    }
    Ok(stale)
}

/// Whether a table is of today's form once `work` is done.
///
/// # Errors
/// As [`stale`].
pub fn becomes_current(run: &Run, model: &Model, work: &Work) -> Result<bool> {
    let table = run.table(&model.table)?;
    Ok(match work {
        Work::Nothing => false,
        Work::Whole => true,
        Work::Dates(_) if table.version() < 0 => true,
        Work::Dates(dates) => {
            let stale = stale(run, model)?;
            !stale.is_whole && stale.dates.is_subset(dates) && stale.without_rows.is_subset(dates)
        }
    })
}

/// Every date that the model can have or has.
///
/// # Errors
/// As [`stale`].
pub fn known_dates(run: &Run, model: &Model) -> Result<BTreeSet<i32>> {
    let table = run.table(&model.table)?;
    Ok(&(&domain(run, model)? | &dates_of(table.partitions(1))) | &gate::withheld_dates(table))
}

/// The dates of the output that read one of `dates` of the input.
pub fn readers(span: Span, dates: &BTreeSet<i32>) -> BTreeSet<i32> {
    match span {
        Span::Days { from, to } => dates
            .iter()
            .flat_map(|date| (from..=to).map(|days| date.saturating_add(days.cast_signed())))
            .collect(),
        Span::Whole | Span::Partitions => BTreeSet::new(),
    }
}

/// The dates that the output can have.
pub fn domain(run: &Run, model: &Model) -> Result<BTreeSet<i32>> {
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
        .map(|file| crate::lake::partition::partition_key(columns, &file.partition_values, 1))
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
