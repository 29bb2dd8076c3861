//! `medallion run`

use std::time::Duration;

use clap::Args;

use super::output::{Format, print_text, text_table};
use super::turn::patience;
use super::{Places, open_run, publish, query};
use crate::error::{ErrorKind, Result};
use crate::flow::balance::{BalanceRow, RECORDS};
use crate::flow::landing::Left;
use crate::flow::lock;
use crate::flow::report::{Report, Step};
use crate::source::files::NotTaken;
use crate::telemetry::{Progress, counted};
use crate::trigger::anomalies::Anomalies;
use crate::trigger::batch;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    medallion run                     take in new files, recompute what they touch\n  \
    medallion run --full-refresh      recompute silver and gold from bronze, after a model changed\n  \
    medallion run --answers           and answer every question of the project\n  \
    medallion --cassandra db1 run     and publish the marts that changed")]
pub struct RunArgs {
    /// Recompute silver and gold wholly from bronze
    #[arg(long)]
    full_refresh: bool,
    /// Answer the project's questions, with their default parameters, at the end
    #[arg(long)]
    answers: bool,
    /// How long to wait for the lake where another run or a stream has it, for example `90s` or `10m`; by default not at
    /// all (exit code 5)
    #[arg(long, value_name = "AGE", value_parser = patience)]
    wait: Option<Duration>,
}

pub async fn run(places: &Places, args: &RunArgs) -> Result<u8> {
    let progress = Progress::new(!places.quiet);
    let project = places.load().await?;
    let landing = places.landing(&project)?;
    let lake = places.new_lake(&project)?;
    // taken before the tables are looked at, so that what is seen is what the run works on
    let _lock = match args.wait {
        None => lock::acquire(&lake)?,
        wait => lock::wait(&lake, wait).await?,
    };
    let mut run = open_run(project, landing, lake, progress.clone()).await?;
    let mut anomalies = Anomalies::begin(&run, &places.telling)?;
    let report = batch::run(&mut run, args.full_refresh).await.inspect_err(|_| progress.finish());
    let mut report = report?;
    let served = publish::follow_up(places, &run, Some(&mut report)).await;
    places.settled(&run, &report, &mut anomalies).await;
    progress.finish();
    match places.format {
        Format::Json => print_text(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
        _ => print_text(&render(&report))?,
    }
    if args.answers {
        query::answer_all(&run, places.format).await?;
    }
    // gold is complete and reported; what could not be published is left for the next run
    served?;
    let verdict = report.verdict();
    for line in &verdict {
        tracing::error!("{line}");
    }
    Ok(if verdict.is_empty() { 0 } else { ErrorKind::Data.exit_code() })
}

pub fn render(report: &Report) -> String {
    let mut text = render_lake(report);
    if !report.published.is_empty() {
        text.push_str(&format!("\n{}", publish::render(&report.published, report.publishing_seconds)));
    }
    text
}

fn render_lake(report: &Report) -> String {
    if report.is_idle() {
        let mut text = format!("{}: no table was changed\n", what_was_looked_at(report));
        for (name, count) in &report.warnings {
            text.push_str(&format!("  {count:>8}  {name}\n"));
        }
        text.push_str(&render_left(&report.left));
        return text;
    }
    let run = report.run_id.map_or_else(String::new, |id| format!(" {id}"));
    let mut text = format!("run{run}: {}\n\n", counted(report.new_files, "new file"));
    let names = ["table", "rows written", "what"].map(str::to_owned);
    let rows: Vec<Vec<String>> = report
        .steps
        .iter()
        .map(|step| {
            let mut scope = step.scope.clone();
            if step.unchanged > 0 {
                scope.push_str(&format!(", {} as before", counted(step.unchanged, "partition")));
            }
            if step.withheld > 0 {
                scope.push_str(&format!(", {} withheld", counted(step.withheld, "partition")));
            }
            vec![step.table.clone(), step.rows.to_string(), scope]
        })
        .collect();
    text.push_str(&text_table(&names, &rows));
    text.push('\n');
    text.push_str(&render_balance(&report.balance, "run"));
    if !report.warnings.is_empty() || report.checks.iter().any(|check| check.rows > 0) {
        text.push_str("\nwarnings\n");
        for (name, count) in &report.warnings {
            text.push_str(&format!("  {count:>8}  {name}\n"));
        }
        for check in report.checks.iter().filter(|check| check.rows > 0) {
            text.push_str(&format!("  {:>8}  `{}` found {}\n", check.rows, check.name, check.finding()));
            for detail in &check.details {
                text.push_str(&format!("            {detail}\n"));
            }
        }
    }
    text.push_str(&render_left(&report.left));
    let holds = report.balance.iter().all(|row| row.difference == 0);
    text.push_str(&format!(
        "\n{} in {:.2} s, {}\n",
        if holds {
            "the balance holds: every landed record is accounted for"
        } else {
            "THE BALANCE DOES NOT HOLD"
        },
        report.seconds,
        counted(report.commits, "commit"),
    ));
    text
}

/// What a run did that changed nothing.
fn what_was_looked_at(report: &Report) -> String {
    let sum = |of: fn(&Step) -> usize| report.steps.iter().map(of).sum::<usize>();
    if report.steps.is_empty() {
        return "nothing new in landing, nothing to recompute".to_owned();
    }
    let computed = counted(sum(|step| step.partitions), "partition");
    let mut text = format!("computed again: {computed} of {}", counted(report.steps.len(), "table"));
    match sum(|step| step.withheld) {
        0 => text.push_str("; nothing differed"),
        withheld => text.push_str(&format!("; {} withheld as before", counted(withheld, "partition"))),
    }
    text
}

/// What lies in landing and is not taken in.
pub fn render_left(left: &Left) -> String {
    const NAMED: usize = 20;
    let mut text = String::new();
    let files: Vec<&NotTaken> = left.changed.iter().chain(&left.refused).collect();
    if !files.is_empty() {
        text.push_str("\nNOT TAKEN IN\n");
        for file in files.iter().take(NAMED) {
            text.push_str(&format!("  {}: {}\n", file.path, file.reason));
        }
        if files.len() > NAMED {
            text.push_str(&format!("  and {} more\n", files.len() - NAMED));
        }
    }
    if left.num_unclaimed > 0 {
        let more = if left.num_unclaimed > left.unclaimed.len() { ", …" } else { "" };
        let count = counted(left.num_unclaimed, "file");
        text.push_str(&format!("\nof no source: {count} ({}{more})\n", left.unclaimed.join(", ")));
    }
    if left.num_gone > 0 {
        let more = if left.num_gone > left.gone.len() { ", …" } else { "" };
        let count = counted(left.num_gone, "file");
        let names = left.gone.join(", ");
        text.push_str(&format!(
            "\ntaken in and gone from landing since: {count} ({names}{more}); put them back, the lake has no copy of them\n"
        ));
    }
    text
}

/// The balance of one scope as a table.
pub fn render_balance(rows: &[BalanceRow], scope: &str) -> String {
    let names =
        ["source", "measure", "landed", "accepted", "duplicates", "superseded", "quarantined", "difference"]
            .map(str::to_owned);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .filter(|row| row.scope == scope)
        .filter(|row| row.landed != 0 || row.difference != 0 || row.measure == RECORDS)
        .map(|row| {
            let sides =
                [row.landed, row.accepted, row.duplicates, row.superseded, row.quarantined, row.difference];
            let texts = sides.map(|side| row.amount(side));
            [row.source.clone(), row.measure.clone()].into_iter().chain(texts).collect()
        })
        .collect();
    text_table(&names, &cells)
}
