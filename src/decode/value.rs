//! Text to values: numbers, booleans, dates and instants.
//!
//! Numbers are exact: a value that its type cannot hold is a misfit of range, never rounded (a double is
//! the nearest one). Every function does work linear in its text, whatever exponent the text names.

/// Why a text is not a value of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It is not written as one.
    Type,
    /// It is a number, but not one that the type can hold.
    Range,
}

const MAX_DIGITS: i64 = 38;

const POWERS_OF_TEN: [i128; 39] = {
    let mut powers = [1; 39];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

pub(super) fn int(text: &str) -> Result<i32, Misfit> {
    i32::try_from(bigint(text)?).map_err(|_| Misfit::Range)
}

pub(super) fn bigint(text: &str) -> Result<i64, Misfit> {
    let digits_of_i64 = 19;
    i64::try_from(decimal(text, digits_of_i64, 0)?).map_err(|_| Misfit::Range)
}

/// The number times ten to the power of `scale`, if that is whole and has at most `precision` digits.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Misfit> {
    if let Some(value) = plain_decimal(text.as_bytes(), precision, scale) {
        return Ok(value);
    }
    let number = Number::read(text.trim_ascii())?;
    number.scaled(i64::from(precision), i64::from(scale)).ok_or(Misfit::Range)
}

/// The common case: a few digits and a point, no exponent. `None` says only that it is not that case.
#[inline]
fn plain_decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 || digits == b"." {
        return None;
    }
    let mut point = digits.len() - 1;
    let mut mantissa = 0_u64;
    let mut seen_point = false;
    for (position, &byte) in digits.iter().enumerate() {
        if byte.is_ascii_digit() {
            mantissa = mantissa * 10 + u64::from(byte - b'0');
        } else if byte == b'.' && !seen_point {
            seen_point = true;
            point = position;
        } else {
            return None;
        }
    }
    let fraction_digits = i64::try_from(digits.len() - 1 - point).ok()?;
    let shift = usize::try_from(i64::from(scale) - fraction_digits).ok()?;
    let value = i128::from(mantissa).checked_mul(*POWERS_OF_TEN.get(shift)?)?;
    if value >= *POWERS_OF_TEN.get(usize::from(precision))? {
        return None;
    }
    Some(if negative { -value } else { value })
}

/// A number as it is written: sign, digits before and after the point, power of ten.
struct Number<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Number<'a> {
    fn read(text: &'a str) -> Result<Self, Misfit> {
        let (negative, unsigned) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if is_not_finite(unsigned) {
            return Err(Misfit::Range);
        }
        let (whole, rest) = split_digits(unsigned);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => split_digits(rest),
            rest => (&rest[..0], rest),
        };
        let exponent = match rest {
            [] => Some(0),
            [b'e' | b'E', rest @ ..] => exponent(rest),
            _ => None,
        };
        match exponent {
            Some(exponent) if !(whole.is_empty() && fraction.is_empty()) => {
                Ok(Number { negative, whole, fraction, exponent })
            }
            _ => Err(Misfit::Type),
        }
    }

    /// The number times 10^`scale`, if that is whole and shorter than `precision` digits and one.
    fn scaled(&self, precision: i64, scale: i64) -> Option<i128> {
        let fraction = without_last_zeros(self.fraction);
        let whole = if fraction.is_empty() { without_last_zeros(self.whole) } else { self.whole };
        let dropped_zeros = length(self.whole) - length(whole);
        let fraction_digits = length(fraction);

        let whole = without_first_zeros(whole);
        let fraction = if whole.is_empty() { without_first_zeros(fraction) } else { fraction };
        let digits = length(whole) + length(fraction);
        if digits == 0 {
            return Some(0);
        }
        let shift = self.exponent + scale + dropped_zeros - fraction_digits;
        if shift < 0 || digits + shift > precision.min(MAX_DIGITS) {
            return None;
        }
        let mantissa =
            whole.iter().chain(fraction).fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'));
        let value = mantissa * POWERS_OF_TEN.get(usize::try_from(shift).ok()?)?;
        Some(if self.negative { -value } else { value })
    }
}

fn is_not_finite(word: &[u8]) -> bool {
    [b"nan".as_slice(), b"inf", b"infinity"].iter().any(|name| word.eq_ignore_ascii_case(name))
}

fn split_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len()))
}

/// A power of ten, cut where no text that fits into memory could make up for it.
fn exponent(text: &[u8]) -> Option<i64> {
    const FAR: i64 = 1 << 60;
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits
        .iter()
        .fold(0_i64, |size, digit| size.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(sign * size.min(FAR))
}

fn length(digits: &[u8]) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

fn without_first_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().take_while(|&&digit| digit == b'0').count()..]
}

fn without_last_zeros(digits: &[u8]) -> &[u8] {
    &digits[..digits.len() - digits.iter().rev().take_while(|&&digit| digit == b'0').count()]
}

pub(super) fn double(text: &str) -> Result<f64, Misfit> {
    let value: f64 = text.trim_ascii().parse().map_err(|_| Misfit::Type)?;
    if !value.is_finite() {
        return Err(Misfit::Range);
    }
    let without_negative_zero = value + 0.0;
    Ok(without_negative_zero)
}

pub(super) fn boolean(text: &str) -> Result<bool, Misfit> {
    match text {
        "1" => Ok(true),
        "0" => Ok(false),
        _ if text.eq_ignore_ascii_case("true") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(Misfit::Type),
    }
}

pub(super) const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;
const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;
const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
const MICROS_PER_SECOND: i64 = 1_000_000;

/// Days since 1970-01-01 of a calendar day, or of an instant that is midnight UTC.
pub(super) fn date(text: &str) -> Result<i32, Misfit> {
    if text.len() == "YYYY-MM-DD".len() {
        let days = days_since_epoch(text.as_bytes()).ok_or(Misfit::Type)?;
        return i32::try_from(days).map_err(|_| Misfit::Type);
    }
    let micros = timestamp(text)?;
    if micros % MICROS_PER_DAY != 0 {
        return Err(Misfit::Type);
    }
    Ok(date_of(micros))
}

/// The UTC day in which an instant lies.
pub(super) fn date_of(micros: i64) -> i32 {
    i32::try_from(micros.div_euclid(MICROS_PER_DAY)).unwrap_or(if micros < 0 { i32::MIN } else { i32::MAX })
}

/// Microseconds since 1970-01-01 UTC of an ISO-8601 instant: a day, a time and a zone.
pub(super) fn timestamp(text: &str) -> Result<i64, Misfit> {
    instant(text.as_bytes()).ok_or(Misfit::Type)
}

fn instant(text: &[u8]) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let midnight = days_since_epoch(day)? * MICROS_PER_DAY;
    let [b'T' | b' ', rest @ ..] = rest else { return None };
    let (time, offset) = time_and_offset(rest)?;
    let micros = midnight + time - offset;
    let first = days_before(1, 1, 1) * MICROS_PER_DAY;
    let after_last = days_before(10_000, 1, 1) * MICROS_PER_DAY;
    (first..after_last).contains(&micros).then_some(micros)
}

/// `hh:mm`, `hh:mm:ss` or `hh:mm:ss.f` and a zone, in microseconds. Without its zone a time could be any of 27 hours.
fn time_and_offset(text: &[u8]) -> Option<(i64, i64)> {
    let (hours_minutes, rest) = text.split_at_checked(5)?;
    let &[h1, h0, b':', m1, m0] = hours_minutes else { return None };
    let minutes = up_to(23, h1, h0)? * 60 + up_to(59, m1, m0)?;
    let (seconds_micros, rest) = match rest {
        &[b':', s1, s0, b'.', ref rest @ ..] => {
            let (digits, rest) = split_digits(rest);
            (up_to(59, s1, s0)? * MICROS_PER_SECOND + fraction_micros(digits)?, rest)
        }
        &[b':', s1, s0, ref rest @ ..] => (up_to(59, s1, s0)? * MICROS_PER_SECOND, rest),
        rest => (0, rest),
    };
    let offset_minutes = match *rest {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] | [sign @ (b'+' | b'-'), h1, h0, m1, m0] => {
            let minutes = up_to(23, h1, h0)? * 60 + up_to(59, m1, m0)?;
            if sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    Some((minutes * MICROS_PER_MINUTE + seconds_micros, offset_minutes * MICROS_PER_MINUTE))
}

/// One to nine digits after the point, of which those past a microsecond must be zero.
fn fraction_micros(digits: &[u8]) -> Option<i64> {
    if !(1..=9).contains(&digits.len()) {
        return None;
    }
    let nanos = (0..9)
        .fold(0, |nanos, place| nanos * 10 + i64::from(digits.get(place).map_or(0, |digit| digit - b'0')));
    (nanos % 1000 == 0).then_some(nanos / 1000)
}

fn days_since_epoch(text: &[u8]) -> Option<i64> {
    let &[y3, y2, y1, y0, b'-', m1, m0, b'-', d1, d0] = text else { return None };
    let year = up_to(99, y3, y2)? * 100 + up_to(99, y1, y0)?;
    let month = up_to(12, m1, m0)?;
    let day = up_to(31, d1, d0)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year == 0 || month == 0 || !(1..=last).contains(&day) {
        return None;
    }
    Some(days_before(year, month, day))
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar. The year is counted from March, so
/// that the leap day is its last and months have lengths of one linear pattern.
const fn days_before(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_FROM_YEAR_0_TO_1970: i64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - DAYS_FROM_YEAR_0_TO_1970
}

fn up_to(last: i64, tens: u8, ones: u8) -> Option<i64> {
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return None;
    }
    let value = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    (value <= last).then_some(value)
}

#[cfg(test)]
mod tests;
