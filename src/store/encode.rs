//! From Arrow columns to the CQL protocol's values, once per row and without anything in between.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array,
    Int64Array, ListArray, MapArray, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow::util::display::array_value_to_string;

use super::rows::{Partitions, TokenRange, UNSET, clustering_fault, key_fault, token};
use crate::decode::excerpt;
use crate::error::{Error, Result};
use crate::project::cql_type::CqlType;
use crate::project::mart::Mart;

/// The values of one column, ready to be written.
enum Values<'a> {
    Text(&'a StringViewArray),
    Boolean(&'a BooleanArray),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array, i32),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    List(&'a ListArray, Box<Column<'a>>),
    Map(&'a MapArray, Box<Column<'a>>, Box<Column<'a>>),
}

/// One column and the CQL type that it is written as.
struct Column<'a> {
    values: Values<'a>,
    array: &'a dyn Array,
    kind: &'a CqlType,
}

impl<'a> Column<'a> {
    fn new(array: &'a ArrayRef, kind: &'a CqlType) -> Result<Self> {
        let refused =
            || Error::bug(format!("a column of `{}` can't be written as `{kind}`", array.data_type()));
        let values = match (array.data_type(), kind) {
            (DataType::Utf8View, CqlType::Text) => Values::Text(array.as_string_view()),
            (DataType::Boolean, CqlType::Boolean) => Values::Boolean(array.as_boolean()),
            (DataType::Int32, _) => Values::Int32(array.as_primitive::<Int32Type>()),
            (DataType::Int64, _) => Values::Int64(array.as_primitive::<Int64Type>()),
            (DataType::Float64, CqlType::Double) => Values::Float64(array.as_primitive::<Float64Type>()),
            (DataType::Decimal128(_, scale), CqlType::Decimal) => {
                Values::Decimal(array.as_primitive::<Decimal128Type>(), i32::from(*scale))
            }
            (DataType::Date32, CqlType::Date) => Values::Date(array.as_primitive::<Date32Type>()),
            (DataType::Timestamp(_, _), CqlType::Timestamp) => {
                let micros = array.as_primitive_opt::<TimestampMicrosecondType>();
                Values::Timestamp(micros.ok_or_else(refused)?)
            }
            (DataType::List(_), CqlType::List(item) | CqlType::Set(item)) => {
                let list = array.as_list::<i32>();
                Values::List(list, Box::new(Column::new(list.values(), item)?))
            }
            (DataType::Map(_, _), CqlType::Map(key, value)) => {
                let map = array.as_map();
                let keys = Column::new(map.keys(), key)?;
                Values::Map(map, Box::new(keys), Box::new(Column::new(map.values(), value)?))
            }
            _ => return Err(refused()),
        };
        Ok(Self { values, array: array.as_ref(), kind })
    }

    /// Appends the value of a row: its length and its bytes.
    fn write(&self, row: usize, into: &mut Vec<u8>) -> Result<()> {
        if self.array.is_null(row) {
            into.extend_from_slice(&UNSET.to_be_bytes());
            return Ok(());
        }
        let start = into.len();
        into.extend_from_slice(&[0; 4]);
        match &self.values {
            Values::Text(values) => into.extend_from_slice(values.value(row).as_bytes()),
            Values::Boolean(values) => into.push(u8::from(values.value(row))),
            Values::Int32(values) => write_integer(i64::from(values.value(row)), self.kind, into),
            Values::Int64(values) => write_integer(values.value(row), self.kind, into),
            Values::Float64(values) => into.extend_from_slice(&values.value(row).to_be_bytes()),
            Values::Decimal(values, scale) => {
                into.extend_from_slice(&scale.to_be_bytes());
                write_varint(values.value(row), into);
            }
            Values::Date(values) => {
                // days since the epoch, which is the middle of an unsigned integer
                let days = values.value(row).cast_unsigned() ^ (1 << 31);
                into.extend_from_slice(&days.to_be_bytes());
            }
            Values::Timestamp(values) => {
                let micros = values.value(row);
                if micros % 1000 != 0 {
                    return Err(Error::data(format!(
                        "{} has microseconds, and cassandra keeps milliseconds; cut it in the mart",
                        shown(self.array, row)
                    )));
                }
                into.extend_from_slice(&(micros / 1000).to_be_bytes());
            }
            Values::List(lists, items) => {
                let offsets = lists.value_offsets();
                let range = index(offsets[row])..index(offsets[row + 1]);
                if write_items(range, items, matches!(self.kind, CqlType::Set(_)), into)? == 0 {
                    return unset(start, into);
                }
            }
            Values::Map(maps, keys, values) => {
                let offsets = maps.value_offsets();
                let range = index(offsets[row])..index(offsets[row + 1]);
                if range.is_empty() {
                    return unset(start, into);
                }
                write_entries(range, keys, values, into)?;
            }
        }
        let length = i32::try_from(into.len() - start - 4)
            .map_err(|_| Error::data("a value is longer than 2 GiB, which cassandra can't keep"))?;
        into[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

fn index(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

/// Cassandra keeps no empty collections: it reads them as absent.
fn unset(start: usize, into: &mut Vec<u8>) -> Result<()> {
    into.truncate(start);
    into.extend_from_slice(&UNSET.to_be_bytes());
    Ok(())
}

fn write_integer(value: i64, kind: &CqlType, into: &mut Vec<u8>) {
    match kind {
        // the types were compared: the value fits
        CqlType::Int => into.extend_from_slice(&i32::try_from(value).unwrap_or_default().to_be_bytes()),
        CqlType::Varint => write_varint(i128::from(value), into),
        _ => into.extend_from_slice(&value.to_be_bytes()),
    }
}

/// The shortest two's complement.
fn write_varint(value: i128, into: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    let sign = if value < 0 { 0xff } else { 0 };
    let is_redundant = |pair: &[u8]| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0;
    let skipped = bytes.windows(2).take_while(|pair| is_redundant(pair)).count();
    into.extend_from_slice(&bytes[skipped..]);
}

/// Writes a list's items, a set's in order and once; says how many.
fn write_items(
    range: std::ops::Range<usize>,
    items: &Column<'_>,
    is_set: bool,
    into: &mut Vec<u8>,
) -> Result<usize> {
    let mut written = Vec::with_capacity(range.len());
    for at in range {
        written.push(collection_value(items, at)?);
    }
    if is_set {
        written.sort_by(|a, b| in_order(items.kind, a, b));
        written.dedup();
    }
    into.extend_from_slice(&i32::try_from(written.len()).unwrap_or(i32::MAX).to_be_bytes());
    for item in &written {
        into.extend_from_slice(item);
    }
    Ok(written.len())
}

fn write_entries(
    range: std::ops::Range<usize>,
    keys: &Column<'_>,
    values: &Column<'_>,
    into: &mut Vec<u8>,
) -> Result<()> {
    let mut written = Vec::with_capacity(range.len());
    for at in range {
        written.push((collection_value(keys, at)?, collection_value(values, at)?));
    }
    written.sort_by(|a, b| in_order(keys.kind, &a.0, &b.0));
    if written.windows(2).any(|two| two[0].0 == two[1].0) {
        return Err(Error::data("a map has a key twice, which cassandra can't keep; mend the mart"));
    }
    into.extend_from_slice(&i32::try_from(written.len()).unwrap_or(i32::MAX).to_be_bytes());
    for (key, value) in &written {
        into.extend_from_slice(key);
        into.extend_from_slice(value);
    }
    Ok(())
}

/// An item with its length.
fn collection_value(items: &Column<'_>, at: usize) -> Result<Vec<u8>> {
    if items.array.is_null(at) {
        return Err(Error::data(
            "a list or map holds null, which cassandra can't keep; leave such entries out in the mart",
        ));
    }
    let mut item = Vec::new();
    items.write(at, &mut item)?;
    Ok(item)
}

/// Cassandra's order of two encoded values: by bytes; the first of a signed number is turned.
fn in_order(kind: &CqlType, a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let (a, b) = (a.get(4..).unwrap_or_default(), b.get(4..).unwrap_or_default());
    match kind {
        CqlType::Int | CqlType::BigInt | CqlType::Timestamp => {
            let turned = |bytes: &[u8]| bytes.first().map(|first| first ^ 0x80);
            turned(a).cmp(&turned(b)).then_with(|| a.cmp(b))
        }
        _ => a.cmp(b),
    }
}

/// Whether the partition of this encoded key is asked for.
pub type IsWanted<'a> = dyn Fn(&[u8]) -> bool + Sync + 'a;

/// Encodes the rows of a mart and gathers them by partition: those whose key is `wanted` and whose token is in `range`.
///
/// # Errors
/// `Data` where a key is null or empty, or a value can't be kept.
pub fn gather(
    mart: &Mart,
    batch: &RecordBatch,
    range: TokenRange,
    wanted: Option<&IsWanted<'_>>,
    into: &mut Partitions,
) -> Result<()> {
    let mut columns = Vec::with_capacity(mart.types.len());
    for ((_, name), kind) in mart.insert.values.iter().zip(&mart.types) {
        let array = batch
            .column_by_name(name)
            .ok_or_else(|| Error::bug(format!("`{}` lost its column `{name}`", mart.gold())))?;
        columns.push(Column::new(array, kind)?);
    }
    let key_columns: Vec<usize> = mart.partition_key.iter().chain(&mart.clustering).copied().collect();
    let with_nulls: Vec<usize> =
        key_columns.iter().filter(|at| columns[**at].array.null_count() > 0).copied().collect();
    let of_row = |row: usize| {
        let values = key_columns
            .iter()
            .map(|at| format!("{}={}", mart.insert.values[*at].0, shown(columns[*at].array, row)));
        format!("row {}", values.collect::<Vec<_>>().join(", "))
    };
    let write = |at: usize, row: usize, into: &mut Vec<u8>| {
        columns[at].write(row, into).map_err(|error| {
            error.during(format!("column `{}`", mart.insert.values[at].0)).during(of_row(row))
        })
    };
    let (mut row_bytes, mut key) = (Vec::new(), Vec::new());
    for row in 0..batch.num_rows() {
        key.clear();
        for at in &mart.partition_key {
            write(*at, row, &mut key)?;
        }
        if wanted.is_some_and(|wanted| !wanted(&key))
            || (range != TokenRange::ALL && !range.contains(token(&key)))
        {
            continue;
        }
        if let Some(at) = with_nulls.iter().find(|at| columns[**at].array.is_null(row)) {
            return Err(wrong_key(&mart.insert.values[*at].0, "null").during(of_row(row)));
        }
        if let Some(fault) = key_fault(&key) {
            return Err(wrong_key(&mart.table.partition_key.join(", "), fault).during(of_row(row)));
        }
        row_bytes.clear();
        for at in 0..columns.len() {
            write(at, row, &mut row_bytes)?;
        }
        if let Some(fault) = clustering_fault(mart, &row_bytes) {
            let names: Vec<&str> = mart.table.clustering.iter().map(|(name, _)| name.as_str()).collect();
            return Err(wrong_key(&names.join(", "), fault).during(of_row(row)));
        }
        into.push(&key, &row_bytes);
    }
    Ok(())
}

fn wrong_key(columns: &str, what: &str) -> Error {
    Error::data(format!("its key `{columns}` is {what}, which cassandra can't keep; mend the mart"))
}

/// A value for a message: short, and without control characters.
fn shown(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "null".to_owned();
    }
    excerpt(&array_value_to_string(array, row).unwrap_or_default())
}

/// Appends a parameter of a question, as the type that the store wants.
///
/// # Errors
/// `Usage` where the value does not fit.
pub fn scalar(value: &datafusion::common::ScalarValue, kind: &CqlType, into: &mut Vec<u8>) -> Result<()> {
    let wanted = match kind {
        CqlType::Text => DataType::Utf8View,
        CqlType::Boolean => DataType::Boolean,
        CqlType::Int => DataType::Int32,
        CqlType::BigInt | CqlType::Varint => DataType::Int64,
        CqlType::Double => DataType::Float64,
        CqlType::Date => DataType::Date32,
        CqlType::Timestamp => {
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))
        }
        CqlType::Decimal => match value.data_type() {
            decimal @ DataType::Decimal128(_, _) => decimal,
            _ => DataType::Decimal128(38, 9),
        },
        CqlType::List(_) | CqlType::Set(_) | CqlType::Map(_, _) => {
            return Err(Error::project(format!("a parameter can't be a `{kind}`")));
        }
    };
    let options = arrow::compute::CastOptions { safe: false, ..arrow::compute::CastOptions::default() };
    let array = arrow::compute::cast_with_options(&value.to_array()?, &wanted, &options)
        .map_err(|error| Error::usage(format!("`{value}` is no `{kind}`")).because(error))?;
    // of what is more exact than Cassandra
    let unfit = |_| Error::usage(format!("`{value}` does not fit cassandra's `{kind}`"));
    Column::new(&array, kind)?.write(0, into).map_err(unfit)
}

#[cfg(test)]
mod tests;
