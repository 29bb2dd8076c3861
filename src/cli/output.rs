//! Rows and reports on standard output: tables for people, CSV and JSON for programs.

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Result};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Csv,
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "table" => Ok(Format::Table),
            "csv" => Ok(Format::Csv),
            "json" => Ok(Format::Json),
            other => Err(format!("unknown format `{other}`, known: table, csv, json")),
        }
    }
}

/// Prints rows.
///
/// # Errors
/// Where standard output is closed or a value can't be shown.
pub fn print_rows(batches: &[RecordBatch], format: Format) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = match format {
        Format::Table => write_table(batches, &mut out),
        Format::Csv => write_csv(batches, &mut out),
        Format::Json => write_json(batches, &mut out),
    };
    match written {
        Err(error) if is_closed(&error) => Ok(()),
        other => other,
    }
}

/// A reader that has seen enough (`| head`) closes the pipe; that is no failure.
fn is_closed(error: &Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::BrokenPipe;
        }
        source = current.source();
    }
    false
}

/// Prints a text, unless nobody reads it.
///
/// # Errors
/// Where standard output can't be written.
pub fn print_text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn write_table(batches: &[RecordBatch], out: &mut impl Write) -> Result<()> {
    let Some(first) = batches.first() else {
        return Ok(());
    };
    let options = FormatOptions::new().with_null("").with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.fZ"));
    let names: Vec<String> = first.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in batches {
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            rows.push(formatters.iter().map(|formatter| plain(&formatter.value(row).to_string())).collect());
        }
    }
    Ok(write!(out, "{}", text_table(&names, &rows))?)
}

/// Prints cells under their names, as a table or as CSV.
///
/// # Errors
/// Where standard output can't be written.
pub fn print_cells(names: &[String], rows: &[Vec<String>], format: Format) -> Result<()> {
    if format != Format::Csv {
        return print_text(&text_table(names, rows));
    }
    // what a report does not know is nothing
    let known = |cell: &String| (!cell.is_empty()).then(|| csv_text(cell));
    let line = |cells: &[String]| csv_line(cells.iter().map(known));
    let text: String = std::iter::once(line(names)).chain(rows.iter().map(|row| line(row))).collect();
    print_text(&text)
}

/// A record of CSV; null is nothing at all.
fn csv_line(cells: impl Iterator<Item = Option<String>>) -> String {
    let cells: Vec<String> = cells.map(Option::unwrap_or_default).collect();
    format!("{}\n", cells.join(","))
}

/// A value in CSV: an empty text is `""`, so that it is not null.
fn csv_text(value: &str) -> String {
    match value.is_empty() || value.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.to_owned(),
    }
}

/// Control characters of the data never reach the terminal.
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}

/// A long text without its middle, for people. Both ends tell something: of a key, its first column and its last.
pub fn shortened(text: &str, max_chars: usize) -> String {
    let length = text.chars().count();
    if length <= max_chars {
        return text.to_owned();
    }
    let kept = max_chars.saturating_sub(1);
    let (before, after) = (kept.div_ceil(2), kept / 2);
    text.chars().take(before).chain(['…']).chain(text.chars().skip(length - after)).collect()
}

/// Columns aligned under their names; numbers to the right.
pub fn text_table(names: &[String], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let values = rows.iter().map(|row| row[at].chars().count());
        values.chain([names[at].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let is_number = |text: &String| text.is_empty() || text.parse::<f64>().is_ok();
    let to_right: Vec<bool> =
        (0..names.len()).map(|at| !rows.is_empty() && rows.iter().all(|row| is_number(&row[at]))).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().enumerate().map(|(at, cell)| {
            let pad = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
            match to_right[at] {
                true => format!("{pad}{cell}"),
                false => format!("{cell}{pad}"),
            }
        });
        let joined = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", joined.trim_end())
    };
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    let mut text = line(names);
    text.push_str(&line(&rule));
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

fn write_csv(batches: &[RecordBatch], out: &mut impl Write) -> Result<()> {
    let options = FormatOptions::new();
    if let Some(first) = batches.first() {
        let schema = first.schema();
        let names = schema.fields().iter().map(|field| Some(csv_text(field.name())));
        out.write_all(csv_line(names).as_bytes())?;
    }
    for batch in batches {
        let columns = batch.columns().iter().map(|column| {
            // a list's or map's text is its value
            Ok((column.logical_nulls(), ArrayFormatter::try_new(column, &options)?))
        });
        let columns: Vec<_> = columns.collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            let cell = |(nulls, formatter): &(Option<NullBuffer>, ArrayFormatter<'_>)| {
                let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                (!is_null)
                    .then(|| formatter.value(row).try_to_string().map(|text| csv_text(&text)))
                    .transpose()
            };
            let cells = columns.iter().map(cell).collect::<std::result::Result<Vec<_>, _>>()?;
            out.write_all(csv_line(cells.into_iter()).as_bytes())?;
        }
    }
    Ok(out.flush()?)
}

/// The type whose JSON says exactly what a value of `data_type` is: readers make doubles of JSON's numbers, which keep 15
/// digits, so decimals are text. The names of a JSON object are texts, so keys of maps are, as in CQL's `select json`.
fn exact(data_type: &DataType) -> DataType {
    let field = |field: &FieldRef| Arc::new(Field::clone(field).with_data_type(exact(field.data_type())));
    match data_type {
        DataType::Decimal128(..) | DataType::Decimal256(..) => DataType::Utf8,
        DataType::List(item) => DataType::List(field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, is_sorted) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                let key = match pair[0].data_type() {
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Arc::clone(&pair[0]),
                    _ => Arc::new(Field::clone(&pair[0]).with_data_type(DataType::Utf8)),
                };
                let pair = DataType::Struct([key, field(&pair[1])].into_iter().collect());
                DataType::Map(Arc::new(Field::clone(entries).with_data_type(pair)), *is_sorted)
            }
            _ => data_type.clone(),
        },
        other => other.clone(),
    }
}

fn exact_rows(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let kind = exact(column.data_type());
        columns.push(arrow::compute::cast(column, &kind)?);
        fields.push(Field::clone(field).with_data_type(kind));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Rows as `--format json` prints them: an array of objects.
///
/// # Errors
/// Where a value can't be shown.
pub fn json_rows(batches: &[RecordBatch]) -> Result<serde_json::Value> {
    let mut text = Vec::new();
    write_json(batches, &mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn write_json(batches: &[RecordBatch], out: &mut impl Write) -> Result<()> {
    let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, arrow::json::writer::JsonArray>(&mut *out);
    for batch in batches {
        writer.write(&exact_rows(batch)?)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(writeln!(out)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, NullArray, StringViewArray};

    use super::*;

    #[test]
    fn csv_tells_null_from_an_empty_text() {
        let columns: [(&str, ArrayRef); 3] = [
            ("a", Arc::new(StringViewArray::from(vec![None, Some(""), Some(" x"), Some("\"y\",\n")]))),
            ("n, m", Arc::new(Int64Array::from(vec![Some(1), None, Some(-3), Some(4)]))),
            ("never", Arc::new(NullArray::new(4))),
        ];
        let mut out = Vec::new();
        write_csv(&[RecordBatch::try_from_iter(columns).unwrap()], &mut out).unwrap();
        let expected = "a,\"n, m\",never\n,1,\n\"\",,\n x,-3,\n\"\"\"y\"\",\n\",4,\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn numbers_stand_right_and_control_characters_are_shown() {
        let names = ["name".to_owned(), "n".to_owned()];
        let rows = [vec![plain("a\u{1b}[2J"), "5".to_owned()], vec!["b".to_owned(), "12".to_owned()]];
        let expected = "name          n\n────────────  ──\na\\u{1b}[2J   5\nb            12\n";
        let table = text_table(&names, &rows);
        assert_eq!(table.lines().nth(2), expected.lines().nth(2).map(|_| "a\\u{1b}[2J   5"));
        assert!(!table.contains('\u{1b}'));
    }

    #[test]
    fn a_long_text_keeps_both_ends() {
        assert_eq!(shortened("abcdefgh", 8), "abcdefgh");
        assert_eq!(shortened("éabcdefgh", 6), "éab…gh");
        assert_eq!(shortened("abcdefghi", 5), "ab…hi");
    }

    #[test]
    fn keys_of_maps_are_texts_in_json() {
        use arrow::array::{
            ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Int32Builder, MapBuilder,
            TimestampMicrosecondBuilder,
        };
        let mut days = MapBuilder::new(
            None,
            Date32Builder::new(),
            Decimal128Builder::new().with_data_type(DataType::Decimal128(38, 2)),
        );
        days.keys().append_value(20_000);
        days.values().append_value(-150);
        days.append(true).unwrap();
        days.append(false).unwrap();
        let mut times = MapBuilder::new(
            None,
            TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            Int32Builder::new(),
        );
        times.keys().append_value(1_500_000);
        times.values().append_value(1);
        times.append(true).unwrap();
        times.append(true).unwrap();
        let mut flags = MapBuilder::new(None, BooleanBuilder::new(), BooleanBuilder::new());
        flags.keys().append_value(true);
        flags.values().append_value(false);
        flags.append(true).unwrap();
        flags.append(true).unwrap();
        let columns: [ArrayRef; 3] =
            [Arc::new(days.finish()), Arc::new(times.finish()), Arc::new(flags.finish())];
        let names = ["days", "times", "flags"];
        let fields: Vec<Field> = names
            .iter()
            .zip(&columns)
            .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.to_vec()).unwrap();
        let mut out = Vec::new();
        write_json(&[batch], &mut out).unwrap();
        let expected = concat!(
            r#"[{"days":{"2024-10-04":"-1.50"},"times":{"1970-01-01T00:00:01.500Z":1},"flags":{"true":false}},"#,
            r#"{"days":null,"times":{},"flags":{}}]"#,
        );
        assert_eq!(String::from_utf8(out).unwrap().trim(), expected);
    }
}
