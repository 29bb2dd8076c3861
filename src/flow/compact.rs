//! Small files into larger ones, so that opening, reading and committing cost the same after a thousand micro-batches as
//! after ten.
//!
//! A compaction is a commit that changes no row (`dataChange = false`): it dirties nothing, and a reader sees the table
//! before or after it. Replaced files stay on the disk for readers that are still at an older version. The stream compacts as
//! it runs, `optimize` when it is told to (`maintain.rs`).
//!
//! The stream's reads and writes rows beside its own work; only the commit, some milliseconds, stands between two steps of
//! it. Where the work has replaced one of the files meanwhile, theirs stands and ours is an orphan for `vacuum`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::SortExpr;
use datafusion::prelude::ident;
use futures::TryStreamExt;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Run;
use super::maintain::all_tables;
use crate::engine;
use crate::error::{During, Error, ErrorKind, Result};
use crate::lake::commit::{Change, Commit};
use crate::lake::log::Add;
use crate::lake::partition::partition_key;
use crate::lake::scan::LakeScan;
use crate::lake::table::Table;

/// A partition is compacted when it has so many small files.
const FILES: usize = 16;

/// A larger file stays as it is; `optimize` makes the larger ones. Encoded bytes.
const SMALL_BYTES: i64 = 4 * 1024 * 1024;

/// At most so many encoded bytes are rewritten at once, about a second's work: what was replaced meanwhile is in vain.
const BYTES_AT_ONCE: i64 = 8 * 1024 * 1024;

/// What files must have in common to be put together: the partition, the form of the model that made them.
type Kind = (Vec<Option<String>>, BTreeMap<String, Option<String>>);

/// A compaction that goes on beside other work; ends when it is dropped.
#[derive(Debug)]
pub struct Compaction {
    task: JoinHandle<Result<Vec<(String, Commit)>>>,
}

impl Compaction {
    /// Begins to compact what needs it, a bounded part of it; `None` where nothing does.
    pub fn begin(run: &Run) -> Option<Self> {
        let mut bytes_left = BYTES_AT_ONCE;
        let mut needed = Vec::new();
        for name in all_tables(run) {
            let Ok(table) = run.table(&name) else {
                continue;
            };
            let groups = due(table, &mut bytes_left);
            if !groups.is_empty() {
                needed.push((table.clone(), groups));
            }
        }
        if needed.is_empty() {
            return None;
        }
        let state = run.state.clone();
        let task = tokio::spawn(async move {
            let mut commits = Vec::new();
            for (table, groups) in needed {
                let name = table.name().to_owned();
                let commit = rewrite(&table, &state, &groups, &[]).await;
                commits.push((name, commit.during(|| format!("compacting `{}`", table.name()))?));
            }
            Ok(commits)
        });
        Some(Self { task })
    }

    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for it and commits it.
    ///
    /// # Errors
    /// The stores'.
    pub async fn commit(mut self, run: &mut Run) -> Result<()> {
        let rewritten = (&mut self.task).await;
        let rewritten =
            rewritten.map_err(|error| Error::bug("a compaction ended early").because(error))??;
        for (name, commit) in rewritten {
            let Some(table) = run.tables_mut().find(|table| table.name() == name) else {
                continue;
            };
            match table.commit(&commit).await {
                Ok(_) => run.num_commits += 1,
                // the work or an operator's compaction was faster: theirs stands
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    tracing::debug!(table = name, %error, "a compaction was in vain");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Files below so many encoded bytes that may become one, each with all of its kind.
pub(super) fn small_files(table: &Table, bytes: i64) -> Vec<Vec<Arc<Add>>> {
    let Some(snapshot) = table.snapshot() else {
        return Vec::new();
    };
    let columns = &snapshot.metadata.partition_columns;
    let mut kinds: BTreeMap<Kind, Vec<Arc<Add>>> = BTreeMap::new();
    for file in snapshot.files.values().filter(|file| file.size < bytes) {
        let key = partition_key(columns, &file.partition_values, columns.len());
        // files of different forms stay apart: which rows are stale must stay known
        kinds.entry((key, file.tags_of_content())).or_default().push(Arc::clone(file));
    }
    kinds.into_values().collect()
}

/// Groups of small files that become one file each now.
fn due(table: &Table, bytes_left: &mut i64) -> Vec<Vec<Arc<Add>>> {
    let mut groups = Vec::new();
    for mut files in small_files(table, SMALL_BYTES).into_iter().filter(|files| files.len() >= FILES) {
        // the smallest first: each row is then rewritten a few times only, as its file grows
        files.sort_by(|a, b| (a.size, &a.path).cmp(&(b.size, &b.path)));
        let mut bytes = 0;
        files.retain(|file| {
            bytes += file.size;
            bytes <= *bytes_left
        });
        if files.len() > 1 {
            *bytes_left -= files.iter().map(|file| file.size).sum::<i64>();
            groups.push(files);
        }
    }
    groups
}

/// Writes each group's rows as one file, sorted by `order`, and returns the commit that puts these in the groups' place.
///
/// # Errors
/// The stores'; `Data` where the files do not hold the rows that the log says.
pub(super) async fn rewrite(
    table: &Table,
    state: &SessionState,
    groups: &[Vec<Arc<Add>>],
    order: &[String],
) -> Result<Commit> {
    let schema = table.schema()?.unwrap_or_else(|| Arc::new(Schema::empty()));
    let (partition, description) = match table.snapshot() {
        Some(snapshot) => {
            let metadata = &snapshot.metadata;
            (metadata.partition_columns.clone(), metadata.description.clone().unwrap_or_default())
        }
        None => (Vec::new(), String::new()),
    };
    let order: Vec<SortExpr> = order
        .iter()
        .filter(|column| !partition.contains(column) && schema.field_with_name(column).is_ok())
        .map(|column| ident(column).sort(true, false))
        .collect();
    let mut adds = Vec::new();
    let mut replaced = BTreeSet::new();
    for files in groups {
        let paths: BTreeSet<String> = files.iter().map(|file| file.path.clone()).collect();
        let tags = files.first().map(|file| file.tags_of_content()).unwrap_or_default();
        let mut writer = table.writer(Arc::clone(&schema), &partition).with_tags(tags);
        let scan = LakeScan::of_files(table, Arc::clone(&schema), &partition, &paths)?;
        let context = engine::context(state);
        let mut rows = context.read_table(Arc::new(scan))?;
        if !order.is_empty() {
            rows = rows.sort(order.clone())?;
        }
        let mut rows = rows.execute_stream().await?;
        let mut num_rows = 0;
        while let Some(batch) = rows.try_next().await? {
            num_rows += batch.num_rows() as u64;
            writer.write(&batch).await?;
        }
        let expected: u64 = files.iter().map(|file| file.num_records()).sum();
        if num_rows != expected {
            return Err(Error::data(format!(
                "the files of `{}` hold {num_rows} rows, the log says {expected}; nothing was rewritten",
                table.name()
            )));
        }
        adds.extend(writer.close().await?);
        replaced.extend(paths);
    }
    Ok(Commit {
        change: Change::Rewrite(replaced),
        schema,
        partition,
        adds,
        positions: BTreeMap::new(),
        once: None,
        info: Value::Null,
        description,
    })
}
