//! The inside of JSON strings: plain runs and escapes.

use super::Quoted;

/// The first byte from `at` on that a string cannot simply hold: a quote, a backslash, a control character.
#[inline]
pub(super) fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let found = special_bytes(u64::from_le_bytes(*word));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| byte != b'"' && byte != b'\\' && byte >= 0x20) {
        at += 1;
    }
    at
}

/// Eight bytes at once: the lowest bit set is the high bit of the first special byte. (A borrow can only mark
/// bytes above a special one, so the lowest is exact.)
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH_BITS: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let zero_in_quote = quote.wrapping_sub(ONES) & !quote;
    let zero_in_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    (zero_in_quote | zero_in_backslash | below_space) & HIGH_BITS
}

/// The character that the escape at `at` stands for, and where it ends.
pub(super) fn read_escape(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let char = match bytes.get(at + 1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return read_unicode_escape(bytes, at),
        _ => return None,
    };
    Some((char, at + 2))
}

fn read_unicode_escape(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let first = read_code_unit(bytes, at)?;
    if !(0xD800..0xDC00).contains(&first) {
        return Some((char::from_u32(first)?, at + 6));
    }
    let second = read_code_unit(bytes, at + 6).filter(|unit| (0xDC00..0xE000).contains(unit))?;
    let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    Some((char::from_u32(code)?, at + 12))
}

fn read_code_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |code, &digit| Some(code * 16 + char::from(digit).to_digit(16)?))
}

/// Appends the text of an escaped string, which the scanner has accepted.
pub(in super::super) fn unescape(line: &str, string: Quoted, text: &mut String) {
    let mut at = string.start;
    while at < string.end {
        let plain = plain_until(line.as_bytes(), at).min(string.end);
        text.push_str(line.get(at..plain).unwrap_or_default());
        at = plain;
        if at < string.end {
            let Some((char, next)) = read_escape(line.as_bytes(), at) else { return };
            text.push(char);
            at = next;
        }
    }
}
