//! Files of landing: which there are, and their bytes, unpacked.
//!
//! Files are immutable and appear whole. Names that begin with `.` or `_` or end in `.tmp` are still being written.
//! Symlinks, devices and pipes are refused: a link dropped into landing must not read another file.

use std::io::{self, Read};
use std::path::Path as FsPath;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetResultPayload, ObjectStoreExt};
use tokio::runtime::Handle;

use super::entries::{Entry, Kind, entries};
use super::unpack::{PIECE_BYTES, Stop, Unpacked};
use crate::error::{Error, Result};
use crate::lake::Root;
use crate::project::Project;
use crate::project::manifest::Limits;
use crate::project::source::{matches, matches_folder};

/// A complete file of landing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LandedFile {
    /// Relative to the landing root.
    pub path: String,
    pub source: String,
    pub bytes: u64,
    /// Microseconds since the epoch.
    pub modified: i64,
    /// The date in its name, else its modification time; microseconds since the epoch.
    pub file_time: i64,
}

/// Something in landing that is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NotTaken {
    /// Relative to the landing root; of an odd name escaped.
    pub path: String,
    pub reason: String,
}

/// What was found in landing.
#[derive(Debug, Default)]
pub struct Listing {
    /// By path.
    pub files: Vec<LandedFile>,
    pub refused: Vec<NotTaken>,
    /// Complete files that no source claims, by path.
    pub unclaimed: Vec<String>,
}

/// Lists the complete files of every source.
///
/// # Errors
/// The store's; `Project` where two sources claim one file.
pub async fn list(project: &Project, landing: &Root) -> Result<Listing> {
    let mut listing = Listing::default();
    for entry in entries(landing).await? {
        let Entry { path, kind, bytes, modified } = entry;
        let mut refuse = |reason: &str| {
            listing.refused.push(NotTaken { path: path.clone(), reason: reason.to_owned() });
        };
        if kind == Kind::OddName {
            refuse("its name is no usable path (control characters, no UTF-8 or an empty part); rename it");
            continue;
        }
        match (claimant(project, &path)?, kind) {
            (Some(source), Kind::File) => listing.files.push(LandedFile {
                file_time: time_in_name(&path).unwrap_or(modified),
                path,
                source,
                bytes,
                modified,
            }),
            (Some(_), Kind::Link) => refuse(LINK),
            (Some(_), _) => refuse(SPECIAL),
            (None, Kind::Link) if may_hold_files(project, &path) => refuse(LINK),
            (None, _) => listing.unclaimed.push(path),
        }
    }
    Ok(listing)
}

const LINK: &str = "it is a symlink; copy the file instead";
const SPECIAL: &str = "it is not a regular file";

/// Whether a source would look for files below this path.
fn may_hold_files(project: &Project, path: &str) -> bool {
    project.sources.iter().any(|source| matches_folder(&source.files, path))
}

/// The source that a file belongs to.
///
/// # Errors
/// `Project` where two sources claim it.
pub fn claimant(project: &Project, path: &str) -> Result<Option<String>> {
    let claims: Vec<&str> = project
        .sources
        .iter()
        .filter(|source| matches(&source.files, path))
        .map(|source| source.name.as_str())
        .collect();
    match claims.as_slice() {
        [] => Ok(None),
        [source] => Ok(Some((*source).to_owned())),
        several => Err(Error::project(format!(
            "the landing file `{path}` belongs to several sources: {}; narrow their `files`",
            several.join(", ")
        ))),
    }
}

/// Whether a name says that its file is still being written.
pub fn is_unfinished(part: &str) -> bool {
    part.starts_with('.') || part.starts_with('_') || part.ends_with(".tmp") || is_staged(part)
}

/// `name#1`, as uploads to a local object store are called until they are complete.
fn is_staged(part: &str) -> bool {
    let number = part.rsplit_once('#').map_or("", |(_, number)| number);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Every folder on the way must be a folder and the file a file, not a link to one.
///
/// # Errors
/// Why the file is refused.
pub fn refuse_special(root: &FsPath, path: &str) -> std::result::Result<(), &'static str> {
    let mut at = root.to_path_buf();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        let Ok(metadata) = std::fs::symlink_metadata(&at) else {
            return Err("it can't be looked at");
        };
        let kind = metadata.file_type();
        if kind.is_symlink() {
            return Err(LINK);
        }
        if parts.peek().is_none() && !kind.is_file() {
            return Err(SPECIAL);
        }
    }
    Ok(())
}

/// `…2025-08-15…` or `…2025-08-15T0930…` in the file's name, as UTC microseconds.
pub fn time_in_name(path: &str) -> Option<i64> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let bytes = name.as_bytes();
    for start in 0..bytes.len().saturating_sub(9) {
        let Some(text) = name.get(start..start + 10) else {
            continue;
        };
        let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") else {
            continue;
        };
        let is_digit = |at: Option<&u8>| at.is_some_and(u8::is_ascii_digit);
        // `%Y` takes signs and `2025-8-15x` too: a date in a name is ten characters of digits and dashes
        let is_exact = text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
        if !is_exact || is_digit(start.checked_sub(1).and_then(|before| bytes.get(before))) {
            continue;
        }
        let time = time_after(&name[start + 10..]).unwrap_or(NaiveTime::MIN);
        return Some(NaiveDateTime::new(date, time).and_utc().timestamp_micros());
    }
    None
}

/// `T0930`, not followed by a further digit.
fn time_after(rest: &str) -> Option<NaiveTime> {
    let digits = rest.strip_prefix('T')?.get(..4)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if rest.as_bytes().get(5).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    NaiveTime::from_hms_opt(digits[..2].parse().ok()?, digits[2..].parse().ok()?, 0)
}

/// How a file's bytes ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// At the end of the file.
    Complete,
    /// Earlier: the rest can't be unpacked, or unpacks to more than the limits allow.
    Damaged(String),
}

/// Reads a file and hands its unpacked bytes to `take` piece by piece; `take` says whether it wants more. Returns how
/// the bytes ended and the hash of the bytes as landed. Blocks: call it on a blocking thread.
///
/// # Errors
/// The store's, when the landed bytes themselves can't be read.
pub fn read(
    landing: &Root,
    path: &str,
    limits: &Limits,
    runtime: &Handle,
    mut take: impl FnMut(&[u8]) -> Result<bool>,
) -> Result<(End, blake3::Hash)> {
    let mut raw = open(landing, path, runtime)?;
    let end = unpack(path, &mut raw, limits, &mut take)?;
    if let Some(error) = raw.failure.take() {
        return Err(unreadable(path, error));
    }
    // the hash is of the whole file, also where unpacking ended early
    Ok((end, hash_of_all(path, raw)?))
}

/// The hash of a file's bytes as landed. Blocks.
///
/// # Errors
/// The store's.
pub fn hash(landing: &Root, path: &str, runtime: &Handle) -> Result<blake3::Hash> {
    hash_of_all(path, open(landing, path, runtime)?)
}

fn hash_of_all(path: &str, mut raw: Raw) -> Result<blake3::Hash> {
    io::copy(&mut raw, &mut io::sink()).map_err(|error| unreadable(path, error))?;
    Ok(raw.hasher.finalize())
}

fn unreadable(path: &str, error: io::Error) -> Error {
    Error::unavailable(format!("can't read `{path}`")).because(error)
}

fn unpack(
    path: &str,
    raw: &mut Raw,
    limits: &Limits,
    take: &mut impl FnMut(&[u8]) -> Result<bool>,
) -> Result<End> {
    let (landed_bytes, mut handed_on) = (raw.size, 0);
    let mut unpacked = Unpacked::new(path, raw);
    let mut buffer = vec![0; unpacked.buffer_bytes(landed_bytes)];
    loop {
        let wanted = if handed_on == 0 { buffer.len() } else { buffer.len().min(PIECE_BYTES) };
        let (size, stop) = unpacked.fill(&mut buffer[..wanted]);
        if let Some(reason) = unpacked.over_limit(handed_on, size, limits) {
            return Ok(End::Damaged(reason));
        }
        for piece in buffer[..size].chunks(PIECE_BYTES) {
            if !take(piece)? {
                return Ok(End::Complete);
            }
        }
        handed_on += size as u64;
        match stop {
            Some(Stop::End) => return Ok(End::Complete),
            Some(Stop::Fault(reason)) => return Ok(End::Damaged(reason)),
            None => {}
        }
    }
}

/// The landed bytes, hashed as they pass.
pub(super) struct Raw {
    inner: Box<dyn Read>,
    hasher: blake3::Hasher,
    /// As the store tells it.
    size: u64,
    /// Why the store gave no more: no fault of the file.
    pub failure: Option<io::Error>,
}

#[cfg(test)]
impl Raw {
    pub fn of(inner: impl Read + 'static) -> Self {
        Raw { inner: Box::new(inner), hasher: blake3::Hasher::new(), size: 0, failure: None }
    }
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(size) => {
                self.hasher.update(&buffer[..size]);
                Ok(size)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                self.failure = Some(error);
                Err(told)
            }
        }
    }
}

fn open(landing: &Root, path: &str, runtime: &Handle) -> Result<Raw> {
    let failed = |error: io::Error| unreadable(path, error);
    let size;
    let inner: Box<dyn Read> = match &landing.folder {
        Some(folder) => {
            // a link that replaced the file after listing is refused here
            let flags = rustix::fs::OFlags::RDONLY
                | rustix::fs::OFlags::NOFOLLOW
                | rustix::fs::OFlags::NONBLOCK
                | rustix::fs::OFlags::CLOEXEC;
            let file = rustix::fs::open(folder.join(path), flags, rustix::fs::Mode::empty())
                .map_err(|error| failed(error.into()))?;
            let file = std::fs::File::from(file);
            size = file.metadata().map_err(failed)?.len();
            Box::new(file)
        }
        None => {
            let location = Path::parse(path)
                .map_err(|error| Error::data(format!("`{path}` is no object path")).because(error))?;
            let found = runtime.block_on(landing.store.get(&location))?;
            size = found.meta.size;
            match found.payload {
                GetResultPayload::File(file, _) => Box::new(file),
                GetResultPayload::Stream(stream) => {
                    Box::new(Chunks { stream, chunk: bytes::Bytes::new(), runtime: runtime.clone() })
                }
            }
        }
    };
    Ok(Raw { inner, hasher: blake3::Hasher::new(), size, failure: None })
}

/// A stream of chunks as a blocking reader.
struct Chunks {
    stream: futures::stream::BoxStream<'static, object_store::Result<bytes::Bytes>>,
    chunk: bytes::Bytes,
    runtime: Handle,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.stream.try_next()).map_err(io::Error::other)? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let size = self.chunk.len().min(buffer.len());
        buffer[..size].copy_from_slice(&self.chunk.split_to(size));
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_time_is_the_date_in_its_name() {
        let day = |text: &str| {
            NaiveDate::parse_from_str(text, "%Y-%m-%d").unwrap().and_time(NaiveTime::MIN).and_utc()
        };
        let micros = |text: &str| Some(day(text).timestamp_micros());
        for (path, expected) in [
            ("users_2025-08-15.csv", micros("2025-08-15")),
            ("2025-08-15/users.csv", None),
            ("a/users-2025-08-15.csv.gz", micros("2025-08-15")),
            ("users_2025-13-15_2025-08-15.csv", micros("2025-08-15")),
            ("users_12025-08-15.csv", None),
            ("users.csv", None),
            ("ü2025-08-15é", micros("2025-08-15")),
        ] {
            assert_eq!(time_in_name(path), expected, "{path}");
        }
        let half_past_nine = micros("2025-08-15").map(|day| day + (9 * 60 + 30) * 60 * 1_000_000);
        assert_eq!(time_in_name("u_2025-08-15T0930.csv"), half_past_nine);
        assert_eq!(time_in_name("u_2025-08-15T09301.csv"), micros("2025-08-15"));
    }

    #[test]
    fn unfinished_names_are_ignored() {
        for name in [".a", "_a", "a.tmp", "a.jsonl#12"] {
            assert!(is_unfinished(name), "{name}");
        }
        for name in ["a.jsonl", "a#c.jsonl", "a#"] {
            assert!(!is_unfinished(name), "{name}");
        }
    }
}
