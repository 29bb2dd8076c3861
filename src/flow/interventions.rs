//! What operators decide over refused records: let in (as landed, or edited), or discarded for ever.
//!
//! An intervention is written ahead to `ledger.interventions`, with the record's raw bytes, and then applied; one that a
//! crash cut off is applied by the next run. A record that is let in goes to bronze under the file and line of its landing,
//! so it takes the place among its key's records that it would have had; the raw form of what was there stays in the
//! ledger. So silver and gold remain a function of what landed and of these decisions, see decision 0004.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Date32Array, Int64Array, RecordBatch,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Date32Type, Int64Type, TimestampMicrosecondType};
use serde_json::json;

use super::bronze::{Arrival, MAX_EVENT_TIME};
use super::decide::{DISCARDED, Discards, partition_keys, quoted};
use super::landed::FileReport;
use super::late::{self, Lateness};
use super::quarantine::{self, Refused, Stage};
use super::{Run, inputs, landing, lost};
use crate::decode::{Decoded, Decoder, Format};
use crate::engine;
use crate::error::{Error, Result};
use crate::lake::commit::{Change, Commit, Outcome};
use crate::lake::table::Table;
use crate::ledger::{self, FileRecord, Ledger};
use crate::project::source::{DATE, Source};
use crate::project::sql::TableName;
use crate::zone;

/// The number of the newest intervention that a table has taken in.
pub const POSITION: &str = "interventions";

/// The number of the newest intervention that the ledger had when quarantine was written: a discard of a record that
/// silver refuses is in no other position of a zone's table.
pub const KNOWN: &str = "known interventions";

/// CSV headers are looked for in so many lines at the beginning of a file.
const HEADER_LINES: u64 = 10;

/// What becomes of a refused record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is taken in as it landed.
    Admit,
    /// Other bytes are taken in in its place.
    Edit,
    /// It stays refused, whatever rules come.
    Discard,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Action::Admit => "admit",
            Action::Edit => "edit",
            Action::Discard => "discard",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        [Action::Admit, Action::Edit, Action::Discard]
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| Error::data(format!("`ledger.interventions` holds the unknown action `{text}`")))
    }
}

/// One decision over one record.
#[derive(Debug, Clone)]
pub struct Intervention {
    pub id: i64,
    pub action: Action,
    pub source: String,
    /// As quarantine held it.
    pub record: Refused,
    pub edited: Option<Vec<u8>>,
    pub note: String,
    pub operator: String,
    /// Microseconds since the epoch.
    pub at: i64,
}

impl Intervention {
    fn bytes(&self) -> &[u8] {
        self.edited.as_deref().unwrap_or(&self.record.raw)
    }

    fn place(&self) -> (String, i64) {
        (self.record.source_file.clone(), self.record.source_line)
    }
}

/// Every intervention, oldest first.
///
/// # Errors
/// The store's.
pub async fn read(ledger: &Ledger) -> Result<Vec<Intervention>> {
    let mut all = Vec::new();
    for batch in ledger::read(&ledger.interventions).await? {
        let text = |at: usize, row: usize| batch.column(at).as_string_view().value(row).to_owned();
        let integer = |at: usize, row: usize| batch.column(at).as_primitive::<Int64Type>().value(row);
        let bytes = |at: usize, row: usize| batch.column(at).as_binary_view().value(row).to_vec();
        for row in 0..batch.num_rows() {
            let raw = bytes(9, row);
            all.push(Intervention {
                id: integer(0, row),
                action: Action::parse(&text(1, row))?,
                source: text(2, row),
                record: Refused {
                    stage: Stage::parse(&text(3, row)),
                    error_type: text(4, row),
                    column: None,
                    reason: text(5, row),
                    raw_bytes: i64::try_from(raw.len()).unwrap_or(i64::MAX),
                    raw,
                    source_file: text(6, row),
                    source_line: integer(7, row),
                    date: batch.column(14).as_primitive::<Date32Type>().value(row),
                    money: Vec::new(),
                    batch_id: integer(8, row),
                },
                edited: batch.column(10).is_valid(row).then(|| bytes(10, row)),
                note: text(11, row),
                operator: text(12, row),
                at: batch.column(13).as_primitive::<TimestampMicrosecondType>().value(row),
            });
        }
    }
    all.sort_by_cached_key(|intervention| (intervention.id, intervention.place()));
    Ok(all)
}

/// Writes decisions ahead under the next number, and gives that number.
///
/// # Errors
/// The store's; `Conflict` where another operator was faster.
pub async fn record(run: &mut Run, decisions: &[Intervention]) -> Result<i64> {
    // above what the ledger may have lost, or tables would take it for one that they have
    let id = lost::newest_decision(run).map_or(0, |(newest, _)| newest) + 1;
    let text = |of: fn(&Intervention) -> &str| ledger::texts(decisions.iter().map(of));
    let edited: BinaryViewArray = decisions.iter().map(|decision| decision.edited.as_deref()).collect();
    let columns: Vec<ArrayRef> = vec![
        ledger::integers(decisions.iter().map(|_| id)),
        text(|decision| decision.action.as_str()),
        text(|decision| &decision.source),
        text(|decision| decision.record.stage.as_str()),
        text(|decision| &decision.record.error_type),
        text(|decision| &decision.record.reason),
        text(|decision| &decision.record.source_file),
        ledger::integers(decisions.iter().map(|decision| decision.record.source_line)),
        ledger::integers(decisions.iter().map(|decision| decision.record.batch_id)),
        Arc::new(BinaryViewArray::from_iter_values(decisions.iter().map(|decision| &decision.record.raw))),
        Arc::new(edited),
        text(|decision| &decision.note),
        text(|decision| &decision.operator),
        ledger::timestamps(decisions.iter().map(|decision| decision.at)),
        Arc::new(Date32Array::from_iter_values(decisions.iter().map(|decision| decision.record.date))),
    ];
    let rows = RecordBatch::try_new(ledger::interventions_schema(), columns)?;
    let mut table = run.ledger.interventions.clone();
    let outcome = ledger::append(&mut table, &rows, Some((POSITION.to_owned(), id))).await?;
    if outcome == Outcome::AlreadyThere {
        return Err(Error::conflict("another operator has decided at the same time; run again"));
    }
    run.ledger.interventions = table;
    run.num_commits += 1;
    run.discards = discards(&run.ledger).await?;
    Ok(id)
}

/// The records that were discarded after bronze had typed them, by source.
///
/// # Errors
/// The store's.
pub async fn discards(ledger: &Ledger) -> Result<HashMap<String, Discards>> {
    let mut found: HashMap<String, Discards> = HashMap::new();
    for decision in read(ledger).await? {
        if decision.action == Action::Discard && decision.record.stage == Stage::Silver {
            let place = (Arc::from(decision.record.source_file.as_str()), decision.record.source_line);
            found.entry(decision.source).or_default().insert(place, decision.note);
        }
    }
    Ok(found)
}

/// The bytes that operators have put in the place of landed ones, by file and line.
///
/// # Errors
/// The store's.
pub async fn edited(run: &Run, source: &Source) -> Result<BTreeMap<(String, i64), Vec<u8>>> {
    let mut found = BTreeMap::new();
    for decision in read(&run.ledger).await?.into_iter().filter(|decision| decision.source == source.name) {
        let place = decision.place();
        if let Some(edited) = decision.edited {
            found.insert(place, edited);
        }
    }
    Ok(found)
}

/// The newest intervention, as a position of what has taken it into account.
pub fn position(run: &Run) -> Option<(String, i64)> {
    run.ledger.interventions.position(POSITION).map(|newest| (POSITION.to_owned(), newest))
}

/// Bronze dates of records that were discarded since the last decisions.
///
/// # Errors
/// The store's.
pub async fn undecided(run: &Run) -> Result<BTreeMap<String, BTreeSet<i32>>> {
    let mut found: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    let decided = run.ledger.decisions.position(POSITION).unwrap_or(0);
    if position(run).is_none_or(|(_, newest)| newest <= decided) {
        return Ok(found);
    }
    for decision in read(&run.ledger).await? {
        if decision.id > decided
            && decision.action == Action::Discard
            && decision.record.stage == Stage::Silver
        {
            found.entry(decision.source).or_default().insert(decision.record.date);
        }
    }
    Ok(found)
}

/// The newest intervention of which something is not applied yet: `medallion run` applies it.
///
/// # Errors
/// The store's.
pub async fn waiting(run: &Run) -> Result<Option<i64>> {
    if position(run).is_none() {
        return Ok(None);
    }
    let decided = run.ledger.decisions.position(POSITION).unwrap_or(0);
    let mut newest = None;
    for decision in read(&run.ledger).await? {
        if run.project.source(&decision.source).is_none() {
            // waits until the project has the source again
            continue;
        }
        let is_behind = |table: &Table| table.position(POSITION).is_none_or(|applied| applied < decision.id);
        let (is_discard, stage) = (decision.action == Action::Discard, decision.record.stage);
        let waits = (!is_discard && is_behind(run.bronze_of(&decision.source)?))
            || (stage == Stage::Bronze && is_behind(run.quarantine_of(&decision.source)?))
            || (is_discard && stage == Stage::Silver && decided < decision.id);
        if waits {
            newest = newest.max(Some(decision.id));
        }
    }
    Ok(newest)
}

/// Applies what was written ahead and not applied yet: usually nothing.
///
/// # Errors
/// The stores'; `Data` where a record that could be typed when it was let in can't be any more.
pub async fn resume(run: &mut Run) -> Result<()> {
    let mut by_id: BTreeMap<(i64, String), Vec<Intervention>> = BTreeMap::new();
    for decision in read(&run.ledger).await? {
        by_id.entry((decision.id, decision.source.clone())).or_default().push(decision);
    }
    for ((id, name), decisions) in by_id {
        let Some(source) = run.project.source(&name).cloned() else {
            // waits until the project has the source again
            continue;
        };
        apply_to_bronze(run, &source, id, &decisions).await?;
        apply_to_quarantine(run, &source, id, &decisions).await?;
    }
    Ok(())
}

async fn apply_to_bronze(run: &mut Run, source: &Source, id: i64, decisions: &[Intervention]) -> Result<()> {
    let mut table = run.bronze_of(&source.name)?.clone();
    let admitted: Vec<&Intervention> =
        decisions.iter().filter(|decision| decision.action != Action::Discard).collect();
    if admitted.is_empty() || table.position(POSITION).is_some_and(|applied| applied >= id) {
        return Ok(());
    }
    let retyper = Retyper::new(run, source, admitted.iter().map(|decision| &decision.record)).await?;
    let hashes = landing::landed_hashes(run).await?;
    let money_before = money_before(run, source, &admitted).await?;
    let mut newest = table.position(MAX_EVENT_TIME);
    let mut rows = Vec::new();
    let mut reports: BTreeMap<String, FileReport> = BTreeMap::new();
    for decision in &admitted {
        let (file, line) = decision.place();
        let decoded = retyper.decode(&decision.record, decision.bytes())?;
        if decoded.batch.num_rows() != 1 {
            return Err(Error::data(format!(
                "`{file}`, line {line}, was let in by intervention {id} and can't be typed any more: the contract of \
                 `{}` has changed since; change it back, then run again",
                source.name
            )));
        }
        let report = reports.entry(file.clone()).or_insert_with(|| FileReport {
            path: file.clone(),
            hash: hashes.get(&file).cloned().unwrap_or_default(),
            landed: 0,
            typed: 0,
            quarantined: 0,
            released: 0,
            money: vec![0; source.layout.money.len()],
            warnings: BTreeMap::new(),
            late: Lateness::default(),
        });
        if decision.record.stage == Stage::Bronze {
            report.typed += 1;
            report.released += 1;
        }
        let before = money_before.get(&(file, line));
        for (at, sum) in report.money.iter_mut().enumerate() {
            let before = before.and_then(|amounts| amounts.get(at).copied()).unwrap_or(0);
            *sum = sum.wrapping_add(decoded.money[at]).wrapping_sub(before);
        }
        newest = newest.max(retyper.newest(&decision.record, &decoded));
        rows.push(retyper.bronze_row(run, source, &decision.record, &decoded)?);
    }
    let mut change = Change::Append;
    let replaced: BTreeSet<(String, i64)> = admitted
        .iter()
        .filter(|decision| decision.record.stage == Stage::Silver)
        .map(|decision| decision.place())
        .collect();
    if !replaced.is_empty() {
        // bronze is rewritten for an edited record only: its landed form stays in the ledger
        let mut dates: BTreeSet<i32> = admitted.iter().map(|decision| decision.record.date).collect();
        for batch in &rows {
            let column = batch.column(batch.num_columns() - 1).as_primitive::<Date32Type>();
            dates.extend(column.iter().flatten());
        }
        rows.extend(bronze_without(run, source, &dates, &replaced).await?);
        change = Change::Replace(partition_keys(&dates));
    }
    let partition = vec![DATE.to_owned()];
    let mut writer = table.writer(source.bronze_schema(), &partition);
    for batch in &rows {
        writer.write(batch).await?;
    }
    let mut positions = BTreeMap::new();
    if source.watermark_delay.is_some()
        && let Some(newest) = newest
    {
        positions.insert(MAX_EVENT_TIME.to_owned(), newest);
    }
    let files: Vec<serde_json::Value> = reports.values().map(FileReport::to_json).collect();
    let batch_id = admitted.first().map_or(0, |decision| decision.record.batch_id);
    let commit = Commit {
        change,
        schema: source.bronze_schema(),
        partition,
        adds: writer.close().await?,
        positions,
        once: Some((POSITION.to_owned(), id)),
        info: json!({"run": run.id, "batch": batch_id, "intervention": id, "files": files}),
        description: source.description.clone(),
    };
    table.commit(&commit).await?;
    run.bronze.insert(source.name.clone(), table);
    run.num_commits += 1;
    Ok(())
}

/// What the balance has counted for the records until now, by file and line.
async fn money_before(
    run: &Run,
    source: &Source,
    admitted: &[&Intervention],
) -> Result<BTreeMap<(String, i64), Vec<i128>>> {
    if source.layout.money.is_empty() {
        return Ok(BTreeMap::new());
    }
    let dates = admitted.iter().map(|decision| decision.record.date).collect();
    let wanted: BTreeSet<_> = admitted.iter().map(|decision| decision.place()).collect();
    let found = quarantine::read(run, source, Some(&dates), "true").await?;
    let found = found.into_iter().filter_map(|record| {
        let place = (record.source_file, record.source_line);
        let money = record.money.into_iter().map(|amount| amount.unwrap_or(0)).collect();
        wanted.contains(&place).then_some((place, money))
    });
    Ok(found.collect())
}

/// Bronze's rows of some dates, without those of some places.
async fn bronze_without(
    run: &Run,
    source: &Source,
    dates: &BTreeSet<i32>,
    places: &BTreeSet<(String, i64)>,
) -> Result<Vec<RecordBatch>> {
    let context = engine::context(&run.state);
    let name = TableName::new(zone::BRONZE, &source.name);
    inputs::register_input(run, &context, &name, Some(dates.clone())).await?;
    let query = format!("select * from bronze.{}", quoted(&source.name));
    let mut kept = Vec::new();
    for batch in context.sql(&query).await?.collect().await? {
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| Error::bug(format!("bronze has no column `{name}`")))
        };
        let (files, lines) = (column("source_file")?, column("source_line")?);
        let (files, lines) = (files.as_string_view(), lines.as_primitive::<Int64Type>());
        let is_kept: BooleanArray = (0..batch.num_rows())
            .map(|row| Some(!places.contains(&(files.value(row).to_owned(), lines.value(row)))))
            .collect();
        kept.push(filter_record_batch(&batch, &is_kept)?);
    }
    Ok(kept)
}

async fn apply_to_quarantine(
    run: &mut Run,
    source: &Source,
    id: i64,
    decisions: &[Intervention],
) -> Result<()> {
    let of_bronze: Vec<&Intervention> =
        decisions.iter().filter(|decision| decision.record.stage == Stage::Bronze).collect();
    let table = run.quarantine_of(&source.name)?;
    if of_bronze.is_empty() || table.position(POSITION).is_some_and(|applied| applied >= id) {
        return Ok(());
    }
    let places: BTreeSet<_> = of_bronze.iter().map(|decision| decision.place()).collect();
    let mut put_in = Vec::new();
    if of_bronze.iter().any(|decision| decision.action == Action::Discard) {
        let notes: BTreeMap<_, _> = of_bronze
            .iter()
            .filter(|decision| decision.action == Action::Discard)
            .map(|decision| (decision.place(), &decision.note))
            .collect();
        let dates = of_bronze.iter().map(|decision| decision.record.date).collect();
        for mut record in quarantine::read(run, source, Some(&dates), "stage = 'bronze'").await? {
            let place = (record.source_file.clone(), record.source_line);
            if let Some(note) = notes.get(&place) {
                record.error_type = DISCARDED.to_owned();
                record.reason = (*note).clone();
                put_in.push(record);
            }
        }
    }
    quarantine::amend(run, source, &places, put_in, (POSITION.to_owned(), id)).await
}

/// Types records again, each as a record of its file.
#[derive(Debug)]
pub struct Retyper {
    source: Source,
    files: HashMap<String, FileRecord>,
    headers: BTreeMap<String, Vec<u8>>,
}

impl Retyper {
    /// Learns what the records' files were like.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn new(run: &Run, source: &Source, records: impl Iterator<Item = &Refused>) -> Result<Retyper> {
        let paths: BTreeSet<&str> = records.map(|record| record.source_file.as_str()).collect();
        let files = ledger::files(&run.ledger.files).await?;
        let files = files.into_iter().filter(|file| paths.contains(file.path.as_str()));
        let mut headers = BTreeMap::new();
        if source.layout.format == Format::Csv {
            let lines: BTreeSet<u64> = (1..=HEADER_LINES).collect();
            let wanted = paths.iter().map(|path| ((*path).to_owned(), lines.clone())).collect();
            for ((path, _), raw) in quarantine::read_lines(run, source, wanted).await? {
                // sorted by line: the first one is the header
                headers.entry(path).or_insert(raw);
            }
        }
        Ok(Retyper {
            source: source.clone(),
            files: files.map(|file| (file.path.clone(), file)).collect(),
            headers,
        })
    }

    /// Types `bytes` as today's contract says, in the place of `record`: one row, or one reject.
    ///
    /// # Errors
    /// `Data` where the bytes are not one record, or what is needed of the record's file is gone.
    pub fn decode(&self, record: &Refused, bytes: &[u8]) -> Result<Decoded> {
        let path = &record.source_file;
        let file = self
            .files
            .get(path)
            .ok_or_else(|| Error::data(format!("`{path}` is in no batch of `ledger.files`")))?;
        let mut decoder = Decoder::new(Arc::clone(&self.source.layout), file.modified);
        if self.source.layout.format == Format::Csv {
            let header = self.headers.get(path).ok_or_else(|| {
                Error::data(format!(
                    "the header of `{path}` can't be read: put the file back as it was taken in, then run again"
                ))
            })?;
            decoder.push(header);
            decoder.push(b"\n");
        }
        decoder.push(bytes);
        decoder.finish();
        let decoded = decoder.take()?;
        if decoded.landed != 1 {
            return Err(Error::data(format!(
                "expected one record in the place of `{path}`, line {}, found {}",
                record.source_line, decoded.landed
            )));
        }
        Ok(decoded)
    }

    /// The record's event time, where it may move the watermark.
    fn newest(&self, record: &Refused, decoded: &Decoded) -> Option<i64> {
        let file = self.files.get(&record.source_file)?;
        late::newest(&self.source, &decoded.batch, file.modified)
    }

    /// The bronze row of a decoded record.
    fn bronze_row(
        &self,
        run: &Run,
        source: &Source,
        record: &Refused,
        decoded: &Decoded,
    ) -> Result<RecordBatch> {
        let file = self.files.get(&record.source_file).ok_or_else(|| {
            Error::data(format!("`{}` is in no batch of `ledger.files`", record.source_file))
        })?;
        let mut columns = decoded.batch.columns().to_vec();
        columns[source.layout.columns.len()] = Arc::new(Int64Array::from(vec![record.source_line]));
        let batch = RecordBatch::try_new(decoded.batch.schema(), columns)?;
        let table = run.bronze_of(&source.name)?;
        let watermark = source.watermark_delay.zip(table.position(MAX_EVENT_TIME));
        let arrival = Arrival {
            source: source.clone(),
            started: run.started_at,
            batch_id: record.batch_id,
            watermark: watermark.map(|(delay, newest)| newest - delay),
        };
        let is_late = late::mark(source, &batch, arrival.watermark, &mut Lateness::default());
        arrival.rows(&batch, is_late, file)
    }
}
