//! What is promised about landed records: the sources, why a record is refused, what is counted, what is checked.

use std::collections::BTreeSet;

use super::Site;
use super::checks::check_table;
use super::dictionary::{mode, view};
use super::html::{Element, Heading, Markup, cell, el, link, number, prose, row, table, text};
use super::plot::grouped;
use super::words::duration;
use crate::decode::ErrorType;
use crate::flow::{decide, late};
use crate::project::sql::TableName;
use crate::zone;

/// Why the engine itself refuses a record.
fn by_engine() -> [(&'static str, &'static str); 8] {
    [
        (
            ErrorType::Malformed.as_str(),
            "not a record of the format: no JSON object, a wrong number of columns, not UTF-8, too long, too deep",
        ),
        (ErrorType::MissingKey.as_str(), "a key column is null, absent or empty"),
        (ErrorType::MissingRequired.as_str(), "a required column is null, absent or empty"),
        (ErrorType::BadType.as_str(), "a key or required column does not parse as its type"),
        (ErrorType::OutOfRange.as_str(), "a number that its type cannot hold exactly"),
        (ErrorType::FutureTimestamp.as_str(), "the event time lies too far after its file's time"),
        (late::ERROR_TYPE, "it came behind the watermark of a source that refuses such records"),
        (decide::CONFLICT, "another record with the same key and other content was accepted"),
    ]
}

pub fn contract(site: &Site) -> Element {
    let lead = "Every landed record ends accepted, as a duplicate, superseded or in quarantine, and a balance of records and \
                amounts proves it. What is refused keeps its reason and its exact bytes.";
    view("contract", "page", text("Contract"))
        .add(el("p").class("lead").add(prose(lead)))
        .add(el("h3").text("Sources"))
        .add(sources(site))
        .add(el("h3").text("Reasons for quarantine"))
        .add(reasons(site))
        .add(warnings(site))
        .add(checks(site))
}

fn sources(site: &Site) -> Element {
    let rows = site.project.sources.iter().map(|source| {
        let name = TableName::new(zone::BRONZE, &source.name);
        let key: Vec<&str> = source.key().collect();
        let money: Vec<&str> = source.money().collect();
        let landed = site.facts.as_ref().and_then(|facts| facts.sources.get(&source.name));
        let watermark = source.watermark_delay.map(|delay| format!("newest event − {}", duration(delay)));
        row(
            link(&name, &source.name),
            [
                cell(el("code").text(&source.files)),
                cell(text(mode(source.mode).0)),
                cell(el("code").text(key.join(", "))),
                cell(el("code").text(&source.layout.columns[source.layout.partition].name)),
                cell(text(watermark.unwrap_or_default())),
                cell(el("code").text(money.join(", "))),
                number(landed.map_or("–".to_owned(), |landed| grouped(landed.landed))),
            ],
        )
    });
    let texts = ["source", "files", "mode", "key", "date", "watermark", "balanced amounts"];
    let headings = texts.map(Heading::Text).into_iter().chain([Heading::Number("landed")]);
    table("Sources", headings, rows)
}

fn reasons(site: &Site) -> Element {
    let total = |error: &str| -> Element {
        let Some(facts) = &site.facts else {
            return number("–");
        };
        let counts = facts.sources.values().filter_map(|source| source.by_error().get(error).copied());
        number(grouped(counts.sum::<u64>()))
    };
    let engine = by_engine().into_iter().map(|(error, meaning)| {
        let every = cell(text("every source"));
        row(el("code").text(error), [every, cell(text(meaning)).class("prose"), total(error)])
    });
    let rules =
        site.project.sources.iter().flat_map(|source| source.rules.iter().map(move |rule| (source, rule)));
    let mut known: BTreeSet<&str> = by_engine().into_iter().map(|(error, _)| error).collect();
    let mut by_rule: Vec<Markup> = Vec::new();
    for (source, rule) in rules {
        known.insert(&rule.error_type);
        let name = TableName::new(zone::BRONZE, &source.name);
        let meaning = cell(prose(&rule.reason)).class("prose");
        let now = site.facts.as_ref().and_then(|facts| facts.sources.get(&source.name));
        let now =
            now.map(|counts| grouped(counts.by_error().get(rule.error_type.as_str()).copied().unwrap_or(0)));
        by_rule.push(row(
            el("code").text(&rule.error_type),
            [cell(link(&name, &source.name)), meaning, number(now.unwrap_or("–".to_owned()))],
        ));
    }
    // of rules that the project had once
    let older: BTreeSet<&str> = site
        .facts
        .iter()
        .flat_map(|facts| facts.sources.values())
        .flat_map(|source| source.quarantined.keys().map(|(_, error)| error.as_str()))
        .filter(|error| !known.contains(error))
        .collect();
    let older = older.into_iter().map(|error| {
        let meaning = "a rule that the project no longer has";
        row(el("code").text(error), [cell(Markup::default()), cell(text(meaning)), total(error)])
    });
    let headings = [
        Heading::Text("error type"),
        Heading::Text("source"),
        Heading::Text("meaning"),
        Heading::Number("now in quarantine"),
    ];
    table("Reasons for quarantine", headings, engine.chain(by_rule).chain(older))
}

fn warnings(site: &Site) -> Markup {
    let found: Vec<Markup> = site
        .project
        .sources
        .iter()
        .flat_map(|source| source.warnings.iter().map(move |warning| (source, warning)))
        .map(|(source, warning)| {
            let name = TableName::new(zone::BRONZE, &source.name);
            row(
                el("code").text(&warning.name),
                [cell(link(&name, &source.name)), cell(prose(&warning.description)).class("prose")],
            )
        })
        .collect();
    if found.is_empty() {
        return Markup::default();
    }
    let mut all = Markup::from(el("h3").text("Warnings"));
    all.push(el("p").class("note").text("Accepted, and counted."));
    all.push(table("Warnings", ["counted as", "source", "meaning"].map(Heading::Text), found));
    all
}

fn checks(site: &Site) -> Markup {
    let checks: Vec<_> = site.project.checks.iter().collect();
    if checks.is_empty() {
        return Markup::default();
    }
    let mut all = Markup::from(el("h3").text("Checks"));
    all.push(el("p").class("note").text("Asked when a table or a check has changed. A check that guards a table keeps partitions out that it finds fault with."));
    all.push(check_table(site, "Checks", &checks));
    all
}
