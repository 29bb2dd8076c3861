use std::collections::HashSet;
use std::time::SystemTime;

use arrow::compute::concat_batches;
use arrow::util::display::array_value_to_string;

use super::*;
use crate::decode::{Column, Decoded, Decoder};
use crate::project::source::matches;

pub const JSONL_QUERY: &str = r#"
select 'e' || cast(value as text) as id,
       to_timestamp_seconds(1755000000 + value * 60) as at,
       'org "1", x' as org,
       round(uniform($seed, value, 1) * 10, 4) as cost,
       uniform($seed, value, 2) < 0.5 as "cost$text",
       case when value % 3 = 0 then 'a, "note"' end as note,
       value % 5 = 0 as "note$absent",
       value % 7 as "count",
       cast(1.5 as double) as ratio,
       value % 2 = 0 as ok,
       cast(date '2025-08-01' as date) as day,
       value as big
from generate_series(1, $events)"#;

pub const CSV_QUERY: &str = r#"
select 'e' || cast(value as text) as id, to_timestamp_seconds(1755000000 + value * 60) as at, 'org "1", x' as org,
       round(uniform($seed, value, 1) * 10, 4) as cost, case when value % 3 = 0 then 'a, "note"' end as note,
       value % 7 as "count", cast(1.5 as double) as ratio, value % 2 = 0 as ok, date '2025-08-01' as day, value as big
from generate_series(1, $events)"#;

pub fn layout(format: Format) -> Layout {
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
        future_limit_micros: 86_400_000_000,
        money: vec![3],
        max_line_bytes: 4096,
        max_depth: 64,
    }
}

/// Rows of the query for a format, ready to be read.
async fn rows(format: Format, events: i64) -> (Shape, Rows) {
    let text = if format == Format::Jsonl { JSONL_QUERY } else { CSV_QUERY };
    let frame = query::plan(text, Parameters { events, days: 10, seed: 3 }).await.unwrap();
    let shape = query::shape(frame.schema().as_arrow(), &layout(format)).unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batch = concat_batches(&schema, &frame.collect().await.unwrap()).unwrap();
    let rows = Rows::new(&batch, &shape).unwrap();
    (shape, rows)
}

/// Decodes lines as one file, under the shape's header.
fn decode(shape: &Shape, lines: &[&[u8]]) -> Decoded {
    let mut decoder = Decoder::new(Arc::new(layout(shape.format)), 1_756_000_000_000_000);
    if shape.format == Format::Csv {
        decoder.push(&header(shape));
        decoder.push(b"\n");
    }
    for line in lines {
        decoder.push(line);
        decoder.push(b"\n");
    }
    decoder.finish();
    decoder.take().unwrap()
}

#[tokio::test]
async fn every_fault_becomes_what_it_says_and_costs_one_record() {
    for format in [Format::Jsonl, Format::Csv] {
        let layout = layout(format);
        let (shape, rows) = rows(format, 60).await;
        let mut seen = Vec::new();
        for fault in FAULTS.into_iter().filter(|fault| fault.applies(&shape, &layout)) {
            seen.push(fault);
            for row in 0..rows.len {
                let mut record = Record::default();
                rows.read(row, &mut record).unwrap();
                let (mut sound, mut faulty) = (Vec::new(), Vec::new());
                record.write(&shape, &mut sound);
                fault.write(&mut record, &shape, &layout, &mut Dice::new(9, row as i64), &mut faulty);
                let shown = String::from_utf8_lossy(&faulty);
                let decoded = decode(&shape, &[&sound, &faulty, &sound]);
                assert_eq!(decoded.landed, 3, "{fault:?} {shown}");
                let errors: Vec<&str> =
                    decoded.rejects.iter().map(|reject| reject.error_type.as_str()).collect();
                let is_accepted = fault.is_second_line() || fault.becomes() == "accepted";
                let expected = if is_accepted { vec![] } else { vec![fault.becomes()] };
                assert_eq!(errors, expected, "{fault:?} {shown}");
                if !is_accepted {
                    continue;
                }
                let (first, second) = (decoded.batch.slice(0, 1), decoded.batch.slice(1, 1));
                let differs = |name: &str| first.column_by_name(name) != second.column_by_name(name);
                assert!(!differs("id") && !differs("date"), "{fault:?} {shown}");
                let is_changed = layout.columns.iter().any(|column| differs(&column.name));
                match fault {
                    Fault::Duplicate => assert_eq!(sound, faulty),
                    Fault::Conflict => assert!(is_changed, "{shown}"),
                    _ => assert!(differs("_rescued"), "{fault:?} {shown}"),
                }
            }
        }
        let missing = |fault: &Fault| !seen.contains(fault);
        let never: Vec<Fault> = FAULTS.into_iter().filter(missing).collect();
        match format {
            Format::Jsonl => assert_eq!(never, [Fault::ColumnCount]),
            Format::Csv => assert_eq!(never, [Fault::DuplicateJsonKey, Fault::UnknownField]),
        }
    }
}

#[tokio::test]
async fn marks_choose_between_text_null_and_absence() {
    let (shape, rows) = rows(Format::Jsonl, 5).await;
    let mut record = Record::default();
    let mut lines = Vec::new();
    for row in 0..rows.len {
        rows.read(row, &mut record).unwrap();
        let mut line = Vec::new();
        record.write(&shape, &mut line);
        lines.push(String::from_utf8(line).unwrap());
    }
    assert!(lines[0].contains(r#""org": "org \"1\", x", "cost": "#), "{}", lines[0]);
    assert!(lines.iter().any(|line| line.contains(r#""cost": ""#)), "{lines:?}");
    assert!(
        lines[1].contains(r#""note": null"#) && lines[2].contains(r#""note": "a, \"note\"""#),
        "{lines:?}"
    );
    assert!(!lines[4].contains("note"), "{}", lines[4]);
    assert!(lines[0].contains(r#""at": "2025-08-12T12:01:00Z""#), "{}", lines[0]);
}

/// Generates data of the project in the repository; every file by name, with its time.
async fn generated(seed: i64, dirty: f64, files: usize) -> (Report, BTreeMap<String, (SystemTime, Vec<u8>)>) {
    let project = Project::load(Path::new(env!("CARGO_MANIFEST_DIR"))).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let request = Request {
        parameters: Parameters { events: 600, days: 5, seed },
        dirty,
        out: folder.path().to_path_buf(),
        files,
        compress: Compress::None,
    };
    let report = generate(&project, &request, &Progress::new(false)).await.unwrap();
    let again = generate(&project, &request, &Progress::new(false)).await.unwrap_err();
    assert!(again.to_string().contains("choose an empty folder"), "{again}");
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.path().to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
            let time = path.metadata().unwrap().modified().unwrap();
            found.insert(name, (time, std::fs::read(&path).unwrap()));
        }
    }
    (report, found)
}

#[tokio::test]
async fn one_seed_gives_the_same_bytes_and_another_gives_others() {
    let (_, first) = generated(1, 0.1, 3).await;
    let (_, second) = generated(1, 0.1, 3).await;
    assert!(first == second);
    let (_, other) = generated(2, 0.1, 3).await;
    assert!(first.keys().eq(other.keys()));
    assert!(first.iter().all(|(name, file)| other[name].1 != file.1));
    let names: Vec<&str> = first.keys().map(String::as_str).filter(|name| name.contains("users")).collect();
    assert_eq!(names, ["users_2025-09-01.csv"]);
}

#[tokio::test]
async fn clean_data_decodes_without_a_reject_and_dirty_data_with_as_many_as_reported() {
    let project = Project::load(Path::new(env!("CARGO_MANIFEST_DIR"))).await.unwrap();
    for dirty in [0.0, 0.2] {
        let (report, found) = generated(5, dirty, 4).await;
        for source in &project.sources {
            let reported = report.sources.iter().find(|done| done.source == source.name).unwrap();
            let (mut landed, mut rejects, mut keys) = (0, 0, HashSet::new());
            for (_, (time, bytes)) in found.iter().filter(|(name, _)| matches(&source.files, name)) {
                let modified = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
                let mut decoder = Decoder::new(Arc::clone(&source.layout), modified as i64);
                decoder.push(bytes);
                decoder.finish();
                let decoded = decoder.take().unwrap();
                landed += decoded.landed;
                rejects += decoded.rejects.len() as u64;
                for row in 0..decoded.batch.num_rows() {
                    let key =
                        |column: &usize| array_value_to_string(decoded.batch.column(*column), row).unwrap();
                    keys.insert(source.layout.key.iter().map(key).collect::<Vec<_>>());
                }
            }
            let is_reject = |fault: &Fault| !fault.is_second_line() && fault.becomes() != "accepted";
            let count = |wanted: &dyn Fn(&Fault) -> bool| -> u64 {
                reported.faults.iter().filter(|(fault, _)| wanted(fault)).map(|(_, count)| count).sum()
            };
            assert_eq!(landed, reported.records, "{}", source.name);
            assert_eq!(rejects, count(&is_reject), "{}", source.name);
            let repeated = count(&|fault: &Fault| fault.is_second_line());
            assert_eq!(keys.len() as u64, landed - rejects - repeated, "{}", source.name);
        }
    }
}
