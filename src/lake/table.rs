//! One Delta table of the lake: its place, its newest snapshot and what its log tells of the versions before. What changes
//! it is in `commit.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use url::Url;

use super::commit::Commit;
use super::log::{self, Action, Add, Metadata, Snapshot};
use super::partition::{PartitionKey, partition_key};
use super::write::Writer;
use super::{Lake, schema};
use crate::error::{Error, Result};

/// A checkpoint every so many commits keeps opening a table cheap (facts and hazards, H9).
const CHECKPOINT_INTERVAL: i64 = 20;

/// A table's place, and what it contained when last looked at.
#[derive(Debug, Clone)]
pub struct Table {
    pub(super) lake: Lake,
    pub(super) name: String,
    pub(super) root: Path,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Which partitions each version changed, as far as this process has seen them: `None` where the entry does not say.
    changes: Arc<Mutex<BTreeMap<i64, Option<BTreeSet<PartitionKey>>>>>,
}

/// So many versions' changes are remembered.
const REMEMBERED_CHANGES: usize = 4096;

impl Table {
    pub(super) fn new(lake: Lake, name: String, root: Path, snapshot: Option<Snapshot>) -> Self {
        let changes = Arc::default();
        Self { lake, name, root, snapshot: snapshot.map(Arc::new), changes }
    }

    /// `silver.usage_events`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn lake(&self) -> &Lake {
        &self.lake
    }

    /// What the table contains; `None` before its first commit.
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// The newest version, -1 before the first commit.
    pub fn version(&self) -> i64 {
        self.snapshot.as_ref().map_or(-1, |snapshot| snapshot.version)
    }

    /// The position of `app_id`, if it ever committed here.
    pub fn position(&self, app_id: &str) -> Option<i64> {
        self.snapshot.as_ref()?.txn(app_id)
    }

    pub fn num_records(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.num_records())
    }

    /// The values of the first `depth` partition columns that have rows.
    pub fn partitions(&self, depth: usize) -> BTreeSet<PartitionKey> {
        let Some(snapshot) = &self.snapshot else {
            return BTreeSet::new();
        };
        let columns = &snapshot.metadata.partition_columns;
        snapshot.files.values().map(|file| partition_key(columns, &file.partition_values, depth)).collect()
    }

    /// The schema that the log holds.
    ///
    /// # Errors
    /// `Data` where the schema is damaged.
    pub fn schema(&self) -> Result<Option<SchemaRef>> {
        self.snapshot
            .as_ref()
            .map(|snapshot| schema::from_delta(&snapshot.metadata.schema_string))
            .transpose()
    }

    /// Partitions whose rows changed after `version`, by the first `depth` partition columns. Compactions change
    /// nothing. `None` where the log no longer reaches back: everything may have changed.
    ///
    /// # Errors
    /// The store's.
    pub async fn changed_since(&self, version: i64, depth: usize) -> Result<Option<BTreeSet<PartitionKey>>> {
        let mut changed = BTreeSet::new();
        for entry in version + 1..=self.version() {
            let Some(keys) = self.changed_by(entry).await? else {
                return Ok(None);
            };
            changed.extend(keys.into_iter().map(|mut key| {
                key.truncate(depth);
                key
            }));
        }
        Ok(Some(changed))
    }

    /// Commits after `version` that changed rows of a value of the first partition column. `None` where the log no longer
    /// reaches back.
    ///
    /// # Errors
    /// The store's.
    pub async fn commits_to(&self, value: &str, version: i64) -> Result<Option<Vec<i64>>> {
        let mut commits = Vec::new();
        for entry in version + 1..=self.version() {
            let Some(keys) = self.changed_by(entry).await? else {
                return Ok(None);
            };
            if keys.iter().any(|key| key.first().and_then(Option::as_deref) == Some(value)) {
                commits.push(entry);
            }
        }
        Ok(Some(commits))
    }

    /// The partitions whose rows a commit changed; `None` where the log does not say.
    async fn changed_by(&self, version: i64) -> Result<Option<BTreeSet<PartitionKey>>> {
        if let Some(known) = self.remembered(version) {
            return Ok(known);
        }
        let Some(snapshot) = &self.snapshot else {
            return Ok(Some(BTreeSet::new()));
        };
        let store = self.lake.store();
        let Ok(actions) = log::read_entry(store.as_ref(), &self.root, version).await else {
            return Ok(None);
        };
        let changed = changed_partitions(&snapshot.metadata.partition_columns, &actions);
        self.remember(version, changed.clone());
        Ok(changed)
    }

    fn remembered(&self, version: i64) -> Option<Option<BTreeSet<PartitionKey>>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).get(&version).cloned()
    }

    fn remember(&self, version: i64, changed: Option<BTreeSet<PartitionKey>>) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.insert(version, changed);
        while changes.len() > REMEMBERED_CHANGES {
            changes.pop_first();
        }
    }

    /// The table as it was at `version`; `None` where the log no longer reaches back.
    pub async fn at(&self, version: i64) -> Option<Snapshot> {
        if version < 0 {
            return None;
        }
        let store = self.lake.store();
        // the checkpoint before it spares replaying the whole log
        let checkpoint = (version + 1) / CHECKPOINT_INTERVAL * CHECKPOINT_INTERVAL - 1;
        if checkpoint >= 0
            && let Ok(snapshot) =
                log::load_version(store.as_ref(), &self.root, Some(checkpoint), version).await
        {
            return Some(snapshot);
        }
        log::load_version(store.as_ref(), &self.root, None, version).await.ok()
    }

    /// When `version` was committed, milliseconds since the epoch, as its log entry says.
    ///
    /// # Errors
    /// `Data` where the entry is gone or damaged.
    pub async fn committed_at(&self, version: i64) -> Result<i64> {
        if let Some(snapshot) = &self.snapshot
            && snapshot.version == version
            && snapshot.timestamp > 0
        {
            return Ok(snapshot.timestamp);
        }
        let store = self.lake.store();
        for action in log::read_entry(store.as_ref(), &self.root, version).await? {
            if let Action::CommitInfo(info) = action {
                return Ok(info["timestamp"].as_i64().unwrap_or(0));
            }
        }
        Ok(0)
    }

    /// The same table as it was: for reading only, a commit on top of it would be refused.
    #[must_use]
    pub fn with_snapshot(&self, snapshot: Option<Snapshot>) -> Table {
        Table { snapshot: snapshot.map(Arc::new), ..self.clone() }
    }

    /// The table as it would be after `commit`: for reading only.
    ///
    /// # Errors
    /// As [`Table::commit`], where the commit does not fit the table.
    pub fn after(&self, commit: &Commit) -> Result<Table> {
        // what may never be committed is not to be remembered
        let mut after = Table { changes: Arc::default(), ..self.clone() };
        after.advance(self.version() + 1, self.actions(commit, "")?);
        Ok(after)
    }

    /// Whether rows of `schema` can stand beside those that are there.
    ///
    /// # Errors
    /// `Data` where the table's schema is damaged.
    pub fn takes(&self, schema: &SchemaRef, partition: &[String]) -> Result<bool> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(true);
        };
        let is_same = snapshot.metadata.schema_string == schema::to_delta(schema)?;
        let is_same_partition = snapshot.metadata.partition_columns == partition;
        Ok(is_same_partition && (is_same || self.is_widening(schema, partition)?))
    }

    /// A table of the same place that holds `files` of `snapshot` only.
    #[must_use]
    pub fn with_files(&self, metadata: &Metadata, files: impl IntoIterator<Item = Arc<Add>>) -> Table {
        let files = files.into_iter().map(|file| (file.path.clone(), file)).collect();
        let version = self.version();
        self.with_snapshot(Some(Snapshot {
            version,
            metadata: metadata.clone(),
            files,
            txns: BTreeMap::new(),
            timestamp: 0,
            newest_run: None,
        }))
    }

    /// The `medallion` record of a log entry; null where the entry is another writer's.
    ///
    /// # Errors
    /// `Data` where the entry is gone or damaged.
    pub async fn info_at(&self, version: i64) -> Result<serde_json::Value> {
        let store = self.lake.store();
        for action in log::read_entry(store.as_ref(), &self.root, version).await? {
            if let Action::CommitInfo(mut info) = action {
                return Ok(info["medallion"].take());
            }
        }
        Ok(serde_json::Value::Null)
    }

    /// A writer for this table's next commit.
    pub fn writer(&self, schema: SchemaRef, partition: &[String]) -> Writer {
        Writer::new(
            self.lake.store(),
            self.root.clone(),
            schema,
            partition.to_vec(),
            format!("part-{}", self.lake.unique_name()),
        )
    }

    /// Brings the snapshot to `version`, whose entry holds `actions`.
    pub(super) fn advance(&mut self, version: i64, actions: Vec<Action>) {
        let mut next = match &self.snapshot {
            Some(snapshot) => Snapshot::clone(snapshot),
            None => Snapshot {
                version,
                metadata: Metadata::default(),
                files: BTreeMap::new(),
                txns: BTreeMap::new(),
                timestamp: 0,
                newest_run: None,
            },
        };
        next.version = version;
        if let Some(Action::MetaData(metadata)) =
            actions.iter().find(|action| matches!(action, Action::MetaData(_)))
        {
            next.metadata = Metadata::clone(metadata);
        }
        self.remember(version, changed_partitions(&next.metadata.partition_columns, &actions));
        for action in actions {
            match action {
                Action::CommitInfo(info) => {
                    next.timestamp = info["timestamp"].as_i64().unwrap_or(0);
                    next.newest_run = next.newest_run.max(log::run_of(&info));
                }
                Action::MetaData(metadata) => next.metadata = *metadata,
                Action::Txn(txn) => {
                    next.txns.insert(txn.app_id, txn.version);
                }
                Action::Add(add) => {
                    next.files.insert(add.path.clone(), Arc::new(add));
                }
                Action::Remove(remove) => {
                    next.files.remove(&remove.path);
                }
                Action::Protocol(_) | Action::Other(_) => {}
            }
        }
        self.snapshot = Some(Arc::new(next));
    }

    /// A checkpoint only makes opening cheaper, so a failure to write one is a warning.
    pub(super) async fn checkpoint_when_due(&self, version: i64) {
        if (version + 1) % CHECKPOINT_INTERVAL != 0 {
            return;
        }
        if self.lake.checkpoints_in_background() {
            let table = self.clone();
            self.lake.spawn_checkpoint(async move { table.checkpoint_or_warn(version).await });
        } else {
            self.checkpoint_or_warn(version).await;
        }
    }

    async fn checkpoint_or_warn(&self, version: i64) {
        if let Err(error) = self.checkpoint(version).await {
            tracing::warn!(table = %self.name, version, %error, "checkpoint could not be written");
        }
    }

    async fn checkpoint(&self, version: i64) -> Result<()> {
        let failed =
            |error: deltalake::DeltaTableError| Error::unavailable("delta checkpoint failed").because(error);
        // the library finds the table in a store by the path of the url; the rest of the url has no meaning to it
        let url = Url::parse(&format!("memory:///{}/", self.root))
            .map_err(|error| Error::bug("a table's path is no url").because(error))?;
        let table = deltalake::DeltaTableBuilder::from_url(url.clone())
            .map_err(failed)?
            .with_storage_backend(self.lake.store(), url)
            .with_version(u64::try_from(version).unwrap_or(0))
            .load()
            .await
            .map_err(failed)?;
        deltalake::checkpoints::create_checkpoint(&table, None).await.map_err(failed)
    }
}

/// The partitions whose rows an entry changes; `None` where it does not say.
fn changed_partitions(columns: &[String], actions: &[Action]) -> Option<BTreeSet<PartitionKey>> {
    let mut changed = BTreeSet::new();
    for action in actions {
        match action {
            Action::Add(add) if add.data_change => {
                changed.insert(partition_key(columns, &add.partition_values, columns.len()));
            }
            Action::Remove(remove) if remove.data_change => {
                let values = remove.partition_values.as_ref()?;
                changed.insert(partition_key(columns, values, columns.len()));
            }
            _ => {}
        }
    }
    Some(changed)
}
