//! `medallion reconcile`

use clap::Args;

use super::Places;
use super::output::{Format, plain, print_cells, print_text, text_table};
use super::publish::select;
use crate::error::{During, ErrorKind, Result};
use crate::flow::serving::{self, Kind, Reconciled};
use crate::project::mart::Mart;
use crate::telemetry::Progress;

#[derive(Debug, Args)]
#[command(after_help = "Exit code 4 where rows differ and were not repaired.\n\n\
    Examples:\n  \
    medallion reconcile                          compare every mart\n  \
    medallion reconcile --repair cost_anomaly    and write again what differs")]
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
    let mut found = Vec::new();
    let compare = async |mart: &Mart, repair: bool| {
        let compared = serving::reconcile(&run, &store, mart, repair, args.limit).await;
        compared.during(|| format!("reconciling `{}`", mart.name))
    };
    for mart in &marts {
        progress.stage(&format!("comparing {}", mart.name));
        let mut reconciled = compare(mart, args.repair).await?;
        if args.repair && !reconciled.is_equal() {
            // what is repaired is looked at again: somebody may have written with a time in the future
            let after = compare(mart, false).await?;
            if !after.is_equal() {
                reconciled.repaired = 0;
            }
        }
        found.push(reconciled);
    }
    progress.finish();
    print(places, &found)?;
    let is_mended = |reconciled: &Reconciled| reconciled.is_equal() || reconciled.repaired > 0;
    Ok(if found.iter().all(is_mended) { 0 } else { ErrorKind::Data.exit_code() })
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
            vec![row.mart.clone(), kind.to_owned(), plain(&row.key), plain(&row.columns)]
        })
        .collect();
    if places.format == Format::Table && !differences.is_empty() {
        let names = ["mart", "row is", "key", "columns"].map(str::to_owned);
        print_text(&format!("\n{}", text_table(&names, &differences)))?;
    }
    Ok(())
}
