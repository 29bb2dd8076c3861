//! The files of one source: their names, compression, and how they appear whole.

use std::fs::{self, File, FileTimes};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use flate2::write::GzEncoder;

use crate::error::{Error, Result};
use crate::project::source::matches;

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    None,
    Gzip,
    Zstd,
    /// One file after another: plain, gzip, zstd.
    Mixed,
}

impl FromStr for Compress {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, Self::Err> {
        match word {
            "none" => Ok(Compress::None),
            "gzip" => Ok(Compress::Gzip),
            "zstd" => Ok(Compress::Zstd),
            "mixed" => Ok(Compress::Mixed),
            other => Err(format!("unknown compression `{other}`, known: none, gzip, zstd, mixed")),
        }
    }
}

impl Compress {
    fn of_part(self, part: usize) -> Self {
        match (self, part % 3) {
            (Compress::Mixed, 0) => Compress::None,
            (Compress::Mixed, 1) => Compress::Gzip,
            (Compress::Mixed, _) => Compress::Zstd,
            (same, _) => same,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Compress::None | Compress::Mixed => "",
            Compress::Gzip => ".gz",
            Compress::Zstd => ".zst",
        }
    }
}

/// How a source's files are named.
#[derive(Debug, Clone)]
pub struct Names {
    /// Of the source, see [`matches()`].
    pub pattern: String,
    pub parts: usize,
    pub compress: Compress,
}

impl Names {
    /// The name of a part, relative to landing: `date` and a part number stand for the pattern's first `*`. A single
    /// file needs no number where something names it already (`users*.csv`).
    pub fn of_part(&self, part: usize, date: Option<&str>) -> String {
        let suffix = self.compress.of_part(part).suffix();
        let Some((before, after)) = self.pattern.split_once('*') else {
            return format!("{}{suffix}", self.pattern);
        };
        let after = after.replace('*', "");
        let is_named = before.ends_with(|last: char| last.is_alphanumeric());
        let number = (self.parts > 1 || !is_named && date.is_none()).then(|| format!("part_{part:04}"));
        let words: Vec<&str> = date.into_iter().chain(number.as_deref()).collect();
        let separator = if is_named && !words.is_empty() { "_" } else { "" };
        format!("{before}{separator}{}{after}{suffix}", words.join("_"))
    }
}

/// Refuses a folder that holds files of the source already: landed files do not change.
///
/// # Errors
/// `Usage`, naming the file.
pub fn refuse_used(folder: &Path, pattern: &str) -> Result<()> {
    let depth = pattern.split('/').count();
    let mut level = vec![String::new()];
    for _ in 0..depth {
        let mut next = Vec::new();
        for at in level {
            let Ok(entries) = fs::read_dir(folder.join(&at)) else {
                continue;
            };
            for entry in entries {
                let name = entry?.file_name().to_string_lossy().into_owned();
                next.push(if at.is_empty() { name } else { format!("{at}/{name}") });
            }
        }
        level = next;
    }
    match level.iter().find(|path| matches(pattern, path)) {
        None => Ok(()),
        Some(path) => Err(Error::usage(format!(
            "`{}` exists already and landed files never change; choose an empty folder with `--out`",
            folder.join(path).display()
        ))),
    }
}

/// A file that is being written, under its name and `.tmp`.
pub struct Part {
    written: Written,
    sink: Sink,
}

/// A complete file that waits for its final name.
#[derive(Debug)]
pub struct Written {
    temporary: PathBuf,
}

enum Sink {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

impl Part {
    /// # Errors
    /// Where the file can't be made.
    pub fn create(folder: &Path, name: &str) -> Result<Self> {
        let temporary = folder.join(format!("{name}.tmp"));
        if let Some(parent) = temporary.parent() {
            fs::create_dir_all(parent).map_err(|error| can_t_write(parent, error))?;
        }
        let file = File::create(&temporary).map_err(|error| can_t_write(&temporary, error))?;
        let file = BufWriter::with_capacity(1 << 18, file);
        let sink = if name.ends_with(".gz") {
            Sink::Gzip(GzEncoder::new(file, flate2::Compression::default()))
        } else if name.ends_with(".zst") {
            Sink::Zstd(zstd::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)?)
        } else {
            Sink::Plain(file)
        };
        Ok(Self { written: Written { temporary }, sink })
    }

    /// # Errors
    /// Where the disk is full or fails.
    pub fn write_line(&mut self, line: &[u8]) -> Result<()> {
        let sink: &mut dyn Write = match &mut self.sink {
            Sink::Plain(sink) => sink,
            Sink::Gzip(sink) => sink,
            Sink::Zstd(sink) => sink,
        };
        sink.write_all(line)
            .and_then(|()| sink.write_all(b"\n"))
            .map_err(|error| can_t_write(&self.written.temporary, error))
    }

    /// # Errors
    /// As [`Part::write_line`].
    pub fn finish(self) -> Result<Written> {
        let flushed = match self.sink {
            Sink::Plain(sink) => Ok(sink),
            Sink::Gzip(sink) => sink.finish(),
            Sink::Zstd(sink) => sink.finish(),
        };
        match flushed.and_then(|mut file| file.flush()) {
            Ok(()) => Ok(self.written),
            Err(error) => Err(can_t_write(&self.written.temporary, error)),
        }
    }
}

impl Written {
    /// Gives the file its time (microseconds since the epoch) and its name; its size in bytes.
    ///
    /// # Errors
    /// Where the file can't be renamed.
    pub fn publish(self, target: &Path, modified_micros: Option<i64>) -> Result<u64> {
        let publish = || {
            let file = File::options().write(true).open(&self.temporary)?;
            if let Some(micros) = modified_micros.and_then(|micros| u64::try_from(micros).ok()) {
                let time = UNIX_EPOCH + Duration::from_micros(micros);
                file.set_times(FileTimes::new().set_modified(time).set_accessed(time))?;
            }
            let bytes = file.metadata()?.len();
            fs::rename(&self.temporary, target)?;
            Ok(bytes)
        };
        publish().map_err(|error| can_t_write(target, error))
    }
}

fn can_t_write(path: &Path, error: std::io::Error) -> Error {
    Error::unavailable(format!("can't write `{}`", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern() {
        let day = Some("2025-09-01");
        for (pattern, part, parts, date, expected) in [
            ("users*.csv", 0, 1, None, "users.csv"),
            ("users*.csv", 0, 1, day, "users_2025-09-01.csv"),
            ("users*.csv", 1, 3, day, "users_2025-09-01_part_0001.csv.gz"),
            ("users/*.csv", 0, 1, day, "users/2025-09-01.csv"),
            ("events/*.jsonl", 0, 1, None, "events/part_0000.jsonl"),
            ("events/*.jsonl", 5, 9, day, "events/2025-09-01_part_0005.jsonl.zst"),
            ("a/one.csv", 0, 1, day, "a/one.csv"),
            ("a*b*c", 3, 4, None, "a_part_0003bc"),
        ] {
            let names = Names { pattern: pattern.to_owned(), parts, compress: Compress::Mixed };
            let name = names.of_part(part, date);
            assert_eq!(name, expected);
            assert!(matches(pattern, &name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_used_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("events")).unwrap();
        fs::write(folder.path().join("events/part_0000.jsonl.tmp"), "").unwrap();
        refuse_used(folder.path(), "events/*.jsonl").unwrap();
        fs::write(folder.path().join("events/x.jsonl.gz"), "").unwrap();
        let error = refuse_used(folder.path(), "events/*.jsonl").unwrap_err().to_string();
        assert!(error.contains("events/x.jsonl.gz` exists already"), "{error}");
    }
}
