//! Cuts a stream of bytes into records, in bounded memory, however it is split into pushes.
//!
//! A *physical line* ends with `\n`; one `\r` before it belongs to the line end. A line of only white
//! space is no record, but it counts. A *record* is one physical line, or with CSV quotes several. A
//! record that cannot be cut (a quote that stays open, text after a closing quote, longer than the limit)
//! costs only its first physical line: cutting resumes on the next one.
//!
//! Only the first `limit + 2` bytes of a record decide how it is cut, so that the result never depends on how
//! much was pushed at once. Only a record torn between pushes is copied.

use std::mem;

use memchr::{memchr, memchr_iter, memchr2};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A record as it was cut.
pub(super) struct Cut<'a> {
    /// The physical line on which it begins, from 1.
    pub line: u64,
    /// The stream offset at which it begins.
    pub offset: u64,
    /// Its bytes without the line end; of an over-long line only what `Records::keep` asked for.
    pub bytes: &'a [u8],
    /// Its real length.
    pub length: u64,
    /// Why `bytes` is only the first physical line of something that is no record.
    pub flaw: Option<Flaw>,
}

/// Why a record could not be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Longer than the limit.
    TooLong,
    /// A quote that the file never closes.
    OpenQuote,
    /// Something other than a comma or a line end follows a closing quote.
    TextAfterQuote,
}

/// Who receives the records.
pub(super) trait Records {
    /// The next record.
    fn record(&mut self, cut: Cut<'_>);
    /// How many bytes of the line to keep if it turns out to be over-long.
    fn keep(&self, line: u64) -> usize;
}

/// Cuts pushed bytes into records.
#[derive(Debug)]
pub(super) struct Splitter {
    quotes: bool,
    limit: usize,
    /// The bytes of the unfinished record.
    carry: Vec<u8>,
    /// Where the unfinished record begins.
    line: u64,
    offset: u64,
    past_byte_order_mark: bool,
    scan: Scan,
    dead_end: Option<DeadEnd>,
    long_line: Option<LongLine>,
}

/// How far the unfinished record was looked at, counted from its start.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    at: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    FieldStart,
    Bare,
    Quoted,
    QuoteInQuoted,
    ReturnAfterQuote,
    Failed(Flaw),
}

/// The end of a scan that failed: every line break before `offset` was inside a quote. A later scan that meets
/// one of them inside a quote too can go on from here. Without this, lines that each leave a quote open would
/// each be scanned up to the limit.
#[derive(Clone, Copy, Debug)]
struct DeadEnd {
    offset: u64,
    state: State,
}

/// A line that is longer than the limit and has not ended yet.
#[derive(Debug)]
struct LongLine {
    prefix: Vec<u8>,
    keep: usize,
    length: u64,
    last_byte: u8,
    blank: bool,
}

enum Step {
    More,
    End(usize),
    Failed(Flaw),
}

impl Splitter {
    pub(super) fn new(quotes: bool, limit: usize) -> Self {
        Splitter {
            quotes,
            limit,
            carry: Vec::new(),
            line: 1,
            offset: 0,
            past_byte_order_mark: false,
            scan: Scan::default(),
            dead_end: None,
            long_line: None,
        }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8], records: &mut impl Records) {
        while !bytes.is_empty() {
            if let Some(line) = self.long_line.take() {
                bytes = self.go_on_with(line, bytes, records);
            } else if self.carry.is_empty() {
                let used = self.cut(bytes, false, records);
                self.carry.extend_from_slice(&bytes[used..]);
                return;
            } else {
                let (piece, rest) = bytes.split_at(self.piece(bytes));
                self.carry.extend_from_slice(piece);
                self.cut_carry(false, records);
                bytes = rest;
            }
        }
    }

    pub(super) fn finish(&mut self, records: &mut impl Records) {
        match self.long_line.take() {
            Some(line) => self.emit_long(line, records),
            None => self.cut_carry(true, records),
        }
    }

    /// How much of `bytes` to add to the carry: up to the line end. A record inside a quote takes all, since
    /// taking line by line could move the carry once per line.
    fn piece(&self, bytes: &[u8]) -> usize {
        if self.scan.state == State::Quoted {
            return bytes.len();
        }
        let room = self.window().saturating_sub(self.carry.len()).max(1);
        let head = &bytes[..bytes.len().min(room)];
        memchr(b'\n', head).map_or(head.len(), |end| end + 1)
    }

    fn cut_carry(&mut self, last: bool, records: &mut impl Records) {
        let mut carry = mem::take(&mut self.carry);
        let used = self.cut(&carry, last, records);
        carry.drain(..used);
        self.carry = carry;
    }

    /// Cuts `bytes`, which begin at the unfinished record, and returns how many of them are done with.
    fn cut(&mut self, bytes: &[u8], last: bool, records: &mut impl Records) -> usize {
        let mut used = 0;
        if !self.past_byte_order_mark {
            if bytes.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(bytes) && !last {
                return 0;
            }
            if bytes.starts_with(BYTE_ORDER_MARK) {
                used = BYTE_ORDER_MARK.len();
                self.offset = used as u64;
            }
            self.past_byte_order_mark = true;
        }
        while used < bytes.len() {
            let rest = &bytes[used..];
            match self.step(rest, last) {
                Step::More => break,
                Step::End(end) => used += self.emit(rest, end, None, records),
                Step::Failed(flaw) => match memchr(b'\n', rest) {
                    Some(end) => used += self.emit(rest, end, Some(flaw), records),
                    None if last => used += self.emit(rest, rest.len(), Some(flaw), records),
                    None if rest.len() < self.window() => break,
                    None => {
                        self.long_line = Some(LongLine::begin(rest, records.keep(self.line)));
                        return bytes.len();
                    }
                },
            }
        }
        used
    }

    /// The bytes of a record that decide how it is cut: the limit and a line end.
    fn window(&self) -> usize {
        self.limit.saturating_add(2)
    }

    /// Looks for the end of the record at the start of `bytes`.
    fn step(&mut self, bytes: &[u8], last: bool) -> Step {
        let window = &bytes[..bytes.len().min(self.window())];
        let end = if self.quotes { self.find_end_with_quotes(window) } else { self.find_line_end(window) };
        if let Some(end) = end {
            return self.within_limit(&bytes[..end]);
        }
        let flaw = match self.scan.state {
            State::Failed(flaw) => flaw,
            _ if bytes.len() >= self.window() => Flaw::TooLong,
            _ if !last => return Step::More,
            State::Quoted => Flaw::OpenQuote,
            _ => return self.within_limit(bytes),
        };
        self.dead_end = Some(DeadEnd { offset: self.offset + self.scan.at as u64, state: self.scan.state });
        self.scan.state = State::Failed(flaw);
        Step::Failed(flaw)
    }

    fn within_limit(&self, record: &[u8]) -> Step {
        if without_return(record).len() > self.limit {
            Step::Failed(Flaw::TooLong)
        } else {
            Step::End(record.len())
        }
    }

    fn find_line_end(&mut self, window: &[u8]) -> Option<usize> {
        let start = self.scan.at;
        self.scan.at = window.len();
        memchr(b'\n', &window[start..]).map(|end| start + end)
    }

    fn find_end_with_quotes(&mut self, window: &[u8]) -> Option<usize> {
        let Scan { mut at, mut state } = self.scan;
        if at == 0
            && let Some(end) = memchr2(b'"', b'\n', window)
            && window[end] == b'\n'
        {
            return Some(end);
        }
        let end = loop {
            let rest = window.get(at..).unwrap_or_default();
            let Some(&byte) = rest.first() else { break None };
            (state, at) = match (state, byte) {
                (State::Failed(_), _) => break None,
                (State::FieldStart, b'"') => (State::Quoted, at + 1),
                (State::FieldStart | State::Bare, _) => match memchr2(b',', b'\n', rest) {
                    Some(found) if rest[found] == b'\n' => break Some(at + found),
                    Some(found) => (State::FieldStart, at + found + 1),
                    None => (State::Bare, window.len()),
                },
                (State::Quoted, _) => match self.jump(rest, at) {
                    Some(scan) => (scan.state, scan.at),
                    None => match memchr(b'"', rest) {
                        Some(found) => (State::QuoteInQuoted, at + found + 1),
                        None => (State::Quoted, window.len()),
                    },
                },
                (State::QuoteInQuoted, b'"') => (State::Quoted, at + 1),
                (State::QuoteInQuoted, b',') => (State::FieldStart, at + 1),
                (State::QuoteInQuoted, b'\r') => (State::ReturnAfterQuote, at + 1),
                (State::QuoteInQuoted | State::ReturnAfterQuote, b'\n') => break Some(at),
                (State::QuoteInQuoted | State::ReturnAfterQuote, _) => {
                    (State::Failed(Flaw::TextAfterQuote), at)
                }
            };
        };
        self.scan = Scan { at, state };
        end
    }

    /// Where an earlier scan got to, if this one is about to meet the same line break inside a quote.
    fn jump(&self, rest: &[u8], at: usize) -> Option<Scan> {
        let dead_end = self.dead_end?;
        let known = usize::try_from(dead_end.offset.checked_sub(self.offset)?).ok()?.checked_sub(at)?;
        let met = memchr2(b'"', b'\n', rest.get(..known)?)?;
        (rest[met] == b'\n').then_some(Scan { at: at + known, state: dead_end.state })
    }

    /// Hands on the first `end` bytes of `bytes`, and returns how many bytes they take with their line end.
    fn emit(&mut self, bytes: &[u8], end: usize, flaw: Option<Flaw>, records: &mut impl Records) -> usize {
        let record = without_return(&bytes[..end]);
        if !is_blank(record) {
            let too_long = record.len() > self.limit;
            let kept = if too_long { record.len().min(records.keep(self.line)) } else { record.len() };
            records.record(Cut {
                line: self.line,
                offset: self.offset,
                bytes: &record[..kept],
                length: record.len() as u64,
                flaw: if too_long { Some(Flaw::TooLong) } else { flaw },
            });
        }
        let breaks_inside = if self.quotes { memchr_iter(b'\n', record).count() } else { 0 };
        let used = bytes.len().min(end + 1);
        self.begin_next(breaks_inside as u64 + 1, used as u64);
        used
    }

    fn begin_next(&mut self, lines: u64, bytes: u64) {
        self.line += lines;
        self.offset += bytes;
        self.scan = Scan::default();
    }

    fn go_on_with<'a>(
        &mut self,
        mut line: LongLine,
        bytes: &'a [u8],
        records: &mut impl Records,
    ) -> &'a [u8] {
        let Some(end) = memchr(b'\n', bytes) else {
            line.extend(bytes);
            self.long_line = Some(line);
            return &[];
        };
        line.extend(&bytes[..end]);
        self.emit_long(line, records);
        self.offset += 1;
        &bytes[end + 1..]
    }

    fn emit_long(&mut self, line: LongLine, records: &mut impl Records) {
        let length = line.length - u64::from(line.last_byte == b'\r');
        let kept = line.prefix.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        if !line.blank {
            records.record(Cut {
                line: self.line,
                offset: self.offset,
                bytes: &line.prefix[..kept],
                length,
                flaw: Some(Flaw::TooLong),
            });
        }
        self.begin_next(1, line.length);
    }
}

impl LongLine {
    fn begin(bytes: &[u8], keep: usize) -> Self {
        let mut line = LongLine { prefix: Vec::new(), keep, length: 0, last_byte: 0, blank: true };
        line.extend(bytes);
        line
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = self.keep - self.prefix.len();
        self.prefix.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.length += bytes.len() as u64;
        self.blank = self.blank && is_blank(bytes);
        self.last_byte = bytes.last().copied().unwrap_or(self.last_byte);
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\x0B' | b'\x0C'))
}

#[cfg(test)]
mod tests;
