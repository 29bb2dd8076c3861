//! Reads a record from the fields of a CSV line, by the names of the header.
//!
//! The record was cut by the quotes already, so every quote that opens a field closes it.

use std::fmt::Write;

use memchr::memchr;

use super::record::{Landed, Record, Span};
use super::reject::excerpt;

/// The longest name of a column, in bytes. Every rescued field repeats its column's name, so that short records
/// under a huge name would grow without limit.
const MAX_NAME_BYTES: usize = 255;

/// A file's header: which declared column each of its columns is.
#[derive(Debug, Default)]
pub(super) struct Header {
    columns: Vec<Named>,
}

#[derive(Debug)]
struct Named {
    /// As a JSON string.
    name: String,
    declared: Option<usize>,
}

/// A field between its quotes or commas.
struct Field {
    start: usize,
    end: usize,
    /// Where the comma after it stands, or the record's end.
    after: usize,
    has_quotes_inside: bool,
}

impl Header {
    /// Reads the header, or says why no record of its file can be read. `declared` are the names it must hold.
    pub(super) fn read(text: &str, declared: &[&str]) -> Result<Self, String> {
        let mut names: Vec<String> = Vec::new();
        for field in fields(text) {
            let mut name = String::new();
            push_unquoted(text, &field, &mut name);
            if name.len() > MAX_NAME_BYTES {
                let bytes = name.len();
                return Err(format!(
                    "the header names a column with {bytes} bytes, more than {MAX_NAME_BYTES}"
                ));
            }
            names.push(name);
        }
        let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("the header repeats column `{}`", excerpt(pair[0])));
        }
        if let Some(missing) = declared.iter().find(|name| sorted.binary_search(name).is_err()) {
            return Err(format!("the header lacks column `{missing}`: it is `{}`", excerpt(text)));
        }
        let named = |name: &String| Named {
            name: json_string(name),
            declared: declared.iter().position(|declared| declared == name),
        };
        Ok(Header { columns: names.iter().map(named).collect() })
    }

    /// Reads `text` into `record`; an error is why it is malformed.
    pub(super) fn read_record(&self, text: &str, record: &mut Record) -> Result<(), String> {
        let mut count = 0;
        for field in fields(text) {
            if let Some(column) = self.columns.get(count) {
                read_field(text, &field, column, record);
            }
            count += 1;
        }
        if count != self.columns.len() {
            return Err(format!("{count} columns, but the header has {}", self.columns.len()));
        }
        Ok(())
    }
}

fn read_field(text: &str, field: &Field, column: &Named, record: &mut Record) {
    let span = span_of(text, field, record);
    let kept = match column.declared {
        Some(declared) => {
            let landed = if span.start == span.end { Landed::Null } else { Landed::Text(span) };
            record.set(declared, landed, text)
        }
        None => false,
    };
    if !kept {
        let value = json_string(record.text(span, text));
        record.rescue(&column.name, &value);
    }
}

fn span_of(text: &str, field: &Field, record: &mut Record) -> Span {
    if !field.has_quotes_inside {
        return Span { start: field.start, end: field.end, aside: false };
    }
    let start = record.side.len();
    push_unquoted(text, field, &mut record.side);
    Span { start, end: record.side.len(), aside: true }
}

fn push_unquoted(text: &str, field: &Field, out: &mut String) {
    let inside = &text[field.start..field.end];
    if !field.has_quotes_inside {
        return out.push_str(inside);
    }
    let mut first = true;
    for part in inside.split("\"\"") {
        if !first {
            out.push('"');
        }
        first = false;
        out.push_str(part);
    }
}

/// The fields of a record: at least one.
fn fields(text: &str) -> impl Iterator<Item = Field> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let field = field_at(text.as_bytes(), next?);
        next = (field.after < text.len()).then_some(field.after + 1);
        Some(field)
    })
}

fn field_at(text: &[u8], start: usize) -> Field {
    let rest = &text[start..];
    if rest.first() != Some(&b'"') {
        let end = start + memchr(b',', rest).unwrap_or(rest.len());
        return Field { start, end, after: end, has_quotes_inside: false };
    }
    let start = start + 1;
    let mut end = start;
    let mut has_quotes_inside = false;
    loop {
        end += memchr(b'"', &text[end..]).unwrap_or(text.len() - end);
        if text.get(end + 1) != Some(&b'"') {
            return Field { start, end, after: text.len().min(end + 1), has_quotes_inside };
        }
        has_quotes_inside = true;
        end += 2;
    }
}

fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\0'..='\x1f' => {
                // writing to a String cannot fail
                let _ = write!(json, "\\u{:04x}", u32::from(char));
            }
            _ => json.push(char),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(record: &str) -> Vec<String> {
        let unquoted = |field| {
            let mut text = String::new();
            push_unquoted(record, &field, &mut text);
            text
        };
        fields(record).map(unquoted).collect()
    }

    #[test]
    fn fields_are_cut_at_commas_outside_quotes() {
        assert_eq!(texts(""), [""]);
        assert_eq!(texts(","), ["", ""]);
        assert_eq!(texts(r#"a,"b,c",d"#), ["a", "b,c", "d"]);
        assert_eq!(texts(r#""a""b","""","""#), ["a\"b", "\"", ""]);
        assert_eq!(texts("\"x\ny\",\"\""), ["x\ny", ""]);
        assert_eq!(texts(r#"5" disk,a"b""c"#), ["5\" disk", "a\"b\"\"c"]);
    }

    #[test]
    fn a_header_is_refused_with_the_column_named() {
        let refusal = |text| Header::read(text, &["id", "day"]).map(|_| ()).unwrap_err();
        assert_eq!(refusal("id,month"), "the header lacks column `day`: it is `id,month`");
        assert_eq!(refusal("id,day,id"), "the header repeats column `id`");
        assert_eq!(refusal("id,day,,"), "the header repeats column ``");
        assert_eq!(refusal("ID,day"), "the header lacks column `id`: it is `ID,day`");
        assert!(Header::read("\"day\",extra,id", &["id", "day"]).is_ok());
    }

    #[test]
    fn json_strings_parse_back() {
        for text in ["", "a\"b\\c/", "\0\u{1f}\n\r\t\u{7f}\u{2028}é😀"] {
            assert_eq!(serde_json::from_str::<String>(&json_string(text)).unwrap(), text);
        }
    }
}
