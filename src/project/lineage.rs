//! Where a column comes from: read off the planned query, column by column, with nothing declared twice.
//!
//! A column's sources are the columns whose *values* it is computed from. Conditions and joins decide which rows there
//! are; they are not followed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::{Distinct, Expr, JoinType, LogicalPlan};
use datafusion::prelude::SessionContext;

use super::Project;
use super::source::Mode;
use super::sql::{PARTITIONS_SUFFIX, TableName};
use crate::engine;
use crate::error::{During, Result};
use crate::zone;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ColumnName {
    pub table: TableName,
    pub column: String,
}

impl std::fmt::Display for ColumnName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.table, self.column)
    }
}

/// The sources of one output column.
type Sources = BTreeSet<ColumnName>;

/// Every column of every model, and of what decides over bronze, with the columns that it is computed from.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    pub columns: BTreeMap<ColumnName, Sources>,
    /// Tables and the tables that their queries read, for whatever purpose.
    pub tables: BTreeMap<TableName, BTreeSet<TableName>>,
}

impl Lineage {
    /// Reads it off a project's queries.
    ///
    /// # Errors
    /// None for a project that was found correct.
    pub async fn of(project: &Project) -> Result<Lineage> {
        let mut lineage = Lineage::default();
        let context = planning_context(project);
        for source in &project.sources {
            let bronze = TableName::new(zone::BRONZE, &source.name);
            let landing = TableName::new("landing", &source.name);
            for column in &source.layout.columns {
                lineage.add(
                    &bronze,
                    &column.name,
                    [ColumnName { table: landing.clone(), column: column.name.clone() }],
                );
            }
            lineage.tables.entry(bronze.clone()).or_default().insert(landing);
            let mut derived = vec![(zone::ACCEPTED, source.bronze_schema())];
            if source.mode == Mode::Upserts {
                derived.push((zone::VERSIONS, source.versions_schema()));
            }
            for (zone, schema) in derived {
                let table = TableName::new(zone, &source.name);
                for field in schema.fields() {
                    let same = ColumnName { table: bronze.clone(), column: field.name().clone() };
                    let is_landed = source.bronze_schema().field_with_name(field.name()).is_ok();
                    lineage.add(&table, field.name(), is_landed.then_some(same));
                }
                lineage.tables.entry(table).or_default().insert(bronze.clone());
            }
        }
        for model in &project.models {
            let plan = context.state().create_logical_plan(&model.sql).await;
            let plan = plan.during(|| format!("planning `{}`", model.table))?;
            let names = plan.schema().fields().iter().map(|field| field.name().clone());
            for (name, sources) in names.zip(outputs(&plan)) {
                lineage.add(&model.table, &name, sources);
            }
            let mut read = BTreeSet::new();
            tables_of(&plan, &mut read);
            lineage.tables.insert(model.table.clone(), read);
        }
        Ok(lineage)
    }

    fn add(&mut self, table: &TableName, column: &str, sources: impl IntoIterator<Item = ColumnName>) {
        let name = ColumnName { table: table.clone(), column: column.to_owned() };
        self.columns.entry(name).or_default().extend(sources);
    }

    /// What reads a column directly.
    pub fn readers(&self, column: &ColumnName) -> BTreeSet<ColumnName> {
        let readers = self.columns.iter().filter(|(_, sources)| sources.contains(column));
        readers.map(|(reader, _)| reader.clone()).collect()
    }

    /// The tables that read a table directly.
    pub fn table_readers(&self, table: &TableName) -> BTreeSet<TableName> {
        let readers = self.tables.iter().filter(|(_, read)| read.contains(table));
        readers.map(|(reader, _)| reader.clone()).collect()
    }
}

/// A context in which every query of the project can be planned and none can be run.
fn planning_context(project: &Project) -> SessionContext {
    let context = engine::context(&engine::planning_state());
    let add = |zone: &str, table: &str, schema| {
        engine::register(&context, &TableName::new(zone, table), Arc::new(EmptyTable::new(schema)));
    };
    for source in &project.sources {
        add(zone::ACCEPTED, &source.name, source.bronze_schema());
        if source.mode == Mode::Upserts {
            add(zone::VERSIONS, &source.name, source.versions_schema());
        }
    }
    for reference in &project.references {
        add(zone::REFERENCE, &reference.name, reference.rows.schema());
    }
    for model in &project.models {
        add(&model.table.schema, &model.table.table, Arc::clone(&model.schema));
        if model.is_partitioned() {
            let num_file_columns = model.schema.fields().len() - model.partition.len();
            let fields = model.schema.fields()[num_file_columns..].to_vec();
            let name = format!("{}{PARTITIONS_SUFFIX}", model.table.table);
            add(&model.table.schema, &name, Arc::new(Schema::new(fields)));
        }
    }
    context
}

fn scanned(plan: &LogicalPlan) -> Option<TableName> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let schema = scan.table_name.schema()?;
            let table = scan.table_name.table();
            Some(TableName::new(schema, table.strip_suffix(PARTITIONS_SUFFIX).unwrap_or(table)))
        }
        _ => None,
    }
}

/// The tables that a plan reads, those of its subqueries too.
fn tables_of(plan: &LogicalPlan, found: &mut BTreeSet<TableName>) {
    // the closure never fails, so the walk does not
    let _ = plan.apply_with_subqueries(|node| {
        found.extend(scanned(node));
        Ok(TreeNodeRecursion::Continue)
    });
}

/// The sources of each output column of a plan.
fn outputs(plan: &LogicalPlan) -> Vec<Sources> {
    let num_columns = plan.schema().fields().len();
    let columns = match plan {
        LogicalPlan::TableScan(_) => {
            let table = scanned(plan);
            let fields = plan.schema().fields().iter();
            fields
                .map(|field| {
                    let name =
                        |table: &TableName| ColumnName { table: table.clone(), column: field.name().clone() };
                    table.iter().map(name).collect()
                })
                .collect()
        }
        LogicalPlan::Projection(projection) => of_all(&projection.expr, &projection.input),
        LogicalPlan::Aggregate(aggregate) => {
            let mut columns = of_all(&aggregate.group_expr, &aggregate.input);
            columns.extend(of_all(&aggregate.aggr_expr, &aggregate.input));
            columns
        }
        LogicalPlan::Window(window) => {
            let mut columns = outputs(&window.input);
            columns.extend(of_all(&window.window_expr, &window.input));
            columns
        }
        LogicalPlan::Join(join) => {
            let (mut left, right) = (outputs(&join.left), outputs(&join.right));
            match join.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left,
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right,
                _ => {
                    left.extend(right);
                    left
                }
            }
        }
        LogicalPlan::Union(union) => {
            let mut columns = vec![Sources::new(); num_columns];
            for input in &union.inputs {
                for (column, sources) in columns.iter_mut().zip(outputs(input)) {
                    column.extend(sources);
                }
            }
            columns
        }
        LogicalPlan::Unnest(unnest) => {
            let input = outputs(&unnest.input);
            let of = |at: &usize| input.get(*at).cloned().unwrap_or_default();
            unnest.dependency_indices.iter().map(of).collect()
        }
        LogicalPlan::Distinct(Distinct::On(on)) => of_all(&on.select_expr, &on.input),
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => {
            plan.inputs().first().map(|input| outputs(input)).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    if columns.len() == num_columns {
        return columns;
    }
    // a kind of node that is not known: every column may come from every other
    let all: Sources = plan.inputs().iter().flat_map(|input| outputs(input)).flatten().collect();
    vec![all; num_columns]
}

fn of_all(expressions: &[Expr], input: &LogicalPlan) -> Vec<Sources> {
    let inputs = outputs(input);
    expressions.iter().map(|expression| of_expression(expression, input, &inputs)).collect()
}

fn of_expression(expression: &Expr, input: &LogicalPlan, inputs: &[Sources]) -> Sources {
    let mut found = Sources::new();
    let of_column = |column: &Column| {
        let at = input.schema().maybe_index_of_column(column);
        at.and_then(|at| inputs.get(at)).cloned().unwrap_or_default()
    };
    let _ = expression.apply(|part| {
        match part {
            Expr::Column(column) => found.extend(of_column(column)),
            Expr::ScalarSubquery(subquery) => found.extend(outputs(&subquery.subquery).into_iter().flatten()),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
