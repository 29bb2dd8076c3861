//! What each landed file was found to hold: said by bronze's log, in one commit with its rows, and from there by
//! `ledger.landed`.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use serde_json::json;

use super::Run;
use super::late::Lateness;
use crate::error::Result;
use crate::ledger;

/// What one file was found to hold.
#[derive(Debug, Clone)]
pub struct FileReport {
    pub path: String,
    pub hash: String,
    pub landed: u64,
    pub typed: u64,
    pub quarantined: u64,
    /// Records that left quarantine for bronze later, by an operator's decision.
    pub released: u64,
    /// Per money column of the source; of a release, the change.
    pub money: Vec<i128>,
    pub warnings: BTreeMap<String, u64>,
    pub late: Lateness,
}

impl FileReport {
    pub(super) fn to_json(&self) -> serde_json::Value {
        let money: Vec<String> = self.money.iter().map(ToString::to_string).collect();
        json!({
            "path": self.path, "hash": self.hash, "landed": self.landed, "typed": self.typed,
            "quarantined": self.quarantined, "released": self.released, "money": money, "warnings": self.warnings,
            "late": self.late,
        })
    }

    fn from_json(value: &serde_json::Value) -> Self {
        let number = |name: &str| value[name].as_u64().unwrap_or(0);
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let money = value["money"].as_array().into_iter().flatten();
        let warnings = value["warnings"].as_object().into_iter().flatten();
        Self {
            path: text("path"),
            hash: text("hash"),
            landed: number("landed"),
            typed: number("typed"),
            quarantined: number("quarantined"),
            released: number("released"),
            money: money.filter_map(|sum| sum.as_str()?.parse().ok()).collect(),
            warnings: warnings.map(|(name, n)| (name.clone(), n.as_u64().unwrap_or(0))).collect(),
            late: serde_json::from_value(value["late"].clone()).unwrap_or_default(),
        }
    }
}

/// Reports the files of a batch in `ledger.landed`; those of a batch whose report was lost in a crash are taken from
/// bronze's log.
///
/// # Errors
/// The store's.
pub async fn report(run: &mut Run) -> Result<()> {
    let mut rows: Vec<(i64, String, FileReport)> = Vec::new();
    let mut positions = BTreeMap::new();
    for source in run.project.sources.clone() {
        let table = run.bronze_of(&source.name)?;
        let app_id = format!("bronze.{}", source.name);
        let reported = run.ledger.landed.position(&app_id).unwrap_or(-1);
        if table.version() <= reported {
            continue;
        }
        for version in reported + 1..=table.version() {
            let info = table.info_at(version).await?;
            let Some(batch_id) = info["batch"].as_i64() else {
                continue;
            };
            for file in info["files"].as_array().into_iter().flatten() {
                rows.push((batch_id, source.name.clone(), FileReport::from_json(file)));
            }
        }
        positions.insert(app_id, table.version());
    }
    // versions without files are compactions
    if rows.is_empty() {
        return Ok(());
    }
    let money_names: BTreeMap<String, Vec<String>> = run
        .project
        .sources
        .iter()
        .map(|source| (source.name.clone(), source.money().map(str::to_owned).collect()))
        .collect();
    let money = rows.iter().map(|(_, source, file)| {
        let names = money_names.get(source).cloned().unwrap_or_default();
        let sums: BTreeMap<String, String> =
            names.into_iter().zip(file.money.iter().map(ToString::to_string)).collect();
        json!(sums).to_string()
    });
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let batch = RecordBatch::try_new(
        ledger::landed_schema(),
        vec![
            ledger::integers(rows.iter().map(|(batch_id, ..)| *batch_id)),
            ledger::texts(rows.iter().map(|(_, source, _)| source)),
            ledger::texts(rows.iter().map(|(_, _, file)| &file.path)),
            ledger::texts(rows.iter().map(|(_, _, file)| &file.hash)),
            ledger::integers(rows.iter().map(|(_, _, file)| count(file.landed))),
            ledger::integers(rows.iter().map(|(_, _, file)| count(file.typed))),
            ledger::integers(rows.iter().map(|(_, _, file)| count(file.quarantined) - count(file.released))),
            ledger::texts(money),
            ledger::texts(rows.iter().map(|(_, _, file)| json!(file.warnings).to_string())),
            ledger::texts(rows.iter().map(|(_, _, file)| json!(file.late).to_string())),
        ],
    )?;
    ledger::append_with_positions(&mut run.ledger.landed, &batch, positions).await?;
    run.num_commits += 1;
    Ok(())
}
