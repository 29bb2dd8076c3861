//! A record that cannot become a typed row: why, where, and its exact bytes.

use std::fmt;

/// Why a record was rejected. Of several errors the least one is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorType {
    /// Not a record of the format at all.
    Malformed,
    /// A natural key column is null, absent or empty.
    MissingKey,
    /// A required column is null, absent or empty.
    MissingRequired,
    /// A key or required field does not parse as its type.
    BadType,
    /// A number that its type cannot hold exactly.
    OutOfRange,
    /// The event time lies too far after the file's modification time.
    FutureTimestamp,
}

impl ErrorType {
    pub const ALL: [ErrorType; 6] = [
        ErrorType::Malformed,
        ErrorType::MissingKey,
        ErrorType::MissingRequired,
        ErrorType::BadType,
        ErrorType::OutOfRange,
        ErrorType::FutureTimestamp,
    ];

    /// The contract's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorType::Malformed => "malformed",
            ErrorType::MissingKey => "missing_key",
            ErrorType::MissingRequired => "missing_required",
            ErrorType::BadType => "bad_type",
            ErrorType::OutOfRange => "out_of_range",
            ErrorType::FutureTimestamp => "future_timestamp",
        }
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record that landed but could not be typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The physical line on which it begins; the file's first line is 1.
    pub line: u64,
    /// Where it begins in the uncompressed stream, in bytes, a byte order mark counted.
    pub offset: u64,
    /// Its exact bytes without the line end; of an over-long line only the first 64 KiB.
    pub raw: Vec<u8>,
    /// Its real length in bytes, without the line end.
    pub raw_bytes: u64,
    /// Why it was rejected.
    pub error_type: ErrorType,
    /// The column at fault, if one is.
    pub column: Option<String>,
    /// What is wrong, for people.
    pub reason: String,
    /// The record's partition date in days since 1970-01-01, where it could be read.
    pub date: Option<i32>,
    /// Its amounts, one per `Layout::money`, where they could be read.
    pub money: Vec<Option<i128>>,
}

const EXCERPT_CHARS: usize = 64;

/// `text` for a message: at most 64 characters, control characters escaped.
pub fn excerpt(text: &str) -> String {
    let mut shown = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == EXCERPT_CHARS {
            shown.push('…');
            break;
        }
        if char.is_control() {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_safe_to_print() {
        assert_eq!(excerpt("a\u{1b}[31m\n\0"), "a\\u{1b}[31m\\n\\u{0}");
        assert_eq!(excerpt(&"é".repeat(64)), "é".repeat(64));
        assert_eq!(excerpt(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    }

    #[test]
    fn the_first_error_that_applies_is_the_least() {
        let names =
            ["malformed", "missing_key", "missing_required", "bad_type", "out_of_range", "future_timestamp"];
        let types = [
            ErrorType::Malformed,
            ErrorType::MissingKey,
            ErrorType::MissingRequired,
            ErrorType::BadType,
            ErrorType::OutOfRange,
            ErrorType::FutureTimestamp,
        ];
        assert!(types.is_sorted());
        assert_eq!(types.map(|error| error.to_string()), names);
    }
}
