//! How long a plan takes: by the pace of past runs, as the ledger keeps it.

use std::collections::BTreeMap;

use super::{Plan, Step};
use crate::error::Result;
use crate::flow::{Run, runs};

/// So many rows of one run tell something of a table's pace; fewer tell what planning costs.
const TELLING_ROWS: f64 = 1000.0;

/// What past runs say of time.
#[derive(Default)]
struct Paces {
    /// Seconds per row by table, as one of several that were computed at the same time; and whether that was much.
    tables: BTreeMap<String, (f64, bool)>,
    /// What a run takes after its last table: checks, balance.
    settling: Option<f64>,
}

impl Paces {
    fn learn(&mut self, report: &serde_json::Value) {
        let steps: Vec<_> = report["steps"].as_array().into_iter().flatten().collect();
        let models: Vec<_> = steps
            .iter()
            .filter(|step| step["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0))
            .collect();
        let span = |steps: &[&&serde_json::Value]| {
            let started = steps.iter().filter_map(|step| step["started"].as_i64()).min()?;
            let finished = steps.iter().filter_map(|step| step["finished"].as_i64()).max()?;
            Some((finished - started) as f64 / 1e6)
        };
        let busy: f64 = models.iter().filter_map(|step| step["seconds"].as_f64()).sum();
        // tables are computed beside each other: their seconds add up to more than passed
        let share = span(&models).filter(|_| busy > 0.0).map_or(1.0, |passed| (passed / busy).min(1.0));
        for step in models {
            if let (Some(table), Some(rows), Some(seconds)) =
                (step["table"].as_str(), step["rows"].as_f64(), step["seconds"].as_f64())
                && rows > 0.0
                && !self.tables.get(table).is_some_and(|(_, is_telling)| *is_telling || rows < TELLING_ROWS)
            {
                self.tables.insert(table.to_owned(), (seconds * share / rows, rows >= TELLING_ROWS));
            }
        }
        if self.settling.is_none() {
            let all: Vec<_> = steps.iter().collect();
            let total = report["seconds"].as_f64();
            self.settling = total.zip(span(&all)).map(|(total, steps)| (total - steps).max(0.0));
        }
    }

    fn is_telling(&self, step: &Step) -> bool {
        self.tables.get(&step.table).is_some_and(|(_, is_telling)| *is_telling)
    }
}

/// How long the steps take: by the rows per second of the last run that computed as much of their tables, or of any. A
/// table that no run knows is taken to be as slow as the slowest that one does.
///
/// # Errors
/// The store's.
pub(super) async fn estimate(run: &Run, plan: &mut Plan) -> Result<()> {
    let steps: Vec<&Step> =
        plan.steps.iter().filter(|step| !step.table.starts_with("quarantine.") && step.rows > 0).collect();
    let mut paces = Paces::default();
    if let Some(past) = runs::last(&run.ledger).await? {
        paces.learn(&past.report);
    }
    if !steps.iter().all(|step| paces.is_telling(step)) {
        for past in runs::all(&run.ledger).await?.iter().rev() {
            paces.learn(&past.report);
        }
    }
    let known = steps.iter().filter_map(|step| paces.tables.get(&step.table)).map(|(pace, _)| *pace);
    let Some(slowest) = known.reduce(f64::max) else {
        return Ok(());
    };
    let pace = |step: &Step| paces.tables.get(&step.table).map_or(slowest, |(pace, _)| *pace);
    let settling = paces.settling.unwrap_or(0.0);
    let seconds = |rows: fn(&Step) -> u64| {
        settling + steps.iter().map(|step| pace(step) * rows(step) as f64).sum::<f64>()
    };
    let (most, least) = (seconds(|step| step.rows), seconds(|step| step.at_least.rows));
    plan.estimated_seconds = Some(most);
    plan.at_least_seconds = Some(least);
    Ok(())
}
