//! A source: what its landed files look like and what its records must satisfy.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::manifest::LatePolicy;
use crate::decode::Layout;

/// A landed source that was found correct.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub description: String,
    /// Which files of landing belong to it, see [`matches()`].
    pub files: String,
    pub layout: Arc<Layout>,
    /// One description per column of the layout.
    pub column_descriptions: Vec<String>,
    pub mode: Mode,
    pub rules: Vec<Rule>,
    pub warnings: Vec<Warning>,
    /// How long after the newest event a record is not yet late; microseconds.
    pub watermark_delay: Option<i64>,
    /// What becomes of a record behind the watermark.
    pub late: LatePolicy,
    /// How long there may be nothing new; microseconds.
    pub freshness: Option<i64>,
    /// Changes when what decides over its records changes: key, rules, warnings, the reference data that they read.
    pub fingerprint: String,
}

/// How records with one key relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Immutable facts, one per key and date: the first landed is accepted.
    Events,
    /// Versions of a thing: the latest is current.
    Upserts,
}

/// Records for which the SQL expression `when` is true are quarantined as `error_type`.
#[derive(Debug, Clone)]
pub struct Rule {
    pub error_type: String,
    pub when: String,
    pub reason: String,
}

/// Records for which the SQL expression `when` is true are counted.
#[derive(Debug, Clone)]
pub struct Warning {
    pub name: String,
    pub when: String,
    pub description: String,
}

/// The partition column of bronze and quarantine.
pub const DATE: &str = "date";

/// UTC with microseconds, the lake's only kind of timestamp.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl Source {
    pub fn money(&self) -> impl Iterator<Item = &str> {
        self.layout.money.iter().map(|index| self.layout.columns[*index].name.as_str())
    }

    pub fn key(&self) -> impl Iterator<Item = &str> {
        self.layout.key.iter().map(|index| self.layout.columns[*index].name.as_str())
    }

    /// The bronze table: every declared column, where the record came from, and the date that it is kept under.
    pub fn bronze_schema(&self) -> SchemaRef {
        let mut fields: Vec<Field> = self
            .layout
            .columns
            .iter()
            .map(|column| Field::new(&column.name, column.ty.arrow(), true))
            .collect();
        fields.push(Field::new("ingest_ts", timestamp_type(), true));
        fields.push(Field::new("source_file", DataType::Utf8View, true));
        fields.push(Field::new("source_file_time", timestamp_type(), true));
        fields.push(Field::new("source_line", DataType::Int64, true));
        fields.push(Field::new("batch_id", DataType::Int64, true));
        if self.watermark_delay.is_some() {
            fields.push(Field::new("is_late", DataType::Boolean, true));
        }
        fields.push(Field::new("_rescued", DataType::Utf8View, true));
        fields.push(Field::new(DATE, DataType::Date32, true));
        Arc::new(Schema::new(fields))
    }

    /// Bronze records with their place in the history of their key.
    pub fn versions_schema(&self) -> SchemaRef {
        let mut fields = self.bronze_schema().fields().to_vec();
        fields.push(Arc::new(Field::new("version", DataType::Int64, true)));
        fields.push(Arc::new(Field::new("valid_from", timestamp_type(), true)));
        fields.push(Arc::new(Field::new("valid_to", timestamp_type(), true)));
        fields.push(Arc::new(Field::new("is_current", DataType::Boolean, true)));
        Arc::new(Schema::new(fields))
    }

    /// The quarantine table: the refused record and why, with the amounts that could be read.
    pub fn quarantine_schema(&self) -> SchemaRef {
        let mut fields = vec![
            Field::new("source", DataType::Utf8View, true),
            Field::new("stage", DataType::Utf8View, true),
            Field::new("column_name", DataType::Utf8View, true),
            Field::new("reason", DataType::Utf8View, true),
            Field::new("raw", DataType::BinaryView, true),
            Field::new("raw_bytes", DataType::Int64, true),
            Field::new("source_file", DataType::Utf8View, true),
            Field::new("source_line", DataType::Int64, true),
            Field::new("batch_id", DataType::Int64, true),
            Field::new("ingest_ts", timestamp_type(), true),
        ];
        for index in &self.layout.money {
            let column = &self.layout.columns[*index];
            fields.push(Field::new(&column.name, column.ty.arrow(), true));
        }
        fields.push(Field::new(DATE, DataType::Date32, true));
        fields.push(Field::new("error_type", DataType::Utf8View, true));
        Arc::new(Schema::new(fields))
    }
}

/// Whether a path below landing belongs to the pattern. `*` stands for any characters but `/`; a compressed file
/// (`.gz`, `.zst`) belongs where its plain name would.
pub fn matches(pattern: &str, path: &str) -> bool {
    let plain = path.strip_suffix(".gz").or_else(|| path.strip_suffix(".zst")).unwrap_or(path);
    let mut pattern_parts = pattern.split('/');
    let mut path_parts = plain.split('/');
    loop {
        match (pattern_parts.next(), path_parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if matches_part(pattern, part) => {}
            _ => return false,
        }
    }
}

/// Whether files of the pattern could lie in a folder at this path.
pub fn matches_folder(pattern: &str, path: &str) -> bool {
    let mut pattern_parts = pattern.split('/');
    path.split('/').all(|part| pattern_parts.next().is_some_and(|pattern| matches_part(pattern, part)))
        && pattern_parts.next().is_some()
}

/// Whether some path belongs to both patterns.
pub fn overlap(one: &str, other: &str) -> bool {
    let (one, other): (Vec<&str>, Vec<&str>) = (one.split('/').collect(), other.split('/').collect());
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| parts_overlap(one.as_bytes(), other.as_bytes()))
}

fn parts_overlap(one: &[u8], other: &[u8]) -> bool {
    // whether one name belongs to what is left of both from these places on
    let mut rests = vec![vec![false; other.len() + 1]; one.len() + 1];
    for at in (0..=one.len()).rev() {
        for to in (0..=other.len()).rev() {
            rests[at][to] = match (one.get(at), other.get(to)) {
                (None, None) => true,
                (Some(b'*'), next) => rests[at + 1][to] || (next.is_some() && rests[at][to + 1]),
                (next, Some(b'*')) => rests[at][to + 1] || (next.is_some() && rests[at + 1][to]),
                (Some(a), Some(b)) => a == b && rests[at + 1][to + 1],
                _ => false,
            };
        }
    }
    rests[0][0]
}

fn matches_part(pattern: &str, part: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else {
        return pattern == part;
    };
    let Some(mut tail) = part.strip_prefix(prefix) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let Some(last) = pieces.pop() else {
        return true;
    };
    for piece in pieces {
        match tail.find(piece) {
            Some(at) => tail = &tail[at + piece.len()..],
            None => return false,
        }
    }
    tail.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_share_a_name_overlap() {
        for (one, other, expected) in [
            ("users*.csv", "users*.csv", true),
            ("users*.csv", "*_extra.csv", true),
            ("users*.csv", "nps*.csv", false),
            ("users.csv", "users*.csv", true),
            ("a*b*c", "ab*bc", true),
            ("a*b", "a*c", false),
            ("events/*.jsonl", "*.jsonl", false),
            ("*/a.jsonl", "events/*", true),
            ("ü*.csv", "*ü.csv", true),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn patterns_match_plain_and_compressed_names() {
        for (pattern, path, expected) in [
            ("events/*.jsonl", "events/a.jsonl", true),
            ("events/*.jsonl", "events/a.jsonl.gz", true),
            ("events/*.jsonl", "events/a.jsonl.zst", true),
            ("events/*.jsonl", "events/deep/a.jsonl", false),
            ("users*.csv", "users.csv", true),
            ("users*.csv", "users_2025-08-01.csv", true),
            ("users*.csv", "other_users.csv", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
    #[test]
    fn folders_are_those_that_a_pattern_goes_through() {
        for (path, expected) in
            [("a", true), ("a/b1", true), ("a/b1/c.csv", false), ("a/x", false), ("b", false)]
        {
            assert_eq!(matches_folder("a/b*/c.csv", path), expected, "{path}");
        }
    }
}
