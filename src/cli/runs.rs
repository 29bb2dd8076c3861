//! `medallion runs list|show`

use clap::{Args, Subcommand};

use super::Places;
use super::output::{Format, plain, print_cells, print_text, text_table};
use super::run::render_balance;
use crate::error::{Error, Result};
use crate::flow::balance::BalanceRow;
use crate::flow::runs::{self, RunRecord};
use crate::telemetry::{Progress, counted, time_text};

#[derive(Debug, Args)]
pub struct RunsArgs {
    #[command(subcommand)]
    command: RunsCommand,
}

#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// List runs that changed something or were stopped by an error, the newest first
    #[command(after_help = "Example:\n  medallion runs list --limit 5\n\n\
        The same as SQL: medallion sql 'select run_id, command, status from ledger.runs order by run_id desc'")]
    List(ListArgs),
    /// Show one run: its steps, rows, durations, warnings, checks and balance
    #[command(
        after_help = "Examples:\n  medallion runs show          the last one\n  medallion --format json runs show 7"
    )]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// At most so many
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The run's number; the last run by default
    id: Option<i64>,
}

pub async fn run(places: &Places, args: &RunsArgs) -> Result<u8> {
    let run = places.open(Progress::new(false)).await?;
    match &args.command {
        RunsCommand::List(args) => {
            let mut found = runs::all(&run.ledger).await?;
            found.reverse();
            found.truncate(args.limit);
            list(&found, places.format)
        }
        RunsCommand::Show(args) => {
            let record = match args.id {
                None => runs::last(&run.ledger).await?,
                Some(id) => runs::all(&run.ledger).await?.into_iter().rfind(|record| record.run_id == id),
            };
            let record = record.ok_or_else(|| {
                let which = args.id.map_or_else(|| "a run".to_owned(), |id| format!("run {id}"));
                Error::usage(format!("the ledger does not know {which}; see `medallion runs list`"))
            })?;
            show(&record, places.format)
        }
    }
}

fn list(found: &[RunRecord], format: Format) -> Result<u8> {
    if format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(found)?))?;
        return Ok(0);
    }
    let names =
        ["run", "command", "status", "started", "seconds", "commits", "rows written"].map(str::to_owned);
    let cells: Vec<Vec<String>> = found
        .iter()
        .map(|run| {
            let steps = run.report["steps"].as_array();
            let rows: u64 = steps.into_iter().flatten().filter_map(|step| step["rows"].as_u64()).sum();
            vec![
                run.run_id.to_string(),
                run.command.clone(),
                run.status.clone(),
                time_text(run.started),
                format!("{:.2}", run.seconds()),
                run.commits.to_string(),
                rows.to_string(),
            ]
        })
        .collect();
    print_cells(&names, &cells, format)?;
    Ok(0)
}

fn show(run: &RunRecord, format: Format) -> Result<u8> {
    if format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(run)?))?;
        return Ok(0);
    }
    let names = ["table", "rows written", "what", "as they were", "seconds"].map(str::to_owned);
    let text = |value: &serde_json::Value| match value.as_str() {
        Some(text) => plain(text),
        None if value.is_null() => String::new(),
        None => value.to_string(),
    };
    let steps: Vec<Vec<String>> = run.report["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| {
            let seconds = step["seconds"].as_f64().unwrap_or(0.0);
            let [table, rows, scope, unchanged] =
                ["table", "rows", "scope", "unchanged"].map(|name| text(&step[name]));
            vec![table, rows, scope, unchanged, format!("{seconds:.2}")]
        })
        .collect();
    if format == Format::Csv {
        print_cells(&names, &steps, format)?;
        return Ok(0);
    }
    let mut page = format!(
        "run {} ({}): {}\n{} to {}, {:.2} s, {} commits, {} new files\n\n",
        run.run_id,
        run.command,
        run.status,
        time_text(run.started),
        time_text(run.finished),
        run.seconds(),
        run.commits,
        text(&run.report["new_files"]),
    );
    if let Some(error) = run.report["error"].as_str() {
        page.push_str(&format!("error: {}\n", plain(error)));
    }
    if !steps.is_empty() {
        page.push_str(&text_table(&names, &steps));
    }
    let balance: Vec<BalanceRow> = run.report["balance"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| serde_json::from_value(row.clone()).ok())
        .collect();
    if !balance.is_empty() {
        page.push_str(&format!("\n{}", render_balance(&balance, "run")));
    }
    for (name, count) in run.report["warnings"].as_object().into_iter().flatten() {
        page.push_str(&format!("\nwarning: {count}  {}", plain(name)));
    }
    for check in run.report["checks"].as_array().into_iter().flatten() {
        if check["rows"].as_i64() > Some(0) {
            // a report of an older version says only what the check may do at most
            let outcome = match &check["outcome"] {
                serde_json::Value::Null => &check["severity"],
                outcome => outcome,
            };
            page.push_str(&format!(
                "\ncheck `{}` ({}): {} of which this is not true: {}",
                text(&check["name"]),
                text(outcome),
                counted(
                    check["rows"].as_u64().and_then(|rows| usize::try_from(rows).ok()).unwrap_or(0),
                    "row"
                ),
                text(&check["description"])
            ));
            for detail in check["details"].as_array().into_iter().flatten() {
                page.push_str(&format!("\n    {}", text(detail)));
            }
        }
    }
    for withheld in run.report["withheld"].as_array().into_iter().flatten() {
        let partitions = withheld["partitions"].as_array().into_iter().flatten();
        page.push_str(&format!(
            "\nwithheld from `{}`: {}, by the check `{}`: {} rows: {}",
            text(&withheld["table"]),
            partitions.map(&text).collect::<Vec<_>>().join(", "),
            text(&withheld["check"]),
            withheld["rows"],
            text(&withheld["description"])
        ));
    }
    for problem in run.report["problems"].as_array().into_iter().flatten() {
        page.push_str(&format!("\nproblem: {}", text(problem)));
    }
    if !page.ends_with('\n') {
        page.push('\n');
    }
    print_text(&page)?;
    Ok(0)
}
