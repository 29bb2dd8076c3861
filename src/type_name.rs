//! What types are called: the words of a project's TOML and SQL, also in messages of libraries, which say Arrow's.

use arrow::datatypes::DataType;

/// A lake type in the words of the project's TOML; any other in those of SQL.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => {
                format!("map<{}, {}>", type_name(pair[0].data_type()), type_name(pair[1].data_type()))
            }
            other => type_name(other),
        },
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
        other => in_words(&other.to_string()),
    }
}

/// A message in which Arrow's names of types are the project's, and its literals plain: `Int64(1) + Utf8` is `1 + text`.
pub fn in_words(message: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut told = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(start) = rest.find(is_part) {
        let end = rest[start..].find(|c| !is_part(c)).map_or(rest.len(), |length| start + length);
        let (before, word, after) = (&rest[..start], &rest[start..end], &rest[end..]);
        told.push_str(before);
        // `'Utf8'` is what somebody wrote
        let is_quoted = before.ends_with(QUOTES) && after.starts_with(QUOTES);
        let named = if is_quoted { None } else { named(word, after) };
        let (name, length) = named.unwrap_or_else(|| (word.to_owned(), 0));
        told.push_str(&name);
        rest = &after[length..];
    }
    told.push_str(rest);
    told
}

const QUOTES: [char; 2] = ['\'', '"'];

/// What stands for an Arrow type, and how many bytes behind its word belong to it.
fn named(word: &str, after: &str) -> Option<(String, usize)> {
    let inside = inside(after);
    let length = inside.map_or(0, |inside| inside.len() + 2);
    if let Some(name) = plain(word) {
        return Some(match inside {
            Some(literal) if is_literal(literal) => (literal.to_owned(), length),
            _ => (name.to_owned(), 0),
        });
    }
    let inside = inside?;
    let name = match word {
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => {
            let (precision, scale) = inside.split_once(',')?;
            let digits = [precision.trim(), scale.trim()];
            digits.iter().all(|number| number.parse::<i8>().is_ok()).then(|| {
                let [precision, scale] = digits;
                format!("decimal({precision},{scale})")
            })?
        }
        "Timestamp" => timestamp(inside)?,
        "Time32" | "Time64" => "time".to_owned(),
        "Interval" | "Duration" => word.to_lowercase(),
        "List" | "LargeList" => {
            let item = inside.strip_prefix("non-null ").unwrap_or(inside);
            let item = item.split_once(", field: ").map_or(item, |(item, _)| item);
            format!("list<{}>", in_words(item))
        }
        "Dictionary" => in_words(inside.split_once(", ")?.1),
        _ => return None,
    };
    Some((name, length))
}

fn plain(word: &str) -> Option<&'static str> {
    Some(match word {
        "Null" => "null",
        "Boolean" => "boolean",
        "Int8" => "tinyint",
        "Int16" => "smallint",
        "Int32" => "int",
        "Int64" => "bigint",
        "UInt8" => "tinyint unsigned",
        "UInt16" => "smallint unsigned",
        "UInt32" => "int unsigned",
        "UInt64" => "bigint unsigned",
        "Float32" => "real",
        "Float64" => "double",
        "Date32" => "date",
        "Utf8" | "LargeUtf8" | "Utf8View" => "text",
        "Binary" | "LargeBinary" | "BinaryView" => "binary",
        _ => return None,
    })
}

/// `Int64(1)`, `Utf8("a")`, `Boolean(NULL)`.
fn is_literal(inside: &str) -> bool {
    matches!(inside, "NULL" | "true" | "false") || inside.starts_with('"') || inside.parse::<f64>().is_ok()
}

/// The lake's timestamps by their plain name, others with what sets them apart.
fn timestamp(inside: &str) -> Option<String> {
    let (unit, zone) = inside.split_once(", ").map_or((inside, None), |(unit, zone)| (unit, Some(zone)));
    let digits = match unit {
        "s" | "Second" => 0,
        "ms" | "Millisecond" => 3,
        "µs" | "Microsecond" => 6,
        "ns" | "Nanosecond" => 9,
        _ => return None,
    };
    let zone = zone.filter(|zone| *zone != "None").map(|zone| {
        let zone = zone.strip_prefix("Some(").and_then(|zone| zone.strip_suffix(')')).unwrap_or(zone);
        zone.trim_matches('"')
    });
    Some(match (digits, zone) {
        (6, Some("UTC" | "+00:00")) => "timestamp".to_owned(),
        (digits, Some(zone)) => format!("timestamp({digits}) in {zone}"),
        (digits, None) => format!("timestamp({digits}) without zone"),
    })
}

/// What stands between the parenthesis with which `text` begins and the one that closes it; one in a text is none.
fn inside(text: &str) -> Option<&str> {
    let (mut depth, mut is_text) = (0_usize, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' if depth > 0 => is_text = !is_text,
            _ if is_text => {}
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        match (at, depth) {
            (0, 0) => return None,
            (_, 0) => return Some(&text[1..at]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, TimeUnit};

    use super::*;

    #[test]
    fn types_are_called_as_in_the_projects_files() {
        let utc = |unit| DataType::Timestamp(unit, Some("UTC".into()));
        let list = |item| DataType::List(Arc::new(Field::new("element", item, false)));
        for (data_type, name) in [
            (DataType::Utf8View, "text"),
            (DataType::BinaryView, "binary"),
            (DataType::Int64, "bigint"),
            (DataType::Decimal128(18, 6), "decimal(18,6)"),
            (utc(TimeUnit::Microsecond), "timestamp"),
            (utc(TimeUnit::Nanosecond), "timestamp(9) in UTC"),
            (DataType::Timestamp(TimeUnit::Microsecond, None), "timestamp(6) without zone"),
            (list(list(DataType::Float64)), "list<list<double>>"),
            (DataType::UInt64, "bigint unsigned"),
            (DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), "text"),
        ] {
            assert_eq!(type_name(&data_type), name);
        }
    }

    #[test]
    fn messages_are_told_in_the_same_words() {
        for (said, told) in [
            ("Cannot coerce Utf8View + Int64", "Cannot coerce text + bigint"),
            ("abs(Decimal128(18, 6)), List(non-null Utf8)", "abs(decimal(18,6)), list<text>"),
            ("value of Int64 type: Utf8(\"a ) b\") + Int64(-1)", "value of bigint type: \"a ) b\" + -1"),
            ("Timestamp(ns) is no Timestamp(µs, \"UTC\")", "timestamp(9) without zone is no timestamp"),
            ("Timestamp(Nanosecond, None)", "timestamp(9) without zone"),
            (
                "cast to 'Utf8', Int64x, `Int64`, ü Decimal128(",
                "cast to 'Utf8', Int64x, `bigint`, ü Decimal128(",
            ),
            ("sum(Int8/Int16) Decimal128(Some(150),3,2)", "sum(tinyint/smallint) Decimal128(Some(150),3,2)"),
            ("a line of a project", "a line of a project"),
            ("", ""),
        ] {
            assert_eq!(in_words(said), told);
        }
    }
}
