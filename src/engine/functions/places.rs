//! `is_listed`: whether a row came from one of some places in landing.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, StringViewArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

/// `is_listed(file, line, places)`: null-free; `places` is the literal that [`expression`] makes.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct IsListed {
    signature: Signature,
}

impl Default for IsListed {
    fn default() -> Self {
        Self { signature: Signature::any(3, Volatility::Immutable) }
    }
}

fn lines_field() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Int64, false))
}

fn place_fields() -> Fields {
    Fields::from(vec![
        Field::new("file", DataType::Utf8View, false),
        Field::new("lines", DataType::List(lines_field()), false),
    ])
}

/// Whether the columns `file` and `line` name one of `places`. The places are part of the expression, grouped by file, so
/// that the function itself holds no state.
///
/// # Errors
/// Never in practice.
pub fn expression<'a>(file: Expr, line: Expr, places: impl Iterator<Item = (&'a str, i64)>) -> Result<Expr> {
    let mut places: Vec<(&str, i64)> = places.collect();
    places.sort_unstable();
    let by_file: Vec<&[(&str, i64)]> = places.chunk_by(|a, b| a.0 == b.0).collect();
    let lines = ListArray::try_new(
        lines_field(),
        OffsetBuffer::from_lengths(by_file.iter().map(|places| places.len())),
        Arc::new(Int64Array::from_iter_values(places.iter().map(|(_, line)| *line))),
        None,
    )?;
    let files = StringViewArray::from_iter_values(by_file.iter().map(|places| places[0].0));
    let columns: Vec<ArrayRef> = vec![Arc::new(files), Arc::new(lines)];
    let places: ArrayRef = Arc::new(StructArray::try_new(place_fields(), columns, None)?);
    let list = ListArray::try_new(
        Arc::new(Field::new("element", places.data_type().clone(), false)),
        OffsetBuffer::from_lengths([places.len()]),
        places,
        None,
    )?;
    let udf = ScalarUDF::from(IsListed::default());
    Ok(udf.call(vec![file, line, lit(ScalarValue::List(Arc::new(list)))]))
}

impl ScalarUDFImpl for IsListed {
    fn name(&self) -> &'static str {
        "is_listed"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (Some(ScalarValue::List(places)), [file, line, _]) = (places(&args.args), args.args.as_slice())
        else {
            return exec_err!("`is_listed` takes a file, a line and a literal list of places");
        };
        let files = file.to_array(args.number_rows)?;
        let lines = line.to_array(args.number_rows)?;
        let (files, lines) = (files.as_string_view(), lines.as_primitive::<Int64Type>());
        let places = places.values().as_struct();
        let listed_files = places.column(0).as_string_view();
        let listed_lines = places.column(1).as_list::<i32>();
        let all_lines = listed_lines.values().as_primitive::<Int64Type>().values();
        // rows of one file come together, and their views are the same bits
        let mut last_view = None;
        let mut listed: &[i64] = &[];
        let is_listed: BooleanArray = (0..args.number_rows)
            .map(|row| {
                let view = files.views()[row];
                if last_view != Some(view) || view as u32 == 0 {
                    last_view = Some(view);
                    let offsets = listed_lines.value_offsets();
                    listed = match find(listed_files, files.value(row)) {
                        Some(at) => &all_lines[offsets[at] as usize..offsets[at + 1] as usize],
                        None => &[],
                    };
                }
                Some(!listed.is_empty() && listed.binary_search(&lines.value(row)).is_ok())
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(is_listed)))
    }
}

fn places(args: &[ColumnarValue]) -> Option<&ScalarValue> {
    match args.get(2) {
        Some(ColumnarValue::Scalar(places)) => Some(places),
        _ => None,
    }
}

/// Where `file` stands in the sorted `files`.
fn find(files: &StringViewArray, file: &str) -> Option<usize> {
    let (mut low, mut high) = (0, files.len());
    while low < high {
        let middle = low.midpoint(high);
        match files.value(middle).cmp(file) {
            std::cmp::Ordering::Equal => return Some(middle),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::RecordBatch;
    use arrow::datatypes::Schema;
    use datafusion::prelude::{SessionContext, col};

    #[tokio::test]
    async fn finds_exactly_the_listed_places() {
        let files = ["a", "b", "a rather long file name", "a rather long file name", "b", ""];
        let lines = [1, 1, 7, 8, 3, 1];
        let schema = Schema::new(vec![
            Field::new("file", DataType::Utf8View, false),
            Field::new("line", DataType::Int64, false),
        ]);
        let batch = RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(StringViewArray::from_iter_values(files)) as ArrayRef,
                Arc::new(Int64Array::from_iter_values(lines)),
            ],
        )
        .unwrap();
        let listed = [("b", 3), ("a rather long file name", 8), ("b", 2), ("", 1)];
        let wanted = expression(col("file"), col("line"), listed.into_iter()).unwrap();
        let found =
            SessionContext::new().read_batch(batch).unwrap().filter(wanted).unwrap().collect().await.unwrap();
        let lines: Vec<i64> = found
            .iter()
            .flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert_eq!(lines, [8, 3, 1]);
    }
}
