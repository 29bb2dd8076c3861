//! The proof that nothing was lost: for every source, records and every money column,
//! `landed = accepted + duplicates + superseded + quarantined`, difference 0.
//!
//! The sides are counted by different hands: `landed` while the bytes were split into records, `accepted` in the silver
//! table that stands for the source, `quarantined` in the quarantine table, the rest when keys were decided. A hop that
//! drops, doubles or changes a row breaks the equation, and a broken equation fails the run.

use std::collections::BTreeMap;
use std::fmt;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type};
use serde::{Deserialize, Serialize};

use super::decide::Tally;
use super::lost::{self, RUN};
use super::{Run, checks, decide};
use crate::engine;
use crate::error::{During, Result};
use crate::lake::commit::{Change, Commit};
use crate::ledger;
use crate::project::source::Source;
use crate::project::sql::TableName;
use crate::zone;

/// The name of the measure that counts records; the others are money columns.
pub const RECORDS: &str = "records";

/// Decimal digits of a sum.
const SCALE: usize = 6;

/// One line of the balance. Amounts are in millionths, records too; as JSON records are whole numbers, amounts texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Shown", try_from = "Shown")]
pub struct BalanceRow {
    /// `run`: what this run added; `lake`: everything.
    pub scope: String,
    pub source: String,
    pub measure: String,
    pub landed: i128,
    pub accepted: i128,
    pub duplicates: i128,
    pub superseded: i128,
    pub quarantined: i128,
    pub difference: i128,
}

/// A line of the balance as JSON has it.
#[derive(Serialize, Deserialize)]
struct Shown {
    scope: String,
    source: String,
    measure: String,
    landed: Side,
    accepted: Side,
    duplicates: Side,
    superseded: Side,
    quarantined: Side,
    difference: Side,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Side {
    Records(i64),
    Amount(String),
}

impl From<BalanceRow> for Shown {
    fn from(row: BalanceRow) -> Self {
        let side = |millionths: i128| match row.measure == RECORDS {
            true => Side::Records(i64::try_from(millionths / 1_000_000).unwrap_or(i64::MAX)),
            false => Side::Amount(decimal_text(millionths)),
        };
        Shown {
            landed: side(row.landed),
            accepted: side(row.accepted),
            duplicates: side(row.duplicates),
            superseded: side(row.superseded),
            quarantined: side(row.quarantined),
            difference: side(row.difference),
            scope: row.scope,
            source: row.source,
            measure: row.measure,
        }
    }
}

impl TryFrom<Shown> for BalanceRow {
    type Error = std::num::ParseIntError;

    fn try_from(shown: Shown) -> std::result::Result<Self, Self::Error> {
        let side = |side: Side| match side {
            Side::Records(records) => Ok(i128::from(records) * 1_000_000),
            Side::Amount(text) => text.replacen('.', "", 1).parse(),
        };
        Ok(BalanceRow {
            landed: side(shown.landed)?,
            accepted: side(shown.accepted)?,
            duplicates: side(shown.duplicates)?,
            superseded: side(shown.superseded)?,
            quarantined: side(shown.quarantined)?,
            difference: side(shown.difference)?,
            scope: shown.scope,
            source: shown.source,
            measure: shown.measure,
        })
    }
}

/// `12.500000` for 12,500,000 millionths.
pub fn decimal_text(millionths: i128) -> String {
    let sign = if millionths < 0 { "-" } else { "" };
    let digits = format!("{:0>7}", millionths.unsigned_abs());
    let (whole, fraction) = digits.split_at(digits.len() - SCALE);
    format!("{sign}{whole}.{fraction}")
}

impl BalanceRow {
    fn new(scope: &str, source: &str, measure: &str, sides: Sides) -> Self {
        let difference =
            sides.landed - sides.accepted - sides.duplicates - sides.superseded - sides.quarantined;
        Self {
            scope: scope.to_owned(),
            source: source.to_owned(),
            measure: measure.to_owned(),
            landed: sides.landed,
            accepted: sides.accepted,
            duplicates: sides.duplicates,
            superseded: sides.superseded,
            quarantined: sides.quarantined,
            difference,
        }
    }

    /// A side as people read it: whole records, or an amount.
    pub fn amount(&self, side: i128) -> String {
        match self.measure == RECORDS {
            true => (side / 1_000_000).to_string(),
            false => decimal_text(side),
        }
    }
}

/// Whether it holds, in a sentence.
impl fmt::Display for BalanceRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the balance of `{}` ({}, {}) ", self.source, self.measure, self.scope)?;
        match self.difference {
            0 => f.write_str("holds"),
            difference => write!(f, "does not hold: difference {}", self.amount(difference)),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sides {
    landed: i128,
    accepted: i128,
    duplicates: i128,
    superseded: i128,
    quarantined: i128,
}

/// Per measure of a source: records first, then the money columns.
type Measures = Vec<i128>;

/// Computes the balance of the whole lake, and of what was added since the last balance: by this run, and by runs before
/// it that ended too early to say so.
///
/// # Errors
/// The stores'.
#[tracing::instrument(target = "hop", name = "balance", skip_all)]
pub async fn compute(run: &Run) -> Result<Vec<BalanceRow>> {
    run.progress.stage("balance");
    let before: BTreeMap<(String, String), BalanceRow> = stored(run)
        .await?
        .into_iter()
        .filter(|row| row.scope == "lake")
        // what did not balance then is not this run's difference
        .map(|row| BalanceRow { landed: row.landed - row.difference, difference: 0, ..row })
        .map(|row| ((row.source.clone(), row.measure.clone()), row))
        .collect();
    let landed = landed(run).await?;
    let decisions = super::decisions::read(run).await?;
    let mut rows = Vec::new();
    for source in &run.project.sources {
        if run.bronze_of(&source.name)?.version() < 0 {
            continue;
        }
        let names: Vec<String> = std::iter::once(RECORDS).chain(source.money()).map(str::to_owned).collect();
        let mut total = decide::Counts::default();
        for ((_, _), counts) in decisions.iter().filter(|((name, _), _)| *name == source.name) {
            total.accepted.add_tally(&counts.accepted);
            total.duplicates.add_tally(&counts.duplicates);
            total.superseded.add_tally(&counts.superseded);
        }
        let accepted = match accepting_model(run, source) {
            Some(table) => measured(run, &table, source).await?,
            None => measures(&total.accepted, &names),
        };
        let quarantined = measured(run, &TableName::new(zone::QUARANTINE, &source.name), source).await?;
        let duplicates = measures(&total.duplicates, &names);
        let superseded = measures(&total.superseded, &names);
        let mut all = vec![0; names.len()];
        for (_, file) in landed.iter().filter(|(name, _)| *name == source.name) {
            for (total, measure) in all.iter_mut().zip(file) {
                *total += measure;
            }
        }
        for (at, name) in names.iter().enumerate() {
            let now = Sides {
                landed: all[at],
                accepted: accepted[at],
                duplicates: duplicates[at],
                superseded: superseded[at],
                quarantined: quarantined[at],
            };
            let lake = BalanceRow::new("lake", &source.name, name, now);
            let old = before.get(&(source.name.clone(), name.clone()));
            let side = |of: fn(&BalanceRow) -> i128| of(&lake) - old.map_or(0, of);
            let change = Sides {
                landed: side(|row| row.landed),
                accepted: side(|row| row.accepted),
                duplicates: side(|row| row.duplicates),
                superseded: side(|row| row.superseded),
                quarantined: side(|row| row.quarantined),
            };
            rows.push(BalanceRow::new("run", &source.name, name, change));
            rows.push(lake);
        }
    }
    Ok(rows)
}

fn measures(tally: &Tally, names: &[String]) -> Measures {
    let records = i128::from(tally.records) * 1_000_000;
    let money = (0..names.len() - 1).map(|at| tally.money.get(at).copied().unwrap_or(0));
    std::iter::once(records).chain(money).collect()
}

fn accepting_model(run: &Run, source: &Source) -> Option<TableName> {
    let mut models = run.project.stored_models();
    let model = models.find(|model| model.accounts_for.as_ref() == Some(&source.name))?;
    Some(model.table.clone())
}

/// Records and amounts as a table holds them now.
async fn measured(run: &Run, table: &TableName, source: &Source) -> Result<Measures> {
    let mut found = vec![i128::from(run.table(table)?.num_records()) * 1_000_000];
    if source.layout.money.is_empty() {
        return Ok(found);
    }
    let sums: Vec<String> = source
        .money()
        .map(|column| format!("sum(cast({} as decimal(38, 6)))", decide::quoted(column)))
        .collect();
    let query = format!("select {} from {}.{}", sums.join(", "), table.schema, decide::quoted(&table.table));
    let read = async {
        let context = engine::context(&run.state);
        checks::register_inputs(run, &context, &query).await?;
        let batches = context.sql(&query).await?.collect().await?;
        for at in 0..sums.len() {
            let sum = batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| {
                let column = batch.column(at).as_primitive::<Decimal128Type>();
                if column.is_null(0) { 0 } else { column.value(0) }
            });
            found.push(sum.unwrap_or(0));
        }
        Result::Ok(())
    };
    read.await.during(|| format!("adding up `{table}`"))?;
    Ok(found)
}

/// What the decoder counted, file by file: source, measures.
async fn landed(run: &Run) -> Result<Vec<(String, Measures)>> {
    let mut files = Vec::new();
    for batch in ledger::read(&run.ledger.landed).await? {
        let records = batch.column(4).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let name = batch.column(1).as_string_view().value(row).to_owned();
            let Some(source) = run.project.source(&name) else {
                continue;
            };
            let money: BTreeMap<String, String> =
                serde_json::from_str(batch.column(7).as_string_view().value(row))?;
            let records = i128::from(records.value(row)) * 1_000_000;
            let sums =
                source.money().map(|column| money.get(column).and_then(|sum| sum.parse().ok()).unwrap_or(0));
            let measures = std::iter::once(records).chain(sums).collect();
            files.push((name, measures));
        }
    }
    Ok(files)
}

/// The state of the zones, as the sum of their tables' versions: it grows with every commit.
const ZONES: &str = "zones";

/// What the run stores of its balance, for the caller to commit: one balance for one state of the zones, so that a run that
/// was killed just after this does not store it again. What it has stored of another state before it was killed is replaced.
///
/// # Errors
/// The store's.
pub async fn prepare(run: &Run, balance: &[BalanceRow]) -> Result<Commit> {
    let table = &run.ledger.balances;
    let stored_by = table.position(RUN);
    let is_told_again = stored_by == Some(run.id);
    let is_of_lost_run = !is_told_again && stored_by > Some(lost::newest_reported(&run.ledger));
    let mut rows = rows(run.id, balance)?;
    if is_told_again {
        rows = ledger::with_rows_of_run(table, run.id, rows).await?;
    }
    let mut commit = ledger::prepare(table, &rows).await?;
    if is_told_again {
        commit.change = Change::ReplaceAll;
    }
    let state: i64 = run.zone_tables().map(|table| table.version() + 1).sum();
    // where tables were restored to less, it is another state all the same
    let state = match table.position(ZONES) {
        Some(there) if state < there || (state == there && is_of_lost_run) => there + 1,
        _ => state,
    };
    commit.once = Some((ZONES.to_owned(), state));
    commit.positions.insert(RUN.to_owned(), run.id);
    Ok(commit)
}

/// Rows of `ledger.balances`.
fn rows(run_id: i64, rows: &[BalanceRow]) -> Result<RecordBatch> {
    let sums = |of: fn(&BalanceRow) -> i128| ledger::sums(rows.iter().map(of));
    Ok(RecordBatch::try_new(
        ledger::balances_schema(),
        vec![
            ledger::integers(rows.iter().map(|_| run_id)),
            ledger::texts(rows.iter().map(|row| &row.scope)),
            ledger::texts(rows.iter().map(|row| &row.source)),
            ledger::texts(rows.iter().map(|row| &row.measure)),
            sums(|row| row.landed),
            sums(|row| row.accepted),
            sums(|row| row.duplicates),
            sums(|row| row.superseded),
            sums(|row| row.quarantined),
            sums(|row| row.difference),
        ],
    )?)
}

/// The balance of the last run that changed something.
///
/// # Errors
/// The store's.
pub async fn stored(run: &Run) -> Result<Vec<BalanceRow>> {
    let batches = ledger::read_newest(&run.ledger.balances).await?;
    let newest = batches
        .iter()
        .filter_map(|batch| arrow::compute::max(batch.column(0).as_primitive::<Int64Type>()))
        .max();
    let mut rows = Vec::new();
    for batch in &batches {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let text = |at: usize, row: usize| batch.column(at).as_string_view().value(row).to_owned();
        let sum = |at: usize, row: usize| batch.column(at).as_primitive::<Decimal128Type>().value(row);
        for row in (0..batch.num_rows()).filter(|row| Some(ids.value(*row)) == newest) {
            rows.push(BalanceRow {
                scope: text(1, row),
                source: text(2, row),
                measure: text(3, row),
                landed: sum(4, row),
                accepted: sum(5, row),
                duplicates: sum(6, row),
                superseded: sum(7, row),
                quarantined: sum(8, row),
                difference: sum(9, row),
            });
        }
    }
    Ok(rows)
}
