//! What a lake says, gathered for the site: tables, runs, what became of records by date, example answers. Everything is
//! read from logs and ledger where these know it; amounts of `upserts` sources, nulls and examples are bounded queries.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Decimal128Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::super::query;
use super::nulls::{self, Nulls};
use crate::engine;
use crate::error::{During, Result};
use crate::flow::check_history::{self, CheckRecord};
use crate::flow::decide::quoted;
use crate::flow::late::Lateness;
use crate::flow::runs::{self, RunRecord};
use crate::flow::{Run, checks, decisions, dirty, inputs};
use crate::lake::partition::partition_key;
use crate::lake::table::Table;
use crate::ledger;
use crate::project::source::{Mode, Source};
use crate::project::sql::TableName;
use crate::zone;

/// Rows of an example answer.
const ANSWER_ROWS: usize = 12;

/// Characters of a value in an example.
const CELL_CHARS: usize = 160;

/// An `upserts` source with more records is not added up by date: that would read all of it.
const MOST_ROWS_TO_ADD_UP: u64 = 5_000_000;

/// What a lake says.
#[derive(Debug, Default)]
pub struct Facts {
    /// Stored tables that have been written, by full name.
    pub tables: BTreeMap<String, TableFacts>,
    /// How often columns are null, by table.
    pub nulls: BTreeMap<String, Nulls>,
    pub sources: BTreeMap<String, SourceFacts>,
    /// Oldest first.
    pub runs: Vec<RunRecord>,
    /// How each check ended, oldest first.
    pub checks: BTreeMap<String, Vec<CheckRecord>>,
    /// By question.
    pub answers: BTreeMap<String, Answer>,
}

/// A table as its log has it.
#[derive(Debug, Default)]
pub struct TableFacts {
    pub version: i64,
    /// Milliseconds since the epoch.
    pub committed: i64,
    pub total: PartFacts,
    /// By the first partition column, as the log writes it; empty where there is none.
    pub partitions: BTreeMap<String, PartFacts>,
    /// Rows by date, where the first partition column is one.
    pub by_date: BTreeMap<i32, u64>,
}

/// Some files of a table.
#[derive(Debug, Default, Clone)]
pub struct PartFacts {
    pub rows: u64,
    pub files: u64,
    pub bytes: i64,
    /// When the newest of the files was written, milliseconds since the epoch.
    pub written: i64,
}

/// What became of a source's records.
#[derive(Debug, Default)]
pub struct SourceFacts {
    pub num_files: u64,
    pub landed: u64,
    /// By date: accepted, duplicates, superseded. Of an `upserts` source, accepted only.
    pub decided: BTreeMap<i32, [u64; 3]>,
    /// Duplicates and superseded records of an `upserts` source, in all.
    pub undated: [u64; 2],
    /// By date and error type.
    pub quarantined: BTreeMap<(i32, String), u64>,
    /// Accepted amounts by money column and date, in millionths.
    pub money: BTreeMap<String, BTreeMap<i32, i128>>,
    pub late: Lateness,
}

impl SourceFacts {
    /// Records by date, accepted or not.
    pub fn by_date(&self) -> BTreeMap<i32, u64> {
        let mut found: BTreeMap<i32, u64> =
            self.decided.iter().map(|(date, sides)| (*date, sides.iter().sum())).collect();
        for ((date, _), records) in &self.quarantined {
            *found.entry(*date).or_default() += records;
        }
        found
    }

    /// Refused records by error type.
    pub fn by_error(&self) -> BTreeMap<&str, u64> {
        let mut found = BTreeMap::new();
        for ((_, error), records) in &self.quarantined {
            *found.entry(error.as_str()).or_default() += records;
        }
        found
    }
}

/// A question answered with its default parameters.
#[derive(Debug)]
pub enum Answer {
    Rows {
        parameters: BTreeMap<String, String>,
        names: Vec<String>,
        rows: Vec<Vec<String>>,
        num_rows: usize,
    },
    /// Why there is none.
    None(String),
}

/// Gathers it. `None` where no table of the lake was ever written.
///
/// # Errors
/// The stores'.
pub async fn gather(run: &Run) -> Result<Option<Facts>> {
    if run.zone_tables().all(|table| table.version() < 0) && run.ledger.runs.version() < 0 {
        return Ok(None);
    }
    let mut facts = Facts { runs: runs::all(&run.ledger).await?, ..Facts::default() };
    for table in run.zone_tables() {
        let Some((found, name)) = look(run, table).zip(TableName::parse(table.name())) else {
            continue;
        };
        // nobody is shown quarantine's columns
        if name.schema != zone::QUARANTINE
            && let Some(nulls) = nulls::count(run, &name, &found).await?
        {
            facts.nulls.insert(table.name().to_owned(), nulls);
        }
        facts.tables.insert(table.name().to_owned(), found);
    }
    for record in check_history::all(&run.ledger).await? {
        facts.checks.entry(record.name.clone()).or_default().push(record);
    }
    for source in &run.project.sources {
        facts.sources.insert(source.name.clone(), of_source(run, source).await?);
    }
    count_landed(run, &mut facts.sources).await?;
    count_decided(run, &mut facts.sources).await?;
    for question in &run.project.questions {
        let answer = match query::answer(run, question, &BTreeMap::new()).await {
            Ok((batches, parameters)) => shown(&batches, parameters)?,
            Err(error) => Answer::None(error.to_string()),
        };
        facts.answers.insert(question.name.clone(), answer);
    }
    Ok(Some(facts))
}

fn look(run: &Run, table: &Table) -> Option<TableFacts> {
    let snapshot = table.snapshot()?;
    let name = TableName::parse(table.name())?;
    let columns = &snapshot.metadata.partition_columns;
    let mut found =
        TableFacts { version: snapshot.version, committed: snapshot.timestamp, ..TableFacts::default() };
    for file in snapshot.files.values() {
        found.total.add(file);
        if let Some(value) = partition_key(columns, &file.partition_values, 1).pop() {
            found.partitions.entry(value.unwrap_or_default()).or_default().add(file);
        }
    }
    if inputs::is_by_date(run, &name) {
        found.by_date = run.rows_by_date(&name).unwrap_or_default();
    }
    Some(found)
}

impl PartFacts {
    fn add(&mut self, file: &crate::lake::log::Add) {
        self.rows += file.num_records();
        self.files += 1;
        self.bytes += file.size;
        self.written = self.written.max(file.modification_time);
    }
}

async fn of_source(run: &Run, source: &Source) -> Result<SourceFacts> {
    let mut found = SourceFacts::default();
    if let Some(snapshot) = run.quarantine_of(&source.name)?.snapshot() {
        for file in snapshot.files.values() {
            let mut key = partition_key(&snapshot.metadata.partition_columns, &file.partition_values, 2);
            let error = key.pop().flatten().unwrap_or_default();
            // records without a date stand under none
            let date = dirty::dates_of([key].into()).pop_first();
            if let Some(date) = date {
                *found.quarantined.entry((date, error)).or_default() += file.num_records();
            }
        }
    }
    let num_rows = run.bronze_of(&source.name)?.num_records();
    if source.mode == Mode::Upserts && (1..=MOST_ROWS_TO_ADD_UP).contains(&num_rows) {
        add_up(run, source, &mut found).await.during(|| format!("adding up `{}` by date", source.name))?;
    }
    Ok(found)
}

/// The accepted records and amounts of an `upserts` source by date: the ledger knows them in all only.
async fn add_up(run: &Run, source: &Source, found: &mut SourceFacts) -> Result<()> {
    let sums: Vec<String> =
        source.money().map(|column| format!(", sum(cast({} as decimal(38, 6)))", quoted(column))).collect();
    let query = format!(
        "select date, count(*){} from {}.{} group by date",
        sums.concat(),
        zone::ACCEPTED,
        quoted(&source.name)
    );
    let context = engine::context(&run.state);
    checks::register_inputs(run, &context, &query).await?;
    for batch in context.sql(&query).await?.collect().await? {
        let dates = batch.column(0).as_primitive::<Date32Type>();
        let counts = batch.column(1).as_primitive::<Int64Type>();
        for row in (0..batch.num_rows()).filter(|row| dates.is_valid(*row)) {
            let date = dates.value(row);
            found.decided.insert(date, [counts.value(row).cast_unsigned(), 0, 0]);
            for (at, column) in source.money().enumerate() {
                let sums = batch.column(2 + at).as_primitive::<Decimal128Type>();
                if sums.is_valid(row) {
                    found.money.entry(column.to_owned()).or_default().insert(date, sums.value(row));
                }
            }
        }
    }
    Ok(())
}

async fn count_landed(run: &Run, sources: &mut BTreeMap<String, SourceFacts>) -> Result<()> {
    for batch in ledger::read(&run.ledger.landed).await? {
        let landed = batch.column(4).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let Some(source) = sources.get_mut(batch.column(1).as_string_view().value(row)) else {
                continue;
            };
            source.num_files += 1;
            source.landed += landed.value(row).cast_unsigned();
            let late: Option<Lateness> =
                serde_json::from_str(batch.column(9).as_string_view().value(row)).ok();
            if let Some(late) = late {
                source.late.records += late.records;
                source.late.most_seconds = source.late.most_seconds.max(late.most_seconds);
                for (class, records) in late.histogram {
                    *source.late.histogram.entry(class).or_default() += records;
                }
            }
        }
    }
    Ok(())
}

async fn count_decided(run: &Run, sources: &mut BTreeMap<String, SourceFacts>) -> Result<()> {
    for ((name, date), counts) in decisions::read(run).await? {
        let (Some(found), Some(source)) = (sources.get_mut(&name), run.project.source(&name)) else {
            continue;
        };
        let Some(date) = date else {
            found.undated = [&counts.duplicates, &counts.superseded].map(|tally| tally.records);
            continue;
        };
        let sides = [&counts.accepted, &counts.duplicates, &counts.superseded].map(|tally| tally.records);
        found.decided.insert(date, sides);
        for (column, sum) in source.money().zip(&counts.accepted.money) {
            found.money.entry(column.to_owned()).or_default().insert(date, *sum);
        }
    }
    Ok(())
}

fn shown(batches: &[RecordBatch], parameters: BTreeMap<String, String>) -> Result<Answer> {
    let options = FormatOptions::new().with_null("").with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.fZ"));
    let mut rows = Vec::new();
    let names = batches
        .first()
        .map(|batch| batch.schema())
        .map(|schema| schema.fields().iter().map(|field| field.name().clone()).collect());
    for batch in batches {
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows().min(ANSWER_ROWS - rows.len()) {
            rows.push(formatters.iter().map(|formatter| short(&formatter.value(row).to_string())).collect());
        }
    }
    let num_rows = batches.iter().map(RecordBatch::num_rows).sum();
    Ok(Answer::Rows { parameters, names: names.unwrap_or_default(), rows, num_rows })
}

fn short(text: &str) -> String {
    match text.char_indices().nth(CELL_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
