//! What a report, the tables' ages and a command's end say, as conditions.

use serde_json::{Value, json};

use super::alert::{Condition, Observation};
use crate::error::{Error, Result};
use crate::flow::Run;
use crate::flow::checks::CheckResult;
use crate::flow::freshness;
use crate::flow::gate::Told;
use crate::flow::report::Report;
use crate::project::Project;
use crate::project::alerts::AlertKind;
use crate::project::check::Outcome;

const CHECK: &str = "check:";
const WARNING: &str = "warning:";
const WITHHELD: &str = "withheld:";
const BALANCE: &str = "balance:";
const FRESHNESS: &str = "freshness:";

/// A receiver takes no message without end: so many items of a list are told, and how many there are.
const TOLD_ITEMS: usize = 20;

/// Commands that are given again and again, so that success says that a failure is over.
const REPEATED: [&str; 4] = ["run", "stream", "publish", "status"];

fn condition(kind: AlertKind, key: String, is_bad: bool, title: String) -> Condition {
    Condition { kind, key, is_bad, is_event: false, title, details: json!({}), rows: Vec::new() }
}

fn first(items: &[String]) -> Value {
    json!(&items[..items.len().min(TOLD_ITEMS)])
}

/// How checks ended; of a check that was not asked nothing is said. `withheld` is all that checks keep out of tables.
pub fn of_checks(project: &Project, checks: &[CheckResult], withheld: &[Told]) -> Observation {
    let mut found = Observation::default();
    // also where the project has none any more: what was told of the last one is over
    for prefix in [CHECK, WARNING, WITHHELD] {
        found.known.entry(prefix).or_default();
    }
    let has_objectives = project.sources.iter().any(|source| source.freshness.is_some())
        || project.stored_models().any(|model| model.freshness.is_some());
    if !has_objectives {
        found.known.entry(FRESHNESS).or_default();
    }
    for check in checks {
        let details = json!({
            "check": check.name,
            "description": check.description,
            "severity": check.severity,
            "outcome": check.outcome,
            "rows": check.rows,
            "dates": first(&check.dates),
            "num_dates": check.dates.len(),
            "findings": first(&check.details),
            "num_findings": check.details.len(),
        });
        let title = match check.outcome {
            Outcome::Failed | Outcome::Warned => check.to_string(),
            Outcome::Passed | Outcome::Withheld => format!("the check `{}` is as it should be", check.name),
        };
        let mut add = |kind, prefix: &str, is_bad| {
            let key = format!("{prefix}{}", check.name);
            let details = details.clone();
            found.conditions.push(Condition { details, ..condition(kind, key, is_bad, title.clone()) });
        };
        add(AlertKind::Check, CHECK, check.outcome == Outcome::Failed);
        // what fails is more than a warning, which is not over by that
        if check.outcome != Outcome::Failed {
            add(AlertKind::Anomaly, WARNING, check.outcome == Outcome::Warned);
        }
    }
    for check in &project.checks {
        found.known.entry(CHECK).or_default().insert(format!("{CHECK}{}", check.name));
        found.known.entry(WARNING).or_default().insert(format!("{WARNING}{}", check.name));
        let Some(table) = &check.guards else {
            continue;
        };
        let key = format!("{WITHHELD}{table}:{}", check.name);
        let told = withheld.iter().find(|told| told.check == check.name && told.table == table.to_string());
        let title = match told {
            Some(told) => told.to_string(),
            None => format!("the check `{}` withholds nothing from `{table}`", check.name),
        };
        let partitions = told.map(|told| told.partitions.clone()).unwrap_or_default();
        found.conditions.push(Condition {
            details: json!({
                "check": check.name,
                "description": check.description,
                "table": table.to_string(),
                "partitions": first(&partitions),
                "num_partitions": partitions.len(),
                "rows": told.map_or(0, |told| told.rows),
            }),
            ..condition(AlertKind::Check, key.clone(), told.is_some(), title)
        });
        found.known.entry(WITHHELD).or_default().insert(key);
    }
    found
}

/// Checks, balance and what else a report has to say; what it has not looked at, it says nothing of.
pub fn of_report(project: &Project, report: &Report) -> Observation {
    let mut found = of_checks(project, &report.checks, &report.withheld);
    let mut measures: Vec<(&str, &str)> =
        report.balance.iter().map(|row| (row.source.as_str(), row.measure.as_str())).collect();
    measures.sort_unstable();
    measures.dedup();
    for (source, measure) in measures {
        let rows = report.balance.iter().filter(|row| row.source == source && row.measure == measure);
        let wrong = rows.clone().find(|row| row.difference != 0);
        let title = match wrong {
            None => format!("the balance of `{source}` ({measure}) holds"),
            Some(row) => row.to_string(),
        };
        let key = format!("{BALANCE}{source}:{measure}");
        found.conditions.push(Condition {
            details: json!({"source": source, "measure": measure, "balance": rows.collect::<Vec<_>>()}),
            ..condition(AlertKind::Balance, key.clone(), wrong.is_some(), title)
        });
        found.known.entry(BALANCE).or_default().insert(key);
    }
    // a stream tells by itself how its publishing fares
    let obstacle = report.published.iter().find_map(|publication| publication.obstacle.as_ref());
    if let Some(obstacle) = obstacle.filter(|_| report.command != "stream") {
        found.conditions.push(Condition {
            details: json!({"command": report.command}),
            ..condition(AlertKind::Failure, "failure:publish".to_owned(), true, obstacle.clone())
        });
    }
    // only these look at landing
    if matches!(report.command.as_str(), "run" | "stream") {
        let title = match report.problems.first() {
            None => "every landed file is as it was taken in".to_owned(),
            Some(first) if report.problems.len() == 1 => first.clone(),
            Some(first) => format!("{first}, and {} more", report.problems.len() - 1),
        };
        found.conditions.push(Condition {
            details: json!({"problems": first(&report.problems), "num_problems": report.problems.len()}),
            ..condition(AlertKind::Failure, "failure:landing".to_owned(), !report.problems.is_empty(), title)
        });
    }
    found
}

/// # Errors
/// The store's.
pub async fn of_freshness(run: &Run) -> Result<Observation> {
    let mut found = Observation::default();
    for fresh in freshness::declared(run, chrono::Utc::now().timestamp_micros()).await? {
        let key = format!("{FRESHNESS}{}", fresh.table);
        found.known.entry(FRESHNESS).or_default().insert(key.clone());
        found.conditions.push(Condition {
            details: json!({
                "table": fresh.table,
                "age_seconds": fresh.age_seconds,
                "freshness_seconds": fresh.objective_seconds,
            }),
            ..condition(AlertKind::Freshness, key, fresh.is_fresh() == Some(false), fresh.to_string())
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

/// A command has done its work, and by its exit code a person has to look.
pub fn of_exit(command: &str, code: u8) -> Condition {
    Condition {
        details: json!({"command": command, "exit_code": code}),
        is_event: !REPEATED.contains(&command),
        ..condition(
            AlertKind::Failure,
            format!("failure:{command}"),
            code != 0,
            match code {
                0 => format!("`{command}` does its work"),
                _ => format!("`{command}` ended with exit code {code}"),
            },
        )
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
