//! From what was written to what is valid. No data is touched; every problem is reported.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::empty::EmptyTable;
use datafusion::prelude::SessionContext;

use super::cql_type::CqlType;
use super::diagnostics::Diagnostics;
use super::manifest::{FormatName, LatePolicy, ModeName, ModelManifest, SourceManifest};
use super::model::{Dates, Model, Span};
use super::read::{Pair, Text, Written};
use super::source::{Mode, Rule, Source, Warning};
use super::sql::{self, PARTITIONS_SUFFIX, TableName};
use super::{Check, Generator, Project, Question, Reference, Watch, cql, fingerprint, graph, mart};
use crate::decode::{Column, Format, Layout, Type};
use crate::engine;
use crate::generate::query;
use crate::lake::schema::lake_schema;
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

pub(super) async fn validate(folder: &Path, written: Written, found: &mut Diagnostics) -> Option<Project> {
    let limits = written.project.limits.clone();
    let mut sources: Vec<Source> = written
        .sources
        .iter()
        .filter_map(|(name, (text, manifest))| source(name, text, manifest, &limits, found))
        .collect();
    let references: Vec<Reference> =
        written.references.iter().filter_map(|(name, text)| reference(name, text, found)).collect();
    for source in &mut sources {
        source.fingerprint = fingerprint::of_source(source, &references);
    }
    let planner = Planner::new(&sources, &references);
    for source in &sources {
        check_rules(source, &written.sources[&source.name].0, &planner, found).await;
    }
    let models = models(&written, &sources, &references, &planner, found).await;
    let tables = serving_tables(&written, &models, found);
    let mut checks = Vec::new();
    for (name, pair) in &written.checks {
        planner.plan(&pair.code, found).await;
        checks.push(Check {
            name: name.clone(),
            file: pair.code.file.clone(),
            description: pair.manifest.description.clone(),
            severity: pair.manifest.severity,
            scope: pair.manifest.scope,
            sql: pair.code.text.clone(),
        });
    }
    let mut questions = Vec::new();
    for (name, pair) in &written.questions {
        questions.extend(question(name, pair, &tables, &planner, found).await);
    }
    let mut generators = Vec::new();
    for (name, text) in &written.generators {
        match sources.iter().find(|source| source.name == *name) {
            None => found.add(&text.file, 0, format!("there is no source `{name}` to generate")),
            Some(source) => {
                for (line, message) in query::check(&text.text, &source.layout).await {
                    found.add(&text.file, line, message);
                }
            }
        }
        generators.push(Generator { source: name.clone(), file: text.file.clone(), sql: text.text.clone() });
    }
    let marts = mart::marts(&written, &tables, &models, found);
    if let Some(serving) = &written.project.serving {
        mart::check_serving(serving, found);
    }
    let mut watches = Vec::new();
    for (name, text) in &written.watches {
        planner.plan(text, found).await;
        watches.push(Watch { name: name.clone(), sql: text.text.clone() });
    }
    Some(Project {
        folder: folder.to_path_buf(),
        name: written.project.project.name,
        description: written.project.project.description,
        landing: written.project.landing.uri,
        lake: written.project.lake.uri,
        limits,
        stream: written.project.stream,
        serving: written.project.serving,
        sources,
        models,
        references,
        checks,
        questions,
        marts,
        generators,
        watches,
    })
}

/// Plans queries over tables without rows.
struct Planner {
    context: SessionContext,
}

impl Planner {
    fn new(sources: &[Source], references: &[Reference]) -> Self {
        let context = engine::context(&engine::planning_state());
        let planner = Self { context };
        for source in sources {
            planner.add(zone::BRONZE, &source.name, source.bronze_schema());
            planner.add(zone::ACCEPTED, &source.name, source.bronze_schema());
            planner.add(zone::QUARANTINE, &source.name, source.quarantine_schema());
            if source.mode == Mode::Upserts {
                planner.add(zone::VERSIONS, &source.name, source.versions_schema());
            }
        }
        for reference in references {
            planner.add(zone::REFERENCE, &reference.name, reference.rows.schema());
        }
        for (name, schema) in crate::ledger::schemas() {
            planner.add("ledger", name, schema);
        }
        planner
    }

    fn add(&self, schema_name: &str, table: &str, schema: SchemaRef) {
        let provider = Arc::new(EmptyTable::new(schema));
        engine::register(&self.context, &TableName::new(schema_name, table), provider);
    }

    async fn schema(&self, text: &Text, found: &mut Diagnostics) -> Option<SchemaRef> {
        match self.context.sql(&text.text).await {
            Ok(frame) => Some(Arc::new(frame.schema().as_arrow().clone())),
            Err(error) => {
                let (line, message) = sql::locate(&text.text, &error);
                found.add(&text.file, line, message);
                None
            }
        }
    }

    async fn plan(&self, text: &Text, found: &mut Diagnostics) {
        match sql::inputs(&text.text) {
            Ok(_) => {
                self.schema(text, found).await;
            }
            Err((line, message)) => found.add(&text.file, line, message),
        }
    }
}

fn source(
    name: &str,
    text: &Text,
    manifest: &SourceManifest,
    limits: &super::manifest::Limits,
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
    let rule = |rule: &super::manifest::RuleManifest| Rule {
        error_type: rule.error_type.clone(),
        when: rule.when.clone(),
        reason: rule.reason.clone(),
    };
    let warning = |warning: &super::manifest::WarningManifest| Warning {
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
fn duration(written: &str, text: &Text, found: &mut Diagnostics) -> Option<i64> {
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

async fn check_rules(source: &Source, text: &Text, planner: &Planner, found: &mut Diagnostics) {
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

fn reference(name: &str, text: &Text, found: &mut Diagnostics) -> Option<Reference> {
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

async fn models(
    written: &Written,
    sources: &[Source],
    references: &[Reference],
    planner: &Planner,
    found: &mut Diagnostics,
) -> Vec<Model> {
    let zones = [(zone::SILVER, &written.silver), (zone::GOLD, &written.gold)];
    let pairs: BTreeMap<TableName, &Pair<ModelManifest>> = zones
        .iter()
        .flat_map(|(zone, pairs)| pairs.iter().map(|(name, pair)| (TableName::new(zone, name), pair)))
        .collect();
    let mut reads: BTreeMap<TableName, BTreeSet<TableName>> = BTreeMap::new();
    for (table, pair) in &pairs {
        let inputs = match sql::inputs(&pair.code.text) {
            Ok(inputs) => inputs,
            Err((line, message)) => {
                found.add(&pair.code.file, line, message);
                continue;
            }
        };
        check_zones(table, &inputs, &pair.code, &pairs, sources, references, found);
        reads.insert(table.clone(), inputs);
    }
    let mut stored: BTreeMap<TableName, BTreeSet<TableName>> = reads
        .iter()
        .map(|(table, inputs)| {
            let models = inputs.iter().map(without_suffix).filter(|input| reads.contains_key(input));
            (table.clone(), models.collect())
        })
        .collect();
    let order = loop {
        let cycle = match graph::order(&stored) {
            Ok(order) => break order,
            Err(cycle) => cycle,
        };
        let names: Vec<String> = cycle.iter().chain(cycle.first()).map(ToString::to_string).collect();
        let file = &pairs[&cycle[0]].code.file;
        found.add(file, 0, format!("the models read each other in a cycle: {}", names.join(" → ")));
        // the cycle, and what reads it, can't be planned; everything else can
        let mut left_out: BTreeSet<TableName> = cycle.into_iter().collect();
        while let Some(reader) = stored
            .iter()
            .find(|(table, inputs)| !left_out.contains(*table) && !inputs.is_disjoint(&left_out))
            .map(|(table, _)| table.clone())
        {
            left_out.insert(reader);
        }
        stored.retain(|table, _| !left_out.contains(table));
    };
    let mut models: Vec<Model> = Vec::new();
    for table in order {
        let pair = pairs[&table];
        let model = model(&table, pair, &reads[&table], &models, sources, references, planner, found).await;
        models.extend(model);
    }
    models
}

/// `gold."m$partitions"` is about `gold.m`.
fn without_suffix(table: &TableName) -> TableName {
    let name = table.table.strip_suffix(PARTITIONS_SUFFIX).unwrap_or(&table.table);
    TableName::new(&table.schema, name)
}

fn check_zones(
    table: &TableName,
    inputs: &BTreeSet<TableName>,
    code: &Text,
    pairs: &BTreeMap<TableName, &Pair<ModelManifest>>,
    sources: &[Source],
    references: &[Reference],
    found: &mut Diagnostics,
) {
    for input in inputs {
        let plain = without_suffix(input);
        let known = match plain.schema.as_str() {
            zone::ACCEPTED => sources.iter().any(|source| source.name == plain.table),
            zone::VERSIONS => {
                sources.iter().any(|source| source.name == plain.table && source.mode == Mode::Upserts)
            }
            zone::REFERENCE => references.iter().any(|reference| reference.name == plain.table),
            _ => pairs.contains_key(&plain),
        };
        let allowed: &[&str] = match table.schema.as_str() {
            zone::SILVER => &[zone::ACCEPTED, zone::VERSIONS, zone::SILVER, zone::REFERENCE],
            _ => &[zone::SILVER, zone::GOLD, zone::REFERENCE],
        };
        if !allowed.contains(&plain.schema.as_str()) {
            let message = format!("a {} model may read {}, not `{input}`", table.schema, allowed.join(", "));
            found.add_at(&code.file, &code.text, &plain.table, message);
        } else if !known {
            found.add_at(&code.file, &code.text, &plain.table, format!("there is no table `{input}`"));
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the arguments")]
async fn model(
    table: &TableName,
    pair: &Pair<ModelManifest>,
    reads: &BTreeSet<TableName>,
    earlier: &[Model],
    sources: &[Source],
    references: &[Reference],
    planner: &Planner,
    found: &mut Diagnostics,
) -> Option<Model> {
    let manifest = &pair.manifest;
    let toml = &pair.toml;
    let planned = planner.schema(&pair.code, found).await?;
    let schema = match lake_schema(&planned, &manifest.partition) {
        Ok(schema) => schema,
        Err(error) => {
            found.add(&pair.code.file, 0, error.message());
            return None;
        }
    };
    planner.add(&table.schema, &table.table, Arc::clone(&schema));
    if !manifest.partition.is_empty() {
        let num_file_columns = schema.fields().len() - manifest.partition.len();
        let fields = schema.fields()[num_file_columns..].to_vec();
        let name = format!("{}{PARTITIONS_SUFFIX}", table.table);
        planner.add(&table.schema, &name, Arc::new(Schema::new(fields)));
    }
    for (word, columns) in [("key", &manifest.key), ("partition", &manifest.partition)] {
        for column in columns {
            if schema.field_with_name(column).is_err() {
                found.add_at(
                    &toml.file,
                    &toml.text,
                    word,
                    format!("the {word} column `{column}` is not in the query's result"),
                );
            }
        }
    }
    for column in manifest.columns.keys() {
        if schema.field_with_name(column).is_err() {
            found.add_at(
                &toml.file,
                &toml.text,
                column,
                format!("the column `{column}` is not in the query's result"),
            );
        }
    }
    if manifest.key.is_empty() && !manifest.view {
        found.add(&toml.file, 0, "a stored model needs a `key`");
    }
    let first_is_date = manifest.partition.first().is_none_or(|column| {
        schema.field_with_name(column).is_ok_and(|field| *field.data_type() == DataType::Date32)
    });
    if !first_is_date {
        found.add_at(&toml.file, &toml.text, "partition", "the first partition column must be a date");
    }
    if let Some(source) = &manifest.accounts_for {
        check_accounts_for(source, &schema, toml, sources, found);
    }
    let inputs = stored_inputs(reads, earlier, manifest, toml, sources, found);
    let dates = dates(manifest, &inputs, toml, found);
    let freshness = manifest.freshness.as_deref().and_then(|objective| duration(objective, toml, found));
    let fingerprint = fingerprint::of_model(&pair.code.text, manifest, &schema, reads, earlier, references);
    Some(Model {
        table: table.clone(),
        file: pair.code.file.clone(),
        sql: pair.code.text.clone(),
        description: manifest.description.clone(),
        is_view: manifest.view,
        key: manifest.key.clone(),
        partition: manifest.partition.clone(),
        accounts_for: manifest.accounts_for.clone(),
        dates,
        inputs,
        column_descriptions: manifest.columns.clone(),
        schema: if schema.fields().is_empty() { Model::unresolved_schema() } else { schema },
        freshness,
        fingerprint,
    })
}

fn check_accounts_for(
    source: &str,
    schema: &SchemaRef,
    toml: &Text,
    sources: &[Source],
    found: &mut Diagnostics,
) {
    let Some(source) = sources.iter().find(|known| known.name == source) else {
        found.add_at(&toml.file, &toml.text, "accounts_for", format!("there is no source `{source}`"));
        return;
    };
    for money in source.money() {
        if schema.field_with_name(money).is_err() {
            found.add_at(
                &toml.file,
                &toml.text,
                "accounts_for",
                format!("the money column `{money}` of `{}` is not in the query's result", source.name),
            );
        }
    }
}

/// The stored tables behind a model: its own inputs and those of its views.
fn stored_inputs(
    reads: &BTreeSet<TableName>,
    earlier: &[Model],
    manifest: &ModelManifest,
    toml: &Text,
    sources: &[Source],
    found: &mut Diagnostics,
) -> BTreeMap<TableName, Span> {
    let mut inputs = BTreeMap::new();
    for input in reads {
        if input.schema == zone::REFERENCE {
            continue;
        }
        if input.table.ends_with(PARTITIONS_SUFFIX) {
            inputs.insert(input.clone(), Span::Partitions);
            continue;
        }
        let declared = manifest.inputs.get(&input.to_string());
        let is_dated = match earlier.iter().find(|model| model.table == *input) {
            Some(view) if view.is_view => {
                inputs.extend(view.inputs.iter().map(|(table, span)| {
                    (table.clone(), span_of(manifest.inputs.get(&table.to_string())).unwrap_or(*span))
                }));
                continue;
            }
            Some(model) => model.is_partitioned(),
            None => {
                let source = sources.iter().find(|source| source.name == input.table);
                input.schema == zone::ACCEPTED && source.is_some_and(|source| source.mode == Mode::Events)
            }
        };
        let span = match span_of(declared) {
            Some(span) => span,
            None if is_dated && (manifest.view || !manifest.partition.is_empty()) => Span::SAME_DATE,
            None => Span::Whole,
        };
        inputs.insert(input.clone(), span);
    }
    for name in manifest.inputs.keys() {
        let is_known = TableName::parse(name).is_some_and(|table| inputs.contains_key(&table));
        if !is_known {
            found.add_at(&toml.file, &toml.text, name, format!("the query does not read `{name}`"));
        }
    }
    inputs
}

fn span_of(declared: Option<&super::manifest::InputManifest>) -> Option<Span> {
    declared.map(|declared| {
        let [a, b] = declared.days_before;
        Span::Days { from: a.min(b), to: a.max(b) }
    })
}

fn dates(
    manifest: &ModelManifest,
    inputs: &BTreeMap<TableName, Span>,
    toml: &Text,
    found: &mut Diagnostics,
) -> Dates {
    let mut named = |word: &str, name: &Option<String>| {
        let name = name.as_ref()?;
        match TableName::parse(name).filter(|table| inputs.contains_key(table)) {
            Some(table) => Some(table),
            None => {
                found.add_at(&toml.file, &toml.text, word, format!("the query does not read `{name}`"));
                None
            }
        }
    };
    let of = named("dates_of", &manifest.dates_of);
    let calendar = named("calendar_of", &manifest.calendar_of);
    match (of, calendar) {
        (Some(table), _) => Dates::Of(table),
        (None, Some(table)) => Dates::CalendarOf(table),
        (None, None) => Dates::OfInputs,
    }
}

fn serving_tables(written: &Written, models: &[Model], found: &mut Diagnostics) -> Vec<cql::ServingTable> {
    let mut tables = Vec::new();
    for (name, text) in &written.tables {
        let table = match cql::parse_table(&text.text) {
            Ok(table) => table,
            Err(message) => {
                found.add(&text.file, 1, message);
                continue;
            }
        };
        if table.name != *name {
            found.add_at(
                &text.file,
                &text.text,
                &table.name,
                format!("the table is `{}`, the file `{name}`", table.name),
            );
        }
        let mart = models.iter().find(|model| model.table == TableName::new(zone::GOLD, name));
        match mart {
            None => found.add(&text.file, 0, format!("there is no mart `gold.{name}`")),
            Some(mart) => compare_columns(&table, mart, text, found),
        }
        tables.push(table);
    }
    tables
}

fn compare_columns(table: &cql::ServingTable, mart: &Model, text: &Text, found: &mut Diagnostics) {
    for (column, kind) in &table.columns {
        match mart.schema.field_with_name(column) {
            Err(_) => found.add_at(
                &text.file,
                &text.text,
                column,
                format!("`{}` has no column `{column}`", mart.table),
            ),
            Ok(field) if !fits(field.data_type(), kind) => {
                let message =
                    format!("`{column}` is `{kind}` here and `{}` in `{}`", field.data_type(), mart.table);
                found.add_at(&text.file, &text.text, column, message);
            }
            Ok(_) => {}
        }
    }
    for field in mart.schema.fields() {
        if !table.columns.iter().any(|(column, _)| column == field.name()) {
            found.add(&text.file, 0, format!("the column `{}` of `{}` is missing", field.name(), mart.table));
        }
    }
    for column in table.partition_key.iter().chain(table.clustering.iter().map(|(name, _)| name)) {
        if !table.columns.iter().any(|(declared, _)| declared == column) {
            found.add_at(
                &text.file,
                &text.text,
                "primary",
                format!("the key column `{column}` is not declared"),
            );
        }
    }
    let cql_key: BTreeSet<&String> =
        table.partition_key.iter().chain(table.clustering.iter().map(|(name, _)| name)).collect();
    if let Some(missing) = mart.key.iter().find(|column| !cql_key.contains(column)) {
        let message = format!(
            "the key column `{missing}` of `{}` is not in the primary key, so rows would be lost",
            mart.table
        );
        found.add_at(&text.file, &text.text, "primary", message);
    }
}

/// Whether a mart's column can be kept in a CQL column of that type without loss.
fn fits(data_type: &DataType, kind: &str) -> bool {
    CqlType::parse(kind).is_some_and(|kind| kind.keeps(data_type))
}

async fn question(
    name: &str,
    pair: &Pair<super::manifest::QuestionManifest>,
    tables: &[cql::ServingTable],
    planner: &Planner,
    found: &mut Diagnostics,
) -> Option<Question> {
    let code = &pair.code;
    let select = match cql::parse_select(&code.text, tables) {
        Ok(select) => select,
        Err(message) => {
            found.add(&code.file, 1, message);
            return None;
        }
    };
    if let Some(table) = tables.iter().find(|table| table.name == select.table) {
        for column in cql::unrestricted(&code.text, table) {
            let message = format!(
                "`{column}` is part of the partition key: fix it by `{column} = :{column}`, or add a table for the question"
            );
            found.add_at(&code.file, &code.text, "where", message);
        }
    }
    let parameters = &pair.manifest.parameters;
    for marker in &select.markers {
        if !parameters.contains_key(marker) {
            found.add_at(
                &code.file,
                &code.text,
                marker,
                format!("`:{marker}` is not declared in `{name}.toml`"),
            );
        }
    }
    for (parameter, declared) in parameters {
        if !select.markers.contains(parameter) {
            found.add_at(
                &pair.toml.file,
                &pair.toml.text,
                parameter,
                format!("the question does not use `:{parameter}`"),
            );
        }
        if let Err(message) = Type::from_str(&declared.type_name) {
            found.add_at(&pair.toml.file, &pair.toml.text, parameter, message);
        }
        if let Some(default) = &declared.default {
            let text = Text { file: pair.toml.file.clone(), text: default.clone() };
            planner.plan(&text, found).await;
        }
    }
    let gold = Text { file: code.file.clone(), text: select.gold_sql.clone() };
    planner.schema(&gold, found).await?;
    Some(Question {
        name: name.to_owned(),
        file: code.file.clone(),
        title: pair.manifest.title.clone(),
        parameters: parameters.iter().map(|(name, declared)| (name.clone(), declared.clone())).collect(),
        cql: code.text.clone(),
        gold_sql: select.gold_sql,
        table: select.table,
    })
}
