//! Events as <https://openlineage.io/spec/2-0-2/OpenLineage.json> has them.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::names::{Dataset, Names, stored_columns, stored_inputs};
use crate::flow::Run;
use crate::flow::checks::CheckResult;
use crate::flow::report::{Report, Step};
use crate::project::Project;
use crate::project::check::{Check, Finds, Kind, Outcome};
use crate::project::lineage::{ColumnName, Lineage};
use crate::project::sql::TableName;
use crate::zone;

/// Who makes the events.
pub const PRODUCER: &str = concat!("https://crates.io/crates/medallion/", env!("CARGO_PKG_VERSION"));

const SPEC: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/";

/// Of a run's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Start,
    Complete,
    Fail,
    Abort,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Start => "START",
            State::Complete => "COMPLETE",
            State::Fail => "FAIL",
            State::Abort => "ABORT",
        }
    }
}

/// A job's run that others are a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub namespace: String,
    pub job: String,
    pub run_id: String,
}

/// One run of a job.
#[derive(Debug, Clone)]
pub struct JobRun {
    pub id: Uuid,
    pub namespace: String,
    pub job: String,
    pub parent: Option<Parent>,
    /// Of the job.
    pub facets: Value,
    /// Of the run, beside `parent` and the engine.
    pub run_facets: Map<String, Value>,
}

impl JobRun {
    /// The event of a state; `inputs` and `outputs` are datasets with their facets.
    pub fn event(&self, state: State, time: i64, inputs: &[Value], outputs: &[Value]) -> Value {
        let mut facets = self.run_facets.clone();
        facets.insert("processing_engine".to_owned(), engine());
        if let Some(parent) = &self.parent {
            facets.insert("parent".to_owned(), parent_facet(parent));
        }
        json!({
            "eventType": state.as_str(),
            "eventTime": time_text(time),
            "producer": PRODUCER,
            "schemaURL": format!("{SPEC}RunEvent"),
            "run": {"runId": self.id.to_string(), "facets": facets},
            "job": {"namespace": self.namespace, "name": self.job, "facets": self.facets},
            "inputs": inputs,
            "outputs": outputs,
        })
    }

    pub fn as_parent(&self) -> Parent {
        Parent { namespace: self.namespace.clone(), job: self.job.clone(), run_id: self.id.to_string() }
    }
}

/// A facet with what every facet has; `schema` is `1-0-1/ErrorMessageRunFacet`.
pub fn facet(schema: &str, mut body: Value) -> Value {
    let name = schema.rsplit('/').next().unwrap_or(schema);
    if let Some(body) = body.as_object_mut() {
        body.insert("_producer".to_owned(), json!(PRODUCER));
        let url = format!("https://openlineage.io/spec/facets/{schema}.json#/$defs/{name}");
        body.insert("_schemaURL".to_owned(), json!(url));
    }
    body
}

fn engine() -> Value {
    let version = env!("CARGO_PKG_VERSION");
    facet("1-1-1/ProcessingEngineRunFacet", json!({"name": "medallion", "version": version}))
}

fn parent_facet(parent: &Parent) -> Value {
    facet(
        "1-2-0/ParentRunFacet",
        json!({"run": {"runId": parent.run_id}, "job": {"namespace": parent.namespace, "name": parent.job}}),
    )
}

/// `jobType`: `JOB`, `MODEL`, …
pub fn job_type(kind: &str, is_stream: bool) -> Value {
    let processing = if is_stream { "STREAMING" } else { "BATCH" };
    facet(
        "2-0-4/JobTypeJobFacet",
        json!({"processingType": processing, "integration": "MEDALLION", "jobType": kind}),
    )
}

pub fn error_message(message: &str) -> Value {
    facet("1-0-1/ErrorMessageRunFacet", json!({"message": message, "programmingLanguage": "rust"}))
}

/// Microseconds since the epoch as events have them.
pub fn time_text(micros: i64) -> String {
    let time = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// What a project's tables are, for events.
pub struct Described<'a> {
    pub project: &'a Project,
    pub lineage: &'a Lineage,
    pub names: &'a Names,
}

impl Described<'_> {
    /// A dataset without facets; `None` where its place is not known.
    pub fn dataset(&self, table: &TableName) -> Option<Dataset> {
        self.names.of(self.project, table)
    }

    /// What a table's query reads.
    pub fn inputs(&self, table: &TableName) -> Vec<Value> {
        let inputs = stored_inputs(self.project, self.lineage, table);
        inputs.iter().filter_map(|input| Some(self.dataset(input)?.to_json())).collect()
    }

    /// What the job of a table is.
    pub fn job_facets(&self, table: &TableName, is_stream: bool) -> Value {
        let mut facets = json!({"jobType": job_type("MODEL", is_stream)});
        if let Some(model) = self.project.model(table) {
            facets["sql"] = facet("1-1-0/SQLJobFacet", json!({"query": model.sql, "dialect": "datafusion"}));
        }
        facets
    }

    /// The table with columns, where they come from, and what it is about.
    pub fn output(&self, table: &TableName) -> Option<Value> {
        let mut dataset = self.dataset(table)?.to_json();
        let (schema, description, descriptions): (_, _, BTreeMap<String, String>) =
            match (self.project.model(table), self.project.source(&table.table)) {
                (Some(model), _) => {
                    let texts = model.column_descriptions.clone();
                    (model.schema.clone(), model.description.clone(), texts)
                }
                (None, Some(source)) if table.schema == zone::QUARANTINE => {
                    let text = format!("Refused records of {}.", source.name);
                    (source.quarantine_schema(), text, BTreeMap::new())
                }
                (None, Some(source)) => {
                    let names = source.layout.columns.iter().map(|column| column.name.clone());
                    let texts = names.zip(source.column_descriptions.iter().cloned()).collect();
                    (source.bronze_schema(), source.description.clone(), texts)
                }
                _ => return Some(dataset),
            };
        let fields: Vec<Value> = schema
            .fields()
            .iter()
            .map(|field| {
                let mut shown = json!({"name": field.name(), "type": field.data_type().to_string()});
                if let Some(text) = descriptions.get(field.name()).filter(|text| !text.is_empty()) {
                    shown["description"] = json!(text);
                }
                shown
            })
            .collect();
        let mut columns = Map::new();
        for field in schema.fields() {
            let name = ColumnName { table: table.clone(), column: field.name().clone() };
            let sources = stored_columns(self.project, self.lineage, &name);
            let inputs: Vec<Value> = sources
                .iter()
                .filter_map(|source| {
                    let dataset = self.dataset(&source.table)?;
                    Some(json!({
                        "namespace": dataset.namespace, "name": dataset.name, "field": source.column,
                        "transformations": [{"type": "DIRECT"}],
                    }))
                })
                .collect();
            if !inputs.is_empty() {
                columns.insert(field.name().clone(), json!({"inputFields": inputs}));
            }
        }
        let logical = json!([{"namespace": self.names.jobs, "name": table.to_string(), "type": "TABLE"}]);
        dataset["facets"] = json!({
            "schema": facet("1-2-0/SchemaDatasetFacet", json!({"fields": fields})),
            "symlinks": facet("1-0-1/SymlinksDatasetFacet", json!({"identifiers": logical})),
            "storage": facet(
                "1-0-1/StorageDatasetFacet", json!({"storageLayer": "delta", "fileFormat": "parquet"}),
            ),
        });
        if !columns.is_empty() {
            dataset["facets"]["columnLineage"] =
                facet("1-2-0/ColumnLineageDatasetFacet", json!({"fields": columns}));
        }
        if !description.is_empty() {
            dataset["facets"]["documentation"] =
                facet("1-1-0/DocumentationDatasetFacet", json!({"description": description}));
        }
        Some(dataset)
    }

    /// The table as a step has left it.
    fn written(&self, run: &Run, table: &TableName, rows: u64) -> Option<Value> {
        let mut dataset = self.output(table)?;
        if let Some(version) =
            run.table(table).ok().map(|table| table.version()).filter(|version| *version >= 0)
        {
            dataset["facets"]["version"] =
                facet("1-0-1/DatasetVersionDatasetFacet", json!({"datasetVersion": version.to_string()}));
        }
        dataset["outputFacets"] = json!({
            "outputStatistics": facet("1-0-2/OutputStatisticsOutputDatasetFacet", json!({"rowCount": rows})),
        });
        Some(dataset)
    }

    /// What a step read and wrote.
    pub fn step(&self, run: &Run, step: &Step) -> Option<(TableName, Vec<Value>, Vec<Value>)> {
        let table = TableName::parse(&step.table)?;
        let mut inputs = self.inputs(&table);
        let mut outputs = vec![self.written(run, &table, step.rows)?];
        if let Some(landed) = step.landed {
            for input in &mut inputs {
                input["inputFacets"] = json!({
                    "inputStatistics": facet(
                        "1-0-0/InputStatisticsInputDatasetFacet",
                        json!({"rowCount": landed, "fileCount": step.files}),
                    ),
                });
            }
            if step.quarantined.unwrap_or(0) > 0 {
                let quarantine = TableName::new(zone::QUARANTINE, &table.table);
                outputs.extend(self.written(run, &quarantine, step.quarantined.unwrap_or(0)));
            }
        }
        Some((table, inputs, outputs))
    }

    /// The tables that checks have read, with what the checks found.
    pub fn checked(&self, report: &Report) -> Vec<Value> {
        let mut by_dataset: std::collections::BTreeMap<Dataset, Vec<Value>> = Default::default();
        for result in &report.checks {
            let Some(check) = self.project.checks.iter().find(|check| check.name == result.name) else {
                continue;
            };
            let mut tables: std::collections::BTreeSet<TableName> = Default::default();
            for name in &check.reads {
                match self.project.model(name).is_some_and(|model| model.is_view) {
                    true => tables.extend(stored_inputs(self.project, self.lineage, name)),
                    false => {
                        tables.insert(crate::flow::dirty::stored_table(name));
                    }
                }
            }
            for dataset in tables.iter().filter_map(|table| self.dataset(table)) {
                by_dataset.entry(dataset).or_default().push(assertion(result, check));
            }
        }
        let datasets = by_dataset.into_iter().map(|(dataset, assertions)| {
            let mut shown = dataset.to_json();
            shown["inputFacets"] = json!({
                "dataQualityAssertions": facet(
                    "1-1-0/DataQualityAssertionsDatasetFacet", json!({"assertions": assertions}),
                ),
            });
            shown
        });
        datasets.collect()
    }

    /// The job event of a model: what it would do, without a run.
    pub fn job_event(&self, table: &TableName, time: i64) -> Option<Value> {
        Some(json!({
            "eventTime": time_text(time),
            "producer": PRODUCER,
            "schemaURL": format!("{SPEC}JobEvent"),
            "job": {
                "namespace": self.names.jobs,
                "name": table.to_string(),
                "facets": self.job_facets(table, false),
            },
            "inputs": self.inputs(table),
            "outputs": [self.output(table)?],
        }))
    }
}

fn assertion(result: &CheckResult, check: &Check) -> Value {
    let mut shown = json!({
        "assertion": match &check.finds {
            Finds::Rows(_) => "custom_sql",
            Finds::Deviations(anomaly) => match anomaly.kind {
                Kind::Volume => "row_count",
                Kind::NullRate { .. } => "null_rate",
                Kind::Freshness { .. } => "freshness",
            },
        },
        "name": result.name,
        "description": result.description,
        "success": result.outcome == Outcome::Passed,
        "severity": if result.severity == "fail" { "error" } else { "warn" },
        "expected": check.tolerance.warn_above.to_string(),
        "actual": result.rows.to_string(),
    });
    match &check.finds {
        Finds::Rows(query) => {
            shown["content"] = json!(query);
            shown["contentType"] = json!("sql");
        }
        Finds::Deviations(anomaly) => {
            if let Kind::NullRate { column } = &anomaly.kind {
                shown["column"] = json!(column);
            }
        }
    }
    shown
}
