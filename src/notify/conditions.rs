//! What a report, the tables' ages and a command's end say, as conditions.

use serde_json::json;

use super::alert::{Condition, Observation};
use crate::error::{Error, Result};
use crate::flow::Run;
use crate::flow::freshness;
use crate::flow::report::Report;
use crate::project::alerts::AlertKind;
use crate::telemetry::duration_text;

const CHECK: &str = "check:";
const BALANCE: &str = "balance:";
const FRESHNESS: &str = "freshness:";

/// Commands that are given again and again, so that success says that a failure is over.
const REPEATED: [&str; 4] = ["run", "stream", "publish", "status"];

fn condition(kind: AlertKind, key: String, is_bad: bool, title: String) -> Condition {
    Condition { kind, key, is_bad, is_event: false, title, details: json!({}), rows: Vec::new() }
}

/// Checks, balance and what else a report has to say; what it has not looked at, it says nothing of.
pub fn of_report(report: &Report) -> Observation {
    let mut found = Observation::default();
    for check in &report.checks {
        let kind = if check.severity == "fail" { AlertKind::Check } else { AlertKind::Anomaly };
        let title = match check.rows {
            0 => format!("the check `{}` finds nothing", check.name),
            rows => format!("the check `{}` found {rows} rows: {}", check.name, check.description),
        };
        found.conditions.push(Condition {
            details: json!({
                "check": check.name,
                "description": check.description,
                "severity": check.severity,
                "rows": check.rows,
            }),
            ..condition(kind, format!("{CHECK}{}", check.name), check.rows > 0, title)
        });
        found.complete.insert(CHECK);
    }
    let mut measures: Vec<(&str, &str)> =
        report.balance.iter().map(|row| (row.source.as_str(), row.measure.as_str())).collect();
    measures.sort_unstable();
    measures.dedup();
    for (source, measure) in measures {
        let rows = report.balance.iter().filter(|row| row.source == source && row.measure == measure);
        let wrong = rows.clone().find(|row| row.difference != 0);
        let title = match wrong {
            None => format!("the balance of `{source}` ({measure}) holds"),
            Some(row) => format!(
                "the balance of `{source}` ({measure}, {}) does not hold: difference {}",
                row.scope,
                row.amount(row.difference)
            ),
        };
        let key = format!("{BALANCE}{source}:{measure}");
        found.conditions.push(Condition {
            details: json!({"source": source, "measure": measure, "balance": rows.collect::<Vec<_>>()}),
            ..condition(AlertKind::Balance, key, wrong.is_some(), title)
        });
        found.complete.insert(BALANCE);
    }
    // only these look at landing
    if matches!(report.command.as_str(), "run" | "stream") {
        let title = match report.problems.first() {
            None => "every landed file is as it was taken in".to_owned(),
            Some(first) if report.problems.len() == 1 => first.clone(),
            Some(first) => format!("{first}, and {} more", report.problems.len() - 1),
        };
        found.conditions.push(Condition {
            details: json!({"problems": report.problems}),
            ..condition(AlertKind::Failure, "failure:landing".to_owned(), !report.problems.is_empty(), title)
        });
    }
    found
}

/// # Errors
/// The store's.
pub async fn of_freshness(run: &Run) -> Result<Observation> {
    let mut found = Observation { complete: [FRESHNESS].into(), ..Observation::default() };
    for fresh in freshness::declared(run, chrono::Utc::now().timestamp_micros()).await? {
        let objective = duration_text(fresh.objective_seconds.unwrap_or(0));
        let is_bad = fresh.is_fresh() == Some(false);
        let title = match (is_bad, fresh.age_seconds) {
            (false, _) => format!("`{}` is fresh", fresh.table),
            (true, None) => format!("`{}` has never had anything, it may be {objective} old", fresh.table),
            (true, Some(age)) => {
                format!("`{}` is {} old, it may be {objective}", fresh.table, duration_text(age))
            }
        };
        found.conditions.push(Condition {
            details: json!({
                "table": fresh.table,
                "age_seconds": fresh.age_seconds,
                "freshness_seconds": fresh.objective_seconds,
            }),
            ..condition(AlertKind::Freshness, format!("{FRESHNESS}{}", fresh.table), is_bad, title)
        });
    }
    Ok(found)
}

/// How a command, or a part of one, fares.
pub fn of_command(command: &str, error: Option<&Error>) -> Condition {
    let title = match error {
        None => format!("`{command}` does its work"),
        Some(error) => format!("`{command}` failed: {error}"),
    };
    let details = match error {
        None => json!({"command": command}),
        Some(error) => json!({
            "command": command,
            "error": error.to_string(),
            "exit_code": error.kind().exit_code(),
        }),
    };
    Condition {
        details,
        is_event: !REPEATED.contains(&command),
        ..condition(AlertKind::Failure, format!("failure:{command}"), error.is_some(), title)
    }
}

/// New rows of a watch.
pub fn of_watch(watch: &str, count: usize, rows: Vec<String>) -> Condition {
    let (noun, verb) = if count == 1 { ("row", "is") } else { ("rows", "are") };
    Condition {
        details: json!({"watch": watch, "rows": count}),
        rows,
        is_event: true,
        ..condition(
            AlertKind::Anomaly,
            format!("watch:{watch}"),
            true,
            format!("{count} {noun} of the watch `{watch}` {verb} new"),
        )
    }
}
