//! Partitions: their values as text, and the folders in which their files lie. Whatever a value holds, its folder stays inside
//! the table.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type};
use chrono::NaiveDate;
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::type_name::type_name;

/// Folder names hold at most 255 bytes; the column's name and `=` need room too (facts and hazards, H10).
const MAX_PARTITION_VALUE_BYTES: usize = 200;

/// The values of the partition columns, as text; `None` is null.
pub type PartitionKey = Vec<Option<String>>;

/// The first `depth` partition values of a file.
pub fn partition_key(
    columns: &[String],
    values: &BTreeMap<String, Option<String>>,
    depth: usize,
) -> PartitionKey {
    columns.iter().take(depth).map(|column| values.get(column).cloned().flatten()).collect()
}

/// Whether a file is in one of the partitions whose leading values are listed.
pub(super) fn is_within(
    columns: &[String],
    values: &BTreeMap<String, Option<String>>,
    partitions: &BTreeSet<PartitionKey>,
) -> bool {
    let depth = partitions.first().map_or(0, Vec::len);
    depth > 0 && partitions.contains(&partition_key(columns, values, depth))
}

/// The partition of a row of the table at `root`: the values of its partition columns, whose names are `partition`.
///
/// # Errors
/// `Data` where a value can't be a folder's name, `Project` where a column's type can't be a partition's.
pub(super) fn key_of_row(
    root: &Path,
    partition: &[String],
    columns: &[ArrayRef],
    row: usize,
) -> Result<PartitionKey> {
    columns
        .iter()
        .zip(partition)
        .map(|(column, name)| {
            let value = partition_value(column, row)?;
            match &value {
                Some(text) if text.is_empty() || encode(text, "").len() > MAX_PARTITION_VALUE_BYTES => {
                    Err(Error::data(format!(
                        "a value of the partition column `{name}` of `{root}` is empty or longer than \
                         {MAX_PARTITION_VALUE_BYTES} bytes; map it to a short name in the model"
                    )))
                }
                _ => Ok(value),
            }
        })
        .collect()
}

/// The value as Delta writes it into the log.
fn partition_value(column: &ArrayRef, row: usize) -> Result<Option<String>> {
    if column.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match column.data_type() {
        DataType::Utf8View => column.as_string_view().value(row).to_owned(),
        DataType::Date32 => date_text(column.as_primitive::<Date32Type>().value(row)),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        other => {
            return Err(Error::project(format!(
                "a partition column can't have the type `{}`; use date, text, int, bigint or boolean",
                type_name(other)
            )));
        }
    }))
}

/// `2025-08-31` for the days since 1970-01-01.
pub fn date_text(days: i32) -> String {
    match NaiveDate::from_epoch_days(days) {
        Some(date) => date.format("%Y-%m-%d").to_string(),
        None => days.to_string(),
    }
}

/// Where a file of a partition lies below its table.
pub(super) fn relative_path(partition: &[String], key: &PartitionKey, name: &str) -> String {
    let mut path = String::new();
    for (column, value) in partition.iter().zip(key) {
        path.push_str(&encode(column, ""));
        path.push('=');
        match value {
            Some(value) => path.push_str(&encode(value, "")),
            None => path.push_str("__HIVE_DEFAULT_PARTITION__"),
        }
        path.push('/');
    }
    path.push_str(name);
    path
}

/// Percent-encodes everything but letters, digits, `-`, `_`, `.` and what is in `keep`; `.` alone would be a folder.
pub(super) fn encode(text: &str, keep: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    let only_dots = text.bytes().all(|byte| byte == b'.');
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if (plain && !only_dots) || keep.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The inverse of percent-encoding, for the paths in the log.
pub fn decode(path: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes)
        .map_err(|error| Error::data(format!("the path `{path}` in the log is damaged")).because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_partition_values_stay_inside_the_table() {
        for value in ["../../x", "a/b", "..", ".", "%2F", "a b", "ü", "x\ny", "service=x"] {
            let partition = ["service".to_owned()];
            let relative = relative_path(&partition, &vec![Some(value.to_owned())], "f.parquet");
            assert_eq!(relative.matches('/').count(), 1, "{relative}");
            assert!(!relative.contains("=./") && !relative.contains("=../"), "{relative}");
            assert!(Path::parse(&relative).is_ok(), "{relative}");
            assert_eq!(decode(&encode(&relative, "/=")).unwrap(), relative);
        }
    }
}
