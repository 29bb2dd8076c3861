//! From the CQL protocol's values back to Arrow, in the types that gold has.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray,
    MapArray, StringViewArray, StructArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;

use crate::error::{Error, Result};
use crate::project::cql_type::CqlType;
use crate::type_name::type_name;

/// A value of an answer.
type Cell<'a> = Option<&'a [u8]>;

/// Values of one CQL type as a column.
///
/// # Errors
/// `Data` where a value does not fit the column's type.
pub fn column(kind: &CqlType, data_type: &DataType, values: &[Cell<'_>]) -> Result<ArrayRef> {
    let refused = || {
        Error::data(format!(
            "a `{kind}` of cassandra does not fit the column's type `{}`",
            type_name(data_type)
        ))
    };
    let each =
        || values.iter().map(|value| value.filter(|bytes| !bytes.is_empty() || *kind == CqlType::Text));
    Ok(match (data_type, kind) {
        (DataType::Utf8View, CqlType::Text) => {
            let texts = each().map(|value| value.map(std::str::from_utf8).transpose());
            let texts: StringViewArray =
                texts.collect::<std::result::Result<_, _>>().map_err(|_| refused())?;
            Arc::new(texts)
        }
        (DataType::Boolean, CqlType::Boolean) => {
            Arc::new(each().map(|value| value.map(|bytes| bytes != [0])).collect::<BooleanArray>())
        }
        (DataType::Int32, _) => {
            let numbers = each().map(|value| {
                value
                    .map(|bytes| i32::try_from(integer(kind, bytes)?).ok())
                    .map(|n| n.ok_or_else(refused))
                    .transpose()
            });
            Arc::new(numbers.collect::<Result<Int32Array>>()?)
        }
        (DataType::Int64, _) => {
            let numbers = each().map(|value| {
                value
                    .map(|bytes| i64::try_from(integer(kind, bytes)?).ok())
                    .map(|n| n.ok_or_else(refused))
                    .transpose()
            });
            Arc::new(numbers.collect::<Result<Int64Array>>()?)
        }
        (DataType::Float64, CqlType::Double) => {
            let numbers = each().map(|value| {
                value.map(|bytes| bytes.try_into().map(f64::from_be_bytes).map_err(|_| refused())).transpose()
            });
            Arc::new(numbers.collect::<Result<Float64Array>>()?)
        }
        (DataType::Decimal128(precision, scale), CqlType::Decimal) => {
            let numbers = each().map(|value| {
                value.map(|bytes| decimal(bytes, i32::from(*scale)).ok_or_else(refused)).transpose()
            });
            let numbers = numbers.collect::<Result<Decimal128Array>>()?;
            numbers.validate_decimal_precision(*precision)?;
            Arc::new(numbers.with_precision_and_scale(*precision, *scale)?)
        }
        (DataType::Date32, CqlType::Date) => {
            let days = each().map(|value| {
                value
                    .map(|bytes| {
                        let days = bytes.try_into().map(u32::from_be_bytes).map_err(|_| refused())?;
                        Ok((days ^ (1 << 31)).cast_signed())
                    })
                    .transpose()
            });
            Arc::new(days.collect::<Result<Date32Array>>()?)
        }
        (DataType::Timestamp(_, zone), CqlType::Timestamp) => {
            let times = each().map(|value| {
                value
                    .map(|bytes| i64::try_from(integer(kind, bytes)? * 1000).ok())
                    .map(|n| n.ok_or_else(refused))
                    .transpose()
            });
            let times = times.collect::<Result<TimestampMicrosecondArray>>()?;
            Arc::new(times.with_timezone_opt(zone.clone()))
        }
        (DataType::List(field), CqlType::List(item) | CqlType::Set(item)) => {
            let (items, offsets) = collections(values, 1).ok_or_else(refused)?;
            let items = column(item, field.data_type(), &items)?;
            Arc::new(ListArray::try_new(Arc::clone(field), offsets, items, None)?)
        }
        (DataType::Map(field, _), CqlType::Map(key, value)) => {
            let DataType::Struct(pair) = field.data_type() else {
                return Err(refused());
            };
            let (both, offsets) = collections(values, 2).ok_or_else(refused)?;
            let keys: Vec<Cell<'_>> = both.iter().step_by(2).copied().collect();
            let entries: Vec<Cell<'_>> = both.iter().skip(1).step_by(2).copied().collect();
            let columns =
                vec![column(key, pair[0].data_type(), &keys)?, column(value, pair[1].data_type(), &entries)?];
            let entries = StructArray::try_new(pair.clone(), columns, None)?;
            Arc::new(MapArray::try_new(Arc::clone(field), offsets, entries, None, false)?)
        }
        (DataType::Null, _) => new_null_array(data_type, values.len()),
        _ => return Err(refused()),
    })
}

/// A whole number of any length that is used.
fn integer(kind: &CqlType, bytes: &[u8]) -> Option<i128> {
    matches!(kind, CqlType::Int | CqlType::BigInt | CqlType::Varint | CqlType::Timestamp).then_some(())?;
    let filler = if bytes.first().is_some_and(|first| first & 0x80 != 0) { 0xff } else { 0 };
    let mut whole = [filler; 16];
    let start = whole.len().checked_sub(bytes.len())?;
    whole[start..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(whole))
}

/// A decimal at the wanted scale, if it can be had exactly.
fn decimal(bytes: &[u8], wanted: i32) -> Option<i128> {
    let (scale, digits) = bytes.split_first_chunk::<4>()?;
    let value = integer(&CqlType::Varint, digits)?;
    let power = |exponent: i32| 10_i128.checked_pow(exponent.unsigned_abs());
    match wanted.checked_sub(i32::from_be_bytes(*scale))? {
        0 => Some(value),
        more @ 1.. => value.checked_mul(power(more)?),
        less => {
            let divisor = power(less)?;
            (value % divisor == 0).then(|| value / divisor)
        }
    }
}

/// The items of collections one after another, and where each collection ends; absent ones are empty.
fn collections<'a>(values: &[Cell<'a>], per_entry: usize) -> Option<(Vec<Cell<'a>>, OffsetBuffer<i32>)> {
    let mut items = Vec::new();
    let mut lengths = Vec::with_capacity(values.len());
    for value in values {
        let Some(bytes) = value else {
            lengths.push(0);
            continue;
        };
        let (number, mut rest) = bytes.split_first_chunk::<4>()?;
        let number = usize::try_from(i32::from_be_bytes(*number)).ok()?;
        lengths.push(number);
        for _ in 0..number * per_entry {
            let (length, behind) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
            let (item, behind) = behind.split_at_checked(length)?;
            items.push(Some(item));
            rest = behind;
        }
    }
    Some((items, OffsetBuffer::from_lengths(lengths)))
}

/// A value for people.
pub fn show(kind: &CqlType, value: Cell<'_>) -> String {
    let Some(bytes) = value else {
        return "null".to_owned();
    };
    let natural = match kind {
        CqlType::Text => DataType::Utf8View,
        CqlType::Boolean => DataType::Boolean,
        CqlType::Int => DataType::Int32,
        CqlType::BigInt => DataType::Int64,
        CqlType::Double => DataType::Float64,
        CqlType::Date => DataType::Date32,
        CqlType::Decimal => {
            let scale = bytes.split_first_chunk::<4>().map_or(0, |(scale, _)| i32::from_be_bytes(*scale));
            DataType::Decimal128(38, i8::try_from(scale).unwrap_or(0))
        }
        CqlType::Timestamp => {
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))
        }
        CqlType::Varint => {
            return integer(kind, bytes).map_or_else(|| show_bytes(bytes), |number| number.to_string());
        }
        CqlType::List(_) | CqlType::Set(_) | CqlType::Map(_, _) => {
            return entries(kind, bytes)
                .map_or_else(|| show_bytes(bytes), |found| show_entries(kind, &found));
        }
    };
    let shown = column(kind, &natural, &[value]).and_then(|array| Ok(array_value_to_string(&array, 0)?));
    shown.unwrap_or_else(|_| show_bytes(bytes))
}

/// Two values of a column that differ, for people: of a set or map, the items that only one of them has.
pub fn show_difference(kind: &CqlType, gold: Cell<'_>, store: Cell<'_>) -> String {
    let sides = match (kind, gold, store) {
        (CqlType::Set(_) | CqlType::Map(_, _), Some(gold), Some(store)) => {
            entries(kind, gold).zip(entries(kind, store))
        }
        _ => None,
    };
    let Some((gold_entries, store_entries)) = sides else {
        return format!("{} in gold, {} in the store", show(kind, gold), show(kind, store));
    };
    let only = |here: &[Entry<'_>], there: &[Entry<'_>], place: &str| {
        let only: Vec<Entry<'_>> = here.iter().filter(|entry| !there.contains(entry)).copied().collect();
        (!only.is_empty()).then(|| format!("{} only in {place}", show_entries(kind, &only)))
    };
    let gold = only(&gold_entries, &store_entries, "gold");
    let store = only(&store_entries, &gold_entries, "the store");
    gold.into_iter().chain(store).collect::<Vec<_>>().join(", ")
}

/// An item of a list or set, or a key of a map; and the key's value.
type Entry<'a> = (Cell<'a>, Cell<'a>);

fn entries<'a>(kind: &CqlType, bytes: &'a [u8]) -> Option<Vec<Entry<'a>>> {
    let is_map = matches!(kind, CqlType::Map(_, _));
    let (items, _) = collections(&[Some(bytes)], if is_map { 2 } else { 1 })?;
    Some(match is_map {
        true => items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(),
        false => items.into_iter().map(|item| (item, None)).collect(),
    })
}

fn show_entries(kind: &CqlType, entries: &[Entry<'_>]) -> String {
    let joined =
        |show: &dyn Fn(&Entry<'_>) -> String| entries.iter().map(show).collect::<Vec<_>>().join(", ");
    match kind {
        CqlType::List(item) | CqlType::Set(item) => format!("[{}]", joined(&|entry| show(item, entry.0))),
        CqlType::Map(key, value) => {
            format!("{{{}}}", joined(&|entry| format!("{}: {}", show(key, entry.0), show(value, entry.1))))
        }
        _ => String::new(),
    }
}

/// The entries of a `map<text, text>`.
pub fn text_entries(bytes: &[u8]) -> Option<BTreeMap<String, String>> {
    let kind = CqlType::Map(Box::new(CqlType::Text), Box::new(CqlType::Text));
    let text = |cell: Cell<'_>| String::from_utf8_lossy(cell.unwrap_or_default()).into_owned();
    Some(entries(&kind, bytes)?.into_iter().map(|(key, value)| (text(key), text(value))).collect())
}

/// What can't be read is told by its bytes.
fn show_bytes(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_graphic).collect();
    format!("{} bytes `{shown:.80}`", bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_brought_to_scale_exactly_or_not_at_all() {
        assert_eq!(decimal(&[0, 0, 0, 6, 0x7f], 6), Some(127));
        assert_eq!(decimal(&[0, 0, 0, 0, 0xff], 2), Some(-100));
        assert_eq!(decimal(&[0, 0, 0, 2, 100], 0), Some(1));
        assert_eq!(decimal(&[0, 0, 0, 2, 101], 0), None);
        assert_eq!(decimal(&[0, 0], 0), None);
    }

    #[test]
    fn damaged_values_are_refused() {
        for (kind, data_type, bytes) in [
            (CqlType::Text, DataType::Utf8View, &[0xff][..]),
            (CqlType::BigInt, DataType::Int32, &[0, 0, 0, 1, 0, 0, 0, 0]),
            (CqlType::Double, DataType::Float64, &[1]),
            (CqlType::Text, DataType::Int32, &[1]),
        ] {
            assert!(column(&kind, &data_type, &[Some(bytes)]).is_err(), "{kind}");
        }
    }

    #[test]
    fn shows_values() {
        assert_eq!(show(&CqlType::Date, Some(&[0x80, 0, 0, 0])), "1970-01-01");
        assert_eq!(show(&CqlType::Decimal, Some(&[0, 0, 0, 2, 0xff])), "-0.01");
        assert_eq!(show(&CqlType::Int, None), "null");
        assert_eq!(show(&CqlType::Varint, Some(&[0xff])), "-1");
        let (set, map) = (CqlType::parse("set<text>").unwrap(), CqlType::parse("map<text, int>").unwrap());
        let (ab, bc) = (collection(2, &[b"a", b"b"]), collection(2, &[b"b", b"c"]));
        assert_eq!(show(&set, Some(&ab)), "[a, b]");
        assert_eq!(show(&set, Some(&[0, 0, 0, 9])), "4 bytes ``");
        assert_eq!(show_difference(&set, Some(&ab), Some(&bc)), "[a] only in gold, [c] only in the store");
        assert_eq!(show_difference(&set, Some(&ab), None), "[a, b] in gold, null in the store");
        let one = collection(2, &[b"a", &[0, 0, 0, 1], b"b", &[0, 0, 0, 2]]);
        let two = collection(1, &[b"a", &[0, 0, 0, 1]]);
        assert_eq!(show(&map, Some(&one)), "{a: 1, b: 2}");
        assert_eq!(show_difference(&map, Some(&one), Some(&two)), "{b: 2} only in gold");
    }

    fn collection(number: i32, items: &[&[u8]]) -> Vec<u8> {
        let mut bytes = number.to_be_bytes().to_vec();
        for item in items {
            bytes.extend(i32::try_from(item.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(item);
        }
        bytes
    }
}
