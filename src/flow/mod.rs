//! The way of the data, one file per hop: landing → bronze → decide → silver → gold, and the balance at the end.
//!
//! Every hop is: read a version → compute → check → commit once. A hop's commit carries the version of the input that
//! it consumed, so running it again changes nothing, and a run that was killed is continued by the next one.

pub mod balance;
pub mod bronze;
pub mod checks;
pub mod compact;
pub mod decide;
pub mod dirty;
pub mod doctor;
pub mod explain;
pub mod ids;
pub mod interventions;
pub mod landing;
pub mod late;
pub mod lock;
pub mod maintain;
pub mod model;
pub mod plan;
pub mod quarantine;
pub mod recent;
pub mod redrive;
pub mod report;
pub mod rerun;
pub mod row_wise;
pub mod runs;
pub mod serving;
pub mod travel;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::{Date32Array, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::execution::session_state::SessionState;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::json;

use self::decide::{Counts, Decided};
use self::landing::Pending;
use self::recent::{Recent, Scope};
use self::report::{Report, Step};
use crate::engine;
use crate::error::{Error, Result};
use crate::lake::table::{Commit, Outcome, Table, partition_key};
use crate::lake::{Lake, Root};
use crate::ledger::{self, Ledger};
use crate::project::Project;
use crate::project::source::{DATE, Mode, Source};
use crate::project::sql::TableName;
use crate::telemetry::Progress;
use crate::zone;

/// Records that are decided at once; bounds memory when a whole history is decided.
const DECIDE_ROWS: u64 = 500_000;

/// See [`Run::concurrency`].
const CONCURRENT_MODELS: usize = 2;

/// All rows of a table at one version.
type Cached = (i64, Arc<Vec<RecordBatch>>);

/// Which dates of a source have been decided, and how.
type DecidedDates = (BTreeSet<i32>, Arc<Decided>);

/// The state of one run: the project, its stores, and the tables as this run has left them so far.
pub struct Run {
    pub id: i64,
    /// The command, as the ledger keeps it.
    pub command: String,
    pub project: Arc<Project>,
    pub landing: Arc<Root>,
    pub lake: Lake,
    pub state: SessionState,
    /// When the run began, microseconds since the epoch. Arrival metadata only: no result depends on it.
    pub started_at: i64,
    pub is_full_refresh: bool,
    pub progress: Progress,
    pub ledger: Ledger,
    pub num_commits: usize,
    /// A stream's memory of recent events; a batch has none.
    recent: Option<Recent>,
    /// What an operator asked for beyond what has changed.
    pub wanted: rerun::Wanted,
    /// Models that are computed at the same time: one uses the cores while the other waits for its files.
    pub concurrency: usize,
    /// Records that operators have discarded, by source.
    discards: HashMap<String, decide::Discards>,
    bronze: HashMap<String, Table>,
    quarantine: HashMap<String, Table>,
    models: HashMap<TableName, Table>,
    caches: RwLock<HashMap<String, Cached>>,
    decided: tokio::sync::Mutex<HashMap<String, DecidedDates>>,
    /// One per core: files are decoded by as many threads, of all sources together.
    decoders: Arc<tokio::sync::Semaphore>,
}

impl Run {
    /// Opens every table of the project's lake.
    ///
    /// # Errors
    /// The stores'.
    pub async fn open(project: Arc<Project>, landing: Root, lake: Lake, progress: Progress) -> Result<Run> {
        let state = engine::state(&lake, project.limits.memory_bytes)?;
        let mut run = Run {
            id: 0,
            command: "run".to_owned(),
            project: Arc::clone(&project),
            landing: Arc::new(landing),
            ledger: Ledger::open(&lake).await?,
            lake: lake.clone(),
            state,
            started_at: chrono::Utc::now().timestamp_micros(),
            is_full_refresh: false,
            progress,
            num_commits: 0,
            recent: None,
            wanted: rerun::Wanted::default(),
            concurrency: CONCURRENT_MODELS,
            discards: HashMap::new(),
            bronze: HashMap::new(),
            quarantine: HashMap::new(),
            models: HashMap::new(),
            caches: RwLock::new(HashMap::new()),
            decided: tokio::sync::Mutex::new(HashMap::new()),
            decoders: Arc::new(tokio::sync::Semaphore::new(
                std::thread::available_parallelism().map_or(1, usize::from),
            )),
        };
        run.open_tables().await?;
        run.discards = interventions::discards(&run.ledger).await?;
        // a run is one more commit of `ledger.runs`
        run.id = run.ledger.runs.version() + 2;
        Ok(run)
    }

    /// A stored table by the name that the lake has for it.
    ///
    /// # Errors
    /// `Bug` where the project has no such table.
    pub fn table(&self, name: &TableName) -> Result<&Table> {
        let table = match name.schema.as_str() {
            zone::BRONZE => self.bronze.get(&name.table),
            zone::QUARANTINE => self.quarantine.get(&name.table),
            ledger::ZONE => self.ledger.tables().into_iter().find(|table| table.name() == name.to_string()),
            _ => self.models.get(name),
        };
        table.ok_or_else(|| Error::bug(format!("the table `{name}` is not open")))
    }

    /// The tables of the zones, without the ledger.
    pub fn zone_tables(&self) -> impl Iterator<Item = &Table> {
        self.bronze.values().chain(self.quarantine.values()).chain(self.models.values())
    }

    fn tables_mut(&mut self) -> impl Iterator<Item = &mut Table> {
        let of_zones =
            self.bronze.values_mut().chain(self.quarantine.values_mut()).chain(self.models.values_mut());
        of_zones.chain(self.ledger.tables_mut())
    }

    /// # Errors
    /// As [`Run::table`].
    pub fn bronze_of(&self, source: &str) -> Result<&Table> {
        self.table(&TableName::new(zone::BRONZE, source))
    }

    /// # Errors
    /// As [`Run::table`].
    pub fn quarantine_of(&self, source: &str) -> Result<&Table> {
        self.table(&TableName::new(zone::QUARANTINE, source))
    }

    /// The columns that the project declares for a stored table, and its partition columns.
    ///
    /// # Errors
    /// `Bug` where the project has no such table.
    pub fn declared(&self, name: &TableName) -> Result<(SchemaRef, Vec<String>)> {
        let source = || self.project.source(&name.table);
        let found = match name.schema.as_str() {
            zone::BRONZE => source().map(|source| (source.bronze_schema(), vec![DATE.to_owned()])),
            zone::QUARANTINE => source()
                .map(|source| (source.quarantine_schema(), vec![DATE.to_owned(), "error_type".to_owned()])),
            ledger::ZONE => ledger::schemas()
                .into_iter()
                .find(|(table, _)| *table == name.table)
                .map(|(_, schema)| (schema, Vec::new())),
            _ => self.project.model(name).map(|model| (Arc::clone(&model.schema), model.partition.clone())),
        };
        found.ok_or_else(|| Error::bug(format!("the project has no table `{name}`")))
    }

    fn cache(&self, table: &Table, batches: Vec<RecordBatch>) {
        let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
        caches.insert(table.name().to_owned(), (table.version(), Arc::new(batches)));
    }

    /// Lets go of the rows that neither `models` nor a check will read.
    fn forget_all_but_inputs_of(&self, models: &[&crate::project::model::Model]) -> Result<()> {
        let mut needed: BTreeSet<String> = BTreeSet::new();
        for model in models {
            needed.extend(model.inputs.keys().map(|input| dirty::stored_table(input).to_string()));
        }
        for check in &self.project.checks {
            let inputs =
                crate::project::sql::inputs(&check.sql).map_err(|(_, message)| Error::project(message))?;
            needed.extend(inputs.iter().map(ToString::to_string));
        }
        let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
        caches.retain(|table, _| needed.contains(table));
        Ok(())
    }

    /// All rows of the table, if this run has just written all of them and still holds them.
    fn cached(&self, table: &Table) -> Option<Arc<Vec<RecordBatch>>> {
        let caches = self.caches.read().unwrap_or_else(PoisonError::into_inner);
        let (version, batches) = caches.get(table.name())?;
        (*version == table.version()).then(|| Arc::clone(batches))
    }

    /// What became of a source's bronze records of `dates` (`None`: all). Decided at most once per run.
    ///
    /// # Errors
    /// Those of reading bronze.
    pub async fn decided(&self, source: &Source, dates: Option<&BTreeSet<i32>>) -> Result<Arc<Decided>> {
        let mut all = self.decided.lock().await;
        let (known, decided) = all.entry(source.name.clone()).or_default();
        let bronze = self.bronze_of(&source.name)?;
        let Some(dates) = dates else {
            if known.is_empty() {
                let context = self.rule_context()?;
                let bronze = self.bronze_in_memory(bronze);
                *decided =
                    Arc::new(decide::decide(&context, source, bronze, None, self.discards_of(source)).await?);
                known.insert(0);
            }
            return Ok(Arc::clone(decided));
        };
        let mut missing: BTreeSet<i32> = dates - known;
        let rows = self.rows_by_date(&TableName::new(zone::BRONZE, &source.name))?;
        while !missing.is_empty() {
            let mut group = BTreeSet::new();
            let mut num_rows = 0;
            while num_rows < DECIDE_ROWS
                && let Some(date) = missing.pop_first()
            {
                num_rows += rows.get(&date).copied().unwrap_or(0);
                group.insert(date);
            }
            let context = self.rule_context()?;
            let (bronze, discards) = (self.bronze_in_memory(bronze), self.discards_of(source));
            let found = decide::decide(&context, source, bronze, Some(&group), discards).await?;
            let merged = Arc::make_mut(decided);
            merged.counts.extend(found.counts);
            merged.rejected.extend(found.rejected);
            merged.quarantined.extend(found.quarantined);
            known.append(&mut group);
        }
        Ok(Arc::clone(decided))
    }

    /// Keeps recent events in memory from now on, so that they can be appended; `ids_bytes` bounds the known keys.
    pub fn remember_recent(&mut self, ids_bytes: usize) {
        self.recent = Some(Recent::new(ids_bytes));
    }

    /// Rows in memory that wait for a refresh.
    pub fn num_fresh(&self) -> usize {
        self.recent.as_ref().map_or(0, Recent::num_fresh)
    }

    /// What was decided of the dates that a commit has added rows to must be decided again.
    async fn forget_decided(&self, source: &Source, commit: &Commit) {
        let mut all = self.decided.lock().await;
        let Some((known, decided)) = all.get_mut(&source.name) else {
            return;
        };
        if source.mode == Mode::Upserts {
            all.remove(&source.name);
            return;
        }
        let keys = commit.adds.iter().map(|add| partition_key(&commit.partition, &add.partition_values, 1));
        let dates = dirty::dates_of(keys.collect());
        known.retain(|date| !dates.contains(date));
        let decided = Arc::make_mut(decided);
        decided.counts.retain(|date, _| date.is_none_or(|date| !dates.contains(&date)));
        decided.rejected.retain(|date, _| !dates.contains(date));
        decided.quarantined.retain(|record| !dates.contains(&record.date));
    }

    /// A new run on the tables as they are: what the stream does after each settle.
    pub async fn begin_again(&mut self) {
        self.id = self.ledger.runs.version() + 2;
        self.num_commits = 0;
        self.decided.lock().await.clear();
        self.begin_batch();
    }

    /// What arrives from now on arrives now.
    pub fn begin_batch(&mut self) {
        self.started_at = chrono::Utc::now().timestamp_micros();
        let versions: HashMap<&str, i64> =
            self.zone_tables().map(|table| (table.name(), table.version())).collect();
        let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
        caches.retain(|name, (version, _)| versions.get(name.as_str()) == Some(version));
    }

    /// Looks at every table again: after an error it is unknown what became of the last commits.
    ///
    /// # Errors
    /// The stores'.
    pub async fn reopen(&mut self) -> Result<()> {
        self.open_tables().await?;
        self.ledger = Ledger::open(&self.lake).await?;
        if let Some(recent) = &mut self.recent {
            recent.forget();
        }
        self.begin_again().await;
        Ok(())
    }

    async fn open_tables(&mut self) -> Result<()> {
        let (project, lake) = (Arc::clone(&self.project), self.lake.clone());
        let mut opening = FuturesUnordered::new();
        for source in &project.sources {
            for zone in [zone::BRONZE, zone::QUARANTINE] {
                opening.push(open_table(&lake, TableName::new(zone, &source.name)));
            }
        }
        for model in project.stored_models() {
            opening.push(open_table(&lake, model.table.clone()));
        }
        while let Some(opened) = opening.next().await {
            let (name, table) = opened?;
            match name.schema.as_str() {
                zone::BRONZE => self.bronze.insert(name.table, table),
                zone::QUARANTINE => self.quarantine.insert(name.table, table),
                _ => self.models.insert(name, table),
            };
        }
        Ok(())
    }

    /// Rules may look things up in the project's reference tables.
    fn rule_context(&self) -> Result<datafusion::prelude::SessionContext> {
        let context = engine::context(&self.state);
        model::register_references(self, &context)?;
        Ok(context)
    }

    fn discards_of(&self, source: &Source) -> &decide::Discards {
        static NONE: decide::Discards = decide::Discards::new();
        self.discards.get(&source.name).unwrap_or(&NONE)
    }

    fn bronze_in_memory<'a>(&self, bronze: &'a Table) -> decide::Bronze<'a> {
        decide::Bronze { table: bronze, cached: self.cached(bronze) }
    }
}

async fn open_table(lake: &Lake, name: TableName) -> Result<(TableName, Table)> {
    let table = lake.table(&name.schema, &name.table).await?;
    Ok((name, table))
}

/// Moves everything that waits in landing to gold, and proves that nothing was lost. This is the whole way; the stream
/// goes it part by part.
///
/// # Errors
/// What stops a run. What a person must look at without stopping it (changed landing files, failed checks, a balance that
/// does not hold) is in the report.
pub async fn advance(run: &mut Run) -> Result<Report> {
    let mut report = Report::begin(run);
    interventions::resume(run).await?;
    let pending = landing::discover(run).await?;
    report.landing(&pending);
    take_in(run, &pending, &mut report).await?;
    refresh(run, &mut report).await?;
    settle(run, &mut report).await?;
    Ok(report)
}

/// Landing → bronze and quarantine: the batches that were written ahead.
///
/// # Errors
/// The stores'; `Conflict` where another run has taken one of them in.
pub async fn take_in(run: &mut Run, pending: &Pending, report: &mut Report) -> Result<()> {
    for (batch_id, batch) in &pending.batches {
        let steps = ingest(run, *batch_id, batch).await?;
        report.steps.extend(steps);
    }
    Ok(())
}

/// Bronze → silver → gold: whatever has changed since they were computed.
///
/// # Errors
/// The stores' and those of the models.
pub async fn refresh(run: &mut Run, report: &mut Report) -> Result<()> {
    bronze::report(run).await?;
    decide_changed(run).await?;
    report.steps.extend(compute_models(run, Scope::Everything).await?);
    if let Some(recent) = &mut run.recent {
        recent.settle();
    }
    Ok(())
}

/// Bronze → silver → gold, of the recent dates only; what else has changed waits for [`refresh`]. Where a source has no
/// watermark, everything is recent.
///
/// # Errors
/// As [`refresh`].
pub async fn refresh_recent(run: &mut Run, report: &mut Report) -> Result<()> {
    let Scope::Recent(from) = recent::scope(run)? else {
        return refresh(run, report).await;
    };
    recent::decide_fresh(run, from).await?;
    report.steps.extend(compute_models(run, Scope::Recent(from)).await?);
    if let Some(recent) = &mut run.recent {
        recent.end_refresh();
    }
    Ok(())
}

/// Checks and balance, and the report in the ledger; then everything is on the disk.
///
/// # Errors
/// The stores' and those of the checks.
pub async fn settle(run: &mut Run, report: &mut Report) -> Result<()> {
    report.warn_of_stale(run).await?;
    if run.num_commits > 0 || !report::is_closed(run).await? {
        report.checks = checks::run(run).await?;
        report.balance = balance::compute(run).await?;
        report.close(run).await?;
    } else {
        report.balance = balance::stored(run).await?;
    }
    run.lake.sync().await?;
    if report.commits == 0 {
        report.commits = run.num_commits;
    }
    Ok(())
}

/// Landing → bronze, all sources of a batch at once.
async fn ingest(
    run: &mut Run,
    batch_id: i64,
    batch: &BTreeMap<String, Vec<ledger::FileRecord>>,
) -> Result<Vec<Step>> {
    run.progress.stage("landing → bronze");
    let mut work = FuturesUnordered::new();
    for (name, files) in batch {
        if let Some(source) = run.project.source(name) {
            let run = &*run;
            let source = source.clone();
            work.push(async move {
                let ingested = bronze::ingest(run, &source, batch_id, files).await?;
                Result::Ok((source, ingested))
            });
        }
    }
    let mut done = Vec::new();
    while let Some(ingested) = work.next().await {
        done.push(ingested?);
    }
    drop(work);
    // quarantine before bronze, also on the disk: bronze's entry says that the batch is done
    run.lake.sync().await?;
    let mut has_refused = false;
    for (_, ingested) in &mut done {
        if let Some(commit) = &ingested.quarantine_commit {
            ingested.quarantine.commit(commit).await?;
            run.num_commits += 1;
            has_refused = true;
        }
    }
    if has_refused {
        run.lake.sync().await?;
    }
    let mut steps = Vec::new();
    for (source, mut ingested) in done {
        if ingested.bronze.commit(&ingested.bronze_commit).await? == Outcome::AlreadyThere {
            return Err(Error::conflict(format!(
                "another run took batch {batch_id} of `{}` in at the same time; run again",
                source.name
            )));
        }
        run.num_commits += 1;
        if let Some(batches) = ingested.cache {
            run.cache(&ingested.bronze, batches);
        }
        if let Some(recent) = &mut run.recent
            && source.mode == Mode::Events
        {
            recent.keep(&source, batch_id, ingested.fresh);
        }
        run.forget_decided(&source, &ingested.bronze_commit).await;
        steps.push(Step::ingested(&source, &ingested.reports));
        run.bronze.insert(source.name.clone(), ingested.bronze);
        run.quarantine.insert(source.name, ingested.quarantine);
    }
    steps.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(steps)
}

/// Bronze → decisions: of what bronze's log says changed, and of what is asked for.
async fn decide_changed(run: &mut Run) -> Result<()> {
    run.progress.stage("bronze → one row per key");
    let mut todo = Vec::new();
    let discarded = interventions::undecided(run).await?;
    for source in run.project.sources.clone() {
        let bronze = run.bronze_of(&source.name)?;
        let consumed = run.ledger.decisions.position(&format!("bronze.{}", source.name));
        // `None`: all of it may have changed
        let since = match consumed {
            Some(consumed) if !run.is_full_refresh => bronze.changed_since(consumed, 1).await?,
            _ => None,
        };
        let is_changed = since.as_ref().is_none_or(|keys| !keys.is_empty());
        let asked = [run.wanted.decide.get(&source.name), discarded.get(&source.name)];
        let mut asked = asked.into_iter().flatten().flatten().copied().collect::<BTreeSet<i32>>();
        if bronze.version() < 0 || (!is_changed && asked.is_empty()) {
            continue;
        }
        let dates = match source.mode {
            Mode::Upserts => None,
            Mode::Events if is_changed => {
                asked.extend(dirty::dates_of(since.unwrap_or_else(|| bronze.partitions(1))));
                Some(asked)
            }
            Mode::Events => Some(asked),
        };
        todo.push((source, dates));
    }
    decide_and_record(run, todo).await
}

/// Decides the sources' dates (`None`: all): quarantine's silver part first, then the counts.
async fn decide_and_record(run: &mut Run, todo: Vec<(Source, Option<BTreeSet<i32>>)>) -> Result<()> {
    let mut positions = BTreeMap::new();
    let mut changed: BTreeMap<(String, Option<i32>), Counts> = BTreeMap::new();
    let mut replaced: BTreeMap<String, Option<BTreeSet<i32>>> = BTreeMap::new();
    let mut refused_by_source: Vec<(Source, Option<BTreeSet<i32>>, Vec<quarantine::Refused>)> = Vec::new();
    for (source, dates) in todo {
        positions.insert(format!("bronze.{}", source.name), run.bronze_of(&source.name)?.version());
        let decided = run.decided(&source, dates.as_ref()).await?;
        let is_wanted = |date: &i32| dates.as_ref().is_none_or(|dates| dates.contains(date));
        let refused: Vec<_> =
            decided.quarantined.iter().filter(|record| is_wanted(&record.date)).cloned().collect();
        for (date, counts) in &decided.counts {
            if date.as_ref().is_none_or(is_wanted) {
                let counts = Counts { fingerprint: source.fingerprint.clone(), ..counts.clone() };
                changed.insert((source.name.clone(), *date), counts);
            }
        }
        replaced.insert(source.name.clone(), dates.clone());
        refused_by_source.push((source, dates, refused));
    }
    for (source, dates, refused) in refused_by_source {
        quarantine::replace(run, &source, dates.as_ref(), refused).await?;
    }
    if positions.is_empty() {
        return Ok(());
    }
    positions.extend(interventions::position(run));
    let mut kept = run.ledger.decisions.snapshot().map(|snapshot| snapshot.txns.clone()).unwrap_or_default();
    let before = decisions(run).await?;
    let mut all = before.clone();
    all.retain(|(source, date), _| match (replaced.get(source), date) {
        (None, _) => true,
        (Some(Some(dates)), Some(date)) => !dates.contains(date),
        (Some(_), _) => false,
    });
    all.extend(changed);
    let is_known = positions.iter().all(|(name, position)| kept.get(name) == Some(position));
    if all == before && is_known {
        return Ok(());
    }
    let rows = decision_rows(&all)?;
    kept.extend(positions);
    ledger::replace(&mut run.ledger.decisions, &rows, kept).await?;
    run.num_commits += 1;
    Ok(())
}

/// The dates of each source that were decided by older rules; of an `upserts` source, its bronze dates.
///
/// # Errors
/// The store's.
pub async fn stale_decisions(run: &Run) -> Result<BTreeMap<String, BTreeSet<i32>>> {
    let mut stale: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for ((name, date), counts) in decisions(run).await? {
        let Some(source) = run.project.source(&name) else {
            continue;
        };
        if counts.fingerprint == source.fingerprint {
            continue;
        }
        let dates = stale.entry(name).or_default();
        match date {
            Some(date) => {
                dates.insert(date);
            }
            None => dates.extend(dirty::dates_of(run.bronze_of(&source.name)?.partitions(1))),
        }
    }
    Ok(stale)
}

/// Counts by source and date, as `ledger.decisions` keeps them.
///
/// # Errors
/// The store's.
pub async fn decisions(run: &Run) -> Result<BTreeMap<(String, Option<i32>), Counts>> {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Date32Type, Int64Type};
    let mut all = BTreeMap::new();
    for batch in ledger::read(&run.ledger.decisions).await? {
        let dates = batch.column(7).as_primitive::<Date32Type>();
        for row in 0..batch.num_rows() {
            let source = batch.column(0).as_string_view().value(row).to_owned();
            let money: serde_json::Value = serde_json::from_str(batch.column(5).as_string_view().value(row))?;
            let tally = |at: usize, name: &str| decide::Tally {
                records: batch.column(at).as_primitive::<Int64Type>().value(row).cast_unsigned(),
                money: money[name]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|sum| sum.as_str()?.parse().ok())
                    .collect(),
            };
            let counts = Counts {
                accepted: tally(1, "accepted"),
                duplicates: tally(2, "duplicates"),
                superseded: tally(3, "superseded"),
                quarantined: tally(4, "quarantined"),
                warnings: serde_json::from_str(batch.column(6).as_string_view().value(row))?,
                fingerprint: batch.column(8).as_string_view().value(row).to_owned(),
            };
            let date = dates.is_valid(row).then(|| dates.value(row));
            all.insert((source, date), counts);
        }
    }
    Ok(all)
}

fn decision_rows(all: &BTreeMap<(String, Option<i32>), Counts>) -> Result<RecordBatch> {
    let texts =
        |tally: &decide::Tally| -> Vec<String> { tally.money.iter().map(ToString::to_string).collect() };
    let counts = |of: fn(&Counts) -> &decide::Tally| {
        Arc::new(Int64Array::from_iter_values(all.values().map(|counts| of(counts).records.cast_signed())))
    };
    let money = all.values().map(|counts| {
        json!({
            "accepted": texts(&counts.accepted), "duplicates": texts(&counts.duplicates),
            "superseded": texts(&counts.superseded), "quarantined": texts(&counts.quarantined),
        })
        .to_string()
    });
    let dates: Date32Array = all.keys().map(|(_, date)| *date).collect();
    Ok(RecordBatch::try_new(
        ledger::decisions_schema(),
        vec![
            ledger::texts(all.keys().map(|(source, _)| source)),
            counts(|counts| &counts.accepted),
            counts(|counts| &counts.duplicates),
            counts(|counts| &counts.superseded),
            counts(|counts| &counts.quarantined),
            ledger::texts(money),
            ledger::texts(all.values().map(|counts| json!(counts.warnings).to_string())),
            Arc::new(dates),
            ledger::texts(all.values().map(|counts| &counts.fingerprint)),
        ],
    )?)
}

/// Silver and gold: every model whose inputs have changed, inputs before outputs.
async fn compute_models(run: &mut Run, scope: Scope) -> Result<Vec<Step>> {
    let project = Arc::clone(&run.project);
    let mut waiting: Vec<&crate::project::model::Model> = project.stored_models().collect();
    let mut unfinished: BTreeSet<TableName> = waiting.iter().map(|model| model.table.clone()).collect();
    let mut steps = Vec::new();
    while !waiting.is_empty() {
        let is_ready = |model: &&crate::project::model::Model| {
            model.inputs.keys().all(|input| !unfinished.contains(&dirty::stored_table(input)))
        };
        let (ready, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_ready);
        if ready.is_empty() {
            return Err(Error::bug("models wait for each other"));
        }
        waiting = later;
        let mut todo = Vec::new();
        loop {
            todo.clear();
            for model in &ready {
                let part = match scope {
                    Scope::Everything => rerun::part(run, model).await?,
                    Scope::Recent(from) => recent::part(run, model, from).await?,
                };
                if !part.is_nothing() {
                    todo.push((*model, part));
                }
            }
            if scope != Scope::Everything {
                // what is decided again stands for all of a source's changes, which only a settle computes
                break;
            }
            // rows and decisions of a date are of the same rules, or the balance would not hold
            let again = rerun::to_decide(run, &todo).await?;
            if again.is_empty() {
                break;
            }
            decide_and_record(run, again).await?;
        }
        for model in &ready {
            unfinished.remove(&model.table);
        }
        run.progress.stage(&format!("{} models", todo.len()));
        let shared = &*run;
        let mut computing = futures::stream::iter(todo)
            .map(|(model, part)| async move {
                let begun = std::time::Instant::now();
                let mut computed = model::compute(shared, model, &part).await?;
                if shared.wanted.compares {
                    computed = rerun::leave_out_unchanged(model, &part.work, computed).await?;
                }
                Result::Ok((model, part, computed, begun.elapsed()))
            })
            .buffer_unordered(run.concurrency);
        let mut done = Vec::new();
        while let Some(computed) = computing.next().await {
            done.push(computed?);
        }
        drop(computing);
        // one sync for the files of all, then one log entry each
        run.lake.sync().await?;
        for (model, part, mut computed, elapsed) in done {
            if !rerun::is_empty(&computed) {
                computed.table.commit(&computed.commit).await?;
                run.num_commits += 1;
            }
            if let Some(batches) = computed.cache.take() {
                run.cache(&computed.table, batches);
            }
            steps.push(Step::computed(model, &part, &computed, elapsed));
            run.models.insert(model.table.clone(), computed.table);
        }
        run.forget_all_but_inputs_of(&waiting)?;
    }
    Ok(steps)
}
