//! What operators decide over refused records: let in (as landed, or edited), or discarded for ever.
//!
//! An intervention is written ahead to `ledger.interventions`, with the record's raw bytes, and then applied; one that a
//! crash cut off is applied by the next run. A record that is let in goes to bronze under the file and line of its landing,
//! so it takes the place among its key's records that it would have had; the raw form of what was there stays in the
//! ledger. So silver and gold remain a function of what landed and of these decisions, see decision 0004.

mod apply;
mod retype;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryViewArray, Date32Array, RecordBatch};
use arrow::datatypes::{Date32Type, Int64Type, TimestampMicrosecondType};

pub use self::apply::resume;
pub use self::retype::Retyper;
use super::decide::Discards;
use super::quarantine::{Refused, Stage};
use super::{Run, lost};
use crate::error::{Error, Result};
use crate::lake::commit::Outcome;
use crate::lake::table::Table;
use crate::ledger::{self, Ledger};
use crate::project::source::Source;

/// The number of the newest intervention that a table has taken in.
pub const POSITION: &str = "interventions";

/// The number of the newest intervention that the ledger had when quarantine was written: a discard of a record that
/// silver refuses is in no other position of a zone's table.
pub const KNOWN: &str = "known interventions";

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
