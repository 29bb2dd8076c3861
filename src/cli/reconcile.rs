//! `medallion reconcile`

use clap::Args;

use super::Places;
use super::output::{Format, plain, print_cells, print_text, shortened, text_table};
use super::publish::select;
use crate::error::{During, ErrorKind, Result};
use crate::flow::serving::{self, GoldTables, Kind, Reconciled};
use crate::telemetry::Progress;

/// What the table for people shows of a row's key and of its columns; JSON has them whole.
const MAX_KEY_CHARS: usize = 80;
const MAX_COLUMNS_CHARS: usize = 120;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 4 where rows differ and were not repaired. The table leaves out the middle of long keys and\n\
    values; `--format json` has them whole, `--format csv` the counts alone.\n\n\
    Examples:\n  \
    medallion reconcile                          compare every mart\n  \
    medallion reconcile --repair cost_anomaly    and write again what differs"
)]
pub struct ReconcileArgs {
    /// Marts; all by default
    marts: Vec<String>,
    /// Write the partitions that differ again
    #[arg(long)]
    repair: bool,
    /// Name at most so many rows per mart
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

pub async fn run(places: &Places, args: &ReconcileArgs) -> Result<u8> {
    let progress = Progress::new(!places.quiet);
    let run = places.open(progress.clone()).await?;
    let marts = select(&run.project, &args.marts)?;
    let project = std::sync::Arc::clone(&run.project);
    let (_, store) = places.cassandra(&project).await?;
    store.use_keyspace().await?;
    store.expect_tables(&marts).await?;
    let tables = GoldTables::of(&run)?;
    let mut found = Vec::new();
    for mart in &marts {
        progress.stage(&format!("comparing {}", mart.name));
        let reconciled = serving::reconcile(&tables, &store, mart, args.repair, args.limit).await;
        found.push(reconciled.during(|| format!("reconciling `{}`", mart.name))?);
    }
    progress.finish();
    print(places, &found)?;
    for obstacle in found.iter().filter_map(|mart| mart.obstacle.as_ref()) {
        tracing::error!("{obstacle}");
    }
    Ok(if found.iter().all(|mart| mart.left == 0) { 0 } else { ErrorKind::Data.exit_code() })
}

fn print(places: &Places, found: &[Reconciled]) -> Result<()> {
    if places.format == Format::Json {
        return print_text(&format!("{}\n", serde_json::to_string_pretty(found)?));
    }
    let names = ["mart", "rows", "missing", "extra", "different", "repaired partitions"].map(str::to_owned);
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|mart| {
            let numbers = [mart.rows, mart.missing, mart.extra, mart.different, mart.repaired];
            [mart.mart.clone()].into_iter().chain(numbers.map(|number| number.to_string())).collect()
        })
        .collect();
    print_cells(&names, &rows, places.format)?;
    let differences: Vec<Vec<String>> = found
        .iter()
        .flat_map(|mart| &mart.differences)
        .map(|row| {
            let kind = match row.kind {
                Kind::Missing => "missing",
                Kind::Extra => "extra",
                Kind::Different => "different",
            };
            let kind = match row.repaired {
                None => kind.to_owned(),
                Some(true) => format!("{kind}, repaired"),
                Some(false) => format!("{kind}, not repaired"),
            };
            let (key, columns) = (plain(&row.key), plain(&row.columns));
            vec![
                row.mart.clone(),
                kind,
                shortened(&key, MAX_KEY_CHARS),
                shortened(&columns, MAX_COLUMNS_CHARS),
            ]
        })
        .collect();
    if places.format == Format::Table && !differences.is_empty() {
        let names = ["mart", "row is", "key", "columns"].map(str::to_owned);
        print_text(&format!("\n{}", text_table(&names, &differences)))?;
    }
    Ok(())
}
