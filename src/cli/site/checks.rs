//! Checks: what must be true, what is tolerated, and how it was in the last runs.

use super::Site;
use super::atlas::shown_as;
use super::html::{Element, Heading, Markup, cell, el, link, prose, row, table, text};
use super::plot::grouped;
use super::sql;
use super::words::time;
use crate::flow::check_history::CheckRecord;
use crate::project::check::{Amount, Anomaly, Check, Finds, Kind, Outcome, Until};

/// Runs whose outcomes are shown, the last ones.
const SHOWN_RUNS: usize = 24;

/// Checks with how they ended.
pub fn check_table(site: &Site, caption: &str, checks: &[&Check]) -> Element {
    let rows = checks.iter().map(|check| {
        let told = site.facts.as_ref().and_then(|facts| facts.checks.get(&check.name));
        let told = told.map(Vec::as_slice).unwrap_or_default();
        let last = match told.last() {
            None => cell(text("–")),
            Some(last) => {
                let details = (!last.details.is_empty()).then(|| el("p").class("small").text(&last.details));
                cell(outcome(&last.outcome, last.rows_found)).add(strip(told)).add(details)
            }
        };
        let guards = check
            .guards
            .as_ref()
            .map(|guarded| el("p").class("small").text("guards ").add(link(guarded, guarded)));
        row(
            el("code").text(&check.name),
            [
                cell(prose(&check.description)).class("prose").add(guards),
                cell(text(bounds(check))),
                cell(finds(site, check)),
                last,
            ],
        )
    });
    table(caption, ["check", "meaning", "tolerance", "finds", "last runs"].map(Heading::Text), rows)
}

/// How a check ended, as a badge.
pub fn outcome(name: &str, rows: i64) -> Element {
    let class = match name {
        "passed" => "done",
        "warned" => "warn",
        _ => "fail",
    };
    let told = match rows {
        0 => name.to_owned(),
        rows => format!("{name}: {} rows", grouped(rows)),
    };
    el("span").class(format!("status {class}")).text(told)
}

/// The outcomes of the last runs, one box each, the newest at the right.
fn strip(records: &[CheckRecord]) -> Element {
    let newest = &records[records.len().saturating_sub(SHOWN_RUNS)..];
    let boxes = newest.iter().map(|record| {
        let told = format!("run {} ({}): {}", record.run_id, time(record.checked), record.outcome);
        let known = [Outcome::Passed, Outcome::Warned, Outcome::Withheld, Outcome::Failed];
        let class =
            known.iter().find(|known| known.as_str() == record.outcome).map_or("", |known| known.as_str());
        let letter = if record.outcome == "passed" { "" } else { "!" };
        el("li").class(class).set("title", &told).add(el("span").class("unseen").text(&told)).text(letter)
    });
    el("ul").class("strip").add_all(boxes)
}

fn bounds(check: &Check) -> String {
    let tolerance = &check.tolerance;
    let bound = |amount: Amount| match amount {
        Amount::Rows(0) => "with any row".to_owned(),
        Amount::Rows(1) => "above 1 row".to_owned(),
        Amount::Rows(rows) => format!("above {} rows", grouped(rows)),
        Amount::Share(_) => match &tolerance.of {
            Some(of) => format!("above {amount} of {of}"),
            None => format!("above {amount}"),
        },
    };
    match tolerance.fail_above {
        None => format!("warns {}", bound(tolerance.warn_above)),
        Some(fails) if fails == tolerance.warn_above => format!("fails {}", bound(fails)),
        Some(fails) => format!("warns {}, fails {}", bound(tolerance.warn_above), bound(fails)),
    }
}

fn finds(site: &Site, check: &Check) -> Markup {
    match &check.finds {
        Finds::Rows(query) => {
            let shown = sql::shown(query, |table| site.has(table));
            el("details").add(el("summary").text("SQL")).add(shown).into()
        }
        Finds::Deviations(anomaly) => prose(&deviations(anomaly)),
    }
}

fn deviations(anomaly: &Anomaly) -> String {
    let Anomaly { table, days, .. } = anomaly;
    match &anomaly.kind {
        Kind::Volume => {
            format!("dates on which the rows of `{table}` are not what they were in the {days} days before")
        }
        Kind::NullRate { column } => format!(
            "dates on which `{column}` of `{table}` is null more or less often than in the {days} days before"
        ),
        Kind::Freshness { until: Until::Now } => {
            format!("whether the newest date of `{table}` is further back than usual")
        }
        Kind::Freshness { until: Until::Table(other) } => {
            format!("whether the newest date of `{table}` is further behind that of `{other}` than usual")
        }
    }
}

/// Whether a check reads a table, or guards it.
pub fn concerns(check: &Check, table: &crate::project::sql::TableName) -> bool {
    check.guards.as_ref() == Some(table) || check.reads.iter().any(|read| shown_as(read) == *table)
}
