//! `medallion query`

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use clap::Args;
use datafusion::common::{ScalarValue, TableReference};
use datafusion::prelude::DataFrame;
use serde_json::json;

use super::Places;
use super::output::{Format, print_cells, print_rows, print_text};
use crate::decode::Type;
use crate::engine;
use crate::error::{During, Error, ErrorKind, Result};
use crate::flow::travel::AsOf;
use crate::flow::{Run, checks};
use crate::project::Question;
use crate::project::manifest::ParameterManifest;
use crate::project::sql::TableName;
use crate::store::canonical;
use crate::telemetry::Progress;
use crate::zone;

#[derive(Debug, Args)]
#[command(after_help = "Without a question, lists the questions and their parameters.\n\n\
    Examples:\n  \
    medallion query\n  \
    medallion query daily_cost --param org_id=org_1 --param from_date=2025-08-01\n  \
    medallion --cassandra db1:9042 query daily_cost --store cassandra\n  \
    medallion query daily_cost --param org_id=org_1 --as-of 2025-08-30")]
pub struct QueryArgs {
    /// The question's name
    question: Option<String>,
    /// A parameter, `name=value`; those left out have defaults
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parse_parameter)]
    parameters: Vec<(String, String)>,
    /// Who answers: gold, or Cassandra where the marts are published
    #[arg(long, value_enum, default_value = "gold")]
    store: Store,
    /// As gold was: a time in UTC, a date (its end), or a version of the question's table
    #[arg(long, value_name = "WHEN")]
    as_of: Option<AsOf>,
}

/// Where a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Store {
    Gold,
    Cassandra,
}

fn parse_parameter(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write it as `name=value`".to_owned()),
    }
}

pub async fn run(places: &Places, args: &QueryArgs) -> Result<u8> {
    let Some(name) = &args.question else {
        list(&places.load().await?.questions, places.format)?;
        return Ok(0);
    };
    let mut run = places.open(Progress::new(false)).await?;
    if let Some(as_of) = args.as_of {
        if args.store == Store::Cassandra {
            return Err(Error::usage("cassandra holds no past; leave out `--store cassandra` or `--as-of`"));
        }
        let query = run.project.question(name)?.gold_sql.clone();
        run.travel(as_of, &query).await?;
    }
    let question = run.project.question(name)?;
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &args.parameters {
        if given.insert(name.clone(), value.clone()).is_some() {
            return Err(Error::usage(format!("the parameter `{name}` is given twice")));
        }
    }
    if let Some(unknown) =
        given.keys().find(|name| !question.parameters.iter().any(|(known, _)| known == *name))
    {
        let known: Vec<&str> = question.parameters.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::usage(format!(
            "`{}` has no parameter `{unknown}`, known: {}",
            question.name,
            known.join(", ")
        )));
    }
    let batches = match args.store {
        Store::Gold => answer(&run, question, &given).await.map_err(|error| of_parameters(error, &given))?.0,
        Store::Cassandra => {
            let project = std::sync::Arc::clone(&run.project);
            let (_, store) = places.cassandra(&project).await?;
            store.use_keyspace().await?;
            let (frame, values, _) = plan(&run, question, &given).await?;
            let schema = std::sync::Arc::new(frame.schema().as_arrow().clone());
            match store.answer(question, &values, &schema).await {
                // the driver's words say less than a comparison
                Err(error) if error.kind() == ErrorKind::Project => {
                    let marts = project.marts.iter().filter(|mart| mart.name == question.table);
                    store.expect_tables(&marts.cloned().collect::<Vec<_>>()).await?;
                    return Err(error);
                }
                answer => vec![answer?],
            }
        }
    };
    print_rows(&batches, places.format)?;
    Ok(0)
}

/// The questions and their parameters.
fn list(questions: &[Question], format: Format) -> Result<()> {
    let parameters = |question: &Question| {
        let of = |(name, parameter): &(String, ParameterManifest)| {
            json!({"name": name, "type": parameter.type_name, "description": parameter.description,
                   "is_required": parameter.default.is_none()})
        };
        question.parameters.iter().map(of).collect::<Vec<_>>()
    };
    match format {
        Format::Json => {
            let all: Vec<_> = questions
                .iter()
                .map(|question| {
                    json!({"question": question.name, "title": question.title, "parameters": parameters(question)})
                })
                .collect();
            print_text(&format!("{}\n", serde_json::to_string_pretty(&all)?))
        }
        Format::Csv => {
            let names = ["question", "title", "parameters"].map(str::to_owned);
            let row = |question: &Question| {
                let names: Vec<&str> = question.parameters.iter().map(|(name, _)| name.as_str()).collect();
                vec![question.name.clone(), question.title.clone(), names.join(" ")]
            };
            print_cells(&names, &questions.iter().map(row).collect::<Vec<_>>(), format)
        }
        Format::Table => {
            let mut text = String::new();
            for question in questions {
                text.push_str(&format!("{}: {}\n", question.name, question.title));
                for (name, parameter) in &question.parameters {
                    text.push_str(&format!(
                        "  {name} ({}): {}\n",
                        parameter.type_name, parameter.description
                    ));
                }
            }
            print_text(&text)
        }
    }
}

/// What the question makes of values that the caller gave is the caller's.
fn of_parameters(error: Error, given: &BTreeMap<String, String>) -> Error {
    if given.is_empty() || !matches!(error.kind(), ErrorKind::Project | ErrorKind::Data) {
        return error;
    }
    let values: Vec<String> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Error::usage(format!("can't be answered with `{}`: {error}", values.join("`, `")))
}

/// How a value of the type is written.
fn written_as(ty: Type) -> String {
    match ty {
        Type::Text => "a text".to_owned(),
        Type::Boolean => "`true` or `false`".to_owned(),
        Type::Int | Type::BigInt => "a whole number".to_owned(),
        Type::Double => "a number".to_owned(),
        Type::Decimal { .. } => format!("a number that fits {ty}"),
        Type::Date => "a date, as 2025-08-31".to_owned(),
        Type::Timestamp => "a time, as 2025-08-31T12:00:00Z".to_owned(),
    }
}

/// Answers every question with its default parameters.
pub async fn answer_all(run: &Run, format: Format) -> Result<()> {
    for question in &run.project.questions {
        let (batches, values) = answer(run, question, &BTreeMap::new()).await?;
        if format == Format::Table {
            let shown: Vec<String> = values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            print_text(&format!("\n{} ({})\n\n", question.title, shown.join(", ")))?;
        }
        print_rows(&batches, format)?;
    }
    Ok(())
}

/// The question's rows from gold, and the values that its parameters had.
pub(super) async fn answer(
    run: &Run,
    question: &Question,
    given: &BTreeMap<String, String>,
) -> Result<(Vec<RecordBatch>, BTreeMap<String, String>)> {
    let (frame, values, shown) = plan(run, question, given).await?;
    let frame = frame.with_param_values(values)?;
    let schema = std::sync::Arc::new(frame.schema().as_arrow().clone());
    let mut batches = frame.collect().await?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok((batches, shown))
}

/// The question over gold, the values of its parameters, and these as they are shown.
async fn plan(
    run: &Run,
    question: &Question,
    given: &BTreeMap<String, String>,
) -> Result<(DataFrame, HashMap<String, ScalarValue>, BTreeMap<String, String>)> {
    let mut shown = BTreeMap::new();
    let mut values: HashMap<String, ScalarValue> = HashMap::new();
    for (name, parameter) in &question.parameters {
        let ty = Type::from_str(&parameter.type_name).map_err(Error::project)?;
        let value = match (given.get(name), &parameter.default) {
            (Some(text), _) => ScalarValue::try_from_string(text.clone(), &ty.arrow()).map_err(|error| {
                tracing::debug!(%error, "not a {ty}");
                Error::usage(format!("the parameter `{name}` must be {}, not `{text}`", written_as(ty)))
            })?,
            (None, Some(default)) => {
                default_value(run, default, ty).await.during(|| format!("finding the default of `{name}`"))?
            }
            (None, None) => {
                return Err(Error::usage(format!("give the parameter `{name}`: `--param {name}=VALUE`")));
            }
        };
        let text = arrow::util::display::array_value_to_string(&value.to_array()?, 0)?;
        shown.insert(name.clone(), text);
        values.insert(name.clone(), value);
    }
    if let Some(name) = &question.limit
        && let Some(limit) = values.get(name)
        && limit.cast_to(&DataType::Int64)? < ScalarValue::Int64(Some(0))
    {
        return Err(Error::usage(format!("the parameter `{name}` is a number of rows: {limit} is too few")));
    }
    let context = engine::context(&run.state);
    checks::register_inputs(run, &context, &question.gold_sql).await?;
    if !question.collections.is_empty() {
        let mart = TableName::new(zone::GOLD, &question.table);
        let rows = context.table(TableReference::partial(mart.schema.as_str(), mart.table.as_str())).await?;
        let rows = canonical::rows(rows, &question.collections)?;
        engine::register(&context, &mart, rows.into_view());
    }
    Ok((context.sql(&question.gold_sql).await?, values, shown))
}

async fn default_value(run: &Run, query: &str, ty: Type) -> Result<ScalarValue> {
    let context = engine::context(&run.state);
    checks::register_inputs(run, &context, query).await?;
    let batches = context.sql(query).await?.collect().await?;
    match batches.iter().find(|batch| batch.num_rows() > 0) {
        Some(batch) if !batch.column(0).is_null(0) => {
            let value = arrow::compute::cast(batch.column(0), &ty.arrow())?;
            Ok(ScalarValue::try_from_array(&value, 0)?)
        }
        _ => Err(Error::usage("gold is empty; run `medallion run` first or give the parameter")),
    }
}
