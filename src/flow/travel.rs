//! The lake as it was: queries of the past, what changed between two versions, and going back to one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use serde::Serialize;
use serde_json::json;

use super::Run;
use super::decide::{hashes, quoted};
use super::dirty::{FORM, stored_table};
use crate::engine;
use crate::error::{Error, Result};
use crate::lake::commit::{Change, Commit};
use crate::lake::log::{Add, Snapshot};
use crate::lake::maintain::{location, stored_files};
use crate::lake::scan::LakeScan;
use crate::lake::schema::from_delta;
use crate::lake::table::Table;
use crate::project::sql::{TableName, inputs};
use crate::zone;

/// A moment of the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// Of one table.
    Version(i64),
    /// Of every table: milliseconds since the epoch.
    Time(i64),
}

impl FromStr for AsOf {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        if let Ok(version) = text.parse::<i64>() {
            return match version >= 0 {
                true => Ok(AsOf::Version(version)),
                false => Err("versions begin with 0".to_owned()),
            };
        }
        let time = DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_millis()).ok();
        let local = || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S").ok();
        // a date is its end: what was there when the day was over
        let date =
            || Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.succ_opt()?.and_time(NaiveTime::MIN));
        let naive = || local().or_else(date).map(|time| time.and_utc().timestamp_millis());
        time.or_else(naive).map(AsOf::Time).ok_or_else(|| {
            "write a version (7), a time in UTC (2025-08-31T12:00:00Z) or a date (2025-08-31, its end)"
                .to_owned()
        })
    }
}

/// The table's version at that moment; `None` before its first commit.
///
/// # Errors
/// `Usage` where the table has no such version, `Data` where its log or its files no longer reach back.
pub async fn snapshot_at(table: &Table, as_of: AsOf) -> Result<Option<Snapshot>> {
    let version = match as_of {
        AsOf::Version(version) if version > table.version() => {
            return Err(Error::usage(format!(
                "`{}` has no version {version}, its newest is {}",
                table.name(),
                table.version()
            )));
        }
        AsOf::Version(version) => version,
        AsOf::Time(time) => match version_at(table, time).await {
            Some(version) => version,
            None => return Ok(None),
        },
    };
    if version == table.version() {
        return Ok(table.snapshot().map(|snapshot| Snapshot::clone(snapshot)));
    }
    let snapshot = table.at(version).await.ok_or_else(|| {
        Error::data(format!("the log of `{}` no longer reaches back to version {version}", table.name()))
    })?;
    let stored = stored_files(table).await?;
    for path in snapshot.files.keys() {
        if !stored.contains_key(&location(table, path)?) {
            return Err(Error::data(format!(
                "version {version} of `{}` needs files that a vacuum has deleted",
                table.name()
            )));
        }
    }
    Ok(Some(snapshot))
}

fn not_yet(name: &TableName) -> Error {
    Error::usage(format!("there was no `{name}` yet; give a later time"))
}

/// The newest version that was committed at `time` or before.
async fn version_at(table: &Table, time: i64) -> Option<i64> {
    let (mut low, mut high) = (-1, table.version());
    while low < high {
        let middle = low + (high - low + 1) / 2;
        // an entry that is gone is old
        match table.committed_at(middle).await {
            Ok(committed) if committed > time => high = middle - 1,
            _ => low = middle,
        }
    }
    (low >= 0).then_some(low)
}

impl Run {
    /// Lets queries see the tables that `query` names as they were.
    ///
    /// # Errors
    /// As [`snapshot_at`]; `Usage` where a version is given for several tables, or a table has no past.
    pub async fn travel(&mut self, as_of: AsOf, query: &str) -> Result<()> {
        let named = inputs(query).map_err(|(_, message)| Error::usage(message))?;
        let mut stored = BTreeSet::new();
        for name in named.iter().filter(|name| name.schema != zone::REFERENCE) {
            let views = self.project.model(name).filter(|model| model.is_view);
            let names =
                views.map_or_else(|| vec![name.clone()], |view| view.inputs.keys().cloned().collect());
            for name in names {
                if matches!(name.schema.as_str(), zone::ACCEPTED | zone::VERSIONS) {
                    return Err(Error::usage(format!(
                        "`{name}` follows today's rules and has no past; ask bronze or silver"
                    )));
                }
                stored.insert(stored_table(&name));
            }
        }
        if let AsOf::Version(version) = as_of
            && stored.len() != 1
        {
            let names: Vec<String> = stored.iter().map(ToString::to_string).collect();
            return Err(Error::usage(format!(
                "version {version} says nothing where several tables are read ({}); give a time",
                names.join(", ")
            )));
        }
        for name in stored {
            let table = self.table(&name)?;
            let snapshot = snapshot_at(table, as_of).await?;
            if snapshot.is_none() && table.version() >= 0 {
                // no rows would be an answer, and a wrong one
                return Err(not_yet(&name));
            }
            let then = table.with_snapshot(snapshot);
            self.put(&name, then);
        }
        Ok(())
    }

    /// Puts a table in the place of the one of that name.
    pub(super) fn put(&mut self, name: &TableName, table: Table) {
        match name.schema.as_str() {
            zone::BRONZE => {
                self.bronze.insert(name.table.clone(), table);
            }
            zone::QUARANTINE => {
                self.quarantine.insert(name.table.clone(), table);
            }
            zone::LEDGER => {
                if let Some(place) =
                    self.ledger.tables_mut().into_iter().find(|there| there.name() == table.name())
                {
                    *place = table;
                }
            }
            _ => {
                self.models.insert(name.clone(), table);
            }
        }
    }
}

/// What became of one key between two versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// The values of the key's columns.
    pub key: Vec<String>,
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// Column, value before, value after.
    pub columns: Vec<(String, String, String)>,
}

/// Two versions of a table, compared.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Diff {
    pub key: Vec<String>,
    pub added: usize,
    pub removed: usize,
    pub changed: usize,
    /// How many of them `differences` leaves out.
    pub left_out: usize,
    /// The first of them, by key.
    pub differences: Vec<Difference>,
}

/// Compares two versions of a table by its key. Files that both have are not opened.
///
/// # Errors
/// As [`snapshot_at`], and the store's; `Usage` where the table was not there at one of the moments.
pub async fn diff(run: &Run, name: &TableName, from: AsOf, to: AsOf, limit: usize) -> Result<Diff> {
    let table = run.table(name)?;
    let key = run.key_of(name);
    if key.is_empty() {
        return Err(Error::usage(format!("`{name}` has no key to compare by")));
    }
    let (Some(before), Some(after)) = (snapshot_at(table, from).await?, snapshot_at(table, to).await?) else {
        return Err(not_yet(name));
    };
    let (old_files, new_files) = (&before.files, &after.files);
    let only_in = |these: &BTreeMap<String, Arc<Add>>, those: &BTreeMap<String, Arc<Add>>| {
        let only = these.iter().filter(|(path, _)| !those.contains_key(*path));
        only.map(|(_, file)| Arc::clone(file)).collect::<Vec<_>>()
    };
    let (old_only, new_only) = (only_in(old_files, new_files), only_in(new_files, old_files));
    let old = Side::read(run, name, &key, &before, old_only).await?;
    let new = Side::read(run, name, &key, &after, new_only).await?;
    let mut found = Diff { key: key.clone(), ..Diff::default() };
    let mut all = Vec::new();
    for (hash, place) in &old.rows {
        match new.rows.get(hash) {
            None => {
                found.removed += 1;
                all.push(("removed", Some(*place), None));
            }
            Some(there) if old.content(*place) != new.content(*there) => {
                found.changed += 1;
                all.push(("changed", Some(*place), Some(*there)));
            }
            Some(_) => {}
        }
    }
    for (hash, there) in &new.rows {
        if !old.rows.contains_key(hash) {
            found.added += 1;
            all.push(("added", None, Some(*there)));
        }
    }
    let mut differences = Vec::new();
    for (change, before, after) in all {
        let side = before.map(|place| (&old, place)).or(after.map(|place| (&new, place)));
        let Some((side, place)) = side else {
            continue;
        };
        let values = side.values(place)?;
        let key = key.iter().map(|column| values.get(column).cloned().unwrap_or_default()).collect();
        let mut columns = Vec::new();
        if let (Some(before), Some(after)) = (before, after) {
            let (before, after) = (old.values(before)?, new.values(after)?);
            for column in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
                let [was, is] = [&before, &after].map(|side| side.get(column).cloned().unwrap_or_default());
                if was != is {
                    columns.push((column.clone(), was, is));
                }
            }
        }
        differences.push(Difference { key, change, columns });
    }
    differences.sort();
    found.left_out = differences.len().saturating_sub(limit);
    differences.truncate(limit);
    found.differences = differences;
    Ok(found)
}

/// A batch and a row in it.
type Place = (usize, usize);

/// The rows of one version that are not in files of the other.
struct Side {
    batches: Vec<RecordBatch>,
    contents: Vec<Vec<u128>>,
    rows: HashMap<u128, Place>,
}

impl Side {
    async fn read(
        run: &Run,
        name: &TableName,
        key: &[String],
        snapshot: &Snapshot,
        files: Vec<Arc<Add>>,
    ) -> Result<Side> {
        let mut side = Side { batches: Vec::new(), contents: Vec::new(), rows: HashMap::new() };
        if files.is_empty() {
            return Ok(side);
        }
        // as that version had it: columns may have come since
        let schema = from_delta(&snapshot.metadata.schema_string)?;
        let table = run.table(name)?.with_files(&snapshot.metadata, files);
        let scan = LakeScan::new(&table, schema, &snapshot.metadata.partition_columns, None)?;
        let context = engine::context(&run.state);
        engine::register(&context, name, Arc::new(scan));
        let query = format!("select * from {}.{}", name.schema, quoted(&name.table));
        for batch in context.sql(&query).await?.collect().await? {
            let columns: Vec<ArrayRef> =
                key.iter().filter_map(|column| batch.column_by_name(column)).cloned().collect();
            for (row, hash) in hashes(&columns, batch.num_rows())?.into_iter().enumerate() {
                side.rows.insert(hash, (side.batches.len(), row));
            }
            side.contents.push(hashes(batch.columns(), batch.num_rows())?);
            side.batches.push(batch);
        }
        Ok(side)
    }

    fn content(&self, (batch, row): Place) -> u128 {
        self.contents[batch][row]
    }

    fn values(&self, (batch, row): Place) -> Result<BTreeMap<String, String>> {
        let options = FormatOptions::new().with_null("null");
        let batch = &self.batches[batch];
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        columns
            .map(|(field, column)| {
                let value = ArrayFormatter::try_new(column, &options)?.value(row).to_string();
                Ok((field.name().clone(), value))
            })
            .collect()
    }
}

/// Takes a model's table back to a version: one commit that names that version's files again. What reads the table is
/// computed by the flow after it, as after any change; the table itself is computed again when its inputs change.
///
/// # Errors
/// As [`snapshot_at`]; `Usage` for tables that are no model's.
pub async fn restore(run: &mut Run, name: &TableName, to: AsOf) -> Result<Option<i64>> {
    let model = run.project.model(name).filter(|model| !model.is_view).cloned().ok_or_else(|| {
        Error::usage(format!("`{name}` is no stored model; only silver and gold follow from other tables"))
    })?;
    let mut table = run.table(name)?.clone();
    let Some(current) = table.snapshot().cloned() else {
        return Ok(None);
    };
    let Some(then) = snapshot_at(&table, to).await? else {
        return Err(not_yet(name));
    };
    let removed: BTreeSet<String> =
        current.files.keys().filter(|path| !then.files.contains_key(*path)).cloned().collect();
    let adds: Vec<Add> = then
        .files
        .iter()
        .filter(|(path, _)| !current.files.contains_key(*path))
        .map(|(_, file)| {
            let mut add = Add::clone(file);
            add.data_change = true;
            add
        })
        .collect();
    if removed.is_empty() && adds.is_empty() {
        return Ok(None);
    }
    let commit = Commit {
        change: Change::Swap(removed),
        schema: from_delta(&then.metadata.schema_string)?,
        partition: then.metadata.partition_columns.clone(),
        adds,
        positions: BTreeMap::from([(FORM.to_owned(), then.txn(FORM).unwrap_or(0))]),
        once: None,
        info: json!({"run": run.id, "restored": then.version}),
        description: model.description.clone(),
    };
    table.commit(&commit).await?;
    run.models.insert(name.clone(), table);
    run.num_commits += 1;
    Ok(Some(then.version))
}
