//! Which landed lines are behind one row: read off the row's own query, by carrying file and line through its plan.
//!
//! The plan of a model is rewritten so that each row keeps the file and line of the silver row that it comes from. A node
//! that folds rows (an aggregate, a window, an unnest) is joined with its own unfolded input on the columns that it keeps.
//! A model that is read is opened in the place where it is read, until a table is reached whose rows are landed records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use datafusion::common::{Column, NullEquality, ScalarValue, TableReference};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, lit};
use datafusion::prelude::SessionContext;
use serde::Serialize;

use super::balance::decimal_text;
use super::decide::quoted;
use super::{Run, inputs};
use crate::engine;
use crate::error::{During, Error, Result};
use crate::project::model::{Model, Span};
use crate::project::sql::{PARTITIONS_SUFFIX, TableName};

const FILE: &str = "source_file";
const LINE: &str = "source_line";
/// Names of what is carried; no column of a project begins like this.
const CARRIED: &str = "__carried_";

/// A landed line behind a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    pub file: String,
    pub line: i64,
    /// Its amounts, as silver has them, by column.
    pub money: BTreeMap<String, String>,
}

/// The landed lines that one silver table gave to the row.
#[derive(Debug, Clone, Serialize)]
pub struct Behind {
    pub table: String,
    pub source: String,
    pub num_lines: usize,
    /// The sums of their amounts, by column.
    pub money: BTreeMap<String, String>,
    /// The row's columns that hold exactly that sum, by column of the lines.
    pub adds_up_to: BTreeMap<String, Vec<String>>,
    /// The first of them, by file and line.
    pub lines: Vec<Line>,
}

/// A row and what is behind it.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// Its one row, with its types.
    #[serde(skip)]
    pub row: RecordBatch,
    /// The tables on the way, from the row's own to those whose rows are landed records.
    pub hops: BTreeSet<String>,
    pub behind: Vec<Behind>,
    /// Tables whose rows can't be followed.
    pub not_followed: Vec<String>,
}

/// Explains the one row of a model's table that has these values.
///
/// # Errors
/// `Usage` where the table is no model's, a column is unknown, or the values fit no row or several.
pub async fn explain(
    run: &Run,
    table: &TableName,
    wanted: &[(String, String)],
    limit: usize,
) -> Result<Explained> {
    let target = run
        .project
        .model(table)
        .filter(|model| !model.is_view)
        .ok_or_else(|| Error::usage(format!("`{table}` is no stored model")))?;
    let mut values = Vec::new();
    for (name, text) in wanted {
        let field = target.schema.field_with_name(name).map_err(|_| {
            Error::usage(format!(
                "`{table}` has no column `{name}`; its key is `{}`",
                target.key.join("`, `")
            ))
        })?;
        let value = ScalarValue::try_from_string(text.clone(), field.data_type())
            .map_err(|error| Error::usage(format!("`{text}` is no value of `{name}`")).because(error))?;
        values.push((name.clone(), value));
    }
    let mut hops = BTreeSet::new();
    let context = engine::context(&run.state);
    let all: BTreeSet<TableName> = reached(run, target, &mut hops);
    inputs::register_named(run, &context, &all).await?;
    let row = the_row(&context, target, &values).await?;
    let mut explained = Explained { row: row.clone(), hops, behind: Vec::new(), not_followed: Vec::new() };
    // the whole key, also where the caller gave less than that
    let values: Vec<(String, ScalarValue)> = target
        .key
        .iter()
        .filter_map(|name| Some((name, row.column_by_name(name)?)))
        .map(|(name, column)| Ok((name.clone(), ScalarValue::try_from_array(column, 0)?)))
        .collect::<Result<_>>()?;
    for base in all.iter().filter_map(|name| run.project.model(name)).filter(|model| is_landed(model)) {
        let money = money_of(run, base);
        let lines = behind(run, &context, target, base, &money, &values).await;
        match lines.during(|| format!("following `{table}` to `{}`", base.table)) {
            Ok(lines) => explained.behind.push(summed(base, &money, lines, &row, limit)),
            Err(error) => explained.not_followed.push(format!("{}: {error}", base.table)),
        }
    }
    explained.behind.retain(|behind| behind.num_lines > 0);
    Ok(explained)
}

/// Whether the table's rows are landed records, each with its file and line.
fn is_landed(model: &Model) -> bool {
    model.accounts_for.is_some() && [FILE, LINE].iter().all(|name| model.schema.field_with_name(name).is_ok())
}

/// The tables that a model's query reads, and theirs, up to those whose rows are landed records.
fn reached(run: &Run, target: &Model, hops: &mut BTreeSet<String>) -> BTreeSet<TableName> {
    let mut found = BTreeSet::from([target.table.clone()]);
    let mut waiting = vec![target];
    while let Some(model) = waiting.pop() {
        hops.insert(model.table.to_string());
        if is_landed(model) {
            continue;
        }
        for input in crate::project::sql::inputs(&model.sql).unwrap_or_default() {
            let plain = input.table.strip_suffix(PARTITIONS_SUFFIX).unwrap_or(&input.table);
            let next = run.project.model(&TableName::new(&input.schema, plain));
            if found.insert(input.clone())
                && let Some(next) = next.filter(|_| plain == input.table)
            {
                waiting.push(next);
            }
        }
    }
    found
}

async fn the_row(
    context: &SessionContext,
    target: &Model,
    values: &[(String, ScalarValue)],
) -> Result<RecordBatch> {
    let query = format!("select * from {}.{}", target.table.schema, quoted(&target.table.table));
    let mut frame = context.sql(&query).await?;
    for (name, value) in values {
        frame = frame.filter(same(Column::from_name(name), value))?;
    }
    let batches = frame.limit(0, Some(2))?.collect().await?;
    let rows: Vec<&RecordBatch> = batches.iter().filter(|batch| batch.num_rows() > 0).collect();
    match rows.as_slice() {
        [batch] if batch.num_rows() == 1 => Ok((*batch).clone()),
        [] => Err(Error::usage(format!("no row of `{}` has these values", target.table))),
        _ => Err(Error::usage(format!(
            "several rows of `{}` have these values; give its whole key: `{}`",
            target.table,
            target.key.join("`, `")
        ))),
    }
}

fn same(column: Column, value: &ScalarValue) -> Expr {
    match value.is_null() {
        true => Expr::Column(column).is_null(),
        false => Expr::Column(column).eq(lit(value.clone())),
    }
}

impl Explained {
    /// The row's values as people read them, by column.
    ///
    /// # Errors
    /// Where a value can't be shown.
    pub fn shown(&self) -> Result<BTreeMap<String, String>> {
        let schema = self.row.schema();
        let columns = schema.fields().iter().zip(self.row.columns());
        columns
            .map(|(field, column)| {
                Ok((field.name().clone(), arrow::util::display::array_value_to_string(column, 0)?))
            })
            .collect()
    }
}

/// The lines of `base` behind the row of `target` with these key values.
async fn behind(
    run: &Run,
    context: &SessionContext,
    target: &Model,
    base: &Model,
    money: &[String],
    values: &[(String, ScalarValue)],
) -> Result<Vec<(String, i64, Vec<i128>)>> {
    let mut tracer = Tracer { run, context, base, money, num_joins: 0 };
    let plan = match target.table == base.table {
        true => {
            let query = format!("select * from {}.{}", base.table.schema, quoted(&base.table.table));
            tracer.trace_scan(context.sql(&query).await?.logical_plan())?
        }
        false => Box::pin(tracer.trace_model(target)).await?,
    };
    let Some(plan) = plan else {
        return Ok(Vec::new());
    };
    let mut builder = LogicalPlanBuilder::from(plan);
    let columns: Vec<Column> = builder.schema().columns();
    for (name, value) in values {
        let at = target.schema.index_of(name)?;
        let column = columns
            .iter()
            .find(|column| column.name == *name)
            .or_else(|| columns.get(at))
            .ok_or_else(|| Error::bug(format!("`{name}` was lost")))?;
        builder = builder.filter(same(column.clone(), value))?;
    }
    let carried: Vec<Expr> =
        columns.iter().filter(|column| column.name.starts_with(CARRIED)).cloned().map(Expr::Column).collect();
    let plan = builder.project(carried)?.distinct()?.build()?;
    let mut found = Vec::new();
    for batch in context.execute_logical_plan(plan).await?.collect().await? {
        let column = |name: &str| {
            let wanted = format!("{CARRIED}{name}");
            batch.column_by_name(&wanted).ok_or_else(|| Error::bug(format!("`{wanted}` was lost")))
        };
        let (files, lines) = (column(FILE)?, column(LINE)?);
        let files = arrow::compute::cast(files, &DataType::Utf8View)?;
        for row in (0..batch.num_rows()).filter(|row| files.is_valid(*row)) {
            let mut amounts = Vec::new();
            for name in money {
                let amount = column(name)?.as_primitive::<Decimal128Type>();
                amounts.push(if amount.is_valid(row) { amount.value(row) } else { 0 });
            }
            let line = lines.as_primitive::<Int64Type>().value(row);
            found.push((files.as_string_view().value(row).to_owned(), line, amounts));
        }
    }
    if let Some((from, to)) = days(target, base, values) {
        let dates = dates_of_lines(context, base, from, to).await?;
        found.retain(|(file, line, _)| dates.contains(&(file.clone(), *line)));
    }
    found.sort();
    Ok(found)
}

/// The dates that the row may have read, where the model says how far it looks back.
fn days(target: &Model, base: &Model, values: &[(String, ScalarValue)]) -> Option<(i32, i32)> {
    let date = target.partition.first()?;
    let (_, ScalarValue::Date32(Some(date))) = values.iter().find(|(name, _)| name == date)? else {
        return None;
    };
    base.partition.first()?;
    let spans = target.inputs.values().filter_map(|span| match span {
        Span::Days { from, to } => Some((*from, *to)),
        _ => None,
    });
    let (from, to) = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
    Some((date - to.cast_signed(), date - from.cast_signed()))
}

async fn dates_of_lines(
    context: &SessionContext,
    base: &Model,
    from: i32,
    to: i32,
) -> Result<BTreeSet<(String, i64)>> {
    let date = base.partition.first().map(|name| quoted(name)).unwrap_or_default();
    let query = format!(
        "select {FILE}, {LINE} from {}.{} where {date} between $from and $to",
        base.table.schema,
        quoted(&base.table.table)
    );
    let values = std::collections::HashMap::from([
        ("from".to_owned(), ScalarValue::Date32(Some(from))),
        ("to".to_owned(), ScalarValue::Date32(Some(to))),
    ]);
    let mut found = BTreeSet::new();
    for batch in context.sql(&query).await?.with_param_values(values)?.collect().await? {
        let files = arrow::compute::cast(batch.column(0), &DataType::Utf8View)?;
        let lines = batch.column(1).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            found.insert((files.as_string_view().value(row).to_owned(), lines.value(row)));
        }
    }
    Ok(found)
}

fn money_of(run: &Run, base: &Model) -> Vec<String> {
    let source = base.accounts_for.as_ref().and_then(|name| run.project.source(name));
    let mut names: Vec<String> =
        source.map(|source| source.money().map(str::to_owned).collect()).unwrap_or_default();
    // what silver converts is money too
    for field in base.schema.fields() {
        if matches!(field.data_type(), DataType::Decimal128(_, 6)) && !names.contains(field.name()) {
            names.push(field.name().clone());
        }
    }
    names
}

fn summed(
    base: &Model,
    names: &[String],
    lines: Vec<(String, i64, Vec<i128>)>,
    row: &RecordBatch,
    limit: usize,
) -> Behind {
    let mut behind = Behind {
        table: base.table.to_string(),
        source: base.accounts_for.clone().unwrap_or_default(),
        num_lines: lines.len(),
        money: BTreeMap::new(),
        adds_up_to: BTreeMap::new(),
        lines: Vec::new(),
    };
    for (at, name) in names.iter().enumerate() {
        let sum: i128 = lines.iter().map(|(.., amounts)| amounts[at]).sum();
        behind.money.insert(name.clone(), decimal_text(sum));
        let schema = row.schema();
        let equal = schema.fields().iter().zip(row.columns()).filter(|(field, column)| {
            matches!(field.data_type(), DataType::Decimal128(_, 6))
                && column.is_valid(0)
                && column.as_primitive::<Decimal128Type>().value(0) == sum
        });
        let equal: Vec<String> = equal.map(|(field, _)| field.name().clone()).collect();
        if !equal.is_empty() && sum != 0 {
            behind.adds_up_to.insert(name.clone(), equal);
        }
    }
    let first = lines.into_iter().take(limit).map(|(file, line, amounts)| Line {
        file,
        line,
        money: names.iter().cloned().zip(amounts.into_iter().map(decimal_text)).collect(),
    });
    behind.lines = first.collect();
    behind
}

/// Rewrites a plan so that its rows carry the file, line and amounts of the rows of `base` that they come from.
struct Tracer<'a> {
    run: &'a Run,
    context: &'a SessionContext,
    base: &'a Model,
    money: &'a [String],
    num_joins: usize,
}

/// A plan that carries; `None` where it does not come to the base table.
type Traced = Option<LogicalPlan>;

impl Tracer<'_> {
    /// A model's query, carrying.
    async fn trace_model(&mut self, model: &Model) -> Result<Traced> {
        let plan = self.context.state().create_logical_plan(&model.sql).await?;
        Box::pin(self.trace(&plan)).await
    }

    fn carried(plan: &LogicalPlan) -> Vec<Expr> {
        let columns = plan.schema().columns();
        columns.into_iter().filter(|column| column.name.starts_with(CARRIED)).map(Expr::Column).collect()
    }

    /// The columns of `plan` as they are, and what `input` carries.
    fn trace_scan(&self, scan: &LogicalPlan) -> Result<Traced> {
        let mut columns: Vec<Expr> = scan.schema().columns().into_iter().map(Expr::Column).collect();
        for name in [FILE, LINE].into_iter().chain(self.money.iter().map(String::as_str)) {
            let column = scan.schema().columns().into_iter().find(|column| column.name == name);
            let column =
                column.ok_or_else(|| Error::bug(format!("`{}` has no column `{name}`", self.base.table)))?;
            columns.push(Expr::Column(column).alias(format!("{CARRIED}{name}")));
        }
        let projection = Projection::try_new(columns, Arc::new(scan.clone()))?;
        Ok(Some(LogicalPlan::Projection(projection)))
    }

    async fn trace(&mut self, plan: &LogicalPlan) -> Result<Traced> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let Some(schema) = scan.table_name.schema() else {
                    return Ok(None);
                };
                let name = TableName::new(schema, scan.table_name.table());
                if name == self.base.table {
                    return self.trace_scan(plan);
                }
                let opened = self.run.project.model(&name).filter(|model| !is_landed(model)).cloned();
                let Some(opened) = opened else {
                    return Ok(None);
                };
                let Some(traced) = Box::pin(self.trace_model(&opened)).await? else {
                    return Ok(None);
                };
                let alias = TableReference::partial(schema, scan.table_name.table());
                Ok(Some(LogicalPlanBuilder::from(traced).alias(alias)?.build()?))
            }
            LogicalPlan::Projection(projection) => {
                let Some(input) = Box::pin(self.trace(&projection.input)).await? else {
                    return Ok(None);
                };
                let columns = projection.expr.iter().cloned().chain(Self::carried(&input)).collect();
                Ok(Some(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(input))?)))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let Some(input) = Box::pin(self.trace(&alias.input)).await? else {
                    return Ok(None);
                };
                Ok(Some(LogicalPlanBuilder::from(input).alias(alias.alias.clone())?.build()?))
            }
            LogicalPlan::Filter(filter) => {
                let Some(input) = Box::pin(self.trace(&filter.input)).await? else {
                    return Ok(None);
                };
                Ok(Some(LogicalPlanBuilder::from(input).filter(filter.predicate.clone())?.build()?))
            }
            LogicalPlan::Sort(sort) => Box::pin(self.trace(&sort.input)).await,
            LogicalPlan::Distinct(distinct) => Box::pin(self.trace(distinct.input())).await,
            LogicalPlan::Join(join) => {
                let left = Box::pin(self.trace(&join.left)).await?;
                let right = match left {
                    Some(_) => None,
                    None => Box::pin(self.trace(&join.right)).await?,
                };
                if left.is_none() && right.is_none() {
                    return Ok(None);
                }
                let traced = datafusion::logical_expr::Join::try_new(
                    left.map_or_else(|| Arc::clone(&join.left), Arc::new),
                    right.map_or_else(|| Arc::clone(&join.right), Arc::new),
                    join.on.clone(),
                    join.filter.clone(),
                    join.join_type,
                    join.join_constraint,
                    join.null_equality,
                    join.null_aware,
                )?;
                Ok(Some(LogicalPlan::Join(traced)))
            }
            LogicalPlan::Union(union) => {
                let mut inputs = Vec::new();
                for input in &union.inputs {
                    if let Some(traced) = Box::pin(self.trace(input)).await? {
                        inputs.push(Arc::new(traced));
                    }
                }
                match inputs.len() {
                    0 => Ok(None),
                    1 => Ok(inputs.pop().map(Arc::unwrap_or_clone)),
                    _ => Ok(Some(LogicalPlan::Union(
                        datafusion::logical_expr::Union::try_new_with_loose_types(inputs)?,
                    ))),
                }
            }
            LogicalPlan::Aggregate(aggregate) => {
                let kept = aggregate.group_expr.clone();
                let outputs = plan.schema().columns().into_iter().take(kept.len()).collect();
                self.unfolded(plan, &aggregate.input, kept, outputs).await
            }
            LogicalPlan::Window(window) => {
                let columns = window.input.schema().columns();
                let kept = columns.iter().cloned().map(Expr::Column).collect();
                self.unfolded(plan, &window.input, kept, columns).await
            }
            LogicalPlan::Unnest(unnest) => {
                let opened: BTreeSet<usize> = unnest
                    .list_type_columns
                    .iter()
                    .map(|(at, _)| *at)
                    .chain(unnest.struct_type_columns.iter().copied())
                    .collect();
                let inputs = unnest.input.schema().columns();
                let outputs = plan.schema().columns();
                let kept: Vec<(Column, Column)> = unnest
                    .dependency_indices
                    .iter()
                    .zip(outputs)
                    .filter(|(at, _)| !opened.contains(at))
                    .filter_map(|(at, output)| Some((inputs.get(*at)?.clone(), output)))
                    .collect();
                let (kept, outputs) =
                    kept.into_iter().map(|(input, output)| (Expr::Column(input), output)).unzip();
                self.unfolded(plan, &unnest.input, kept, outputs).await
            }
            // nothing in it, or a kind of node that is not known
            _ => Ok(None),
        }
    }

    /// `plan` joined with its unfolded input: `kept` of the input are `outputs` of the plan.
    async fn unfolded(
        &mut self,
        plan: &LogicalPlan,
        input: &LogicalPlan,
        kept: Vec<Expr>,
        outputs: Vec<Column>,
    ) -> Result<Traced> {
        let Some(input) = Box::pin(self.trace(input)).await? else {
            return Ok(None);
        };
        self.num_joins += 1;
        let names: Vec<String> = (0..kept.len()).map(|at| format!("__key_{}_{at}", self.num_joins)).collect();
        let carried = Self::carried(&input);
        let keys = kept.into_iter().zip(&names).map(|(key, name)| key.unalias().alias(name));
        let side = Projection::try_new(keys.chain(carried).collect(), Arc::new(input))?;
        let side = LogicalPlan::Projection(side);
        let keys: Vec<Column> = names.iter().map(Column::from_name).collect();
        let builder = LogicalPlanBuilder::from(plan.clone());
        let joined = match keys.is_empty() {
            true => builder.cross_join(side)?,
            false => builder.join_detailed(
                side,
                JoinType::Inner,
                (outputs, keys),
                None,
                NullEquality::NullEqualsNull,
            )?,
        };
        Ok(Some(joined.build()?))
    }
}
