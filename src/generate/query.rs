//! A generator's query: its parameters, and how its result becomes the fields of a source.
//!
//! The result's columns are the source's, by name. Of a JSON source, a boolean column `"<name>$text"` says in which
//! rows the value is written as a string, `"<name>$absent"` in which rows the field is left out (a null is `null`).

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::prelude::{DataFrame, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Value, visit_expressions_mut};

use crate::decode::{Format, Layout, Type};
use crate::engine;
use crate::project::sql;
use crate::type_name::type_name;

const TEXT_MARK: &str = "$text";
const ABSENT_MARK: &str = "$absent";

/// What `$events`, `$days` and `$seed` stand for.
#[derive(Debug, Clone, Copy)]
pub struct Parameters {
    pub events: i64,
    pub days: i64,
    pub seed: i64,
}

/// A problem of a query: the line (0 where the whole file is meant) and what is wrong.
pub type Problem = (usize, String);

/// The fields of a source's records, in the order in which they are written.
#[derive(Debug, Clone)]
pub struct Shape {
    pub format: Format,
    pub fields: Vec<Field>,
}

/// A field, and the columns of the query's result behind it.
#[derive(Debug, Clone)]
pub struct Field {
    pub name: String,
    /// The index of its column in the layout.
    pub column: usize,
    pub ty: Type,
    /// The Arrow type from which it is written.
    pub kind: DataType,
    pub values: usize,
    pub text_mark: Option<usize>,
    pub absent_mark: Option<usize>,
}

/// Plans a query; its rows come in one order, always the same.
///
/// # Errors
/// What is wrong with the query, and where.
pub async fn plan(text: &str, parameters: Parameters) -> Result<DataFrame, Problem> {
    let statement = bind(sql::parse(text)?, text, parameters)?;
    let mut state = engine::planning_state();
    state.config_mut().options_mut().execution.target_partitions = 1;
    let context: SessionContext = engine::context(&state);
    let planned = match context.state().statement_to_plan(statement).await {
        Ok(plan) => context.execute_logical_plan(plan).await,
        Err(error) => Err(error),
    };
    planned.map_err(|error| sql::locate(text, &error))
}

/// Writes the parameters into the statement: the arguments of `generate_series` must be constants when it is planned.
fn bind(mut statement: Statement, text: &str, parameters: Parameters) -> Result<Statement, Problem> {
    let Statement::Statement(query) = &mut statement else {
        return Ok(statement);
    };
    let outcome = visit_expressions_mut(query, |expression| {
        let Expr::Value(written) = expression else {
            return ControlFlow::Continue(());
        };
        let Value::Placeholder(name) = &written.value else {
            return ControlFlow::Continue(());
        };
        let value = match name.as_str() {
            "$events" => parameters.events,
            "$days" => parameters.days,
            "$seed" => parameters.seed,
            _ => return ControlFlow::Break(name.clone()),
        };
        written.value = Value::Number(value.to_string(), false);
        ControlFlow::Continue(())
    });
    match outcome {
        ControlFlow::Continue(()) => Ok(statement),
        ControlFlow::Break(name) => {
            let line = crate::project::diagnostics::line_of(text, &name);
            Err((line, format!("unknown parameter `{name}`, known: $events, $days, $seed")))
        }
    }
}

/// How the columns of a query's result become the fields of `layout`.
///
/// # Errors
/// Every problem, each after the name at fault.
pub fn shape(result: &Schema, layout: &Layout) -> Result<Shape, Vec<(String, String)>> {
    let mut problems = Vec::new();
    let mut fields: Vec<Field> = Vec::new();
    let mut complain = |name: &str, message: String| problems.push((name.to_owned(), message));
    for (at, found) in result.fields().iter().enumerate() {
        let name = found.name();
        if mark_of(name).is_some() {
            continue;
        }
        let Some(column) = layout.columns.iter().position(|column| column.name == *name) else {
            complain(name, format!("the source has no column `{name}`"));
            continue;
        };
        let ty = layout.columns[column].ty;
        match kind(found.data_type()).filter(|kind| fits(kind, ty, layout.format)) {
            Some(kind) => fields.push(Field {
                name: name.clone(),
                column,
                ty,
                kind,
                values: at,
                text_mark: None,
                absent_mark: None,
            }),
            None => complain(
                name,
                format!("`{name}` is `{}` and can't be written as {ty}", type_name(found.data_type())),
            ),
        }
    }
    for (at, found) in result.fields().iter().enumerate() {
        let Some((name, mark)) = mark_of(found.name()) else {
            continue;
        };
        if *found.data_type() != DataType::Boolean || layout.format == Format::Csv {
            complain(name, format!("`{name}{mark}` must be boolean, and of a JSON source"));
        }
        match fields.iter_mut().find(|field| field.name == name) {
            Some(field) if mark == TEXT_MARK => field.text_mark = Some(at),
            Some(field) => field.absent_mark = Some(at),
            None => complain(name, format!("`{name}{mark}` marks `{name}`, which is not in the result")),
        }
    }
    for (index, column) in layout.columns.iter().enumerate() {
        let is_needed =
            layout.format == Format::Csv || layout.key.contains(&index) || layout.required.contains(&index);
        if is_needed && result.field_with_name(&column.name).is_err() {
            complain(&column.name, format!("the query must give the column `{}`", column.name));
        }
    }
    match problems.is_empty() {
        true => Ok(Shape { format: layout.format, fields }),
        false => Err(problems),
    }
}

fn mark_of(name: &str) -> Option<(&str, &str)> {
    [TEXT_MARK, ABSENT_MARK].into_iter().find_map(|mark| Some((name.strip_suffix(mark)?, mark)))
}

/// The type to which a column is cast before it is written.
fn kind(found: &DataType) -> Option<DataType> {
    Some(match found {
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Boolean => DataType::Boolean,
        DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Decimal128(_, _) => found.clone(),
        DataType::Date32 => DataType::Date32,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        other if other.is_integer() => DataType::Int64,
        _ => return None,
    })
}

/// Whether the decoder reads such a value as a `ty`.
fn fits(kind: &DataType, ty: Type, format: Format) -> bool {
    match (kind, ty) {
        (DataType::Utf8View, _) => true,
        (_, Type::Text) => format == Format::Csv,
        (DataType::Boolean, Type::Boolean) => true,
        (DataType::Date32, Type::Date) => true,
        (DataType::Timestamp(_, _), Type::Timestamp) => true,
        (
            DataType::Int64 | DataType::Float64 | DataType::Decimal128(_, _),
            Type::Int | Type::BigInt | Type::Double | Type::Decimal { .. },
        ) => true,
        _ => false,
    }
}

/// Every problem of a generator's query, found without running it.
pub async fn check(text: &str, layout: &Layout) -> Vec<Problem> {
    let frame = match plan(text, Parameters { events: 1000, days: 10, seed: 1 }).await {
        Ok(frame) => frame,
        Err(problem) => return vec![problem],
    };
    match shape(frame.schema().as_arrow(), layout) {
        Ok(_) => Vec::new(),
        Err(problems) => {
            let line_of = crate::project::diagnostics::line_of;
            problems.into_iter().map(|(name, message)| (line_of(text, &name), message)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::tests::{CSV_QUERY, JSONL_QUERY, layout};

    async fn problems(text: &str, format: Format) -> Vec<Problem> {
        check(text, &layout(format)).await
    }

    #[tokio::test]
    async fn good_queries_have_no_problem() {
        assert_eq!(problems(JSONL_QUERY, Format::Jsonl).await, []);
        assert_eq!(problems(CSV_QUERY, Format::Csv).await, []);
    }

    #[tokio::test]
    async fn problems_name_their_line() {
        let unknown = problems("select 1 as id,\n $rows as \"count\"", Format::Jsonl).await;
        assert_eq!(unknown, [(2, "unknown parameter `$rows`, known: $events, $days, $seed".to_owned())]);
        let table = problems("select *\nfrom bronze.users", Format::Jsonl).await;
        assert!(table[0].1.contains("users"), "{table:?}");
        let columns = "select 'a' as id, 1.5 as at,\n 'x' as other,\n 1 as \"note$text\"";
        let messages: Vec<String> =
            problems(columns, Format::Jsonl).await.into_iter().map(|(_, message)| message).collect();
        assert_eq!(
            messages,
            [
                "`at` is `double` and can't be written as timestamp",
                "the source has no column `other`",
                "`note$text` must be boolean, and of a JSON source",
                "`note$text` marks `note`, which is not in the result",
                "the query must give the column `org`",
                "the query must give the column `cost`",
            ]
        );
    }
}
