//! `medallion diff` and `restore`

use std::sync::Arc;

use clap::Args;

use super::output::{Format, plain, print_cells, print_text};
use super::run::render;
use super::turn::TurnArgs;
use super::{Places, publish};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Run;
use crate::flow::plan::parse_table;
use crate::flow::report::Report;
use crate::flow::travel::{self, AsOf};
use crate::project::sql::TableName;
use crate::telemetry::Progress;
use crate::trigger::anomalies::Anomalies;
use crate::trigger::batch;
use crate::zone;

#[derive(Debug, Args)]
#[command(
    after_help = "A version is a number (see `medallion status`), a time in UTC or a date (its end).\n\n\
    Examples:\n  \
    medallion diff gold.finops_daily_usage 3 4\n  \
    medallion --format json diff gold.revenue_monthly 2025-08-30 2025-08-31T12:00:00Z"
)]
pub struct DiffArgs {
    /// The table
    table: String,
    /// The earlier version or time
    from: AsOf,
    /// The later one
    to: AsOf,
    /// Show at most so many rows; all are counted
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Models follow from what they read: a restored table stays until its inputs change or it is rerun. To undo\n\
    a wrong model, put the old one back and `medallion rerun --stale`.\n\n\
    Examples:\n  \
    medallion restore gold.revenue_monthly --to 3\n  \
    medallion restore gold --to 2025-08-30T12:00:00Z     every mart, as it was then"
)]
pub struct RestoreArgs {
    /// A table of silver or gold, or one of these zones
    what: String,
    /// The version (of one table), time in UTC or date (its end)
    #[arg(long)]
    to: AsOf,
    /// Compute what depends on it in the next run
    #[arg(long)]
    only: bool,
    #[command(flatten)]
    turn: TurnArgs,
}

pub async fn diff(places: &Places, args: &DiffArgs) -> Result<u8> {
    let run = places.open(Progress::new(false)).await?;
    let name = parse_table(&args.table)?;
    let found = travel::diff(&run, &name, args.from, args.to, args.limit).await?;
    if places.format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
        return Ok(0);
    }
    let names: Vec<String> = std::iter::once("change".to_owned())
        .chain(found.key.iter().cloned())
        .chain(["what".to_owned()])
        .collect();
    let cells: Vec<Vec<String>> = found
        .differences
        .iter()
        .map(|difference| {
            let columns = difference.columns.iter();
            let what: Vec<String> =
                columns.map(|(column, was, is)| plain(&format!("{column}: {was} → {is}"))).collect();
            std::iter::once(difference.change.to_owned())
                .chain(difference.key.iter().map(|value| plain(value)))
                .chain([what.join(", ")])
                .collect()
        })
        .collect();
    print_cells(&names, &cells, places.format)?;
    let shown = found.differences.len();
    let cut = format!("the first {shown} of {} are shown; `--limit` shows more", shown + found.left_out);
    if places.format == Format::Table {
        let cut = if found.left_out > 0 { format!("; {cut}") } else { String::new() };
        print_text(&format!(
            "\n{} added, {} removed, {} changed{cut}\n",
            found.added, found.removed, found.changed
        ))?;
    } else if found.left_out > 0 {
        tracing::warn!("{cut}");
    }
    Ok(0)
}

pub async fn restore(places: &Places, args: &RestoreArgs) -> Result<u8> {
    let progress = Progress::new(!places.quiet);
    let project = places.load().await?;
    let lake = places.lake(&project).await?;
    let _lock = args.turn.lock(&lake).await?;
    let done = args.turn.insist(async || {
        let mut run = places.open_on(Arc::clone(&project), lake.clone(), progress.clone()).await?;
        let anomalies = Anomalies::begin(&run, &places.telling)?;
        let restored = restore_tables(&mut run, args).await?;
        let report = match args.only {
            true => None,
            false => Some(batch::rerun(&mut run).await?),
        };
        Ok((run, anomalies, restored, report))
    });
    let (run, mut anomalies, restored, mut report) = done.await.inspect_err(|_| progress.finish())?;
    let verdict = report.as_ref().map(Report::verdict).unwrap_or_default();
    run.lake.sync().await?;
    let served = publish::follow_up(places, &run, report.as_mut()).await;
    if let Some(report) = &report {
        places.settled(&run, report, &mut anomalies).await;
    }
    progress.finish();
    if places.format == Format::Json {
        let done = serde_json::json!({"restored": restored, "report": report});
        print_text(&format!("{}\n", serde_json::to_string_pretty(&done)?))?;
    } else {
        if restored.is_empty() {
            print_text("everything is as it was then\n")?;
        }
        for line in &restored {
            print_text(&format!("{line}\n"))?;
        }
        if let Some(report) = report.as_ref().filter(|report| !report.is_idle()) {
            print_text(&format!("\n{}", render(report)))?;
        }
    }
    served?;
    for line in &verdict {
        tracing::error!("{line}");
    }
    Ok(if verdict.is_empty() { 0 } else { ErrorKind::Data.exit_code() })
}

/// Takes the tables back, and tells which are in which version now.
async fn restore_tables(run: &mut Run, args: &RestoreArgs) -> Result<Vec<String>> {
    let tables: Vec<TableName> = match args.what.as_str() {
        zone @ (zone::SILVER | zone::GOLD) => {
            if let AsOf::Version(_) = args.to {
                return Err(Error::usage(format!(
                    "the tables of `{zone}` have versions of their own; give a time"
                )));
            }
            let models = run.project.stored_models();
            models.filter(|model| model.table.schema == zone).map(|model| model.table.clone()).collect()
        }
        text if !text.contains('.') => {
            return Err(Error::usage(format!(
                "`{text}` can't be restored; write a table of silver or gold as `zone.table`, or one of these zones"
            )));
        }
        table => vec![parse_table(table)?],
    };
    run.command = format!("restore {}", args.what);
    let mut restored = Vec::new();
    let mut not_there = Vec::new();
    for table in &tables {
        // of a zone, tables that did not exist then stay as they are
        match travel::restore(run, table, args.to).await {
            Ok(Some(version)) => restored.push(format!("{table} is as in version {version}")),
            Ok(None) => {}
            Err(error) if tables.len() > 1 && error.kind() == ErrorKind::Usage => not_there.push(table),
            Err(error) => return Err(error),
        }
    }
    if !tables.is_empty() && not_there.len() == tables.len() {
        return Err(Error::usage(format!("there was no table of `{}` yet; give a later time", args.what)));
    }
    for table in not_there {
        tracing::warn!("there was no `{table}` yet, it is left as it is");
    }
    Ok(restored)
}
