//! `medallion generate`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use chrono::{DateTime, SecondsFormat};
use clap::Args;
use serde::Serialize;

use super::Places;
use super::output::{Format, print_text, text_table};
use crate::error::Result;
use crate::generate::files::Compress;
use crate::generate::query::Parameters;
use crate::generate::{Generated, Report, Request, generate, make_folder};
use crate::telemetry::Progress;

#[derive(Debug, Args)]
#[command(
    after_help = "The records come from the project's `sql/landing/<source>.sql`; the faults from the sources' \
    declarations:\nduplicates, conflicts, broken lines, missing, mistyped, too large and future values, unknown \
    fields.\nThe same options give the same bytes.\n\n\
    Examples:\n  \
    medallion generate --out /tmp/landing\n  \
    medallion generate --events 5000000 --days 60 --files 100 --compress zstd --dirty 1 --out /data/landing\n  \
    medallion generate --dirty 0 --seed 7 --out /tmp/clean && \\\n    \
    medallion --landing /tmp/clean --lake /tmp/lake run"
)]
pub struct GenerateArgs {
    /// How many events; the other sources are sized by their queries
    #[arg(long, value_name = "N", default_value_t = 43_200, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..=1_000_000_000_000))]
    events: i64,
    /// Over how many days they spread
    #[arg(long, value_name = "D", default_value_t = 60, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: i64,
    /// The share of records with a fault, in percent
    #[arg(long, value_name = "PCT", default_value = "2", allow_negative_numbers = true, value_parser = parse_percent)]
    dirty: f64,
    /// Other seeds give other data
    #[arg(long, value_name = "S", default_value_t = 1, allow_negative_numbers = true)]
    seed: i64,
    /// The folder to write to; it must not hold files of the sources
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many files the largest source has; the others have fewer, in proportion
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=9999))]
    files: u64,
    /// How files are compressed: none, gzip, zstd, or mixed
    #[arg(long, value_name = "KIND", default_value = "none")]
    compress: Compress,
}

fn parse_percent(text: &str) -> std::result::Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("write a number from 0 to 100".to_owned()),
    }
}

pub async fn run(places: &Places, args: &GenerateArgs) -> Result<u8> {
    let project = places.load().await?;
    let request = Request {
        parameters: Parameters { events: args.events, days: args.days, seed: args.seed },
        dirty: args.dirty / 100.0,
        out: args.out.clone(),
        files: usize::try_from(args.files).unwrap_or(1),
        compress: args.compress,
    };
    make_folder(&request.out)?;
    let progress = Progress::new(!places.quiet);
    let generated = generate(&project, &request, &progress).await;
    progress.finish();
    let report = generated?;
    match places.format {
        Format::Table => print_text(&for_people(&report, args))?,
        Format::Csv => print_text(&as_csv(&report))?,
        Format::Json => {
            print_text(&format!("{}\n", serde_json::to_string_pretty(&as_json(&report))?))?;
        }
    }
    Ok(0)
}

fn for_people(report: &Report, args: &GenerateArgs) -> String {
    let cells = |generated: &Generated| {
        let faults: u64 = generated.faults.values().sum();
        vec![
            generated.source.clone(),
            generated.files.to_string(),
            generated.bytes.to_string(),
            generated.records.to_string(),
            faults.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = report.sources.iter().map(cells).collect();
    let names = ["source", "files", "bytes", "records", "faults"].map(str::to_owned);
    let mut text = text_table(&names, &rows);
    let mut by_fault = BTreeMap::new();
    for (fault, count) in report.sources.iter().flat_map(|generated| &generated.faults) {
        *by_fault.entry(*fault).or_insert(0) += count;
    }
    if !by_fault.is_empty() {
        let names = ["fault", "records", "becomes"].map(str::to_owned);
        let rows: Vec<Vec<String>> = by_fault
            .iter()
            .map(|(fault, count)| {
                vec![fault.as_str().to_owned(), count.to_string(), fault.becomes().to_owned()]
            })
            .collect();
        let _ = write!(text, "\n{}", text_table(&names, &rows));
    }
    if let Some(time) = time_text(report.modified) {
        let _ = writeln!(text, "\nwritten to `{}`, every file as of {time}", args.out.display());
    }
    text
}

fn as_csv(report: &Report) -> String {
    let mut text = "source,fault,becomes,records\n".to_owned();
    for generated in &report.sources {
        for (fault, count) in &generated.faults {
            let _ = writeln!(text, "{},{},{},{count}", generated.source, fault.as_str(), fault.becomes());
        }
        let faults: u64 = generated.faults.values().sum();
        let _ = writeln!(text, "{},,accepted,{}", generated.source, generated.records - faults);
    }
    text
}

#[derive(Debug, Serialize)]
struct ReportJson<'a> {
    modified: Option<String>,
    sources: Vec<SourceJson<'a>>,
}

#[derive(Debug, Serialize)]
struct SourceJson<'a> {
    source: &'a str,
    files: usize,
    bytes: u64,
    records: u64,
    faults: BTreeMap<&'static str, u64>,
}

fn as_json(report: &Report) -> ReportJson<'_> {
    let sources = report.sources.iter().map(|generated| SourceJson {
        source: &generated.source,
        files: generated.files,
        bytes: generated.bytes,
        records: generated.records,
        faults: generated.faults.iter().map(|(fault, count)| (fault.as_str(), *count)).collect(),
    });
    ReportJson { modified: time_text(report.modified), sources: sources.collect() }
}

fn time_text(micros: Option<i64>) -> Option<String> {
    let time = DateTime::from_timestamp_micros(micros?)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Secs, true))
}
