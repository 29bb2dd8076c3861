//! The one form in which a question's answer shows collections, whoever answers it: a set in order and each item once, a map
//! in the order of its keys, a list as it was written, and an empty collection as null.
//!
//! It is what Cassandra gives: sets and maps are kept in the order of their items and keys there, and an empty collection
//! can't be told from one that is absent. Gold is brought to it before a question is asked, so functions over collections
//! agree as well.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::DataFrame;

use crate::error::Result;
use crate::project::cql_type::CqlType;

/// A column of an answer in the form of its CQL type.
///
/// # Errors
/// `Data` where the column is no such collection.
pub fn column(kind: &CqlType, array: &ArrayRef) -> Result<ArrayRef> {
    match (kind, array.data_type()) {
        (CqlType::Set(_), DataType::List(field)) => {
            let list = array.as_list::<i32>();
            let sorted = in_order(list.values())?;
            let order = |mut items: Vec<u32>| {
                let row = |at: &u32| sorted.row(*at as usize);
                items.sort_by(|a, b| row(a).cmp(&row(b)));
                items.dedup_by(|a, b| row(a) == row(b));
                items
            };
            let (items, offsets, nulls) = rearranged(array, list.value_offsets(), order);
            let items = take(list.values(), &items, None)?;
            Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, items, nulls)?))
        }
        (CqlType::List(_), DataType::List(field)) => {
            let list = array.as_list::<i32>();
            let (items, offsets, nulls) = rearranged(array, list.value_offsets(), |items| items);
            let items = take(list.values(), &items, None)?;
            Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, items, nulls)?))
        }
        (CqlType::Map(..), DataType::Map(field, is_sorted)) => {
            let map = array.as_map();
            let sorted = in_order(map.keys())?;
            let order = |mut entries: Vec<u32>| {
                entries.sort_by(|a, b| sorted.row(*a as usize).cmp(&sorted.row(*b as usize)));
                entries
            };
            let (entries, offsets, nulls) = rearranged(array, map.value_offsets(), order);
            let pair = vec![take(map.keys(), &entries, None)?, take(map.values(), &entries, None)?];
            let entries = StructArray::try_new(map.entries().fields().clone(), pair, None)?;
            Ok(Arc::new(MapArray::try_new(Arc::clone(field), offsets, entries, nulls, *is_sorted)?))
        }
        _ => Ok(Arc::clone(array)),
    }
}

/// The values in a form that compares as Cassandra does: texts by their bytes, everything else by its value.
fn in_order(values: &ArrayRef) -> Result<Rows> {
    let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])?;
    Ok(converter.convert_columns(&[Arc::clone(values)])?)
}

/// Where the items of each row are to be taken from, where each row ends then, and which rows have none.
fn rearranged(
    array: &dyn Array,
    offsets: &[i32],
    order: impl Fn(Vec<u32>) -> Vec<u32>,
) -> (UInt32Array, OffsetBuffer<i32>, Option<NullBuffer>) {
    let bounds =
        |row: usize| -> Range<u32> { offsets[row].cast_unsigned()..offsets[row + 1].cast_unsigned() };
    let items = |row: usize| match array.is_null(row) {
        true => Vec::new(),
        false => order(bounds(row).collect()),
    };
    let rows: Vec<Vec<u32>> = (0..array.len()).map(items).collect();
    let nulls = NullBuffer::from_iter(rows.iter().map(|items| !items.is_empty()));
    let ends = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
    (rows.into_iter().flatten().collect(), ends, Some(nulls))
}

/// A mart's rows with their collections as they will be answered; `collections` are columns and their types.
///
/// # Errors
/// The query engine's.
pub fn rows(frame: DataFrame, collections: &[(String, CqlType)]) -> Result<DataFrame> {
    let kind = |name: &String| collections.iter().find(|(column, _)| column == name).map(|(_, kind)| kind);
    let names: Vec<String> = frame.schema().fields().iter().map(|field| field.name().clone()).collect();
    let columns = names.iter().map(|name| {
        let column = Expr::Column(Column::from_name(name));
        match kind(name) {
            Some(kind) => ScalarUDF::from(AsAnswered::new(kind)).call(vec![column]).alias(name),
            None => column,
        }
    });
    Ok(frame.select(columns.collect::<Vec<_>>())?)
}

/// [`column()`], for the query engine.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AsAnswered {
    kind: CqlType,
    signature: Signature,
}

impl AsAnswered {
    fn new(kind: &CqlType) -> Self {
        Self { kind: kind.clone(), signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for AsAnswered {
    fn name(&self) -> &'static str {
        "as_answered"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(arg_types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> datafusion::common::Result<ColumnarValue> {
        let array = args.args[0].to_array(args.number_rows)?;
        let answered = column(&self.kind, &array);
        Ok(ColumnarValue::Array(answered.map_err(|error| DataFusionError::Execution(error.to_string()))?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Builder, Int32Builder, ListBuilder, MapBuilder, StringViewBuilder};
    use arrow::util::display::{ArrayFormatter, FormatOptions};

    use super::*;

    fn shown(kind: &str, array: ArrayRef) -> Vec<String> {
        let array = column(&CqlType::parse(kind).unwrap(), &array).unwrap();
        let options = FormatOptions::new().with_null("∅");
        let formatter = ArrayFormatter::try_new(&array, &options).unwrap();
        (0..array.len()).map(|row| formatter.value(row).to_string()).collect()
    }

    #[test]
    fn sets_are_in_order_lists_as_written_and_empty_ones_null() {
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        lists.append_value([Some("b"), Some("é"), Some("a"), Some("b"), Some("B")]);
        lists.append_value(Vec::<Option<&str>>::new());
        lists.append_null();
        lists.append_value([Some("z"), Some("y")]);
        let lists: ArrayRef = Arc::new(lists.finish());
        assert_eq!(shown("set<text>", Arc::clone(&lists)), ["[B, a, b, é]", "∅", "∅", "[y, z]"]);
        assert_eq!(shown("frozen<set<text>>", lists.slice(3, 1)), ["[y, z]"]);
        assert_eq!(shown("list<text>", Arc::clone(&lists)), ["[b, é, a, b, B]", "∅", "∅", "[z, y]"]);
        assert_eq!(shown("list<text>", lists.slice(1, 3)), ["∅", "∅", "[z, y]"]);
    }

    #[test]
    fn maps_are_in_the_order_of_their_keys() {
        let mut maps = MapBuilder::new(None, Date32Builder::new(), Int32Builder::new());
        for (key, value) in [(20, 1), (-1, 2), (0, 3)] {
            maps.keys().append_value(key);
            maps.values().append_value(value);
        }
        maps.append(true).unwrap();
        maps.append(true).unwrap();
        maps.append(false).unwrap();
        let maps: ArrayRef = Arc::new(maps.finish());
        let expected = ["{1969-12-31: 2, 1970-01-01: 3, 1970-01-21: 1}", "∅", "∅"];
        assert_eq!(shown("map<date,int>", Arc::clone(&maps)), expected);
        assert_eq!(shown("map<date,int>", maps.slice(2, 1)), ["∅"]);
    }
}
