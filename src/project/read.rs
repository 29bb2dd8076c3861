//! Reads a project's folder: which files there are, and their TOML. What can't be read is a problem like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::cql::ServingTable;
use super::diagnostics::Diagnostics;
use super::lenient::{Damage, Lenient, Manifest};
use super::manifest::{CheckManifest, ModelManifest, ProjectManifest, QuestionManifest, SourceManifest};
use super::sql::TableName;
use crate::zone;

/// A file of the project and its text.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// Relative to the project.
    pub file: PathBuf,
    pub text: String,
}

/// A query or statement beside its TOML, under one name.
#[derive(Debug)]
pub struct Pair<M> {
    pub code: Text,
    pub toml: Text,
    pub manifest: M,
    pub damage: Damage,
}

/// A check's TOML, and its query where it has one.
#[derive(Debug)]
pub struct CheckFiles {
    pub code: Option<Text>,
    pub toml: Text,
    pub manifest: CheckManifest,
    pub damage: Damage,
}

/// Everything a project's folder holds, parsed but not yet validated.
#[derive(Debug)]
pub struct Written {
    pub project: ProjectManifest,
    pub project_damage: Damage,
    pub project_text: String,
    pub sources: BTreeMap<String, (Text, Lenient<SourceManifest>)>,
    pub silver: BTreeMap<String, Pair<ModelManifest>>,
    pub gold: BTreeMap<String, Pair<ModelManifest>>,
    pub checks: BTreeMap<String, CheckFiles>,
    pub references: BTreeMap<String, Text>,
    pub generators: BTreeMap<String, Text>,
    pub watches: BTreeMap<String, Text>,
    pub tables: BTreeMap<String, Text>,
    pub publish: BTreeMap<String, Text>,
    pub questions: BTreeMap<String, Pair<QuestionManifest>>,
    /// Files that are there, or should be, and have no text: by folder and name.
    pub unread: BTreeSet<(&'static str, String)>,
}

impl Written {
    /// The tables that would be there, could their files be read.
    pub fn unread_tables(&self) -> impl Iterator<Item = TableName> {
        self.unread.iter().flat_map(|(folder, name)| {
            let zones: &[&str] = match *folder {
                SOURCES => &[zone::BRONZE, zone::ACCEPTED, zone::VERSIONS, zone::QUARANTINE],
                SILVER => &[zone::SILVER],
                GOLD => &[zone::GOLD],
                REFERENCES => &[zone::REFERENCE],
                _ => &[],
            };
            zones.iter().map(|zone| TableName::new(zone, name))
        })
    }

    /// Whether there is a serving table of that name that could not be read or understood.
    pub fn is_unread_table(&self, name: &str, understood: &[ServingTable]) -> bool {
        let is_there = self.tables.contains_key(name) || self.unread.contains(&(TABLES, name.to_owned()));
        is_there && !understood.iter().any(|table| table.name == name)
    }
}

/// The file that makes a folder a project.
pub const PROJECT_FILE: &str = "medallion.toml";

const FOLDERS: [&str; 10] = [
    SOURCES,
    SILVER,
    GOLD,
    REFERENCES,
    CHECKS,
    "sql/landing",
    "sql/watch",
    TABLES,
    "cql/publish",
    "cql/questions",
];

const SOURCES: &str = "sql/bronze";
const SILVER: &str = "sql/silver";
const GOLD: &str = "sql/gold";
const REFERENCES: &str = "sql/reference";
const CHECKS: &str = "sql/checks";
const TABLES: &str = "cql/tables";

/// Reads everything that can be read; the rest is told.
pub fn read(folder: &Path, found: &mut Diagnostics) -> Written {
    let text = read_text(folder, Path::new(PROJECT_FILE), found);
    let project = match &text {
        Some(text) => Lenient::<ProjectManifest>::parse(text, found),
        None => Lenient::absent(),
    };
    let mut left = list(folder, Path::new("sql"), found);
    left.extend(list(folder, Path::new("cql"), found));
    let mut files = Files { folder, left, unread: BTreeSet::new() };
    let sources = files.take(SOURCES, "toml", found).into_iter();
    let sources = sources
        .map(|(name, text)| {
            let read = Lenient::parse(&text, found);
            (name, (text, read))
        })
        .collect();
    let silver = files.take_pairs(SILVER, "sql", found);
    let gold = files.take_pairs(GOLD, "sql", found);
    let checks = files.take_checks(found);
    let questions = files.take_pairs("cql/questions", "cql", found);
    let references = files.take(REFERENCES, "csv", found);
    let generators = files.take("sql/landing", "sql", found);
    let watches = files.take("sql/watch", "sql", found);
    let tables = files.take(TABLES, "cql", found);
    let publish = files.take("cql/publish", "cql", found);
    for file in &files.left {
        let folder = file.parent().unwrap_or(file).to_string_lossy();
        found.add(
            file,
            0,
            match FOLDERS.contains(&folder.as_ref()) {
                true => "unused file; models are `sql/<zone>/<name>.sql` beside `<name>.toml`".to_owned(),
                false => format!("there is no folder `{folder}`; there are {}", FOLDERS.join(", ")),
            },
        );
    }
    Written {
        project: project.manifest,
        project_damage: project.damage,
        project_text: text.map(|text| text.text).unwrap_or_default(),
        sources,
        silver,
        gold,
        checks,
        references,
        generators,
        watches,
        tables,
        publish,
        questions,
        unread: files.unread,
    }
}

struct Files<'a> {
    folder: &'a Path,
    /// Files that nothing has claimed yet.
    left: Vec<PathBuf>,
    unread: BTreeSet<(&'static str, String)>,
}

impl Files<'_> {
    fn take(
        &mut self,
        below: &'static str,
        extension: &str,
        found: &mut Diagnostics,
    ) -> BTreeMap<String, Text> {
        let (taken, unread) = self.take_readable(below, extension, found);
        self.unread.extend(unread.into_iter().map(|name| (below, name)));
        taken
    }

    fn take_checks(&mut self, found: &mut Diagnostics) -> BTreeMap<String, CheckFiles> {
        let (codes, unread_codes) = self.take_readable(CHECKS, "sql", found);
        let (tomls, unread_tomls) = self.take_readable(CHECKS, "toml", found);
        let mut codes = codes;
        let mut checks = BTreeMap::new();
        for (name, toml) in tomls {
            let Lenient { manifest, damage } = Lenient::parse(&toml, found);
            let code = codes.remove(&name);
            if code.is_some() || !unread_codes.contains(&name) {
                checks.insert(name, CheckFiles { code, toml, manifest, damage });
            }
        }
        for (name, code) in codes {
            if !unread_tomls.contains(&name) {
                found.add(&code.file, 0, format!("`{name}.toml` is missing beside it"));
            }
            // what stands in it is examined all the same
            let toml = Text { file: code.file.with_extension("toml"), text: String::new() };
            let Lenient { manifest, damage } = Lenient::absent();
            checks.insert(name, CheckFiles { code: Some(code), toml, manifest, damage });
        }
        checks
    }

    /// What could be read, and the names of what could not.
    fn take_readable(
        &mut self,
        below: &str,
        extension: &str,
        found: &mut Diagnostics,
    ) -> (BTreeMap<String, Text>, BTreeSet<String>) {
        let (mut taken, mut unread) = (BTreeMap::new(), BTreeSet::new());
        let is_wanted = |file: &PathBuf| {
            file.parent() == Some(Path::new(below))
                && file.extension().is_some_and(|found| found == extension)
                && file.file_stem().is_some_and(|stem| stem.to_str().is_some())
        };
        for file in self.left.extract_if(.., |file| is_wanted(file)) {
            let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            match read_text(self.folder, &file, found) {
                Some(text) => drop(taken.insert(name, text)),
                None => drop(unread.insert(name)),
            }
        }
        (taken, unread)
    }

    /// Of a query without its TOML, or with one that can't be read, what stands in it is examined all the same.
    fn take_pairs<M: Manifest>(
        &mut self,
        below: &'static str,
        extension: &str,
        found: &mut Diagnostics,
    ) -> BTreeMap<String, Pair<M>> {
        let (mut tomls, unread_tomls) = self.take_readable(below, "toml", found);
        let (codes, unread_codes) = self.take_readable(below, extension, found);
        let mut pairs = BTreeMap::new();
        for (name, code) in codes {
            let toml = tomls.remove(&name);
            if toml.is_none() && !unread_tomls.contains(&name) {
                found.add(&code.file, 0, format!("`{name}.toml` is missing beside it"));
            }
            let read = toml.as_ref().map_or_else(Lenient::absent, |toml| Lenient::parse(toml, found));
            let (manifest, damage) = (read.manifest, read.damage);
            let absent = || Text { file: code.file.with_extension("toml"), text: String::new() };
            let toml = toml.unwrap_or_else(absent);
            pairs.insert(name, Pair { code, toml, manifest, damage });
        }
        for (name, toml) in tomls {
            if !unread_codes.contains(&name) {
                found.add(&toml.file, 0, format!("`{name}.{extension}` is missing beside it"));
            }
            Lenient::<M>::parse(&toml, found);
            self.unread.insert((below, name));
        }
        self.unread.extend(unread_codes.into_iter().map(|name| (below, name)));
        pairs
    }
}

fn read_text(folder: &Path, file: &Path, found: &mut Diagnostics) -> Option<Text> {
    let bytes = match std::fs::read(folder.join(file)) {
        Ok(bytes) => bytes,
        Err(error) => {
            let is_link = folder.join(file).is_symlink() && error.kind() == io::ErrorKind::NotFound;
            let why = if is_link { "it is a link to nothing".to_owned() } else { error.to_string() };
            found.add(file, 0, format!("can't be read: {why}"));
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(Text { file: file.to_path_buf(), text }),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
            found.add(file, line, "is not valid UTF-8");
            None
        }
    }
}

/// Every file below `below`, relative to the project, sorted.
fn list(folder: &Path, below: &Path, found: &mut Diagnostics) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![below.to_path_buf()];
    while let Some(next) = folders.pop() {
        let listed = std::fs::read_dir(folder.join(&next)).and_then(|entries| {
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                if name.to_string_lossy().starts_with('.') {
                    continue;
                }
                match entry.file_type()?.is_dir() {
                    true => folders.push(next.join(name)),
                    false => files.push(next.join(name)),
                }
            }
            Ok(())
        });
        match listed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                found.add(&next, 0, format!("can't be listed: {error}"));
            }
            _ => {}
        }
    }
    files.sort();
    files
}
