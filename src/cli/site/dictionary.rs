//! The sections of sources, tables and reference tables: what a row is, its columns and where they come from, what is
//! checked, what the lake holds, and the SQL.

use super::atlas::{LANDING, shown_as};
use super::html::{Element, Heading, Markup, anchor, cell, el, link, number, prose, row, table, text};
use super::plot::{Plot, Series, Value, grouped};
use super::words::{bytes, duration, facts_list, stats, time};
use super::{Site, calendar, checks, columns, picture, serving, sql, trends};
use crate::project::Reference;
use crate::project::check::Check;
use crate::project::manifest::LatePolicy;
use crate::project::model::{Dates, Model, Span};
use crate::project::source::{Mode, Source};
use crate::project::sql::TableName;
use crate::zone;

/// Partitions in the table of the newest.
const NEWEST_PARTITIONS: usize = 31;

/// Rows of a reference table.
const REFERENCE_ROWS: usize = 200;

/// The beginning of a section of the site: the script shows one at a time.
pub fn view(id: &str, kind: &str, title: impl Into<Markup>) -> Element {
    el("section")
        .class("view")
        .set("id", anchor(id))
        .set("data-find", kind)
        .set("data-name", id)
        .set("aria-labelledby", format!("{}--title", anchor(id)))
        .add(el("h2").set("id", format!("{}--title", anchor(id))).set("tabindex", -1).add(title))
}

fn table_title(name: &TableName, kind: &str) -> Markup {
    let zone = el("span").class(format!("zone z-{}", name.schema)).text(&name.schema);
    let mut title = Markup::from(zone);
    title.push(text(&name.table));
    title.push(el("span").class("kind").text(kind));
    title
}

/// A source: bronze, what may be refused, and quarantine.
pub fn source(site: &Site, source: &Source) -> Element {
    let name = TableName::new(zone::BRONZE, &source.name);
    let (mode, meaning) = mode(source.mode);
    let layout = &source.layout;
    let column = |at: usize| layout.columns[at].name.as_str();
    let code = |names: Vec<&str>| -> Markup {
        let codes = names.into_iter().map(|name| el("code").text(name));
        codes.flat_map(|code| [Markup::from(code), text(" ")]).collect()
    };
    let mut list = vec![
        (
            "files",
            el("code").set("id", anchor(TableName::new(LANDING, &source.name))).text(&source.files).into(),
        ),
        ("format", text(format!("{:?}", layout.format).to_uppercase())),
        ("mode", text(format!("{mode}: {meaning}"))),
        ("key", code(source.key().collect())),
        ("date", code(vec![column(layout.partition)])),
    ];
    if let Some(at) = layout.event_time {
        let limit = duration(layout.future_limit_micros);
        list.push(("event time", code(vec![column(at)])));
        let told = format!("at most {limit} after its file's time, else `future_timestamp`");
        list.push(("not from the future", prose(&told)));
    }
    if let Some(delay) = source.watermark_delay {
        let late = match source.late {
            LatePolicy::Accept => "accepted and marked",
            LatePolicy::Quarantine => "quarantined as `late`",
        };
        list.push((
            "watermark",
            prose(&format!("{} behind the newest event; what comes later is {late}", duration(delay))),
        ));
    }
    if source.money().next().is_some() {
        list.push(("balanced amounts", code(source.money().collect())));
    }
    if let Some(most) = source.freshness {
        list.push(("freshness", text(format!("something new at least every {}", duration(most)))));
    }
    let mut section = view(&name.to_string(), "table", table_title(&name, "landed source"))
        .add(el("p").class("lead").add(prose(&source.description)))
        .add(table_stats(site, &name))
        .add(facts_list(list))
        .add(neighbours(site, &name))
        .add(el("h3").text("Columns"))
        .add(columns::of_source(site, source, &name))
        .add(rules(site, source));
    let also = match source.mode {
        Mode::Events => {
            "Queries read it as `accepted.NAME`: one record per key and date, those that the rules let in."
        }
        Mode::Upserts => {
            "Queries read it as `accepted.NAME`: the latest record of each key, and as `versions.NAME`: every version with \
             its time of validity."
        }
    };
    section = section.add(el("p").class("note").add(prose(&also.replace("NAME", &source.name))));
    section.add(checks(site, &name)).add(over_time(site, &name)).add(partitions(site, &name))
}

/// A source's mode in words.
pub fn mode(mode: Mode) -> (&'static str, &'static str) {
    match mode {
        Mode::Events => ("events", "immutable facts, the first record of a key and date is accepted"),
        Mode::Upserts => ("upserts", "versions of a thing, the latest record of a key is current"),
    }
}

fn rules(site: &Site, source: &Source) -> Markup {
    let counts = site.facts.as_ref().and_then(|facts| facts.sources.get(&source.name));
    let now = |error: &str| match counts {
        Some(counts) => number(grouped(counts.by_error().get(error).copied().unwrap_or(0))),
        None => number("–"),
    };
    let mut all = Markup::default();
    if !source.rules.is_empty() {
        all.push(el("h3").text("Rules"));
        let rows = source.rules.iter().map(|rule| {
            let when = sql::shown(&rule.when, |_| false);
            row(
                el("code").text(&rule.error_type),
                [cell(when), cell(prose(&rule.reason)).class("prose"), now(&rule.error_type)],
            )
        });
        let headings = [
            Heading::Text("quarantined as"),
            Heading::Text("when"),
            Heading::Text("reason"),
            Heading::Number("now"),
        ];
        all.push(table(format!("Rules of {}", source.name), headings, rows));
    }
    if !source.warnings.is_empty() {
        all.push(el("h3").text("Warnings"));
        let rows = source.warnings.iter().map(|warning| {
            row(
                el("code").text(&warning.name),
                [
                    cell(sql::shown(&warning.when, |_| false)),
                    cell(prose(&warning.description)).class("prose"),
                ],
            )
        });
        let headings = ["counted as", "when", "meaning"].map(Heading::Text);
        all.push(table(format!("Warnings of {}", source.name), headings, rows));
    }
    all
}

/// A table of silver or gold.
pub fn model(site: &Site, model: &Model) -> Element {
    let name = &model.table;
    let kind = if model.is_view { "view" } else { "table" };
    let codes = |names: &[String]| -> Markup {
        let codes = names.iter().map(|name| el("code").text(name));
        codes.flat_map(|code| [Markup::from(code), text(" ")]).collect()
    };
    let mut list = Vec::new();
    if !model.key.is_empty() {
        list.push(("key", codes(&model.key)));
    }
    if model.is_partitioned() {
        list.push(("partition", codes(&model.partition)));
    }
    let inputs = model
        .inputs
        .iter()
        .map(|(input, span)| el("li").add(link(shown_as(input), input)).text(span_text(*span)));
    list.push(("reads", el("ul").class("plain").add_all(inputs).into()));
    match &model.dates {
        Dates::OfInputs => {}
        Dates::Of(input) => list.push(("dates", text(format!("those of {input}")))),
        Dates::CalendarOf(input) => {
            list.push(("dates", text(format!("every one from the first of {input} to its last"))));
        }
    }
    if let Some(source) = &model.accounts_for {
        let source = TableName::new(zone::BRONZE, source);
        let mut stands = Markup::from(link(&source, &source));
        stands.push(text(": the balance counts its rows as the accepted records"));
        list.push(("accounts for", stands));
    }
    if let Some(most) = model.freshness {
        list.push(("freshness", text(format!("a change waits at most {}", duration(most)))));
    }
    list.push(("file", el("code").text(model.file.display()).into()));
    view(&name.to_string(), "table", table_title(name, kind))
        .add(el("p").class("lead").add(prose(&model.description)))
        .add(table_stats(site, name))
        .add(facts_list(list))
        .add(neighbours(site, name))
        .add(el("h3").text("Columns"))
        .add(columns::of_model(site, model))
        .add(checks(site, name))
        .add(el("h3").text("SQL"))
        .add(sql::shown(&model.sql, |table| site.has(table)))
        .add(serving::of_mart(site, name))
        .add(over_time(site, name))
        .add(partitions(site, name))
}

fn span_text(span: Span) -> String {
    match span {
        Span::Days { from: 0, to: 0 } => " of the same date".to_owned(),
        Span::Days { from, to } => format!(" of {from} to {to} days before"),
        Span::Whole => " whole".to_owned(),
        Span::Partitions => ": which dates there are".to_owned(),
    }
}

/// A small table of the project.
pub fn reference(site: &Site, reference: &Reference) -> Element {
    let name = TableName::new(zone::REFERENCE, &reference.name);
    let rows = &reference.rows;
    let schema = rows.schema();
    let headings = schema.fields().iter().map(|field| Heading::Text(field.name()));
    let shown = (0..rows.num_rows().min(REFERENCE_ROWS)).map(|at| {
        let cells = rows.columns().iter().map(|column| {
            let value = arrow::util::display::array_value_to_string(column, at).unwrap_or_default();
            cell(text(value))
        });
        el("tr").add_all(cells).into()
    });
    let told =
        format!("{} rows, kept with the project in `sql/reference/{}.csv`.", rows.num_rows(), reference.name);
    view(&name.to_string(), "table", table_title(&name, "reference table"))
        .add(el("p").class("lead").add(prose(&told)))
        .add(neighbours(site, &name))
        .add(table(format!("Rows of {name}"), headings, shown))
}

fn neighbours(site: &Site, name: &TableName) -> Option<Markup> {
    let node = site.atlas.find(name)?;
    let mut all = Markup::from(el("h3").text("Lineage"));
    all.push(picture::around(&site.atlas, site.facts.as_ref(), node));
    Some(all)
}

fn table_stats(site: &Site, name: &TableName) -> Option<Element> {
    let found = site.facts.as_ref()?.tables.get(&name.to_string())?;
    let partitions = match found.partitions.len() {
        0 => "–".to_owned(),
        many => grouped(many),
    };
    Some(stats([
        ("rows", grouped(found.total.rows)),
        ("partitions", partitions),
        ("files", grouped(found.total.files)),
        ("size", bytes(found.total.bytes)),
        ("version", found.version.to_string()),
        ("last commit", time(found.committed * 1000)),
    ]))
}

fn checks(site: &Site, name: &TableName) -> Markup {
    let of_table: Vec<&Check> =
        site.project.checks.iter().filter(|check| checks::concerns(check, name)).collect();
    if of_table.is_empty() {
        return Markup::default();
    }
    let mut all = Markup::from(el("h3").text("Checks"));
    all.push(checks::check_table(site, &format!("Checks of {name}"), &of_table));
    all
}

fn over_time(site: &Site, name: &TableName) -> Option<Markup> {
    let found = site.facts.as_ref()?.tables.get(&name.to_string())?;
    let axis = calendar::Axis::of(&found.by_date)?;
    let mut values = vec![0; axis.starts.len()];
    for (date, rows) in &found.by_date {
        if let Some(at) = axis.bin(*date) {
            values[at] += rows;
        }
    }
    let values = values.into_iter().map(Value::count).collect();
    let series = Series { name: "rows".to_owned(), color: "c0".to_owned(), values };
    let plot = Plot {
        id: anchor(format!("rows.{name}")),
        title: format!("Rows of {name} per {}", axis.step.name()),
        note: axis.left_out(&found.by_date).unwrap_or_default(),
        unit: "rows".to_owned(),
        series: vec![series],
        ..trends::over(&axis)
    };
    let mut all = Markup::from(el("h3").text("Over time"));
    all.push(plot.columns());
    Some(all)
}

fn partitions(site: &Site, name: &TableName) -> Option<Element> {
    let found = site.facts.as_ref()?.tables.get(&name.to_string())?;
    if found.partitions.is_empty() {
        return None;
    }
    let newest = found.partitions.iter().rev().take(NEWEST_PARTITIONS).map(|(value, part)| {
        let shown = if value.is_empty() { "null" } else { value };
        let cells = [grouped(part.rows), grouped(part.files), bytes(part.bytes)].map(number);
        row(text(shown), cells.into_iter().chain([cell(text(time(part.written * 1000)))]))
    });
    let headings = [
        Heading::Text("partition"),
        Heading::Number("rows"),
        Heading::Number("files"),
        Heading::Number("size"),
        Heading::Text("newest file"),
    ];
    let shown = found.partitions.len().min(NEWEST_PARTITIONS);
    let summary = format!("Partitions: the newest {shown} of {}", grouped(found.partitions.len()));
    Some(el("details").add(el("summary").text(&summary)).add(table(summary, headings, newest)))
}
