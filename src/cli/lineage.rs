//! `medallion lineage`

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::Places;
use super::output::{Format, print_text};
use crate::error::{Error, Result};
use crate::notify::openlineage;
use crate::notify::openlineage::event::Described;
use crate::project::Project;
use crate::project::lineage::{ColumnName, Lineage};
use crate::project::sql::TableName;

#[derive(Debug, Args)]
#[command(
    after_help = "Read off the planned queries. Of a column: the columns that its values are computed from (conditions and\n\
    joins are not followed). Of a table: the tables that its query reads.\n\n\
    Examples:\n  \
    medallion lineage gold.finops_daily_usage.total_cost_usd       where a number comes from\n  \
    medallion lineage bronze.usage_events.cost_usd_increment --down   what a column of landing ends up in\n  \
    medallion lineage --as mermaid                                 a picture of all tables\n  \
    medallion lineage gold.revenue_monthly --as openlineage        for a catalogue"
)]
pub struct LineageArgs {
    /// `zone.table` or `zone.table.column`; all tables where left out
    what: Option<String>,
    /// What it comes from (this is the default)
    #[arg(long, conflicts_with = "down")]
    up: bool,
    /// What comes from it
    #[arg(long)]
    down: bool,
    /// How it is written
    #[arg(long = "as", value_enum, default_value = "text")]
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
    Mermaid,
    /// One OpenLineage job event per model
    Openlineage,
}

/// Nodes, and from each what is one step further in the direction asked for.
type Steps = BTreeMap<String, BTreeSet<String>>;

pub async fn run(places: &Places, args: &LineageArgs) -> Result<u8> {
    let project = places.load().await?;
    let lineage = Lineage::of(&project).await?;
    let target = args.what.as_deref().map(|text| Target::parse(text, &lineage)).transpose()?;
    if args.form == Form::Openlineage {
        let table = target.as_ref().map(Target::table);
        print_text(&openlineage(places, &project, &lineage, table))?;
        return Ok(0);
    }
    let steps = match &target {
        None => all_tables(&lineage),
        Some(Target::Table(table)) => follow(table.clone(), |table| match args.down {
            true => lineage.table_readers(table),
            false => lineage.tables.get(table).cloned().unwrap_or_default(),
        }),
        Some(Target::Column(column)) => follow(column.clone(), |column| match args.down {
            true => lineage.readers(column),
            false => lineage.columns.get(column).cloned().unwrap_or_default(),
        }),
    };
    let form = if places.format == Format::Json { Form::Json } else { args.form };
    let text = match form {
        Form::Json => format!("{}\n", serde_json::to_string_pretty(&as_json(&steps, args.down))?),
        Form::Mermaid => as_mermaid(&steps, args.down),
        _ => match &target {
            Some(target) => as_tree(&target.to_string(), &steps),
            None => as_list(&steps),
        },
    };
    print_text(&text)?;
    Ok(0)
}

enum Target {
    Table(TableName),
    Column(ColumnName),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Table(table) => table.fmt(f),
            Target::Column(column) => column.fmt(f),
        }
    }
}

impl Target {
    fn table(&self) -> &TableName {
        match self {
            Target::Table(table) => table,
            Target::Column(column) => &column.table,
        }
    }

    fn parse(text: &str, lineage: &Lineage) -> Result<Target> {
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let unknown = |what: &str, known: Vec<String>| {
            Err(Error::usage(format!("there is no {what} `{text}`, known: {}", known.join(", "))))
        };
        let (table, column) = match parts.as_slice() {
            [zone, table] => (TableName::new(zone, table), None),
            [zone, table, column] => (TableName::new(zone, table), Some(*column)),
            _ => {
                return Err(Error::usage(format!(
                    "`{text}` is no table; write it as `zone.table` or `zone.table.column`"
                )));
            }
        };
        if !lineage.tables.contains_key(&table) {
            return unknown("table", lineage.tables.keys().map(ToString::to_string).collect());
        }
        let Some(column) = column else {
            return Ok(Target::Table(table));
        };
        let name = ColumnName { table: table.clone(), column: column.to_owned() };
        if !lineage.columns.contains_key(&name) {
            let columns = lineage.columns.keys().filter(|known| known.table == table);
            return unknown("column", columns.map(|known| known.column.clone()).collect());
        }
        Ok(Target::Column(name))
    }
}

/// Everything that is reached from `start`.
fn follow<N: Ord + Clone + ToString>(start: N, next: impl Fn(&N) -> BTreeSet<N>) -> Steps {
    let mut steps = Steps::new();
    let mut seen = BTreeSet::from([start.clone()]);
    let mut waiting = vec![start];
    while let Some(node) = waiting.pop() {
        let further = next(&node);
        steps.insert(node.to_string(), further.iter().map(ToString::to_string).collect());
        waiting.extend(further.into_iter().filter(|node| seen.insert(node.clone())));
    }
    steps
}

fn all_tables(lineage: &Lineage) -> Steps {
    let text = |tables: &BTreeSet<TableName>| tables.iter().map(ToString::to_string).collect();
    lineage.tables.iter().map(|(table, read)| (table.to_string(), text(read))).collect()
}

/// The edges in the direction of the data: from what is read to what reads it.
fn edges(steps: &Steps, is_down: bool) -> BTreeSet<(&str, &str)> {
    let pairs = steps
        .iter()
        .flat_map(|(node, further)| further.iter().map(move |other| (node.as_str(), other.as_str())));
    pairs.map(|(node, other)| if is_down { (node, other) } else { (other, node) }).collect()
}

fn as_json(steps: &Steps, is_down: bool) -> Value {
    let edges: Vec<Value> =
        edges(steps, is_down).into_iter().map(|(from, to)| json!({"from": from, "to": to})).collect();
    let nodes: BTreeSet<&String> = steps.keys().chain(steps.values().flatten()).collect();
    json!({"nodes": nodes, "edges": edges})
}

fn as_mermaid(steps: &Steps, is_down: bool) -> String {
    let nodes: BTreeSet<&String> = steps.keys().chain(steps.values().flatten()).collect();
    let ids: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(at, node)| (node.as_str(), at)).collect();
    let mut text = "flowchart LR\n".to_owned();
    for (node, id) in &ids {
        text.push_str(&format!("    n{id}[\"{}\"]\n", node.replace('"', "#quot;")));
    }
    for (from, to) in edges(steps, is_down) {
        text.push_str(&format!("    n{} --> n{}\n", ids[from], ids[to]));
    }
    text
}

fn as_list(steps: &Steps) -> String {
    let lines = steps.iter().map(|(node, read)| {
        let read: Vec<&str> = read.iter().map(String::as_str).collect();
        format!("{node} ← {}\n", read.join(", "))
    });
    lines.collect()
}

/// Indented; what was shown already is not opened again.
fn as_tree(start: &str, steps: &Steps) -> String {
    let mut text = String::new();
    let mut shown = BTreeSet::new();
    let mut waiting = vec![(start.to_owned(), 0)];
    while let Some((node, depth)) = waiting.pop() {
        let further = steps.get(&node).filter(|further| !further.is_empty());
        let is_new = shown.insert(node.clone());
        let mark = if !is_new && further.is_some() { " (above)" } else { "" };
        text.push_str(&format!("{}{node}{mark}\n", "  ".repeat(depth)));
        if is_new {
            waiting.extend(further.into_iter().flatten().rev().map(|other| (other.clone(), depth + 1)));
        }
    }
    text
}

/// One job event per stored model, each on a line.
fn openlineage(places: &Places, project: &Project, lineage: &Lineage, only: Option<&TableName>) -> String {
    let told = places.told(project.lake.as_deref(), project.landing.as_deref());
    let names = openlineage::names(&project.name, &project.openlineage, told);
    let described = Described { project, lineage, names: &names };
    let time = chrono::Utc::now().timestamp_micros();
    let models = project.stored_models().filter(|model| only.is_none_or(|only| *only == model.table));
    let events = models.filter_map(|model| described.job_event(&model.table, time));
    events.map(|event| format!("{event}\n")).collect()
}
