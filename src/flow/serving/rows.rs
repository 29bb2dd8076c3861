//! Gold's rows, gathered by serving partition, a range of tokens at a time so that memory is bounded.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;

use super::tables::GoldTables;
use crate::error::{During, Result};
use crate::lake::log::{Add, Snapshot};
use crate::lake::scan::LakeScan;
use crate::lake::table::Table;
use crate::project::mart::Mart;
use crate::store::encode::{self, IsWanted};
use crate::store::rows::{Partitions, TokenRange};
use crate::store::state::GoldVersion;

/// Rows that are held at once.
pub(super) const RANGE_ROWS: u64 = 500_000;

/// Ranges of tokens of so many of the table's rows each, about.
pub(super) fn ranges(table: &Table, rows: u64) -> Vec<TokenRange> {
    let parts = table.num_records().div_ceil(rows).max(1);
    if parts == 1 {
        return vec![TokenRange::ALL];
    }
    TokenRange::split(usize::try_from(parts).unwrap_or(usize::MAX))
}

/// The rows of a scan, encoded and gathered by partition: of those whose key is `wanted` and whose token is in `range`.
///
/// # Errors
/// The lake's, and `Data` where a value can't be kept by the store.
pub(super) async fn load(
    tables: &GoldTables,
    mart: &Mart,
    scan: LakeScan,
    range: TokenRange,
    wanted: Option<&IsWanted<'_>>,
) -> Result<Partitions> {
    gather(tables, mart, scan, range, wanted).await.during(|| format!("reading `{}`", mart.gold()))
}

async fn gather(
    tables: &GoldTables,
    mart: &Mart,
    scan: LakeScan,
    range: TokenRange,
    wanted: Option<&IsWanted<'_>>,
) -> Result<Partitions> {
    let mut found = Partitions::default();
    let mut stream = tables.context().read_table(Arc::new(scan))?.execute_stream().await?;
    while let Some(batch) = stream.try_next().await? {
        encode::gather(mart, &batch, range, wanted, &mut found)?;
    }
    Ok(found)
}

/// Versions of a mart's table, oldest first; the last is the one to be published.
pub(super) struct History {
    table: Table,
    schema: SchemaRef,
    partition: Vec<String>,
    before: Vec<Arc<Snapshot>>,
}

impl History {
    /// Only the version that the run sees.
    pub(super) fn of(tables: &GoldTables, mart: &Mart) -> Result<Self> {
        let table = tables.of_mart(mart)?.clone();
        let (schema, partition) = tables.declared(mart)?;
        Ok(Self { table, schema, partition, before: Vec::new() })
    }

    /// The versions of `chain`; `None` where the log no longer tells one of them, or kept it otherwise.
    pub(super) async fn open(
        tables: &GoldTables,
        mart: &Mart,
        chain: &[GoldVersion],
    ) -> Result<Option<Self>> {
        let mut history = Self::of(tables, mart)?;
        for version in chain {
            let snapshot = match history.table.snapshot() {
                Some(newest) if newest.version == version.version => Arc::clone(newest),
                _ => match history.table.at(version.version).await {
                    Some(snapshot) => Arc::new(snapshot),
                    None => return Ok(None),
                },
            };
            if snapshot.metadata.partition_columns != history.partition {
                return Ok(None);
            }
            history.before.push(snapshot);
        }
        Ok(Some(history))
    }

    /// Adds the keys of the partitions whose rows differ between any version and the next.
    pub(super) async fn touched(
        &self,
        tables: &GoldTables,
        mart: &Mart,
        range: TokenRange,
        touched: &mut HashSet<Box<[u8]>, ahash::RandomState>,
    ) -> Result<()> {
        for pair in self.before.windows(2) {
            let [before, after] = pair else {
                continue;
            };
            let removed = self.only_in(tables, mart, before, after, range).await?;
            let added = self.only_in(tables, mart, after, before, range).await?;
            let digest = |of: &Partitions, key: &[u8]| of.by_key.get(key).map_or(0, |rows| rows.digest());
            for key in removed.by_key.keys().chain(added.by_key.keys()) {
                if !touched.contains(key) && digest(&removed, key) != digest(&added, key) {
                    touched.insert(key.clone());
                }
            }
        }
        Ok(())
    }

    /// The rows of the files of `version` that `other` does not have.
    async fn only_in(
        &self,
        tables: &GoldTables,
        mart: &Mart,
        version: &Snapshot,
        other: &Snapshot,
        range: TokenRange,
    ) -> Result<Partitions> {
        let is_new = |file: &&Arc<Add>| !other.files.contains_key(&file.path);
        let files: Vec<_> = version.files.values().filter(is_new).collect();
        if files.is_empty() {
            return Ok(Partitions::default());
        }
        let scan = LakeScan::of_version_files(&self.table, Arc::clone(&self.schema), &self.partition, files)?;
        load(tables, mart, scan, range, None).await
    }
}
