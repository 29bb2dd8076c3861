//! Reads a project's folder: which files there are, and their TOML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::diagnostics::{Diagnostics, line_at};
use super::manifest::{CheckManifest, ModelManifest, ProjectManifest, QuestionManifest, SourceManifest};
use crate::error::{Error, Result};

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
}

/// A check's TOML, and its query where it has one.
#[derive(Debug)]
pub struct CheckFiles {
    pub code: Option<Text>,
    pub toml: Text,
    pub manifest: CheckManifest,
}

/// Everything a project's folder holds, parsed but not yet validated.
#[derive(Debug)]
pub struct Written {
    pub project: ProjectManifest,
    pub sources: BTreeMap<String, (Text, SourceManifest)>,
    pub silver: BTreeMap<String, Pair<ModelManifest>>,
    pub gold: BTreeMap<String, Pair<ModelManifest>>,
    pub checks: BTreeMap<String, CheckFiles>,
    pub references: BTreeMap<String, Text>,
    pub generators: BTreeMap<String, Text>,
    pub watches: BTreeMap<String, Text>,
    pub tables: BTreeMap<String, Text>,
    pub publish: BTreeMap<String, Text>,
    pub questions: BTreeMap<String, Pair<QuestionManifest>>,
}

/// # Errors
/// `Unavailable` where a file can't be read.
pub fn read(folder: &Path, found: &mut Diagnostics) -> Result<Written> {
    let manifest = read_text(folder, Path::new("medallion.toml"))?;
    // a manifest that can't be read is one problem; the others are looked for all the same
    let project = parse::<ProjectManifest>(&manifest, found).unwrap_or_default();
    let mut files = Files { folder, left: list(folder, Path::new("sql"))? };
    files.left.extend(list(folder, Path::new("cql"))?);
    let sources = files
        .take("sql/bronze", "toml")?
        .into_iter()
        .filter_map(|(name, text)| Some((name, (text.clone(), parse(&text, found)?))))
        .collect();
    let silver = files.take_pairs("sql/silver", "sql", found)?;
    let gold = files.take_pairs("sql/gold", "sql", found)?;
    let checks = files.take_checks(found)?;
    let questions = files.take_pairs("cql/questions", "cql", found)?;
    let references = files.take("sql/reference", "csv")?;
    let generators = files.take("sql/landing", "sql")?;
    let watches = files.take("sql/watch", "sql")?;
    let tables = files.take("cql/tables", "cql")?;
    let publish = files.take("cql/publish", "cql")?;
    for file in files.left {
        found.add(&file, 0, "unused file; models are `sql/<zone>/<name>.sql` beside `<name>.toml`");
    }
    Ok(Written {
        project,
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
    })
}

struct Files<'a> {
    folder: &'a Path,
    /// Files that nothing has claimed yet.
    left: Vec<PathBuf>,
}

impl Files<'_> {
    fn take(&mut self, below: &str, extension: &str) -> Result<BTreeMap<String, Text>> {
        let mut taken = BTreeMap::new();
        let is_wanted = |file: &PathBuf| {
            file.parent() == Some(Path::new(below))
                && file.extension().is_some_and(|found| found == extension)
        };
        for file in self.left.extract_if(.., |file| is_wanted(file)) {
            if let Some(name) = file.file_stem().and_then(|stem| stem.to_str()) {
                taken.insert(name.to_owned(), read_text(self.folder, &file)?);
            }
        }
        Ok(taken)
    }

    fn take_checks(&mut self, found: &mut Diagnostics) -> Result<BTreeMap<String, CheckFiles>> {
        let mut codes = self.take("sql/checks", "sql")?;
        let mut checks = BTreeMap::new();
        for (name, toml) in self.take("sql/checks", "toml")? {
            let code = codes.remove(&name);
            if let Some(manifest) = parse(&toml, found) {
                checks.insert(name, CheckFiles { code, toml, manifest });
            }
        }
        for (name, code) in codes {
            found.add(&code.file, 0, format!("`{name}.toml` is missing beside it"));
        }
        Ok(checks)
    }

    fn take_pairs<M: DeserializeOwned>(
        &mut self,
        below: &str,
        extension: &str,
        found: &mut Diagnostics,
    ) -> Result<BTreeMap<String, Pair<M>>> {
        let mut tomls = self.take(below, "toml")?;
        let mut pairs = BTreeMap::new();
        for (name, code) in self.take(below, extension)? {
            let Some(toml) = tomls.remove(&name) else {
                found.add(&code.file, 0, format!("`{name}.toml` is missing beside it"));
                continue;
            };
            if let Some(manifest) = parse(&toml, found) {
                pairs.insert(name, Pair { code, toml, manifest });
            }
        }
        for (name, toml) in tomls {
            found.add(&toml.file, 0, format!("`{name}.{extension}` is missing beside it"));
        }
        Ok(pairs)
    }
}

fn parse<M: DeserializeOwned>(text: &Text, found: &mut Diagnostics) -> Option<M> {
    match toml::from_str(&text.text) {
        Ok(manifest) => Some(manifest),
        Err(error) => {
            let line = error.span().map_or(0, |span| line_at(&text.text, span.start));
            found.add(&text.file, line, error.message());
            None
        }
    }
}

fn read_text(folder: &Path, file: &Path) -> Result<Text> {
    let text = std::fs::read_to_string(folder.join(file)).map_err(|error| {
        Error::unavailable(format!("can't read `{}`", folder.join(file).display())).because(error)
    })?;
    Ok(Text { file: file.to_path_buf(), text })
}

/// Every file below `below`, relative to the project, sorted.
fn list(folder: &Path, below: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![below.to_path_buf()];
    while let Some(next) = folders.pop() {
        let entries = match std::fs::read_dir(folder.join(&next)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(Error::unavailable(format!("can't list `{}`", next.display())).because(error));
            }
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            let path = next.join(name);
            match entry.file_type()?.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    Ok(files)
}
