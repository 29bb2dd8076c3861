//! One record's fields against the layout: what each holds, and which error applies first.

use std::sync::Arc;

use super::layout::{Layout, Type};
use super::reject::{ErrorType, excerpt};
use super::value::{self, MICROS_PER_DAY, Misfit};

/// A piece of text: of the record as it landed, or of `Record::side`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: usize,
    pub end: usize,
    pub aside: bool,
}

/// A field as it landed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Landed<'a> {
    Null,
    Boolean(bool),
    Number(&'a str),
    Text(Span),
    /// A JSON array or object.
    Nested(&'a str),
}

/// A column of the current record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    Absent,
    Null,
    Text(Span),
    Boolean(bool),
    Int(i32),
    BigInt(i64),
    Double(f64),
    Decimal(i128),
    Date(i32),
    Timestamp(i64),
    /// Its error is already noted.
    Refused,
}

/// What is wrong with a record.
#[derive(Debug)]
pub(super) struct Fault {
    pub error_type: ErrorType,
    pub column: usize,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Key,
    Required,
    Nullable,
}

/// The record being read; reused from record to record.
#[derive(Debug)]
pub(super) struct Record {
    layout: Arc<Layout>,
    columns: Vec<(Type, Role)>,
    /// The columns' names as JSON strings; empty where a name would need an escape.
    keys: Vec<Box<[u8]>>,
    latest_event_micros: i64,
    /// One per declared column.
    pub cells: Vec<Cell>,
    /// Text that had to be unescaped.
    pub side: String,
    /// The members of `_rescued`, each followed by a comma.
    pub rescued: String,
    /// Nullable columns that did not parse.
    pub unparsed: Vec<usize>,
    fault: Option<Fault>,
}

impl Record {
    pub(super) fn new(layout: Arc<Layout>, modified_micros: i64) -> Self {
        let role = |column| match column {
            _ if layout.key.contains(&column) => Role::Key,
            _ if layout.required.contains(&column) => Role::Required,
            _ => Role::Nullable,
        };
        let key = |name: &str| {
            let is_plain = !name.contains(|char: char| char < ' ' || matches!(char, '"' | '\\'));
            let key = if is_plain { format!("\"{name}\"") } else { String::new() };
            key.into_bytes().into_boxed_slice()
        };
        Record {
            keys: layout.columns.iter().map(|column| key(&column.name)).collect(),
            columns: layout
                .columns
                .iter()
                .enumerate()
                .map(|(index, column)| (column.ty, role(index)))
                .collect(),
            latest_event_micros: modified_micros.saturating_add(layout.future_limit_micros),
            cells: vec![Cell::Absent; layout.columns.len()],
            side: String::new(),
            rescued: String::new(),
            unparsed: Vec::new(),
            fault: None,
            layout,
        }
    }

    pub(super) fn begin(&mut self) {
        self.cells.fill(Cell::Absent);
        self.side.clear();
        self.rescued.clear();
        self.unparsed.clear();
        self.fault = None;
    }

    /// The declared column of this name. Fields mostly come in order, so the search begins at `guess`.
    #[inline]
    pub(super) fn column(&self, name: &[u8], guess: usize) -> Option<usize> {
        let columns = &self.layout.columns;
        let is_named =
            |column: &usize| columns.get(*column).is_some_and(|column| column.name.as_bytes() == name);
        if is_named(&guess) {
            return Some(guess);
        }
        (guess + 1..columns.len()).chain(0..guess.min(columns.len())).find(is_named)
    }

    /// The JSON key, with its quotes, of a column: empty if there is no such column.
    #[inline]
    pub(super) fn key_of(&self, column: usize) -> &[u8] {
        self.keys.get(column).map_or(b"", |key| key)
    }

    #[inline]
    pub(super) fn has(&self, column: usize) -> bool {
        self.cells[column] != Cell::Absent
    }

    /// Reads a field of a declared column; `landed` spans refer to `text`, the record as it landed. False: it
    /// is nullable and did not parse, so the caller must rescue it.
    #[inline]
    pub(super) fn set(&mut self, column: usize, landed: Landed<'_>, text: &str) -> bool {
        let (ty, role) = self.columns[column];
        let misfit = match parse(ty, role, landed, |span| self.text(span, text)) {
            Ok(cell) => {
                self.cells[column] = cell;
                return true;
            }
            Err(misfit) => misfit,
        };
        if role == Role::Nullable && misfit == Misfit::Type {
            self.cells[column] = Cell::Null;
            self.unparsed.push(column);
            return false;
        }
        self.cells[column] = Cell::Refused;
        self.refuse(column, misfit, landed, text);
        true
    }

    /// The text of a span.
    #[inline]
    pub(super) fn text<'a>(&'a self, span: Span, landed: &'a str) -> &'a str {
        let source = if span.aside { self.side.as_str() } else { landed };
        &source[span.start..span.end]
    }

    /// Checks the record as a whole once its fields are read: the first fault that applies.
    pub(super) fn finish(&mut self) -> Option<Fault> {
        for column in 0..self.columns.len() {
            let (_, role) = self.columns[column];
            if role != Role::Nullable && matches!(self.cells[column], Cell::Absent | Cell::Null) {
                self.note_missing(column, role);
            }
        }
        if let Some(column) = self.layout.event_time
            && self.micros(column).is_some_and(|micros| micros > self.latest_event_micros)
        {
            self.note_future(column);
        }
        self.fault.take()
    }

    /// The record's partition date, where it could be read.
    pub(super) fn date(&self) -> Option<i32> {
        self.micros(self.layout.partition).map(value::date_of)
    }

    /// The amount of a money column, where it could be read.
    #[inline]
    pub(super) fn amount(&self, column: usize) -> Option<i128> {
        match self.cells.get(column) {
            Some(&Cell::Decimal(amount)) => Some(amount),
            _ => None,
        }
    }

    /// Adds a member to `_rescued`: both are JSON text, the name with its quotes.
    pub(super) fn rescue(&mut self, name: &str, value: &str) {
        for part in [name, ":", value, ","] {
            self.rescued.push_str(part);
        }
    }

    fn micros(&self, column: usize) -> Option<i64> {
        match self.cells.get(column) {
            Some(&Cell::Timestamp(micros)) => Some(micros),
            Some(&Cell::Date(days)) => Some(i64::from(days) * MICROS_PER_DAY),
            _ => None,
        }
    }

    #[cold]
    fn refuse(&mut self, column: usize, misfit: Misfit, landed: Landed<'_>, text: &str) {
        let shown = excerpt(match landed {
            Landed::Null => "null",
            Landed::Boolean(true) => "true",
            Landed::Boolean(false) => "false",
            Landed::Number(raw) | Landed::Nested(raw) => raw,
            Landed::Text(span) => self.text(span, text),
        });
        let declared = &self.layout.columns[column];
        let (error_type, reason) = match misfit {
            Misfit::Type => {
                (ErrorType::BadType, format!("`{}` is not a {}: `{shown}`", declared.name, declared.ty))
            }
            Misfit::Range => (
                ErrorType::OutOfRange,
                format!("`{}` does not fit exactly into {}: `{shown}`", declared.name, declared.ty),
            ),
        };
        self.note(error_type, column, reason);
    }

    #[cold]
    fn note_missing(&mut self, column: usize, role: Role) {
        let (error_type, what) = match role {
            Role::Key => (ErrorType::MissingKey, "key column"),
            _ => (ErrorType::MissingRequired, "required column"),
        };
        self.note(
            error_type,
            column,
            format!("{what} `{}` is null, absent or empty", self.layout.columns[column].name),
        );
    }

    #[cold]
    fn note_future(&mut self, column: usize) {
        let limit_seconds = self.layout.future_limit_micros / 1_000_000;
        let name = &self.layout.columns[column].name;
        let reason = format!("`{name}` is more than {limit_seconds} s after the file's modification time");
        self.note(ErrorType::FutureTimestamp, column, reason);
    }

    fn note(&mut self, error_type: ErrorType, column: usize, reason: String) {
        let comes_first =
            self.fault.as_ref().is_none_or(|known| (error_type, column) < (known.error_type, known.column));
        if comes_first {
            self.fault = Some(Fault { error_type, column, reason });
        }
    }
}

#[inline]
fn parse<'a>(
    ty: Type,
    role: Role,
    landed: Landed<'a>,
    text: impl Fn(Span) -> &'a str,
) -> Result<Cell, Misfit> {
    let written = match landed {
        Landed::Null => return Ok(Cell::Null),
        Landed::Text(span) if span.start == span.end => {
            return Ok(if ty == Type::Text && role == Role::Nullable {
                Cell::Text(span)
            } else {
                Cell::Null
            });
        }
        Landed::Text(span) if ty == Type::Text => return Ok(Cell::Text(span)),
        Landed::Boolean(value) if ty == Type::Boolean => return Ok(Cell::Boolean(value)),
        Landed::Boolean(_) | Landed::Nested(_) => return Err(Misfit::Type),
        Landed::Number(_) if matches!(ty, Type::Text | Type::Boolean | Type::Date | Type::Timestamp) => {
            return Err(Misfit::Type);
        }
        Landed::Number(number) => number,
        Landed::Text(span) => text(span),
    };
    match ty {
        Type::Text => Err(Misfit::Type),
        Type::Boolean => value::boolean(written).map(Cell::Boolean),
        Type::Int => value::int(written).map(Cell::Int),
        Type::BigInt => value::bigint(written).map(Cell::BigInt),
        Type::Double => value::double(written).map(Cell::Double),
        Type::Decimal { precision, scale } => value::decimal(written, precision, scale).map(Cell::Decimal),
        Type::Date => value::date(written).map(Cell::Date),
        Type::Timestamp => value::timestamp(written).map(Cell::Timestamp),
    }
}
