//! What was decided is done: admitted records go to bronze, and leave quarantine; discarded ones are marked there.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Date32Type, Int64Type};
use serde_json::json;

use super::{Action, Intervention, POSITION, Retyper, read};
use crate::engine;
use crate::error::{Error, Result};
use crate::flow::bronze::MAX_EVENT_TIME;
use crate::flow::decide::{DISCARDED, partition_keys, quoted};
use crate::flow::landed::{self, FileReport};
use crate::flow::late::Lateness;
use crate::flow::quarantine::{self, Stage};
use crate::flow::{Run, inputs, landing};
use crate::lake::commit::{Change, Commit};
use crate::project::source::{DATE, Source};
use crate::project::sql::TableName;
use crate::zone;

/// Applies what was written ahead and not applied yet: usually nothing.
///
/// # Errors
/// The stores'; `Data` where a record that could be typed when it was let in can't be any more.
pub async fn resume(run: &mut Run) -> Result<()> {
    let mut by_id: BTreeMap<(i64, String), Vec<Intervention>> = BTreeMap::new();
    for decision in read(&run.ledger).await? {
        by_id.entry((decision.id, decision.source.clone())).or_default().push(decision);
    }
    for ((id, name), decisions) in by_id {
        let Some(source) = run.project.source(&name).cloned() else {
            // waits until the project has the source again
            continue;
        };
        apply_to_bronze(run, &source, id, &decisions).await?;
        apply_to_quarantine(run, &source, id, &decisions).await?;
    }
    Ok(())
}

async fn apply_to_bronze(run: &mut Run, source: &Source, id: i64, decisions: &[Intervention]) -> Result<()> {
    let mut table = run.bronze_of(&source.name)?.clone();
    let admitted: Vec<&Intervention> =
        decisions.iter().filter(|decision| decision.action != Action::Discard).collect();
    if admitted.is_empty() || table.position(POSITION).is_some_and(|applied| applied >= id) {
        return Ok(());
    }
    let retyper = Retyper::new(run, source, admitted.iter().map(|decision| &decision.record)).await?;
    // a run that was killed may have taken in the records' files without saying what they hold
    landed::report(run).await?;
    let hashes = landing::landed_hashes(run).await?;
    let money_before = money_before(run, source, &admitted).await?;
    let mut newest = table.position(MAX_EVENT_TIME);
    let mut rows = Vec::new();
    let mut reports: BTreeMap<String, FileReport> = BTreeMap::new();
    for decision in &admitted {
        let (file, line) = decision.place();
        let decoded = retyper.decode(&decision.record, decision.bytes())?;
        if decoded.batch.num_rows() != 1 {
            return Err(Error::data(format!(
                "`{file}`, line {line}, was let in by intervention {id} and can't be typed any more: the contract of \
                 `{}` has changed since; change it back, then run again",
                source.name
            )));
        }
        let report = reports.entry(file.clone()).or_insert_with(|| FileReport {
            path: file.clone(),
            hash: hashes.get(&file).cloned().unwrap_or_default(),
            landed: 0,
            typed: 0,
            quarantined: 0,
            released: 0,
            money: vec![0; source.layout.money.len()],
            warnings: BTreeMap::new(),
            late: Lateness::default(),
        });
        if decision.record.stage == Stage::Bronze {
            report.typed += 1;
            report.released += 1;
        }
        let before = money_before.get(&(file, line));
        for (at, sum) in report.money.iter_mut().enumerate() {
            let before = before.and_then(|amounts| amounts.get(at).copied()).unwrap_or(0);
            *sum = sum.wrapping_add(decoded.money[at]).wrapping_sub(before);
        }
        newest = newest.max(retyper.newest(&decision.record, &decoded));
        rows.push(retyper.bronze_row(run, source, &decision.record, &decoded)?);
    }
    let mut change = Change::Append;
    let replaced: BTreeSet<(String, i64)> = admitted
        .iter()
        .filter(|decision| decision.record.stage == Stage::Silver)
        .map(|decision| decision.place())
        .collect();
    if !replaced.is_empty() {
        // bronze is rewritten for an edited record only: its landed form stays in the ledger
        let mut dates: BTreeSet<i32> = admitted.iter().map(|decision| decision.record.date).collect();
        for batch in &rows {
            let column = batch.column(batch.num_columns() - 1).as_primitive::<Date32Type>();
            dates.extend(column.iter().flatten());
        }
        rows.extend(bronze_without(run, source, &dates, &replaced).await?);
        change = Change::Replace(partition_keys(&dates));
    }
    let partition = vec![DATE.to_owned()];
    let mut writer = table.writer(source.bronze_schema(), &partition);
    for batch in &rows {
        writer.write(batch).await?;
    }
    let mut positions = BTreeMap::new();
    if source.watermark_delay.is_some()
        && let Some(newest) = newest
    {
        positions.insert(MAX_EVENT_TIME.to_owned(), newest);
    }
    let files: Vec<serde_json::Value> = reports.values().map(FileReport::to_json).collect();
    let batch_id = admitted.first().map_or(0, |decision| decision.record.batch_id);
    let commit = Commit {
        change,
        schema: source.bronze_schema(),
        partition,
        adds: writer.close().await?,
        positions,
        once: Some((POSITION.to_owned(), id)),
        info: json!({"run": run.id, "batch": batch_id, "intervention": id, "files": files}),
        description: source.description.clone(),
    };
    table.commit(&commit).await?;
    run.bronze.insert(source.name.clone(), table);
    run.num_commits += 1;
    Ok(())
}

/// What the balance has counted for the records until now, by file and line.
async fn money_before(
    run: &Run,
    source: &Source,
    admitted: &[&Intervention],
) -> Result<BTreeMap<(String, i64), Vec<i128>>> {
    if source.layout.money.is_empty() {
        return Ok(BTreeMap::new());
    }
    let dates = admitted.iter().map(|decision| decision.record.date).collect();
    let wanted: BTreeSet<_> = admitted.iter().map(|decision| decision.place()).collect();
    let found = quarantine::read(run, source, Some(&dates), "true").await?;
    let found = found.into_iter().filter_map(|record| {
        let place = (record.source_file, record.source_line);
        let money = record.money.into_iter().map(|amount| amount.unwrap_or(0)).collect();
        wanted.contains(&place).then_some((place, money))
    });
    Ok(found.collect())
}

/// Bronze's rows of some dates, without those of some places.
async fn bronze_without(
    run: &Run,
    source: &Source,
    dates: &BTreeSet<i32>,
    places: &BTreeSet<(String, i64)>,
) -> Result<Vec<RecordBatch>> {
    let context = engine::context(&run.state);
    let name = TableName::new(zone::BRONZE, &source.name);
    inputs::register_input(run, &context, &name, Some(dates.clone())).await?;
    let query = format!("select * from bronze.{}", quoted(&source.name));
    let mut kept = Vec::new();
    for batch in context.sql(&query).await?.collect().await? {
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| Error::bug(format!("bronze has no column `{name}`")))
        };
        let (files, lines) = (column("source_file")?, column("source_line")?);
        let (files, lines) = (files.as_string_view(), lines.as_primitive::<Int64Type>());
        let is_kept: BooleanArray = (0..batch.num_rows())
            .map(|row| Some(!places.contains(&(files.value(row).to_owned(), lines.value(row)))))
            .collect();
        kept.push(filter_record_batch(&batch, &is_kept)?);
    }
    Ok(kept)
}

async fn apply_to_quarantine(
    run: &mut Run,
    source: &Source,
    id: i64,
    decisions: &[Intervention],
) -> Result<()> {
    let of_bronze: Vec<&Intervention> =
        decisions.iter().filter(|decision| decision.record.stage == Stage::Bronze).collect();
    let table = run.quarantine_of(&source.name)?;
    if of_bronze.is_empty() || table.position(POSITION).is_some_and(|applied| applied >= id) {
        return Ok(());
    }
    let places: BTreeSet<_> = of_bronze.iter().map(|decision| decision.place()).collect();
    let mut put_in = Vec::new();
    if of_bronze.iter().any(|decision| decision.action == Action::Discard) {
        let notes: BTreeMap<_, _> = of_bronze
            .iter()
            .filter(|decision| decision.action == Action::Discard)
            .map(|decision| (decision.place(), &decision.note))
            .collect();
        let dates = of_bronze.iter().map(|decision| decision.record.date).collect();
        for mut record in quarantine::read(run, source, Some(&dates), "stage = 'bronze'").await? {
            let place = (record.source_file.clone(), record.source_line);
            if let Some(note) = notes.get(&place) {
                record.error_type = DISCARDED.to_owned();
                record.reason = (*note).clone();
                put_in.push(record);
            }
        }
    }
    quarantine::amend(run, source, &places, put_in, (POSITION.to_owned(), id)).await
}
