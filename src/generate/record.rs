//! One record between the query and the file: its fields as text, still open to faults.

use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use chrono::{DateTime, SecondsFormat};

use super::query::Shape;
use crate::decode::Format;
use crate::error::{Error, Result};

/// What stands in a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Absent,
    Null,
    /// A JSON string, or a CSV field.
    Text(Range<usize>),
    /// A JSON number, literal, list or object.
    Raw(Range<usize>),
}

/// The record at hand; reused from row to row.
#[derive(Debug, Default)]
pub struct Record {
    text: String,
    /// One per field of the shape.
    pub cells: Vec<Cell>,
}

/// A batch whose columns have the types from which fields are written.
#[derive(Debug)]
pub struct Rows {
    values: Vec<ArrayRef>,
    text_marks: Vec<Option<ArrayRef>>,
    absent_marks: Vec<Option<ArrayRef>>,
    pub len: usize,
}

impl Rows {
    /// # Errors
    /// `Data` where a value does not fit.
    pub fn new(batch: &RecordBatch, shape: &Shape) -> Result<Self> {
        let mark = |at: Option<usize>| at.map(|at| ArrayRef::clone(batch.column(at)));
        Ok(Self {
            values: shape
                .fields
                .iter()
                .map(|field| cast(batch.column(field.values), &field.kind))
                .collect::<std::result::Result<_, _>>()?,
            text_marks: shape.fields.iter().map(|field| mark(field.text_mark)).collect(),
            absent_marks: shape.fields.iter().map(|field| mark(field.absent_mark)).collect(),
            len: batch.num_rows(),
        })
    }

    /// Puts a row into `record`.
    ///
    /// # Errors
    /// `Data` where a value can't be written: a number that is not finite, a date out of range.
    pub fn read(&self, row: usize, record: &mut Record) -> Result<()> {
        record.text.clear();
        record.cells.clear();
        let is_set = |mark: &Option<ArrayRef>| {
            mark.as_ref().is_some_and(|mark| mark.is_valid(row) && mark.as_boolean().value(row))
        };
        for ((values, text_mark), absent_mark) in
            self.values.iter().zip(&self.text_marks).zip(&self.absent_marks)
        {
            let cell = if is_set(absent_mark) {
                Cell::Absent
            } else if values.is_null(row) {
                Cell::Null
            } else {
                let start = record.text.len();
                let is_text = write_value(values, row, &mut record.text)? || is_set(text_mark);
                let span = start..record.text.len();
                if is_text { Cell::Text(span) } else { Cell::Raw(span) }
            };
            record.cells.push(cell);
        }
        Ok(())
    }
}

/// Writes the value; whether JSON has it as a string.
fn write_value(values: &ArrayRef, row: usize, out: &mut String) -> Result<bool> {
    let unwritable =
        || Error::data("the query gives a value that can't be written: not finite or out of range");
    match values.data_type() {
        DataType::Boolean => out.push_str(if values.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Int64 => {
            let _ = write!(out, "{}", values.as_primitive::<Int64Type>().value(row));
        }
        DataType::Float64 => {
            let number = values.as_primitive::<Float64Type>().value(row);
            let number = serde_json::Number::from_f64(number).ok_or_else(unwritable)?;
            let _ = write!(out, "{number}");
        }
        DataType::Decimal128(_, _) => {
            out.push_str(&values.as_primitive::<Decimal128Type>().value_as_string(row));
        }
        DataType::Date32 => {
            let day = values.as_primitive::<Date32Type>().value_as_date(row).ok_or_else(unwritable)?;
            let _ = write!(out, "{day}");
            return Ok(true);
        }
        DataType::Timestamp(_, _) => {
            let micros = values.as_primitive::<TimestampMicrosecondType>().value(row);
            let instant = DateTime::from_timestamp_micros(micros).ok_or_else(unwritable)?;
            out.push_str(&instant.to_rfc3339_opts(SecondsFormat::AutoSi, true));
            return Ok(true);
        }
        _ => {
            out.push_str(values.as_string_view().value(row));
            return Ok(true);
        }
    }
    Ok(false)
}

impl Record {
    /// The text of a field; empty where there is none.
    pub fn get(&self, field: usize) -> &str {
        match &self.cells[field] {
            Cell::Text(span) | Cell::Raw(span) => &self.text[span.clone()],
            Cell::Absent | Cell::Null => "",
        }
    }

    pub fn set_text(&mut self, field: usize, text: &str) {
        self.cells[field] = Cell::Text(self.keep(text));
    }

    pub fn set_raw(&mut self, field: usize, text: &str) {
        self.cells[field] = Cell::Raw(self.keep(text));
    }

    fn keep(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    /// Writes the record without a line end.
    pub fn write(&self, shape: &Shape, out: &mut Vec<u8>) {
        match shape.format {
            Format::Jsonl => self.write_json(shape, out),
            Format::Csv => self.write_csv(self.cells.len(), out),
        }
    }

    fn write_json(&self, shape: &Shape, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut is_first = true;
        for (field, cell) in shape.fields.iter().zip(&self.cells) {
            if *cell == Cell::Absent {
                continue;
            }
            if !is_first {
                out.extend_from_slice(b", ");
            }
            is_first = false;
            push_json(&field.name, out);
            out.extend_from_slice(b": ");
            match cell {
                Cell::Text(span) => push_json(&self.text[span.clone()], out),
                Cell::Raw(span) => out.extend_from_slice(&self.text.as_bytes()[span.clone()]),
                Cell::Null | Cell::Absent => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
    }

    /// Writes the first `count` fields.
    pub fn write_csv(&self, count: usize, out: &mut Vec<u8>) {
        for field in 0..count {
            if field > 0 {
                out.push(b',');
            }
            push_csv(self.get(field), out);
        }
    }
}

/// The header of a CSV file, without a line end.
pub fn header(shape: &Shape) -> Vec<u8> {
    let mut line = Vec::new();
    for (at, field) in shape.fields.iter().enumerate() {
        if at > 0 {
            line.push(b',');
        }
        push_csv(&field.name, &mut line);
    }
    line
}

/// A JSON string.
pub fn push_json(text: &str, out: &mut Vec<u8>) {
    if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        // writing a string to memory can't fail
        let _ = write!(out, "{}", serde_json::Value::from(text));
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn push_csv(text: &str, out: &mut Vec<u8>) {
    if !text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}
