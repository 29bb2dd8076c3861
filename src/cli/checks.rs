//! `medallion checks list|history`

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Places;
use super::output::{Format, plain, print_cells, print_text};
use crate::error::{Error, Result};
use crate::flow::Run;
use crate::flow::check_history::{self, CheckRecord};
use crate::project::check::{Check, Finds, Kind};
use crate::project::manifest::{CheckScope, SeverityName};
use crate::telemetry::{Progress, time_text};

#[derive(Debug, Args)]
pub struct ChecksArgs {
    #[command(subcommand)]
    command: ChecksCommand,
}

#[derive(Debug, Subcommand)]
enum ChecksCommand {
    /// List the project's checks: what they tolerate and guard, and how they ended last
    #[command(after_help = "Example:\n  medallion checks list\n\n\
        Outcomes: `passed`, `warned`, `withheld` (it keeps partitions out of the table that it guards), `failed`.")]
    List,
    /// Show how one check ended, run by run, the newest first
    #[command(after_help = "Examples:\n  medallion checks history no_negative_cost\n  \
        medallion checks history no_negative_cost --limit 3\n\n\
        The same as SQL: medallion sql \"select * from ledger.checks where name = 'no_negative_cost' order by run_id desc\"")]
    History(HistoryArgs),
}

#[derive(Debug, Args)]
struct HistoryArgs {
    /// The check's name
    name: String,
    /// At most so many
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

/// A check as it is declared, and its last outcome.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    kind: &'static str,
    severity: &'static str,
    scope: &'static str,
    guards: Option<String>,
    warn_above: String,
    fail_above: Option<String>,
    /// The table that shares are of.
    of: Option<String>,
    description: String,
    last: Option<CheckRecord>,
}

pub async fn run(places: &Places, args: &ChecksArgs) -> Result<u8> {
    let run = places.open(Progress::new(false)).await?;
    match &args.command {
        ChecksCommand::List => list(&run, places.format).await,
        ChecksCommand::History(args) => history(&run, args, places.format).await,
    }
}

fn kind(check: &Check) -> &'static str {
    match &check.finds {
        Finds::Rows(_) => "query",
        Finds::Deviations(declared) => match declared.kind {
            Kind::Volume => "volume",
            Kind::NullRate { .. } => "null_rate",
            Kind::Freshness { .. } => "freshness",
        },
    }
}

async fn list(run: &Run, format: Format) -> Result<u8> {
    let mut last = check_history::last(&run.ledger).await?;
    let listed: Vec<Listed> = run
        .project
        .checks
        .iter()
        .map(|check| Listed {
            name: check.name.clone(),
            kind: kind(check),
            severity: match check.severity {
                SeverityName::Warn => "warn",
                SeverityName::Fail => "fail",
            },
            scope: match check.scope {
                CheckScope::All => "all",
                CheckScope::Changed => "changed",
            },
            guards: check.guards.as_ref().map(ToString::to_string),
            warn_above: check.tolerance.warn_above.to_string(),
            fail_above: check.tolerance.fail_above.map(|amount| amount.to_string()),
            of: check.tolerance.of.as_ref().map(ToString::to_string),
            description: check.description.clone(),
            last: last.remove(&check.name),
        })
        .collect();
    if format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(&listed)?))?;
        return Ok(0);
    }
    let names = [
        "check",
        "kind",
        "severity",
        "warns above",
        "fails above",
        "guards",
        "last",
        "rows",
        "withheld",
        "run",
        "checked",
    ]
    .map(str::to_owned);
    let cells: Vec<Vec<String>> = listed
        .iter()
        .map(|check| {
            let last = check.last.as_ref();
            let told = |tell: fn(&CheckRecord) -> String| last.map(tell).unwrap_or_default();
            vec![
                check.name.clone(),
                check.kind.to_owned(),
                check.severity.to_owned(),
                check.warn_above.clone(),
                check.fail_above.clone().unwrap_or_default(),
                check.guards.clone().unwrap_or_default(),
                told(|last| last.outcome.clone()),
                told(|last| last.rows_found.to_string()),
                told(|last| last.partitions_withheld.to_string()),
                told(|last| last.run_id.to_string()),
                told(|last| time_text(last.checked)),
            ]
        })
        .collect();
    print_cells(&names, &cells, format)?;
    Ok(0)
}

async fn history(run: &Run, args: &HistoryArgs, format: Format) -> Result<u8> {
    let mut found = check_history::all(&run.ledger).await?;
    found.retain(|record| record.name == args.name);
    if found.is_empty() && !run.project.checks.iter().any(|check| check.name == args.name) {
        let known: Vec<&str> = run.project.checks.iter().map(|check| check.name.as_str()).collect();
        return Err(Error::usage(format!("unknown check `{}`, known: {}", args.name, known.join(", "))));
    }
    found.reverse();
    found.truncate(args.limit);
    if format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
        return Ok(0);
    }
    let names =
        ["run", "checked", "severity", "outcome", "rows", "withheld", "dates", "details"].map(str::to_owned);
    let cells: Vec<Vec<String>> = found
        .iter()
        .map(|record| {
            vec![
                record.run_id.to_string(),
                time_text(record.checked),
                record.severity.clone(),
                record.outcome.clone(),
                record.rows_found.to_string(),
                record.partitions_withheld.to_string(),
                record.dates.clone(),
                plain(&record.details),
            ]
        })
        .collect();
    print_cells(&names, &cells, format)?;
    Ok(0)
}
