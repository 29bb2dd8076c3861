//! `medallion quarantine export|redrive|discard`

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::output::{Format, plain, print_text};
use super::quarantine::{Filter, sources};
use super::run::render;
use super::turn::TurnArgs;
use super::{Places, publish};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::quarantine::{self, Refused};
use crate::flow::redrive::{self, Chosen, Outcome, Signed};
use crate::flow::report::Report;
use crate::flow::{self, Run, runs};
use crate::lake::partition::date_text;
use crate::telemetry::Progress;
use crate::trigger::anomalies::Anomalies;

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    filter: Filter,
    /// How the records are written
    #[arg(long = "as", value_enum, default_value = "jsonl")]
    form: ExportForm,
    /// Into this file; to standard output by default
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportForm {
    /// One JSON object per line, with `raw_hex`, the exact bytes
    Jsonl,
    /// For a spreadsheet: a cell that it would take for a formula begins with `'`
    Csv,
}

#[derive(Debug, Args)]
pub struct RedriveArgs {
    #[command(flatten)]
    filter: Filter,
    /// Every refused record
    #[arg(long)]
    all: bool,
    /// An edited record that stands in for the only one chosen, as one line of the source's format
    #[arg(long, value_name = "FILE")]
    patch: Option<PathBuf>,
    /// What to keep in the ledger about it
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
    /// Say what bronze would take in, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    turn: TurnArgs,
}

#[derive(Debug, Args)]
pub struct DiscardArgs {
    #[command(flatten)]
    filter: Filter,
    /// Every refused record
    #[arg(long)]
    all: bool,
    /// Why, kept for ever
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Say how many, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    turn: TurnArgs,
}

async fn choose(run: &Run, filter: &Filter) -> Result<Chosen> {
    let mut chosen = Vec::new();
    for name in sources(run, filter)? {
        if let Some(source) = run.project.source(&name).cloned() {
            let mut records = quarantine::read(run, &source, filter.dates().as_ref(), "true").await?;
            records.retain(|record| filter.matches(record));
            if !records.is_empty() {
                chosen.push((source, records));
            }
        }
    }
    Ok(chosen)
}

pub async fn export(places: &Places, args: &ExportArgs) -> Result<u8> {
    let run = places.open(Progress::new(false)).await?;
    let mut text = Vec::new();
    if args.form == ExportForm::Csv {
        let names = [
            "source",
            "date",
            "error_type",
            "stage",
            "column",
            "reason",
            "source_file",
            "source_line",
            "batch_id",
            "raw_bytes",
            "raw",
        ];
        text.extend_from_slice(csv_line(names.iter().map(|name| (*name).to_owned())).as_bytes());
    }
    for (source, records) in choose(&run, &args.filter).await? {
        for mut record in records {
            if record.raw_bytes > i64::try_from(record.raw.len()).unwrap_or(i64::MAX) {
                let (file, line) = (&record.source_file, record.source_line);
                if let Some(whole) = quarantine::raw_bytes(&run, &source.name, file, line).await? {
                    record.raw = whole;
                } else {
                    let why =
                        if line == quarantine::NO_LINE { quarantine::IN_FILE } else { quarantine::PART };
                    tracing::warn!("{file}:{line}: {why}");
                }
            }
            let line = match args.form {
                ExportForm::Jsonl => json_line(&source.name, &record),
                ExportForm::Csv => csv_line(cells(&source.name, &record).into_iter()),
            };
            text.extend_from_slice(line.as_bytes());
        }
    }
    match &args.out {
        None => print_text(&String::from_utf8_lossy(&text))?,
        Some(path) => {
            let failed = |error: std::io::Error| {
                let message = format!("can't write `{}`", path.display());
                match error.kind() {
                    // no mistake of the caller's
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::unavailable(message),
                    _ => Error::usage(message),
                }
                .because(error)
            };
            std::fs::File::create(path).and_then(|mut file| file.write_all(&text)).map_err(failed)?;
        }
    }
    Ok(0)
}

fn json_line(source: &str, record: &Refused) -> String {
    let line = json!({
        "source": source,
        "date": date_text(record.date),
        "error_type": record.error_type,
        "stage": record.stage.as_str(),
        "column": record.column,
        "reason": record.reason,
        "source_file": record.source_file,
        "source_line": record.source_line,
        "batch_id": record.batch_id,
        "raw_bytes": record.raw_bytes,
        "raw_is_whole": record.raw_bytes == i64::try_from(record.raw.len()).unwrap_or(i64::MAX),
        "raw": String::from_utf8_lossy(&record.raw),
        "raw_hex": record.raw.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    });
    format!("{line}\n")
}

fn cells(source: &str, record: &Refused) -> Vec<String> {
    vec![
        source.to_owned(),
        date_text(record.date),
        record.error_type.clone(),
        record.stage.as_str().to_owned(),
        record.column.clone().unwrap_or_default(),
        record.reason.clone(),
        record.source_file.clone(),
        record.source_line.to_string(),
        record.batch_id.to_string(),
        record.raw_bytes.to_string(),
        String::from_utf8_lossy(&record.raw).into_owned(),
    ]
}

/// One line, every cell in quotes. A spreadsheet runs a cell that begins with one of `= + - @`, a tab or a line end as a
/// formula: such a cell gets an apostrophe before it.
fn csv_line(cells: impl Iterator<Item = String>) -> String {
    let safe = cells.map(|cell| {
        let is_formula = cell.trim_start_matches(' ').starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
        let cell = if is_formula { format!("'{cell}") } else { cell };
        format!("\"{}\"", cell.replace('"', "\"\""))
    });
    format!("{}\r\n", safe.collect::<Vec<_>>().join(","))
}

pub async fn redrive(places: &Places, args: &RedriveArgs) -> Result<u8> {
    refuse_everything(&args.filter, args.all)?;
    let edited = args.patch.as_ref().map(|path| {
        let mut bytes = std::fs::read(path).map_err(|error| {
            Error::usage(format!("can't read the edited record `{}`", path.display())).because(error)
        })?;
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        Result::Ok(bytes)
    });
    let edited = edited.transpose()?;
    let work =
        Work { name: "quarantine redrive", filter: &args.filter, is_dry: args.dry_run, turn: &args.turn };
    let signed = signed(&args.reason);
    decide(places, work, async |run, chosen| {
        redrive::redrive(run, chosen, edited.clone(), &signed, args.dry_run).await
    })
    .await
}

pub async fn discard(places: &Places, args: &DiscardArgs) -> Result<u8> {
    refuse_everything(&args.filter, args.all)?;
    if args.reason.trim().is_empty() {
        return Err(Error::usage("say why with `--reason`: it is kept for ever"));
    }
    let work =
        Work { name: "quarantine discard", filter: &args.filter, is_dry: args.dry_run, turn: &args.turn };
    let signed = signed(&args.reason);
    decide(places, work, async |run, chosen| redrive::discard(run, chosen, &signed, args.dry_run).await).await
}

fn refuse_everything(filter: &Filter, is_all: bool) -> Result<()> {
    match filter.is_empty() && !is_all {
        true => Err(Error::usage(
            "say which records: `--source`, `--error-type`, `--date`, `--file`, `--line`, or `--all`",
        )),
        false => Ok(()),
    }
}

fn signed(note: &str) -> Signed {
    Signed { operator: operator(), note: note.trim().to_owned() }
}

/// Who decides, as the ledger keeps it.
fn operator() -> String {
    let names = ["MEDALLION_OPERATOR", "USER", "LOGNAME"].into_iter();
    let mut names = names.filter_map(|name| std::env::var(name).ok()).map(|name| name.trim().to_owned());
    // a service or a container often has none of them
    names.find(|name| !name.is_empty()).unwrap_or_else(|| match std::fs::metadata("/proc/self") {
        Ok(process) => format!("uid {}", process.uid()),
        Err(_) => "unknown".to_owned(),
    })
}

struct Work<'a> {
    name: &'static str,
    filter: &'a Filter,
    is_dry: bool,
    turn: &'a TurnArgs,
}

async fn decide(
    places: &Places,
    work: Work<'_>,
    act: impl AsyncFn(&mut Run, Chosen) -> Result<(Outcome, Option<Report>)>,
) -> Result<u8> {
    let progress = Progress::new(!places.quiet);
    let project = places.load().await?;
    let lake = places.lake(&project).await?;
    let _lock = match work.is_dry {
        true => None,
        false => Some(work.turn.lock(&lake).await?),
    };
    let done = work.turn.insist(async || {
        let mut run = places.open_on(Arc::clone(&project), lake.clone(), progress.clone()).await?;
        run.command = work.name.to_owned();
        if !work.is_dry {
            // what was begun before: records of a batch that is half taken in are nobody's to decide over
            let mut report = Report::begin(&run);
            flow::finish_begun(&mut run, &mut report).await?;
        }
        let chosen = choose(&run, work.filter).await?;
        let anomalies = Anomalies::begin(&run, &places.telling)?;
        let done = act(&mut run, chosen).await;
        if let Err(error) = &done
            && error.kind() == ErrorKind::Bug
        {
            let _ = runs::record_error(&mut run, error).await;
        }
        done.map(|(outcome, report)| (run, anomalies, outcome, report))
    });
    let (run, mut anomalies, outcome, mut report) = done.await.inspect_err(|_| progress.finish())?;
    let served = match work.is_dry {
        true => Ok(()),
        false => publish::follow_up(places, &run, report.as_mut()).await,
    };
    if let Some(report) = &report {
        places.settled(&run, report, &mut anomalies).await;
    }
    progress.finish();
    if places.format == Format::Json {
        let done = json!({"outcome": outcome, "report": report});
        print_text(&format!("{}\n", serde_json::to_string_pretty(&done)?))?;
    } else {
        tell(&outcome, work.is_dry)?;
        if let Some(report) = report.as_ref().filter(|report| !report.is_idle()) {
            print_text(&format!("\n{}", render(report)))?;
        }
    }
    served?;
    let verdict = report.map(|report| report.verdict()).unwrap_or_default();
    for line in &verdict {
        tracing::error!("{line}");
    }
    Ok(if verdict.is_empty() { 0 } else { ErrorKind::Data.exit_code() })
}

fn tell(outcome: &Outcome, is_dry: bool) -> Result<()> {
    let would = if is_dry { " (nothing was done)" } else { "" };
    let mut text = format!("{} records chosen{would}\n", outcome.chosen);
    for (count, what) in
        [(outcome.accepted, "accepted"), (outcome.refused, "still refused"), (outcome.discarded, "discarded")]
    {
        if count > 0 {
            text.push_str(&format!("  {count:>8}  {what}\n"));
        }
    }
    for skipped in &outcome.skipped {
        text.push_str(&format!(
            "  skipped {}:{}: {}\n",
            plain(&skipped.source_file),
            skipped.source_line,
            plain(&skipped.why)
        ));
    }
    print_text(&text)
}
