//! `medallion optimize`, `vacuum` and `gc`

use std::sync::Arc;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::Places;
use super::output::{Format, print_cells, print_text};
use super::turn::TurnArgs;
use crate::error::{Error, Result};
use crate::flow::maintain::{self, Compacted, Vacuumed};
use crate::flow::{Run, lock, plan};
use crate::project::sql::TableName;
use crate::telemetry::Progress;

/// A job may take so long between writing a file and committing it; younger files are deleted under the lake's lock only.
const LONGEST_JOB_MILLIS: i64 = 24 * 3600 * 1000;

#[derive(Debug, Args)]
#[command(
    after_help = "Changes no row: nothing is computed after it, versions of before can still be asked, and a run or stream\n\
    beside it goes on. The old files stay until a vacuum.\n\n\
    Examples:\n  \
    medallion optimize\n  \
    medallion optimize silver.usage_events --target-mb 256"
)]
pub struct OptimizeArgs {
    /// Only these tables; every one by default, the ledger's too
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Smaller files of a partition become one
    #[arg(long, default_value_t = 128, value_name = "MB", value_parser = clap::value_parser!(u16).range(1..=4096))]
    target_mb: u16,
    /// Only where a partition has at least so many of them
    #[arg(long, default_value_t = 2, value_name = "N")]
    min_files: usize,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without `--delete` it only tells. Never deleted: what the newest version needs, what a version younger than\n\
    `--older-than` needs (queries of the past, running readers), files younger than that. Less than a day needs the\n\
    lake's lock, so that no running job is waiting to commit a file.\n\n\
    Examples:\n  medallion vacuum\n  medallion vacuum --older-than 30d --delete"
)]
pub struct VacuumArgs {
    /// Only these tables; every one by default, the ledger's too
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// How far back the past can still be asked, for example `12h` or `7d`
    #[arg(long, default_value = "7d", value_name = "AGE", value_parser = parse_age)]
    older_than: i64,
    /// Delete, and do not only tell
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    turn: TurnArgs,
}

impl VacuumArgs {
    /// The command's name, unless it only tells.
    pub fn moves_data(&self) -> Option<&'static str> {
        self.delete.then_some("vacuum")
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "It takes the lake's lock: beside a run it ends with exit code 5, beside a stream it gets its turn.\n\n\
    Example:\n  medallion gc --keep-runs 1000"
)]
pub struct GcArgs {
    /// The reports and balances of so many newest runs stay
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    keep_runs: usize,
    #[command(flatten)]
    turn: TurnArgs,
}

/// `7d`, `12h`, `30m`, `0s`: milliseconds.
pub fn parse_age(text: &str) -> std::result::Result<i64, String> {
    let wrong = || format!("`{text}` is no age; write a number and d, h, m or s, for example `7d`");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        'd' => 86_400,
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    Ok(i64::from(number) * seconds * 1000)
}

fn chosen(run: &Run, tables: &[String]) -> Result<Vec<TableName>> {
    let all = maintain::all_tables(run);
    if tables.is_empty() {
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for text in tables {
        let name = match TableName::parse(text) {
            Some(name) => name,
            None => plan::parse_table(text)?,
        };
        if !all.contains(&name) {
            let known: Vec<String> = all.iter().map(ToString::to_string).collect();
            return Err(Error::usage(format!("there is no table `{name}`, known: {}", known.join(", "))));
        }
        chosen.push(name);
    }
    Ok(chosen)
}

pub async fn optimize(places: &Places, args: &OptimizeArgs) -> Result<u8> {
    let progress = Progress::new(!places.quiet);
    let project = places.load().await?;
    let lake = places.lake(&project).await?;
    let _files = lock::share_files(&lake)?;
    let run = places.open_on(project, lake, progress.clone()).await?;
    let mut done: Vec<Compacted> = Vec::new();
    for name in chosen(&run, &args.tables)? {
        progress.stage(&format!("optimize {name}"));
        let target = i64::from(args.target_mb) * 1024 * 1024;
        done.extend(maintain::compact(&run, &name, target, args.min_files).await?);
    }
    run.lake.sync().await?;
    progress.finish();
    if places.format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(&done)?))?;
        return Ok(0);
    }
    if done.is_empty() && places.format == Format::Table {
        print_text("no table has small files to put together\n")?;
        return Ok(0);
    }
    let names = ["table", "files", "then", "bytes", "then", ""].map(str::to_owned);
    let cells: Vec<Vec<String>> = done
        .iter()
        .map(|table| {
            let busy = if table.was_busy { "another writer was there: run again later" } else { "" };
            vec![
                table.table.clone(),
                table.files_before.to_string(),
                table.files_after.to_string(),
                table.bytes_before.to_string(),
                table.bytes_after.to_string(),
                busy.to_owned(),
            ]
        })
        .collect();
    print_cells(&names, &cells, places.format)?;
    Ok(0)
}

pub async fn vacuum(places: &Places, args: &VacuumArgs) -> Result<u8> {
    let project = places.load().await?;
    let lake = places.lake(&project).await?;
    let _locks = match args.delete && args.older_than < LONGEST_JOB_MILLIS {
        true if lake.folder().is_none() => {
            return Err(Error::usage(
                "an object store has no lock: give `--older-than` of a day or more, so that no running job loses a file",
            ));
        }
        true => Some((args.turn.lock(&lake).await?, lock::own_files(&lake)?)),
        false => None,
    };
    let run = places.open_on(project, lake, Progress::new(false)).await?;
    let cutoff = chrono::Utc::now().timestamp_millis() - args.older_than;
    let mut found: Vec<Vacuumed> = Vec::new();
    for name in chosen(&run, &args.tables)? {
        let table = run.table(&name)?;
        let unneeded = match maintain::unneeded(table, cutoff).await {
            Ok(unneeded) => unneeded,
            Err(error) => {
                tracing::warn!(table = %name, %error, "nothing of this table is deleted");
                continue;
            }
        };
        if args.delete {
            maintain::delete(table, &unneeded).await?;
        }
        if unneeded.files > 0 {
            found.push(unneeded);
        }
    }
    if places.format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
        return Ok(0);
    }
    let names = ["table", "files", "bytes"].map(str::to_owned);
    let cells: Vec<Vec<String>> = found
        .iter()
        .map(|table| vec![table.table.clone(), table.files.to_string(), table.bytes.to_string()])
        .collect();
    print_cells(&names, &cells, places.format)?;
    if places.format == Format::Table {
        let (files, bytes) =
            found.iter().fold((0, 0), |(files, bytes), table| (files + table.files, bytes + table.bytes));
        let what = match args.delete {
            true => "deleted",
            false => "could be deleted; `--delete` does it",
        };
        print_text(&format!("\n{files} files, {bytes} bytes {what}\n"))?;
    }
    Ok(0)
}

pub async fn gc(places: &Places, args: &GcArgs) -> Result<u8> {
    let project = places.load().await?;
    let lake = places.lake(&project).await?;
    let _lock = args.turn.lock(&lake).await?;
    let forgotten = args.turn.insist(async || {
        let mut run = places.open_on(Arc::clone(&project), lake.clone(), Progress::new(false)).await?;
        let gone = maintain::forget_runs(&mut run, args.keep_runs).await?;
        run.lake.sync().await?;
        Ok(gone)
    });
    let gone = forgotten.await?;
    match places.format {
        Format::Json => print_text(&format!("{{\"rows\": {gone}}}\n"))?,
        _ => print_text(&format!("{gone} rows of old runs, balances and checks are gone from the ledger\n"))?,
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        assert_eq!(parse_age("7d"), Ok(7 * 86_400_000));
        assert_eq!(parse_age("0s"), Ok(0));
        for wrong in ["", "7", "d", "-1d", "7 d", "1w", "1.5h", "ü"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }
}
