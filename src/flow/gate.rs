//! The gate: partitions of a gold table that a check finds fault with are not committed; what was there before stays.
//!
//! A check that guards a table is asked before the table's commit, about the table as it would be after it. What is
//! withheld is said by that very commit, as positions of the table: one for each partition and check, the rows that it
//! found, 0 once the partition is let in. So the table itself says what is missing from it, and nothing can disagree.
//!
//! A withheld partition is tried again whenever the table is computed, and when its checks, its model or what they read have
//! changed since.

use std::collections::{BTreeMap, BTreeSet};

use object_store::ObjectStoreExt;
use serde::Serialize;
use serde_json::json;

use super::dirty::{self, Work, dates_of};
use super::model::{Computed, describe};
use super::{Run, checks};
use crate::error::{Error, Result};
use crate::lake::commit::Change;
use crate::lake::log::Add;
use crate::lake::maintain::location;
use crate::lake::partition::{date_text, partition_key};
use crate::lake::table::Table;
use crate::project::check::{Check, Finds, Outcome};
use crate::project::fingerprint;
use crate::project::manifest::CheckScope;
use crate::project::model::Model;
use crate::project::sql::TableName;
use crate::telemetry::counted;

/// A partition, by its date; `None` is the whole of a table without partitions.
pub type Place = Option<i32>;

/// A partition that a check keeps out of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    pub place: Place,
    pub check: String,
    /// Rows that the check has found in it.
    pub rows: i64,
}

/// Positions of withheld partitions: `withheld 2025-08-14 by no_negative_cost`.
const WITHHELD: &str = "withheld ";
const BY: &str = " by ";

/// The partition of a table that has none.
const EVERYTHING: &str = "everything";

/// The position that says with which form of model and checks the withheld partitions were tried last.
const FORM: &str = "gate";

/// Positions of what the checks had read then: `gate silver.readings`.
const READ: &str = "gate ";

/// `2025-08-14`, or `everything`.
pub fn place_text(place: Place) -> String {
    place.map_or_else(|| EVERYTHING.to_owned(), date_text)
}

fn position_of(place: Place, check: &str) -> String {
    format!("{WITHHELD}{}{BY}{check}", place_text(place))
}

/// What is withheld from the table, as its log says.
pub fn withheld(table: &Table) -> Vec<Withheld> {
    let Some(snapshot) = table.snapshot() else {
        return Vec::new();
    };
    let positions = snapshot.txns.range(WITHHELD.to_owned()..);
    positions
        .take_while(|(name, _)| name.starts_with(WITHHELD))
        .filter(|(_, rows)| **rows > 0)
        .filter_map(|(name, rows)| {
            let (place, check) = name.strip_prefix(WITHHELD)?.split_once(BY)?;
            let place = match place {
                EVERYTHING => None,
                date => Some(dates_of(BTreeSet::from([vec![Some(date.to_owned())]])).pop_first()?),
            };
            Some(Withheld { place, check: check.to_owned(), rows: *rows })
        })
        .collect()
}

/// The dates that are withheld from the table.
pub fn withheld_dates(table: &Table) -> BTreeSet<i32> {
    withheld(table).into_iter().filter_map(|withheld| withheld.place).collect()
}

/// What has to be tried again besides `dirty`, which is to be computed anyway.
///
/// # Errors
/// The store's.
pub async fn to_retry(run: &Run, model: &Model, is_dirty: bool) -> Result<Option<BTreeSet<i32>>> {
    let table = run.table(&model.table)?;
    let all = withheld(table);
    if all.is_empty() || !(is_dirty || is_due(run, model, table).await?) {
        return Ok(None);
    }
    Ok(Some(all.into_iter().filter_map(|withheld| withheld.place).collect()))
}

/// Whether something has changed since the withheld partitions were tried that the model's inputs do not tell.
async fn is_due(run: &Run, model: &Model, table: &Table) -> Result<bool> {
    if table.position(FORM) != Some(form(run, model)) {
        return Ok(true);
    }
    for read in read_by_guards(run, model) {
        let now = run.table(&read)?;
        let changed = match table.position(&format!("{READ}{read}")) {
            Some(seen) => now.changed_since(seen, 1).await?,
            None => None,
        };
        if changed.is_none_or(|changed| !changed.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn form(run: &Run, model: &Model) -> i64 {
    let guards = run.project.guards_of(&model.table).map(|check| check.fingerprint.as_str());
    fingerprint::position(&fingerprint::of_all([model.fingerprint.as_str()].into_iter().chain(guards)))
}

/// The stored tables that the table's guards read, itself left out.
pub fn read_by_guards(run: &Run, model: &Model) -> BTreeSet<TableName> {
    let mut found = BTreeSet::new();
    for check in run.project.guards_of(&model.table) {
        for read in check.reads.iter().chain(&check.tolerance.of) {
            match run.project.model(read) {
                Some(view) if view.is_view => found.extend(view.inputs.keys().flat_map(dirty::behind)),
                _ => found.extend(dirty::behind(read)),
            }
        }
    }
    found.retain(|table| *table != model.table && run.table(table).is_ok());
    found
}

/// Takes the partitions that a guard finds fault with out of what was computed, and says so in its commit. Gives what is
/// left of the work.
///
/// # Errors
/// Those of the checks; `Data` where the table's columns have changed, so that old partitions can't stay beside new ones.
pub async fn hold_back(
    run: &Run,
    model: &Model,
    work: &Work,
    mut computed: Computed,
) -> Result<(Work, Computed)> {
    let guards: Vec<&Check> = run.project.guards_of(&model.table).collect();
    let before = withheld(&computed.table);
    if guards.is_empty() && before.is_empty() {
        return Ok((work.clone(), computed));
    }
    let mut left = places(work);
    let mut held: BTreeMap<Place, BTreeMap<String, i64>> = BTreeMap::new();
    while !left.is_empty() {
        let faults = faults(run, &guards, &left, &computed).await?;
        if faults.is_empty() {
            break;
        }
        let places: BTreeSet<Place> = faults.keys().copied().collect();
        left.retain(|place| !places.contains(place));
        take_out(&mut computed, &places, &left).await?;
        held.extend(faults);
        // without these partitions others may look different to a check that sees more than one
        if guards.iter().all(|check| judges_each_date_alone(check)) {
            break;
        }
    }
    say_so(run, model, work, &before, &held, &mut computed);
    let work = match work {
        Work::Dates(_) if left.is_empty() => Work::Nothing,
        Work::Dates(_) => Work::Dates(left.into_iter().flatten().collect()),
        _ if held.is_empty() => work.clone(),
        _ => Work::Nothing,
    };
    Ok((work, computed))
}

fn places(work: &Work) -> BTreeSet<Place> {
    match work {
        Work::Nothing => BTreeSet::new(),
        Work::Whole => BTreeSet::from([None]),
        Work::Dates(dates) => dates.iter().copied().map(Some).collect(),
    }
}

fn judges_each_date_alone(check: &Check) -> bool {
    check.scope == CheckScope::Changed && matches!(check.finds, Finds::Rows(_))
}

/// What the guards find in the partitions, each above what it tolerates.
async fn faults(
    run: &Run,
    guards: &[&Check],
    left: &BTreeSet<Place>,
    computed: &Computed,
) -> Result<BTreeMap<Place, BTreeMap<String, i64>>> {
    let candidate = computed.table.after(&computed.commit)?;
    let dates: BTreeSet<i32> = left.iter().flatten().copied().collect();
    let mut faults: BTreeMap<Place, BTreeMap<String, i64>> = BTreeMap::new();
    for check in guards {
        let only = (check.scope == CheckScope::Changed && !dates.is_empty()).then_some(&dates);
        let found = checks::find(run, check, only, Some(&candidate)).await?;
        for (place, outcome) in checks::judge_dates(run, check, &found, Some(&candidate))? {
            if outcome < Outcome::Failed {
                continue;
            }
            let rows = found.rows.get(&place).copied().unwrap_or(0);
            // a row without a date speaks of every partition
            let concerned = left.iter().filter(|left| place.is_none() || **left == place);
            for place in concerned {
                *faults.entry(*place).or_default().entry(check.name.clone()).or_default() += rows;
            }
        }
    }
    Ok(faults)
}

/// Takes the files of some partitions out of a commit, and those partitions out of what it replaces.
async fn take_out(computed: &mut Computed, held: &BTreeSet<Place>, left: &BTreeSet<Place>) -> Result<()> {
    let (table, commit) = (&computed.table, &mut computed.commit);
    if !table.takes(&commit.schema, &commit.partition)? {
        let dates = Work::Dates(held.iter().flatten().copied().collect());
        return Err(Error::data(format!(
            "a check withholds {} of `{}`, whose columns have changed: old partitions can't stay beside new ones, so \
             nothing was committed; mend what the check finds, or the check, and run again",
            if held.contains(&None) { EVERYTHING.to_owned() } else { describe(&dates) },
            table.name()
        )));
    }
    let columns = commit.partition.clone();
    let is_held = |file: &Add| match columns.is_empty() {
        true => true,
        false => dates_of(BTreeSet::from([partition_key(&columns, &file.partition_values, 1)]))
            .first()
            .is_some_and(|date| held.contains(&Some(*date))),
    };
    let store = table.lake().store();
    for file in commit.adds.extract_if(.., |file| is_held(file)) {
        computed.rows = computed.rows.saturating_sub(file.num_records());
        // never committed, so nobody reads it; left behind it would only wait for a vacuum
        let _ = store.delete(&location(table, &file.path)?).await;
    }
    let mut replaced = match &commit.change {
        Change::Replace(keys) => keys.clone(),
        _ => {
            let mut keys = table.partitions(1);
            keys.extend(left.iter().flatten().map(|date| vec![Some(date_text(*date))]));
            keys
        }
    };
    replaced.retain(|key| {
        !dates_of(BTreeSet::from([key.clone()])).iter().any(|date| held.contains(&Some(*date)))
    });
    commit.change = match columns.is_empty() || replaced.is_empty() {
        true => Change::Append,
        false => Change::Replace(replaced),
    };
    computed.num_withheld += held.len();
    computed.cache = None;
    Ok(())
}

/// Adds to the commit what is withheld with it and what is not any more.
fn say_so(
    run: &Run,
    model: &Model,
    work: &Work,
    before: &[Withheld],
    held: &BTreeMap<Place, BTreeMap<String, i64>>,
    computed: &mut Computed,
) {
    let tried = places(work);
    // a table that was given partitions, or lost them, is computed whole
    let is_tried = |place: &Place| tried.contains(&None) || place.is_none() || tried.contains(place);
    let positions = &mut computed.commit.positions;
    for known in before.iter().filter(|known| is_tried(&known.place)) {
        positions.insert(position_of(known.place, &known.check), 0);
    }
    for (place, faults) in held {
        for (check, rows) in faults {
            positions.insert(position_of(*place, check), *rows);
        }
    }
    if !held.is_empty() && before.iter().all(|known| is_tried(&known.place)) {
        positions.insert(FORM.to_owned(), form(run, model));
        for read in read_by_guards(run, model) {
            if let Ok(table) = run.table(&read) {
                positions.insert(format!("{READ}{read}"), table.version());
            }
        }
    }
    if !held.is_empty() {
        let told = held.iter().map(|(place, faults)| (place_text(*place), faults));
        computed.commit.info["withheld"] = json!(told.collect::<BTreeMap<_, _>>());
    }
}

/// What is withheld from a table by a check, for people and machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    pub table: String,
    pub check: String,
    /// What the check is about.
    pub description: String,
    pub partitions: Vec<String>,
    /// Rows that the check has found in them.
    pub rows: i64,
    #[serde(skip)]
    work: Work,
}

impl Told {
    /// `2025-08-01..2025-08-03 (3 dates)`.
    pub fn scope(&self) -> String {
        describe(&self.work)
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows = usize::try_from(self.rows).unwrap_or(usize::MAX);
        write!(
            f,
            "withheld from `{}`: {}; what was there before stays, the check `{}` found {} in what was to replace it: {}",
            self.table,
            self.scope(),
            self.check,
            counted(rows, "row"),
            self.description
        )
    }
}

/// Everything that is withheld, by table and check.
///
/// # Errors
/// `Bug` where a table is not open.
pub fn tell(run: &Run) -> Result<Vec<Told>> {
    let mut told = Vec::new();
    for model in run.project.stored_models() {
        let mut by_check: BTreeMap<String, Vec<Withheld>> = BTreeMap::new();
        for withheld in withheld(run.table(&model.table)?) {
            by_check.entry(withheld.check.clone()).or_default().push(withheld);
        }
        for (check, withheld) in by_check {
            let declared = run.project.checks.iter().find(|declared| declared.name == check);
            let dates: BTreeSet<i32> = withheld.iter().filter_map(|withheld| withheld.place).collect();
            told.push(Told {
                table: model.table.to_string(),
                description: declared.map(|check| check.description.clone()).unwrap_or_default(),
                check,
                partitions: withheld.iter().map(|withheld| place_text(withheld.place)).collect(),
                rows: withheld.iter().map(|withheld| withheld.rows).sum(),
                work: if dates.is_empty() { Work::Whole } else { Work::Dates(dates) },
            });
        }
    }
    Ok(told)
}
