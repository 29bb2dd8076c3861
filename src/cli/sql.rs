//! `medallion sql`

use std::sync::Arc;

use arrow::array::RecordBatch;
use clap::Args;
use datafusion::prelude::SQLOptions;

use super::{Places, output};
use crate::engine;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::travel::AsOf;
use crate::flow::{Run, checks};
use crate::project::sql;
use crate::telemetry::Progress;

#[derive(Debug, Args)]
#[command(
    after_help = "Tables are named by zone: bronze, silver, gold, quarantine, reference, ledger, and accepted or\n\
    versions for what became of bronze.\n\n\
    Examples:\n  \
    medallion sql 'select service, sum(total_cost_usd) from gold.finops_daily_usage group by 1'\n  \
    medallion --format json sql 'select * from ledger.balances'\n  \
    medallion sql --as-of 3 'select count(*) from silver.users'"
)]
pub struct SqlArgs {
    /// One query
    query: String,
    /// As the tables were: a time in UTC, a date (its end), or a version where one table is read
    #[arg(long, value_name = "WHEN")]
    as_of: Option<AsOf>,
}

pub async fn run(places: &Places, args: &SqlArgs) -> Result<u8> {
    sql::parse(&args.query).map_err(|(_, message)| match message.as_str() {
        sql::NOT_ONE_QUERY => Error::usage("`sql` takes one query, a `select`, and changes nothing"),
        _ => Error::usage(message),
    })?;
    let mut run = places.open(Progress::new(false)).await?;
    if let Some(as_of) = args.as_of {
        run.travel(as_of, &args.query).await?;
    }
    let batches = rows(&run, args).await.map_err(|error| match error.kind() {
        // it is the caller's query, not the project or its data
        ErrorKind::Project | ErrorKind::Data => Error::usage(error.to_string()),
        _ => error,
    })?;
    output::print_rows(&batches, places.format)?;
    Ok(0)
}

async fn rows(run: &Run, args: &SqlArgs) -> Result<Vec<RecordBatch>> {
    let context = engine::context(&run.state);
    checks::register_inputs(run, &context, &args.query).await?;
    let read_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(&args.query, read_only).await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let mut batches = frame.collect().await?;
    if batches.is_empty() {
        // no rows have columns too
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}
