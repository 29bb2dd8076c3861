//! The exact bytes of chosen records: what a rejected or disputed row looked like when it landed.

use std::collections::VecDeque;
use std::mem;

use super::layout::{Format, Layout};
use super::lines::{Cut, Records, Splitter};

/// The most that is kept of one over-long line, in bytes.
const LONGEST_RAW_BYTES: usize = 64 * 1024 * 1024;

/// Finds the records of a file that begin at given lines, cut exactly as [`Decoder`](super::Decoder) cuts them.
/// A CSV header counts as a record here. Memory is bounded as the decoder's is, apart from the records wanted.
#[derive(Debug)]
pub struct RawReader {
    splitter: Splitter,
    found: Found,
}

#[derive(Debug)]
struct Found {
    wanted: VecDeque<u64>,
    records: Vec<(u64, Vec<u8>)>,
}

impl RawReader {
    /// A reader for one file; `lines` are line numbers from 1, sorted ascending.
    pub fn new(layout: &Layout, lines: Vec<u64>) -> Self {
        RawReader {
            splitter: Splitter::new(layout.format == Format::Csv, layout.max_line_bytes),
            found: Found { wanted: lines.into(), records: Vec::new() },
        }
    }

    /// Reads the next bytes of the file, uncompressed.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.is_done() {
            self.splitter.push(bytes, &mut self.found);
        }
    }

    /// Ends the file. Nothing may be pushed after it.
    pub fn finish(&mut self) {
        if !self.is_done() {
            self.splitter.finish(&mut self.found);
        }
    }

    /// Whether every wanted line is passed, so that the rest of the file need not be read.
    pub fn is_done(&self) -> bool {
        self.found.wanted.is_empty()
    }

    /// The records found since the last take: the line and the bytes without the line end, of an over-long
    /// line at most the first 64 MiB. A line on which no record begins is left out.
    pub fn take(&mut self) -> Vec<(u64, Vec<u8>)> {
        mem::take(&mut self.found.records)
    }
}

impl Records for Found {
    fn record(&mut self, cut: Cut<'_>) {
        while self.wanted.front().is_some_and(|&line| line < cut.line) {
            self.wanted.pop_front();
        }
        if self.wanted.front() == Some(&cut.line) {
            self.records.push((cut.line, cut.bytes.to_vec()));
            while self.wanted.front() == Some(&cut.line) {
                self.wanted.pop_front();
            }
        }
    }

    fn keep(&self, line: u64) -> usize {
        if self.wanted.binary_search(&line).is_ok() { LONGEST_RAW_BYTES } else { 0 }
    }
}
