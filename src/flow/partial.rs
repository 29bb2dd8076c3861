//! Partial aggregates: what a stream keeps of a model that sums up a table's rows date by date, so that appended rows cost
//! their own number and not that of the whole date.
//!
//! A model *sums up* an input if its query aggregates the input's rows once, each row by itself up to there, with aggregates
//! whose result depends on no order: then the aggregate's states over some rows and over the others, put together, are the
//! states over all (the partial and final step of any parallel aggregation; Gray et al., Data Cube, 1997: distributive and
//! algebraic functions). What comes after the aggregate is computed from the states each time.
//!
//! The rows are those of computing the date again. States are used only where the log says that since they were made
//! nothing has changed but what this process has appended; else they are made anew from the whole date.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use datafusion::prelude::SessionContext;

use super::model::only_dates;
use super::recent::Appended;
use super::row_wise::{is_row_wise, num_scans};
use super::{Run, dirty, inputs};
use crate::error::{Error, Result};
use crate::project::model::{Model, Span};
use crate::project::sql::TableName;

/// Aggregates whose result does not depend on the order of exact values.
const ORDERLESS: [&str; 7] = ["sum", "count", "min", "max", "avg", "bool_and", "bool_or"];

/// What is kept of all models.
#[derive(Debug, Default)]
pub struct Partials {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The input that a model sums up, if it does.
    summed: HashMap<TableName, Option<TableName>>,
    kept: HashMap<TableName, BTreeMap<i32, Partial>>,
}

/// The states of one model's aggregate over one date.
#[derive(Debug, Clone)]
pub struct Partial {
    /// The versions of the model's inputs that they reflect.
    versions: BTreeMap<String, i64>,
    states: Vec<RecordBatch>,
    /// Made from kept states and appended rows.
    pub is_continued: bool,
}

impl Partials {
    fn with<T>(&self, read: impl FnOnce(&mut Inner) -> T) -> T {
        read(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// States that a commit has made good.
    pub fn keep(&self, model: &TableName, partials: BTreeMap<i32, Partial>) {
        self.with(|inner| inner.kept.entry(model.clone()).or_default().extend(partials));
    }

    /// Lets go of the dates before this one.
    pub fn forget_before(&self, date: i32) {
        self.with(|inner| {
            for kept in inner.kept.values_mut() {
                kept.retain(|kept, _| *kept >= date);
            }
        });
    }

    /// Lets go of everything.
    pub fn forget(&self) {
        self.with(|inner| inner.kept.clear());
    }
}

/// The input that `model` sums up; `None` where its query has another form.
///
/// # Errors
/// Those of planning.
pub async fn summed_input(run: &Run, partials: &Partials, model: &Model) -> Result<Option<TableName>> {
    if let Some(known) = partials.with(|inner| inner.summed.get(&model.table).cloned()) {
        return Ok(known);
    }
    let by_date: Vec<&TableName> = model
        .inputs
        .iter()
        .filter(|(input, span)| **span == Span::SAME_DATE && run.project.model(input).is_some())
        .map(|(input, _)| input)
        .collect();
    let mut found = None;
    if model.is_partitioned() && !by_date.is_empty() {
        let context = inputs::model_context(run, model, Some(&BTreeSet::new())).await?;
        let plan = context.sql(&model.sql).await?.into_optimized_plan()?;
        found = by_date.into_iter().find(|input| sums_up(&plan, input)).cloned();
    }
    partials.with(|inner| inner.summed.insert(model.table.clone(), found.clone()));
    Ok(found)
}

/// Whether the plan has one aggregate, which is over the rows of `input`, each by itself.
fn sums_up(plan: &LogicalPlan, input: &TableName) -> bool {
    if num_scans(plan, input) != Some(1) {
        return false;
    }
    let mut aggregates = Vec::new();
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            aggregates.push(aggregate.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match aggregates.as_slice() {
        [aggregate] if walked.is_ok() => {
            num_scans(&aggregate.input, input) == Some(1)
                && is_row_wise(&aggregate.input, input)
                && aggregate.aggr_expr.iter().all(|function| depends_on_no_order(function, aggregate))
        }
        _ => false,
    }
}

fn depends_on_no_order(function: &Expr, aggregate: &Aggregate) -> bool {
    let function = match function {
        Expr::Alias(alias) => &alias.expr,
        other => other,
    };
    let Expr::AggregateFunction(function) = function else {
        return false;
    };
    let (name, params) = (function.func.name(), &function.params);
    if params.distinct {
        return false;
    }
    if name == "array_agg" {
        return !params.order_by.is_empty();
    }
    let is_exact = |argument: &Expr| {
        use datafusion::logical_expr::ExprSchemable;
        // sums of floats depend on the order; the larger of two does not
        matches!(name, "count" | "min" | "max")
            || argument.get_type(aggregate.input.schema()).is_ok_and(|found| {
                !matches!(found, DataType::Float16 | DataType::Float32 | DataType::Float64)
            })
    };
    ORDERLESS.contains(&name) && params.args.iter().all(is_exact)
}

/// The rows of one date of a model that sums up `input`, and the states that they were made from.
///
/// # Errors
/// Those of the query and of the stores.
pub async fn rows_of(
    run: &Run,
    (partials, appended): (&Partials, &Appended),
    model: &Model,
    input: &TableName,
    date: i32,
) -> Result<(SendableRecordBatchStream, Partial)> {
    let versions = dirty::positions(run, model)?;
    let kept = partials.with(|inner| inner.kept.get(&model.table)?.get(&date).cloned());
    let mut added = None;
    if let Some(kept) = &kept {
        added = added_since(run, appended, kept, &versions, input, date).await?;
    }
    let dates = BTreeSet::from([date]);
    let context = match &added {
        Some(rows) => inputs::context_of_rows(run, model, &dates, input, rows.clone()).await?,
        None => inputs::model_context(run, model, Some(&dates)).await?,
    };
    let context = SessionContext::new_with_state(in_two_steps(context.state()));
    let plan = context.sql(&model.sql).await?.create_physical_plan().await?;
    let partial = partial_step(&plan)
        .ok_or_else(|| Error::bug(format!("the plan of `{}` has no partial aggregate", model.table)))?;
    let tasks = context.task_ctx();
    let mut states = collect(Arc::clone(&partial) as Arc<dyn ExecutionPlan>, Arc::clone(&tasks)).await?;
    if let (Some(kept), true) = (kept, added.is_some()) {
        states.extend(kept.states);
    }
    let states = collect(reduced(&partial, states)?, Arc::clone(&tasks)).await?;
    let source: Arc<dyn ExecutionPlan> =
        MemorySourceConfig::try_new_exec(std::slice::from_ref(&states), partial.schema(), None)?;
    let rest = plan
        .transform_down(|node| {
            Ok(match is_partial(&node) {
                true => Transformed::new(Arc::clone(&source), true, TreeNodeRecursion::Stop),
                false => Transformed::no(node),
            })
        })
        .data()?;
    Ok((execute_stream(rest, tasks)?, Partial { versions, states, is_continued: added.is_some() }))
}

/// The rows of `date` that this process has appended to `input` since the states were made; `None` where anything else
/// has changed.
async fn added_since(
    run: &Run,
    appended: &Appended,
    kept: &Partial,
    versions: &BTreeMap<String, i64>,
    input: &TableName,
    date: i32,
) -> Result<Option<Vec<RecordBatch>>> {
    let name = input.to_string();
    let are_others_the_same =
        versions.iter().all(|(table, version)| *table == name || kept.versions.get(table) == Some(version));
    let Some(since) = kept.versions.get(&name).filter(|_| are_others_the_same) else {
        return Ok(None);
    };
    let Some(commits) =
        run.table(input)?.commits_to(&crate::lake::partition::date_text(date), *since).await?
    else {
        return Ok(None);
    };
    let mut added = Vec::new();
    for version in commits {
        match appended.get(&(input.clone(), version)) {
            Some(rows) => added.extend(rows.iter().cloned()),
            None => return Ok(None),
        }
    }
    // a commit may have appended to several dates
    let table = run.project.model(input);
    let table = table.ok_or_else(|| Error::bug(format!("`{input}` is no model's table")))?;
    let wanted = BTreeSet::from([date]);
    let of_date = added.iter().map(|batch| only_dates(batch, table, Some(&wanted)));
    of_date.collect::<Result<_>>().map(Some)
}

/// A state that leaves partial and final aggregates apart.
fn in_two_steps(state: SessionState) -> SessionState {
    let rules = state.physical_optimizers().iter();
    let rules = rules.filter(|rule| rule.name() != "CombinePartialFinalAggregate").cloned().collect();
    SessionStateBuilder::new_from_existing(state).with_physical_optimizer_rules(rules).build()
}

fn as_aggregate(plan: &Arc<dyn ExecutionPlan>) -> Option<&AggregateExec> {
    plan.downcast_ref::<AggregateExec>()
}

fn is_partial(plan: &Arc<dyn ExecutionPlan>) -> bool {
    as_aggregate(plan).is_some_and(|aggregate| *aggregate.mode() == AggregateMode::Partial)
}

fn partial_step(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<AggregateExec>> {
    if is_partial(plan) {
        return as_aggregate(plan).cloned().map(Arc::new);
    }
    plan.children().into_iter().find_map(partial_step)
}

/// One state per group in place of several.
fn reduced(partial: &AggregateExec, states: Vec<RecordBatch>) -> Result<Arc<dyn ExecutionPlan>> {
    let source = MemorySourceConfig::try_new_exec(&[states], partial.schema(), None)?;
    let functions = partial.aggr_expr().to_vec();
    let no_filters = vec![None; functions.len()];
    let reduced = AggregateExec::try_new(
        AggregateMode::PartialReduce,
        partial.group_expr().as_final(),
        functions,
        no_filters,
        source,
        partial.input_schema(),
    )?;
    Ok(Arc::new(reduced))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::datasource::MemTable;

    use super::*;
    use crate::engine;

    #[tokio::test]
    async fn one_aggregate_of_exact_values_sums_up_and_others_do_not() {
        let context = engine::context(&engine::planning_state());
        let events = TableName::new("silver", "events");
        let fields = vec![
            Field::new("site", DataType::Utf8View, true),
            Field::new("cost", DataType::Decimal128(18, 6), true),
            Field::new("heat", DataType::Float64, true),
            Field::new("day", DataType::Date32, true),
        ];
        for name in [&events, &TableName::new("silver", "sites")] {
            let table = MemTable::try_new(Arc::new(Schema::new(fields.clone())), vec![vec![]]).unwrap();
            engine::register(&context, name, Arc::new(table));
        }
        for (query, expected) in [
            (
                "select site, sum(cost) as c, count(*) as n, max(heat) as h from silver.events group by site",
                true,
            ),
            (
                "select site, sum(cost) filter (where heat > 1) as c from silver.events where day > '2025-01-01' group by site",
                true,
            ),
            (
                "with s as (select site, sum(cost) as c from silver.events group by site) select site, rank() over (order by c) as r from s",
                true,
            ),
            (
                "select e.site, sum(e.cost) as c from silver.events e join silver.sites s on e.site = s.site group by e.site",
                true,
            ),
            ("select site, array_agg(cost order by cost) as c from silver.events group by site", true),
            ("select site, array_agg(cost) as c from silver.events group by site", false),
            ("select site, sum(heat) as h from silver.events group by site", false),
            ("select site, avg(heat) as h from silver.events group by site", false),
            ("select site, count(distinct cost) as c from silver.events group by site", false),
            ("select site, median(cost) as c from silver.events group by site", false),
            ("select site, first_value(cost order by day) as c from silver.events group by site", false),
            ("select distinct site from silver.events", true),
            ("select site, cost from silver.events", false),
            (
                "select site, sum(cost) as c from (select site, cost from silver.events limit 3) group by site",
                false,
            ),
            (
                "with d as (select site, sum(cost) as c from silver.events group by site) select sum(c) as c from d",
                false,
            ),
            (
                "select a.site, sum(a.cost) as c from silver.events a join silver.events b on a.site = b.site group by a.site",
                false,
            ),
            ("select sum(cost) as c from silver.sites", false),
        ] {
            let plan = context.sql(query).await.unwrap().into_optimized_plan().unwrap();
            assert_eq!(sums_up(&plan, &events), expected, "{query}\n{plan}");
        }
    }
}
