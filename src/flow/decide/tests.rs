use arrow::array::{Decimal128Array, Float64Array, new_null_array};
use object_store::memory::InMemory;

use super::*;
use crate::lake::Lake;
use crate::project::Project;

/// Records of keys that come once, twice (in the same words or in others) and often, in batches and files of odd sizes.
fn records(source: &Source, num_rows: i64) -> Vec<RecordBatch> {
    let schema = source.bronze_schema();
    let key: Vec<&str> = source.key().collect();
    let rows: Vec<i64> = (0..num_rows).collect();
    let batches = rows.chunks(37).map(|rows| {
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            let numbers = || rows.iter().copied();
            let name = field.name().as_str();
            match (name, field.data_type()) {
                (name, DataType::Utf8View) if key.contains(&name) => {
                    Arc::new(StringViewArray::from_iter_values(numbers().map(|row| match row % 7 {
                        0 => format!("k{}", row % 5),
                        1 | 2 => format!("k{}", row / 70),
                        _ => format!("k{row}"),
                    })))
                }
                ("source_file", _) => {
                    Arc::new(StringViewArray::from_iter_values(numbers().map(|row| format!("f{}", row / 50))))
                }
                ("source_line", _) => Arc::new(Int64Array::from_iter_values(numbers())),
                ("batch_id", _) => Arc::new(Int64Array::from_iter_values(numbers().map(|row| row / 100))),
                ("source_file_time", _) => {
                    let times = numbers().map(|row| row / 50 * 1_000_000).collect::<Vec<i64>>();
                    Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
                }
                (DATE, _) => Arc::new(arrow::array::Date32Array::from_iter_values(
                    numbers().map(|row| 20_000 + (row % 2) as i32),
                )),
                (_, DataType::Float64) => {
                    Arc::new(Float64Array::from_iter_values(numbers().map(|row| (row % 3) as f64)))
                }
                (_, ty @ DataType::Decimal128(_, _)) => Arc::new(
                    Decimal128Array::from_iter_values(numbers().map(|row| i128::from(row % 3)))
                        .with_data_type(ty.clone()),
                ),
                (_, ty) => new_null_array(ty, rows.len()),
            }
        });
        RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
    });
    batches.collect()
}

/// What was decided, in an order of its own.
fn told(mut decided: Decided) -> String {
    decided.rejected.values_mut().for_each(|places| places.sort());
    decided.quarantined.sort_by_key(|refused| (refused.source_file.clone(), refused.source_line));
    decided.versions.sort_by_key(|version| (version.place.clone(), version.version));
    format!("{decided:#?}")
}

#[tokio::test]
async fn how_many_are_held_at_once_decides_nothing() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sensors");
    let project = Project::load(&folder).await.unwrap();
    let lake = Lake::in_memory(Arc::new(InMemory::new())).unwrap();
    let state = engine::state(&lake, project.limits.memory_bytes).unwrap();
    for source in &project.sources {
        let context = engine::context(&state);
        let batches = records(source, 1_500);
        let num_rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let scan = LakeScan::in_memory(source.bronze_schema(), Arc::new(batches));
        engine::register(&context, &TableName::new(zone::BRONZE, &source.name), Arc::new(scan));
        let discards =
            Discards::from([(("f0".into(), 0), "wrong".to_owned()), (("f1".into(), 55), "too".to_owned())]);
        let mut found = Vec::new();
        for held_rows in [1_500, 1_499, 400, 100] {
            let mut decided = Decided::default();
            decide_registered(&context, source, num_rows, held_rows, &discards, &mut decided).await.unwrap();
            found.push(told(decided));
        }
        let all = &found[0];
        assert!(all.contains("\"discarded\""), "{all}");
        for (found, held_rows) in found.iter().zip([1_500, 1_499, 400, 100]) {
            assert!(found == all, "`{}`, {held_rows} held: {found}\n\nall held: {all}", source.name);
        }
    }
}
