//! What a line of the transaction log says.
//!
//! Source: the Delta protocol, <https://github.com/delta-io/delta/blob/master/PROTOCOL.md>, "Actions".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The tag that says what a file's bytes were when it was written: a disk or a copy may change them, and Parquet would show
/// other numbers without a word.
pub const CHECKSUM: &str = "blake3";

/// 128 bits of BLAKE3 as hexadecimal digits.
pub fn checksum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_owned()
}

/// A data file that is part of a table version.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Relative path, URL-encoded.
    pub path: String,
    pub partition_values: BTreeMap<String, Option<String>>,
    pub size: i64,
    pub modification_time: i64,
    /// `false` when the rows were already in the table: a compaction.
    pub data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stats: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tags: Option<BTreeMap<String, Option<String>>>,
    #[serde(skip_serializing, default)]
    pub(in crate::lake) deletion_vector: Option<serde_json::Value>,
}

impl Add {
    /// Rows of the file. Every file that the lake writes says so; others are refused when loaded.
    pub fn num_records(&self) -> u64 {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stats {
            num_records: u64,
        }
        self.stats
            .as_deref()
            .and_then(|stats| serde_json::from_str::<Stats>(stats).ok())
            .map_or(0, |stats| stats.num_records)
    }

    /// The tags that files have for what they hold, without the checksum of their bytes.
    pub fn tags_of_content(&self) -> BTreeMap<String, Option<String>> {
        let mut tags = self.tags.clone().unwrap_or_default();
        tags.remove(CHECKSUM);
        tags
    }

    /// Whether the file still has the bytes that were written; files of before there were checksums pass.
    pub fn is_as_written(&self, bytes: &[u8]) -> bool {
        self.tag(CHECKSUM).is_none_or(|written| written == checksum(bytes))
    }

    /// The tag's value, if the file has it.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.as_ref()?.get(name)?.as_deref()
    }
}

/// A data file that is no longer part of the table.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    pub path: String,
    #[serde(default)]
    pub deletion_timestamp: i64,
    pub data_change: bool,
    #[serde(default)]
    pub extended_file_metadata: bool,
    #[serde(default)]
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    pub size: Option<i64>,
}

/// An application's position: the input that this version has consumed.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_updated: Option<i64>,
}

/// A table's schema and properties.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub id: String,
    pub format: Format,
    /// The schema as Delta writes it: JSON in a string.
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub configuration: BTreeMap<String, Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created_time: Option<i64>,
}

/// The format of the data files; always Parquet.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: BTreeMap<String, Option<String>>,
}

impl Default for Format {
    fn default() -> Self {
        Self { provider: "parquet".to_owned(), options: BTreeMap::new() }
    }
}

/// What a reader and a writer must understand.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reader_features: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub writer_features: Option<Vec<String>>,
}

impl Protocol {
    /// The oldest protocol, which every Delta reader and writer speaks.
    pub const PLAIN: Protocol = Protocol {
        min_reader_version: 1,
        min_writer_version: 2,
        reader_features: None,
        writer_features: None,
    };
}

/// One line of a log entry.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    CommitInfo(serde_json::Value),
    Protocol(Protocol),
    MetaData(Box<Metadata>),
    Txn(Txn),
    Add(Add),
    Remove(Remove),
    /// Kinds that do not change what the table contains.
    #[serde(untagged)]
    Other(serde_json::Value),
}

impl Action {
    /// What the commit says of itself.
    pub(super) fn info(&self) -> Option<&serde_json::Value> {
        match self {
            Action::CommitInfo(info) => Some(info),
            _ => None,
        }
    }
}
