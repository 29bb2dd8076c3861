use proptest::prelude::*;

use super::*;

/// A record, owned: line, offset, bytes, length, flaw.
type Owned = (u64, u64, Vec<u8>, u64, Option<Flaw>);

#[derive(Default)]
struct Collected {
    records: Vec<Owned>,
    keep: usize,
}

impl Records for Collected {
    fn record(&mut self, cut: Cut<'_>) {
        self.records.push((cut.line, cut.offset, cut.bytes.to_vec(), cut.length, cut.flaw));
    }

    fn keep(&self, _line: u64) -> usize {
        self.keep
    }
}

const KEEP: usize = 12;

fn cut<'a>(quotes: bool, limit: usize, pushes: impl IntoIterator<Item = &'a [u8]>) -> Vec<Owned> {
    let mut splitter = Splitter::new(quotes, limit);
    let mut collected = Collected { records: Vec::new(), keep: KEEP };
    for bytes in pushes {
        splitter.push(bytes, &mut collected);
        assert!(splitter.carry.len() <= limit + 2 + bytes.len(), "the carry is bounded");
    }
    splitter.finish(&mut collected);
    collected.records
}

/// The definition of cutting, without memory limits, pushes or memory of earlier scans.
fn cut_plainly(quotes: bool, limit: usize, bytes: &[u8]) -> Vec<Owned> {
    let mut records = Vec::new();
    let (mut offset, mut line) = (if bytes.starts_with(BYTE_ORDER_MARK) { 3 } else { 0 }, 1);
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let first_line = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let (end, mut flaw) = if quotes { end_with_quotes(rest, limit) } else { (first_line, None) };
        let mut end = if flaw.is_some() { first_line } else { end };
        if without_return(&rest[..end]).len() > limit {
            (end, flaw) = (first_line, Some(Flaw::TooLong));
        }
        let record = without_return(&rest[..end]);
        let kept = if record.len() > limit { record.len().min(KEEP) } else { record.len() };
        let flaw = if record.len() > limit { Some(Flaw::TooLong) } else { flaw };
        if !is_blank(record) {
            records.push((line, offset as u64, record[..kept].to_vec(), record.len() as u64, flaw));
        }
        line += 1 + record.iter().filter(|&&byte| byte == b'\n').count() as u64;
        offset += end + 1;
    }
    records
}

fn end_with_quotes(rest: &[u8], limit: usize) -> (usize, Option<Flaw>) {
    let (mut at, mut field_start) = (0, true);
    let window = rest.len().min(limit + 2);
    let too_long = (0, Some(Flaw::TooLong));
    while at < window {
        if field_start && rest[at] == b'"' {
            at += 1;
            loop {
                match rest[at..window].iter().position(|&byte| byte == b'"') {
                    None if window < limit + 2 => return (0, Some(Flaw::OpenQuote)),
                    None => return too_long,
                    Some(quote) => at += quote + 1,
                }
                if at < window && rest[at] == b'"' { at += 1 } else { break }
            }
            let after = &rest[at..window];
            if !(after.is_empty()
                || after == b"\r"
                || after.starts_with(b",")
                || after.starts_with(b"\n")
                || after.starts_with(b"\r\n"))
            {
                return (0, Some(Flaw::TextAfterQuote));
            }
        } else {
            match rest[at] {
                b'\n' => return (at, None),
                byte => field_start = byte == b',',
            }
            at += 1;
        }
    }
    if window < limit + 2 { (rest.len(), None) } else { too_long }
}

fn texts(records: &[Owned]) -> Vec<(u64, &str, Option<Flaw>)> {
    records.iter().map(|record| (record.0, std::str::from_utf8(&record.2).unwrap(), record.4)).collect()
}

#[test]
fn lines_end_with_a_break_or_the_file() {
    let bytes = b"\xEF\xBB\xBFa\r\n\n \t\x0B\x0C\r\nb\r\r\n  c".as_slice();
    let records = cut(false, 100, [bytes]);
    assert_eq!(texts(&records), [(1, "a", None), (4, "b\r", None), (5, "  c", None)]);
    assert_eq!(records.iter().map(|record| record.1).collect::<Vec<_>>(), [3, 13, 17]);
    assert_eq!(cut(false, 100, [b"".as_slice()]), []);
    assert_eq!(cut(false, 100, [b"\xEF\xBB\xBF\n".as_slice()]), []);
    assert_eq!(cut(false, 100, [b"\xEF\xBB".as_slice()])[0].2, b"\xEF\xBB");
}

#[test]
fn the_limit_counts_neither_the_line_end_nor_the_mark() {
    let bytes = b"\xEF\xBB\xBF12345\r\n12345\n123456\r\n12345678901234\n              \n12345".as_slice();
    let long = Some(Flaw::TooLong);
    let records = cut(false, 5, [bytes]);
    assert_eq!(
        texts(&records),
        [
            (1, "12345", None),
            (2, "12345", None),
            (3, "123456", long),
            (4, "123456789012", long),
            (6, "12345", None)
        ]
    );
    assert_eq!(records[3].3, 14);
    assert_eq!(cut(false, 5, bytes.chunks(1)), records);
}

#[test]
fn quotes_hold_breaks_and_a_bad_one_costs_its_first_line() {
    let records = |text: &'static str| cut(true, 20, [text.as_bytes()]);
    assert_eq!(texts(&records("a,\"b\r\nc\"\r\nd")), [(1, "a,\"b\r\nc\"", None), (3, "d", None)]);
    assert_eq!(texts(&records("\"a\"\"\nb\"\nc")), [(1, "\"a\"\"\nb\"", None), (3, "c", None)]);
    assert_eq!(texts(&records("a\"b\nc\n")), [(1, "a\"b", None), (2, "c", None)]);
    assert_eq!(
        texts(&records("\"a\nb\nc")),
        [(1, "\"a", Some(Flaw::OpenQuote)), (2, "b", None), (3, "c", None)]
    );
    assert_eq!(texts(&records("\"a\"b\nc")), [(1, "\"a\"b", Some(Flaw::TextAfterQuote)), (2, "c", None)]);
    assert_eq!(
        texts(&records("\"a\nb\"c\nd")),
        [(1, "\"a", Some(Flaw::TextAfterQuote)), (2, "b\"c", None), (3, "d", None)]
    );
    assert_eq!(
        texts(&records("\"a\nbbbbbbbbbb\ncccccccccc\"\nd"))[..2],
        [(1, "\"a", Some(Flaw::TooLong)), (2, "bbbbbbbbbb", None)]
    );
    assert_eq!(texts(&records("\"a\"\r")), [(1, "\"a\"", None)]);
}

#[test]
fn memory_is_bounded_by_the_limit_whatever_comes() {
    for (quotes, filler) in
        [(false, b'x'), (true, b'x'), (true, b'"'), (true, b'\n'), (false, b' '), (true, b',')]
    {
        let chunk = [filler; 4096];
        let mut splitter = Splitter::new(quotes, 10_000);
        let mut collected = Collected { records: Vec::new(), keep: 100 };
        splitter.push(b"\"a,", &mut collected);
        for _ in 0..4096 {
            splitter.push(&chunk, &mut collected);
            assert!(splitter.carry.capacity() < 100_000);
            collected.records.clear();
        }
        splitter.finish(&mut collected);
        assert!(collected.records.iter().all(|record| record.2.len() <= 10_002));
    }
}

#[test]
fn lines_that_each_leave_a_quote_open_take_linear_time() {
    for line in ["x\",\"\n", "\"\",\"\n", "x\",\"y\n", "a,\"\"\"\n"] {
        let bytes = line.repeat(400_000);
        let records = cut(true, 1 << 20, bytes.as_bytes().chunks(1 << 16));
        assert!(!records.is_empty(), "{line}");
    }
}

fn csv_like() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"\"\"\"\n\n\r,,ab \xEF\xBB\xBF".to_vec()), 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn any_split_cuts_what_the_definition_says(
        bytes in csv_like(), mark: bool, quotes: bool, limit in 1_usize..30,
        sizes in prop::collection::vec(1_usize..20, 1..20),
    ) {
        let bytes = if mark { [BYTE_ORDER_MARK, &bytes].concat() } else { bytes };
        let expected = cut_plainly(quotes, limit, &bytes);
        prop_assert_eq!(&cut(quotes, limit, [bytes.as_slice()]), &expected);
        prop_assert_eq!(&cut(quotes, limit, bytes.chunks(1)), &expected);
        let mut rest = bytes.as_slice();
        let mut pushes = Vec::new();
        for &size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (push, later) = rest.split_at(size.min(rest.len()));
            pushes.push(push);
            rest = later;
        }
        prop_assert_eq!(&cut(quotes, limit, pushes), &expected);
    }
}
