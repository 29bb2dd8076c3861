//! Reads a manifest's TOML past its mistakes: every unknown key, wrong type and missing key at once, and of the rest as much
//! as can be read.

use std::collections::BTreeSet;

use datafusion::common::utils::datafusion_strsim::levenshtein;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::diagnostics::{Diagnostics, line_at};
use super::read::Text;

/// A manifest as written. What is not there has its default.
pub trait Manifest: DeserializeOwned + Default {
    /// The keys that must be there, by the tables that hold them: `` is the file, `columns` every table of that list,
    /// `parameters.*` every table of that table.
    const REQUIRED: &[(&'static str, &[&'static str])];
}

/// A manifest, as far as it could be read.
#[derive(Debug)]
pub struct Lenient<M> {
    pub manifest: M,
    pub damage: Damage,
}

/// The first keys (`columns` of `columns[2].type`) of what was wrong.
#[derive(Debug, Clone, Default)]
pub struct Damage {
    keys: BTreeSet<String>,
    /// Nothing could be read.
    is_total: bool,
}

impl Damage {
    pub fn total() -> Self {
        Self { keys: BTreeSet::new(), is_total: true }
    }

    /// Whether something is wrong with `key` or its spelling, so that what it says must not be judged.
    pub fn touches(&self, key: &str) -> bool {
        self.is_total || self.keys.iter().any(|damaged| is_near(damaged, key))
    }

    /// Whether nothing is wrong but these keys or their spelling.
    pub fn is_within(&self, keys: &[&str]) -> bool {
        !self.is_total && self.keys.iter().all(|damaged| keys.iter().any(|key| is_near(damaged, key)))
    }
}

impl<M: Manifest> Lenient<M> {
    /// Stands for a file that is not there.
    pub fn absent() -> Self {
        Self { manifest: M::default(), damage: Damage::total() }
    }

    /// Reads what can be read and tells the rest.
    pub fn parse(text: &Text, found: &mut Diagnostics) -> Self {
        let (mut root, errors) = DeTable::parse_recoverable(&text.text);
        let line =
            |span: Option<std::ops::Range<usize>>| span.map_or(0, |span| line_at(&text.text, span.start));
        if let Some(error) = errors.first() {
            // what comes after it is mostly its consequence
            found.add(&text.file, line(error.span()), error.message());
            return Self::absent();
        }
        let whole = root.clone();
        let mut damage = Damage::default();
        let mut taken_out = BTreeSet::new();
        let manifest = loop {
            let error = match M::deserialize(Deserializer::from(root.clone())) {
                Ok(manifest) => break manifest,
                Err(error) => error,
            };
            found.add(&text.file, line(error.span()), error.message());
            // without what was wrong, the rest can be read
            match error.span().and_then(|span| take_out(root.get_mut(), span.start, &mut taken_out)) {
                Some(key) => damage.keys.insert(key),
                None => return Self::absent(),
            };
        };
        for (path, keys) in M::REQUIRED {
            for (at, table) in tables(whole.get_ref(), path) {
                let first = path.split('.').next().filter(|first| !first.is_empty());
                for key in keys.iter().filter(|key| !table.contains_key(**key)) {
                    if !is_misspelt(table, key, &taken_out) {
                        found.add(
                            &text.file,
                            line(at.map(|at| at..at)),
                            format!("the key `{key}` is missing"),
                        );
                    }
                    damage.keys.insert(first.unwrap_or(key).to_owned());
                }
            }
        }
        Self { manifest, damage }
    }
}

/// The line (from 1) of a key such as `serving.keyspace` or, of a list's table, `alerts.0.on`; of the innermost part that is
/// there, 0 where none is.
pub fn line_of_key(text: &str, path: &str) -> usize {
    let (root, _) = DeTable::parse_recoverable(text);
    let (mut table, mut line) = (root.get_ref(), 0);
    let mut parts = path.split('.');
    while let Some(part) = parts.next() {
        let Some((key, mut value)) = table.iter().find(|(key, _)| key.get_ref() == part) else { break };
        line = line_at(text, key.span().start);
        if let DeValue::Array(items) = value.get_ref() {
            let number = parts.next().and_then(|number| number.parse::<usize>().ok());
            let Some(item) = number.and_then(|number| items.get(number)) else { break };
            line = line_at(text, item.span().start);
            value = item;
        }
        let DeValue::Table(below) = value.get_ref() else { break };
        table = below;
    }
    line
}

/// Whether a key that was taken out looks like the missing one: it has been told already.
fn is_misspelt(table: &DeTable<'_>, missing: &str, taken_out: &BTreeSet<String>) -> bool {
    table
        .iter()
        .map(|(key, _)| key.get_ref())
        .any(|key| taken_out.contains(key.as_ref()) && is_near(key, missing))
}

fn is_near(a: &str, b: &str) -> bool {
    levenshtein(a, b) <= 2
}

/// Takes out the innermost key that stands, or whose value stands, at an offset; returns the key of `table` above it.
fn take_out(table: &mut DeTable<'_>, offset: usize, taken_out: &mut BTreeSet<String>) -> Option<String> {
    let mut hit = None;
    for (key, value) in table.iter_mut() {
        let is_key = key.span().contains(&offset);
        if !is_key && take_out_below(value.get_mut(), offset, taken_out) {
            return Some(key.get_ref().to_string());
        }
        if is_key || value.span().contains(&offset) {
            hit = Some(key.get_ref().to_string());
            break;
        }
    }
    if let Some(key) = &hit {
        table.remove(key.as_str());
        taken_out.insert(key.clone());
    }
    hit
}

fn take_out_below(value: &mut DeValue<'_>, offset: usize, taken_out: &mut BTreeSet<String>) -> bool {
    match value {
        DeValue::Table(table) => take_out(table, offset, taken_out).is_some(),
        DeValue::Array(items) => {
            items.iter_mut().any(|item| take_out_below(item.get_mut(), offset, taken_out))
        }
        _ => false,
    }
}

/// The tables at a path, each with where it begins (the file begins nowhere).
fn tables<'a>(root: &'a DeTable<'a>, path: &str) -> Vec<(Option<usize>, &'a DeTable<'a>)> {
    let mut found = vec![(None, root)];
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let mut below = Vec::new();
        for (_, table) in found {
            let values = table.iter().filter(|(key, _)| part == "*" || key.get_ref() == part);
            for (_, value) in values {
                match value.get_ref() {
                    DeValue::Array(items) => below.extend(items.iter().filter_map(placed)),
                    _ => below.extend(placed(value)),
                }
            }
        }
        found = below;
    }
    found
}

fn placed<'a>(value: &'a Spanned<DeValue<'a>>) -> Option<(Option<usize>, &'a DeTable<'a>)> {
    value.get_ref().as_table().map(|table| (Some(value.span().start), table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::manifest::{ProjectManifest, QuestionManifest, SourceManifest};

    fn told<M: Manifest>(text: &str) -> (Lenient<M>, Vec<String>) {
        let mut found = Diagnostics::default();
        let text = Text { file: "x.toml".into(), text: text.to_owned() };
        let read = Lenient::parse(&text, &mut found);
        (read, found.into_sorted().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn keys_are_found_where_they_stand() {
        let text = "key = []\n[serving]\n# hosts\nhosts = [\"a\"]\n\n[[alerts]]\non = 1\n[[alerts]]\nkind = 2\non = 3\n";
        for (path, line) in [
            ("key", 1),
            ("serving", 2),
            ("serving.hosts", 4),
            ("serving.keyspace", 2),
            ("alerts.0.on", 7),
            ("alerts.1.on", 10),
            ("alerts.1.url_env", 8),
            ("on", 0),
        ] {
            assert_eq!(line_of_key(text, path), line, "{path}");
        }
    }

    #[test]
    fn every_mistake_is_told_and_the_rest_is_read() {
        let text = "description = 1\nfiels = \"a\"\nformat = \"xml\"\nmode = \"events\"\nkey = [\"id\", 2]\n\
                    columns = [\n  { name = \"id\", typ = \"text\" },\n  { type = \"int\", required = 3 },\n]\n\
                    [[rules]]\nerror_type = \"x\"\nwhen = true\n";
        let (read, told) = told::<SourceManifest>(text);
        let starts = [
            "x.toml: the key `partition` is missing",
            "x.toml:1: invalid type: integer `1`",
            "x.toml:2: unknown field `fiels`",
            "x.toml:3: unknown variant `xml`",
            "x.toml:5: invalid type: integer `2`",
            "x.toml:7: unknown field `typ`",
            "x.toml:8: invalid type: integer `3`",
            "x.toml:8: the key `name` is missing",
            "x.toml:10: the key `reason` is missing",
            "x.toml:12: invalid type: boolean `true`",
        ];
        assert_eq!(told.len(), starts.len(), "{told:#?}");
        for (told, start) in told.iter().zip(starts) {
            assert!(told.starts_with(start), "{told}\n{start}");
        }
        assert_eq!(read.manifest.columns[0].name, "id");
        assert!(read.damage.touches("key") && read.damage.touches("files"), "{:?}", read.damage);
        assert!(!read.damage.touches("watermark_delay"), "{:?}", read.damage);
    }

    #[test]
    fn sections_and_tables_of_tables_are_looked_into() {
        let (_, project) = told::<ProjectManifest>("[limits]\nnesting = \"deep\"\n[serving]\nhosts = []\n");
        let starts =
            ["the key `project` is missing", ":2: invalid type", ":3: the key `keyspace` is missing"];
        assert_eq!(project.len(), 3, "{project:?}");
        assert!(project.iter().zip(starts).all(|(told, start)| told.contains(start)), "{project:?}");
        let (read, alerts) = told::<ProjectManifest>(
            "[project]\nname = \"p\"\n[[alerts]]\nurl_env = \"A\"\n[[alerts]]\nkind = \"slack\"\nurl_env = \"B\"\n",
        );
        assert_eq!(alerts, ["x.toml:3: the key `kind` is missing"]);
        assert_eq!(read.manifest.alerts[1].url_env.as_deref(), Some("B"), "the rest is read");
        assert!(read.damage.touches("alerts") && read.manifest.alerts[0].rows > 0);
        let (_, question) =
            told::<QuestionManifest>("title = \"x\"\n[parameters.a]\n[parameters.b]\ntype = \"int\"\n");
        assert_eq!(question, ["x.toml:2: the key `type` is missing"]);
    }

    #[test]
    fn broken_syntax_is_one_problem() {
        for text in ["title = \"open\n[parameters]\n", "title = [1,\n[parameters]\nx = 1\n", "title\nx = 1\n"]
        {
            let (read, told) = told::<QuestionManifest>(text);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(read.damage.touches("title"));
        }
    }
}
