//! Plots over dates: what landed and what became of it, accepted amounts, what was refused and why, how late records came.

use std::collections::{BTreeMap, BTreeSet};

use super::Site;
use super::calendar::Axis;
use super::dictionary::view;
use super::facts::SourceFacts;
use super::html::{Element, Markup, anchor, el, text};
use super::plot::{Plot, Series, Value, color, grouped};
use crate::flow::late;
use crate::project::source::Source;

/// Error types with a colour of their own in one plot; the rest is one.
const MOST_COLORS: usize = 6;

/// A plot over the bins of a time axis, yet without values.
pub fn over(axis: &Axis) -> Plot {
    Plot { each: axis.title(), names: axis.names(), ticks: axis.ticks(), ..Plot::default() }
}

pub fn trends(site: &Site) -> Element {
    let page = view("trends", "page", text("Trends"));
    let Some(facts) = &site.facts else {
        return page.add(super::runs::no_lake());
    };
    let lead = "Over the dates of the records, as the lake stands now: not over the days on which they landed. Numbers under \
                each plot.";
    let of_each = |plots: &dyn Fn(&Source, &SourceFacts) -> Vec<Markup>| -> Vec<Markup> {
        let sources = site.project.sources.iter();
        sources
            .filter_map(|source| Some((source, facts.sources.get(&source.name)?)))
            .flat_map(|(source, found)| plots(source, found))
            .collect()
    };
    page.add(el("p").class("lead").text(lead))
        .add(group(
            "Records",
            of_each(&|source, found| records(source, found).into_iter().collect()),
            "Nothing has landed.",
        ))
        .add(group("Amounts", of_each(&amounts), "No source declares an amount."))
        .add(group(
            "Quarantine",
            of_each(&|source, found| quarantine(source, found).into_iter().collect()),
            "Nothing is in quarantine.",
        ))
        .add(group(
            "Lateness",
            of_each(&|source, found| lateness(source, found).into_iter().collect()),
            "No record came behind its source's watermark.",
        ))
}

fn group(title: &str, plots: Vec<Markup>, none: &str) -> Markup {
    let mut all = Markup::from(el("h3").set("id", anchor(format!("trends.{title}"))).text(title));
    match plots.is_empty() {
        true => all.push(el("p").class("note").text(none)),
        false => all.push(el("div").class("plots").add_all(plots)),
    }
    all
}

/// Adds up counts by date in the bins of an axis.
fn binned(axis: &Axis, counts: impl IntoIterator<Item = (i32, u64)>) -> Vec<Value> {
    let mut sums = vec![0; axis.starts.len()];
    for (date, count) in counts {
        if let Some(at) = axis.bin(date) {
            sums[at] += count;
        }
    }
    sums.into_iter().map(Value::count).collect()
}

fn is_zero(series: &Series) -> bool {
    series.values.iter().all(|value| value.size == 0.0)
}

fn records(source: &Source, found: &SourceFacts) -> Option<Markup> {
    let counts = found.by_date();
    let axis = Axis::of(&counts)?;
    let side = |at: usize| found.decided.iter().map(move |(date, sides)| (*date, sides[at]));
    let mut series =
        vec![Series { name: "accepted".to_owned(), color: "c0".to_owned(), values: binned(&axis, side(0)) }];
    for (name, color, at) in [("duplicates", "c4", 1), ("superseded", "c6", 2)] {
        series.push(Series {
            name: name.to_owned(),
            color: color.to_owned(),
            values: binned(&axis, side(at)),
        });
    }
    let refused = found.quarantined.iter().map(|((date, _), records)| (*date, *records));
    series.push(Series {
        name: "quarantined".to_owned(),
        color: "c1".to_owned(),
        values: binned(&axis, refused),
    });
    // what never happened needs no colour; accepted always stays
    series = series
        .into_iter()
        .enumerate()
        .filter(|(at, one)| *at == 0 || !is_zero(one))
        .map(|(_, one)| one)
        .collect();
    let undated = match found.undated {
        [0, 0] => None,
        [duplicates, superseded] => Some(format!(
            "Not known by date, so not shown: {} duplicates, {} superseded versions.",
            grouped(duplicates),
            grouped(superseded)
        )),
    };
    let note: Vec<String> = undated.into_iter().chain(axis.left_out(&counts)).collect();
    let plot = Plot {
        id: anchor(format!("records.{}", source.name)),
        title: format!("{}: records per {}", source.name, axis.step.name()),
        note: note.join(" "),
        unit: "records".to_owned(),
        series,
        ..over(&axis)
    };
    Some(plot.columns())
}

fn amounts(source: &Source, found: &SourceFacts) -> Vec<Markup> {
    let plots = source.layout.money.iter().filter_map(|at| {
        let column = &source.layout.columns[*at].name;
        let sums = found.money.get(column)?;
        let axis = Axis::of(&found.by_date())?;
        let mut totals = vec![0_i128; axis.starts.len()];
        for (date, sum) in sums {
            if let Some(at) = axis.bin(*date) {
                totals[at] += sum;
            }
        }
        let values = totals.into_iter().map(Value::amount).collect();
        let plot = Plot {
            id: anchor(format!("amount.{}.{column}", source.name)),
            title: format!("{}: accepted {column} per {}", source.name, axis.step.name()),
            note: source.column_descriptions[*at].clone(),
            unit: column.clone(),
            series: vec![Series { name: column.clone(), color: "c2".to_owned(), values }],
            ..over(&axis)
        };
        Some(plot.columns())
    });
    plots.collect()
}

fn quarantine(source: &Source, found: &SourceFacts) -> Option<Markup> {
    let by_error = found.by_error();
    if by_error.is_empty() {
        return None;
    }
    // the axis of all records, so that the plots of a source can be compared
    let axis = Axis::of(&found.by_date())?;
    let mut by_date: BTreeMap<i32, u64> = BTreeMap::new();
    for ((date, _), records) in &found.quarantined {
        *by_date.entry(*date).or_default() += records;
    }
    let mut errors: Vec<(&str, u64)> = by_error.into_iter().collect();
    errors.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let rest: BTreeSet<&str> = match errors.len() > MOST_COLORS {
        true => errors.split_off(MOST_COLORS - 1).into_iter().map(|(error, _)| error).collect(),
        false => BTreeSet::new(),
    };
    let of = |is_wanted: &dyn Fn(&str) -> bool| -> Vec<Value> {
        let wanted = found.quarantined.iter().filter(|((_, error), _)| is_wanted(error));
        binned(&axis, wanted.map(|((date, _), records)| (*date, *records)))
    };
    let mut series: Vec<Series> = errors
        .iter()
        .enumerate()
        .map(|(at, (error, _))| Series {
            name: (*error).to_owned(),
            color: color(at + 1),
            values: of(&|other| other == *error),
        })
        .collect();
    if !rest.is_empty() {
        let name = format!("{} others", rest.len());
        series.push(Series { name, color: color(0), values: of(&|other| rest.contains(other)) });
    }
    series.retain(|series| !is_zero(series));
    let total: u64 = found.quarantined.values().sum();
    let plot = Plot {
        id: anchor(format!("quarantine.{}", source.name)),
        title: format!("{}: quarantined records per {}, by error type", source.name, axis.step.name()),
        note: [
            format!("{} of {} landed records are in quarantine.", grouped(total), grouped(found.landed)),
            axis.left_out(&by_date).unwrap_or_default(),
        ]
        .join(" "),
        unit: "records".to_owned(),
        series,
        ..over(&axis)
    };
    Some(plot.columns())
}

fn lateness(source: &Source, found: &SourceFacts) -> Option<Markup> {
    if found.late.records == 0 {
        return None;
    }
    let classes: BTreeMap<&str, u64> =
        found.late.histogram.iter().map(|(class, records)| (class.as_str(), *records)).collect();
    let names: Vec<String> = late::classes().map(str::to_owned).collect();
    let values =
        names.iter().map(|class| Value::count(classes.get(class.as_str()).copied().unwrap_or(0))).collect();
    let longest = super::words::at_least(found.late.most_seconds);
    let plot = Plot {
        id: anchor(format!("lateness.{}", source.name)),
        title: format!("{}: records behind the watermark, by how far", source.name),
        note: format!(
            "{} of {} landed records came late, the latest by more than {longest}.",
            grouped(found.late.records),
            grouped(found.landed)
        ),
        unit: "records".to_owned(),
        each: "behind the watermark".to_owned(),
        names,
        series: vec![Series { name: "records".to_owned(), color: "c3".to_owned(), values }],
        ..Plot::default()
    };
    Some(plot.bars())
}
