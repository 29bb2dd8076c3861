//! How long a plan takes: by the pace of past runs, as the ledger keeps it.

use std::collections::BTreeMap;

use super::{Plan, Step};
use crate::error::Result;
use crate::flow::{Run, runs};

/// What a past run took for so many rows.
#[derive(Debug, Clone, Copy)]
struct Sample {
    rows: f64,
    seconds: f64,
}

/// So many of the newest runs are asked.
const RUNS: usize = 200;

/// The one of about as many rows, to a factor of two the newest: what planning and looking back cost is in its seconds.
fn nearest(samples: &[Sample], rows: f64) -> Option<Sample> {
    let distance = |sample: &Sample| (sample.rows.max(1.0) / rows.max(1.0)).log2().abs().round();
    samples.iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

/// What past runs say of time, newest first.
#[derive(Debug, Default)]
struct Paces {
    /// By table, as one of several that were computed at the same time.
    tables: BTreeMap<String, Vec<Sample>>,
    /// After the last table of a run with so many rows in all: checks, balance.
    settling: Vec<Sample>,
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
        let mut computed = 0.0;
        for step in models {
            if let (Some(table), Some(rows), Some(seconds)) =
                (step["table"].as_str(), step["rows"].as_f64(), step["seconds"].as_f64())
                && rows > 0.0
            {
                computed += rows;
                let sample = Sample { rows, seconds: seconds * share };
                self.tables.entry(table.to_owned()).or_default().push(sample);
            }
        }
        let all: Vec<_> = steps.iter().collect();
        if let Some((total, steps)) = report["seconds"].as_f64().zip(span(&all)) {
            self.settling.push(Sample { rows: computed, seconds: (total - steps).max(0.0) });
        }
    }

    /// How long these rows of a table take; `None` of a table that no run knows.
    fn seconds(&self, table: &str, rows: f64) -> Option<f64> {
        let samples = self.tables.get(table)?;
        let like = nearest(samples, rows)?;
        // a small one's fixed costs do not grow with the rows
        let more = samples.iter().filter(|sample| sample.rows >= rows).map(|sample| sample.seconds);
        Some(more.fold(like.seconds * rows / like.rows, f64::min))
    }
}

/// How long the steps take: by the past computation of each table that was most like it, and what its run took after it. A
/// table that no run knows is taken to be as slow as the slowest that one does.
///
/// # Errors
/// The store's.
pub(super) async fn estimate(run: &Run, plan: &mut Plan) -> Result<()> {
    let steps: Vec<&Step> =
        plan.steps.iter().filter(|step| !step.table.starts_with("quarantine.") && step.rows > 0).collect();
    let mut paces = Paces::default();
    for past in runs::newest(&run.ledger, RUNS).await?.iter().rev() {
        paces.learn(&past.report);
    }
    let seconds = |rows: fn(&Step) -> u64| {
        let known = |step: &&Step| Some((rows(step) as f64, paces.seconds(&step.table, rows(step) as f64)?));
        let known: Vec<(f64, f64)> = steps.iter().filter_map(known).collect();
        if known.is_empty() {
            return None;
        }
        let slowest = known.iter().filter(|(rows, _)| *rows > 0.0).map(|(rows, seconds)| seconds / rows);
        let slowest = slowest.reduce(f64::max).unwrap_or_default();
        let all: f64 = steps.iter().map(|step| rows(step) as f64).sum();
        let of_known: f64 = known.iter().map(|(rows, _)| rows).sum();
        let settling = nearest(&paces.settling, all).map_or(0.0, |like| like.seconds);
        Some(settling + known.iter().map(|(_, seconds)| seconds).sum::<f64>() + (all - of_known) * slowest)
    };
    let (most, least) = (seconds(|step| step.rows), seconds(|step| step.at_least.rows));
    plan.estimated_seconds = most;
    plan.at_least_seconds = least.zip(most).map(|(least, most)| least.min(most));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: u64, seconds: f64) -> serde_json::Value {
        let finished = 1_000_000 + (seconds * 1e6) as i64;
        serde_json::json!({
            "seconds": seconds + 1.0,
            "steps": [{"table": "gold.a", "rows": rows, "seconds": seconds, "started": 1_000_000, "finished": finished}],
        })
    }

    #[test]
    fn the_run_that_was_most_like_it_tells() {
        let mut paces = Paces::default();
        // newest first: one date, which looks back, and all of them
        paces.learn(&report(1_000, 0.5));
        paces.learn(&report(1_000_000, 10.0));
        assert_eq!(paces.seconds("gold.a", 2_000.0), Some(1.0));
        assert_eq!(paces.seconds("gold.a", 500_000.0), Some(5.0));
        assert_eq!(paces.seconds("gold.a", 40_000.0), Some(10.0), "no more than many more rows took");
        assert_eq!(paces.seconds("gold.b", 1.0), None);
        assert_eq!(nearest(&paces.settling, 1_000.0).map(|like| like.rows), Some(1_000.0));
    }
}
