//! What was decided of every source and date, as `ledger.decisions` keeps it: decided again where bronze, the rules or an
//! operator's wish say so, recorded in one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Date32Array, Int64Array, RecordBatch};
use serde_json::json;

use super::decide::{self, Counts};
use super::quarantine::{self, Refused};
use super::{Run, dirty, interventions, recent};
use crate::error::Result;
use crate::ledger;
use crate::project::source::{Mode, Source};

/// Bronze → decisions: of what bronze's log says changed, and of what is asked for.
///
/// # Errors
/// The stores' and those of the rules.
#[tracing::instrument(target = "hop", name = "decide", skip_all)]
pub async fn decide_changed(run: &mut Run) -> Result<()> {
    run.progress.stage("bronze → one row per key");
    let mut todo = Vec::new();
    let mut counted = BTreeMap::new();
    let discarded = interventions::undecided(run).await?;
    for source in run.project.sources.clone() {
        let bronze = run.bronze_of(&source.name)?;
        let consumed = run.ledger.decisions.position(&format!("bronze.{}", source.name));
        // `None`: all of it may have changed
        let since = match consumed {
            Some(consumed) if !run.is_full_refresh => bronze.changed_since(consumed, 1).await?,
            _ => None,
        };
        let is_changed = since.as_ref().is_none_or(|keys| !keys.is_empty());
        let asked = [run.wanted.decide.get(&source.name), discarded.get(&source.name)];
        let mut asked = asked.into_iter().flatten().flatten().copied().collect::<BTreeSet<i32>>();
        if bronze.version() < 0 || (!is_changed && asked.is_empty()) {
            continue;
        }
        let dates = match source.mode {
            Mode::Upserts => None,
            Mode::Events if is_changed => {
                let mut changed = dirty::dates_of(since.unwrap_or_else(|| bronze.partitions(1)));
                if let Some(consumed) = consumed.filter(|_| !run.is_full_refresh) {
                    let appended = &changed - &asked;
                    for (date, found) in recent::counted_since(run, &source, &appended, consumed).await? {
                        changed.remove(&date);
                        counted.insert((source.name.clone(), Some(date)), found);
                    }
                }
                asked.extend(changed);
                Some(asked)
            }
            Mode::Events => Some(asked),
        };
        todo.push((source, dates));
    }
    if !counted.is_empty() {
        // what was counted by older rules can't be added to
        let before = read(run).await?;
        for (source, dates) in &mut todo {
            let is_older = |key: &(String, Option<i32>)| {
                key.0 == source.name
                    && before.get(key).is_some_and(|counts| counts.fingerprint != source.fingerprint)
            };
            let older: Vec<_> = counted.keys().filter(|key| is_older(key)).cloned().collect();
            for key in older {
                counted.remove(&key);
                dates.get_or_insert_default().extend(key.1);
            }
        }
    }
    record(run, todo, counted).await
}

/// Decides the sources' dates (`None`: all): quarantine's silver part first, then the counts.
///
/// # Errors
/// As [`decide_changed`].
pub async fn decide_and_record(run: &mut Run, todo: Vec<(Source, Option<BTreeSet<i32>>)>) -> Result<()> {
    record(run, todo, BTreeMap::new()).await
}

/// As [`decide_and_record`], and adds what was counted and refused of further records.
async fn record(
    run: &mut Run,
    todo: Vec<(Source, Option<BTreeSet<i32>>)>,
    counted: BTreeMap<(String, Option<i32>), (Counts, Vec<Refused>)>,
) -> Result<()> {
    let mut positions = BTreeMap::new();
    let mut changed: BTreeMap<(String, Option<i32>), Counts> = BTreeMap::new();
    let mut replaced: BTreeMap<String, Option<BTreeSet<i32>>> = BTreeMap::new();
    let mut refused_by_source: Vec<(Source, Option<BTreeSet<i32>>, Vec<Refused>)> = Vec::new();
    for (source, dates) in todo {
        positions.insert(format!("bronze.{}", source.name), run.bronze_of(&source.name)?.version());
        let decided = run.decided(&source, dates.as_ref()).await?;
        let is_wanted = |date: &i32| dates.as_ref().is_none_or(|dates| dates.contains(date));
        let refused: Vec<_> =
            decided.quarantined.iter().filter(|record| is_wanted(&record.date)).cloned().collect();
        for (date, counts) in &decided.counts {
            if date.as_ref().is_none_or(is_wanted) {
                let counts = Counts { fingerprint: source.fingerprint.clone(), ..counts.clone() };
                changed.insert((source.name.clone(), *date), counts);
            }
        }
        replaced.insert(source.name.clone(), dates.clone());
        refused_by_source.push((source, dates, refused));
    }
    for (source, dates, refused) in refused_by_source {
        quarantine::replace(run, &source, dates.as_ref(), refused).await?;
        let of_source = counted.iter().filter(|((name, _), _)| *name == source.name);
        let added: Vec<Refused> = of_source.flat_map(|(_, (_, refused))| refused).cloned().collect();
        quarantine::add(run, &source, added).await?;
    }
    if positions.is_empty() {
        return Ok(());
    }
    positions.extend(interventions::position(run));
    let mut kept = run.ledger.decisions.snapshot().map(|snapshot| snapshot.txns.clone()).unwrap_or_default();
    let before = read(run).await?;
    let mut all = before.clone();
    all.retain(|(source, date), _| match (replaced.get(source), date) {
        (None, _) => true,
        (Some(Some(dates)), Some(date)) => !dates.contains(date),
        (Some(_), _) => false,
    });
    all.extend(changed);
    for (key, (counts, _)) in counted {
        let form = run.project.source(&key.0).map(|source| source.fingerprint.clone()).unwrap_or_default();
        let all = all.entry(key).or_insert_with(|| Counts { fingerprint: form, ..Counts::default() });
        all.add(&counts);
    }
    let is_known = positions.iter().all(|(name, position)| kept.get(name) == Some(position));
    if all == before && is_known {
        return Ok(());
    }
    let rows = rows(&all)?;
    kept.extend(positions);
    ledger::replace(&mut run.ledger.decisions, &rows, kept).await?;
    run.num_commits += 1;
    Ok(())
}

/// The dates of each source that were decided by older rules; of an `upserts` source, its bronze dates.
///
/// # Errors
/// The store's.
pub async fn stale(run: &Run) -> Result<BTreeMap<String, BTreeSet<i32>>> {
    let mut stale: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for ((name, date), counts) in read(run).await? {
        let Some(source) = run.project.source(&name) else {
            continue;
        };
        if counts.fingerprint == source.fingerprint {
            continue;
        }
        let dates = stale.entry(name).or_default();
        match date {
            Some(date) => {
                dates.insert(date);
            }
            None => dates.extend(dirty::dates_of(run.bronze_of(&source.name)?.partitions(1))),
        }
    }
    Ok(stale)
}

/// Counts by source and date, as `ledger.decisions` keeps them.
///
/// # Errors
/// The store's.
pub async fn read(run: &Run) -> Result<BTreeMap<(String, Option<i32>), Counts>> {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Date32Type, Int64Type};
    let mut all = BTreeMap::new();
    for batch in ledger::read(&run.ledger.decisions).await? {
        let dates = batch.column(7).as_primitive::<Date32Type>();
        for row in 0..batch.num_rows() {
            let source = batch.column(0).as_string_view().value(row).to_owned();
            let money: serde_json::Value = serde_json::from_str(batch.column(5).as_string_view().value(row))?;
            let tally = |at: usize, name: &str| decide::Tally {
                records: batch.column(at).as_primitive::<Int64Type>().value(row).cast_unsigned(),
                money: money[name]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|sum| sum.as_str()?.parse().ok())
                    .collect(),
            };
            let counts = Counts {
                accepted: tally(1, "accepted"),
                duplicates: tally(2, "duplicates"),
                superseded: tally(3, "superseded"),
                quarantined: tally(4, "quarantined"),
                warnings: serde_json::from_str(batch.column(6).as_string_view().value(row))?,
                fingerprint: batch.column(8).as_string_view().value(row).to_owned(),
            };
            let date = dates.is_valid(row).then(|| dates.value(row));
            all.insert((source, date), counts);
        }
    }
    Ok(all)
}

fn rows(all: &BTreeMap<(String, Option<i32>), Counts>) -> Result<RecordBatch> {
    let texts =
        |tally: &decide::Tally| -> Vec<String> { tally.money.iter().map(ToString::to_string).collect() };
    let counts = |of: fn(&Counts) -> &decide::Tally| {
        Arc::new(Int64Array::from_iter_values(all.values().map(|counts| of(counts).records.cast_signed())))
    };
    let money = all.values().map(|counts| {
        json!({
            "accepted": texts(&counts.accepted), "duplicates": texts(&counts.duplicates),
            "superseded": texts(&counts.superseded), "quarantined": texts(&counts.quarantined),
        })
        .to_string()
    });
    let dates: Date32Array = all.keys().map(|(_, date)| *date).collect();
    Ok(RecordBatch::try_new(
        ledger::decisions_schema(),
        vec![
            ledger::texts(all.keys().map(|(source, _)| source)),
            counts(|counts| &counts.accepted),
            counts(|counts| &counts.duplicates),
            counts(|counts| &counts.superseded),
            counts(|counts| &counts.quarantined),
            ledger::texts(money),
            ledger::texts(all.values().map(|counts| json!(counts.warnings).to_string())),
            Arc::new(dates),
            ledger::texts(all.values().map(|counts| &counts.fingerprint)),
        ],
    )?)
}
