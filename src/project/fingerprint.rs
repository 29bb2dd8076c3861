//! Fingerprints: what a table's rows were computed with. Two that are equal promise equal rows from equal input; what is
//! written for people only (comments, layout, descriptions) does not count.

use std::collections::BTreeSet;

use arrow::datatypes::Schema;

use super::Reference;
use super::check::{Check, Finds};
use super::manifest::ModelManifest;
use super::model::Model;
use super::source::Source;
use super::sql::{self, TableName};
use crate::lake::schema::to_delta;
use crate::zone;

/// Version of what the engine computes for a model; raising it makes every partition stale.
const ENGINE_VERSION: &str = "2";

/// Hex digits of a fingerprint.
const DIGITS: usize = 16;

/// The parts, each with its length, so that no two lists of parts look alike.
struct Parts(blake3::Hasher);

impl Parts {
    fn new() -> Self {
        let mut parts = Parts(blake3::Hasher::new());
        parts.add(ENGINE_VERSION);
        parts
    }

    fn add(&mut self, part: &str) {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part.as_bytes());
    }

    fn finish(&self) -> String {
        self.0.finalize().to_hex()[..DIGITS].to_owned()
    }
}

/// A query without its comments and layout.
fn normalised(text: &str) -> String {
    sql::parse(text).map_or_else(|_| text.to_owned(), |statement| statement.to_string())
}

/// Of a reference table: its lines, trimmed.
pub(super) fn of_reference(text: &str) -> String {
    let mut parts = Parts::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let values: Vec<&str> = line.split(',').map(str::trim).collect();
        parts.add(&values.join(","));
    }
    parts.finish()
}

/// Of a source's decisions: what says which bronze record of a key is accepted.
pub(super) fn of_source(source: &Source, references: &[Reference]) -> String {
    let mut parts = Parts::new();
    parts.add(&format!("{:?}", source.mode));
    for name in source.key().chain(["|"]).chain(source.money()) {
        parts.add(name);
    }
    let rules = source.rules.iter().map(|rule| [&rule.error_type, &rule.when, &rule.reason]);
    let warnings = source.warnings.iter().map(|warning| [&warning.name, &warning.when, &warning.name]);
    let mut reads = BTreeSet::new();
    for [name, when, reason] in rules.chain(warnings) {
        let query = format!("select ({when}) as hit from bronze.\"{}\"", source.name);
        parts.add(name);
        parts.add(&normalised(&query));
        parts.add(reason);
        reads.extend(sql::inputs(&query).unwrap_or_default());
    }
    add_references(&mut parts, &reads, references);
    parts.finish()
}

/// Of a model: its query, its contract, what it returns, and the reference tables and views that it reads.
pub(super) fn of_model(
    text: &str,
    manifest: &ModelManifest,
    schema: &Schema,
    reads: &BTreeSet<TableName>,
    earlier: &[Model],
    references: &[Reference],
) -> String {
    let mut parts = Parts::new();
    parts.add(&normalised(text));
    parts.add(&format!(
        "{:?}",
        (
            &manifest.view,
            &manifest.key,
            &manifest.partition,
            &manifest.accounts_for,
            &manifest.dates_of,
            &manifest.calendar_of,
            &manifest.inputs
        )
    ));
    parts.add(&to_delta(schema).unwrap_or_default());
    add_references(&mut parts, reads, references);
    for view in earlier.iter().filter(|model| model.is_view && reads.contains(&model.table)) {
        parts.add(&view.fingerprint);
    }
    parts.finish()
}

/// Of a check: what it finds and what becomes of it.
pub(super) fn of_check(check: &Check, references: &[Reference]) -> String {
    let mut parts = Parts::new();
    parts.add(&check.name);
    match &check.finds {
        Finds::Rows(text) => parts.add(&normalised(text)),
        Finds::Deviations(anomaly) => parts.add(&format!("{anomaly:?}")),
    }
    parts.add(&format!("{:?}", (check.severity, check.scope, &check.tolerance, &check.guards)));
    add_references(&mut parts, &check.reads, references);
    parts.finish()
}

/// Of several things that have fingerprints, in their order.
pub fn of_all<'a>(fingerprints: impl IntoIterator<Item = &'a str>) -> String {
    let mut parts = Parts::new();
    for fingerprint in fingerprints {
        parts.add(fingerprint);
    }
    parts.finish()
}

fn add_references(parts: &mut Parts, reads: &BTreeSet<TableName>, references: &[Reference]) {
    for input in reads.iter().filter(|input| input.schema == zone::REFERENCE) {
        if let Some(reference) = references.iter().find(|reference| reference.name == input.table) {
            parts.add(&reference.fingerprint);
        }
    }
}

/// A fingerprint as a position that a table's log can hold.
pub fn position(fingerprint: &str) -> i64 {
    i64::from_str_radix(&fingerprint[..fingerprint.len().min(DIGITS - 1)], 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_and_comments_do_not_count_and_content_does() {
        let one = normalised("select a, b -- both\nfrom silver.t /* all */ where a > 1");
        assert_eq!(one, normalised("SELECT a,\n  b FROM silver.t WHERE a > 1"));
        assert_ne!(one, normalised("select a, b from silver.t where a > 2"));
        assert_eq!(of_reference("a,b\n1, 2\n\n"), of_reference("a,b\n1,2"));
        assert_ne!(of_reference("a,b\n1,2"), of_reference("a,b\n12,"));
        assert!(position(&of_reference("a")) > 0);
    }
}
