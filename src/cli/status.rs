//! `medallion status`

use serde::Serialize;

use super::Places;
use super::output::{Format, print_cells, print_text};
use crate::error::Result;
use crate::flow::bronze::MAX_EVENT_TIME;
use crate::flow::model::describe;
use crate::flow::{Run, dirty};
use crate::lake::table::Table;
use crate::telemetry::Progress;
use crate::trigger::meter::duration_text;

#[derive(Debug, Serialize)]
struct TableStatus {
    table: String,
    version: i64,
    rows: u64,
    partitions: usize,
    files: usize,
    bytes: i64,
    committed: Option<String>,
    /// What the next run will recompute.
    waits: String,
    /// Files that an older form of the model wrote.
    stale_files: usize,
    watermark: Option<String>,
    /// How long ago the newest event was.
    lag_seconds: Option<i64>,
}

pub async fn run(places: &Places) -> Result<u8> {
    let run = places.open(Progress::new(false)).await?;
    let tables = collect(&run).await?;
    if places.format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(&tables)?))?;
        return Ok(0);
    }
    let names = [
        "table",
        "version",
        "rows",
        "partitions",
        "files",
        "bytes",
        "committed",
        "waits",
        "stale",
        "watermark",
        "lag",
    ]
    .map(str::to_owned);
    let rows: Vec<Vec<String>> = tables
        .into_iter()
        .map(|status| {
            vec![
                status.table,
                status.version.to_string(),
                status.rows.to_string(),
                status.partitions.to_string(),
                status.files.to_string(),
                status.bytes.to_string(),
                status.committed.unwrap_or_default(),
                status.waits,
                status.stale_files.to_string(),
                status.watermark.unwrap_or_default(),
                status.lag_seconds.map(duration_text).unwrap_or_default(),
            ]
        })
        .collect();
    print_cells(&names, &rows, places.format)?;
    Ok(0)
}

async fn collect(run: &Run) -> Result<Vec<TableStatus>> {
    let mut found = Vec::new();
    for source in &run.project.sources {
        let table = run.bronze_of(&source.name)?;
        let mut status = look(table);
        let newest = table.position(MAX_EVENT_TIME);
        status.watermark =
            source.watermark_delay.zip(newest).map(|(delay, newest)| time_text(newest - delay));
        let now = chrono::Utc::now().timestamp_micros();
        status.lag_seconds =
            source.watermark_delay.zip(newest).map(|(_, newest)| now.saturating_sub(newest) / 1_000_000);
        found.push(status);
        let quarantine = run.quarantine_of(&source.name)?;
        if quarantine.version() >= 0 {
            found.push(look(quarantine));
        }
    }
    for model in run.project.stored_models() {
        let table = run.table(&model.table)?;
        let mut status = look(table);
        status.waits = match dirty::work(run, model).await? {
            dirty::Work::Nothing => String::new(),
            work => describe(&work),
        };
        if let Some(snapshot) = table.snapshot() {
            let is_stale = |tag: Option<&str>| tag != Some(model.fingerprint.as_str());
            status.stale_files =
                snapshot.files.values().filter(|file| is_stale(file.tag("fingerprint"))).count();
        }
        found.push(status);
    }
    Ok(found)
}

fn look(table: &Table) -> TableStatus {
    let snapshot = table.snapshot();
    let depth = snapshot.map_or(0, |snapshot| snapshot.metadata.partition_columns.len());
    TableStatus {
        table: table.name().to_owned(),
        version: table.version(),
        rows: table.num_records(),
        partitions: if depth == 0 { 0 } else { table.partitions(depth).len() },
        files: snapshot.map_or(0, |snapshot| snapshot.files.len()),
        bytes: snapshot.map_or(0, |snapshot| snapshot.files.values().map(|file| file.size).sum()),
        committed: snapshot.map(|snapshot| time_text(snapshot.timestamp * 1000)),
        waits: String::new(),
        stale_files: 0,
        watermark: None,
        lag_seconds: None,
    }
}

fn time_text(micros: i64) -> String {
    match chrono::DateTime::from_timestamp_micros(micros) {
        Some(time) => time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        None => micros.to_string(),
    }
}
