use proptest::prelude::*;

use super::*;

/// The members of a line as (key, raw value), or why there are none.
fn scan(line: &str) -> Result<Vec<(String, String)>, Flaw> {
    let mut scratch = Scratch::default();
    let mut scanner = Scanner::new(line, 64, &mut scratch);
    let mut members = Vec::new();
    let mut more = scanner.enter()?;
    while more {
        let (key, _) = scanner.key(b"\"guessed\"")?;
        let (_, start, end) = scanner.value()?;
        scanner.remember(key);
        let mut name = String::new();
        unescape(line, key, &mut name);
        members.push((name, line[start..end].to_owned()));
        more = scanner.next_member()?;
    }
    scanner.finish()?;
    Ok(members)
}

#[test]
fn one_object_is_accepted() {
    let lines = [
        "{}",
        " \t\r{ \"a\" : 1 , \"b\" : [ ] }\t",
        r#"{"a":-0.0e+10,"b":0,"c":1E2,"d":-1.5}"#,
        r#"{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","é😀":"\u0000"}"#,
        "{\"\u{7f}\":\"\u{7f}\u{2028}\"}",
        r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1},[[],{}]],"":null,"t":true,"f":false}"#,
    ];
    for line in lines {
        let members = scan(line).unwrap_or_else(|flaw| panic!("{line}: {}", flaw.describe(line)));
        let expected: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        assert_eq!(members.len(), expected.len());
        for (name, raw) in members {
            assert_eq!(serde_json::from_str::<serde_json::Value>(&raw).unwrap(), expected[&name]);
        }
    }
}

#[test]
fn anything_else_is_refused_with_the_place() {
    let cases = [
        ("", "expected `{` at byte 0"),
        ("[]", "expected `{` at byte 0"),
        ("1", "expected `{` at byte 0"),
        ("{} {}", "expected the line's end at byte 3"),
        ("{}\0", "expected the line's end at byte 2"),
        (r#"{"a":1,}"#, "expected a key at byte 7"),
        (r#"{"a":1 "b":2}"#, "expected `,` or `}` at byte 7"),
        (r#"{"a":[1,]}"#, "expected a value at byte 8"),
        (r#"{"a":[1 2]}"#, "expected `,` or `]` at byte 8"),
        (r#"{"a":[1}"#, "expected `,` or `]` at byte 7"),
        (r#"{"a" 1}"#, "expected `:` at byte 5"),
        (r#"{a:1}"#, "expected a key at byte 1"),
        (r#"{"a":007}"#, "expected `,` or `}` at byte 6"),
        (r#"{"a":+1}"#, "expected a value at byte 5"),
        (r#"{"a":.5}"#, "expected a value at byte 5"),
        (r#"{"a":1.}"#, "expected a digit at byte 7"),
        (r#"{"a":1e}"#, "expected a digit at byte 7"),
        (r#"{"a":-}"#, "expected a digit at byte 6"),
        (r#"{"a":NaN}"#, "expected a value at byte 5"),
        (r#"{"a":nul}"#, "expected a value at byte 5"),
        (r#"{"a":'b'}"#, "expected a value at byte 5"),
        ("{\"a\":\"\n\"}", "expected an escaped control character at byte 6"),
        ("{\"a\":\"\0\"}", "expected an escaped control character at byte 6"),
        ("{\"abcdefgh\u{1f}\":1}", "expected an escaped control character at byte 10"),
        (r#"{"a":"\x"}"#, "expected an escape of a character at byte 6"),
        (r#"{"a":"\u12g4"}"#, "expected an escape of a character at byte 6"),
        (r#"{"a":"\ud800"}"#, "expected an escape of a character at byte 6"),
        (r#"{"a":"\udc00"}"#, "expected an escape of a character at byte 6"),
        (r#"{"a":"\ud800\u0041"}"#, "expected an escape of a character at byte 6"),
        (r#"{"a":"\u+041"}"#, "expected an escape of a character at byte 6"),
        (r#"{"a":"b"#, "expected a closing `\"` at byte 7"),
        (r#"{"a":1"#, "expected `,` or `}` at byte 6"),
        (r#"{"a":1}//"#, "expected the line's end at byte 7"),
        ("\u{feff}{}", "expected `{` at byte 0"),
    ];
    for (line, reason) in cases {
        assert_eq!(
            scan(line).unwrap_err().describe(line),
            format!("not one JSON object: {reason}"),
            "{line}"
        );
    }
}

#[test]
fn a_key_may_come_once_per_object_however_it_is_written() {
    let many: String = (0..50).map(|number| format!("\"k{number}\":0,")).collect();
    let lines = [
        r#"{"a":1,"a":1}"#.to_owned(),
        r#"{"a":1,"\u0061":2}"#.to_owned(),
        r#"{"\u0061":1,"b":0,"\u0061":2}"#.to_owned(),
        r#"{"x":{"a":1,"b":{"a":1},"a":2}}"#.to_owned(),
        r#"{"x":[0,{"é":1,"\u00e9":2}]}"#.to_owned(),
        format!(r#"{{"x":{{{many}"k7":1}}}}"#),
        format!(r#"{{{many}"\u006b49":1}}"#),
    ];
    for line in lines {
        assert!(matches!(scan(&line), Err(Flaw::KeyTwice(..))), "{line}");
    }
    let reason = |line| scan(line).unwrap_err().describe(line);
    assert_eq!(reason(r#"{"a":1,"\u0061":2}"#), "key `\\u0061` is twice in one object, again at byte 8");
    assert!(scan(&format!(r#"{{"x":{{{many}"k50":1}},{many}"k50":{{"k50":1}}}}"#)).is_ok());
}

#[test]
fn depth_is_limited_and_costs_no_stack() {
    let nested = |open: &str, close: &str, levels: usize| {
        format!("{{\"a\":{}1{}}}", open.repeat(levels), close.repeat(levels))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        assert!(scan(&nested(open, close, 63)).is_ok());
        assert_eq!(scan(&nested(open, close, 64)), Err(Flaw::TooDeep(5 + 63 * open.len())));
        assert!(matches!(scan(&nested(open, close, 1_000_000)), Err(Flaw::TooDeep(_))));
        assert!(matches!(scan(&nested(open, "", 1_000_000)), Err(Flaw::TooDeep(_))));
    }
}

#[test]
fn many_keys_take_no_quadratic_time() {
    let keys: String = (0..200_000).map(|number| format!(",\"{number}\":0")).collect();
    assert!(scan(&format!("{{\"x\":{{\"first\":0{keys}}}{keys}}}")).is_ok());
}

/// A JSON value as it may land: a key may come twice.
#[derive(Clone, Debug)]
enum Tree {
    Scalar(&'static str),
    Text(Vec<&'static str>),
    Array(Vec<Tree>),
    Object(Vec<(Vec<&'static str>, Tree)>),
}

/// Pieces of strings that are all different unescaped, except each with its neighbour in a pair.
const PIECES: [[&str; 2]; 5] = [
    ["a", "\\u0061"],
    ["\u{e9}", "\\u00E9"],
    ["\\\"", "\\u0022"],
    ["\\ud83d\\ude00", "\u{1f600}"],
    ["longer than eight", "\\u006conger than eight"],
];

fn pieces() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec((0..PIECES.len(), 0..2_usize).prop_map(|(piece, form)| PIECES[piece][form]), 0..3)
}

fn tree() -> impl Strategy<Value = Tree> {
    let scalars = ["null", "true", "false", "0", "-1", "1.50", "2E+3", "12345678901234567890"];
    let leaf = prop_oneof![
        prop::sample::select(scalars.to_vec()).prop_map(Tree::Scalar),
        pieces().prop_map(Tree::Text)
    ];
    leaf.prop_recursive(4, 40, 10, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::Array),
            prop::collection::vec((pieces(), inner), 0..12).prop_map(Tree::Object),
        ]
    })
}

fn object() -> impl Strategy<Value = Tree> {
    prop::collection::vec((pieces(), tree()), 0..12).prop_map(Tree::Object)
}

impl Tree {
    fn write(&self, white: &str, out: &mut String) {
        let list = |out: &mut String, items: &mut dyn Iterator<Item = Box<dyn Fn(&mut String) + '_>>| {
            for (index, item) in items.enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                out.push_str(white);
                item(out);
                out.push_str(white);
            }
        };
        match self {
            Tree::Scalar(scalar) => out.push_str(scalar),
            Tree::Text(text) => *out += &format!("\"{}\"", text.concat()),
            Tree::Array(items) => {
                out.push('[');
                list(
                    out,
                    &mut items.iter().map(|item| {
                        Box::new(move |out: &mut String| item.write(white, out)) as Box<dyn Fn(&mut String)>
                    }),
                );
                out.push(']');
            }
            Tree::Object(members) => {
                out.push('{');
                list(
                    out,
                    &mut members.iter().map(|(key, value)| {
                        Box::new(move |out: &mut String| {
                            *out += &format!("\"{}\"{white}:{white}", key.concat());
                            value.write(white, out);
                        }) as Box<dyn Fn(&mut String)>
                    }),
                );
                out.push('}');
            }
        }
    }

    fn has_a_key_twice(&self) -> bool {
        match self {
            Tree::Scalar(_) | Tree::Text(_) => false,
            Tree::Array(items) => items.iter().any(Tree::has_a_key_twice),
            Tree::Object(members) => {
                let mut keys: Vec<String> = members
                    .iter()
                    .map(|(key, _)| serde_json::from_str(&format!("\"{}\"", key.concat())).unwrap())
                    .collect();
                keys.sort();
                keys.windows(2).any(|pair| pair[0] == pair[1])
                    || members.iter().any(|(_, value)| value.has_a_key_twice())
            }
        }
    }
}

fn json_byte() -> impl Strategy<Value = u8> {
    prop::sample::select(b"{}[]\",:\\ue+-.0189d tfn\x00\x1f\x80\xff\n".to_vec())
}

/// Whether serde_json takes the line for one object; `None` where it stumbles over a number's size.
fn reference(line: &str) -> Option<bool> {
    match serde_json::from_str::<serde_json::Value>(line) {
        Ok(value) => Some(value.is_object()),
        Err(error) if error.to_string().contains("number out of range") => None,
        Err(_) => Some(false),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn lines_are_accepted_unless_a_key_comes_twice(tree in object(), white in "[ \t\r\n]{0,2}") {
        let mut line = String::new();
        tree.write(&white, &mut line);
        match scan(&line) {
            Ok(_) => prop_assert!(!tree.has_a_key_twice(), "{}", line),
            Err(Flaw::KeyTwice(..)) => prop_assert!(tree.has_a_key_twice(), "{}", line),
            Err(flaw) => prop_assert!(false, "{} {:?}", line, flaw),
        }
        prop_assert_eq!(reference(&line), Some(true));
    }

    #[test]
    fn mutated_lines_are_judged_as_serde_json_does(
        tree in object(), edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, json_byte()), 1..4),
    ) {
        let mut line = String::new();
        tree.write("", &mut line);
        let mut bytes = line.into_bytes();
        for (place, edit, byte) in edits {
            let at = place.index(bytes.len() + 1);
            match edit {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ => bytes.truncate(at.max(1)),
            }
        }
        let Ok(line) = String::from_utf8(bytes) else { return Ok(()) };
        match (scan(&line), reference(&line)) {
            (_, None) | (Err(Flaw::KeyTwice(..)), Some(_)) => {}
            (scanned, expected) => prop_assert_eq!(Some(scanned.is_ok()), expected, "{} {:?}", line, scanned),
        }
    }

    #[test]
    fn special_bytes_are_found_where_they_are(
        bytes in prop::collection::vec(prop_oneof![json_byte(), any::<u8>()], 0..40), from in 0_usize..10,
    ) {
        let from = from.min(bytes.len());
        let special = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < 0x20;
        let expected = bytes[from..].iter().position(special).map_or(bytes.len(), |found| from + found);
        prop_assert_eq!(plain_until(&bytes, from), expected);
    }
}
