//! Reads a record from a line that holds one JSON object.

use super::json::{Flaw, Quoted, Scanner, Scratch, Value, unescape};
use super::record::{Landed, Record, Span};

/// Reads `line` into `record`; an error is why the line is malformed.
pub(super) fn read(
    line: &str,
    max_depth: usize,
    scratch: &mut Scratch,
    record: &mut Record,
) -> Result<(), Flaw> {
    let mut scanner = Scanner::new(line, max_depth, scratch);
    let mut more = scanner.enter()?;
    let mut guess = 0;
    while more {
        let (key, is_guess) = scanner.key(record.key_of(guess))?;
        let (value, start, end) = scanner.value()?;
        let raw = &line[start..end];
        let column = if is_guess { Some(guess) } else { find_column(line, key, guess, record) };
        match column {
            Some(column) => {
                if record.has(column) {
                    return Err(Flaw::KeyTwice(key.start, key.end));
                }
                let landed = landed(line, value, raw, record);
                if !record.set(column, landed, line) {
                    rescue(line, key, raw, record);
                }
                guess = column + 1;
            }
            None => {
                scanner.remember(key);
                rescue(line, key, raw, record);
            }
        }
        more = scanner.next_member()?;
    }
    scanner.finish()
}

#[inline]
fn find_column(line: &str, key: Quoted, guess: usize, record: &mut Record) -> Option<usize> {
    if key.escaped {
        let span = unescape_aside(line, key, record);
        return record.column(record.text(span, line).as_bytes(), guess);
    }
    record.column(&line.as_bytes()[key.start..key.end], guess)
}

#[inline]
fn landed<'a>(line: &str, value: Value, raw: &'a str, record: &mut Record) -> Landed<'a> {
    match value {
        Value::Null => Landed::Null,
        Value::Boolean(value) => Landed::Boolean(value),
        Value::Number => Landed::Number(raw),
        Value::Text(string) if string.escaped => Landed::Text(unescape_aside(line, string, record)),
        Value::Text(string) => Landed::Text(Span { start: string.start, end: string.end, aside: false }),
        Value::Nested => Landed::Nested(raw),
    }
}

fn unescape_aside(line: &str, string: Quoted, record: &mut Record) -> Span {
    let start = record.side.len();
    unescape(line, string, &mut record.side);
    Span { start, end: record.side.len(), aside: true }
}

#[cold]
fn rescue(line: &str, key: Quoted, raw: &str, record: &mut Record) {
    let name_with_quotes = &line[key.start - 1..key.end + 1];
    record.rescue(name_with_quotes, raw);
}
