//! Models: in reading order, with the columns and inputs that their SQL has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};

use super::Planner;
use super::sources::duration;
use crate::lake::schema::lake_schema;
use crate::project::diagnostics::Diagnostics;
use crate::project::lenient::line_of_key;
use crate::project::manifest::ModelManifest;
use crate::project::model::{Dates, Model, Span};
use crate::project::read::{Pair, Text, Written};
use crate::project::source::{Mode, Source};
use crate::project::sql::{self, PARTITIONS_SUFFIX, TableName};
use crate::project::{Reference, fingerprint, graph};
use crate::zone;

pub(super) async fn models(
    written: &Written,
    sources: &[Source],
    references: &[Reference],
    planner: &mut Planner,
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
                planner.broken.insert(table.clone());
                continue;
            }
        };
        let known = Known { pairs: &pairs, sources, references, broken: &planner.broken };
        if !check_zones(table, &inputs, &pair.code, &known, found) {
            planner.broken.insert(table.clone());
        }
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
        let (code, read) = (&pairs[&cycle[0]].code, cycle.get(1).unwrap_or(&cycle[0]));
        let message = format!("the models read each other in a cycle: {}", names.join(" → "));
        found.add_at(&code.file, &code.text, &read.table, message);
        // the cycle, and what reads it, can't be planned; everything else can
        planner.broken.extend(cycle.iter().cloned());
        let mut left_out: BTreeSet<TableName> = cycle.into_iter().collect();
        while let Some(reader) = stored
            .iter()
            .find(|(table, inputs)| !left_out.contains(*table) && !inputs.is_disjoint(&left_out))
            .map(|(table, _)| table.clone())
        {
            found.not_checked(&pairs[&reader].code.file);
            planner.broken.insert(reader.clone());
            left_out.insert(reader);
        }
        stored.retain(|table, _| !left_out.contains(table));
    };
    let mut models: Vec<Model> = Vec::new();
    for table in order {
        let pair = pairs[&table];
        if planner.broken.contains(&table) {
            continue;
        }
        let planned = match reads[&table].is_disjoint(&planner.broken) {
            true => model(&table, pair, &reads[&table], &models, sources, references, planner, found).await,
            false => {
                found.not_checked(&pair.code.file);
                None
            }
        };
        match planned {
            Some(model) => models.push(model),
            None => drop(planner.broken.insert(table.clone())),
        }
        if planner.broken.contains(&table) || pair.damage.touches("partition") {
            let name = format!("{}{PARTITIONS_SUFFIX}", table.table);
            planner.broken.insert(TableName::new(&table.schema, &name));
        }
    }
    models
}

/// `gold."m$partitions"` is about `gold.m`.
pub(super) fn without_suffix(table: &TableName) -> TableName {
    let name = table.table.strip_suffix(PARTITIONS_SUFFIX).unwrap_or(&table.table);
    TableName::new(&table.schema, name)
}

/// What a model may name.
struct Known<'a> {
    pairs: &'a BTreeMap<TableName, &'a Pair<ModelManifest>>,
    sources: &'a [Source],
    references: &'a [Reference],
    /// Tables that are declared, and wrong.
    broken: &'a BTreeSet<TableName>,
}

/// Whether every table that the model reads is there.
fn check_zones(
    table: &TableName,
    inputs: &BTreeSet<TableName>,
    code: &Text,
    known: &Known<'_>,
    found: &mut Diagnostics,
) -> bool {
    let Known { pairs, sources, references, broken } = known;
    let mut are_there = true;
    for input in inputs {
        let plain = without_suffix(input);
        let mut is_there = match plain.schema.as_str() {
            zone::ACCEPTED => sources.iter().any(|source| source.name == plain.table),
            zone::VERSIONS => {
                sources.iter().any(|source| source.name == plain.table && source.mode == Mode::Upserts)
            }
            zone::REFERENCE => references.iter().any(|reference| reference.name == plain.table),
            _ => pairs.contains_key(&plain),
        };
        is_there |= broken.contains(&plain);
        let allowed: &[&str] = match table.schema.as_str() {
            zone::SILVER => &[zone::ACCEPTED, zone::VERSIONS, zone::SILVER, zone::REFERENCE],
            _ => &[zone::SILVER, zone::GOLD, zone::REFERENCE],
        };
        let has_partitions = plain == *input
            || broken.contains(&plain)
            || pairs
                .get(&plain)
                .is_some_and(|pair| !pair.manifest.partition.is_empty() || pair.damage.touches("partition"));
        if !allowed.contains(&plain.schema.as_str()) {
            let message = format!("a {} model may read {}, not `{plain}`", table.schema, allowed.join(", "));
            found.add_at(&code.file, &code.text, &plain.table, message);
            are_there = false;
        } else if !is_there {
            found.add_at(&code.file, &code.text, &plain.table, format!("there is no table `{plain}`"));
            are_there = false;
        } else if !has_partitions {
            let message = format!("`{plain}` has no partitions: its TOML declares no `partition`");
            found.add_at(&code.file, &code.text, &plain.table, message);
            are_there = false;
        }
    }
    are_there
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
    let Pair { manifest, toml, damage, .. } = pair;
    let planned = planner.lasting_schema(&pair.code, found).await?;
    let schema = match lake_schema(&planned, &manifest.partition) {
        Ok(schema) => schema,
        Err(error) => {
            found.add(&pair.code.file, sql::line_of_names(&pair.code.text, error.message()), error.message());
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
    if manifest.key.is_empty() && !manifest.view && !damage.touches("key") && !damage.touches("view") {
        found.add(&toml.file, line_of_key(&toml.text, "key"), "a stored model needs a `key`");
    }
    let first_is_date = manifest.partition.first().is_none_or(|column| {
        schema.field_with_name(column).is_ok_and(|field| *field.data_type() == DataType::Date32)
    });
    if !first_is_date {
        found.add_at(&toml.file, &toml.text, "partition", "the first partition column must be a date");
    }
    if let Some(source) = &manifest.accounts_for
        && !planner.is_broken(zone::ACCEPTED, source)
    {
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

fn span_of(declared: Option<&crate::project::manifest::InputManifest>) -> Option<Span> {
    declared.map(|declared| {
        let [a, b] = declared.days_before;
        Span::Days { from: a.min(b), to: a.max(b) }
    })
}

pub(super) fn dates(
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
