//! Known keys of events, by date: 128-bit hashes of the key columns and the date, as deciding has them.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use super::Run;
use super::decide::{self, hashes, quoted};
use crate::engine;
use crate::error::Result;
use crate::lake::scan::LakeScan;
use crate::project::source::{DATE, Source};
use crate::project::sql::TableName;
use crate::zone;

/// The known keys of one date.
#[derive(Debug, Default)]
pub struct Ids {
    /// From the lake, sorted.
    loaded: Vec<u128>,
    /// Since then.
    seen: HashSet<u128, ahash::RandomState>,
}

impl Ids {
    pub fn insert(&mut self, key: u128) {
        self.seen.insert(key);
    }

    /// Whether the key was seen, or is in the lake.
    pub fn contains(&self, key: u128) -> bool {
        self.seen.contains(&key) || self.loaded.binary_search(&key).is_ok()
    }

    /// What they take in memory.
    pub fn bytes(&self) -> usize {
        // a hash set of this kind holds one control byte per slot
        self.loaded.capacity() * 16 + self.seen.capacity() * 17
    }
}

/// The keys of events, as deciding hashes them: the key columns and the date.
///
/// # Errors
/// Where a key column's type can't be hashed.
pub fn keys(source: &Source, batch: &RecordBatch) -> Result<Vec<u128>> {
    let mut columns: Vec<ArrayRef> =
        source.key().filter_map(|name| batch.column_by_name(name)).cloned().collect();
    columns.push(Arc::clone(batch.column(batch.num_columns() - 1)));
    hashes(&columns, batch.num_rows())
}

/// The keys that bronze holds of a date, from batches before `first_batch`.
///
/// # Errors
/// Those of reading bronze.
pub async fn load(run: &Run, source: &Source, date: i32, first_batch: i64) -> Result<Ids> {
    let bronze = run.bronze_of(&source.name)?;
    let only = decide::partition_keys(&BTreeSet::from([date]));
    let mut ids = Ids::default();
    if bronze.partitions(1).is_disjoint(&only) {
        return Ok(ids);
    }
    let scan = LakeScan::new(bronze, source.bronze_schema(), &[DATE.to_owned()], Some(&only))?;
    let context = engine::context(&run.state);
    engine::register(&context, &TableName::new(zone::BRONZE, &source.name), Arc::new(scan));
    let columns: Vec<String> = source.key().map(quoted).collect();
    let query = format!(
        "select {}, {} from bronze.{} where batch_id < {first_batch}",
        columns.join(", "),
        quoted(DATE),
        quoted(&source.name)
    );
    let mut stream = context.sql(&query).await?.execute_stream().await?;
    while let Some(batch) = futures::TryStreamExt::try_next(&mut stream).await? {
        ids.loaded.extend(hashes(batch.columns(), batch.num_rows())?);
    }
    ids.loaded.sort_unstable();
    ids.loaded.shrink_to_fit();
    Ok(ids)
}
