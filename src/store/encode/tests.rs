//! The bytes of every type, by hand.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListBuilder,
    MapBuilder, StringViewArray, StringViewBuilder, TimestampMicrosecondArray,
};
use arrow::array::{Int32Builder, MapFieldNames};

use super::*;
use crate::project::cql;
use crate::store::rows::cells;

fn written(array: ArrayRef, kind: &str) -> Vec<Option<Vec<u8>>> {
    let kind = CqlType::parse(kind).unwrap();
    let column = Column::new(&array, &kind).unwrap();
    let mut encoded = Vec::new();
    for row in 0..array.len() {
        column.write(row, &mut encoded).unwrap();
    }
    cells(&encoded).map(|cell| cell.map(<[u8]>::to_vec)).collect()
}

fn hex(bytes: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        bytes.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    Some(digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect())
}

#[test]
fn scalars() {
    let texts = StringViewArray::from(vec![Some("a"), None, Some(""), Some("'; drop table x; --")]);
    let expected = vec![hex("61"), None, hex(""), Some(b"'; drop table x; --".to_vec())];
    assert_eq!(written(Arc::new(texts), "text"), expected);
    assert_eq!(written(Arc::new(BooleanArray::from(vec![true, false])), "boolean"), [hex("01"), hex("00")]);
    let ints = || Arc::new(Int32Array::from(vec![1, -1]));
    assert_eq!(written(ints(), "int"), [hex("00000001"), hex("ffffffff")]);
    assert_eq!(written(ints(), "bigint"), [hex("0000000000000001"), hex("ffffffffffffffff")]);
    assert_eq!(written(ints(), "varint"), [hex("01"), hex("ff")]);
    assert_eq!(written(Arc::new(Int64Array::from(vec![i64::MIN])), "bigint"), [hex("8000000000000000")]);
    assert_eq!(written(Arc::new(Float64Array::from(vec![1.5])), "double"), [hex("3ff8000000000000")]);
    assert_eq!(
        written(Arc::new(Date32Array::from(vec![0, -1, 20000])), "date"),
        [hex("80000000"), hex("7fffffff"), hex("80004e20")]
    );
    let times = TimestampMicrosecondArray::from(vec![1000, -1000]).with_timezone("UTC");
    assert_eq!(written(Arc::new(times), "timestamp"), [hex("0000000000000001"), hex("ffffffffffffffff")]);
}

#[test]
fn decimals_keep_their_scale_and_are_as_short_as_can_be() {
    let values = vec![0, 1, -1, 127, 128, -128, -129, 255, 256, i128::from(i64::MAX), -(10_i128.pow(37))];
    let array = Decimal128Array::from(values.clone()).with_precision_and_scale(38, 6).unwrap();
    let cells = written(Arc::new(array), "decimal");
    assert_eq!(cells[0], hex("0000000600"));
    assert_eq!(cells[2], hex("00000006ff"));
    assert_eq!(cells[3], hex("000000067f"));
    assert_eq!(cells[4], hex("000000060080"));
    assert_eq!(cells[5], hex("0000000680"));
    assert_eq!(cells[6], hex("00000006ff7f"));
    for (cell, value) in cells.iter().zip(values) {
        let bytes = &cell.as_ref().unwrap()[4..];
        let mut whole = if bytes[0] & 0x80 == 0 { [0; 16] } else { [0xff; 16] };
        whole[16 - bytes.len()..].copy_from_slice(bytes);
        assert_eq!(i128::from_be_bytes(whole), value);
    }
}

#[test]
fn collections_stand_in_cassandras_order_and_empty_ones_are_absent() {
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    lists.append_value([Some("b"), Some("a"), Some("b")]);
    lists.append_value(Vec::<Option<&str>>::new());
    let lists: ArrayRef = Arc::new(lists.finish());
    assert_eq!(written(Arc::clone(&lists), "set<text>"), [hex("00000002 00000001 61 00000001 62"), None]);
    assert_eq!(written(lists, "list<text>"), [hex("00000003 00000001 62 00000001 61 00000001 62"), None]);
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut maps = MapBuilder::new(Some(names), StringViewBuilder::new(), Int32Builder::new());
    maps.keys().append_value("z");
    maps.values().append_value(1);
    maps.keys().append_value("é");
    maps.values().append_value(-2);
    maps.append(true).unwrap();
    maps.append(true).unwrap();
    maps.append(false).unwrap();
    assert_eq!(
        written(Arc::new(maps.finish()), "map<text,int>"),
        [hex("00000002 00000001 7a 00000004 00000001 00000002 c3a9 00000004 fffffffe"), None, None]
    );
}

#[test]
fn what_cassandra_can_not_keep_is_refused() {
    let kind = CqlType::Timestamp;
    let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC"));
    let refused = Column::new(&array, &kind).unwrap().write(0, &mut Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("milliseconds"), "{refused}");
    let kind = CqlType::parse("set<text>").unwrap();
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    lists.append_value([None::<&str>]);
    let array: ArrayRef = Arc::new(lists.finish());
    let refused = Column::new(&array, &kind).unwrap().write(0, &mut Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("null"), "{refused}");
}

#[test]
fn negative_numbers_come_first() {
    assert!(
        in_order(&CqlType::Int, &[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], &[0, 0, 0, 4, 0, 0, 0, 1]).is_lt()
    );
    assert!(in_order(&CqlType::Text, &[0, 0, 0, 1, b'a'], &[0, 0, 0, 1, b'b']).is_lt());
}

/// A mart whose rows are written by `insert into t (…)`.
fn mart(columns: &str, key: &str, batch: &RecordBatch) -> Mart {
    let table = cql::parse_table(&format!("create table t ({columns}, primary key {key})")).unwrap();
    let names: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
    let (into, values) = (names.join(", "), names.join(", :"));
    let insert = cql::parse_insert(&format!(
        "insert into t ({into}) values (:{values}) using timestamp :committed_at"
    ));
    let at = |name: &String| table.columns.iter().position(|(column, _)| column == name).unwrap();
    Mart {
        name: "t".to_owned(),
        ddl: String::new(),
        insert: insert.unwrap(),
        schema: batch.schema(),
        types: table.columns.iter().map(|(_, kind)| CqlType::parse(kind).unwrap()).collect(),
        partition_key: table.partition_key.iter().map(at).collect(),
        clustering: table.clustering.iter().map(|(name, _)| at(name)).collect(),
        table,
    }
}

fn refused(columns: &str, key: &str, arrays: [(&str, ArrayRef); 3]) -> String {
    let batch = RecordBatch::try_from_iter_with_nullable(arrays.map(|(name, array)| (name, array, true)));
    let batch = batch.unwrap();
    let mut found = Partitions::default();
    let refused = gather(&mart(columns, key, &batch), &batch, TokenRange::ALL, None, &mut found);
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Data);
    error.to_string()
}

#[test]
fn a_row_that_can_not_be_kept_is_named_by_its_key() {
    let sites = || -> ArrayRef { Arc::new(StringViewArray::from(vec!["north", "south\u{1b}[2J"])) };
    let days = || -> ArrayRef { Arc::new(Date32Array::from(vec![Some(20_000), None])) };
    let times = || -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![1_000, 1_500_001]).with_timezone("UTC"))
    };
    let columns = "site text, day date, at timestamp";
    assert_eq!(
        refused(columns, "((site), day)", [("site", sites()), ("day", days()), ("at", times())]),
        "row site=south\\u{1b}[2J, day=null: its key `day` is null, which cassandra can't keep; mend the mart"
    );
    for key in ["((site), at)", "((site, at))"] {
        let told = refused(columns, key, [("site", sites()), ("day", days()), ("at", times())]);
        assert_eq!(
            told,
            "row site=south\\u{1b}[2J, at=1970-01-01T00:00:01.500001Z: column `at`: 1970-01-01T00:00:01.500001Z has \
             microseconds, and cassandra keeps milliseconds; cut it in the mart"
        );
    }
    let long = |length: usize| -> ArrayRef {
        Arc::new(StringViewArray::from(vec!["a".to_owned(), "x".repeat(length)]))
    };
    let columns = "site text, service text, note text";
    for (key, named) in [("((service), site)", "service"), ("((site), service)", "service")] {
        let told = refused(columns, key, [("site", sites()), ("service", long(70_000)), ("note", long(1))]);
        assert!(told.contains(&format!("its key `{named}` is longer than 64 KiB")), "{told}");
        assert!(told.len() < 300, "{} bytes", told.len());
    }
}

#[test]
fn a_map_with_a_key_twice_is_refused() {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut maps = MapBuilder::new(Some(names), StringViewBuilder::new(), Int32Builder::new());
    for value in [1, 2] {
        maps.keys().append_value("a");
        maps.values().append_value(value);
    }
    maps.append(true).unwrap();
    let array: ArrayRef = Arc::new(maps.finish());
    let kind = CqlType::parse("map<text,int>").unwrap();
    let refused = Column::new(&array, &kind).unwrap().write(0, &mut Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("a key twice"), "{refused}");
}
