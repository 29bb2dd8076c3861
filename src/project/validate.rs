//! From what was written to what is valid. No data is touched; every problem is reported.

mod anomalies;
mod answers;
mod checks;
mod models;
mod sources;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::datasource::empty::EmptyTable;
use datafusion::prelude::{DataFrame, SessionContext};

use self::answers::{question, serving_tables};
use self::checks::checks;
use self::models::models;
use self::sources::{check_rules, reference, source};
use super::diagnostics::Diagnostics;
use super::read::{Text, Written};
use super::source::{Mode, Source, overlap};
use super::sql::{self, TableName};
use super::{Generator, Project, Reference, Watch, alerts, fingerprint, mart};
use crate::engine;
use crate::generate::query;
use crate::zone;

pub(super) async fn validate(folder: &Path, written: Written, found: &mut Diagnostics) -> Option<Project> {
    let limits = written.project.limits.clone();
    let mut references: Vec<Reference> = Vec::new();
    let mut broken: BTreeSet<TableName> = written.unread_tables().collect();
    for (name, text) in &written.references {
        match reference(name, text, found) {
            Some(reference) => references.push(reference),
            None => drop(broken.insert(TableName::new(zone::REFERENCE, name))),
        }
    }
    let mut sources: Vec<Source> = Vec::new();
    for (name, (text, written)) in &written.sources {
        let draft = source(name, text, written, &limits, found);
        if !draft.is_schema_known {
            let zones = [zone::BRONZE, zone::ACCEPTED, zone::VERSIONS, zone::QUARANTINE];
            broken.extend(zones.map(|zone| TableName::new(zone, name)));
        }
        sources.push(draft.source);
    }
    for (at, source) in sources.iter().enumerate() {
        if let Some(other) = sources[..at].iter().find(|other| overlap(&other.files, &source.files)) {
            let text = &written.sources[&source.name].0;
            let message = format!(
                "a file could belong to `{}` too, whose `files` are `{}`; narrow one of them",
                other.name, other.files
            );
            found.add_at(&text.file, &text.text, "files", message);
        }
    }
    for source in &mut sources {
        source.fingerprint = fingerprint::of_source(source, &references);
    }
    let mut planner = Planner::new(&sources, &references, broken);
    for source in &sources {
        let (text, written) = &written.sources[&source.name];
        check_rules(source, text, written, &planner, found).await;
    }
    let models = models(&written, &sources, &references, &mut planner, found).await;
    let tables = serving_tables(&written, &models, &planner, found);
    let checks = checks(&written, &models, &sources, &references, &planner, found).await;
    let mut questions = Vec::new();
    for (name, pair) in &written.questions {
        questions.extend(question(name, pair, &written, &tables, &planner, found).await);
    }
    let mut generators = Vec::new();
    for (name, text) in &written.generators {
        match sources.iter().find(|source| source.name == *name) {
            _ if planner.is_broken(zone::BRONZE, name) => found.not_checked(&text.file),
            None => found.add(&text.file, 0, format!("there is no source `{name}` to generate")),
            Some(source) => {
                for (line, message) in query::check(&text.text, &source.layout).await {
                    found.add(&text.file, line, message);
                }
            }
        }
        generators.push(Generator { source: name.clone(), file: text.file.clone(), sql: text.text.clone() });
    }
    for (name, text) in &written.publish {
        if planner.is_broken(zone::GOLD, name) || written.is_unread_table(name, &tables) {
            found.not_checked(&text.file);
        }
    }
    let marts = mart::marts(&written, &tables, &models, found);
    if let Some(serving) = &written.project.serving
        && !written.project_damage.touches("serving")
    {
        mart::check_serving(serving, &written.project_text, found);
    }
    if !written.project_damage.touches("alerts") {
        alerts::check(&written.project.alerts, &written.project_text, found);
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
        alerts: written.project.alerts,
        openlineage: written.project.openlineage,
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

fn told_of_inconstant(function: &str) -> String {
    format!(
        "`{function}` answers otherwise each time, so a rerun would change rows; take it from what landed"
    )
}

fn schema_of(frame: &DataFrame) -> SchemaRef {
    Arc::new(frame.schema().as_arrow().clone())
}

/// Plans queries over tables without rows.
struct Planner {
    context: SessionContext,
    /// Tables whose columns are not known, because something is wrong with them or with what they read.
    broken: BTreeSet<TableName>,
}

impl Planner {
    fn new(sources: &[Source], references: &[Reference], broken: BTreeSet<TableName>) -> Self {
        let context = engine::context(&engine::planning_state());
        let planner = Self { context, broken };
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
        let views = [(crate::ledger::STEPS, crate::ledger::steps_schema())];
        for (name, schema) in crate::ledger::schemas().into_iter().chain(views) {
            planner.add(zone::LEDGER, name, schema);
        }
        planner
    }

    fn add(&self, schema_name: &str, table: &str, schema: SchemaRef) {
        let provider = Arc::new(EmptyTable::new(schema));
        engine::register(&self.context, &TableName::new(schema_name, table), provider);
    }

    async fn frame(&self, text: &Text, found: &mut Diagnostics) -> Option<DataFrame> {
        match self.context.sql(&text.text).await {
            Ok(frame) => Some(frame),
            Err(error) => {
                let (line, message) = sql::locate(&text.text, &error);
                found.add(&text.file, line, message);
                None
            }
        }
    }

    async fn schema(&self, text: &Text, found: &mut Diagnostics) -> Option<SchemaRef> {
        self.frame(text, found).await.map(|frame| schema_of(&frame))
    }

    /// As [`Self::schema`], of a query whose rows the lake keeps: they may follow from nothing but its inputs.
    async fn lasting_schema(&self, text: &Text, found: &mut Diagnostics) -> Option<SchemaRef> {
        let frame = self.frame(text, found).await?;
        if let Some(function) = sql::inconstant(frame.logical_plan()) {
            found.add_at(&text.file, &text.text, &function, told_of_inconstant(&function));
        }
        Some(schema_of(&frame))
    }

    fn is_broken(&self, schema: &str, table: &str) -> bool {
        self.broken.contains(&TableName::new(schema, table))
    }

    /// Plans a query, unless it reads what is broken: then it would only repeat what is wrong there.
    async fn plan(&self, text: &Text, found: &mut Diagnostics) -> Option<SchemaRef> {
        let inputs = match sql::inputs(&text.text) {
            Ok(inputs) => inputs,
            Err((line, message)) => {
                found.add(&text.file, line, message);
                return None;
            }
        };
        if !inputs.is_disjoint(&self.broken) {
            found.not_checked(&text.file);
            return None;
        }
        self.schema(text, found).await
    }
}
