//! Everything that is wrong with a project, collected so that it is reported at once.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// One problem, where it is and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Relative to the project.
    pub file: PathBuf,
    /// From 1; 0 where the whole file is meant.
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

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Diagnostics {
    found: Vec<Diagnostic>,
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

    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort();
        self.found.dedup();
        self.found
    }
}

/// The problems of a project as the error that stops a command.
pub fn to_error(found: &[Diagnostic]) -> Error {
    let lines: Vec<String> = found.iter().map(|problem| format!("  {problem}")).collect();
    let count = match found.len() {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    Error::project(format!("the project has {count}:\n{}", lines.join("\n")))
}

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
