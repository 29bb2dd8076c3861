//! Landed bytes to typed rows, with nothing lost.
//!
//! A *record* is a line of JSONL or a CSV record; what it must look like is its source's [`Layout`]. A record
//! becomes either a row of [`Decoded::batch`] or a [`Reject`] with its reason and its exact bytes, so that
//! `landed = rows + rejects`. *Missing* is null, absent or empty. A nullable field that does not parse
//! becomes null and is *rescued*: its text goes, as a member of a JSON object, to `_rescued`, and a
//! warning is counted; so do fields that the layout does not declare (without a warning).
//!
//! The promise: hostile bytes cost only their own record. Memory is bounded by the layout's limits, by what is
//! pushed at once and by what waits to be taken; work is linear in the bytes; depth never becomes recursion;
//! no number is rounded in silence; and the result depends on the bytes alone, not on how they were split into
//! pushes.

mod builders;
mod csv;
mod json;
mod jsonl;
mod layout;
mod lines;
mod raw;
mod record;
mod reject;
mod value;

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

pub use layout::{Column, Format, Layout, Type};
pub use raw::RawReader;
pub use reject::{ErrorType, Reject, excerpt};

use builders::Rows;
use csv::Header;
use json::Scratch;
use lines::{Cut, Flaw, Records, Splitter};
use record::{Fault, Record};

/// How much of an over-long line a reject keeps, in bytes.
const LONG_LINE_PREFIX_BYTES: usize = 64 * 1024;

/// What was decoded since the last take.
#[derive(Debug)]
pub struct Decoded {
    /// The typed rows, in [`Layout::schema`], in landed order.
    pub batch: RecordBatch,
    /// The records that could not be typed, in landed order.
    pub rejects: Vec<Reject>,
    /// How many records landed: rows and rejects.
    pub landed: u64,
    /// Per [`Layout::money`], the sum of the amounts that could be read, of rejects too. Sums wrap around,
    /// which keeps balances of them exact.
    pub money: Vec<i128>,
    /// Per column, how many rows hold null because their field did not parse.
    pub warnings: BTreeMap<String, u64>,
}

/// Decodes one file.
#[derive(Debug)]
pub struct Decoder {
    splitter: Splitter,
    intake: Intake,
}

impl Decoder {
    /// A decoder for one file, last modified at `modified_micros` (microseconds since 1970-01-01 UTC).
    pub fn new(layout: Arc<Layout>, modified_micros: i64) -> Self {
        Decoder {
            splitter: Splitter::new(layout.format == Format::Csv, layout.max_line_bytes),
            intake: Intake::new(layout, modified_micros),
        }
    }

    /// Decodes the next bytes of the file, uncompressed. Whole records are read in place; only a
    /// record torn between pushes is copied.
    pub fn push(&mut self, bytes: &[u8]) {
        self.splitter.push(bytes, &mut self.intake);
    }

    /// Ends the file: a last line without a line break is a record too. Nothing may be pushed after it.
    pub fn finish(&mut self) {
        self.splitter.finish(&mut self.intake);
    }

    /// How many typed rows wait to be taken.
    pub fn rows(&self) -> usize {
        self.intake.rows.len()
    }

    /// About how many bytes the rows and rejects that wait to be taken hold. Rows may be long, and a file of
    /// nothing but rejects has none: memory is bounded only if this is watched beside [`rows`](Self::rows).
    pub fn buffered_bytes(&self) -> usize {
        self.intake.buffered_bytes
    }

    /// What was decoded since the last take.
    ///
    /// # Errors
    /// Where Arrow cannot hold the rows (more text than a column can address); they are lost then.
    pub fn take(&mut self) -> Result<Decoded, ArrowError> {
        self.intake.take()
    }
}

/// Turns records into rows and rejects.
#[derive(Debug)]
struct Intake {
    layout: Arc<Layout>,
    record: Record,
    scratch: Scratch,
    /// Of a CSV file, once it was seen; an error is why none of its records can be read.
    header: Option<Result<Header, String>>,
    rows: Rows,
    rejects: Vec<Reject>,
    buffered_bytes: usize,
    landed: u64,
    money: Vec<i128>,
    /// Per declared column.
    warnings: Vec<u64>,
    failure: Option<ArrowError>,
}

impl Records for Intake {
    fn record(&mut self, cut: Cut<'_>) {
        if self.layout.format == Format::Csv && self.header.is_none() {
            self.header = Some(self.read_header(&cut));
            return;
        }
        self.landed += 1;
        match self.read(&cut) {
            Ok(text) => self.sort(&cut, text),
            Err(reason) => self.reject_malformed(&cut, reason),
        }
    }

    fn keep(&self, _line: u64) -> usize {
        LONG_LINE_PREFIX_BYTES
    }
}

impl Intake {
    fn new(layout: Arc<Layout>, modified_micros: i64) -> Self {
        Intake {
            record: Record::new(Arc::clone(&layout), modified_micros),
            scratch: Scratch::default(),
            header: None,
            rows: Rows::new(&layout),
            rejects: Vec::new(),
            buffered_bytes: 0,
            landed: 0,
            money: vec![0; layout.money.len()],
            warnings: vec![0; layout.columns.len()],
            failure: None,
            layout,
        }
    }

    fn read_header(&self, cut: &Cut<'_>) -> Result<Header, String> {
        let text = self.text(cut).map_err(|reason| format!("the header cannot be read: {reason}"))?;
        let declared: Vec<&str> = self.layout.columns.iter().map(|column| column.name.as_str()).collect();
        Header::read(text, &declared)
    }

    /// Reads the record's fields and returns its text, or why it is malformed.
    fn read<'a>(&mut self, cut: &Cut<'a>) -> Result<&'a str, String> {
        let text = match &self.header {
            Some(Err(reason)) => return Err(reason.clone()),
            _ => self.text(cut)?,
        };
        self.record.begin();
        match &self.header {
            Some(Ok(header)) => header.read_record(text, &mut self.record)?,
            _ => jsonl::read(text, self.layout.max_depth, &mut self.scratch, &mut self.record)
                .map_err(|flaw| flaw.describe(text))?,
        }
        Ok(text)
    }

    fn text<'a>(&self, cut: &Cut<'a>) -> Result<&'a str, String> {
        let limit = self.layout.max_line_bytes;
        match cut.flaw {
            Some(Flaw::TooLong) if cut.length > limit as u64 => {
                Err(format!("a line of {} bytes is longer than the limit of {limit}", cut.length))
            }
            Some(Flaw::TooLong) => Err(format!(
                "a record that begins here is longer than the limit of {limit} bytes: is a quote left open?"
            )),
            Some(Flaw::OpenQuote) => Err("a quote that opens here is never closed".to_owned()),
            Some(Flaw::TextAfterQuote) => {
                Err("text follows a closing quote: double the quotes inside a field".to_owned())
            }
            None => std::str::from_utf8(cut.bytes)
                .map_err(|error| format!("not valid UTF-8 at byte {}", error.valid_up_to())),
        }
    }

    /// Makes a row of the record that was read, or a reject.
    fn sort(&mut self, cut: &Cut<'_>, text: &str) {
        for (sum, &column) in self.money.iter_mut().zip(&self.layout.money) {
            *sum = sum.wrapping_add(self.record.amount(column).unwrap_or(0));
        }
        if let Some(fault) = self.record.finish() {
            return self.reject(cut, fault);
        }
        for &column in &self.record.unparsed {
            self.warnings[column] += 1;
        }
        self.buffered_bytes += text.len() + self.record.rescued.len();
        if let Err(error) = self.rows.append(cut.line, text, &self.record) {
            self.failure.get_or_insert(error);
        }
    }

    #[cold]
    fn reject(&mut self, cut: &Cut<'_>, fault: Fault) {
        let column = Some(self.layout.columns[fault.column].name.clone());
        let money = self.layout.money.iter().map(|&column| self.record.amount(column)).collect();
        self.push_reject(cut, fault.error_type, column, fault.reason, self.record.date(), money);
    }

    #[cold]
    fn reject_malformed(&mut self, cut: &Cut<'_>, reason: String) {
        let no_amounts = vec![None; self.layout.money.len()];
        self.push_reject(cut, ErrorType::Malformed, None, reason, None, no_amounts);
    }

    fn push_reject(
        &mut self,
        cut: &Cut<'_>,
        error_type: ErrorType,
        column: Option<String>,
        reason: String,
        date: Option<i32>,
        money: Vec<Option<i128>>,
    ) {
        self.buffered_bytes += mem::size_of::<Reject>() + cut.bytes.len() + reason.len();
        let (line, offset, raw, raw_bytes) = (cut.line, cut.offset, cut.bytes.to_vec(), cut.length);
        self.rejects.push(Reject { line, offset, raw, raw_bytes, error_type, column, reason, date, money });
    }

    fn take(&mut self) -> Result<Decoded, ArrowError> {
        let batch = self.rows.take();
        let names = self.layout.columns.iter().map(|column| column.name.clone());
        let warnings =
            names.zip(self.warnings.iter_mut().map(mem::take)).filter(|&(_, count)| count > 0).collect();
        self.buffered_bytes = 0;
        let decoded = Decoded {
            rejects: mem::take(&mut self.rejects),
            landed: mem::take(&mut self.landed),
            money: self.money.iter_mut().map(mem::take).collect(),
            warnings,
            batch: match self.failure.take() {
                Some(error) => return Err(error),
                None => batch?,
            },
        };
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests;
