//! The stream's short way: new events are appended to the table that accounts for them, where that gives the rows that
//! computing the whole date again would give.
//!
//! *Recent* are the dates at or after the watermark. A refresh of recent dates
//! - appends to a row-wise model (each of its rows comes from one accepted record, whatever the others are) the rows of
//!   records whose keys are new; known keys are 128-bit hashes, held in memory by date and loaded from bronze on demand;
//! - computes other models' recent dates again;
//! - leaves everything else for the next settle.
//!
//! What is left is not remembered here: a commit that leaves something does not advance the model's positions, so the logs
//! still say what is dirty. Appending is an optimisation, computing again the definition: a process that ends in between
//! costs only time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Date32Type, Int64Type};

use super::decide::{self, Bronze, Counts};
use super::dirty::{self, Since, Work};
use super::ids::{self, Ids};
use super::partial::Partials;
use super::quarantine::Refused;
use super::row_wise::is_row_wise;
use super::{Run, inputs, late};
use crate::error::Result;
use crate::lake::partition::date_text;
use crate::project::model::{Model, Span};
use crate::project::source::{Mode, Source};
use crate::project::sql::TableName;
use crate::zone;

/// Refused records of a date that are kept until the next settle.
const MAX_REFUSED: usize = 50_000;

/// What a refresh computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Everything,
    /// Dates from this one on, days since the epoch.
    Recent(i32),
}

/// What a model does in one refresh.
#[derive(Debug)]
pub struct Part {
    /// Computed again.
    pub work: Work,
    /// Appended.
    pub append: Option<Append>,
    /// Something is left for the next settle: the model's positions stay.
    pub leaves_some: bool,
}

/// Accepted records to append.
#[derive(Debug)]
pub struct Append {
    pub input: TableName,
    pub rows: Vec<RecordBatch>,
    pub dates: BTreeSet<i32>,
}

impl Part {
    /// All of the work.
    pub fn all(work: Work) -> Self {
        Self { work, append: None, leaves_some: false }
    }

    pub fn is_nothing(&self) -> bool {
        self.work == Work::Nothing && self.append.is_none()
    }

    /// How many partitions it concerns; 1 of a table without.
    pub fn num_partitions(&self) -> usize {
        let appended = self.append.as_ref().map(|append| &append.dates);
        match (&self.work, appended) {
            (Work::Whole, _) => 1,
            (Work::Dates(dates), Some(appended)) => dates.union(appended).count(),
            (Work::Dates(dates), None) => dates.len(),
            (Work::Nothing, appended) => appended.map_or(0, BTreeSet::len),
        }
    }
}

/// Rows that commits have appended to models' tables, by table and version, while a refresh goes on.
pub type Appended = HashMap<(TableName, i64), Vec<RecordBatch>>;

/// What a stream keeps in memory of recent events.
#[derive(Debug)]
pub struct Recent {
    pub(super) partials: Partials,
    pub(super) appended: Appended,
    ids_bytes: usize,
    sources: HashMap<String, RecentSource>,
    /// Whether a model is row-wise in its source.
    row_wise: HashMap<TableName, bool>,
    /// Models that have left something since the last settle, and the versions of their inputs that their recent dates
    /// reflect.
    refreshed: HashMap<TableName, BTreeMap<String, i64>>,
}

#[derive(Debug, Default)]
struct RecentSource {
    /// Rows of bronze that no refresh has looked at.
    fresh: Vec<RecordBatch>,
    first_batch: Option<i64>,
    /// `fresh` lacks rows: too many came at once, or they came before this process.
    has_gap: bool,
    ids: BTreeMap<i32, Ids>,
    /// Dates on which a known key came again since the last settle.
    contested: BTreeSet<i32>,
    /// Rows to append, by date; dates that can't be appended to are left out.
    decided: BTreeMap<i32, Vec<RecordBatch>>,
    /// Bronze's commits that brought `fresh`.
    commits: BTreeSet<i64>,
    /// What was decided of records since the last settle.
    counted: BTreeMap<i32, Counted>,
}

/// What was decided of the records of one date that some commits of bronze brought.
#[derive(Debug, Default)]
struct Counted {
    commits: BTreeSet<i64>,
    counts: Counts,
    refused: Vec<Refused>,
    /// A key was known, or more was refused than is kept: what is to be written of that, deciding the whole date says.
    needs_all: bool,
}

impl Counted {
    /// Those that a rule has refused.
    fn refuse(&mut self, record: &Refused) {
        if self.refused.len() < MAX_REFUSED {
            self.refused.push(record.clone());
        } else {
            self.refused = Vec::new();
            self.needs_all = true;
        }
    }
}

impl Recent {
    /// `ids_bytes` bounds the known keys in memory.
    pub fn new(ids_bytes: usize) -> Self {
        Self {
            partials: Partials::default(),
            appended: HashMap::new(),
            ids_bytes,
            sources: HashMap::new(),
            row_wise: HashMap::new(),
            refreshed: HashMap::new(),
        }
    }

    /// Rows that bronze has just got; `None` where there were too many to keep.
    pub(super) fn keep(
        &mut self,
        source: &Source,
        batch_id: i64,
        commit: i64,
        rows: Option<Vec<RecordBatch>>,
    ) {
        let of_source = self.sources.entry(source.name.clone()).or_default();
        of_source.first_batch.get_or_insert(batch_id);
        of_source.commits.insert(commit);
        match rows {
            Some(rows) => of_source.fresh.extend(rows),
            None => of_source.has_gap = true,
        }
    }

    /// Rows that wait for a refresh.
    pub fn num_fresh(&self) -> usize {
        self.sources.values().flat_map(|source| &source.fresh).map(RecordBatch::num_rows).sum()
    }

    /// Everything is computed: nothing waits and nothing is contested. Known keys stay known.
    pub(super) fn settle(&mut self) {
        self.refreshed.clear();
        self.appended.clear();
        for source in self.sources.values_mut() {
            source.contested.clear();
            source.counted.clear();
            source.end_refresh();
        }
    }

    pub(super) fn end_refresh(&mut self) {
        self.appended.clear();
        for source in self.sources.values_mut() {
            source.end_refresh();
        }
    }

    /// What became of this process' last commits is unknown.
    pub(super) fn forget(&mut self) {
        self.sources.clear();
        self.refreshed.clear();
        self.appended.clear();
        self.partials.forget();
    }
}

impl RecentSource {
    fn end_refresh(&mut self) {
        if !self.fresh.is_empty() || self.has_gap {
            // rows that were not looked at are not among the known keys
            self.ids.clear();
        }
        self.fresh.clear();
        self.commits.clear();
        self.decided.clear();
        self.first_batch = None;
        self.has_gap = false;
    }
}

/// The dates that a refresh computes: those at or after the earliest watermark. Without one everything is recent.
///
/// # Errors
/// `Bug` where the run has no such source.
pub fn scope(run: &Run) -> Result<Scope> {
    let mut from: Option<i32> = None;
    for source in &run.project.sources {
        if let Some(watermark) = late::watermark(run, source)? {
            let date = i32::try_from(watermark.div_euclid(86_400_000_000)).unwrap_or(0);
            from = Some(from.map_or(date, |earliest| earliest.min(date)));
        }
    }
    Ok(from.map_or(Scope::Everything, Scope::Recent))
}

/// Decides the fresh rows of every source, before the models ask for them.
///
/// # Errors
/// Those of reading bronze.
pub async fn decide_fresh(run: &mut Run, from: i32) -> Result<()> {
    let Some(mut recent) = run.recent.take() else {
        return Ok(());
    };
    recent.partials.forget_before(from);
    let mut decided = Ok(());
    for source in run.project.sources.iter().filter(|source| source.mode == Mode::Events) {
        if let Some(of_source) = recent.sources.get_mut(&source.name) {
            decided = decide_source(run, source, of_source, from, recent.ids_bytes).await;
            if decided.is_err() {
                break;
            }
        }
    }
    run.recent = Some(recent);
    decided
}

async fn decide_source(
    run: &Run,
    source: &Source,
    of_source: &mut RecentSource,
    from: i32,
    ids_bytes: usize,
) -> Result<()> {
    of_source.ids.retain(|date, _| *date >= from);
    of_source.decided.clear();
    if of_source.has_gap {
        of_source.end_refresh();
        return Ok(());
    }
    let fresh = std::mem::take(&mut of_source.fresh);
    let commits = std::mem::take(&mut of_source.commits);
    let Some(first_batch) = of_source.first_batch.take() else {
        return Ok(());
    };
    let mut rows: Vec<(RecordBatch, Vec<u128>)> = Vec::new();
    let mut dates: BTreeSet<i32> = BTreeSet::new();
    for batch in &fresh {
        let batch = at_or_after(batch, from)?;
        if batch.num_rows() > 0 {
            dates.extend(date_column(&batch).iter().flatten());
            let keys = ids::keys(source, &batch)?;
            rows.push((batch, keys));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    for date in &dates {
        if !of_source.ids.contains_key(date) {
            let ids = ids::load(run, source, *date, first_batch).await?;
            of_source.ids.insert(*date, ids);
        }
    }
    let context = run.rule_context()?;
    let batches = Arc::new(rows.iter().map(|(batch, _)| batch.clone()).collect::<Vec<_>>());
    let bronze = Bronze { table: run.bronze_of(&source.name)?, cached: Some(batches) };
    let decided = decide::decide(&context, source, bronze, None, run.discards_of(source)).await?;
    for (date, counts) in &decided.counts {
        if let Some(date) = date {
            let counted = of_source.counted.entry(*date).or_default();
            counted.commits.extend(&commits);
            counted.counts.add(counts);
        }
    }
    for record in &decided.quarantined {
        of_source.counted.entry(record.date).or_default().refuse(record);
    }
    let mut rejected: HashMap<&str, HashSet<i64>> = HashMap::new();
    for (file, line) in decided.rejected.values().flatten() {
        rejected.entry(file.as_ref()).or_default().insert(*line);
    }
    for (batch, keys) in &rows {
        let dates = date_column(batch);
        let (Some(files), Some(lines)) = (
            batch.column_by_name("source_file").map(|column| column.as_string_view()),
            batch.column_by_name("source_line").map(|column| column.as_primitive::<Int64Type>()),
        ) else {
            continue;
        };
        let mut is_new = Vec::with_capacity(batch.num_rows());
        for (row, key) in keys.iter().enumerate() {
            let date = dates.value(row);
            let is_known = match of_source.ids.get(&date) {
                Some(ids) => ids.contains(*key)?,
                None => false,
            };
            if is_known {
                of_source.contested.insert(date);
                of_source.counted.entry(date).or_default().needs_all = true;
            }
            let is_rejected =
                rejected.get(files.value(row)).is_some_and(|rejected| rejected.contains(&lines.value(row)));
            is_new.push(!is_known && !is_rejected);
        }
        let accepted = filter_record_batch(batch, &BooleanArray::from(is_new))?;
        for date in date_column(&accepted).iter().flatten().collect::<BTreeSet<i32>>() {
            let of_date: BooleanArray =
                date_column(&accepted).iter().map(|found| Some(found == Some(date))).collect();
            let rows = filter_record_batch(&accepted, &of_date)?;
            of_source.decided.entry(date).or_default().push(rows);
        }
    }
    for (batch, keys) in &rows {
        for (row, key) in keys.iter().enumerate() {
            if let Some(ids) = of_source.ids.get_mut(&date_column(batch).value(row)) {
                ids.insert(*key)?;
            }
        }
    }
    for date in dates {
        // a date whose records were all refused has nothing to append, which is something to say
        of_source.decided.entry(date).or_default();
    }
    of_source.keep_within(ids_bytes);
    Ok(())
}

/// What was decided of a source's records since the ledger's decisions were at `consumed` of bronze, for those of `dates`
/// of which nothing else has changed: it is added to what the ledger and quarantine have.
///
/// # Errors
/// Those of the log.
pub async fn counted_since(
    run: &Run,
    source: &Source,
    dates: &BTreeSet<i32>,
    consumed: i64,
) -> Result<BTreeMap<i32, (Counts, Vec<Refused>)>> {
    let mut found = BTreeMap::new();
    let Some(of_source) = run.recent.as_ref().and_then(|recent| recent.sources.get(&source.name)) else {
        return Ok(found);
    };
    let bronze = run.bronze_of(&source.name)?;
    for (date, counted) in of_source.counted.iter().filter(|(date, _)| dates.contains(date)) {
        let commits = bronze.commits_to(&date_text(*date), consumed).await?;
        let are_all = commits.is_some_and(|commits| commits.iter().all(|c| counted.commits.contains(c)));
        if are_all && !counted.needs_all {
            found.insert(*date, (counted.counts.clone(), counted.refused.clone()));
        }
    }
    Ok(found)
}

impl RecentSource {
    /// Known keys of the oldest dates go first: they are the least likely to be asked for, and can be loaded again. The
    /// newest date is never loaded again for want of memory: every refresh would.
    fn keep_within(&mut self, ids_bytes: usize) {
        while self.ids.len() > 1 && self.ids.values().map(Ids::bytes).sum::<usize>() > ids_bytes {
            self.ids.pop_first();
        }
        if let Some(newest) = self.ids.values_mut().next_back() {
            newest.shrink_to(ids_bytes);
        }
    }
}

fn date_column(batch: &RecordBatch) -> &arrow::array::PrimitiveArray<Date32Type> {
    // the last column of every bronze table
    batch.column(batch.num_columns() - 1).as_primitive()
}

fn at_or_after(batch: &RecordBatch, from: i32) -> Result<RecordBatch> {
    let dates = date_column(batch);
    if dates.iter().all(|date| date.is_some_and(|date| date >= from)) {
        return Ok(batch.clone());
    }
    let is_recent: BooleanArray =
        dates.iter().map(|date| Some(date.is_some_and(|date| date >= from))).collect();
    Ok(filter_record_batch(batch, &is_recent)?)
}

/// What a model does in a refresh of the recent dates.
///
/// # Errors
/// Those of the logs.
pub async fn part(run: &mut Run, model: &Model, from: i32) -> Result<Part> {
    let all = match dirty::work(run, model).await? {
        Work::Dates(dates) if run.table(&model.table)?.version() >= 0 => dates,
        other => return Ok(Part::all(other)),
    };
    let refreshed = run.recent.as_ref().and_then(|kept| kept.refreshed.get(&model.table)).cloned();
    let changed = match &refreshed {
        None => all.clone(),
        Some(versions) => {
            let since = Since { versions: Some(versions), left_out: None };
            match dirty::work_since(run, model, &since).await? {
                Work::Dates(dates) => dates,
                _ => BTreeSet::new(),
            }
        }
    };
    let mut recent: BTreeSet<i32> = changed.range(from..).copied().collect();
    if looks_back_over_records(model) {
        // known before the day starts, corrected at the next settle
        let existing = dirty::dates_of(run.table(&model.table)?.partitions(1));
        recent.retain(|date| !existing.contains(date));
    }
    let mut part = Part {
        leaves_some: refreshed.is_some() || recent.len() < all.len(),
        work: Work::Nothing,
        append: None,
    };
    match appended_source(run, model).await? {
        Some((source, input)) => {
            let since = Since { versions: refreshed.as_ref(), left_out: Some(&input) };
            let of_others = match dirty::work_since(run, model, &since).await? {
                Work::Nothing => BTreeSet::new(),
                Work::Whole => recent.clone(),
                Work::Dates(dates) => dates,
            };
            divide(run, &source, &input, &recent, &of_others, &mut part);
        }
        None => part.work = work_of(recent),
    }
    let versions = dirty::positions(run, model)?;
    if let Some(kept) = &mut run.recent
        && part.leaves_some
    {
        kept.refreshed.insert(model.table.clone(), versions);
    }
    Ok(part)
}

/// What of the recent dates is appended to, and what is computed again.
fn divide(
    run: &Run,
    source: &str,
    input: &TableName,
    recent: &BTreeSet<i32>,
    of_others: &BTreeSet<i32>,
    part: &mut Part,
) {
    let of_source = run.recent.as_ref().and_then(|kept| kept.sources.get(source));
    let mut again = BTreeSet::new();
    let mut append = Append { input: input.clone(), rows: Vec::new(), dates: BTreeSet::new() };
    for date in recent {
        match of_source.and_then(|of_source| of_source.decided.get(date)) {
            Some(rows) if !of_others.contains(date) => {
                append.dates.insert(*date);
                append.rows.extend(rows.iter().cloned());
            }
            _ => {
                again.insert(*date);
            }
        }
    }
    part.leaves_some |= of_source.is_some_and(|of_source| !of_source.contested.is_empty());
    part.work = work_of(again);
    // without rows there is still to say that what landed is consumed
    let says_something = !append.rows.is_empty() || (!append.dates.is_empty() && !part.leaves_some);
    part.append = says_something.then_some(append);
}

fn work_of(dates: BTreeSet<i32>) -> Work {
    match dates.is_empty() {
        true => Work::Nothing,
        false => Work::Dates(dates),
    }
}

/// Its dates depend on days of records before them: many to read for one late event.
fn looks_back_over_records(model: &Model) -> bool {
    model.inputs.iter().any(|(input, span)| {
        dirty::stored_table(input).schema == zone::BRONZE && matches!(span, Span::Days { to, .. } if *to > 0)
    })
}

/// The source whose accepted records the model can be appended with.
async fn appended_source(run: &mut Run, model: &Model) -> Result<Option<(String, TableName)>> {
    let Some(name) = &model.accounts_for else {
        return Ok(None);
    };
    let input = TableName::new(zone::ACCEPTED, name);
    let is_events = run.project.source(name).is_some_and(|source| source.mode == Mode::Events);
    if !is_events || !model.is_partitioned() || model.inputs.get(&input) != Some(&Span::SAME_DATE) {
        return Ok(None);
    }
    let Some(recent) = &run.recent else {
        return Ok(None);
    };
    let is_row_wise = match recent.row_wise.get(&model.table) {
        Some(known) => *known,
        None => {
            let nothing = Append { input: input.clone(), rows: Vec::new(), dates: BTreeSet::new() };
            let context = inputs::append_context(run, model, &nothing).await?;
            let plan = context.sql(&model.sql).await?.into_optimized_plan()?;
            let found = is_row_wise(&plan, &input);
            if let Some(recent) = &mut run.recent {
                recent.row_wise.insert(model.table.clone(), found);
            }
            found
        }
    };
    Ok(is_row_wise.then(|| (name.clone(), input)))
}
