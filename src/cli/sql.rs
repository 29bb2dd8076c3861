//! `medallion sql`

use clap::Args;
use datafusion::prelude::SQLOptions;

use super::{Places, output};
use crate::engine;
use crate::error::Result;
use crate::flow::checks;
use crate::flow::travel::AsOf;
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
    let mut run = places.open(Progress::new(false)).await?;
    if let Some(as_of) = args.as_of {
        run.travel(as_of, &args.query).await?;
    }
    let context = engine::context(&run.state);
    checks::register_inputs(&run, &context, &args.query).await?;
    let read_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(&args.query, read_only).await?;
    let schema = std::sync::Arc::new(frame.schema().as_arrow().clone());
    let mut batches = frame.collect().await?;
    if batches.is_empty() {
        // no rows have columns too
        batches.push(arrow::array::RecordBatch::new_empty(schema));
    }
    output::print_rows(&batches, places.format)?;
    Ok(0)
}
