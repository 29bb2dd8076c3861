//! Sources and reference tables: columns, keys, times, rules.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::error::DataFusionError;

use super::{Planner, told_of_inconstant};
use crate::decode::{Column, Format, Layout, Type};
use crate::error::message_of;
use crate::project::diagnostics::Diagnostics;
use crate::project::lenient::{Lenient, line_of_key};
use crate::project::manifest::{FormatName, LatePolicy, ModeName, SourceManifest};
use crate::project::read::Text;
use crate::project::source::{Mode, Rule, Source, Warning};
use crate::project::sql;
use crate::project::stream::parse_duration;
use crate::project::{Reference, fingerprint};
use crate::type_name::type_name;
use crate::zone;

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

/// What a source's columns do not depend on.
const NOT_OF_THE_SCHEMA: [&str; 11] = [
    "description",
    "files",
    "format",
    "key",
    "partition",
    "event_time",
    "future_limit",
    "freshness",
    "money",
    "rules",
    "warnings",
];

/// A source as far as its TOML tells.
pub(super) struct Draft {
    pub source: Source,
    /// Whether it is right which columns it has, so that queries over it can be judged.
    pub is_schema_known: bool,
}

pub(super) fn source(
    name: &str,
    text: &Text,
    written: &Lenient<SourceManifest>,
    limits: &crate::project::manifest::Limits,
    found: &mut Diagnostics,
) -> Draft {
    let Lenient { manifest, damage } = written;
    let before = found.len();
    let mut columns: Vec<Column> = Vec::new();
    for column in &manifest.columns {
        let place = format!("name = \"{}\"", column.name);
        let mut add = |message: String| found.add_at(&text.file, &text.text, &place, message);
        let is_twice = columns.iter().any(|known| known.name == column.name);
        if is_twice {
            add(format!("the column `{}` is declared twice", column.name));
        }
        let is_reserved = BRONZE_COLUMNS.contains(&column.name.as_str())
            && !(column.name == "date" && manifest.partition == "date");
        if is_reserved || column.name.starts_with('_') {
            add(format!("the column name `{}` is the engine's; rename it in the files", column.name));
        }
        let ty = match Type::from_str(&column.type_name) {
            Ok(ty) => ty,
            // stands in, so that the column is not missed as well
            Err(message) => {
                if !column.type_name.is_empty() || !damage.touches("columns") {
                    add(message);
                }
                Type::Text
            }
        };
        if !is_twice {
            columns.push(Column { name: column.name.clone(), ty });
        }
    }
    let is_schema_known = found.len() == before && damage.is_within(&NOT_OF_THE_SCHEMA);
    let mut index = |column: &str, what: &str| {
        let at = columns.iter().position(|declared| declared.name == column);
        if at.is_none() && !damage.touches("columns") {
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
    let has_partition = !damage.touches("partition");
    let partition = has_partition.then(|| index(&manifest.partition, "the partition column")).flatten();
    let event_time = manifest.event_time.as_ref().and_then(|name| index(name, "the event time"));
    if manifest.key.is_empty() && !damage.touches("key") {
        found.add(&text.file, line_of_key(&text.text, "key"), "a source needs a `key`");
    }
    // of columns with problems the type may be another
    for at in money.iter().filter(|_| is_schema_known) {
        if !matches!(columns[*at].ty, Type::Decimal { scale: 6, .. }) {
            let message = format!(
                "the money column `{}` must be a decimal with 6 digits after the point",
                columns[*at].name
            );
            found.add_at(&text.file, &text.text, "money", message);
        }
    }
    if let Some(at) = partition.filter(|_| is_schema_known)
        && !matches!(columns[at].ty, Type::Date | Type::Timestamp)
    {
        found.add_at(
            &text.file,
            &text.text,
            "partition",
            "the partition column must be a date or a timestamp",
        );
    }
    if let Some(at) = event_time.filter(|_| is_schema_known)
        && columns[at].ty != Type::Timestamp
    {
        found.add_at(&text.file, &text.text, "event_time", "the event time must be a timestamp");
    }
    let future_limit = duration(manifest.future_limit.as_deref().unwrap_or("1 day"), text, found);
    let watermark_delay = manifest.watermark_delay.as_deref().and_then(|delay| duration(delay, text, found));
    if watermark_delay.is_some() && manifest.event_time.is_none() && !damage.touches("event_time") {
        found.add_at(&text.file, &text.text, "watermark_delay", "a watermark needs an `event_time`");
    }
    if manifest.watermark_delay.is_none()
        && manifest.late == LatePolicy::Quarantine
        && !damage.touches("watermark_delay")
    {
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
        .filter(|column| column.required)
        .filter_map(|column| columns.iter().position(|known| known.name == column.name))
        .filter(|at| !key.contains(at))
        .collect();
    if let Some(partition) = partition
        && found.len() == before
        && !damage.touches("columns")
        && !damage.touches("key")
        && !key.contains(&partition)
        && !required.contains(&partition)
    {
        found.add_at(&text.file, &text.text, &manifest.partition, "the partition column must be `required`");
    }
    let layout = Layout {
        format: match manifest.format {
            FormatName::Jsonl => Format::Jsonl,
            FormatName::Csv => Format::Csv,
        },
        columns,
        key,
        required,
        // where it is not known there is a problem, and the source is never read
        partition: partition.unwrap_or(0),
        event_time,
        future_limit_micros: future_limit.unwrap_or(0),
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
    let source = Source {
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
    };
    Draft { source, is_schema_known }
}

/// `2 hours`, in microseconds.
pub(super) fn duration(written: &str, text: &Text, found: &mut Diagnostics) -> Option<i64> {
    let parsed = parse_duration(written)
        .filter(|_| !written.contains("milli"))
        .and_then(|duration| i64::try_from(duration.as_micros()).ok());
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

pub(super) async fn check_rules(
    source: &Source,
    text: &Text,
    written: &Lenient<SourceManifest>,
    planner: &Planner,
    found: &mut Diagnostics,
) {
    let is_schema_known = !planner.is_broken(zone::BRONZE, &source.name);
    let Lenient { manifest, damage } = written;
    let has_all_names =
        !manifest.columns.is_empty() && manifest.columns.iter().all(|column| !column.name.is_empty());
    // what is not there has been told already
    let is_told = |text: &str| text.is_empty() && (damage.touches("rules") || damage.touches("warnings"));
    let rules = source.rules.iter().map(|rule| (&rule.error_type, &rule.when));
    let warnings = source.warnings.iter().map(|warning| (&warning.name, &warning.when));
    let mut names = HashSet::new();
    for (name, when) in rules.chain(warnings).filter(|(name, _)| !is_told(name)) {
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
        if is_told(when) || !has_all_names {
            continue;
        }
        let query = format!("select ({when}) as hit from bronze.{}", source.name);
        let planned = planner.context.sql(&query).await;
        if let Some(function) = planned.as_ref().ok().and_then(|frame| sql::inconstant(frame.logical_plan()))
        {
            found.add_at(&text.file, &text.text, &function, told_of_inconstant(&function));
        }
        let kind = planned.map(|frame| frame.schema().field(0).data_type().clone());
        match kind {
            Ok(DataType::Boolean) => {}
            Ok(_) if !is_schema_known => {}
            Ok(other) => found.add_at(
                &text.file,
                &text.text,
                name,
                format!("`when` of `{name}` is `{}`, not boolean", type_name(&other)),
            ),
            // where the columns' types are not known, only their names count
            Err(error) if !is_schema_known && !is_unknown_column(&error) => {}
            Err(error) => {
                let message = format!("`when` of `{name}`: {}", message_of(&error));
                found.add_at(&text.file, &text.text, name, message);
            }
        }
    }
}

fn is_unknown_column(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::SchemaError(..))
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
        if line.contains('"') {
            found.add(&text.file, index + 1, "values are plain: no quotes");
            return None;
        }
        if values.len() != names.len() {
            let message = format!("expected {} values, found {}", names.len(), values.len());
            found.add(&text.file, index + 1, message);
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
