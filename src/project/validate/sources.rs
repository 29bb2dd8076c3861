//! Sources and reference tables: columns, keys, times, rules.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::Planner;
use crate::decode::{Column, Format, Layout, Type};
use crate::project::diagnostics::Diagnostics;
use crate::project::manifest::{FormatName, LatePolicy, ModeName, SourceManifest};
use crate::project::read::Text;
use crate::project::source::{Mode, Rule, Source, Warning};
use crate::project::{Reference, fingerprint};

/// Columns that bronze adds to those of the source.
const BRONZE_COLUMNS: [&str; 8] = [
    "ingest_ts",
    "source_file",
    "source_file_time",
    "source_line",
    "batch_id",
    "is_late",
    "_rescued",
    "date",
];

/// Error types that decoding and deciding give.
const ENGINE_ERROR_TYPES: [&str; 7] = [
    "malformed",
    "missing_key",
    "missing_required",
    "bad_type",
    "out_of_range",
    "future_timestamp",
    "duplicate_conflict",
];

pub(super) fn source(
    name: &str,
    text: &Text,
    manifest: &SourceManifest,
    limits: &crate::project::manifest::Limits,
    found: &mut Diagnostics,
) -> Option<Source> {
    let before = found.len();
    let mut columns = Vec::new();
    let mut names = HashSet::new();
    for column in &manifest.columns {
        let place = format!("name = \"{}\"", column.name);
        let mut add = |message: String| found.add_at(&text.file, &text.text, &place, message);
        if !names.insert(column.name.as_str()) {
            add(format!("the column `{}` is declared twice", column.name));
        }
        let is_reserved = BRONZE_COLUMNS.contains(&column.name.as_str())
            && !(column.name == "date" && manifest.partition == "date");
        if is_reserved || column.name.starts_with('_') {
            add(format!("the column name `{}` is the engine's; rename it in the files", column.name));
        }
        match Type::from_str(&column.type_name) {
            Ok(ty) => columns.push(Column { name: column.name.clone(), ty }),
            Err(message) => add(message),
        }
    }
    let mut index = |column: &str, what: &str| {
        let at = columns.iter().position(|declared| declared.name == column);
        if at.is_none() {
            found.add_at(
                &text.file,
                &text.text,
                column,
                format!("{what} `{column}` is not a declared column"),
            );
        }
        at
    };
    let key: Vec<usize> = manifest.key.iter().filter_map(|name| index(name, "the key")).collect();
    let money: Vec<usize> =
        manifest.money.iter().filter_map(|name| index(name, "the money column")).collect();
    let partition = index(&manifest.partition, "the partition column");
    let event_time = manifest.event_time.as_ref().and_then(|name| index(name, "the event time"));
    if manifest.key.is_empty() {
        found.add(&text.file, 0, "a source needs a `key`");
    }
    for at in &money {
        if !matches!(columns[*at].ty, Type::Decimal { scale: 6, .. }) {
            let message = format!(
                "the money column `{}` must be a decimal with 6 digits after the point",
                columns[*at].name
            );
            found.add_at(&text.file, &text.text, "money", message);
        }
    }
    if let Some(at) = partition
        && !matches!(columns[at].ty, Type::Date | Type::Timestamp)
    {
        found.add_at(
            &text.file,
            &text.text,
            "partition",
            "the partition column must be a date or a timestamp",
        );
    }
    if let Some(at) = event_time
        && columns[at].ty != Type::Timestamp
    {
        found.add_at(&text.file, &text.text, "event_time", "the event time must be a timestamp");
    }
    let future_limit = duration(manifest.future_limit.as_deref().unwrap_or("1 day"), text, found);
    let watermark_delay = manifest.watermark_delay.as_deref().and_then(|delay| duration(delay, text, found));
    if watermark_delay.is_some() && event_time.is_none() {
        found.add_at(&text.file, &text.text, "watermark_delay", "a watermark needs an `event_time`");
    }
    if watermark_delay.is_none() && manifest.late == LatePolicy::Quarantine {
        found.add_at(
            &text.file,
            &text.text,
            "late",
            "only a source with a `watermark_delay` has late records",
        );
    }
    let freshness = manifest.freshness.as_deref().and_then(|objective| duration(objective, text, found));
    let required: Vec<usize> = manifest
        .columns
        .iter()
        .enumerate()
        .filter(|(at, column)| column.required && !key.contains(at))
        .map(|(at, _)| at)
        .collect();
    let partition = partition?;
    if found.len() == before && !key.contains(&partition) && !required.contains(&partition) {
        found.add_at(&text.file, &text.text, &manifest.partition, "the partition column must be `required`");
    }
    if found.len() > before {
        return None;
    }
    let layout = Layout {
        format: match manifest.format {
            FormatName::Jsonl => Format::Jsonl,
            FormatName::Csv => Format::Csv,
        },
        columns,
        key,
        required,
        partition,
        event_time,
        future_limit_micros: future_limit?,
        money,
        max_line_bytes: limits.line_bytes,
        max_depth: limits.nesting,
    };
    let rule = |rule: &crate::project::manifest::RuleManifest| Rule {
        error_type: rule.error_type.clone(),
        when: rule.when.clone(),
        reason: rule.reason.clone(),
    };
    let warning = |warning: &crate::project::manifest::WarningManifest| Warning {
        name: warning.name.clone(),
        when: warning.when.clone(),
        description: warning.description.clone(),
    };
    Some(Source {
        name: name.to_owned(),
        description: manifest.description.clone(),
        files: manifest.files.clone(),
        layout: Arc::new(layout),
        column_descriptions: manifest.columns.iter().map(|column| column.description.clone()).collect(),
        mode: match manifest.mode {
            ModeName::Events => Mode::Events,
            ModeName::Upserts => Mode::Upserts,
        },
        rules: manifest.rules.iter().map(rule).collect(),
        warnings: manifest.warnings.iter().map(warning).collect(),
        watermark_delay,
        late: manifest.late,
        freshness,
        fingerprint: String::new(),
    })
}

/// `2 hours`, in microseconds.
pub(super) fn duration(written: &str, text: &Text, found: &mut Diagnostics) -> Option<i64> {
    let parsed = written.trim().split_once(' ').and_then(|(number, unit)| {
        let seconds = match unit.trim().trim_end_matches('s') {
            "second" => 1,
            "minute" => 60,
            "hour" => 3600,
            "day" => 86_400,
            _ => return None,
        };
        number.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(1_000_000)
    });
    if parsed.is_none() {
        found.add_at(
            &text.file,
            &text.text,
            written,
            format!("`{written}` is not a duration; write a number and seconds, minutes, hours or days"),
        );
    }
    parsed
}

pub(super) async fn check_rules(source: &Source, text: &Text, planner: &Planner, found: &mut Diagnostics) {
    let rules = source.rules.iter().map(|rule| (&rule.error_type, &rule.when));
    let warnings = source.warnings.iter().map(|warning| (&warning.name, &warning.when));
    let mut names = HashSet::new();
    for (name, when) in rules.chain(warnings) {
        if !names.insert(name) {
            found.add_at(&text.file, &text.text, name, format!("`{name}` is declared twice"));
        }
        if ENGINE_ERROR_TYPES.contains(&name.as_str()) {
            found.add_at(
                &text.file,
                &text.text,
                name,
                format!("`{name}` is an error type of the engine; choose another name"),
            );
        }
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || name.is_empty() {
            found.add_at(
                &text.file,
                &text.text,
                name,
                format!("`{name}` may hold letters, digits and `_` only"),
            );
        }
        let query = format!("select ({when}) as hit from bronze.{}", source.name);
        let kind = planner.context.sql(&query).await.map(|frame| frame.schema().field(0).data_type().clone());
        match kind {
            Ok(DataType::Boolean) => {}
            Ok(other) => found.add_at(
                &text.file,
                &text.text,
                name,
                format!("`when` of `{name}` is `{other}`, not boolean"),
            ),
            Err(error) => found.add_at(&text.file, &text.text, name, error.strip_backtrace()),
        }
    }
}

pub(super) fn reference(name: &str, text: &Text, found: &mut Diagnostics) -> Option<Reference> {
    let mut lines = text.text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let Some((_, header)) = lines.next() else {
        found.add(&text.file, 0, "the file is empty; its first line names the columns");
        return None;
    };
    let names: Vec<&str> = header.split(',').map(str::trim).collect();
    let mut columns: Vec<Vec<Option<&str>>> = vec![Vec::new(); names.len()];
    for (index, line) in lines {
        let values: Vec<&str> = line.split(',').map(str::trim).collect();
        if values.len() != names.len() || line.contains('"') {
            found.add(&text.file, index + 1, format!("expected {} plain values", names.len()));
            return None;
        }
        for (column, value) in columns.iter_mut().zip(values) {
            column.push((!value.is_empty()).then_some(value));
        }
    }
    let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8View, true)).collect();
    let arrays: Vec<ArrayRef> =
        columns.into_iter().map(|column| Arc::new(StringViewArray::from(column)) as ArrayRef).collect();
    match RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays) {
        Ok(rows) => Some(Reference {
            name: name.to_owned(),
            rows,
            fingerprint: fingerprint::of_reference(&text.text),
        }),
        Err(error) => {
            found.add(&text.file, 0, error.to_string());
            None
        }
    }
}
