//! The Delta transaction log: replay it to a [`Snapshot`], append one entry atomically.
//!
//! An entry is the file `_delta_log/<version>.json`, created only if absent; that creation is the commit. Source: the
//! Delta protocol, <https://github.com/delta-io/delta/blob/master/PROTOCOL.md>. This module reads and writes the parts
//! that the lake uses and refuses tables that need more (deletion vectors, column mapping, …) instead of misreading
//! them. Checkpoints are written by the `deltalake` crate.
//!
//! Why not the crate's own commit: it costs time in proportion to the table's active files at every commit and does
//! not skip a repeated `txn` (facts and hazards, H6 and H9; measured in `docs/decisions/0001-own-delta-commit.md`).

mod action;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

pub use self::action::{Action, Add, CHECKSUM, Format, Metadata, Protocol, Remove, Txn, checksum};
use crate::error::{During, Error, Result};

/// A table at one version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub version: i64,
    pub metadata: Metadata,
    pub files: BTreeMap<String, Arc<Add>>,
    pub txns: BTreeMap<String, i64>,
    /// Commit time of `version`, milliseconds since the epoch; 0 where the entry is no longer there.
    pub timestamp: i64,
    /// The newest run that the entries name which were read for this: those since the last checkpoint, and its own.
    pub newest_run: Option<i64>,
}

impl Snapshot {
    /// The position that `app_id` has committed.
    pub fn txn(&self, app_id: &str) -> Option<i64> {
        self.txns.get(app_id).copied()
    }

    pub fn num_records(&self) -> u64 {
        self.files.values().map(|file| file.num_records()).sum()
    }
}

/// A commit's place in the log: `_delta_log/00000000000000000007.json`.
pub fn entry_path(root: &Path, version: i64) -> Path {
    root.clone().join("_delta_log").join(format!("{version:020}.json"))
}

/// Where the checkpoint of a version lies.
pub fn checkpoint_path(root: &Path, version: i64) -> Path {
    root.clone().join("_delta_log").join(format!("{version:020}.checkpoint.parquet"))
}

/// Reads one log entry.
///
/// # Errors
/// The store's; and `Data` with the version where the entry is not what Delta writes.
pub async fn read_entry(store: &dyn ObjectStore, root: &Path, version: i64) -> Result<Vec<Action>> {
    let path = entry_path(root, version);
    let bytes = match store.get(&path).await {
        Ok(found) => found.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => {
            return Err(Error::data(format!(
                "log entry {version} of `{root}` is missing; restore the file from a backup or rebuild the table"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    parse_entry(&bytes, root, version)
}

fn parse_entry(bytes: &Bytes, root: &Path, version: i64) -> Result<Vec<Action>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| {
            serde_json::from_slice(line).map_err(|error| {
                Error::data(format!(
                    "log entry {version} of `{root}` is damaged; restore the file from a backup or rebuild the table"
                ))
                .because(error)
            })
        })
        .collect()
}

#[derive(Deserialize)]
struct LastCheckpoint {
    version: i64,
}

/// What a log says of its newest checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    Nothing,
    Version(i64),
    Damaged,
}

/// What `_last_checkpoint` says: where to begin reading, and no more than that.
///
/// # Errors
/// The store's.
pub async fn last_checkpoint(store: &dyn ObjectStore, root: &Path) -> Result<Hint> {
    match store.get(&root.clone().join("_delta_log").join("_last_checkpoint")).await {
        Ok(found) => Ok(match serde_json::from_slice::<LastCheckpoint>(&found.bytes().await?) {
            Ok(checkpoint) => Hint::Version(checkpoint.version),
            Err(_) => Hint::Damaged,
        }),
        Err(object_store::Error::NotFound { .. }) => Ok(Hint::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// The newest version of the table, or `None` where there is no table.
///
/// # Errors
/// `Data` where the log has a gap or a damaged entry, or the table needs features that the lake does not speak.
pub async fn load(store: &dyn ObjectStore, root: &Path) -> Result<Option<Snapshot>> {
    let log = root.clone().join("_delta_log");
    let hint = match last_checkpoint(store, root).await? {
        Hint::Version(version) => Some(version),
        Hint::Nothing | Hint::Damaged => None,
    };
    let mut listed = Listed::from(store, &log, hint).await?;
    if hint.is_some() && listed.checkpoints.is_empty() {
        // it speaks of a checkpoint that is not there, as after a backup of half of the log
        listed = Listed::from(store, &log, None).await?;
    }
    let Some(latest) = listed.entries.last().max(listed.checkpoints.last()).copied() else {
        return Ok(None);
    };
    let Some(newest) = listed.checkpoints.last().copied() else {
        return load_version(store, root, None, latest).await.map(Some);
    };
    let damage = match load_version(store, root, Some(newest), latest).await {
        Ok(snapshot) => return Ok(Some(snapshot)),
        Err(error) => error,
    };
    // the entries before it say the same, as far as they are still there
    let older = Listed::from(store, &log, None).await?.checkpoints;
    for checkpoint in older.range(..newest).rev().copied().map(Some).chain([None]) {
        if let Ok(snapshot) = load_version(store, root, checkpoint, latest).await {
            tracing::warn!(
                "{damage}; the log's entries are read in its place: delete `{}`",
                checkpoint_path(root, newest)
            );
            return Ok(Some(snapshot));
        }
    }
    Err(damage)
}

/// The versions that a log has files of.
#[derive(Default)]
struct Listed {
    entries: BTreeSet<i64>,
    checkpoints: BTreeSet<i64>,
}

impl Listed {
    /// Those from a version on (`None`: all).
    async fn from(store: &dyn ObjectStore, log: &Path, version: Option<i64>) -> Result<Listed> {
        let listing: Vec<_> = match version {
            Some(version) => {
                // a zero sorts before the checkpoint's own name, so the listing begins with it
                let offset = log.clone().join(format!("{version:020}"));
                store.list_with_offset(Some(log), &offset).try_collect().await?
            }
            None => store.list(Some(log)).try_collect().await?,
        };
        let mut found = Listed::default();
        for name in listing.iter().filter_map(|meta| meta.location.filename()) {
            let Some((version, rest)) = name.split_once('.') else {
                continue;
            };
            let Ok(version) = version.parse::<i64>() else {
                continue;
            };
            match rest {
                "json" => drop(found.entries.insert(version)),
                "checkpoint.parquet" => drop(found.checkpoints.insert(version)),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The table at `version`, replayed from `checkpoint` (or from the beginning).
///
/// # Errors
/// As [`load`].
pub async fn load_version(
    store: &dyn ObjectStore,
    root: &Path,
    checkpoint: Option<i64>,
    version: i64,
) -> Result<Snapshot> {
    let mut replay = Replay::default();
    let mut next = 0;
    if let Some(from) = checkpoint {
        let bytes = store.get(&checkpoint_path(root, from)).await?.bytes().await?;
        let actions = read_checkpoint(bytes).during(|| format!("reading checkpoint {from} of `{root}`"))?;
        replay.apply(actions, root)?;
        next = from + 1;
    }
    for entry in next..=version {
        replay.apply(read_entry(store, root, entry).await?, root)?;
    }
    if next > version
        && let Ok(actions) = read_entry(store, root, version).await
    {
        // a checkpoint does not say when its version was committed, nor by which run
        replay.timestamp = commit_time(&actions);
        replay.newest_run = actions.iter().filter_map(Action::info).filter_map(run_of).max();
    }
    replay.finish(root, version)
}

fn commit_time(actions: &[Action]) -> i64 {
    let infos = actions.iter().filter_map(Action::info);
    infos.filter_map(|info| info["timestamp"].as_i64()).next_back().unwrap_or(0)
}

/// The run that made a commit, as its info says.
pub(super) fn run_of(info: &serde_json::Value) -> Option<i64> {
    info["medallion"]["run"].as_i64()
}

/// A checkpoint row is an action as a struct; written as JSON it reads like a log line.
fn read_checkpoint(bytes: Bytes) -> Result<Vec<Action>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
    let mut lines = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut lines);
    for batch in reader {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    drop(writer);
    let mut actions = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        if !line.is_empty() {
            actions.push(serde_json::from_slice(line)?);
        }
    }
    Ok(actions)
}

#[derive(Default)]
struct Replay {
    metadata: Option<Metadata>,
    files: BTreeMap<String, Arc<Add>>,
    txns: BTreeMap<String, i64>,
    timestamp: i64,
    newest_run: Option<i64>,
}

impl Replay {
    fn apply(&mut self, actions: Vec<Action>, root: &Path) -> Result<()> {
        self.timestamp = 0;
        for action in actions {
            match action {
                Action::Protocol(protocol) => refuse_unknown(&protocol, root)?,
                Action::MetaData(metadata) => self.metadata = Some(*metadata),
                Action::Txn(txn) => {
                    self.txns.insert(txn.app_id, txn.version);
                }
                Action::Add(add) => {
                    if add.deletion_vector.is_some() {
                        return Err(unsupported(root, "deletion vectors"));
                    }
                    self.files.insert(add.path.clone(), Arc::new(add));
                }
                Action::Remove(remove) => {
                    self.files.remove(&remove.path);
                }
                Action::CommitInfo(info) => {
                    self.timestamp = info["timestamp"].as_i64().unwrap_or(0);
                    self.newest_run = self.newest_run.max(run_of(&info));
                }
                Action::Other(_) => {}
            }
        }
        Ok(())
    }

    fn finish(self, root: &Path, version: i64) -> Result<Snapshot> {
        let metadata =
            self.metadata.ok_or_else(|| Error::data(format!("the log of `{root}` has no table metadata")))?;
        if let Some(Some(mode)) = metadata.configuration.get("delta.columnMapping.mode")
            && mode != "none"
        {
            return Err(unsupported(root, "column mapping"));
        }
        Ok(Snapshot {
            version,
            metadata,
            files: self.files,
            txns: self.txns,
            timestamp: self.timestamp,
            newest_run: self.newest_run,
        })
    }
}

fn refuse_unknown(protocol: &Protocol, root: &Path) -> Result<()> {
    let harmless = ["timestampNtz", "appendOnly", "invariants", "checkConstraints"];
    let needed = protocol.reader_features.iter().chain(&protocol.writer_features).flatten();
    for feature in needed {
        if !harmless.contains(&feature.as_str()) {
            return Err(unsupported(root, feature));
        }
    }
    if protocol.min_reader_version > 3 || protocol.min_reader_version == 2 {
        return Err(unsupported(root, &format!("reader version {}", protocol.min_reader_version)));
    }
    Ok(())
}

fn unsupported(root: &Path, feature: &str) -> Error {
    Error::data(format!(
        "table `{root}` uses `{feature}`, which medallion does not read; another writer has changed the table, \
         remove the feature there or rebuild the table"
    ))
}

/// How an attempt to append an entry ended.
#[derive(Debug, PartialEq)]
pub enum Appended {
    /// The entry is in the log.
    Committed,
    /// Somebody else's entry has this version.
    Taken(Vec<Action>),
}

/// Creates entry `version` if nobody has. An error of the store leaves the outcome unknown, so the entry is read back:
/// `commit_id`, which only this commit carries, tells whose it is.
///
/// # Errors
/// The store's, when the entry can be neither written nor read back.
pub async fn append(
    store: &dyn ObjectStore,
    root: &Path,
    version: i64,
    actions: &[Action],
    commit_id: &str,
) -> Result<Appended> {
    let mut body = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut body, action)?;
        body.push(b'\n');
    }
    let path = entry_path(root, version);
    let options = PutOptions::from(PutMode::Create);
    let Err(error) = store.put_opts(&path, body.into(), options).await else {
        return Ok(Appended::Committed);
    };
    match store.get(&path).await {
        Ok(found) => {
            let there = parse_entry(&found.bytes().await?, root, version)?;
            if is_ours(&there, commit_id) {
                return Ok(Appended::Committed);
            }
            Ok(Appended::Taken(there))
        }
        Err(object_store::Error::NotFound { .. }) => Err(error.into()),
        Err(_) => Err(Error::unavailable(format!(
            "the outcome of commit {version} to `{root}` is unknown; run again, it is repeated only if it was lost"
        ))
        .because(error)),
    }
}

fn is_ours(actions: &[Action], commit_id: &str) -> bool {
    actions.iter().any(
        |action| matches!(action, Action::CommitInfo(info) if info["commitId"].as_str() == Some(commit_id)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    fn created() -> Vec<Action> {
        vec![
            Action::CommitInfo(serde_json::json!({"timestamp": 5, "commitId": "a"})),
            Action::Protocol(Protocol::PLAIN),
            Action::MetaData(Box::new(Metadata {
                id: "t".into(),
                schema_string: "{}".into(),
                ..Metadata::default()
            })),
            Action::Add(Add {
                path: "one".into(),
                stats: Some(r#"{"numRecords":3}"#.into()),
                data_change: true,
                ..Add::default()
            }),
            Action::Txn(Txn { app_id: "in".into(), version: 4, last_updated: None }),
        ]
    }

    #[tokio::test]
    async fn replays_what_was_appended() {
        let store = InMemory::new();
        let root = Path::from("bronze/users");
        assert_eq!(load(&store, &root).await.unwrap().map(|s| s.version), None);
        let first = append(&store, &root, 0, &created(), "a").await.unwrap();
        assert_eq!(first, Appended::Committed);
        let again = append(&store, &root, 0, &created(), "a").await.unwrap();
        assert_eq!(again, Appended::Committed, "a lost reply is recognised by the commit id");
        let other = append(&store, &root, 0, &created(), "b").await.unwrap();
        assert!(matches!(other, Appended::Taken(_)));
        let removed = Action::Remove(Remove { path: "one".into(), data_change: true, ..Remove::default() });
        append(&store, &root, 1, &[removed], "c").await.unwrap();
        let now = load(&store, &root).await.unwrap().unwrap();
        assert_eq!((now.version, now.files.len(), now.txn("in")), (1, 0, Some(4)));
        let before = load_version(&store, &root, None, 0).await.unwrap();
        assert_eq!((before.num_records(), before.timestamp), (3, 5));
    }

    #[tokio::test]
    async fn a_gap_and_a_damaged_entry_are_named() {
        let store = InMemory::new();
        let root = Path::from("t");
        append(&store, &root, 0, &created(), "a").await.unwrap();
        append(&store, &root, 2, &[], "b").await.unwrap();
        let gap = load(&store, &root).await.unwrap_err().to_string();
        assert!(gap.contains("log entry 1 of `t` is missing"), "{gap}");
        store.put(&entry_path(&root, 1), "{\"add\":{\"pa".into()).await.unwrap();
        let damaged = load(&store, &root).await.unwrap_err().to_string();
        assert!(damaged.contains("log entry 1 of `t` is damaged"), "{damaged}");
    }

    #[tokio::test]
    async fn a_checkpoint_that_is_gone_or_damaged_hides_nothing() {
        let store = InMemory::new();
        let root = Path::from("t");
        let log = root.clone().join("_delta_log");
        append(&store, &root, 0, &created(), "a").await.unwrap();
        append(&store, &root, 1, &[], "b").await.unwrap();
        let put = async |name: &str, text: &str| {
            store.put(&log.clone().join(name), text.to_owned().into()).await.unwrap();
        };
        put("_last_checkpoint", r#"{"version":19,"size":3}"#).await;
        let found = load(&store, &root).await.unwrap().unwrap();
        assert_eq!((found.version, found.num_records()), (1, 3));
        put("_last_checkpoint", r#"{"version":1,"size":3}"#).await;
        put("00000000000000000001.checkpoint.parquet", "PAR1 no more PAR1").await;
        let found = load(&store, &root).await.unwrap().unwrap();
        assert_eq!((found.version, found.num_records()), (1, 3));
        store.delete(&entry_path(&root, 0)).await.unwrap();
        let damage = load(&store, &root).await.unwrap_err().to_string();
        assert!(damage.contains("checkpoint 1"), "{damage}");
    }

    #[tokio::test]
    async fn features_of_other_writers_are_refused() {
        let store = InMemory::new();
        let root = Path::from("t");
        let mut actions = created();
        actions[1] = Action::Protocol(Protocol {
            min_reader_version: 3,
            min_writer_version: 7,
            reader_features: Some(vec!["deletionVectors".into()]),
            writer_features: None,
        });
        append(&store, &root, 0, &actions, "a").await.unwrap();
        let refused = load(&store, &root).await.unwrap_err().to_string();
        assert!(refused.contains("`deletionVectors`"), "{refused}");
    }
}
