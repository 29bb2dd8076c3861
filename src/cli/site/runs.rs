//! The last run's report, and how long the runs before it took.

use serde_json::Value as Json;

use super::dictionary::view;
use super::html::{Element, Heading, Markup, anchor, cell, el, link, number, prose, row, table, text};
use super::plot::{Plot, Series, Value, grouped};
use super::words::{stats, time};
use super::{Site, checks};
use crate::flow::balance::BalanceRow;
use crate::flow::runs::RunRecord;
use crate::project::sql::TableName;

/// Runs in the history and its plot.
const HISTORY: usize = 60;

/// Labels under the plot of durations.
const MOST_TICKS: usize = 12;

/// How a run may end, and its colour.
const ENDS: [(&str, &str); 3] = [("done", "c2"), ("failed", "c1"), ("error", "c3")];

/// Instead of what only a lake can say.
pub fn no_lake() -> Element {
    el("p").class("note").add(prose(
        "There is no lake yet, so this page has no numbers: after `medallion run`, make the site again.",
    ))
}

pub fn runs(site: &Site) -> Element {
    let page = view("runs", "page", text("Runs"));
    let all = site.facts.as_ref().map(|facts| facts.runs.as_slice()).unwrap_or_default();
    let Some(last) = all.last() else {
        return page.add(no_lake());
    };
    // a stream that is asked to let others in notes what it did, and leaves the books to the next
    let closed = all.iter().rfind(|run| !list(run, "balance").is_empty()).unwrap_or(last);
    let since = (closed.run_id != last.run_id).then(|| {
        let told = format!(
            "Balance, warnings and checks are those of run {}, which closed the books last.",
            closed.run_id
        );
        el("p").class("note").text(told)
    });
    page.add(summary(last))
        .add(problems(last))
        .add(steps(site, last))
        .add(since)
        .add(balance(closed))
        .add(warnings(closed))
        .add(checks(closed))
        .add(history(all))
}

fn status(run: &RunRecord) -> Element {
    let known = ENDS.iter().any(|(end, _)| *end == run.status);
    el("span").class(format!("status {}", if known { run.status.as_str() } else { "fail" })).text(&run.status)
}

/// The run in a line and a few numbers.
pub fn summary(run: &RunRecord) -> Markup {
    let line = el("p")
        .class("lead")
        .text(format!("Run {} (", run.run_id))
        .add(el("code").text(&run.command))
        .text(") ended as ")
        .add(status(run))
        .text(format!(" on {}.", time(run.finished)));
    let rows: u64 = list(run, "steps").iter().filter_map(|step| step["rows"].as_u64()).sum();
    let mut all = Markup::from(line);
    all.push(stats([
        ("took", format!("{:.2} s", run.seconds())),
        ("rows written", grouped(rows)),
        ("new files", run.report["new_files"].as_u64().map(grouped).unwrap_or("–".to_owned())),
        ("commits", grouped(run.commits)),
    ]));
    all
}

fn list<'a>(run: &'a RunRecord, name: &str) -> &'a [Json] {
    run.report[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn problems(run: &RunRecord) -> Markup {
    let error = run.report["error"].as_str().into_iter();
    let told: Vec<&str> = error.chain(list(run, "problems").iter().filter_map(Json::as_str)).collect();
    if told.is_empty() {
        return Markup::default();
    }
    let mut all = Markup::from(el("h3").text("Problems"));
    all.push(
        el("ul").class("problems").add_all(told.into_iter().map(|problem| el("li").add(prose(problem)))),
    );
    all
}

fn steps(site: &Site, run: &RunRecord) -> Markup {
    let steps = list(run, "steps");
    let text_of = |step: &Json, name: &str| step[name].as_str().unwrap_or_default().to_owned();
    let mut all = Markup::from(el("h3").text("Tables that changed"));
    if steps.is_empty() {
        all.push(el("p").class("note").text("None."));
        return all;
    }
    let timed: Vec<&Json> =
        steps.iter().filter(|step| step["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0)).collect();
    if !timed.is_empty() {
        let values =
            timed.iter().map(|step| Value::seconds(step["seconds"].as_f64().unwrap_or(0.0))).collect();
        let plot = Plot {
            id: anchor("runs.steps"),
            title: "Seconds per table".to_owned(),
            note: "Tables are computed beside each other, so these add up to more than the run took."
                .to_owned(),
            unit: "seconds".to_owned(),
            each: "table".to_owned(),
            names: timed.iter().map(|step| text_of(step, "table")).collect(),
            series: vec![Series { name: "seconds".to_owned(), color: "c0".to_owned(), values }],
            ..Plot::default()
        };
        all.push(el("div").class("plots").add(plot.bars()));
    }
    let rows = steps.iter().map(|step| {
        let name = text_of(step, "table");
        let table = TableName::parse(&name).filter(|table| site.has(table));
        let name = match table {
            Some(table) => link(&table, &table).into(),
            None => text(name),
        };
        let count = |field: &str| number(step[field].as_u64().map(grouped).unwrap_or_default());
        let what = cell(text(text_of(step, "scope"))).class("one-line");
        let counts = ["quarantined", "late", "unchanged", "withheld"].map(count);
        row(name, [count("rows"), what].into_iter().chain(counts))
    });
    let headings = [
        Heading::Text("table"),
        Heading::Number("rows written"),
        Heading::Text("what"),
        Heading::Number("quarantined"),
        Heading::Number("late"),
        Heading::Number("partitions as they were"),
        Heading::Number("withheld"),
    ];
    all.push(table("Tables that the last run changed", headings, rows));
    all
}

fn balance(run: &RunRecord) -> Markup {
    let rows: Vec<BalanceRow> =
        list(run, "balance").iter().filter_map(|row| serde_json::from_value(row.clone()).ok()).collect();
    let mut all = Markup::default();
    for (scope, title) in [("run", "Balance of the run"), ("lake", "Balance of the whole lake")] {
        let rows: Vec<&BalanceRow> = rows.iter().filter(|row| row.scope == scope).collect();
        if rows.is_empty() {
            continue;
        }
        let holds = rows.iter().all(|row| row.difference == 0);
        let verdict = match holds {
            true => el("span").class("status done").text("holds"),
            false => el("span").class("status fail").text("does not hold"),
        };
        all.push(el("h3").text(format!("{title} ")).add(verdict));
        let shown = rows.iter().map(|line| {
            let sides = [
                line.landed,
                line.accepted,
                line.duplicates,
                line.superseded,
                line.quarantined,
                line.difference,
            ];
            let cells = sides.map(|side| number(told(line, side)));
            row(text(&line.source), [cell(text(&line.measure))].into_iter().chain(cells))
        });
        let texts = ["source", "measure"].map(Heading::Text);
        let sides = ["landed", "accepted", "duplicates", "superseded", "quarantined", "difference"];
        all.push(table(title, texts.into_iter().chain(sides.map(Heading::Number)), shown));
    }
    all
}

fn told(row: &BalanceRow, side: i128) -> String {
    match row.measure == crate::flow::balance::RECORDS {
        true => grouped(side / 1_000_000),
        false => super::plot::amount(side),
    }
}

fn warnings(run: &RunRecord) -> Markup {
    let Some(warnings) = run.report["warnings"].as_object().filter(|warnings| !warnings.is_empty()) else {
        return Markup::default();
    };
    let rows = warnings
        .iter()
        .map(|(name, count)| row(prose(name), [number(count.as_u64().map(grouped).unwrap_or_default())]));
    let mut all = Markup::from(el("h3").text("Warnings"));
    all.push(table("Warnings of the last run", [Heading::Text("what"), Heading::Number("records")], rows));
    all
}

fn checks(run: &RunRecord) -> Markup {
    let text_of = |value: &Json, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let mut all = Markup::default();
    let checks = list(run, "checks");
    if !checks.is_empty() {
        let rows = checks.iter().map(|check| {
            let rows = check["rows"].as_i64().unwrap_or(0);
            // a report of an older version says only what the check may do at most
            let ended = match check["outcome"].as_str() {
                Some(outcome) => outcome,
                None if rows == 0 => "passed",
                None if check["severity"] == "warn" => "warned",
                None => "failed",
            };
            let details = check["details"].as_array().into_iter().flatten().filter_map(Json::as_str);
            let details = details.map(|detail| el("p").class("small").text(detail));
            row(
                el("code").text(text_of(check, "name")),
                [
                    cell(prose(&text_of(check, "description"))).class("prose"),
                    cell(checks::outcome(ended, rows)).add_all(details),
                ],
            )
        });
        all.push(el("h3").text("Checks"));
        all.push(table("Checks of the last run", ["check", "meaning", "result"].map(Heading::Text), rows));
    }
    let withheld = list(run, "withheld");
    if !withheld.is_empty() {
        let rows = withheld.iter().map(|told| {
            let partitions = told["partitions"].as_array().into_iter().flatten().filter_map(Json::as_str);
            let partitions: Vec<&str> = partitions.collect();
            row(
                text(text_of(told, "table")),
                [
                    cell(text(partitions.join(", "))),
                    cell(el("code").text(text_of(told, "check"))),
                    number(told["rows"].as_i64().map(grouped).unwrap_or_default()),
                ],
            )
        });
        let headings = [
            Heading::Text("table"),
            Heading::Text("partitions"),
            Heading::Text("by the check"),
            Heading::Number("rows"),
        ];
        all.push(el("h3").text("Withheld"));
        all.push(el("p").class("note").text("What was there before stays until the check passes."));
        all.push(table("What checks keep out of tables", headings, rows));
    }
    all
}

fn history(runs: &[RunRecord]) -> Markup {
    let newest = &runs[runs.len().saturating_sub(HISTORY)..];
    let mut all = Markup::from(el("h3").text("Durations"));
    let mut series: Vec<Series> = ENDS
        .iter()
        .map(|(end, color)| {
            let values = newest.iter().map(|run| match run.status == *end {
                true => Value::seconds(run.seconds()),
                false => Value::default(),
            });
            Series { name: (*end).to_owned(), color: (*color).to_owned(), values: values.collect() }
        })
        .collect();
    series.retain(|series| series.values.iter().any(|value| value.size > 0.0));
    let every = newest.len().div_ceil(MOST_TICKS).max(1);
    let plot = Plot {
        id: anchor("runs.durations"),
        title: "Duration of each run".to_owned(),
        note: match newest.len() < runs.len() {
            true => format!(
                "The newest {} of {} runs that changed something or were stopped.",
                newest.len(),
                runs.len()
            ),
            false => "Runs that changed something or were stopped.".to_owned(),
        },
        unit: "seconds".to_owned(),
        each: "run".to_owned(),
        names: newest.iter().map(|run| format!("run {}", run.run_id)).collect(),
        ticks: (0..newest.len()).step_by(every).map(|at| (at, newest[at].run_id.to_string())).collect(),
        series,
    };
    all.push(el("div").class("plots").add(plot.columns()));
    let rows = newest.iter().rev().map(|run| {
        let rows: u64 = list(run, "steps").iter().filter_map(|step| step["rows"].as_u64()).sum();
        row(
            text(run.run_id),
            [
                cell(el("code").text(&run.command)),
                cell(status(run)),
                cell(text(time(run.started))),
                number(format!("{:.2}", run.seconds())),
                number(grouped(rows)),
                number(grouped(run.commits)),
            ],
        )
    });
    let headings = [
        Heading::Text("run"),
        Heading::Text("command"),
        Heading::Text("ended as"),
        Heading::Text("started"),
        Heading::Number("seconds"),
        Heading::Number("rows written"),
        Heading::Number("commits"),
    ];
    all.push(table("Runs, the newest first", headings, rows));
    all
}
