//! One Delta table of the lake: its newest snapshot, and the one way to change it.
//!
//! A [`Commit`] says what a hop produced; [`Table::commit`] appends it as one log entry. When another writer was
//! faster, the commit is rebased on top of the winner if the two do not touch the same rows, and refused otherwise:
//! never merged by luck.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use serde_json::json;
use url::Url;

use super::log::{self, Action, Add, Appended, Metadata, Protocol, Remove, Snapshot, Txn};
use super::write::{PartitionKey, Writer};
use super::{Lake, schema};
use crate::error::{During, Error, Result};
use crate::zone;

/// A checkpoint every so many commits keeps opening a table cheap (facts and hazards, H9).
const CHECKPOINT_INTERVAL: i64 = 20;

/// Another writer can be faster this often before a commit gives up.
const MAX_REBASES: usize = 100;

/// A table's place, and what it contained when last looked at.
#[derive(Debug, Clone)]
pub struct Table {
    lake: Lake,
    name: String,
    root: Path,
    snapshot: Option<Arc<Snapshot>>,
    /// Which partitions each version changed, as far as this process has seen them: `None` where the entry does not say.
    changes: Arc<Mutex<BTreeMap<i64, Option<BTreeSet<PartitionKey>>>>>,
}

/// So many versions' changes are remembered.
const REMEMBERED_CHANGES: usize = 4096;

/// What a commit does to the rows that are there.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Adds rows, keeps all.
    Append,
    /// Replaces the rows of the partitions whose leading values are listed, keeps the others.
    Replace(BTreeSet<PartitionKey>),
    /// Replaces everything.
    ReplaceAll,
    /// Replaces the files with these paths by files that hold the same rows: nothing changes for who reads the log.
    Rewrite(BTreeSet<String>),
    /// Replaces the files with these paths by whatever the new ones hold.
    Swap(BTreeSet<String>),
}

/// What one hop produced for one table.
#[derive(Debug, Clone)]
pub struct Commit {
    pub change: Change,
    pub schema: SchemaRef,
    pub partition: Vec<String>,
    pub adds: Vec<Add>,
    /// Input positions that this version has consumed.
    pub positions: BTreeMap<String, i64>,
    /// A position that may be committed only once: the commit is left out if the table is already there.
    pub once: Option<(String, i64)>,
    /// What else is worth keeping in the log entry.
    pub info: serde_json::Value,
    pub description: String,
}

impl Commit {
    /// Whether it speaks of files that it expects to be there.
    fn names_files(&self) -> bool {
        matches!(self.change, Change::Rewrite(_) | Change::Swap(_))
            || self.adds.iter().any(|add| !add.data_change)
    }
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Committed(i64),
    /// The `once` position was already there: an earlier attempt has succeeded.
    AlreadyThere,
}

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

    /// Appends `commit` to the log. Files that it names must have been written; they are made durable first.
    ///
    /// # Errors
    /// `Conflict` where another writer changed the same rows, schema or position meanwhile, and the store's.
    #[tracing::instrument(
        target = "hop",
        name = "commit",
        skip_all,
        fields(otel.name = %format!("commit {}", self.name), table = self.name, files = commit.adds.len(), version)
    )]
    pub async fn commit(&mut self, commit: &Commit) -> Result<Outcome> {
        let outcome = self.try_commit(commit).await.during(|| format!("committing to `{}`", self.name))?;
        tracing::Span::current().record("version", self.version());
        Ok(outcome)
    }

    async fn try_commit(&mut self, commit: &Commit) -> Result<Outcome> {
        // a commit without files still stands on the log entries of its inputs
        match commit.adds.is_empty() {
            true => self.lake.sync().await?,
            false => self.lake.sync_data().await?,
        }
        for _ in 0..MAX_REBASES {
            if let Some((app_id, position)) = &commit.once
                && self.position(app_id).is_some_and(|there| there >= *position)
            {
                return Ok(Outcome::AlreadyThere);
            }
            let version = self.version() + 1;
            let commit_id = self.lake.unique_name();
            let actions = self.actions(commit, &commit_id)?;
            crate::failpoint::hit(&format!("commit {}", self.name));
            let store = self.lake.store();
            let appended = log::append(store.as_ref(), &self.root, version, &actions, &commit_id).await?;
            match appended {
                Appended::Committed => {
                    crate::failpoint::hit(&format!("committed {}", self.name));
                    self.advance(version, actions);
                    self.checkpoint_when_due(version).await;
                    return Ok(Outcome::Committed(version));
                }
                Appended::Taken(winner) => {
                    self.refuse_conflict(commit, &winner)?;
                    self.advance(version, winner);
                }
            }
        }
        Err(Error::conflict("other writers were faster again and again; run again later"))
    }

    fn actions(&self, commit: &Commit, commit_id: &str) -> Result<Vec<Action>> {
        let now = chrono::Utc::now().timestamp_millis();
        // strictly increasing, so that it can order what is published from this table
        let before = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.timestamp);
        let timestamp = now.max(before + 1);
        let mode = match commit.change {
            Change::Append => "Append",
            Change::Replace(_) | Change::ReplaceAll | Change::Rewrite(_) | Change::Swap(_) => "Overwrite",
        };
        let is_rewrite = matches!(commit.change, Change::Rewrite(_));
        let mut actions = vec![Action::CommitInfo(json!({
            "timestamp": timestamp,
            "operation": if is_rewrite { "OPTIMIZE" } else { "WRITE" },
            "operationParameters": {"mode": mode},
            "engineInfo": concat!("medallion/", env!("CARGO_PKG_VERSION")),
            "commitId": commit_id,
            "medallion": commit.info,
        }))];
        let schema_string = schema::to_delta(&commit.schema)?;
        match &self.snapshot {
            None => {
                actions.push(Action::Protocol(Protocol::PLAIN));
                actions.push(self.metadata(commit, schema_string, commit_id, now));
            }
            Some(snapshot)
                if snapshot.metadata.schema_string != schema_string
                    || snapshot.metadata.partition_columns != commit.partition =>
            {
                let is_whole = matches!(commit.change, Change::ReplaceAll | Change::Swap(_));
                if !is_whole && !self.is_widening(&commit.schema, &commit.partition)? {
                    let remedy = match self.root.as_ref().starts_with(zone::BRONZE) {
                        true => "bronze is never rewritten: give the column a new name or begin a new lake",
                        false => "run with `--full-refresh`",
                    };
                    return Err(Error::project(format!(
                        "the type or partition of a column of `{}` has changed; {remedy}",
                        self.name
                    )));
                }
                let id = snapshot.metadata.id.clone();
                actions.push(self.metadata(commit, schema_string, &id, now));
            }
            Some(_) => {}
        }
        for (app_id, version) in commit.positions.iter().chain(commit.once.as_ref().map(|(a, v)| (a, v))) {
            actions.push(Action::Txn(Txn {
                app_id: app_id.clone(),
                version: *version,
                last_updated: Some(now),
            }));
        }
        for file in self.replaced_files(commit) {
            actions.push(Action::Remove(Remove {
                path: file.path.clone(),
                deletion_timestamp: now,
                data_change: !is_rewrite,
                extended_file_metadata: true,
                partition_values: Some(file.partition_values.clone()),
                size: Some(file.size),
            }));
        }
        let adds = commit.adds.iter().cloned();
        actions.extend(adds.map(|add| Action::Add(Add { data_change: !is_rewrite, ..add })));
        Ok(actions)
    }

    /// Appending columns at the end of the file columns keeps old files readable: they read as null.
    fn is_widening(&self, schema: &SchemaRef, partition: &[String]) -> Result<bool> {
        let Some(old) = self.schema()? else {
            return Ok(true);
        };
        let kept = old.fields().iter().all(|field| {
            let same = schema.field_with_name(field.name());
            same.is_ok_and(|same| same.data_type() == field.data_type())
        });
        let same_partition =
            self.snapshot.as_ref().is_some_and(|snapshot| snapshot.metadata.partition_columns == partition);
        Ok(kept && same_partition)
    }

    fn metadata(&self, commit: &Commit, schema_string: String, id: &str, now: i64) -> Action {
        Action::MetaData(Box::new(Metadata {
            id: id.to_owned(),
            schema_string,
            partition_columns: commit.partition.clone(),
            description: Some(commit.description.clone()),
            created_time: Some(now),
            ..Metadata::default()
        }))
    }

    fn replaced_files(&self, commit: &Commit) -> Vec<Arc<Add>> {
        let Some(snapshot) = &self.snapshot else {
            return Vec::new();
        };
        let columns = &snapshot.metadata.partition_columns;
        let files = snapshot.files.values();
        match &commit.change {
            Change::Append => Vec::new(),
            Change::ReplaceAll => files.cloned().collect(),
            Change::Replace(partitions) => {
                files.filter(|file| is_within(columns, &file.partition_values, partitions)).cloned().collect()
            }
            Change::Rewrite(paths) | Change::Swap(paths) => {
                files.filter(|file| paths.contains(&file.path)).cloned().collect()
            }
        }
    }

    fn refuse_conflict(&self, commit: &Commit, winner: &[Action]) -> Result<()> {
        let conflict = |what: &str| {
            Err(Error::conflict(format!("another run {what} `{}` at the same time; run again", self.name)))
        };
        let ours: BTreeSet<&String> = commit.positions.keys().collect();
        // a file that is named again (with other tags) must still be there, too
        let renamed = commit.adds.iter().filter(|add| !add.data_change).map(|add| add.path.clone());
        let removed: BTreeSet<String> =
            self.replaced_files(commit).iter().map(|file| file.path.clone()).chain(renamed).collect();
        for action in winner {
            match action {
                Action::MetaData(_) | Action::Protocol(_) => return conflict("changed the schema of"),
                Action::Txn(txn) if ours.contains(&txn.app_id) => return conflict("has advanced"),
                // a compaction has put the same rows elsewhere: who replaces them replaces those
                Action::Remove(remove)
                    if removed.contains(&remove.path) && (remove.data_change || commit.names_files()) =>
                {
                    return conflict("replaced files of");
                }
                Action::Add(add) if add.data_change => {
                    let columns = &commit.partition;
                    let overlaps = match &commit.change {
                        Change::Append | Change::Rewrite(_) => false,
                        Change::ReplaceAll | Change::Swap(_) => true,
                        Change::Replace(partitions) => is_within(columns, &add.partition_values, partitions),
                    };
                    if overlaps {
                        return conflict("added rows to");
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Brings the snapshot to `version`, whose entry holds `actions`.
    fn advance(&mut self, version: i64, actions: Vec<Action>) {
        let mut next = match &self.snapshot {
            Some(snapshot) => Snapshot::clone(snapshot),
            None => Snapshot {
                version,
                metadata: Metadata::default(),
                files: BTreeMap::new(),
                txns: BTreeMap::new(),
                timestamp: 0,
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
                Action::CommitInfo(info) => next.timestamp = info["timestamp"].as_i64().unwrap_or(0),
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
    async fn checkpoint_when_due(&self, version: i64) {
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

/// The first `depth` partition values of a file.
pub fn partition_key(
    columns: &[String],
    values: &BTreeMap<String, Option<String>>,
    depth: usize,
) -> PartitionKey {
    columns.iter().take(depth).map(|column| values.get(column).cloned().flatten()).collect()
}

fn is_within(
    columns: &[String],
    values: &BTreeMap<String, Option<String>>,
    partitions: &BTreeSet<PartitionKey>,
) -> bool {
    let depth = partitions.first().map_or(0, Vec::len);
    depth > 0 && partitions.contains(&partition_key(columns, values, depth))
}
