//! A model: one query whose result is a table of silver or gold.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::datatypes::{Schema, SchemaRef};

use super::sql::TableName;

/// A model that was found correct.
#[derive(Debug, Clone)]
pub struct Model {
    pub table: TableName,
    /// Relative to the project.
    pub file: PathBuf,
    pub sql: String,
    pub description: String,
    pub is_view: bool,
    pub key: Vec<String>,
    pub partition: Vec<String>,
    pub accounts_for: Option<String>,
    pub dates: Dates,
    /// Stored tables that the query reads, directly or through views, and which of their rows a partition needs.
    pub inputs: BTreeMap<TableName, Span>,
    pub column_descriptions: BTreeMap<String, String>,
    /// What the query returns, as the lake keeps it.
    pub schema: SchemaRef,
    /// How long a change of an input may wait to be computed; microseconds.
    pub freshness: Option<i64>,
    /// Changes when the query, its contract or the reference data that it reads change.
    pub fingerprint: String,
}

impl Model {
    pub fn is_partitioned(&self) -> bool {
        !self.partition.is_empty()
    }

    pub(super) fn unresolved_schema() -> SchemaRef {
        SchemaRef::new(Schema::empty())
    }
}

/// Which dates a partitioned model has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dates {
    /// Those of the inputs that it reads by the same date.
    OfInputs,
    /// Those of one input.
    Of(TableName),
    /// Every date from an input's first to its last.
    CalendarOf(TableName),
}

/// Which rows of an input one partition of the output needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Those whose date lies from `to` to `from` days before the partition's date; `0, 0` is the same date.
    Days { from: u32, to: u32 },
    /// All of them.
    Whole,
    /// Only which partitions there are.
    Partitions,
}

impl Span {
    pub const SAME_DATE: Span = Span::Days { from: 0, to: 0 };
}
