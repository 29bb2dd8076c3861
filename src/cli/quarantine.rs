//! `medallion quarantine list|show`

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::{Date32Type, Int64Type};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{Format, plain, print_cells, print_text};
use super::{Places, redrive};
use crate::engine;
use crate::error::{Error, Result};
use crate::flow::{Run, checks, decide::quoted, quarantine};
use crate::lake::partition::date_text;
use crate::telemetry::Progress;

#[derive(Debug, Args)]
pub struct QuarantineArgs {
    #[command(subcommand)]
    command: QuarantineCommand,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// Count refused records by source and error type
    #[command(after_help = "Examples:\n  \
        medallion quarantine list                        one line per source and error type, with the first and last date\n  \
        medallion quarantine list --by-date --source users")]
    List(ListArgs),
    /// Show refused records: file, line, reason and the raw bytes
    #[command(after_help = "Examples:\n  \
        medallion quarantine show --source usage_events --error-type malformed --limit 5\n  \
        medallion --format json quarantine show --source users    (with `raw_hex`, the exact bytes)")]
    Show(ShowArgs),
    /// Write refused records to a file
    #[command(after_help = "Examples:\n  \
        medallion quarantine export --source users --as csv --out refused_users.csv\n  \
        medallion quarantine export --date 2025-08-14 > refused.jsonl")]
    Export(redrive::ExportArgs),
    /// Let refused records in again, as far as today's contract and rules accept them
    #[command(
        after_help = "What bronze had refused is typed again from its raw bytes, what silver had refused is decided\n\
        again. A record keeps the file and line of its landing. Records that are still refused stay where they are.\n\n\
        Examples:\n  \
        medallion quarantine redrive --source users --error-type missing_required --dry-run\n  \
        medallion quarantine redrive --source users --error-type missing_required\n  \
        medallion quarantine redrive --file users_2025-08-01.csv --line 17 --patch edited.csv --reason 'ticket 4711'"
    )]
    Redrive(redrive::RedriveArgs),
    /// Discard refused records for ever: they stay in quarantine as `discarded`, and the balance goes on counting them
    #[command(after_help = "Example:\n  \
        medallion quarantine discard --source users --error-type malformed --reason 'test data of the vendor'")]
    Discard(redrive::DiscardArgs),
}

impl QuarantineArgs {
    /// The command's name, where it decides over records.
    pub fn moves_data(&self) -> Option<&'static str> {
        match &self.command {
            QuarantineCommand::Redrive(args) => (!args.dry_run).then_some("quarantine redrive"),
            QuarantineCommand::Discard(args) => (!args.dry_run).then_some("quarantine discard"),
            _ => None,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only this source
    #[arg(long)]
    source: Option<String>,
    /// Only this error type
    #[arg(long)]
    error_type: Option<String>,
    /// Only this date, YYYY-MM-DD
    #[arg(long)]
    date: Option<chrono::NaiveDate>,
    /// Only records of this landing file
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// Only the record that begins on this line
    #[arg(long, value_name = "N", requires = "file")]
    line: Option<i64>,
    /// Only records of this batch
    #[arg(long, value_name = "ID")]
    batch: Option<i64>,
}

impl Filter {
    /// Whether it lets everything through.
    pub(super) fn is_empty(&self) -> bool {
        self.source.is_none()
            && self.error_type.is_none()
            && self.date.is_none()
            && self.file.is_none()
            && self.batch.is_none()
    }

    /// The only dates that can hold what it lets through.
    pub(super) fn dates(&self) -> Option<BTreeSet<i32>> {
        self.date.map(|date| BTreeSet::from([date.to_epoch_days()]))
    }

    pub(super) fn matches(&self, record: &quarantine::Refused) -> bool {
        self.error_type.as_ref().is_none_or(|wanted| *wanted == record.error_type)
            && self.date.is_none_or(|wanted| wanted.to_epoch_days() == record.date)
            && self.file.as_ref().is_none_or(|wanted| *wanted == record.source_file)
            && self.line.is_none_or(|wanted| wanted == record.source_line)
            && self.batch.is_none_or(|wanted| wanted == record.batch_id)
    }
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// One line per date, too
    #[arg(long)]
    by_date: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    filter: Filter,
    /// At most so many records
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

#[derive(Debug, Serialize)]
struct Group {
    source: String,
    error_type: String,
    first_date: String,
    last_date: String,
    records: i64,
    example: String,
}

#[derive(Debug, Serialize)]
struct Record {
    source: String,
    date: String,
    error_type: String,
    column: Option<String>,
    reason: String,
    source_file: String,
    source_line: i64,
    raw: String,
    raw_hex: String,
    /// The record's length.
    raw_bytes: i64,
    /// Whether `raw` and `raw_hex` hold all of it.
    raw_is_whole: bool,
}

pub async fn run(places: &Places, args: &QuarantineArgs) -> Result<u8> {
    match &args.command {
        QuarantineCommand::List(args) => {
            list(&places.open(Progress::new(false)).await?, args, places.format).await
        }
        QuarantineCommand::Show(args) => {
            show(&places.open(Progress::new(false)).await?, args, places.format).await
        }
        QuarantineCommand::Export(args) => redrive::export(places, args).await,
        QuarantineCommand::Redrive(args) => redrive::redrive(places, args).await,
        QuarantineCommand::Discard(args) => redrive::discard(places, args).await,
    }
}

pub(super) fn sources(run: &Run, filter: &Filter) -> Result<Vec<String>> {
    let known: Vec<String> = run.project.sources.iter().map(|source| source.name.clone()).collect();
    match &filter.source {
        None => Ok(known),
        Some(wanted) if known.contains(wanted) => Ok(vec![wanted.clone()]),
        Some(wanted) => Err(Error::usage(format!("unknown source `{wanted}`, known: {}", known.join(", ")))),
    }
}

/// The rows of one source's quarantine that the filter lets through.
async fn read(
    run: &Run,
    source: &str,
    filter: &Filter,
    select: &str,
) -> Result<Vec<arrow::array::RecordBatch>> {
    use datafusion::common::ScalarValue;
    let mut conditions = vec!["true".to_owned()];
    let mut values = std::collections::HashMap::new();
    if let Some(error_type) = &filter.error_type {
        conditions.push("error_type = $error_type".to_owned());
        values.insert("error_type".to_owned(), ScalarValue::from(error_type.as_str()));
    }
    if let Some(date) = filter.date {
        conditions.push("date = $date".to_owned());
        values.insert("date".to_owned(), ScalarValue::Date32(Some(date.to_epoch_days())));
    }
    if let Some(file) = &filter.file {
        conditions.push("source_file = $file".to_owned());
        values.insert("file".to_owned(), ScalarValue::from(file.as_str()));
    }
    for (column, wanted) in [("source_line", filter.line), ("batch_id", filter.batch)] {
        if let Some(wanted) = wanted {
            conditions.push(format!("{column} = ${column}"));
            values.insert(column.to_owned(), ScalarValue::from(wanted));
        }
    }
    let table = format!("quarantine.{}", quoted(source));
    let query = select.replace("{table}", &table).replace("{where}", &conditions.join(" and "));
    let context = engine::context(&run.state);
    checks::register_inputs(run, &context, &query).await?;
    let frame = context.sql(&query).await?;
    let frame = if values.is_empty() { frame } else { frame.with_param_values(values)? };
    Ok(frame.collect().await?)
}

async fn list(run: &Run, args: &ListArgs, format: Format) -> Result<u8> {
    let filter = &args.filter;
    let group = if args.by_date { "error_type, date" } else { "error_type" };
    let select = format!(
        "select error_type, min(date), max(date), count(*), min(reason) from {{table}} where {{where}} group by {group} \
         order by {group}"
    );
    let mut groups = Vec::new();
    for source in sources(run, filter)? {
        for batch in read(run, &source, filter, &select).await? {
            let date =
                |at: usize, row: usize| date_text(batch.column(at).as_primitive::<Date32Type>().value(row));
            for row in 0..batch.num_rows() {
                groups.push(Group {
                    source: source.clone(),
                    error_type: batch.column(0).as_string_view().value(row).to_owned(),
                    first_date: date(1, row),
                    last_date: date(2, row),
                    records: batch.column(3).as_primitive::<Int64Type>().value(row),
                    example: batch.column(4).as_string_view().value(row).to_owned(),
                });
            }
        }
    }
    if format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(&groups)?))?;
        return Ok(0);
    }
    if groups.is_empty() && format == Format::Table {
        print_text(NOTHING)?;
        return Ok(0);
    }
    let names = ["source", "error_type", "first_date", "last_date", "records", "example"].map(str::to_owned);
    let rows: Vec<Vec<String>> = groups
        .into_iter()
        .map(|group| {
            let example = plain(&group.example);
            let records = group.records.to_string();
            vec![group.source, group.error_type, group.first_date, group.last_date, records, example]
        })
        .collect();
    print_cells(&names, &rows, format)?;
    Ok(0)
}

const NOTHING: &str = "no refused record is like that\n";

async fn show(run: &Run, args: &ShowArgs, format: Format) -> Result<u8> {
    let mut records: Vec<Record> = Vec::new();
    for source in sources(run, &args.filter)? {
        let left = args.limit.saturating_sub(records.len());
        let select = format!(
            "select date, error_type, column_name, reason, source_file, source_line, raw, raw_bytes from {{table}} \
             where {{where}} order by source_file, source_line limit {left}"
        );
        for batch in read(run, &source, &args.filter, &select).await? {
            let text = |at: usize, row: usize| batch.column(at).as_string_view().value(row).to_owned();
            let integer = |at: usize, row: usize| batch.column(at).as_primitive::<Int64Type>().value(row);
            for row in 0..batch.num_rows() {
                let mut raw = batch.column(6).as_binary_view().value(row).to_vec();
                if integer(7, row) > i64::try_from(raw.len()).unwrap_or(i64::MAX) {
                    // quarantine keeps the beginning of an over-long record; landing has the rest
                    let whole = quarantine::raw_bytes(run, &source, &text(4, row), integer(5, row)).await?;
                    raw = whole.unwrap_or(raw);
                }
                records.push(Record {
                    source: source.clone(),
                    date: date_text(batch.column(0).as_primitive::<Date32Type>().value(row)),
                    error_type: text(1, row),
                    column: (!batch.column(2).is_null(row)).then(|| text(2, row)),
                    reason: text(3, row),
                    source_file: text(4, row),
                    source_line: integer(5, row),
                    raw: String::from_utf8_lossy(&raw).into_owned(),
                    raw_hex: raw.iter().map(|byte| format!("{byte:02x}")).collect(),
                    raw_bytes: integer(7, row),
                    raw_is_whole: integer(7, row) == i64::try_from(raw.len()).unwrap_or(i64::MAX),
                });
            }
        }
    }
    if format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(&records)?))?;
        return Ok(0);
    }
    if records.is_empty() {
        print_text(NOTHING)?;
    }
    for record in records {
        let column = record.column.map(|column| format!(" in `{column}`")).unwrap_or_default();
        let part = match (record.raw_is_whole, record.source_line) {
            (true, _) => String::new(),
            (false, quarantine::NO_LINE) => format!("  ({})\n", quarantine::IN_FILE),
            (false, _) => format!("  ({})\n", quarantine::PART),
        };
        print_text(&format!(
            "{}:{} ({}, {})\n  {}{column}: {}\n  {}\n{part}\n",
            plain(&record.source_file),
            record.source_line,
            record.source,
            record.date,
            record.error_type,
            plain(&record.reason),
            plain(&record.raw),
        ))?;
    }
    Ok(0)
}
