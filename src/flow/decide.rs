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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Int64Type, Schema, TimestampMicrosecondType,
};
use arrow::row::{RowConverter, SortField};
use datafusion::common::TableReference;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionContext, col, ident};
use futures::TryStreamExt;

use super::quarantine::{Refused, Stage};
use crate::engine;
use crate::error::{Error, Result};
use crate::lake::scan::LakeScan;
use crate::lake::table::Table;
use crate::lake::write::{PartitionKey, date_text};
use crate::project::source::{DATE, Mode, Source, timestamp_type};
use crate::project::sql::TableName;
use crate::zone;

/// The error type of a record whose key was already taken by one with other content.
pub const CONFLICT: &str = "duplicate_conflict";

/// The error type of a record that an operator has discarded.
pub const DISCARDED: &str = "discarded";

/// Records that are in memory at once, about 100 bytes each. A date with more is read several times, a part of the keys at
/// a time.
const SLICE_ROWS: u64 = 4_000_000;

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
    let num_slices = num_rows.div_ceil(SLICE_ROWS).max(1);
    let mut decided = Decided::default();
    for number in 0..num_slices {
        let slice = Slice { number: number.into(), of: num_slices.into() };
        decide_slice(context, source, slice, discards, &mut decided).await?;
    }
    Ok(decided)
}

/// A part of the keys, and every record that has one of them.
#[derive(Debug, Clone, Copy)]
struct Slice {
    number: u128,
    of: u128,
}

impl Slice {
    fn holds(self, key: u128) -> bool {
        key % self.of == self.number
    }
}

async fn decide_slice(
    context: &SessionContext,
    source: &Source,
    slice: Slice,
    discards: &Discards,
    decided: &mut Decided,
) -> Result<()> {
    let records = Records::read(context, source, slice).await?;
    let mut outcomes: Vec<Outcome> = vec![Outcome::Accepted; records.num_rows];
    if !discards.is_empty() {
        for (row, outcome) in outcomes.iter_mut().enumerate() {
            if discards.contains_key(&records.place(row)) {
                *outcome = Outcome::Discarded;
            }
        }
    }
    // what was discarded takes no key
    let groups = records.groups_of_several(source.mode, &outcomes);
    let contents = records.contents(context, source, &groups).await?;
    let mut versions_of: HashMap<usize, Vec<usize>> = HashMap::new();
    for group in &groups {
        match source.mode {
            Mode::Events => decide_events(group, &contents, &mut outcomes),
            Mode::Upserts => {
                let versions = decide_upserts(&records, group, &contents, &mut outcomes);
                if let Some(latest) = versions.last() {
                    versions_of.insert(*latest, versions);
                }
            }
        }
    }
    records.apply_rules(source, &mut outcomes);
    records.count(source, &outcomes, decided);
    records.refuse(source, &outcomes, discards, decided);
    if source.mode == Mode::Upserts {
        for (row, outcome) in outcomes.iter().enumerate() {
            if *outcome == Outcome::Accepted {
                let versions = versions_of.remove(&row).unwrap_or_else(|| vec![row]);
                decided.versions.extend(records.history(&versions));
            }
        }
    }
    Ok(())
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

/// The columns of bronze that decide, flattened over batches.
struct Records {
    num_rows: usize,
    keys: Vec<u128>,
    files: Vec<Arc<str>>,
    file_of: Vec<u32>,
    lines: Vec<i64>,
    file_times: Vec<i64>,
    dates: Vec<i32>,
    batch_ids: Vec<i64>,
    /// Per money column.
    money: Vec<Vec<i128>>,
    /// Per rule, then per warning: the rows that it hits.
    hits: Vec<Vec<bool>>,
}

impl Records {
    async fn read(context: &SessionContext, source: &Source, slice: Slice) -> Result<Self> {
        let keys: Vec<String> = source.key().map(quoted).collect();
        let money: Vec<String> = source.money().map(quoted).collect();
        let rules = source.rules.iter().map(|rule| &rule.when);
        let whens: Vec<String> = rules
            .chain(source.warnings.iter().map(|warning| &warning.when))
            .enumerate()
            .map(|(at, when)| format!("({when}) as hit_{at}"))
            .collect();
        let fixed = ["source_file", "source_line", "source_file_time", "date", "batch_id"];
        let columns: Vec<String> = keys
            .iter()
            .cloned()
            .chain(fixed.iter().map(|name| quoted(name)))
            .chain(money.iter().enumerate().map(|(at, name)| format!("{name} as money_{at}")))
            .chain(whens.iter().cloned())
            .collect();
        let query = format!("select {} from bronze.{}", columns.join(", "), quoted(&source.name));
        let mut batches = context.sql(&query).await?.execute_stream().await?;
        let mut records = Records {
            num_rows: 0,
            keys: Vec::new(),
            files: Vec::new(),
            file_of: Vec::new(),
            lines: Vec::new(),
            file_times: Vec::new(),
            dates: Vec::new(),
            batch_ids: Vec::new(),
            money: vec![Vec::new(); money.len()],
            hits: vec![Vec::new(); whens.len()],
        };
        let mut known_files: HashMap<Arc<str>, u32> = HashMap::new();
        while let Some(batch) = batches.try_next().await? {
            records.push(batch, keys.len(), source.mode, slice, &mut known_files)?;
        }
        Ok(records)
    }

    fn push(
        &mut self,
        mut batch: RecordBatch,
        num_keys: usize,
        mode: Mode,
        slice: Slice,
        known_files: &mut HashMap<Arc<str>, u32>,
    ) -> Result<()> {
        let mut key_columns: Vec<ArrayRef> = batch.columns()[..num_keys].to_vec();
        if mode == Mode::Events {
            key_columns.push(Arc::clone(batch.column(num_keys + 3)));
        }
        let mut keys = hashes(&key_columns, batch.num_rows())?;
        if slice.of > 1 {
            let is_held: BooleanArray = keys.iter().map(|key| Some(slice.holds(*key))).collect();
            keys.retain(|key| slice.holds(*key));
            batch = filter_record_batch(&batch, &is_held)?;
        }
        self.keys.extend(keys);
        let num_rows = batch.num_rows();
        let column = |at: usize| batch.column(num_keys + at);
        let files = column(0).as_string_view();
        let mut last: Option<(&str, u32)> = None;
        for row in 0..num_rows {
            let file = files.value(row);
            let id = match last {
                Some((name, id)) if name == file => id,
                _ => match known_files.get(file) {
                    Some(id) => *id,
                    None => {
                        let id = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
                        let name: Arc<str> = file.into();
                        self.files.push(Arc::clone(&name));
                        known_files.insert(name, id);
                        id
                    }
                },
            };
            last = Some((file, id));
            self.file_of.push(id);
        }
        self.lines.extend_from_slice(column(1).as_primitive::<Int64Type>().values());
        self.file_times.extend_from_slice(column(2).as_primitive::<TimestampMicrosecondType>().values());
        self.dates.extend_from_slice(column(3).as_primitive::<Date32Type>().values());
        self.batch_ids.extend_from_slice(column(4).as_primitive::<Int64Type>().values());
        for (at, amounts) in self.money.iter_mut().enumerate() {
            let values = column(5 + at).as_primitive::<Decimal128Type>();
            // a missing amount adds nothing, as it did when the record landed
            amounts.extend(values.iter().map(|value| value.unwrap_or(0)));
        }
        let num_money = self.money.len();
        for (at, hits) in self.hits.iter_mut().enumerate() {
            let values: &BooleanArray = column(5 + num_money + at).as_boolean();
            hits.extend(values.iter().map(|value| value == Some(true)));
        }
        self.num_rows += num_rows;
        Ok(())
    }

    fn place(&self, row: usize) -> Place {
        (Arc::clone(&self.files[self.file_of[row] as usize]), self.lines[row])
    }

    fn file(&self, row: usize) -> &str {
        &self.files[self.file_of[row] as usize]
    }

    /// Rows that share a key, in the order in which they decide.
    fn groups_of_several(&self, mode: Mode, outcomes: &[Outcome]) -> Vec<Vec<usize>> {
        let mut first_of: HashMap<u128, usize, ahash::RandomState> =
            HashMap::with_capacity_and_hasher(self.num_rows, ahash::RandomState::new());
        let mut several: HashMap<usize, Vec<usize>> = HashMap::new();
        for (row, key) in self.keys.iter().enumerate() {
            if outcomes[row] == Outcome::Discarded {
                continue;
            }
            let first = *first_of.entry(*key).or_insert(row);
            if first != row {
                several.entry(first).or_insert_with(|| vec![first]).push(row);
            }
        }
        let mut groups: Vec<Vec<usize>> = several.into_values().collect();
        for group in &mut groups {
            group.sort_by(|a, b| {
                let time = |row: usize| match mode {
                    Mode::Events => 0,
                    Mode::Upserts => self.file_times[row],
                };
                (time(*a), self.file(*a), self.lines[*a]).cmp(&(time(*b), self.file(*b), self.lines[*b]))
            });
        }
        groups.sort();
        groups
    }

    /// The landed content of every row in `groups`, as comparable bytes.
    async fn contents(
        &self,
        context: &SessionContext,
        source: &Source,
        groups: &[Vec<usize>],
    ) -> Result<HashMap<usize, Box<[u8]>>> {
        let mut rows: HashMap<Place, usize> = HashMap::new();
        for row in groups.iter().flatten() {
            rows.insert(self.place(*row), *row);
        }
        if rows.is_empty() {
            return Ok(HashMap::new());
        }
        let places = rows.keys().map(|(file, line)| (file.as_ref(), *line));
        let is_wanted = engine::is_listed(col("source_file"), col("source_line"), places)?;
        let columns = source.layout.columns.iter().map(|column| column.name.as_str());
        let columns = columns.chain(["_rescued", "source_file", "source_line"]).map(ident);
        let table = TableReference::partial(zone::BRONZE, source.name.as_str());
        let wanted = context.table(table).await?.filter(is_wanted)?.select(columns)?;
        let mut contents = HashMap::with_capacity(rows.len());
        for batch in wanted.collect().await? {
            let num_content = batch.num_columns() - 2;
            let mut content = batch.columns()[..num_content].to_vec();
            if let Some(rescued) = content.last_mut() {
                *rescued = canonical(rescued);
            }
            let sort_fields = content.iter().map(|column| SortField::new(column.data_type().clone()));
            let converted = RowConverter::new(sort_fields.collect())?.convert_columns(&content)?;
            let files = batch.column(num_content).as_string_view();
            let lines = batch.column(num_content + 1).as_primitive::<Int64Type>();
            for at in 0..batch.num_rows() {
                let place: Place = (files.value(at).into(), lines.value(at));
                if let Some(row) = rows.get(&place) {
                    contents.insert(*row, converted.row(at).as_ref().into());
                }
            }
        }
        if contents.len() != rows.len() {
            return Err(Error::data(format!(
                "bronze of `{}` holds a record twice or changed while it was read; run again",
                source.name
            )));
        }
        Ok(contents)
    }

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

/// A 128-bit hash per row, of all columns together.
///
/// # Errors
/// Where a column's type can't be hashed.
pub fn hashes(columns: &[ArrayRef], num_rows: usize) -> Result<Vec<u128>> {
    let mut low = vec![0; num_rows];
    let mut high = vec![0; num_rows];
    create_hashes(columns, &RandomState::with_seed(1), &mut low)?;
    create_hashes(columns, &RandomState::with_seed(2), &mut high)?;
    // a null is skipped when columns are combined, so which ones are null is hashed too; row by row, because a row's hash is
    // not to depend on the rows that happen to be in its batch
    for (at, column) in (1u64..).zip(columns) {
        let Some(nulls) = column.logical_nulls().filter(|nulls| nulls.null_count() > 0) else {
            continue;
        };
        for row in (0..num_rows).filter(|row| nulls.is_null(*row)) {
            low[row] = (low[row].rotate_left(5) ^ at).wrapping_mul(0x517c_c1b7_2722_0a95);
            high[row] = (high[row].rotate_left(5) ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
    Ok(low.iter().zip(&high).map(|(low, high)| u128::from(*low) | u128::from(*high) << 64).collect())
}

/// Rescued JSON in one form: the order of its members, white space and escapes are not content.
fn canonical(rescued: &ArrayRef) -> ArrayRef {
    let texts = rescued.as_string_view().iter();
    let texts: StringViewArray = texts.map(|text| text.map(canonical_json)).collect();
    Arc::new(texts)
}

fn canonical_json(text: &str) -> String {
    type Raw = Box<serde_json::value::RawValue>;
    if let Ok(members) = serde_json::from_str::<BTreeMap<String, Raw>>(text) {
        let members = members.iter().map(|(name, value)| format!("{name:?}:{}", canonical_json(value.get())));
        return format!("{{{}}}", members.collect::<Vec<_>>().join(","));
    }
    if let Ok(items) = serde_json::from_str::<Vec<Raw>>(text) {
        let items = items.iter().map(|value| canonical_json(value.get()));
        return format!("[{}]", items.collect::<Vec<_>>().join(","));
    }
    match serde_json::from_str::<String>(text) {
        Ok(words) => format!("{words:?}"),
        // numbers by their text: two that print differently may differ past what a double holds
        Err(_) => text.to_owned(),
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
mod tests {
    use super::*;

    #[test]
    fn a_rows_hash_does_not_depend_on_the_rows_beside_it() {
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("b"), None]));
        let numbers: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![Some(1), Some(1), None, None]));
        let columns = [texts, numbers];
        let together = hashes(&columns, 4).unwrap();
        for (row, hash) in together.iter().enumerate() {
            let alone: Vec<ArrayRef> = columns.iter().map(|column| column.slice(row, 1)).collect();
            assert_eq!(hashes(&alone, 1).unwrap(), [*hash], "row {row}");
        }
        let distinct: std::collections::BTreeSet<u128> = together.iter().copied().collect();
        assert_eq!(distinct.len(), 4);
        // which of two columns is null
        let other: [ArrayRef; 2] = [Arc::clone(&columns[0]), Arc::clone(&columns[0])];
        let turned = |columns: &[ArrayRef; 2], at: usize| {
            let null: ArrayRef = arrow::array::new_null_array(columns[0].data_type(), 4);
            let mut columns = columns.clone();
            columns[at] = null;
            hashes(&columns, 4).unwrap()[0]
        };
        assert_ne!(turned(&other, 0), turned(&other, 1));
    }
}
