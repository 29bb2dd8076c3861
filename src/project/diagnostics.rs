//! Everything that is wrong with a project, collected so that it is reported at once.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::error::Error;

/// One problem, where it is and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// Relative to the project.
    pub file: PathBuf,
    /// From 1; 0, `null` for others, where the whole file is meant.
    #[serde(serialize_with = "line_or_null")]
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.message),
        }
    }
}

impl Diagnostic {
    /// The line, where it is known.
    pub fn known_line(&self) -> Option<usize> {
        (self.line > 0).then_some(self.line)
    }
}

fn line_or_null<S: Serializer>(line: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    (*line > 0).then_some(line).serialize(serializer)
}

/// Everything that is wrong with a project.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Problems {
    /// By file and line.
    pub problems: Vec<Diagnostic>,
    /// Files that depend on what is wrong: they are right or wrong only when that is mended.
    pub not_checked: Vec<PathBuf>,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Diagnostics {
    found: Vec<Diagnostic>,
    not_checked: BTreeSet<PathBuf>,
}

impl Diagnostics {
    pub fn add(&mut self, file: impl AsRef<Path>, line: usize, message: impl Into<String>) {
        self.found.push(Diagnostic { file: file.as_ref().to_path_buf(), line, message: message.into() });
    }

    /// Adds a problem at the first line of `text` that mentions `word`.
    pub fn add_at(&mut self, file: impl AsRef<Path>, text: &str, word: &str, message: impl Into<String>) {
        self.add(file, line_of(text, word), message);
    }

    pub fn len(&self) -> usize {
        self.found.len()
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The file depends on something that is wrong.
    pub fn not_checked(&mut self, file: impl AsRef<Path>) {
        self.not_checked.insert(file.as_ref().to_path_buf());
    }

    pub fn into_problems(self) -> Problems {
        let not_checked = self.not_checked.iter().cloned().collect();
        let problems = self.into_sorted();
        Problems { problems, not_checked }
    }

    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort();
        self.found.dedup();
        self.found
    }
}

impl Problems {
    /// As the error that stops a command.
    pub fn to_error(&self) -> Error {
        let mut text = match self.problems.len() {
            1 => "the project has 1 problem:".to_owned(),
            many => format!("the project has {many} problems:"),
        };
        for problem in &self.problems {
            text.push_str(&format!("\n  {problem}"));
        }
        let named: Vec<String> =
            self.not_checked.iter().take(NAMED).map(|file| file.display().to_string()).collect();
        if !named.is_empty() {
            let more = match self.not_checked.len() - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            text.push_str(&format!(
                "\nnot checked, because they depend on these: {}{more}",
                named.join(", ")
            ));
        }
        Error::project(text)
    }
}

/// So many files are named.
const NAMED: usize = 5;

/// The line (from 1) that mentions `word`, whole words first; 0 where none does.
pub fn line_of(text: &str, word: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |line: &str| {
        line.match_indices(word)
            .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
    };
    let first = text.lines().position(whole).or_else(|| text.lines().position(|line| line.contains(word)));
    first.map_or(0, |index| index + 1)
}

/// The line (from 1) of a byte offset.
pub fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_are_found_first() {
        assert_eq!(line_of("key_1 = 2\nkey = 1", "key"), 2);
        assert_eq!(line_of("monkey", "key"), 1);
        assert_eq!(line_of("", "key"), 0);
    }
}
