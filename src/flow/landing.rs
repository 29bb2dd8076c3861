//! Landing → batch: which files are new, written ahead as one batch.
//!
//! A file is known by path and content. One that looks the same (path, size, modification time) is not opened; one
//! that looks different is hashed, and other content under a known path is a problem that the run reports.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::AsArray;
use serde::Serialize;
use tokio::runtime::Handle;

use super::Run;
use crate::error::{Error, Result};
use crate::ledger::{self, FileRecord};
use crate::source::files::{self, LandedFile, NotTaken};

/// The input position of bronze and of bronze's part of quarantine: the number of the batch.
pub const POSITION: &str = "landing";

/// The files that wait to be taken in, by batch.
#[derive(Debug, Default)]
pub struct Pending {
    /// Batches that were written ahead, oldest first, by source.
    pub batches: BTreeMap<i64, BTreeMap<String, Vec<FileRecord>>>,
    pub num_new_files: usize,
    pub left: Left,
}

/// What lies in landing and is not taken in.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Left {
    #[serde(rename = "refused_files")]
    pub refused: Vec<NotTaken>,
    /// Files whose content is other than when they were taken in.
    #[serde(rename = "changed_files")]
    pub changed: Vec<NotTaken>,
    /// How many complete files are of no source.
    #[serde(rename = "unclaimed_files")]
    pub num_unclaimed: usize,
    /// The first of them.
    pub unclaimed: Vec<String>,
    /// How many files that were taken in are no longer there.
    #[serde(rename = "gone_files")]
    pub num_gone: usize,
    /// The first of them.
    pub gone: Vec<String>,
}

/// So many files are named.
const NAMED: usize = 5;

impl Left {
    /// What a person must look at; the run's exit code says so.
    pub fn problems(&self) -> Vec<String> {
        let refused = self
            .refused
            .iter()
            .map(|file| format!("landing file `{}` is refused: {}", file.path, file.reason));
        let changed = self
            .changed
            .iter()
            .map(|file| format!("landing file changed: `{}` has {}", file.path, file.reason));
        changed.chain(refused).collect()
    }
}

/// Finds new files and writes them ahead as one batch.
///
/// # Errors
/// The stores'; `Conflict` where another run writes a batch ahead at the same time.
#[tracing::instrument(target = "hop", name = "discover", skip_all)]
pub async fn discover(run: &mut Run) -> Result<Pending> {
    let known_files = known_files(run).await?;
    let mut pending = unfinished(run, &known_files);
    let listing = files::list(&run.project, &run.landing).await?;
    let (new, left) = compare(run, &known_files, listing).await?;
    pending.left = left;
    write_ahead(run, &new, &mut pending).await?;
    Ok(pending)
}

/// The files that were taken in or written ahead. Where the ledger has lost some of those that are in bronze, as after a part
/// of the lake was restored, they are written to it again first: under their numbers, or new files would get these.
///
/// # Errors
/// The stores'; `Data` where a file that was lost can't be told from landing.
pub async fn known_files(run: &mut Run) -> Result<Vec<FileRecord>> {
    let mut known = ledger::files(&run.ledger.files).await?;
    let newest = newest_taken(run);
    if newest <= run.ledger.files.position(POSITION).unwrap_or(0) {
        return Ok(known);
    }
    let mut lost = taken_in(run, &known).await?;
    if !lost.is_empty() {
        let listing = files::list(&run.project, &run.landing).await?;
        for (path, (hash, record)) in &mut lost {
            let there = listing.files.iter().find(|file| file.path == *path);
            let Some(there) = there.filter(|file| file.source == record.source) else {
                return Err(lost_for_good(path, "is gone from landing"));
            };
            if content_hash(run, path).await? != *hash {
                return Err(lost_for_good(path, "has other content than when it was taken in"));
            }
            record.bytes = i64::try_from(there.bytes).unwrap_or(i64::MAX);
            record.modified = there.modified;
            record.file_time = there.file_time;
        }
    }
    let records: Vec<FileRecord> = lost.into_values().map(|(_, record)| record).collect();
    tracing::warn!(
        "`{}` had lost {} files that are in bronze; they are written to it again",
        run.ledger.files.name(),
        records.len()
    );
    let once = Some((POSITION.to_owned(), newest));
    let outcome = ledger::append(&mut run.ledger.files, &ledger::file_rows(&records)?, once).await?;
    if outcome == crate::lake::commit::Outcome::AlreadyThere {
        return Err(Error::conflict("another run has taken in files at the same time; run again"));
    }
    run.num_commits += 1;
    known.extend(records);
    known.sort_by(|a, b| (a.batch_id, &a.path).cmp(&(b.batch_id, &b.path)));
    Ok(known)
}

fn lost_for_good(path: &str, why: &str) -> Error {
    Error::data(format!(
        "`ledger.files` has lost `{path}`, which was taken in and {why}; put the file back as it was, or restore the \
         folder `ledger/files` from a backup"
    ))
}

/// The newest batch that bronze or quarantine has taken in; 0 before the first.
pub fn newest_taken(run: &Run) -> i64 {
    let taken = run.bronze.values().chain(run.quarantine.values());
    taken.filter_map(|table| table.position(POSITION)).max().unwrap_or(0)
}

/// Files that bronze's log names and that are not `known`, by path, with their hashes; of what landing says of a file they
/// hold nothing yet.
async fn taken_in(run: &Run, known: &[FileRecord]) -> Result<BTreeMap<String, (String, FileRecord)>> {
    let paths: HashSet<&str> = known.iter().map(|file| file.path.as_str()).collect();
    let mut found = BTreeMap::new();
    for source in &run.project.sources {
        let table = run.bronze_of(&source.name)?;
        for version in 0..=table.version() {
            let info = table.info_at(version).await?;
            let Some(batch_id) = info["batch"].as_i64() else {
                continue;
            };
            for file in info["files"].as_array().into_iter().flatten() {
                let (Some(path), Some(hash)) = (file["path"].as_str(), file["hash"].as_str()) else {
                    continue;
                };
                // an operator's decision names files that were taken in before
                if paths.contains(path) || found.contains_key(path) {
                    continue;
                }
                let record = FileRecord {
                    batch_id,
                    source: source.name.clone(),
                    path: path.to_owned(),
                    bytes: 0,
                    modified: 0,
                    file_time: 0,
                };
                found.insert(path.to_owned(), (hash.to_owned(), record));
            }
        }
    }
    Ok(found)
}

/// What lies in landing and is not taken in.
///
/// # Errors
/// The stores'.
pub async fn left(run: &Run, known_files: &[FileRecord]) -> Result<Left> {
    let listing = files::list(&run.project, &run.landing).await?;
    Ok(compare(run, known_files, listing).await?.1)
}

/// The files that are new, and what is not taken in.
async fn compare(
    run: &Run,
    known_files: &[FileRecord],
    listing: files::Listing,
) -> Result<(Vec<LandedFile>, Left)> {
    let known: HashMap<&str, &FileRecord> =
        known_files.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut new: Vec<LandedFile> = Vec::new();
    let mut touched: Vec<LandedFile> = Vec::new();
    let there: HashSet<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
    let refused: HashSet<&str> = listing.refused.iter().map(|file| file.path.as_str()).collect();
    let mut all_gone: Vec<&str> =
        known.keys().filter(|path| !there.contains(*path) && !refused.contains(*path)).copied().collect();
    all_gone.sort_unstable();
    let num_gone = all_gone.len();
    let gone = all_gone.into_iter().take(NAMED).map(str::to_owned).collect();
    for file in listing.files {
        match known.get(file.path.as_str()) {
            None => new.push(file),
            Some(known) if known.bytes.cast_unsigned() == file.bytes && known.modified == file.modified => {}
            Some(_) => touched.push(file),
        }
    }
    let changed = changed_files(run, &touched).await?;
    let num_unclaimed = listing.unclaimed.len();
    let unclaimed = listing.unclaimed.into_iter().take(NAMED).collect();
    Ok((new, Left { refused: listing.refused, changed, num_unclaimed, unclaimed, num_gone, gone }))
}

/// Batches that were written ahead and that bronze does not have: a run ended before it came to them.
pub fn unfinished(run: &Run, known_files: &[FileRecord]) -> Pending {
    let mut pending = Pending::default();
    for file in known_files {
        if is_consumed(run, &file.source, file.batch_id) {
            continue;
        }
        let batch = pending.batches.entry(file.batch_id).or_default();
        batch.entry(file.source.clone()).or_default().push(file.clone());
    }
    pending
}

/// Writes new files ahead as one more batch.
///
/// # Errors
/// The stores'; `Conflict` where another run writes a batch ahead at the same time.
pub async fn write_ahead(run: &mut Run, new: &[LandedFile], pending: &mut Pending) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let batch_id = run.ledger.files.position(POSITION).unwrap_or(0) + 1;
    let records: Vec<FileRecord> = new
        .iter()
        .map(|file| FileRecord {
            batch_id,
            source: file.source.clone(),
            path: file.path.clone(),
            bytes: i64::try_from(file.bytes).unwrap_or(i64::MAX),
            modified: file.modified,
            file_time: file.file_time,
        })
        .collect();
    let rows = ledger::file_rows(&records)?;
    let once = Some((POSITION.to_owned(), batch_id));
    let outcome = ledger::append(&mut run.ledger.files, &rows, once).await?;
    if outcome == crate::lake::commit::Outcome::AlreadyThere {
        return Err(Error::conflict("another run has taken in files at the same time; run again"));
    }
    run.num_commits += 1;
    pending.num_new_files += records.len();
    let batch = pending.batches.entry(batch_id).or_default();
    for record in records {
        batch.entry(record.source.clone()).or_default().push(record);
    }
    Ok(())
}

fn is_consumed(run: &Run, source: &str, batch_id: i64) -> bool {
    // files of a source that the project no longer has wait until it returns
    run.bronze_of(source)
        .map_or(true, |table| table.position(POSITION).is_some_and(|position| position >= batch_id))
}

/// Known paths whose size or time differs now: those whose content differs too are problems.
async fn changed_files(run: &Run, touched: &[LandedFile]) -> Result<Vec<NotTaken>> {
    if touched.is_empty() {
        return Ok(Vec::new());
    }
    let hashes = landed_hashes(run).await?;
    let mut changed = Vec::new();
    for file in touched {
        let Some(known) = hashes.get(&file.path) else {
            // written ahead but not taken in yet: what is there now is what will be read
            continue;
        };
        if content_hash(run, &file.path).await? != *known {
            changed.push(NotTaken {
                path: file.path.clone(),
                reason: "other content than when it was taken in; the new content is not ingested, land it under a \
                         new name"
                    .to_owned(),
            });
        }
    }
    Ok(changed)
}

/// The hash of a landing file as it is now, hexadecimal.
async fn content_hash(run: &Run, path: &str) -> Result<String> {
    let (landing, path, runtime) = (run.landing.clone(), path.to_owned(), Handle::current());
    let hash = tokio::task::spawn_blocking(move || files::hash(&landing, &path, &runtime)).await??;
    Ok(hash.to_hex().to_string())
}

/// Path to hash (hexadecimal BLAKE3) of every file that was taken in.
///
/// # Errors
/// The store's.
pub async fn landed_hashes(run: &Run) -> Result<HashMap<String, String>> {
    let mut hashes = HashMap::new();
    for batch in ledger::read(&run.ledger.landed).await? {
        let (paths, found) = (batch.column(2).as_string_view(), batch.column(3).as_string_view());
        for (path, hash) in paths.iter().zip(found) {
            // a decision over a record whose file the ledger did not know yet may name none
            if let (Some(path), Some(hash)) = (path, hash)
                && !hash.is_empty()
            {
                hashes.insert(path.to_owned(), hash.to_owned());
            }
        }
    }
    Ok(hashes)
}
