//! SQL and CQL as markup: keywords, texts, numbers and comments set apart, tables linked to their sections.

use super::atlas::shown_as;
use super::html::{Markup, el, link, text};
use crate::project::sql::TableName;

/// Words that are set apart; what is not here is still shown, only plainly.
const KEYWORDS: &[&str] = &[
    "all",
    "allow",
    "and",
    "any",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "clustering",
    "create",
    "cross",
    "current",
    "default",
    "delete",
    "desc",
    "distinct",
    "else",
    "end",
    "except",
    "exists",
    "false",
    "filter",
    "filtering",
    "following",
    "from",
    "full",
    "group",
    "having",
    "if",
    "in",
    "inner",
    "insert",
    "intersect",
    "into",
    "is",
    "join",
    "key",
    "lateral",
    "left",
    "like",
    "limit",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "over",
    "partition",
    "preceding",
    "primary",
    "qualify",
    "range",
    "recursive",
    "right",
    "row",
    "rows",
    "select",
    "set",
    "table",
    "then",
    "timestamp",
    "true",
    "unbounded",
    "union",
    "unnest",
    "update",
    "using",
    "values",
    "when",
    "where",
    "with",
    "within",
];

/// A kind of piece: a class of the style sheet; none for what is shown plainly.
type Kind = Option<&'static str>;

/// A query or statement as it is shown. `is_known` says which tables have a section.
pub fn shown(query: &str, is_known: impl Fn(&TableName) -> bool) -> Markup {
    let mut code = el("code");
    let pieces = pieces(query.trim());
    let mut at = 0;
    while let Some((kind, piece)) = pieces.get(at) {
        // `zone.table`
        if let [(None, zone), (_, "."), (_, table), ..] = &pieces[at..]
            && is_known(&shown_as(&name(zone, table)))
        {
            code = code.add(link(shown_as(&name(zone, table)), format!("{zone}.{table}")));
            at += 3;
            continue;
        }
        code = match kind {
            Some(class) => code.add(el("span").class(class).text(piece)),
            None => code.add(text(piece)),
        };
        at += 1;
    }
    el("pre").class("sql").set("tabindex", 0).add(code).into()
}

fn name(zone: &str, table: &str) -> TableName {
    TableName::new(zone, table.trim_matches('"'))
}

fn pieces(query: &str) -> Vec<(Kind, &str)> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let (kind, end) = piece(rest, first);
        found.push((kind, &rest[..end]));
        rest = &rest[end..];
    }
    found
}

/// The kind and the length of the piece that the text begins with.
fn piece(text: &str, first: char) -> (Kind, usize) {
    let until = |ends: &str| text.find(ends).map_or(text.len(), |at| at + ends.len());
    let quoted = |mark: char| text[1..].find(mark).map_or(text.len(), |at| at + 2);
    let word = |is_part: fn(char) -> bool| text.find(|c| !is_part(c)).unwrap_or(text.len());
    match first {
        '-' if text.starts_with("--") => (Some("comment"), text.find('\n').unwrap_or(text.len())),
        '/' if text.starts_with("/*") => (Some("comment"), until("*/")),
        '\'' => (Some("string"), quoted('\'')),
        '"' => (None, quoted('"')),
        ':' | '$' if text[1..].starts_with(|c: char| c.is_alphabetic()) => {
            (Some("parameter"), 1 + text[1..].find(|c: char| !is_word(c)).unwrap_or(text.len() - 1))
        }
        c if c.is_ascii_digit() => (Some("number"), word(|c| c.is_ascii_digit() || c == '.')),
        c if is_word(c) => {
            let end = word(is_word);
            let is_keyword = KEYWORDS.binary_search(&text[..end].to_lowercase().as_str()).is_ok();
            let is_function = text[end..].starts_with('(');
            (is_keyword.then_some("keyword").or(is_function.then_some("function")), end)
        }
        '.' => (None, 1),
        _ => (
            None,
            text.find(|c: char| is_word(c) || "-/'\":$.".contains(c))
                .filter(|at| *at > 0)
                .unwrap_or(first.len_utf8()),
        ),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_known_and_none_is_lost() {
        assert!(KEYWORDS.is_sorted());
        let query = "select sum(x) as \"select\", 'it''s -- no' -- yes\nfrom silver.users /* a */ where y >= 1.5 and z = :day";
        let found = pieces(query);
        assert_eq!(found.iter().map(|(_, piece)| *piece).collect::<String>(), query);
        for (kind, piece) in [
            (Some("keyword"), "select"),
            (Some("function"), "sum"),
            (None, "\"select\""),
            (Some("string"), "'s -- no'"),
            (Some("comment"), "-- yes"),
            (Some("comment"), "/* a */"),
            (Some("number"), "1.5"),
            (Some("parameter"), ":day"),
        ] {
            assert!(found.contains(&(kind, piece)), "{piece}: {found:?}");
        }
        for odd in ["'open", "--", "/*", "\"", "ü+é", ":", "$1", "a.b.c", "''", "-", "é"] {
            assert_eq!(pieces(odd).iter().map(|(_, piece)| *piece).collect::<String>(), odd);
        }
    }

    #[test]
    fn tables_are_linked_and_hostile_text_is_text() {
        let made = shown("select '<script>' from accepted.users", |name| name.to_string() == "bronze.users");
        assert!(made.as_str().contains("<a href=\"#bronze.users\">accepted.users</a>"), "{made:?}");
        assert!(made.as_str().contains("&#39;&lt;script&gt;&#39;"), "{made:?}");
    }
}
