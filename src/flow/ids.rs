//! Known keys of events, by date: 128-bit hashes of the key columns and the date, as deciding has them. Exact for ever, in
//! little memory however many there are:
//!
//! | keys | where | memory |
//! |---|---|---|
//! | the newest, up to 2²⁰ | a hash set | 17 to 35 bytes each |
//! | the others | sorted runs of 2²⁰ or 2²³ in scratch files | a Bloom filter, 2 bytes each |
//!
//! A key that is new meets filters alone, but for one in thousand; that one, and a key that is known, costs one read of
//! 4 KiB. The files are derived from the lake and vanish with the process.

use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::spill_file::SpillFile;
use futures::TryStreamExt;
use parquet::bloom_filter::Sbbf;

use super::Run;
use super::decide::{self, half, hashes, quoted};
use crate::engine;
use crate::error::{Error, Result};
use crate::lake::scan::LakeScan;
use crate::project::source::{DATE, Source};
use crate::project::sql::TableName;
use crate::zone;

/// Keys of a small run.
const SMALL_RUN: usize = 1 << 20;

/// So many small runs become a large one, so that a key meets few filters.
const SMALL_RUNS: usize = 8;

/// Encoded bytes of a key.
const KEY_BYTES: usize = size_of::<u128>();

/// Keys that are read at once: 4 KiB.
const BLOCK: usize = 256;

/// The known keys of one date.
pub struct Ids {
    scratch: Arc<DiskManager>,
    seen: HashSet<u128, ahash::RandomState>,
    small: Vec<KeyRun>,
    large: Vec<KeyRun>,
    keys_of_run: usize,
}

impl Ids {
    pub fn new(scratch: Arc<DiskManager>) -> Self {
        Self::with_runs_of(scratch, SMALL_RUN)
    }

    fn with_runs_of(scratch: Arc<DiskManager>, keys_of_run: usize) -> Self {
        let seen = HashSet::default();
        Self { scratch, seen, small: Vec::new(), large: Vec::new(), keys_of_run }
    }

    /// # Errors
    /// `Unavailable` where the scratch files can't be written.
    pub fn insert(&mut self, key: u128) -> Result<()> {
        self.seen.insert(key);
        if self.seen.len() < self.keys_of_run {
            return Ok(());
        }
        let mut keys: Vec<u128> = self.seen.drain().collect();
        keys.sort_unstable();
        let num_keys = keys.len();
        self.small.push(KeyRun::write(&self.scratch, num_keys, keys.into_iter().map(Ok))?);
        if self.small.len() >= SMALL_RUNS {
            let num_keys = self.small.iter().map(|run| run.num_keys).sum();
            let merged = Merge::of(&self.small)?;
            self.large.push(KeyRun::write(&self.scratch, num_keys, merged)?);
            self.small.clear();
        }
        Ok(())
    }

    /// Many keys at once.
    fn insert_all(&mut self, mut keys: Vec<u128>) -> Result<()> {
        if keys.len() < self.keys_of_run {
            return keys.into_iter().try_for_each(|key| self.insert(key));
        }
        keys.sort_unstable();
        let num_keys = keys.len();
        self.large.push(KeyRun::write(&self.scratch, num_keys, keys.into_iter().map(Ok))?);
        Ok(())
    }

    /// Whether the key was inserted.
    ///
    /// # Errors
    /// `Unavailable` where a scratch file can't be read.
    pub fn contains(&self, key: u128) -> Result<bool> {
        if self.seen.contains(&key) {
            return Ok(true);
        }
        for run in self.large.iter().chain(&self.small) {
            if run.contains(key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What they take in memory.
    pub fn bytes(&self) -> usize {
        // a hash set of this kind holds one control byte per slot
        let of_seen = self.seen.capacity() * (KEY_BYTES + 1);
        of_seen + self.small.iter().chain(&self.large).map(KeyRun::bytes).sum::<usize>()
    }

    /// Gives memory back until they take `bytes` at most: filters of the oldest keys, whose lookups then read. The newest
    /// keys stay.
    pub fn shrink_to(&mut self, bytes: usize) {
        let mut surplus = self.bytes().saturating_sub(bytes);
        for run in self.large.iter_mut().chain(&mut self.small) {
            if surplus == 0 {
                return;
            }
            let before = run.bytes();
            run.filter = None;
            surplus = surplus.saturating_sub(before - run.bytes());
        }
    }
}

/// Sorted keys in a scratch file.
struct KeyRun {
    open: File,
    /// Gone with the last reference to it.
    _file: Arc<dyn SpillFile>,
    num_keys: usize,
    /// The first key of every block.
    firsts: Vec<u128>,
    filter: Option<Sbbf>,
}

impl KeyRun {
    /// `keys` ascend.
    fn write(
        scratch: &Arc<DiskManager>,
        num_keys: usize,
        keys: impl Iterator<Item = Result<u128>>,
    ) -> Result<Self> {
        let file = scratch.create_tmp_file("known keys of events")?;
        let path = file.path().ok_or_else(|| Error::bug("scratch files have no path"))?;
        let mut out = BufWriter::new(File::create(path).map_err(scratch_failed)?);
        // 16 bits for each key: one of about a thousand others passes
        let mut filter = Sbbf::new_with_num_of_bytes(2 * num_keys);
        let mut firsts = Vec::with_capacity(num_keys / BLOCK + 1);
        for (at, key) in keys.enumerate() {
            let key = key?;
            if at % BLOCK == 0 {
                firsts.push(key);
            }
            filter.insert(&half(key));
            out.write_all(&key.to_le_bytes()).map_err(scratch_failed)?;
        }
        out.flush().map_err(scratch_failed)?;
        let open = File::open(path).map_err(scratch_failed)?;
        Ok(Self { open, _file: file, num_keys, firsts, filter: Some(filter) })
    }

    fn contains(&self, key: u128) -> Result<bool> {
        if self.filter.as_ref().is_some_and(|filter| !filter.check(&half(key))) {
            return Ok(false);
        }
        let Some(block) = self.firsts.partition_point(|first| *first <= key).checked_sub(1) else {
            return Ok(false);
        };
        let num_keys = BLOCK.min(self.num_keys - block * BLOCK);
        let mut bytes = [0; BLOCK * KEY_BYTES];
        let bytes = &mut bytes[..num_keys * KEY_BYTES];
        let offset = (block * BLOCK * KEY_BYTES) as u64;
        self.open.read_exact_at(bytes, offset).map_err(scratch_failed)?;
        let (keys, _) = bytes.as_chunks::<KEY_BYTES>();
        Ok(keys.binary_search_by(|found| u128::from_le_bytes(*found).cmp(&key)).is_ok())
    }

    fn bytes(&self) -> usize {
        let of_filter = self.filter.as_ref().map_or(0, |filter| filter.num_blocks() * 32);
        of_filter + self.firsts.capacity() * KEY_BYTES
    }
}

/// The keys of several runs, ascending.
struct Merge {
    readers: Vec<BufReader<File>>,
    /// The next key of each reader; the smallest is on top.
    next: BinaryHeap<std::cmp::Reverse<(u128, usize)>>,
}

impl Merge {
    fn of(runs: &[KeyRun]) -> Result<Self> {
        let readers = runs.iter().map(|run| {
            let mut file = run.open.try_clone()?;
            file.rewind()?;
            Ok(BufReader::new(file))
        });
        let readers: std::io::Result<Vec<_>> = readers.collect();
        let mut merge = Self { readers: readers.map_err(scratch_failed)?, next: BinaryHeap::new() };
        for at in 0..merge.readers.len() {
            merge.read_next(at)?;
        }
        Ok(merge)
    }

    fn read_next(&mut self, at: usize) -> Result<()> {
        let mut key = [0; KEY_BYTES];
        match self.readers[at].read_exact(&mut key) {
            Ok(()) => self.next.push(std::cmp::Reverse((u128::from_le_bytes(key), at))),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(scratch_failed(error)),
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = Result<u128>;

    fn next(&mut self) -> Option<Self::Item> {
        let std::cmp::Reverse((key, at)) = self.next.pop()?;
        Some(self.read_next(at).map(|()| key))
    }
}

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ids").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

fn scratch_failed(error: std::io::Error) -> Error {
    Error::unavailable("the known keys of events can't be kept in the folder for temporary files")
        .because(error)
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
/// Those of reading bronze, and of writing scratch files.
pub async fn load(run: &Run, source: &Source, date: i32, first_batch: i64) -> Result<Ids> {
    let bronze = run.bronze_of(&source.name)?;
    let only = decide::partition_keys(&BTreeSet::from([date]));
    let mut ids = Ids::new(Arc::clone(&run.state.runtime_env().disk_manager));
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
    let mut keys = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        keys.extend(hashes(batch.columns(), batch.num_rows())?);
        if keys.len() >= SMALL_RUN * SMALL_RUNS {
            ids.insert_all(std::mem::take(&mut keys))?;
        }
    }
    ids.insert_all(keys)?;
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use datafusion::execution::runtime_env::RuntimeEnv;

    use super::*;

    fn ids(num_keys: u64) -> Ids {
        let mut ids = Ids::with_runs_of(Arc::clone(&RuntimeEnv::default().disk_manager), 1000);
        for number in 0..num_keys {
            ids.insert(key(number)).unwrap();
        }
        ids
    }

    /// Spread over all bits, as hashes are; never the same twice.
    fn key(number: u64) -> u128 {
        let low = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let high = low.rotate_left(32) ^ 0x517c_c1b7_2722_0a95;
        u128::from(low) | u128::from(high) << 64
    }

    #[test]
    fn every_key_is_known_wherever_it_is_kept_and_no_other_is() {
        // in a large run, in small ones, in memory; a block that is not full
        let ids = ids(8 * 1000 + 3 * 1000 + 77);
        assert_eq!((ids.large.len(), ids.small.len(), ids.seen.len()), (1, 3, 77));
        for number in 0..11_077 {
            assert!(ids.contains(key(number)).unwrap(), "{number} is unknown");
        }
        for number in 11_077..60_000 {
            assert!(!ids.contains(key(number)).unwrap(), "{number} is known");
        }
        assert!(!ids.contains(0x1).unwrap() && !ids.contains(u128::MAX).unwrap());
    }

    #[test]
    fn without_filters_answers_stay_and_memory_shrinks() {
        let mut ids = ids(11_077);
        let before = ids.bytes();
        ids.shrink_to(before - 10_000);
        assert!(ids.bytes() <= before - 10_000, "{} of {before} bytes", ids.bytes());
        assert!(ids.large[0].filter.is_none());
        assert!(ids.small.iter().all(|run| run.filter.is_some()), "newer keys lost their filter");
        ids.shrink_to(0);
        assert!((0..11_077).all(|number| ids.contains(key(number)).unwrap()));
        assert!((11_077..20_000).all(|number| !ids.contains(key(number)).unwrap()));
    }

    #[test]
    fn a_key_that_comes_twice_is_one() {
        let mut ids = ids(500);
        for number in 0..500 {
            ids.insert(key(number)).unwrap();
        }
        assert_eq!(ids.seen.len(), 500);
        ids.insert_all((400..1500).map(key).collect()).unwrap();
        assert!((0..1500).all(|number| ids.contains(key(number)).unwrap()));
        assert!(!ids.contains(key(1500)).unwrap());
    }
}
