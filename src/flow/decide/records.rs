//! The bronze records that are decided: the columns that decide, in memory, and the landed content of those that share a key.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringViewArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Date32Type, Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use datafusion::common::TableReference;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::prelude::{SessionContext, col, ident};
use futures::{Stream, StreamExt};

use super::{Outcome, Place, quoted};
use crate::engine;
use crate::error::{Error, Result};
use crate::project::source::{Mode, Source};
use crate::zone;

/// The columns of bronze that decide, flattened over batches.
pub(super) struct Records {
    pub num_rows: usize,
    pub keys: Vec<u128>,
    pub files: Vec<Arc<str>>,
    known_files: HashMap<Arc<str>, u32>,
    pub file_of: Vec<u32>,
    pub lines: Vec<i64>,
    pub file_times: Vec<i64>,
    pub dates: Vec<i32>,
    pub batch_ids: Vec<i64>,
    /// Per money column.
    pub money: Vec<Vec<i128>>,
    /// Per rule, then per warning: the rows that it hits.
    pub hits: Vec<Vec<bool>>,
}

impl Records {
    pub fn new(source: &Source) -> Self {
        Records {
            num_rows: 0,
            keys: Vec::new(),
            files: Vec::new(),
            known_files: HashMap::new(),
            file_of: Vec::new(),
            lines: Vec::new(),
            file_times: Vec::new(),
            dates: Vec::new(),
            batch_ids: Vec::new(),
            money: vec![Vec::new(); source.money().count()],
            hits: vec![Vec::new(); source.rules.len() + source.warnings.len()],
        }
    }

    /// The columns that decide, of every bronze record, and the records' keys.
    pub async fn stream(
        context: &SessionContext,
        source: &Source,
    ) -> Result<impl Stream<Item = Result<(RecordBatch, Vec<u128>)>>> {
        let keys: Vec<String> = source.key().map(quoted).collect();
        let money = source.money().map(quoted).enumerate().map(|(at, name)| format!("{name} as money_{at}"));
        let rules = source.rules.iter().map(|rule| &rule.when);
        let whens = rules
            .chain(source.warnings.iter().map(|warning| &warning.when))
            .enumerate()
            .map(|(at, when)| format!("({when}) as hit_{at}"));
        let fixed = ["source_file", "source_line", "source_file_time", "date", "batch_id"];
        let columns: Vec<String> = keys
            .iter()
            .cloned()
            .chain(fixed.iter().map(|name| quoted(name)))
            .chain(money)
            .chain(whens)
            .collect();
        let query = format!("select {} from bronze.{}", columns.join(", "), quoted(&source.name));
        let (num_keys, mode) = (keys.len(), source.mode);
        let batches = context.sql(&query).await?.execute_stream().await?;
        Ok(batches.map(move |batch| {
            let batch = batch?;
            let mut key_columns: Vec<ArrayRef> = batch.columns()[..num_keys].to_vec();
            if mode == Mode::Events {
                key_columns.push(Arc::clone(batch.column(num_keys + 3)));
            }
            let keys = hashes(&key_columns, batch.num_rows())?;
            Ok((batch.project(&(num_keys..batch.num_columns()).collect::<Vec<_>>())?, keys))
        }))
    }

    /// Adds the records of a batch of [`Records::stream`] that are wanted.
    pub fn push_those(&mut self, batch: &RecordBatch, keys: &[u128], is_wanted: Vec<bool>) -> Result<()> {
        if !is_wanted.contains(&true) {
            return Ok(());
        }
        let keys = keys.iter().zip(&is_wanted).filter(|(_, is_wanted)| **is_wanted).map(|(key, _)| *key);
        let keys = keys.collect();
        self.push(&filter_record_batch(batch, &BooleanArray::from(is_wanted))?, keys);
        Ok(())
    }

    /// Adds the records of a batch of [`Records::stream`].
    pub fn push(&mut self, batch: &RecordBatch, keys: Vec<u128>) {
        self.keys.extend(keys);
        let num_rows = batch.num_rows();
        let column = |at: usize| batch.column(at);
        let files = column(0).as_string_view();
        let mut last: Option<(&str, u32)> = None;
        for row in 0..num_rows {
            let file = files.value(row);
            let id = match last {
                Some((name, id)) if name == file => id,
                _ => match self.known_files.get(file) {
                    Some(id) => *id,
                    None => {
                        let id = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
                        let name: Arc<str> = file.into();
                        self.files.push(Arc::clone(&name));
                        self.known_files.insert(name, id);
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
    }

    pub fn place(&self, row: usize) -> Place {
        (Arc::clone(&self.files[self.file_of[row] as usize]), self.lines[row])
    }

    fn file(&self, row: usize) -> &str {
        &self.files[self.file_of[row] as usize]
    }

    /// Rows that share a key, in the order in which they decide.
    pub fn groups_of_several(&self, mode: Mode, outcomes: &[Outcome]) -> Vec<Vec<usize>> {
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
    pub async fn contents(
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

/// What filters take of a key. Keys are hashes: a half of one is as good as all of it.
pub fn half(key: u128) -> i64 {
    key as i64
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
