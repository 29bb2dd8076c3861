use proptest::prelude::*;

use super::*;

const TYPE: Misfit = Misfit::Type;
const RANGE: Misfit = Misfit::Range;

#[test]
fn decimals_are_exact_or_refused() {
    let cases: &[(&str, Result<i128, Misfit>)] = &[
        ("1.5", Ok(1_500_000)),
        ("-0.01", Ok(-10_000)),
        ("-0", Ok(0)),
        ("  99.0\t", Ok(99_000_000)),
        ("+.5", Ok(500_000)),
        ("5.", Ok(5_000_000)),
        ("-5.E0", Ok(-5_000_000)),
        ("0.000001", Ok(1)),
        ("0.0000010000000000000000000000", Ok(1)),
        ("1e-6", Ok(1)),
        ("10e-7", Ok(1)),
        ("0.0001e2", Ok(10_000)),
        ("000000000000000000000000000000000000000012", Ok(12_000_000)),
        ("0e999999999999999999999999", Ok(0)),
        ("0.000e-999999999", Ok(0)),
        ("999999999999.999999", Ok(999_999_999_999_999_999)),
        ("-999999999999.999999", Ok(-999_999_999_999_999_999)),
        ("1000000000000", Err(RANGE)),
        ("0.0000001", Err(RANGE)),
        ("1.2345678", Err(RANGE)),
        ("1e-7", Err(RANGE)),
        ("1e400", Err(RANGE)),
        ("1e999999999", Err(RANGE)),
        ("1e-99999999999999999999999", Err(RANGE)),
        ("NaN", Err(RANGE)),
        ("-Infinity", Err(RANGE)),
        ("+inf", Err(RANGE)),
        ("", Err(TYPE)),
        (" ", Err(TYPE)),
        (".", Err(TYPE)),
        ("-", Err(TYPE)),
        ("--1", Err(TYPE)),
        ("1 2", Err(TYPE)),
        ("12,5", Err(TYPE)),
        ("1-2-3", Err(TYPE)),
        ("1_000", Err(TYPE)),
        ("0x10", Err(TYPE)),
        ("1e", Err(TYPE)),
        ("e5", Err(TYPE)),
        ("1e+", Err(TYPE)),
        ("1e1.5", Err(TYPE)),
        ("infinit", Err(TYPE)),
        ("١", Err(TYPE)),
        ("\u{a0}1", Err(TYPE)),
        ("1\0", Err(TYPE)),
    ];
    for (text, value) in cases {
        assert_eq!(decimal(text, 18, 6), *value, "{text}");
    }
    let nines = "9".repeat(38);
    assert_eq!(decimal(&nines, 38, 0), Ok(nines.parse().unwrap()));
    assert_eq!(decimal(&format!("-{}", "9".repeat(39)), 38, 0), Err(RANGE));
    assert_eq!(decimal("12300", 3, -2), Ok(123));
    assert_eq!(decimal("12350", 3, -2), Err(RANGE));
}

#[test]
fn whole_numbers_may_be_written_with_a_point_or_an_exponent() {
    assert_eq!(["12.0", "1.2e1", "120e-1", " 12 ", "+12", "012"].map(int), [Ok(12); 6]);
    assert_eq!(["12.5", "2147483648", "-2147483649", "1e10", "nan"].map(int), [Err(RANGE); 5]);
    assert_eq!(["2147483647", "-2147483648"].map(int), [Ok(i32::MAX), Ok(i32::MIN)]);
    assert_eq!(["9223372036854775807", "-9223372036854775808"].map(bigint), [Ok(i64::MAX), Ok(i64::MIN)]);
    assert_eq!(["9223372036854775808", "-9223372036854775809", "1e19"].map(bigint), [Err(RANGE); 3]);
    assert_eq!(bigint("9007199254740993"), Ok(9_007_199_254_740_993));
    assert_eq!(["", "twelve", "1.2.3"].map(int), [Err(TYPE); 3]);
}

#[test]
fn doubles_are_the_nearest_and_finite() {
    assert_eq!(double("0.1"), Ok(0.1));
    assert_eq!(double(" +.5 "), Ok(0.5));
    assert_eq!(double("9007199254740993"), Ok(9_007_199_254_740_992.0));
    for zero in ["-0", "-0.0", "-1e-999999999"] {
        assert_eq!(double(zero).unwrap().to_bits(), 0, "{zero}");
    }
    assert_eq!(["NaN", "inf", "-INFINITY", "1e400", "-1e999999999"].map(double), [Err(RANGE); 5]);
    assert_eq!(["", ".", "1,5", "0x1", "nano"].map(double), [Err(TYPE); 5]);
}

#[test]
fn booleans_are_four_words() {
    assert_eq!(["true", "True", "TRUE", "1"].map(boolean), [Ok(true); 4]);
    assert_eq!(["false", "False", "0"].map(boolean), [Ok(false); 3]);
    assert_eq!(["", "yes", "t", " true", "01", "2"].map(boolean), [Err(TYPE); 6]);
}

const NOON: i64 = 1_755_432_000_000_000; // 2025-08-17T12:00:00Z

#[test]
fn instants_are_utc_microseconds() {
    let noons = [
        "2025-08-17T12:00:00Z",
        "2025-08-17 12:00Z",
        "2025-08-17T12:00Z",
        "2025-08-17T12:00:00.000000000Z",
        "2025-08-17T14:30:00+02:30",
        "2025-08-17T14:30:00+0230",
        "2025-08-17T02:00:00.0-10:00",
        "2025-08-17T12:00:00-00:00",
    ];
    for text in noons {
        assert_eq!(timestamp(text), Ok(NOON), "{text}");
    }
    assert_eq!(timestamp("2025-08-17T12:00:00.000001Z"), Ok(NOON + 1));
    assert_eq!(timestamp("2025-08-17T12:00:00.1234560Z"), Ok(NOON + 123_456));
    assert_eq!(timestamp("1969-12-31T23:59:59.999999Z"), Ok(-1));
    assert_eq!(date_of(-1), -1);
}

#[test]
fn what_is_no_instant_is_refused() {
    assert_eq!(timestamp("2025-08-17"), Err(TYPE), "a day is a date, not an instant");
    let texts = [
        "",
        "2025-08-17T12:00:00",
        "2025",
        "2025-8-17",
        "25-08-17",
        "2025/08/17",
        "2025-08-17T",
        "2025-08-17T12",
        "2025-08-17T12:60",
        "2025-08-17T24:00",
        "2025-08-17T12:00:60Z",
        "2025-08-17T23:59:60Z",
        "2025-08-17T12:00:00.Z",
        "2025-08-17T12:00:00.0000001Z",
        "2025-08-17T12:00:00.0000000000Z",
        "2025-08-17T12:00.5Z",
        "2025-08-17T12:00:00,5Z",
        "2025-08-17T12:00:00z",
        "2025-08-17t12:00:00Z",
        "2025-08-17  12:00",
        " 2025-08-17",
        "2025-08-17 ",
        "2025-08-17Z",
        "2025-08-17T12:00:00+2",
        "2025-08-17T12:00:00+24:00",
        "2025-08-17T12:00:00+02:60",
        "2025-08-17T12:00:00+02",
        "2025-08-17T12:00:00ZZ",
        "2025-02-29",
        "1900-02-29",
        "2025-04-31",
        "2025-00-10",
        "2025-13-10",
        "2025-01-00",
        "2025-01-32",
        "0000-01-01",
        "-001-01-01",
        "12025-01-01",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "２025-01-01",
        "1755432000",
    ];
    for text in texts {
        assert_eq!(timestamp(text), Err(TYPE), "{text}");
        assert_eq!(date(text), Err(TYPE), "{text}");
    }
}

#[test]
fn dates_take_midnights_only() {
    assert_eq!(
        ["2025-08-17", "2025-08-17T00:00:00Z", "2025-08-17 02:00:00+02:00"].map(date),
        [Ok(20_317); 3]
    );
    assert_eq!(["2025-08-17T00:00:00.000001Z", "2025-08-17T00:00:00+02:00"].map(date), [Err(TYPE); 2]);
    assert_eq!(
        ["1970-01-01", "2000-02-29", "0001-01-01", "9999-12-31"].map(date),
        [Ok(0), Ok(11_016), Ok(-719_162), Ok(2_932_896)]
    );
}

#[test]
fn every_day_follows_the_day_before() {
    let mut expected = -719_162;
    for year in 1..=9999 {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let lengths = [31, 28 + i32::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        for (month, length) in (1..).zip(lengths) {
            assert_eq!(date(&format!("{year:04}-{month:02}-01")), Ok(expected));
            assert_eq!(date(&format!("{year:04}-{month:02}-{length:02}")), Ok(expected + length - 1));
            assert_eq!(date(&format!("{year:04}-{month:02}-{:02}", length + 1)), Err(TYPE));
            expected += length;
        }
    }
}

proptest! {
    #[test]
    fn a_decimal_is_the_same_however_it_is_written(
        value in -999_999_999_999_999_999_i128..=999_999_999_999_999_999, moved in 0_usize..30, zeros in 0_usize..30,
    ) {
        let sign = if value < 0 { "-" } else { "" };
        let digits = format!("{:0>1$}", value.unsigned_abs(), moved + 1);
        let (whole, fraction) = digits.split_at(digits.len() - moved);
        let exponent = moved as i64 - 6;
        let zeros = "0".repeat(zeros);
        prop_assert_eq!(decimal(&format!("{sign}{zeros}{whole}.{fraction}{zeros}e{exponent}"), 18, 6), Ok(value));
        prop_assert_eq!(decimal(&format!("{sign}{digits}{zeros}E-{}", 6 + zeros.len()), 18, 6), Ok(value));
        let plain = format!("{:0>7}", value.unsigned_abs());
        let (whole, fraction) = plain.split_at(plain.len() - 6);
        prop_assert_eq!(decimal(&format!("{sign}{whole}.{fraction}"), 18, 6), Ok(value));
        prop_assert_eq!(decimal(&format!("{sign}{whole}.{fraction}1"), 18, 6), Err(RANGE));
    }

    #[test]
    fn any_text_gets_an_answer(text in "[-+0-9.eE:TZ \\PC]{0,40}") {
        let _ = (decimal(&text, 38, 38), bigint(&text), timestamp(&text), date(&text), boolean(&text));
        // the same words are numbers for every numeric type
        prop_assert_eq!(decimal(&text, 18, 6) == Err(TYPE), double(&text) == Err(TYPE));
    }
}
