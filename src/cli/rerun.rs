//! `medallion rerun`

use std::sync::Arc;

use chrono::NaiveDate;
use clap::builder::RangedU64ValueParser;
use clap::{ArgGroup, Args, ValueEnum};

use super::output::{Format, print_cells, print_text};
use super::run::render;
use super::turn::TurnArgs;
use super::{Places, publish};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Run;
use crate::flow::plan::{self, Order, Plan, Request, Size, Which};
use crate::flow::report::Report;
use crate::telemetry::Progress;
use crate::trigger::anomalies::Anomalies;
use crate::trigger::batch;

#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("which").args(["stale", "missing", "failed"])),
    after_help = "Partitions that come out as they were are left as they are, and what reads them is not computed again.\n\
    A rerun can be stopped and run again at any time.\n\n\
    Examples:\n  \
    medallion rerun --from 2025-08-01 --to 2025-08-03 --dry-run   what it would do\n  \
    medallion rerun --from 2025-08-01 --to 2025-08-01             that day, in every table, and what depends on it\n  \
    medallion rerun --from 2025-08-01 --to 2025-08-01 --select gold.finops_daily_usage --only\n  \
    medallion rerun --select silver.users                         a table without dates\n  \
    medallion rerun --stale                                       after a model, a rule or a reference table changed\n  \
    medallion rerun --stale --order newest --max-partitions 100   the newest first, the rest another time\n  \
    medallion rerun --missing                                     what should be there and is not"
)]
pub struct RerunArgs {
    /// The first date, YYYY-MM-DD
    #[arg(long, value_name = "DATE")]
    from: Option<NaiveDate>,
    /// The last date, included
    #[arg(long, value_name = "DATE")]
    to: Option<NaiveDate>,
    /// Only these tables, and what depends on them; `bronze.<source>` decides its records again
    #[arg(long, value_name = "TABLE", num_args = 1..)]
    select: Vec<String>,
    /// What was computed or decided by an older form of the project
    #[arg(long)]
    stale: bool,
    /// What was never computed, or whose files are gone
    #[arg(long)]
    missing: bool,
    /// What an earlier run has left undone
    #[arg(long)]
    failed: bool,
    /// And everything that depends on them (this is the default)
    #[arg(long, conflicts_with = "only")]
    downstream: bool,
    /// Leave what depends on them to the next run
    #[arg(long)]
    only: bool,
    /// Compute what depends on them also where its input came out as it was
    #[arg(long)]
    force: bool,
    /// Show the plan and end
    #[arg(long)]
    dry_run: bool,
    /// Which come first
    #[arg(long, value_enum, default_value = "oldest")]
    order: OrderName,
    /// At most so many of the partitions that are asked for; the rest is left to a later call
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_partitions: Option<usize>,
    /// Models that are computed at the same time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    concurrency: u8,
    #[command(flatten)]
    turn: TurnArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OrderName {
    Oldest,
    Newest,
}

impl RerunArgs {
    /// The command's name, unless it only shows a plan.
    pub fn moves_data(&self) -> Option<&'static str> {
        (!self.dry_run).then_some("rerun")
    }

    fn request(&self) -> Result<Request> {
        let which = match (self.stale, self.missing, self.failed) {
            (true, ..) => Which::Stale,
            (_, true, _) => Which::Missing,
            (_, _, true) => Which::Failed,
            _ => Which::Dates,
        };
        let has_dates = self.from.is_some() && self.to.is_some();
        if which == Which::Dates
            && !has_dates
            && (self.select.is_empty() || self.from.is_some() != self.to.is_some())
        {
            return Err(Error::usage(
                "say what to compute again: `--from DATE --to DATE`, `--select TABLE`, `--stale`, `--missing` or \
                 `--failed`",
            ));
        }
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from > to
        {
            return Err(Error::usage(format!("`--from {from}` is after `--to {to}`")));
        }
        Ok(Request {
            which,
            from: self.from.map(|date| date.to_epoch_days()),
            to: self.to.map(|date| date.to_epoch_days()),
            select: self.select.iter().map(|table| plan::parse_table(table)).collect::<Result<_>>()?,
            is_only: self.only,
            is_forced: self.force,
            order: match self.order {
                OrderName::Oldest => Order::OldestFirst,
                OrderName::Newest => Order::NewestFirst,
            },
            max_partitions: self.max_partitions,
        })
    }

    /// The command as the ledger keeps it.
    fn text(&self) -> String {
        let mut text = "rerun".to_owned();
        for (flag, is_set) in
            [(" --stale", self.stale), (" --missing", self.missing), (" --failed", self.failed)]
        {
            if is_set {
                text.push_str(flag);
            }
        }
        for (flag, date) in [("from", self.from), ("to", self.to)] {
            if let Some(date) = date {
                text.push_str(&format!(" --{flag} {date}"));
            }
        }
        for table in &self.select {
            text.push_str(&format!(" --select {table}"));
        }
        if self.only {
            text.push_str(" --only");
        }
        text
    }
}

pub async fn run(places: &Places, args: &RerunArgs) -> Result<u8> {
    let request = args.request()?;
    let progress = Progress::new(!places.quiet);
    let project = places.load().await?;
    let lake = places.lake(&project).await?;
    if args.dry_run {
        let run = places.open_on(project, lake, progress.clone()).await?;
        let plan = plan::plan(&run, &request).await?;
        progress.finish();
        show(&plan, places.format)?;
        return Ok(0);
    }
    let _lock = args.turn.lock(&lake).await?;
    let computed = args.turn.insist(async || {
        let mut run = places.open_on(Arc::clone(&project), lake.clone(), progress.clone()).await?;
        let anomalies = Anomalies::begin(&run, &places.telling)?;
        let (plan, report) = compute(&mut run, args, &request, places.format).await?;
        Ok((run, anomalies, plan, report))
    });
    let (run, mut anomalies, plan, mut report) = computed.await.inspect_err(|_| progress.finish())?;
    let served = publish::follow_up(places, &run, Some(&mut report)).await;
    places.settled(&run, &report, &mut anomalies).await;
    progress.finish();
    match places.format {
        Format::Json => {
            let done = serde_json::json!({"plan": plan, "report": report});
            print_text(&format!("{}\n", serde_json::to_string_pretty(&done)?))?;
        }
        _ => print_text(&render(&report))?,
    }
    if plan.partitions_left > 0 && places.format == Format::Table {
        print_text(&format!("{} partitions are left; run again\n", plan.partitions_left))?;
    }
    served?;
    let verdict = report.verdict();
    for line in &verdict {
        tracing::error!("{line}");
    }
    Ok(if verdict.is_empty() { 0 } else { ErrorKind::Data.exit_code() })
}

async fn compute(
    run: &mut Run,
    args: &RerunArgs,
    request: &Request,
    format: Format,
) -> Result<(Plan, Report)> {
    let plan = plan::plan(run, request).await?;
    if format == Format::Table {
        show(&plan, format)?;
    }
    run.progress.expect(plan.rows);
    run.command = args.text();
    run.concurrency = usize::from(args.concurrency);
    run.wanted = plan.wanted.clone();
    let report = batch::rerun(run).await?;
    Ok((plan, report))
}

fn show(plan: &Plan, format: Format) -> Result<()> {
    if format == Format::Json {
        return print_text(&format!("{}\n", serde_json::to_string_pretty(plan)?));
    }
    if plan.steps.is_empty() && format == Format::Table {
        return print_text("no partition is to be computed again\n");
    }
    let names = ["table", "partitions", "which", "rows", "bytes", "why"].map(str::to_owned);
    let cells: Vec<Vec<String>> = plan
        .steps
        .iter()
        .map(|step| {
            vec![
                step.table.clone(),
                step.partitions.to_string(),
                step.scope.clone(),
                step.rows.to_string(),
                step.bytes.to_string(),
                step.why.to_owned(),
            ]
        })
        .collect();
    print_cells(&names, &cells, format)?;
    if format == Format::Table {
        let time = |seconds: Option<f64>| {
            seconds.map_or_else(String::new, |seconds| {
                format!(", about {seconds:.1} s by the pace of past runs")
            })
        };
        let Size { partitions, rows, bytes } = plan.at_least;
        let least = time(plan.at_least_seconds);
        print_text(&format!("\n{partitions} partitions, {rows} rows, {bytes} bytes{least}\n"))?;
        if plan.at_least.partitions < plan.partitions {
            let Plan { partitions, rows, bytes, .. } = plan;
            let most = time(plan.estimated_seconds);
            print_text(&format!(
                "at most, if everything comes out changed: {partitions} partitions, {rows} rows, {bytes} bytes{most}\n"
            ))?;
        }
        print_text("\n")?;
    }
    Ok(())
}
