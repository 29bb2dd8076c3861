//! Checks: what they read, what they tolerate, what they guard.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, SchemaRef};

use super::Planner;
use super::anomalies::anomaly;
use super::models::without_suffix;
use crate::project::check::{Amount, Anomaly, Check, Finds, Kind, Tolerance, Until};
use crate::project::diagnostics::Diagnostics;
use crate::project::manifest::{AmountManifest, CheckManifest, CheckScope, KindName, SeverityName};
use crate::project::model::Model;
use crate::project::read::{CheckFiles, Written};
use crate::project::source::{DATE, Source};
use crate::project::sql::{self, TableName};
use crate::project::{Reference, fingerprint};
use crate::zone;

/// Where the checks' tables are looked up.
pub(super) struct Tables<'a> {
    models: &'a [Model],
    sources: &'a [Source],
}

pub(super) async fn checks(
    written: &Written,
    models: &[Model],
    sources: &[Source],
    references: &[Reference],
    planner: &Planner,
    found: &mut Diagnostics,
) -> Vec<Check> {
    let tables = Tables { models, sources };
    let mut checks = Vec::new();
    for (name, files) in &written.checks {
        if let Some(file) = depends_on_broken(files, planner) {
            found.not_checked(file);
            continue;
        }
        let Some((finds, reads, schema)) = finds(name, files, &tables, planner, found).await else {
            continue;
        };
        let file: PathBuf = files.code.as_ref().unwrap_or(&files.toml).file.clone();
        let manifest = &files.manifest;
        let is_query = matches!(finds, Finds::Rows(_));
        let mut check = Check {
            name: name.clone(),
            file,
            description: manifest.description.clone(),
            severity: manifest.severity,
            scope: manifest.scope.unwrap_or(match is_query || manifest.kind == Some(KindName::Freshness) {
                true => CheckScope::All,
                false => CheckScope::Changed,
            }),
            finds,
            reads,
            tolerance: tolerance(files, &tables, found),
            guards: None,
            fingerprint: String::new(),
        };
        if let Some(guarded) = &manifest.guards {
            match guards(guarded, &check, &schema, &tables, &checks) {
                Ok(table) => check.guards = Some(table),
                Err(message) => found.add_at(&files.toml.file, &files.toml.text, "guards", message),
            }
        }
        check.fingerprint = fingerprint::of_check(&check, references);
        checks.push(check);
    }
    checks
}

/// The file of a check that names a table with which something is wrong.
fn depends_on_broken<'a>(files: &'a CheckFiles, planner: &Planner) -> Option<&'a Path> {
    let manifest = &files.manifest;
    let named = [&manifest.table, &manifest.of, &manifest.until, &manifest.guards];
    let named = named.into_iter().flatten().filter_map(|name| TableName::parse(name));
    let queried = files.code.iter().filter_map(|code| sql::inputs(&code.text).ok()).flatten();
    let is_broken = named.chain(queried).any(|table| planner.broken.contains(&table));
    is_broken.then(|| files.code.as_ref().unwrap_or(&files.toml).file.as_path())
}

async fn finds(
    name: &str,
    files: &CheckFiles,
    tables: &Tables<'_>,
    planner: &Planner,
    found: &mut Diagnostics,
) -> Option<(Finds, BTreeSet<TableName>, SchemaRef)> {
    let (manifest, toml) = (&files.manifest, &files.toml);
    match (&files.code, manifest.kind) {
        (Some(code), None) => {
            for (key, is_there) in keys_of_kinds(manifest) {
                if is_there {
                    let message =
                        format!("`{key}` belongs to a check with a `kind`, not to one with a query");
                    found.add_at(&toml.file, &toml.text, key, message);
                }
            }
            match sql::inputs(&code.text) {
                Err((line, message)) => {
                    found.add(&code.file, line, message);
                    None
                }
                Ok(reads) => {
                    let schema = planner.schema(code, found).await?;
                    Some((Finds::Rows(code.text.clone()), reads, schema))
                }
            }
        }
        (None, Some(kind)) => {
            let anomaly = anomaly(kind, manifest, toml, tables, found)?;
            let mut reads = BTreeSet::from([anomaly.table.clone()]);
            if let Kind::Freshness { until: Until::Table(other) } = &anomaly.kind {
                reads.insert(other.clone());
            }
            Some((Finds::Deviations(anomaly), reads, Model::unresolved_schema()))
        }
        (Some(code), Some(_)) => {
            found.add(
                &code.file,
                0,
                format!("`{name}.toml` says a `kind`, so there is no query; remove one"),
            );
            None
        }
        (None, None) if files.damage.touches("kind") => None,
        (None, None) => {
            let message = format!("`{name}.sql` is missing beside it, or a `kind`");
            found.add(&toml.file, 0, message);
            None
        }
    }
}

fn keys_of_kinds(manifest: &CheckManifest) -> [(&'static str, bool); 8] {
    [
        ("table", manifest.table.is_some()),
        ("column", manifest.column.is_some()),
        ("days", manifest.days.is_some()),
        ("min_days", manifest.min_days.is_some()),
        ("deviations", manifest.deviations.is_some()),
        ("tolerance", manifest.tolerance.is_some()),
        ("delay_days", manifest.delay_days.is_some()),
        ("until", manifest.until.is_some()),
    ]
}

impl Tables<'_> {
    /// A stored table's columns and the column of its dates, where it has one.
    pub(super) fn stored(&self, name: &str) -> Option<(TableName, SchemaRef, Option<String>)> {
        let table = TableName::parse(name)?;
        let source = || self.sources.iter().find(|source| source.name == table.table);
        let (schema, date) = match table.schema.as_str() {
            zone::BRONZE => (source()?.bronze_schema(), Some(DATE.to_owned())),
            zone::QUARANTINE => (source()?.quarantine_schema(), Some(DATE.to_owned())),
            _ => {
                let model = self.models.iter().find(|model| model.table == table && !model.is_view)?;
                (SchemaRef::clone(&model.schema), model.partition.first().cloned())
            }
        };
        Some((table, schema, date))
    }

    /// Whether `table` is made from `from`, over other models or because a guard of it reads them.
    fn is_made_from(&self, table: &TableName, from: &TableName, guards: &[Check]) -> bool {
        let mut seen = BTreeSet::new();
        let mut next = vec![without_suffix(table)];
        while let Some(table) = next.pop() {
            if table == *from {
                return true;
            }
            if !seen.insert(table.clone()) {
                continue;
            }
            if let Some(model) = self.models.iter().find(|model| model.table == table) {
                next.extend(model.inputs.keys().map(without_suffix));
            }
            for guard in guards.iter().filter(|guard| guard.guards.as_ref() == Some(&table)) {
                next.extend(guard.reads.iter().map(without_suffix).filter(|read| *read != table));
            }
        }
        false
    }
}

/// What the check guards, or why it can't.
fn guards(
    guarded: &str,
    check: &Check,
    schema: &SchemaRef,
    tables: &Tables<'_>,
    earlier: &[Check],
) -> Result<TableName, String> {
    let model = TableName::parse(guarded)
        .filter(|table| table.schema == zone::GOLD)
        .and_then(|table| tables.models.iter().find(|model| model.table == table && !model.is_view))
        .ok_or_else(|| format!("there is no gold table `{guarded}` to guard"))?;
    let table = &model.table;
    if check.severity == SeverityName::Warn {
        return Err(
            "a check that guards a table must be able to fail; remove `severity = \"warn\"`".to_owned()
        );
    }
    if model.accounts_for.is_some() {
        return Err(format!("`{table}` accounts for a source, so none of its rows may be withheld"));
    }
    if !check.reads.iter().any(|read| without_suffix(read) == *table) {
        return Err(format!("the check does not read `{table}`, so it can't tell what is wrong with it"));
    }
    match &check.finds {
        Finds::Deviations(Anomaly { kind: Kind::Freshness { .. }, .. }) => {
            return Err("a check of freshness guards nothing: what is too old is there already".to_owned());
        }
        Finds::Deviations(anomaly) if anomaly.table != *table => {
            return Err(format!("a check with a `kind` guards its own `table`, `{}`", anomaly.table));
        }
        Finds::Rows(_) => {
            if let Some(column) = model.partition.first() {
                let is_date =
                    schema.field_with_name(column).is_ok_and(|field| *field.data_type() == DataType::Date32);
                if !is_date {
                    return Err(format!(
                        "the query must return `{column}`, a date: it says which partitions of `{table}` its rows are of"
                    ));
                }
            }
        }
        Finds::Deviations(_) => {}
    }
    for read in check.reads.iter().chain(&check.tolerance.of) {
        if read.schema == zone::LEDGER {
            return Err(format!("a check that guards a table may not read `{read}`, which each run changes"));
        }
        let read = without_suffix(read);
        if read != *table && tables.is_made_from(&read, table, earlier) {
            return Err(format!(
                "the check reads `{read}`, which is made from `{table}` and so not there when `{table}` is looked at"
            ));
        }
    }
    Ok(table.clone())
}

fn tolerance(files: &CheckFiles, tables: &Tables<'_>, found: &mut Diagnostics) -> Tolerance {
    let (manifest, toml) = (&files.manifest, &files.toml);
    let mut problem = |key: &str, message: String| found.add_at(&toml.file, &toml.text, key, message);
    let mut amount = |key: &str, written: &Option<AmountManifest>| match written {
        None => None,
        Some(AmountManifest::Rows(rows)) => Some(Amount::Rows(*rows)),
        Some(AmountManifest::Share(text)) => {
            let share = Amount::parse_share(text);
            if share.is_none() {
                problem(
                    key,
                    format!("`{text}` is no share; write a number of rows, or a percentage such as `0.5 %`"),
                );
            }
            share
        }
    };
    let warn_above = amount("warn_above", &manifest.warn_above);
    let fail_above = amount("fail_above", &manifest.fail_above);
    let of = manifest.of.as_ref().and_then(|name| {
        let stored = tables.stored(name);
        if stored.is_none() {
            problem("of", format!("there is no stored table `{name}`"));
        }
        stored.map(|(table, ..)| table)
    });
    let shares = [("warn_above", warn_above), ("fail_above", fail_above)];
    let share = shares.iter().find(|(_, amount)| matches!(amount, Some(Amount::Share(_))));
    match share {
        Some((key, _)) if manifest.of.is_none() => {
            problem(key, "a share needs `of`, the table whose rows it is a share of".to_owned());
        }
        None if manifest.of.is_some() => problem("of", "`of` is for shares, and there is none".to_owned()),
        _ => {}
    }
    if manifest.severity == SeverityName::Warn {
        if manifest.fail_above.is_some() {
            problem("fail_above", "a check with `severity = \"warn\"` never fails; remove one".to_owned());
        }
        return Tolerance { warn_above: warn_above.unwrap_or(Amount::Rows(0)), fail_above: None, of };
    }
    let fail = fail_above.unwrap_or(Amount::Rows(0));
    let is_above = match (warn_above, fail) {
        (Some(Amount::Rows(warn)), Amount::Rows(fail)) => warn >= fail,
        (Some(Amount::Share(warn)), Amount::Share(fail)) => warn >= fail,
        (Some(Amount::Share(_)), Amount::Rows(0)) => true,
        _ => false,
    };
    if let Some(warn) = warn_above.filter(|_| is_above) {
        let message = format!(
            "more than `warn_above` ({warn}) warns and more than `fail_above` ({fail}) fails: the first must be the smaller"
        );
        problem("warn_above", message);
    }
    Tolerance { warn_above: warn_above.unwrap_or(fail), fail_above: Some(fail), of }
}
