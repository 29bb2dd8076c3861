//! `medallion status`

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use super::output::{Format, print_cells, print_text};
use super::published::{self, Published};
use super::{Places, monitor};
use crate::error::{ErrorKind, Result};
use crate::flow::bronze::{LATE, MAX_EVENT_TIME};
use crate::flow::freshness::{self, Freshness};
use crate::flow::model::describe;
use crate::flow::runs::{self, RunRecord};
use crate::flow::{Run, checks, decisions, dirty, gate};
use crate::lake::table::Table;
use crate::project::model::Model;
use crate::telemetry::{Progress, duration_text, time_text};

#[derive(Debug, Args)]
#[command(
    after_help = "Answered from the tables' logs; `--monitor` lists landing, too. Where a serving store is configured it is asked, for two\n\
    seconds at most, what it holds (`published`).\n\n\
    Where a table has consumed more of another than is there, it is a problem of that table and the exit code is 4. With\n\
    `--monitor` it is 4 also where a person has to look: the last run failed, was stopped by an error or was\n\
    killed, one of the newest files of a table is gone (`medallion doctor` looks for all), a table has lost commits or\n\
    decisions are lost, a landed file is refused or has changed, the serving store holds a mart of another lake or other\n\
    rows than were published, a declared `freshness` is missed, a check of freshness fails by the clock, a check\n\
    withholds a partition, or a decision over quarantined records waits to be applied. What waits for the next run and\n\
    what is stale is shown, and is no alarm.\n\n\
    Examples:\n  \
    medallion status\n  \
    medallion --quiet --format json status --monitor"
)]
pub struct StatusArgs {
    /// End with exit code 4 where something is for a person to look at
    #[arg(long)]
    monitor: bool,
}

#[derive(Debug, Default, Serialize)]
struct TableStatus {
    table: String,
    /// None of a table that is not there yet.
    version: Option<i64>,
    rows: u64,
    partitions: usize,
    files: usize,
    /// Of the files of the newest version.
    bytes: i64,
    committed: Option<String>,
    /// The run that changed it last, where its log entry says so.
    run: Option<i64>,
    /// What the next run will recompute.
    waits: String,
    /// How many partitions that are; 1 for a table without partitions.
    dirty_partitions: usize,
    /// Partitions that an older form of the model computed; of bronze, dates that older rules decided.
    stale_partitions: usize,
    /// Files that an older form of the model wrote.
    stale_files: usize,
    /// Partitions that checks keep out of it.
    withheld_partitions: Vec<String>,
    /// Refused records of the source that the last run refused, and all of them.
    quarantined_last_run: Option<u64>,
    quarantined: Option<u64>,
    /// Records that came behind the watermark, in the last run and all of them.
    late_last_run: Option<u64>,
    late: Option<i64>,
    watermark: Option<String>,
    /// How long ago the newest event was.
    lag_seconds: Option<i64>,
    /// Seconds since there was something new (a source), or that a change has waited (a model).
    age_seconds: Option<i64>,
    /// What the project says it may be at most.
    freshness_seconds: Option<i64>,
    is_fresh: Option<bool>,
    /// That it is too old, in a sentence.
    #[serde(skip)]
    too_old: Option<String>,
    /// What the serving store holds of a mart, where one is configured.
    published: Option<Published>,
    /// Why it can't be told what waits: the table does not fit what it was made from.
    problem: Option<String>,
}

impl StatusArgs {
    pub fn monitors(&self) -> bool {
        self.monitor
    }
}

pub async fn run(places: &Places, args: &StatusArgs) -> Result<u8> {
    let run = places.open(Progress::new(false)).await?;
    let last = runs::last(&run.ledger).await?;
    let mut tables = collect(&run, last.as_ref()).await?;
    let mut published = published::look(places, &run).await?;
    for table in &mut tables {
        table.published = published.remove(&table.table);
    }
    let by_the_clock = match args.monitor {
        true => checks::run_those_by_the_clock(&run).await?,
        false => Vec::new(),
    };
    match places.format {
        Format::Json => print_text(&format!("{}\n", serde_json::to_string_pretty(&tables)?))?,
        format => print(&tables, last.as_ref(), format)?,
    }
    let mut problems: Vec<String> = tables.iter().filter_map(|table| table.problem.clone()).collect();
    if args.monitor {
        problems.extend(tables.iter().filter_map(|table| table.too_old.clone()));
        problems.extend(tables.iter().filter_map(|table| table.published.as_ref()?.problem(&table.table)));
        problems.extend(monitor::look(&run, last.as_ref(), &by_the_clock).await?);
    }
    for problem in &problems {
        tracing::error!("{problem}");
    }
    if args.monitor {
        places.telling.looked_at(&run, &by_the_clock).await;
    }
    Ok(if problems.is_empty() { 0 } else { ErrorKind::Data.exit_code() })
}

fn print(tables: &[TableStatus], last: Option<&RunRecord>, format: Format) -> Result<()> {
    if format == Format::Table {
        print_text(&match last {
            None => "no run has changed anything yet\n\n".to_owned(),
            Some(last) => format!(
                "run {} ({}): {}, {} to {}\n\n",
                last.run_id,
                last.command,
                last.status,
                time_text(last.started),
                time_text(last.finished)
            ),
        })?;
    }
    let names = [
        "table",
        "version",
        "rows",
        "partitions",
        "files",
        "bytes",
        "committed",
        "run",
        "waits",
        "stale",
        "withheld",
        "quarantined",
        "late",
        "watermark",
        "lag",
        "age",
        "fresh",
        "published",
    ]
    .map(str::to_owned);
    let number = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    // all of them, and how many the last run has added
    let counted = |all: Option<String>, last: Option<u64>| match (all, last) {
        (Some(all), Some(last)) if last > 0 && format == Format::Table => format!("{all} (+{last})"),
        (all, _) => all.unwrap_or_default(),
    };
    let rows: Vec<Vec<String>> = tables
        .iter()
        .map(|status| {
            vec![
                status.table.clone(),
                number(status.version),
                status.rows.to_string(),
                status.partitions.to_string(),
                status.files.to_string(),
                status.bytes.to_string(),
                status.committed.clone().unwrap_or_default(),
                number(status.run),
                status.waits.clone(),
                status.stale_partitions.to_string(),
                match status.withheld_partitions.len() {
                    0 => String::new(),
                    withheld => withheld.to_string(),
                },
                counted(status.quarantined.map(|all| all.to_string()), status.quarantined_last_run),
                counted(status.late.map(|all| all.to_string()), status.late_last_run),
                status.watermark.clone().unwrap_or_default(),
                status.lag_seconds.map(duration_text).unwrap_or_default(),
                status.age_seconds.map(duration_text).unwrap_or_default(),
                status
                    .is_fresh
                    .map(|is_fresh| if is_fresh { "yes" } else { "NO" })
                    .unwrap_or_default()
                    .to_owned(),
                status.published.as_ref().map(Published::text).unwrap_or_default(),
            ]
        })
        .collect();
    print_cells(&names, &rows, format)?;
    if format == Format::Table {
        let bytes: i64 = tables.iter().map(|table| table.bytes).sum();
        print_text(&format!("\n{bytes} bytes in the files of the newest versions\n"))?;
    }
    Ok(())
}

async fn collect(run: &Run, last: Option<&RunRecord>) -> Result<Vec<TableStatus>> {
    let mut found = Vec::new();
    let stale = decisions::stale(run).await?;
    let of_last_run = |table: &str, what: &str| {
        let steps = last.map(|last| last.report["steps"].as_array().into_iter().flatten());
        steps?.find(|step| step["table"] == table)?[what].as_u64()
    };
    for source in &run.project.sources {
        let table = run.bronze_of(&source.name)?;
        let mut status = look(table).await?;
        let newest = table.position(MAX_EVENT_TIME);
        status.watermark =
            source.watermark_delay.zip(newest).map(|(delay, newest)| time_text(newest - delay));
        let now = chrono::Utc::now().timestamp_micros();
        status.lag_seconds =
            source.watermark_delay.zip(newest).map(|(_, newest)| now.saturating_sub(newest) / 1_000_000);
        status.late = table.position(LATE);
        status.stale_partitions = stale.get(&source.name).map_or(0, BTreeSet::len);
        let quarantine = run.quarantine_of(&source.name)?;
        status.quarantined = Some(quarantine.num_records());
        status.quarantined_last_run = of_last_run(table.name(), "quarantined");
        status.late_last_run = of_last_run(table.name(), "late");
        judge(&mut status, &freshness::of_source(run, source, run.started_at)?);
        found.push(status);
        if quarantine.version() >= 0 {
            found.push(look(quarantine).await?);
        }
    }
    for model in run.project.stored_models() {
        let table = run.table(&model.table)?;
        let mut status = look(table).await?;
        let stale = dirty::stale(run, model)?;
        status.stale_partitions = stale.num_partitions();
        status.stale_files = stale.num_files;
        let withheld: BTreeSet<_> =
            gate::withheld(table).into_iter().map(|withheld| withheld.place).collect();
        status.withheld_partitions = withheld.into_iter().map(gate::place_text).collect();
        match dirty::work(run, model).await {
            Ok(work) => look_at_work(run, model, &work, &mut status).await?,
            // the others can be told all the same
            Err(error) if error.kind() == ErrorKind::Data => {
                status.waits = "PROBLEM".to_owned();
                status.problem = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
        found.push(status);
    }
    Ok(found)
}

async fn look_at_work(run: &Run, model: &Model, work: &dirty::Work, status: &mut TableStatus) -> Result<()> {
    judge(status, &freshness::of_model(run, model, work, run.started_at).await?);
    status.dirty_partitions = match work {
        dirty::Work::Nothing => 0,
        dirty::Work::Whole => 1,
        dirty::Work::Dates(dates) => dates.len(),
    };
    if *work != dirty::Work::Nothing {
        status.waits = describe(work);
    }
    Ok(())
}

fn judge(status: &mut TableStatus, fresh: &Freshness) {
    status.age_seconds = fresh.age_seconds;
    status.freshness_seconds = fresh.objective_seconds;
    status.is_fresh = fresh.is_fresh();
    status.too_old = (fresh.is_fresh() == Some(false)).then(|| fresh.to_string());
}

/// So many log entries are looked at for the run that changed a table last.
const COMPACTIONS_IN_A_ROW: usize = 4;

async fn look(table: &Table) -> Result<TableStatus> {
    let Some(snapshot) = table.snapshot() else {
        return Ok(TableStatus { table: table.name().to_owned(), ..TableStatus::default() });
    };
    let depth = snapshot.metadata.partition_columns.len();
    // what a compaction has added last was there before
    let mut run = None;
    for version in (0..=snapshot.version).rev().take(COMPACTIONS_IN_A_ROW) {
        run = table.info_at(version).await.unwrap_or_default()["run"].as_i64();
        if run.is_some() {
            break;
        }
    }
    Ok(TableStatus {
        table: table.name().to_owned(),
        version: Some(table.version()),
        rows: table.num_records(),
        partitions: if depth == 0 { 0 } else { table.partitions(depth).len() },
        files: snapshot.files.len(),
        bytes: snapshot.files.values().map(|file| file.size).sum(),
        committed: Some(time_text(snapshot.timestamp * 1000)),
        run,
        ..TableStatus::default()
    })
}
