//! The tables of a project and what leads from one to the other, as the site shows them: landing, bronze, silver, gold
//! and the serving tables. What is decided between bronze and silver (`accepted`, `versions`) is an edge, no node.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::project::Project;
use crate::project::lineage::{ColumnName, Lineage};
use crate::project::sql::{PARTITIONS_SUFFIX, TableName};
use crate::zone;

/// The place before bronze, as lineage calls it.
pub const LANDING: &str = "landing";

/// The place behind gold.
pub const SERVING: &str = "cassandra";

/// A table, or what stands for files and serving tables.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: TableName,
    pub layer: usize,
    pub is_view: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Atlas {
    pub nodes: Vec<Node>,
    /// From what is read to what reads it.
    pub edges: BTreeSet<(usize, usize)>,
    pub lineage: Lineage,
    /// What is computed from a column.
    pub readers: BTreeMap<ColumnName, BTreeSet<ColumnName>>,
}

/// The stored or declared table behind a name that a query uses.
pub fn shown_as(name: &TableName) -> TableName {
    let table = name.table.strip_suffix(PARTITIONS_SUFFIX).unwrap_or(&name.table);
    match name.schema.as_str() {
        zone::ACCEPTED | zone::VERSIONS => TableName::new(zone::BRONZE, table),
        zone => TableName::new(zone, table),
    }
}

impl Atlas {
    /// # Errors
    /// None for a project that was found correct.
    pub async fn of(project: &Project) -> Result<Atlas> {
        let lineage = Lineage::of(project).await?;
        let mut edges: BTreeSet<(TableName, TableName)> = BTreeSet::new();
        let mut names: BTreeSet<TableName> = BTreeSet::new();
        for (table, read) in &lineage.tables {
            names.insert(shown_as(table));
            for input in read {
                names.insert(shown_as(input));
                edges.insert((shown_as(input), shown_as(table)));
            }
        }
        for mart in &project.marts {
            let serving = TableName::new(SERVING, &mart.name);
            edges.insert((mart.gold(), serving.clone()));
            names.insert(serving);
        }
        edges.retain(|(from, to)| from != to);
        let layers = layers(project, &edges);
        let nodes: Vec<Node> = names
            .into_iter()
            .map(|name| Node {
                layer: layers.get(&name).copied().unwrap_or(0),
                is_view: project.model(&name).is_some_and(|model| model.is_view),
                name,
            })
            .collect();
        let at = |name: &TableName| nodes.binary_search_by(|node| node.name.cmp(name)).ok();
        let edges = edges.iter().filter_map(|(from, to)| at(from).zip(at(to))).collect();
        let mut readers: BTreeMap<ColumnName, BTreeSet<ColumnName>> = BTreeMap::new();
        for (column, sources) in &lineage.columns {
            for source in sources {
                readers.entry(source.clone()).or_default().insert(column.clone());
            }
        }
        Ok(Atlas { nodes, edges, lineage, readers })
    }

    pub fn find(&self, name: &TableName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    /// The tables that a table reads directly.
    pub fn inputs(&self, node: usize) -> impl Iterator<Item = &Node> {
        self.edges.iter().filter(move |(_, to)| *to == node).map(|(from, _)| &self.nodes[*from])
    }

    /// The tables that read it directly.
    pub fn outputs(&self, node: usize) -> impl Iterator<Item = &Node> {
        self.edges.iter().filter(move |(from, _)| *from == node).map(|(_, to)| &self.nodes[*to])
    }
}

/// The layer of each table: zones one after the other, and within silver and gold as many as their tables read each other.
fn layers(project: &Project, edges: &BTreeSet<(TableName, TableName)>) -> BTreeMap<TableName, usize> {
    let mut layers: BTreeMap<TableName, usize> = BTreeMap::new();
    for source in &project.sources {
        layers.insert(TableName::new(LANDING, &source.name), 0);
        layers.insert(TableName::new(zone::BRONZE, &source.name), 1);
    }
    for reference in &project.references {
        layers.insert(TableName::new(zone::REFERENCE, &reference.name), 1);
    }
    let mut next = 2;
    for zone in [zone::SILVER, zone::GOLD] {
        let mut last = next;
        // inputs come before outputs
        for model in project.models.iter().filter(|model| model.table.schema == zone) {
            let inputs = edges.iter().filter(|(from, to)| *to == model.table && from.schema == zone);
            let layer = inputs.filter_map(|(from, _)| layers.get(from)).map(|layer| layer + 1).max();
            let layer = layer.unwrap_or(next);
            layers.insert(model.table.clone(), layer);
            last = last.max(layer + 1);
        }
        next = last;
    }
    for mart in &project.marts {
        layers.insert(TableName::new(SERVING, &mart.name), next);
    }
    layers
}
