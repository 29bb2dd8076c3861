//! Bronze → one row per key: which bronze record is accepted, and what became of every other.
//!
//! Decided from what landed only (file time, path, line), never from arrival, so deciding again gives the same.
//!
//! | mode | of the records with one key | |
//! |---|---|---|
//! | events | key and date equal: the first by (path, line) | accepted |
//! | | a further one with the same content | duplicate |
//! | | a further one with other content | quarantined, `duplicate_conflict` |
//! | upserts | within a file: the first line; others as above | |
//! | | over files by (file time, path): equal to the version before | duplicate |
//! | | every version but the latest | superseded |
//! | | the latest | accepted |
//!
//! An accepted record that breaks a rule of its source is quarantined under the rule's name.

mod records;
mod repeated;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use self::records::Records;
use self::repeated::Repeated;
use super::quarantine::{Refused, Stage};
use crate::engine;
use crate::error::Result;
use crate::lake::partition::{PartitionKey, date_text};
use crate::lake::scan::LakeScan;
use crate::lake::table::Table;
use crate::project::source::{DATE, Mode, Source, timestamp_type};
use crate::project::sql::TableName;
use crate::zone;

pub use self::records::{half, hashes};

/// The error type of a record whose key was already taken by one with other content.
pub const CONFLICT: &str = "duplicate_conflict";

/// The error type of a record that an operator has discarded.
pub const DISCARDED: &str = "discarded";

/// Records that are in memory at once, about 100 bytes each. More are read as a stream: only those whose key comes again are
/// held together, a part of these keys at a time.
const HELD_ROWS: usize = 1_000_000;

/// A bronze record's place: which file, which line.
pub type Place = (Arc<str>, i64);

/// Records that an operator has discarded, and why.
pub type Discards = BTreeMap<Place, String>;

/// Bronze as a run sees it: the table, and its rows where they are still in memory.
#[derive(Debug)]
pub struct Bronze<'a> {
    pub table: &'a Table,
    pub cached: Option<Arc<Vec<RecordBatch>>>,
}

/// What became of the bronze records of some dates.
#[derive(Debug, Clone, Default)]
pub struct Decided {
    /// Counts by date; `None` is the whole source (upserts).
    pub counts: BTreeMap<Option<i32>, Counts>,
    /// Records that are not accepted, by date.
    pub rejected: BTreeMap<i32, Vec<Place>>,
    pub quarantined: Vec<Refused>,
    /// Every version of every key (upserts).
    pub versions: Vec<Version>,
}

/// Records and amounts by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub accepted: Tally,
    pub duplicates: Tally,
    pub superseded: Tally,
    pub quarantined: Tally,
    pub warnings: BTreeMap<String, u64>,
    /// By which form of the source's rules, see [`Source::fingerprint`].
    pub fingerprint: String,
}

impl Counts {
    /// Counts of further records, of the same form of the rules.
    pub fn add(&mut self, other: &Counts) {
        self.accepted.add_tally(&other.accepted);
        self.duplicates.add_tally(&other.duplicates);
        self.superseded.add_tally(&other.superseded);
        self.quarantined.add_tally(&other.quarantined);
        for (name, records) in &other.warnings {
            *self.warnings.entry(name.clone()).or_default() += records;
        }
    }
}

/// A number of records and the sums of their amounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: u64,
    /// Per money column of the source.
    pub money: Vec<i128>,
}

impl Tally {
    pub fn add(&mut self, records: u64, money: &[i128]) {
        self.records += records;
        self.money.resize(self.money.len().max(money.len()), 0);
        for (total, amount) in self.money.iter_mut().zip(money) {
            *total += amount;
        }
    }

    pub fn add_tally(&mut self, other: &Tally) {
        self.add(other.records, &other.money);
    }
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub place: Place,
    pub version: i64,
    pub valid_from: i64,
    pub valid_to: Option<i64>,
}

/// Decides the bronze records of `dates` (all of them where `None`).
///
/// # Errors
/// Those of reading bronze.
pub async fn decide(
    context: &SessionContext,
    source: &Source,
    bronze: Bronze<'_>,
    dates: Option<&BTreeSet<i32>>,
    discards: &Discards,
) -> Result<Decided> {
    let only = dates.map(partition_keys);
    let schema = source.bronze_schema();
    let is_all = only.as_ref().is_none_or(|only| bronze.table.partitions(1).is_subset(only));
    let scan = match bronze.cached {
        Some(batches) if is_all => LakeScan::in_memory(schema, batches),
        _ => LakeScan::new(bronze.table, schema, &[DATE.to_owned()], only.as_ref())?,
    };
    let num_rows = scan.num_rows();
    let name = TableName::new(zone::BRONZE, &source.name);
    engine::register(context, &name, Arc::new(scan));
    let mut decided = Decided::default();
    decide_registered(context, source, num_rows, HELD_ROWS, discards, &mut decided).await?;
    Ok(decided)
}

/// Decides what is registered as the source's bronze, `num_rows` records, about `held_rows` of them in memory.
///
/// Every key's records are decided together and apart from all others', so it does not matter which keys are together.
async fn decide_registered(
    context: &SessionContext,
    source: &Source,
    num_rows: u64,
    held_rows: usize,
    discards: &Discards,
    decided: &mut Decided,
) -> Result<()> {
    if num_rows <= held_rows as u64 {
        let mut all = Records::new(source);
        let mut stream = Records::stream(context, source).await?;
        while let Some((batch, keys)) = stream.try_next().await? {
            all.push(&batch, keys);
        }
        return all.decide(context, source, discards, decided).await;
    }
    let repeated = Repeated::find(context, source, num_rows).await?;
    let num_slices = repeated.num_rows().div_ceil(held_rows).max(1) as u128;
    for number in 0..num_slices {
        let (mut once, mut again) = (Records::new(source), Records::new(source));
        let mut stream = Records::stream(context, source).await?;
        while let Some((batch, keys)) = stream.try_next().await? {
            let is_again: Vec<bool> = keys.iter().map(|key| repeated.may_hold(*key)).collect();
            let is_ours = |(key, is_again): (&u128, &bool)| *is_again && key % num_slices == number;
            again.push_those(&batch, &keys, keys.iter().zip(&is_again).map(is_ours).collect())?;
            if number == 0 {
                once.push_those(&batch, &keys, is_again.iter().map(|is_again| !is_again).collect())?;
            }
            if once.num_rows >= held_rows {
                let full = std::mem::replace(&mut once, Records::new(source));
                full.decide(context, source, discards, decided).await?;
            }
        }
        once.decide(context, source, discards, decided).await?;
        again.decide(context, source, discards, decided).await?;
    }
    Ok(())
}

impl Records {
    /// Decides these, which must be all records of their keys.
    async fn decide(
        self,
        context: &SessionContext,
        source: &Source,
        discards: &Discards,
        decided: &mut Decided,
    ) -> Result<()> {
        let mut outcomes: Vec<Outcome> = vec![Outcome::Accepted; self.num_rows];
        if !discards.is_empty() {
            for (row, outcome) in outcomes.iter_mut().enumerate() {
                if discards.contains_key(&self.place(row)) {
                    *outcome = Outcome::Discarded;
                }
            }
        }
        // what was discarded takes no key
        let groups = self.groups_of_several(source.mode, &outcomes);
        let contents = self.contents(context, source, &groups).await?;
        let mut versions_of: HashMap<usize, Vec<usize>> = HashMap::new();
        for group in &groups {
            match source.mode {
                Mode::Events => decide_events(group, &contents, &mut outcomes),
                Mode::Upserts => {
                    let versions = decide_upserts(&self, group, &contents, &mut outcomes);
                    if let Some(latest) = versions.last() {
                        versions_of.insert(*latest, versions);
                    }
                }
            }
        }
        self.apply_rules(source, &mut outcomes);
        self.count(source, &outcomes, decided);
        self.refuse(source, &outcomes, discards, decided);
        if source.mode == Mode::Upserts {
            for (row, outcome) in outcomes.iter().enumerate() {
                if *outcome == Outcome::Accepted {
                    let versions = versions_of.remove(&row).unwrap_or_else(|| vec![row]);
                    decided.versions.extend(self.history(&versions));
                }
            }
        }
        Ok(())
    }
}

/// Dates as the values of a partition column.
pub fn partition_keys(dates: &BTreeSet<i32>) -> BTreeSet<PartitionKey> {
    dates.iter().map(|date| vec![Some(date_text(*date))]).collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Duplicate,
    Superseded,
    Conflict { with: usize },
    Rule(usize),
    Discarded,
}

impl Records {
    fn apply_rules(&self, source: &Source, outcomes: &mut [Outcome]) {
        for (rule, hits) in self.hits.iter().enumerate().take(source.rules.len()) {
            for (row, is_hit) in hits.iter().enumerate() {
                if *is_hit && outcomes[row] == Outcome::Accepted {
                    outcomes[row] = Outcome::Rule(rule);
                }
            }
        }
    }

    fn count(&self, source: &Source, outcomes: &[Outcome], decided: &mut Decided) {
        let mut amounts = vec![0; self.money.len()];
        for (row, outcome) in outcomes.iter().enumerate() {
            let date = match source.mode {
                Mode::Events => Some(self.dates[row]),
                Mode::Upserts => None,
            };
            for (amount, column) in amounts.iter_mut().zip(&self.money) {
                *amount = column[row];
            }
            let counts = decided.counts.entry(date).or_default();
            let tally = match outcome {
                Outcome::Accepted => &mut counts.accepted,
                Outcome::Duplicate => &mut counts.duplicates,
                Outcome::Superseded => &mut counts.superseded,
                Outcome::Conflict { .. } | Outcome::Rule(_) | Outcome::Discarded => &mut counts.quarantined,
            };
            tally.add(1, &amounts);
            if *outcome == Outcome::Accepted {
                let warnings = self.hits.iter().skip(source.rules.len()).zip(&source.warnings);
                for (_, warning) in warnings.filter(|(hits, _)| hits[row]) {
                    *counts.warnings.entry(warning.name.clone()).or_default() += 1;
                }
            } else {
                decided.rejected.entry(self.dates[row]).or_default().push(self.place(row));
            }
        }
    }

    fn refuse(&self, source: &Source, outcomes: &[Outcome], discards: &Discards, decided: &mut Decided) {
        for (row, outcome) in outcomes.iter().enumerate() {
            let (error_type, reason) = match outcome {
                Outcome::Conflict { with } => {
                    let (file, line) = self.place(*with);
                    let reason =
                        format!("the key was already landed with other content in `{file}`, line {line}");
                    (CONFLICT.to_owned(), reason)
                }
                Outcome::Rule(rule) => {
                    let rule = &source.rules[*rule];
                    (rule.error_type.clone(), rule.reason.clone())
                }
                Outcome::Discarded => {
                    let why = discards.get(&self.place(row)).cloned().unwrap_or_default();
                    (DISCARDED.to_owned(), why)
                }
                _ => continue,
            };
            let (file, line) = self.place(row);
            decided.quarantined.push(Refused {
                stage: Stage::Silver,
                error_type,
                column: None,
                reason,
                raw: Vec::new(),
                raw_bytes: 0,
                source_file: file.to_string(),
                source_line: line,
                date: self.dates[row],
                money: self.money.iter().map(|column| Some(column[row])).collect(),
                batch_id: self.batch_ids[row],
            });
        }
    }

    fn history(&self, versions: &[usize]) -> Vec<Version> {
        let times: Vec<i64> = versions.iter().map(|row| self.file_times[*row]).collect();
        versions
            .iter()
            .enumerate()
            .map(|(at, row)| Version {
                place: self.place(*row),
                version: at as i64 + 1,
                valid_from: times[at],
                valid_to: times.get(at + 1).copied(),
            })
            .collect()
    }
}

fn decide_events(group: &[usize], contents: &HashMap<usize, Box<[u8]>>, outcomes: &mut [Outcome]) {
    let first = group[0];
    for row in &group[1..] {
        outcomes[*row] = match contents.get(row) == contents.get(&first) {
            true => Outcome::Duplicate,
            false => Outcome::Conflict { with: first },
        };
    }
}

/// The rows that are versions, oldest first.
fn decide_upserts(
    records: &Records,
    group: &[usize],
    contents: &HashMap<usize, Box<[u8]>>,
    outcomes: &mut [Outcome],
) -> Vec<usize> {
    let mut versions: Vec<usize> = Vec::new();
    for in_file in group.chunk_by(|a, b| records.file_of[*a] == records.file_of[*b]) {
        decide_events(in_file, contents, outcomes);
        let first = in_file[0];
        match versions.last() {
            Some(before) if contents.get(before) == contents.get(&first) => {
                outcomes[first] = Outcome::Duplicate;
            }
            Some(before) => {
                outcomes[*before] = Outcome::Superseded;
                versions.push(first);
            }
            None => versions.push(first),
        }
    }
    versions
}

/// Versions as a table to join bronze with.
///
/// # Errors
/// Never in practice.
pub fn versions_table(versions: &[Version]) -> Result<Arc<MemTable>> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("source_file", DataType::Utf8View, true),
        Field::new("source_line", DataType::Int64, true),
        Field::new("version", DataType::Int64, true),
        Field::new("valid_from", timestamp_type(), true),
        Field::new("valid_to", timestamp_type(), true),
        Field::new("is_current", DataType::Boolean, true),
    ]));
    let valid_from = versions.iter().map(|version| Some(version.valid_from));
    let valid_to = versions.iter().map(|version| version.valid_to);
    let timestamps = |values: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let files = versions.iter().map(|version| version.place.0.as_ref());
    let is_current: BooleanArray = versions.iter().map(|version| Some(version.valid_to.is_none())).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(files)),
        Arc::new(Int64Array::from_iter_values(versions.iter().map(|version| version.place.1))),
        Arc::new(Int64Array::from_iter_values(versions.iter().map(|version| version.version))),
        timestamps(valid_from.collect()),
        timestamps(valid_to.collect()),
        Arc::new(is_current),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
}

/// An identifier as SQL wants it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests;
