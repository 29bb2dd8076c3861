//! What every test needs: a place of its own, the binary, and two ways to read a lake. [`tables`] reads Delta's log and
//! Parquet by hand, so that what the engine says about its tables is not what proves them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tempfile::TempDir;

use crate::data::Landed;

/// Arrival metadata: what may differ between two ways to the same lake.
const ARRIVAL: [&str; 3] = ["ingest_ts", "batch_id", "is_late"];

/// The repository, which is the reference project.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A project, a landing folder and a lake, in a folder that goes away with it.
pub struct Place {
    folder: TempDir,
    pub project: PathBuf,
    pub landing: PathBuf,
    pub lake: PathBuf,
}

impl Place {
    /// An empty landing folder and lake for the project.
    pub fn of(project: &Path) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let (landing, lake) = (folder.path().join("landing"), folder.path().join("lake"));
        fs::create_dir(&landing).unwrap();
        Place { folder, project: project.to_path_buf(), landing, lake }
    }

    /// The reference project.
    pub fn reference() -> Place {
        Self::of(repository())
    }

    /// A copy of the reference project that may be changed.
    pub fn copied_reference() -> Place {
        let mut place = Self::reference();
        place.project = place.folder.path().join("project");
        fs::create_dir(&place.project).unwrap();
        fs::copy(repository().join("medallion.toml"), place.project.join("medallion.toml")).unwrap();
        for part in ["sql", "cql"] {
            copy_folder(&repository().join(part), &place.project.join(part));
        }
        place
    }

    /// A project of these files.
    pub fn with_project(files: &[(&str, &str)]) -> Place {
        let mut place = Self::reference();
        place.project = place.folder.path().join("project");
        for (path, text) in files {
            write(&place.project.join(path), text.as_bytes());
        }
        place
    }

    /// The folder that holds all of it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Lands files, whole and with their times.
    pub fn land<'a>(&self, files: impl IntoIterator<Item = &'a Landed>) {
        for file in files {
            let path = self.landing.join(&file.path);
            write(&path, &file.bytes);
            set_modified(&path, file.modified);
        }
    }

    /// Replaces a text in a file of the (copied) project.
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        assert!(!self.project.starts_with(repository()), "the repository is not to be edited");
        let path = self.project.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(from).count(), 1, "`{from}` must stand once in {file}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    /// The binary at this place.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = medallion();
        command.arg("--quiet").arg("--project").arg(&self.project);
        command.arg("--landing").arg(&self.landing).arg("--lake").arg(&self.lake).args(arguments);
        command
    }

    /// The same, with its log.
    pub fn told_command(&self, arguments: &[&str]) -> Command {
        let mut command = medallion();
        command.arg("--project").arg(&self.project).env("NO_COLOR", "1");
        command.arg("--landing").arg(&self.landing).arg("--lake").arg(&self.lake).args(arguments);
        command
    }

    /// Runs the binary to its end.
    pub fn medallion(&self, arguments: &[&str]) -> Done {
        Done::of(self.command(arguments).output().unwrap())
    }

    /// `medallion run`, which must end well.
    pub fn run(&self) -> String {
        self.medallion(&["run"]).ok()
    }

    /// `medallion run` that must find nothing to do.
    pub fn run_idle(&self) {
        let before = log_entries(&self.lake);
        let told = self.run();
        assert!(told.contains("no table was changed"), "not idle: {told}");
        assert_eq!(before, log_entries(&self.lake), "an idle run commits nothing");
    }

    /// The rows of a query.
    pub fn sql(&self, query: &str) -> Vec<Value> {
        self.medallion(&["--format", "json", "sql", query]).json().as_array().unwrap().clone()
    }

    /// The only value of a query, as it is printed (JSON numbers would lose a decimal's zeros).
    pub fn value(&self, query: &str) -> String {
        let text = self.medallion(&["--format", "csv", "sql", query]).ok();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{query}: {text}");
        let quoted = lines[1].strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        quoted.map_or_else(|| lines[1].to_owned(), |inner| inner.replace("\"\"", "\""))
    }

    /// The whole lake's balance: landed, accepted, duplicates, superseded, quarantined, difference, by source and measure.
    pub fn balance(&self) -> BTreeMap<String, [String; 6]> {
        let rows = self.medallion(&["--format", "json", "balance"]).json();
        let of_lake = rows.as_array().unwrap().iter().filter(|row| row["scope"] == "lake");
        of_lake
            .map(|row| {
                let sides = ["landed", "accepted", "duplicates", "superseded", "quarantined", "difference"]
                    .map(|side| plain(&row[side]));
                (format!("{} {}", plain(&row["source"]), plain(&row["measure"])), sides)
            })
            .collect()
    }

    /// Records of a source, as whole numbers: landed, accepted, duplicates, superseded, quarantined.
    pub fn records(&self, source: &str) -> [i64; 5] {
        let balance = self.balance();
        let sides = &balance[&format!("{source} records")];
        assert_eq!(sides[5], "0", "{source}: {sides:?}");
        std::array::from_fn(|at| sides[at].parse().unwrap())
    }

    /// Refused records with their raw bytes, in the order of file and line.
    pub fn quarantined(&self, source: &str) -> Vec<Refused> {
        let shown = self
            .medallion(&["--format", "json", "quarantine", "show", "--source", source, "--limit", "100000"])
            .json();
        let refused = shown.as_array().unwrap().iter().map(|record| Refused {
            error_type: plain(&record["error_type"]),
            file: plain(&record["source_file"]),
            line: record["source_line"].as_i64().unwrap(),
            raw: unhex(record["raw_hex"].as_str().unwrap()),
            raw_bytes: record["raw_bytes"].as_i64().unwrap(),
            reason: plain(&record["reason"]),
        });
        refused.collect()
    }
}

/// A refused record as `quarantine show` prints it.
#[derive(Debug)]
pub struct Refused {
    pub error_type: String,
    pub file: String,
    pub line: i64,
    pub raw: Vec<u8>,
    pub raw_bytes: i64,
    pub reason: String,
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect()
}

/// A JSON value as text, without quotes.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The binary, away from what the caller's environment says.
pub fn medallion() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_medallion"));
    for (name, _) in std::env::vars_os() {
        if ["MEDALLION_", "OPENLINEAGE_", "OTEL_"].iter().any(|ours| name.to_string_lossy().starts_with(ours))
        {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// How a process ended.
#[derive(Debug)]
pub struct Done {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn of(output: Output) -> Done {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let done =
            Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
        done
    }

    #[track_caller]
    pub fn ok(self) -> String {
        self.expect(0).stdout
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Done {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Asserts that standard error holds every one of the texts.
    #[track_caller]
    pub fn tells(self, texts: &[&str]) -> Done {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is missing in:\n{}", self.stderr);
        }
        self
    }
}

/// Writes a file and the folders above it.
pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Seconds since the epoch.
pub fn set_modified(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), &target).unwrap();
            }
        }
    }
}

/// The tables of a lake: `zone/table` and its folder.
pub fn table_folders(lake: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for zone in folders_of(lake) {
        for table in folders_of(&zone) {
            if table.join("_delta_log").is_dir() {
                let name = table.strip_prefix(lake).unwrap().to_string_lossy().into_owned();
                found.insert(name, table);
            }
        }
    }
    found
}

fn folders_of(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

/// Every log entry of every table: what a run that commits nothing leaves as it was.
pub fn log_entries(lake: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in table_folders(lake).values() {
        let entries = fs::read_dir(folder.join("_delta_log")).unwrap();
        found.extend(entries.map(|entry| entry.unwrap().path()));
    }
    found.sort();
    found
}

/// The rows of one table, sorted, each as text.
pub type Rows = Vec<String>;

/// Every table of the zones, without arrival metadata.
pub fn tables(lake: &Path) -> BTreeMap<String, Rows> {
    let zones = ["bronze", "silver", "gold", "quarantine"];
    let wanted = |name: &String| zones.iter().any(|zone| name.split('/').next() == Some(zone));
    table_folders(lake)
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, folder)| (name, rows(&folder)))
        // an empty table and one that was never written mean the same
        .filter(|(_, rows)| !rows.is_empty())
        .collect()
}

/// A table's active files and their partition values, by replaying its log from the first entry.
pub fn active_files(table: &Path) -> BTreeMap<String, Value> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(table.join("_delta_log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    entries.sort();
    let mut active = BTreeMap::new();
    for entry in entries {
        for line in fs::read_to_string(&entry).unwrap().lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            if let Some(path) = action["add"]["path"].as_str() {
                active.insert(path.to_owned(), action["add"]["partitionValues"].clone());
            }
            if let Some(path) = action["remove"]["path"].as_str() {
                active.remove(path);
            }
        }
    }
    active
}

fn rows(table: &Path) -> Rows {
    let options = FormatOptions::new().with_null("∅");
    let mut rows = Rows::new();
    for (path, partition) in active_files(table) {
        let file = fs::File::open(table.join(percent_decoded(&path))).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let schema = batch.schema();
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let columns: Vec<(&str, ArrayFormatter)> = names
                .zip(batch.columns())
                .filter(|(name, _)| !ARRIVAL.contains(name))
                .map(|(name, column)| (name, ArrayFormatter::try_new(column, &options).unwrap()))
                .collect();
            for row in 0..batch.num_rows() {
                let values = columns.iter().map(|(name, column)| format!("{name}={}", column.value(row)));
                rows.push(format!("{} {partition}", values.collect::<Vec<_>>().join(" ")));
            }
        }
    }
    rows.sort();
    rows
}

fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| std::str::from_utf8(&tail[..2]).unwrap());
        match escaped {
            Some(two) => {
                bytes.push(u8::from_str_radix(two, 16).unwrap());
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// What a lake holds, however it came there: every row of every zone, and the whole lake's balance.
#[derive(PartialEq, Eq)]
pub struct Contents {
    tables: BTreeMap<String, Rows>,
    balance: BTreeMap<String, [String; 6]>,
}

impl Contents {
    pub fn of(place: &Place) -> Contents {
        Contents { tables: tables(&place.lake), balance: place.balance() }
    }

    pub fn table(&self, name: &str) -> &Rows {
        &self.tables[name]
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// Asserts that both hold the same, telling the first rows that differ.
    #[track_caller]
    pub fn assert_equals(&self, expected: &Contents, how: &str) {
        let mut told = Vec::new();
        let empty = Rows::new();
        let names = self.tables.keys().chain(expected.tables.keys());
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let (ours, theirs) =
                (self.tables.get(name).unwrap_or(&empty), expected.tables.get(name).unwrap_or(&empty));
            if ours == theirs {
                continue;
            }
            told.push(format!("{name}: {} rows, expected {}", ours.len(), theirs.len()));
            let extra = ours.iter().filter(|row| theirs.binary_search(row).is_err());
            told.extend(extra.take(2).map(|row| format!("  extra   {row:.1000}")));
            let missing = theirs.iter().filter(|row| ours.binary_search(row).is_err());
            told.extend(missing.take(2).map(|row| format!("  missing {row:.1000}")));
        }
        for (name, sides) in &expected.balance {
            if self.balance.get(name) != Some(sides) {
                told.push(format!("balance of {name}: {:?}, expected {sides:?}", self.balance.get(name)));
            }
        }
        assert!(told.is_empty() && *self == *expected, "{how}:\n{}", told.join("\n"));
    }
}

/// The reference project after one run on [`crate::data::reference`]: for tests that only read.
pub fn reference_lake() -> &'static (Place, Contents) {
    static LAKE: OnceLock<(Place, Contents)> = OnceLock::new();
    LAKE.get_or_init(|| {
        let folder = shared_folder();
        let (landing, lake) = (folder.path().join("landing"), folder.path().join("lake"));
        fs::create_dir(&landing).unwrap();
        let place = Place { folder, project: repository().to_path_buf(), landing, lake };
        place.land(&crate::data::reference());
        place.run();
        let contents = Contents::of(&place);
        (place, contents)
    })
}

/// Statics are never dropped: the folders of earlier test processes are removed here.
fn shared_folder() -> TempDir {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner =
            name.strip_prefix("medallion-it-").and_then(|rest| rest.split('-').next().map(str::to_owned));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).is_dir()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("medallion-it-{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(base).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test waits for another process; there is no executor")]
pub fn pause(duration: std::time::Duration) {
    std::thread::sleep(duration);
}

/// Every file below a folder.
pub fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path),
        }
    }
    found
}
