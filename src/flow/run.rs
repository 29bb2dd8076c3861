//! The state of one run: the project, its stores, the tables as the run has left them so far, and what of them it still
//! holds in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::session_state::SessionState;
use futures::stream::{FuturesUnordered, StreamExt};

use super::decide::{self, Decided};
use super::recent::Recent;
use super::{dirty, inputs, interventions, lost, rerun};
use crate::engine;
use crate::error::{Error, Result};
use crate::lake::commit::Commit;
use crate::lake::partition::partition_key;
use crate::lake::scan::LakeScan;
use crate::lake::table::Table;
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
    pub(super) recent: Option<Recent>,
    /// What an operator asked for beyond what has changed.
    pub wanted: rerun::Wanted,
    /// Models that are computed at the same time: one uses the cores while the other waits for its files.
    pub concurrency: usize,
    /// Records that operators have discarded, by source.
    pub(super) discards: HashMap<String, decide::Discards>,
    pub(super) bronze: HashMap<String, Table>,
    pub(super) quarantine: HashMap<String, Table>,
    pub(super) models: HashMap<TableName, Table>,
    pub(super) caches: RwLock<HashMap<String, Cached>>,
    pub(super) decided: tokio::sync::Mutex<HashMap<String, DecidedDates>>,
    /// One per core: files are decoded by as many threads, of all sources together.
    pub(super) decoders: Arc<tokio::sync::Semaphore>,
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
        run.id = lost::next_run(&run);
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
            zone::LEDGER => self.ledger.tables().into_iter().find(|table| table.name() == name.to_string()),
            _ => self.models.get(name),
        };
        table.ok_or_else(|| Error::bug(format!("the table `{name}` is not open")))
    }

    /// The tables of the zones, without the ledger.
    pub fn zone_tables(&self) -> impl Iterator<Item = &Table> {
        self.bronze.values().chain(self.quarantine.values()).chain(self.models.values())
    }

    pub(super) fn tables_mut(&mut self) -> impl Iterator<Item = &mut Table> {
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
            zone::LEDGER => ledger::schemas()
                .into_iter()
                .find(|(table, _)| *table == name.table)
                .map(|(_, schema)| (schema, Vec::new())),
            _ => self.project.model(name).map(|model| (Arc::clone(&model.schema), model.partition.clone())),
        };
        found.ok_or_else(|| Error::bug(format!("the project has no table `{name}`")))
    }

    pub(super) fn cache(&self, table: &Table, batches: Vec<RecordBatch>) {
        let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
        caches.insert(table.name().to_owned(), (table.version(), Arc::new(batches)));
    }

    /// Lets go of the rows that neither `models` nor a check will read.
    pub(super) fn forget_all_but_inputs_of(&self, models: &[&crate::project::model::Model]) -> Result<()> {
        let mut needed: BTreeSet<String> = BTreeSet::new();
        for model in models {
            needed.extend(model.inputs.keys().map(|input| dirty::stored_table(input).to_string()));
        }
        for check in &self.project.checks {
            needed.extend(check.reads.iter().map(ToString::to_string));
        }
        let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
        caches.retain(|table, _| needed.contains(table));
        Ok(())
    }

    /// All rows of the table, if this run has just written all of them and still holds them.
    pub(super) fn cached(&self, table: &Table) -> Option<Arc<Vec<RecordBatch>>> {
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

    /// Keeps recent events in memory from now on, so that they can be appended; `ids_bytes` bounds the known keys. Queries
    /// may then hold half of what they may in a batch, because these stay beside them.
    ///
    /// # Errors
    /// Where the query engine can't start again.
    pub fn remember_recent(&mut self, ids_bytes: usize) -> Result<()> {
        self.state = engine::state(&self.lake, self.project.limits.memory_bytes / 2)?;
        self.recent = Some(Recent::new(ids_bytes));
        Ok(())
    }

    /// Rows in memory that wait for a refresh.
    pub fn num_fresh(&self) -> usize {
        self.recent.as_ref().map_or(0, Recent::num_fresh)
    }

    /// What was decided of the dates that a commit has added rows to must be decided again.
    pub(super) async fn forget_decided(&self, source: &Source, commit: &Commit) {
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
        self.id = lost::next_run(self);
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
        // the ledger first, as a run opens them: what it says was taken in is then in the tables
        self.ledger = Ledger::open(&self.lake).await?;
        self.open_tables().await?;
        self.discards = interventions::discards(&self.ledger).await?;
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
            self.keep_open(opened?);
        }
        drop(opening);
        self.catch_up().await
    }

    fn keep_open(&mut self, (name, table): (TableName, Table)) {
        match name.schema.as_str() {
            zone::BRONZE => self.bronze.insert(name.table, table),
            zone::QUARANTINE => self.quarantine.insert(name.table, table),
            _ => self.models.insert(name, table),
        };
    }

    /// Beside a writer a table may have consumed what came after its input was opened: such an input is opened again.
    async fn catch_up(&mut self) -> Result<()> {
        const LOOKS: usize = 3;
        for _ in 0..LOOKS {
            let mut older = BTreeSet::new();
            for model in self.project.stored_models() {
                let table = self.table(&model.table)?;
                for (name, version) in dirty::positions(self, model)? {
                    if table.position(&name).is_some_and(|consumed| consumed > version) {
                        older.extend(TableName::parse(&name));
                    }
                }
            }
            for source in &self.project.sources {
                let name = TableName::new(zone::BRONZE, &source.name);
                let consumed = self.ledger.decisions.position(&name.to_string());
                if consumed.is_some_and(|consumed| self.table(&name).is_ok_and(|it| it.version() < consumed))
                {
                    older.insert(name);
                }
            }
            if older.is_empty() {
                break;
            }
            for name in older {
                let opened = open_table(&self.lake, name).await?;
                self.keep_open(opened);
            }
        }
        Ok(())
    }

    /// Rules may look things up in the project's reference tables.
    pub(super) fn rule_context(&self) -> Result<datafusion::prelude::SessionContext> {
        let context = engine::context(&self.state);
        inputs::register_references(self, &context)?;
        Ok(context)
    }

    pub(super) fn discards_of(&self, source: &Source) -> &decide::Discards {
        static NONE: decide::Discards = decide::Discards::new();
        self.discards.get(&source.name).unwrap_or(&NONE)
    }

    pub(super) fn bronze_in_memory<'a>(&self, bronze: &'a Table) -> decide::Bronze<'a> {
        decide::Bronze { table: bronze, cached: self.cached(bronze) }
    }

    /// Rows of a table, from memory where this run has just written all of it.
    pub fn scan(
        &self,
        table: &Table,
        schema: SchemaRef,
        partition: &[String],
        dates: Option<&BTreeSet<i32>>,
    ) -> Result<LakeScan> {
        let all = dates.is_none_or(|dates| dirty::dates_of(table.partitions(1)).is_subset(dates));
        if all && let Some(batches) = self.cached(table) {
            return Ok(LakeScan::in_memory(schema, batches));
        }
        let only = dates.map(decide::partition_keys);
        LakeScan::new(table, schema, partition, only.as_ref())
    }

    /// Rows per date of a table's current version.
    pub fn rows_by_date(&self, name: &TableName) -> Result<BTreeMap<i32, u64>> {
        Ok(rows_by_date(self.table(name)?))
    }
}

/// Rows per date, as the log says.
pub(super) fn rows_by_date(table: &Table) -> BTreeMap<i32, u64> {
    let mut rows = BTreeMap::new();
    if let Some(snapshot) = table.snapshot() {
        let columns = &snapshot.metadata.partition_columns;
        for file in snapshot.files.values() {
            let key = partition_key(columns, &file.partition_values, 1);
            for date in dirty::dates_of(BTreeSet::from([key])) {
                *rows.entry(date).or_default() += file.num_records();
            }
        }
    }
    rows
}

async fn open_table(lake: &Lake, name: TableName) -> Result<(TableName, Table)> {
    let table = lake.table(&name.schema, &name.table).await?;
    Ok((name, table))
}
