//! A strict JSON scanner (RFC 8259) over one line of valid UTF-8.
//!
//! It walks the members of the line's one object. Nested values are checked and skipped without recursion.
//! Refused, beside what the grammar refuses: a key twice in one object (compared unescaped), nesting past the
//! limit, and lone surrogates, which no text can hold.

mod keys;
mod strings;

use super::reject::excerpt;
use keys::Keys;
use strings::{plain_until, read_escape};

pub(super) use strings::unescape;

/// Why a line is not one JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Something else stands where the grammar wants this.
    Expected(&'static str, usize),
    /// The key whose quotes enclose this range of the line was there before.
    KeyTwice(usize, usize),
    /// The bracket that opens one level too many.
    TooDeep(usize),
}

impl Flaw {
    /// The reason, for people; `line` is the line that was scanned.
    pub(super) fn describe(self, line: &str) -> String {
        match self {
            Flaw::Expected(wanted, at) => format!("not one JSON object: expected {wanted} at byte {at}"),
            Flaw::KeyTwice(start, end) => {
                format!(
                    "key `{}` is twice in one object, again at byte {start}",
                    excerpt(line.get(start..end).unwrap_or_default())
                )
            }
            Flaw::TooDeep(at) => format!("nested deeper than the limit at byte {at}"),
        }
    }
}

/// A string between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quoted {
    pub start: usize,
    pub end: usize,
    pub escaped: bool,
}

/// A member's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Number,
    Text(Quoted),
    Nested,
}

/// What is reused from line to line.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    open: Vec<Container>,
    keys: Keys,
}

#[derive(Clone, Copy, Debug)]
enum Container {
    Array,
    /// An object, whose keys begin at this index of `Keys`.
    Object(usize),
}

/// Walks one line.
pub(super) struct Scanner<'a> {
    line: &'a str,
    bytes: &'a [u8],
    at: usize,
    max_depth: usize,
    scratch: &'a mut Scratch,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(line: &'a str, max_depth: usize, scratch: &'a mut Scratch) -> Self {
        scratch.keys.clear();
        Scanner { line, bytes: line.as_bytes(), at: 0, max_depth, scratch }
    }

    /// Enters the line's object; false if it is empty.
    pub(super) fn enter(&mut self) -> Result<bool, Flaw> {
        self.skip_white();
        if self.max_depth == 0 {
            return Err(Flaw::TooDeep(self.at));
        }
        self.take(b'{', "`{`")?;
        self.skip_white();
        Ok(!self.takes(b'}'))
    }

    /// The next member's key and whether it is `guess`; goes to its value. A key written exactly as `guess`, a
    /// JSON string with its quotes, costs one comparison instead of a scan; an empty guess is none.
    #[inline]
    pub(super) fn key(&mut self, guess: &[u8]) -> Result<(Quoted, bool), Flaw> {
        let start = self.at + 1;
        let is_guess = self.bytes[self.at..].starts_with(guess) && !guess.is_empty();
        let key = if is_guess {
            self.at += guess.len();
            Quoted { start, end: self.at - 1, escaped: false }
        } else {
            self.take(b'"', "a key")?;
            self.string()?
        };
        self.skip_white();
        self.take(b':', "`:`")?;
        self.skip_white();
        Ok((key, is_guess))
    }

    /// The value here, and where its text begins and ends.
    #[inline]
    pub(super) fn value(&mut self) -> Result<(Value, usize, usize), Flaw> {
        let start = self.at;
        let value = match self.peek() {
            b'{' | b'[' => {
                self.skip_nested()?;
                Value::Nested
            }
            _ => self.scalar()?,
        };
        Ok((value, start, self.at))
    }

    /// Goes to the next key; false if the object ends here.
    #[inline]
    pub(super) fn next_member(&mut self) -> Result<bool, Flaw> {
        self.skip_white();
        if self.takes(b',') {
            self.skip_white();
            return Ok(true);
        }
        self.take(b'}', "`,` or `}`")?;
        Ok(false)
    }

    /// Remembers a key of the line's own object that must not come again.
    pub(super) fn remember(&mut self, key: Quoted) {
        self.scratch.keys.push(self.line, key);
    }

    /// Checks the remembered keys, and that nothing follows the object.
    pub(super) fn finish(&mut self) -> Result<(), Flaw> {
        self.scratch.keys.close_object(self.line, 0)?;
        self.skip_white();
        if self.at < self.bytes.len() { Err(Flaw::Expected("the line's end", self.at)) } else { Ok(()) }
    }

    /// The byte here; 0, which no token begins with, at the line's end.
    #[inline]
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn takes(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn take(&mut self, byte: u8, wanted: &'static str) -> Result<(), Flaw> {
        if self.takes(byte) { Ok(()) } else { Err(Flaw::Expected(wanted, self.at)) }
    }

    #[inline]
    fn skip_white(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    #[inline]
    fn scalar(&mut self) -> Result<Value, Flaw> {
        match self.peek() {
            b'"' => {
                self.at += 1;
                Ok(Value::Text(self.string()?))
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
                Ok(Value::Number)
            }
            b'n' => self.word("null", Value::Null),
            b't' => self.word("true", Value::Boolean(true)),
            b'f' => self.word("false", Value::Boolean(false)),
            _ => Err(Flaw::Expected("a value", self.at)),
        }
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, Flaw> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(Flaw::Expected("a value", self.at));
        }
        self.at += word.len();
        Ok(value)
    }

    #[inline]
    fn number(&mut self) -> Result<(), Flaw> {
        self.takes(b'-');
        if !self.takes(b'0') {
            self.digits()?;
        }
        if self.takes(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(Flaw::Expected("a digit", self.at)) } else { Ok(()) }
    }

    /// A string whose opening quote is behind.
    #[inline]
    fn string(&mut self) -> Result<Quoted, Flaw> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = plain_until(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Quoted { start, end: self.at - 1, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(Flaw::Expected("an escaped control character", self.at)),
                None => return Err(Flaw::Expected("a closing `\"`", self.at)),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        match read_escape(self.bytes, start) {
            Some((_, next)) => {
                self.at = next;
                Ok(())
            }
            None => Err(Flaw::Expected("an escape of a character", start)),
        }
    }

    /// Checks and skips the array or object here.
    fn skip_nested(&mut self) -> Result<(), Flaw> {
        self.scratch.open.clear();
        loop {
            match self.peek() {
                b'{' => {
                    self.open_container(Container::Object(self.scratch.keys.len()))?;
                    if !self.takes(b'}') {
                        self.nested_key()?;
                        continue;
                    }
                    self.scratch.open.pop();
                }
                b'[' => {
                    self.open_container(Container::Array)?;
                    if !self.takes(b']') {
                        continue;
                    }
                    self.scratch.open.pop();
                }
                _ => {
                    self.scalar()?;
                }
            }
            if !self.goes_on()? {
                return Ok(());
            }
        }
    }

    fn open_container(&mut self, container: Container) -> Result<(), Flaw> {
        let line_object = 1;
        if self.scratch.open.len() + line_object >= self.max_depth {
            return Err(Flaw::TooDeep(self.at));
        }
        self.scratch.open.push(container);
        self.at += 1;
        self.skip_white();
        Ok(())
    }

    /// After a nested value: closes what ends here, and goes to the next value if there is one.
    fn goes_on(&mut self) -> Result<bool, Flaw> {
        while let Some(&container) = self.scratch.open.last() {
            self.skip_white();
            let more = self.takes(b',');
            match container {
                Container::Array if more => {
                    self.skip_white();
                    return Ok(true);
                }
                Container::Object(_) if more => {
                    self.skip_white();
                    self.nested_key()?;
                    return Ok(true);
                }
                Container::Array => self.take(b']', "`,` or `]`")?,
                Container::Object(first_key) => {
                    self.take(b'}', "`,` or `}`")?;
                    self.scratch.keys.close_object(self.line, first_key)?;
                }
            }
            self.scratch.open.pop();
        }
        Ok(false)
    }

    fn nested_key(&mut self) -> Result<(), Flaw> {
        let (key, _) = self.key(b"")?;
        self.remember(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
