//! What goes wrong on the way to landing: one fault per record, made from the source's layout alone.
//!
//! | fault | what lands | what becomes of it |
//! |---|---|---|
//! | `duplicate` | the record, and its line again in a later file | `duplicate` |
//! | `conflict` | the record, and its key again with another value | `duplicate_conflict` |
//! | `truncated`, `garbage`, `invalid_utf8`, `duplicate_json_key`, `column_count` | a broken line | `malformed` |
//! | `missing_key`, `missing_required`, `bad_type`, `out_of_range`, `future` | a line with one wrong field | the error of that name |
//! | `unparsed`, `unknown_field` | a line with a field that is rescued | accepted |

use super::query::{Field, Shape};
use super::record::{Cell, Record, push_json};
use crate::decode::{Format, Layout, Type};
use crate::engine::uniform;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    Duplicate,
    Conflict,
    Truncated,
    Garbage,
    InvalidUtf8,
    DuplicateJsonKey,
    ColumnCount,
    MissingKey,
    MissingRequired,
    BadType,
    OutOfRange,
    Future,
    Unparsed,
    UnknownField,
}

/// Every kind, in the order in which they are reported.
pub const FAULTS: [Fault; 14] = [
    Fault::Duplicate,
    Fault::Conflict,
    Fault::Truncated,
    Fault::Garbage,
    Fault::InvalidUtf8,
    Fault::DuplicateJsonKey,
    Fault::ColumnCount,
    Fault::MissingKey,
    Fault::MissingRequired,
    Fault::BadType,
    Fault::OutOfRange,
    Fault::Future,
    Fault::Unparsed,
    Fault::UnknownField,
];

/// Pseudo-random choices of one record: the same for the same seed and row.
#[derive(Debug)]
pub struct Dice {
    seed: i64,
    row: i64,
    throws: i64,
}

impl Dice {
    pub fn new(seed: i64, row: i64) -> Self {
        Self { seed, row, throws: 0 }
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        self.throws += 1;
        uniform(self.seed, self.row, self.throws)
    }

    /// A whole number in [0, `count`).
    pub fn below(&mut self, count: usize) -> usize {
        ((self.unit() * count as f64) as usize).min(count.saturating_sub(1))
    }

    fn pick(&mut self, fields: &[usize]) -> Option<usize> {
        fields.get(self.below(fields.len())).copied()
    }
}

impl Fault {
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Duplicate => "duplicate",
            Fault::Conflict => "conflict",
            Fault::Truncated => "truncated",
            Fault::Garbage => "garbage",
            Fault::InvalidUtf8 => "invalid_utf8",
            Fault::DuplicateJsonKey => "duplicate_json_key",
            Fault::ColumnCount => "column_count",
            Fault::MissingKey => "missing_key",
            Fault::MissingRequired => "missing_required",
            Fault::BadType => "bad_type",
            Fault::OutOfRange => "out_of_range",
            Fault::Future => "future",
            Fault::Unparsed => "unparsed",
            Fault::UnknownField => "unknown_field",
        }
    }

    /// What the engine makes of the faulty line.
    pub fn becomes(self) -> &'static str {
        match self {
            Fault::Duplicate => "duplicate",
            Fault::Conflict => "duplicate_conflict",
            Fault::Truncated
            | Fault::Garbage
            | Fault::InvalidUtf8
            | Fault::DuplicateJsonKey
            | Fault::ColumnCount => "malformed",
            Fault::MissingKey => "missing_key",
            Fault::MissingRequired => "missing_required",
            Fault::BadType => "bad_type",
            Fault::OutOfRange => "out_of_range",
            Fault::Future => "future_timestamp",
            Fault::Unparsed | Fault::UnknownField => "accepted",
        }
    }

    /// Whether the sound record lands too.
    pub fn is_second_line(self) -> bool {
        matches!(self, Fault::Duplicate | Fault::Conflict)
    }

    /// Whether records of this shape can have it.
    pub fn applies(self, shape: &Shape, layout: &Layout) -> bool {
        let is_json = shape.format == Format::Jsonl;
        match self {
            Fault::Duplicate | Fault::Garbage | Fault::InvalidUtf8 => true,
            Fault::Truncated => is_json || shape.fields.len() > 1,
            Fault::DuplicateJsonKey | Fault::UnknownField => is_json,
            Fault::ColumnCount => !is_json,
            // an empty CSV line is no record
            Fault::MissingKey | Fault::MissingRequired if !is_json && shape.fields.len() < 2 => false,
            _ => !self.fields(shape, layout).is_empty(),
        }
    }

    /// The fields that it can hit.
    fn fields(self, shape: &Shape, layout: &Layout) -> Vec<usize> {
        let is_key = |field: &Field| layout.key.contains(&field.column);
        let is_required = |field: &Field| layout.required.contains(&field.column);
        let is_fixed = |field: &Field| {
            is_key(field) || field.column == layout.partition || Some(field.column) == layout.event_time
        };
        // every text of a CSV file is a text
        let can_misfit = |field: &Field| shape.format == Format::Jsonl || field.ty != Type::Text;
        let is_number = |field: &Field| {
            matches!(field.ty, Type::Int | Type::BigInt | Type::Double | Type::Decimal { .. })
        };
        let is_hit = |field: &Field| match self {
            Fault::Conflict => !is_fixed(field),
            Fault::MissingKey => is_key(field),
            Fault::MissingRequired => is_required(field),
            Fault::BadType => (is_key(field) || is_required(field)) && can_misfit(field),
            Fault::OutOfRange => is_number(field),
            Fault::Future => Some(field.column) == layout.event_time,
            Fault::Unparsed => !is_key(field) && !is_required(field) && can_misfit(field),
            _ => false,
        };
        (0..shape.fields.len()).filter(|at| is_hit(&shape.fields[*at])).collect()
    }

    /// Writes the faulty line, without a line end, and leaves the record as it was hit.
    pub fn write(
        self,
        record: &mut Record,
        shape: &Shape,
        layout: &Layout,
        dice: &mut Dice,
        out: &mut Vec<u8>,
    ) {
        let hit = dice.pick(&self.fields(shape, layout));
        match (self, hit) {
            (Fault::Conflict, Some(field)) => change(record, field, shape.fields[field].ty),
            (Fault::MissingKey | Fault::MissingRequired, Some(field)) => match dice.below(3) {
                0 => record.cells[field] = Cell::Absent,
                1 => record.cells[field] = Cell::Null,
                _ => record.set_text(field, ""),
            },
            (Fault::BadType | Fault::Unparsed, Some(field)) => match shape.fields[field].ty {
                Type::Text => record.set_raw(field, "[]"),
                _ => record.set_text(field, "n/a"),
            },
            (Fault::OutOfRange, Some(field)) => record.set_raw(field, "1e999"),
            (Fault::Future, Some(field)) => {
                let later = in_400_years(record.get(field));
                record.set_text(field, &later);
            }
            (Fault::Garbage, _) => return garbage(dice, out),
            (Fault::Truncated, _) if shape.format == Format::Csv => {
                return torn_csv(record, 1 + dice.below(shape.fields.len() - 1), out);
            }
            _ => {}
        }
        let start = out.len();
        record.write(shape, out);
        match self {
            Fault::Truncated => out.truncate(start + 1 + dice.below(out.len() - start - 1)),
            Fault::InvalidUtf8 => {
                let is_quoted = out.get(start) == Some(&b'"');
                out.insert(start + usize::from(is_quoted || shape.format == Format::Jsonl), 0xff);
            }
            Fault::DuplicateJsonKey => {
                out.pop();
                out.extend_from_slice(b", ");
                let named = (0..shape.fields.len()).find(|at| record.cells[*at] != Cell::Absent);
                push_json(named.map_or("", |at| &shape.fields[at].name), out);
                out.extend_from_slice(b": null}");
            }
            Fault::UnknownField => {
                out.pop();
                out.extend_from_slice(b", ");
                push_json(&unknown_name(layout), out);
                out.extend_from_slice(b": {\"added\": true}}");
            }
            Fault::ColumnCount => out.extend_from_slice(b",surplus"),
            _ => {}
        }
    }
}

/// The first `count` fields; never a blank line, which would be no record.
fn torn_csv(record: &Record, count: usize, out: &mut Vec<u8>) {
    let start = out.len();
    record.write_csv(count, out);
    if out[start..].trim_ascii().is_empty() {
        out.push(b'x');
    }
}

/// Gives the field another value of its type.
fn change(record: &mut Record, field: usize, ty: Type) {
    let old = record.get(field).to_owned();
    match ty {
        Type::Text => record.set_text(field, &format!("{old}~")),
        Type::Boolean => {
            let is_true = old.eq_ignore_ascii_case("true") || old == "1";
            record.set_raw(field, if is_true { "false" } else { "true" });
        }
        Type::Date => record.set_text(field, "2001-01-01"),
        Type::Timestamp => record.set_text(field, "2001-01-01T00:00:00Z"),
        // one more digit in front is another number, and short ones still fit
        _ if old.len() > 8 => record.set_raw(field, "1"),
        _ => {
            let (sign, digits) = match old.strip_prefix('-') {
                Some(digits) => ("-", digits),
                None => ("", old.as_str()),
            };
            record.set_raw(field, &format!("{sign}1{digits}"));
        }
    }
}

/// The same day and time 400 years on: the calendar repeats, so that the day exists.
fn in_400_years(time: &str) -> String {
    let year = time.get(..4).and_then(|year| year.parse::<u32>().ok()).filter(|year| *year <= 9500);
    match (year, time.get(4..)) {
        (Some(year), Some(rest)) => format!("{}{rest}", year + 400),
        _ => "2999-12-31T00:00:00Z".to_owned(),
    }
}

/// Bytes that are neither UTF-8 nor a line end, nor a quote that would swallow the lines after them.
fn garbage(dice: &mut Dice, out: &mut Vec<u8>) {
    let count = 16 + dice.below(48);
    for _ in 0..count {
        let byte = dice.below(256) as u8;
        out.push(if matches!(byte, b'\n' | b'\r' | b'"') { 0xfe } else { byte });
    }
    out.push(0xff);
}

fn unknown_name(layout: &Layout) -> String {
    let mut name = "added_later".to_owned();
    while layout.columns.iter().any(|column| column.name == name) {
        name.push('_');
    }
    name
}
