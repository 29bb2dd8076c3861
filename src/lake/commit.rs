//! The one way to change a table: a [`Commit`] says what a hop produced, [`Table::commit`] appends it as one log entry.
//!
//! When another writer was faster, the commit is rebased on top of the winner if the two do not touch the same rows, and
//! refused otherwise: never merged by luck.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde_json::json;

use super::log::{self, Action, Add, Appended, Metadata, Protocol, Remove, Txn};
use super::partition::{PartitionKey, is_within};
use super::schema;
use super::table::Table;
use crate::error::{During, Error, Result};
use crate::zone;

/// Another writer can be faster this often before a commit gives up.
const MAX_REBASES: usize = 100;

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
    /// Paths of files that it expects to be there: those it replaces by name, and those it names again with other tags.
    fn expected_files(&self) -> impl Iterator<Item = &String> {
        let replaced = match &self.change {
            Change::Rewrite(paths) | Change::Swap(paths) => Some(paths),
            Change::Append | Change::Replace(_) | Change::ReplaceAll => None,
        };
        let is_rewrite = matches!(self.change, Change::Rewrite(_));
        let renamed = self.adds.iter().filter(move |add| !add.data_change && !is_rewrite);
        replaced.into_iter().flatten().chain(renamed.map(|add| &add.path))
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
            // this writer itself may have replaced them since it read them
            let files = self.snapshot.as_ref().map(|snapshot| &snapshot.files);
            if commit.expected_files().any(|path| files.is_none_or(|files| !files.contains_key(path))) {
                return Err(self.conflict("replaced files of"));
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

    pub(super) fn actions(&self, commit: &Commit, commit_id: &str) -> Result<Vec<Action>> {
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
    pub(super) fn is_widening(&self, schema: &SchemaRef, partition: &[String]) -> Result<bool> {
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

    fn conflict(&self, what: &str) -> Error {
        Error::conflict(format!("another run {what} `{}` at the same time; run again", self.name))
    }

    fn refuse_conflict(&self, commit: &Commit, winner: &[Action]) -> Result<()> {
        let conflict = |what: &str| Err(self.conflict(what));
        let ours: BTreeSet<&String> = commit.positions.keys().collect();
        let expected: BTreeSet<&String> = commit.expected_files().collect();
        let replaced = self.replaced_files(commit);
        let replaced: BTreeSet<&String> = replaced.iter().map(|file| &file.path).collect();
        for action in winner {
            match action {
                Action::MetaData(_) | Action::Protocol(_) => return conflict("changed the schema of"),
                Action::Txn(txn) if ours.contains(&txn.app_id) => return conflict("has advanced"),
                // a compaction has put the same rows elsewhere: who replaces them replaces those
                Action::Remove(remove)
                    if expected.contains(&remove.path)
                        || remove.data_change && replaced.contains(&remove.path) =>
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
}
