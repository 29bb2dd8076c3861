use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

use super::*;

const MODIFIED: i64 = 1_756_000_000_000_000; // 2025-08-24T01:46:40Z
const DAY: i64 = 86_400_000_000;

fn layout(format: Format) -> Layout {
    let columns = [
        ("id", "text"),
        ("at", "timestamp"),
        ("org", "text"),
        ("cost", "decimal(18,6)"),
        ("note", "text"),
        ("count", "int"),
        ("ratio", "double"),
        ("ok", "boolean"),
        ("day", "date"),
        ("big", "bigint"),
    ];
    Layout {
        format,
        columns: columns.map(|(name, ty)| Column { name: name.to_owned(), ty: ty.parse().unwrap() }).to_vec(),
        key: vec![0],
        required: vec![1, 2, 3],
        partition: 1,
        event_time: Some(1),
        future_limit_micros: DAY,
        money: vec![3],
        max_line_bytes: 4096,
        max_depth: 64,
    }
}

fn decode<'a>(layout: Layout, pushes: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = Decoder::new(Arc::new(layout), MODIFIED);
    pushes.into_iter().for_each(|bytes| decoder.push(bytes));
    decoder.finish();
    let decoded = decoder.take().unwrap();
    assert_eq!(decoded.landed, decoded.batch.num_rows() as u64 + decoded.rejects.len() as u64);
    decoded
}

fn jsonl(text: &str) -> Decoded {
    decode(layout(Format::Jsonl), [text.as_bytes()])
}

fn csv(text: &str) -> Decoded {
    decode(layout(Format::Csv), [text.as_bytes()])
}

/// A row as text, column by column; null is `-`.
fn row(decoded: &Decoded, row: usize) -> Vec<String> {
    let shown = |array: &Arc<dyn Array>| match array.as_primitive_opt::<TimestampMicrosecondType>() {
        _ if array.is_null(row) => "-".to_owned(),
        Some(instants) => format!("{:?}Z", instants.value_as_datetime(row).unwrap()),
        None => array_value_to_string(array, row).unwrap(),
    };
    decoded.batch.columns().iter().map(shown).collect()
}

fn rescued(decoded: &Decoded) -> Option<&str> {
    let column = decoded.batch.column_by_name("_rescued").unwrap().as_string_view();
    column.is_valid(0).then(|| column.value(0))
}

/// One event with its required fields, and `more` members.
fn event(more: &str) -> String {
    format!(r#"{{"id":"e1","at":"2025-08-17T01:55:00Z","org":"o1","cost":1.5{more}}}"#)
}

#[test]
fn the_schema_is_the_declared_columns_and_three_more() {
    let schema = layout(Format::Csv).schema();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(
        names,
        [
            "id",
            "at",
            "org",
            "cost",
            "note",
            "count",
            "ratio",
            "ok",
            "day",
            "big",
            "source_line",
            "_rescued",
            "date"
        ]
    );
    assert_eq!(schema.field(1).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(schema.field(12).data_type(), &DataType::Date32);
    assert_eq!(jsonl("").batch.schema(), schema);
}

#[test]
fn a_json_line_becomes_a_typed_row() {
    let decoded = jsonl(&event(
        r#","note":"a\u0062\n","count":"12.0","ratio":0.1,"ok":true,"day":"2025-08-17","big":9007199254740993"#,
    ));
    assert_eq!(
        row(&decoded, 0),
        [
            "e1",
            "2025-08-17T01:55:00Z",
            "o1",
            "1.500000",
            "ab\n",
            "12",
            "0.1",
            "true",
            "2025-08-17",
            "9007199254740993",
            "1",
            "-",
            "2025-08-17"
        ]
    );
    assert_eq!((decoded.money, decoded.warnings.len()), (vec![1_500_000], 0));
}

#[test]
fn fields_may_come_in_any_order_and_escaped() {
    let decoded = jsonl(
        r#" { "cost" : "-1.5e0" , "o\u0072g":"o1","at":"2025-08-17T03:55:00+02:00","\u0069d":"\u0065é" } "#,
    );
    assert_eq!(row(&decoded, 0)[..4], ["eé", "2025-08-17T01:55:00Z", "o1", "-1.500000"]);
}

#[test]
fn missing_nullable_fields_are_null() {
    let decoded = jsonl(&event(r#","note":"","count":"","ratio":null,"ok":"","day":"""#));
    assert_eq!(row(&decoded, 0)[4..], ["", "-", "-", "-", "-", "-", "1", "-", "2025-08-17"]);
    assert!(decoded.warnings.is_empty());
}

#[test]
fn what_does_not_parse_or_is_not_declared_is_rescued() {
    let cases = [
        (r#","note":7"#, r#"{"note":7}"#, 1),
        (r#","note":{"a": [1]}"#, r#"{"note":{"a": [1]}}"#, 1),
        (r#","count":"tw\u0065lve""#, r#"{"count":"tw\u0065lve"}"#, 1),
        (r#","count":true"#, r#"{"count":true}"#, 1),
        (r#","ratio":[]"#, r#"{"ratio":[]}"#, 1),
        (r#","ok":1"#, r#"{"ok":1}"#, 1),
        (r#","day":"2025-02-30""#, r#"{"day":"2025-02-30"}"#, 1),
        (r#","day":20250230"#, r#"{"day":20250230}"#, 1),
        (r#","extra":null,"count":"x","\u0065x":1.50"#, r#"{"extra":null,"count":"x","\u0065x":1.50}"#, 1),
        (r#","extra":{"b": 1e999, "a":"é"}"#, r#"{"extra":{"b": 1e999, "a":"é"}}"#, 0),
        (
            r#","source_line":"7","date":"x","_rescued":{}"#,
            r#"{"source_line":"7","date":"x","_rescued":{}}"#,
            0,
        ),
    ];
    for (more, expected, warnings) in cases {
        let decoded = jsonl(&event(more));
        assert_eq!(rescued(&decoded), Some(expected));
        serde_json::from_str::<serde_json::Value>(&expected.replace("1e999", "1")).unwrap();
        assert_eq!(decoded.warnings.values().sum::<u64>(), warnings, "{more}");
    }
    assert_eq!(jsonl(&event(r#","count":"x""#)).warnings, BTreeMap::from([("count".to_owned(), 1)]));
}

#[test]
fn the_first_error_that_applies_is_named() {
    use ErrorType::*;
    let cases = [
        (
            r#"{"id":"","at":"x","org":"","cost":1e99}"#,
            MissingKey,
            "id",
            "key column `id` is null, absent or empty",
        ),
        (
            r#"{"id":null,"at":"2025-08-17T00:00:00Z","org":"o","cost":1}"#,
            MissingKey,
            "id",
            "key column `id` is null, absent or empty",
        ),
        (
            r#"{"id":"e","at":"x","cost":1}"#,
            MissingRequired,
            "org",
            "required column `org` is null, absent or empty",
        ),
        (
            r#"{"id":"e","org":"","cost":""}"#,
            MissingRequired,
            "at",
            "required column `at` is null, absent or empty",
        ),
        (
            r#"{"id":"e","at":"x\u001b","org":"o","cost":"y"}"#,
            BadType,
            "at",
            "`at` is not a timestamp: `x\\u{1b}`",
        ),
        (
            r#"{"cost":"12,5","id":7,"at":"2025-08-17T00:00:00Z","org":"o"}"#,
            BadType,
            "id",
            "`id` is not a text: `7`",
        ),
        (
            r#"{"id":"e","at":"2025-08-17T00:00:00Z","org":["o"],"cost":1}"#,
            BadType,
            "org",
            "`org` is not a text: `[\"o\"]`",
        ),
        (
            r#"{"id":"e","at":"2025-08-17T00:00:00Z","org":"o","cost":true}"#,
            BadType,
            "cost",
            "`cost` is not a decimal(18,6): `true`",
        ),
        (
            r#"{"id":"e","at":"2099-01-01T00:00:00Z","org":"o","cost":1e400}"#,
            OutOfRange,
            "cost",
            "`cost` does not fit exactly into decimal(18,6): `1e400`",
        ),
        (
            r#"{"id":"e","at":"2025-08-17T00:00:00Z","org":"o","cost":1,"count":12.5}"#,
            OutOfRange,
            "count",
            "`count` does not fit exactly into int: `12.5`",
        ),
        (
            r#"{"id":"e","at":"2025-08-17T00:00:00Z","org":"o","cost":1,"ratio":"NaN"}"#,
            OutOfRange,
            "ratio",
            "`ratio` does not fit exactly into double: `NaN`",
        ),
        (
            r#"{"id":"e","at":"2025-08-26T00:00:00Z","org":"o","cost":1}"#,
            FutureTimestamp,
            "at",
            "`at` is more than 86400 s after the file's modification time",
        ),
    ];
    for (line, error_type, column, reason) in cases {
        let decoded = jsonl(line);
        let [reject] = decoded.rejects.as_slice() else { panic!("{line}") };
        assert_eq!(
            (reject.error_type, reject.column.as_deref(), reject.reason.as_str()),
            (error_type, Some(column), reason),
            "{line}"
        );
        assert_eq!((reject.raw.as_slice(), reject.raw_bytes), (line.as_bytes(), line.len() as u64));
    }
}

#[test]
fn an_event_may_lie_exactly_the_limit_in_the_future() {
    let accepted = |at| jsonl(&format!(r#"{{"id":"e","at":"{at}","org":"o","cost":1}}"#)).rejects.is_empty();
    assert!(accepted("2025-08-25T01:46:40Z"));
    assert!(!accepted("2025-08-25T01:46:40.000001Z"));
}

#[test]
fn a_reject_keeps_the_date_and_the_amount_that_could_be_read() {
    let lines = [
        r#"{"at":"2025-08-17T23:00:00-02:00","org":"o","cost":"2.5"}"#,
        r#"{"id":"e","at":"?","org":"o","cost":-1}"#,
        r#"{"id":"e","at":"2025-08-17T00:00:00Z","org":"o","cost":"?"}"#,
        r#"{"id":"e","at":"2025-08-17T00:00:00Z","org":"o","cost":1"#,
    ];
    let decoded = jsonl(&format!("{}\n{}", lines.join("\r\n"), event("")));
    let kept: Vec<_> =
        decoded.rejects.iter().map(|reject| (reject.line, reject.date, reject.money.clone())).collect();
    assert_eq!(
        kept,
        [
            (1, Some(20_318), vec![Some(2_500_000)]),
            (2, None, vec![Some(-1_000_000)]),
            (3, Some(20_317), vec![None]),
            (4, None, vec![None])
        ]
    );
    assert_eq!(decoded.money, [3_000_000]);
    assert_eq!(decoded.rejects[1].offset, lines[0].len() as u64 + 2);
}

#[test]
fn malformed_lines_cost_only_themselves() {
    let good = event("");
    let bombs = [
        "[".repeat(1_000_000),
        format!(r#"{{"id":{}"#, "[".repeat(1_000_000)),
        format!(r#"{{"x":{}"#, r#"{"a":"#.repeat(1_000_000)),
        format!(r#"{{"x":{}1{}}}"#, "[".repeat(500), "]".repeat(500)),
    ];
    let plain = [
        "\0",
        "{}{}",
        "nonsense",
        r#"{"id":"e1","id":"e1"}"#,
        r#"{"x":{"a":1,"\u0061":2}}"#,
        "{\"id\":\"\0\"}",
    ]
    .map(str::to_owned);
    for bad in bombs.into_iter().chain(plain) {
        let mut roomy = layout(Format::Jsonl);
        roomy.max_line_bytes = 10_000_000;
        let text = format!("{good}\n{bad}\n{good}");
        let decoded = decode(roomy, text.as_bytes().chunks(1 << 16));
        assert_eq!((decoded.batch.num_rows(), decoded.rejects.len()), (2, 1));
        let reject = &decoded.rejects[0];
        assert_eq!(
            (reject.error_type, reject.line, &reject.raw),
            (ErrorType::Malformed, 2, &bad.into_bytes())
        );
    }
    let decoded = decode(layout(Format::Jsonl), [b"{\"id\":\"\xff\"}".as_slice()]);
    assert_eq!(decoded.rejects[0].reason, "not valid UTF-8 at byte 7");
    assert_eq!(decoded.rejects[0].raw, b"{\"id\":\"\xff\"}");
    assert_eq!(row(&jsonl(&event(r#","note":"\u0000""#)), 0)[4], "\0");
}

#[test]
fn of_an_over_long_line_the_first_64_kib_and_the_length_are_kept() {
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(200_000));
    let text = format!("{}\n{long}\r\n{}", event(""), event(""));
    for size in [1000, 70_000, 1_000_000] {
        let decoded = decode(layout(Format::Jsonl), text.as_bytes().chunks(size));
        let reject = &decoded.rejects[0];
        assert_eq!(decoded.batch.num_rows(), 2);
        assert_eq!(
            (reject.line, reject.raw_bytes, reject.raw.as_slice()),
            (2, long.len() as u64, &long.as_bytes()[..65_536])
        );
        assert_eq!(reject.reason, "a line of 200009 bytes is longer than the limit of 4096");
    }
}

const HEADER: &str = "id,at,org,cost,note,count,ratio,ok,day,big";

#[test]
fn a_csv_record_becomes_a_typed_row() {
    let decoded = csv(&format!(
        "\u{feff}\r\n{HEADER}\r\n\"e\"\"1\",2025-08-17T00:00:00Z,o1, 1.50 ,\"a,\nb\",1e1,.5,False,2025-08-17T00:00:00Z,\r\n\r\n\
         e2,2025-08-18T00:00:00Z,o,2,,,,,,\"\"\r\n"
    ));
    assert_eq!(
        row(&decoded, 0),
        [
            "e\"1",
            "2025-08-17T00:00:00Z",
            "o1",
            "1.500000",
            "a,\nb",
            "10",
            "0.5",
            "false",
            "2025-08-17",
            "-",
            "3",
            "-",
            "2025-08-17"
        ]
    );
    assert_eq!(
        row(&decoded, 1),
        ["e2", "2025-08-18T00:00:00Z", "o", "2.000000", "-", "-", "-", "-", "-", "-", "6", "-", "2025-08-18"]
    );
    assert_eq!((decoded.landed, decoded.money.as_slice()), (2, [3_500_000].as_slice()));
}

#[test]
fn csv_columns_are_found_by_name_and_further_ones_rescued() {
    let decoded = csv(
        "cost,\"ex\"\"tra\",big,day,ok,ratio,count,note,org,at,id\n1,\"a\tb\",?,,,,,,o1,2025-08-17T00:00:00Z,e1",
    );
    assert_eq!(row(&decoded, 0)[..4], ["e1", "2025-08-17T00:00:00Z", "o1", "1.000000"]);
    assert_eq!(rescued(&decoded), Some(r#"{"ex\"tra":"a\tb","big":"?"}"#));
    assert_eq!(decoded.warnings, BTreeMap::from([("big".to_owned(), 1)]));
}

#[test]
fn bad_csv_records_cost_only_themselves() {
    let good = "e,2025-08-17T00:00:00Z,o,1,,,,,,";
    let cases: [(&[u8], &str); 5] = [
        (b"e,2025-08-17T00:00:00Z,o,1", "4 columns, but the header has 10"),
        (b"e,2025-08-17T00:00:00Z,o,1,,,,,,,", "11 columns, but the header has 10"),
        (
            b"e,2025-08-17T00:00:00Z,o,1,\"x\"y,,,,,",
            "text follows a closing quote: double the quotes inside a field",
        ),
        (b"e,2025-08-17T00:00:00Z,o,1,\"x,,,,,", "a quote that opens here is never closed"),
        (b"e,2025-08-17T00:00:00Z,o,1,\xc3\x28,,,,,", "not valid UTF-8 at byte 27"),
    ];
    for (bad, reason) in cases {
        let text = [HEADER.as_bytes(), good.as_bytes(), bad, good.as_bytes()].join(b"\n".as_slice());
        let decoded = decode(layout(Format::Csv), [text.as_slice()]);
        assert_eq!((decoded.batch.num_rows(), decoded.rejects.len()), (2, 1), "{reason}");
        let reject = &decoded.rejects[0];
        assert_eq!((reject.line, reject.raw.as_slice(), reject.reason.as_str()), (3, bad, reason));
    }
    let missing = csv(&format!("{HEADER}\n,2025-08-17T00:00:00Z,o,1,,,,,,"));
    assert_eq!(
        (missing.rejects[0].error_type, missing.rejects[0].date),
        (ErrorType::MissingKey, Some(20_317))
    );
}

#[test]
fn a_bad_header_rejects_every_record_but_is_none_itself() {
    let decoded = csv("id,at,org,cost\ne,2025-08-17T00:00:00Z,o,1\n\n\"a\nb\"\n");
    let lines: Vec<_> = decoded.rejects.iter().map(|reject| (reject.line, reject.error_type)).collect();
    assert_eq!(lines, [(2, ErrorType::Malformed), (4, ErrorType::Malformed)]);
    assert_eq!(decoded.rejects[1].reason, "the header lacks column `note`: it is `id,at,org,cost`");
    assert_eq!(csv(&format!("{HEADER},id\ne")).rejects[0].reason, "the header repeats column `id`");
    assert_eq!(
        csv("\"id\ne").rejects[0].reason,
        "the header cannot be read: a quote that opens here is never closed"
    );
    assert_eq!(
        csv(&format!("{HEADER},{}\ne", "x".repeat(256))).rejects[0].reason,
        "the header names a column with 256 bytes, more than 255"
    );
    assert_eq!(csv(HEADER).landed, 0);
}

#[test]
fn takes_begin_anew() {
    let mut decoder = Decoder::new(Arc::new(layout(Format::Jsonl)), MODIFIED);
    let lines = format!("{}\nbad\n{}", event(r#","count":"x""#), event(""));
    decoder.push(lines.as_bytes());
    assert_eq!(decoder.rows(), 1);
    assert!(decoder.buffered_bytes() > event("").len());
    let first = decoder.take().unwrap();
    decoder.finish();
    let second = decoder.take().unwrap();
    assert_eq!(decoder.buffered_bytes(), 0);
    assert_eq!(
        (first.landed, first.rejects.len(), first.money[0], first.warnings.len()),
        (2, 1, 1_500_000, 1)
    );
    assert_eq!(
        (second.landed, second.rejects.len(), second.money[0], second.warnings.len()),
        (1, 0, 1_500_000, 0)
    );
    assert_eq!(concat_batches(&first.batch.schema(), [&first.batch, &second.batch]).unwrap().num_rows(), 2);
}

#[test]
fn a_file_cut_anywhere_loses_only_its_last_record() {
    let line = event(r#","note":"é\u0041","x":[{"y":null}]"#) + "\r\n";
    let text = line.repeat(2048 / line.len() + 1);
    for end in 0..=text.len() {
        let decoded = decode(layout(Format::Jsonl), [&text.as_bytes()[..end]]);
        let (whole, torn) = (end / line.len(), end % line.len());
        let torn_is_whole = torn + 2 >= line.len();
        assert_eq!(decoded.batch.num_rows(), whole + usize::from(torn_is_whole), "cut at {end}");
        assert_eq!(decoded.rejects.len(), usize::from(torn > 0 && !torn_is_whole), "cut at {end}");
    }
}

/// Everything that was decoded, comparable.
fn summary(decoded: &Decoded) -> String {
    let rows: Vec<_> = (0..decoded.batch.num_rows()).map(|index| row(decoded, index)).collect();
    format!("{rows:?} {:?} {} {:?} {:?}", decoded.rejects, decoded.landed, decoded.money, decoded.warnings)
}

/// Files of good, bad and mangled records.
fn file(format: Format) -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<Vec<u8>> = match format {
        Format::Jsonl => vec![
            event("").into(),
            event(r#","count":"x","new":[1]"#).into(),
            b"{\"id\":1}".into(),
            b"{\"a\":\xff}".into(),
            vec![b'x'; 5000],
        ],
        Format::Csv => vec![
            HEADER.into(),
            b"e,2025-08-17T00:00:00Z,o,1,\"a\r\n\"\"b\",,,,,".into(),
            b"e,2025-08-17T00:00:00Z,o,1,,,,,,".into(),
            b"\"open,".into(),
            b"\"a\"b".into(),
            b"x\",\"".into(),
            vec![b'x'; 5000],
        ],
    };
    let header = if format == Format::Csv { format!("{HEADER}\n") } else { String::new() };
    let piece = prop_oneof![6 => prop::sample::select(pieces), 1 => prop::collection::vec(any::<u8>(), 0..6)];
    let end = prop::sample::select(vec!["\n", "\r\n", "\n \n", ""]);
    prop::collection::vec((piece, end), 0..12).prop_map(move |pieces| {
        pieces
            .into_iter()
            .fold(header.clone().into_bytes(), |file, (piece, end)| [file, piece, end.into()].concat())
    })
}

proptest! {
    #[test]
    fn any_split_decodes_the_same(
        json in file(Format::Jsonl), table in file(Format::Csv), size in 1_usize..6000,
    ) {
        for (format, bytes) in [(Format::Jsonl, json), (Format::Csv, table)] {
            let whole = decode(layout(format), [bytes.as_slice()]);
            prop_assert_eq!(summary(&decode(layout(format), bytes.chunks(1))), summary(&whole));
            prop_assert_eq!(summary(&decode(layout(format), bytes.chunks(size))), summary(&whole));
            for reject in &whole.rejects {
                let landed = &bytes[reject.offset as usize..][..reject.raw.len()];
                prop_assert_eq!(landed, reject.raw.as_slice());
            }
        }
    }

    #[test]
    fn raw_records_are_those_the_decoder_saw(
        json in file(Format::Jsonl), table in file(Format::Csv), size in 1_usize..6000,
    ) {
        for (format, bytes) in [(Format::Jsonl, json), (Format::Csv, table)] {
            let rejects = decode(layout(format), [bytes.as_slice()]).rejects;
            let mut reader = RawReader::new(&layout(format), rejects.iter().map(|reject| reject.line).collect());
            bytes.chunks(size).for_each(|chunk| reader.push(chunk));
            reader.finish();
            let expected: Vec<_> = rejects.into_iter().map(|reject| (reject.line, reject.raw)).collect();
            prop_assert_eq!(reader.take(), expected);
            prop_assert!(reader.is_done());
        }
    }
}

#[test]
fn raw_records_are_whole_even_when_over_long() {
    let long = "x".repeat(200_000);
    let text = format!("a\n{long}\r\n\nb\n{long}");
    let mut reader = RawReader::new(&layout(Format::Jsonl), vec![2, 3, 4, 4]);
    text.as_bytes().chunks(1000).for_each(|chunk| reader.push(chunk));
    assert!(reader.is_done());
    reader.finish();
    assert_eq!(reader.take(), [(2, long.into_bytes()), (4, b"b".to_vec())]);
}
