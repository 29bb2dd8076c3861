//! What a table used to be, and the dates on which it is not: rows of a date, its share of nulls, how far it lags.
//!
//! The history of a date are the days before it. Usual is what lies around its median: within so many median absolute
//! deviations (scaled to a standard deviation), and within a declared tolerance in any case. Median and deviations are not
//! moved by the outliers that they are to find. Everything follows from the tables; only a freshness until `now` asks the
//! clock.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::{Date32Type, Int64Type};

use super::checks::Found;
use super::decide::quoted;
use super::run::rows_by_date;
use super::{Run, dirty, inputs};
use crate::engine;
use crate::error::Result;
use crate::lake::partition::date_text;
use crate::lake::table::Table;
use crate::project::check::{Anomaly, Kind, Until};

/// A median absolute deviation of a normal distribution, times this, is its standard deviation.
const SCALE: f64 = 1.4826;

/// One unusual date counts as one row. Judged are `dates` (`None`: all); `instead` stands for the table of its name.
///
/// # Errors
/// Those of reading the table.
pub async fn find(
    run: &Run,
    declared: &Anomaly,
    dates: Option<&BTreeSet<i32>>,
    instead: Option<&Table>,
) -> Result<Found> {
    let table = match instead.filter(|table| table.name() == declared.table.to_string()) {
        Some(table) => table,
        None => run.table(&declared.table)?,
    };
    let rows = rows_by_date(table);
    let (Some(first), Some(last)) = (rows.keys().next().copied(), rows.keys().next_back().copied()) else {
        return Ok(Found::default());
    };
    let mut found = Found::default();
    let unusual = match &declared.kind {
        Kind::Freshness { until } => {
            let reference = match until {
                Until::Now => Some(chrono::Utc::now().date_naive().to_epoch_days()),
                Until::Table(other) => rows_by_date(run.table(other)?).keys().next_back().copied(),
            };
            let late = reference.and_then(|reference| lag(declared, &rows, last, reference));
            late.into_iter().map(|text| (last, text)).collect::<Vec<_>>()
        }
        Kind::Volume => {
            let judged = judged(declared, &rows, dates, (first, last));
            // a day between two others that has no rows has 0
            let value = |date: i32| match date < first {
                true => None,
                false => Some(rows.get(&date).copied().unwrap_or(0) as f64),
            };
            let describe = |date: i32| {
                let rows = rows.get(&date).copied().unwrap_or(0);
                format!("{rows} {}", if rows == 1 { "row" } else { "rows" })
            };
            unusual(declared, &judged, &rows, value, describe)
        }
        Kind::NullRate { column } => {
            let judged = judged(declared, &rows, dates, (first, last));
            let read: BTreeSet<i32> =
                judged.iter().flat_map(|date| date.saturating_sub(declared.days)..=*date).collect();
            let nulls = nulls(run, declared, column, &read, instead).await?;
            let share = |date: i32| {
                let all = rows.get(&date).copied().filter(|rows| *rows > 0)?;
                Some(nulls.get(&date).copied().unwrap_or(0) as f64 / all as f64)
            };
            let describe = |date: i32| {
                let (nulls, rows) = (nulls.get(&date).unwrap_or(&0), rows.get(&date).unwrap_or(&0));
                format!("{nulls} of {rows} rows without `{column}`")
            };
            unusual(declared, &judged, &rows, share, describe)
        }
    };
    for (date, text) in unusual {
        found.rows.insert(Some(date), 1);
        found.details.insert(date, format!("{}: {text}", date_text(date)));
    }
    Ok(found)
}

/// The dates that are looked at: those that have changed, and those that a newer date has made complete.
fn judged(
    declared: &Anomaly,
    rows: &BTreeMap<i32, u64>,
    dates: Option<&BTreeSet<i32>>,
    (first, last): (i32, i32),
) -> BTreeSet<i32> {
    let newest = |before: i32| rows.range(..before).rev().take(declared.delay_days).map(|(date, _)| *date);
    let waiting: BTreeSet<i32> = newest(last.saturating_add(1)).collect();
    let mut judged: BTreeSet<i32> = match dates {
        None => (first..=last).collect(),
        Some(dates) => {
            let completed = dates.iter().flat_map(|date| newest(*date));
            completed.chain(dates.iter().copied()).filter(|date| (first..=last).contains(date)).collect()
        }
    };
    let first_waiting = waiting.first().copied().unwrap_or(i32::MAX);
    judged.retain(|date| *date < first_waiting);
    judged
}

/// The judged dates whose value is not what their history makes usual, with the reason.
fn unusual(
    declared: &Anomaly,
    judged: &BTreeSet<i32>,
    rows: &BTreeMap<i32, u64>,
    value: impl Fn(i32) -> Option<f64>,
    describe: impl Fn(i32) -> String,
) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for date in judged {
        let Some(now) = value(*date) else {
            continue;
        };
        let history = date.saturating_sub(declared.days)..*date;
        if rows.range(history.clone()).count() < declared.min_days {
            continue;
        }
        let Some(usual) = Usual::of(history.filter_map(&value).collect()) else {
            continue;
        };
        let floor = match declared.kind {
            Kind::Volume => declared.tolerance * usual.median,
            _ => declared.tolerance,
        };
        let allowed = (declared.deviations * SCALE * usual.deviation).max(floor);
        if (now - usual.median).abs() > allowed {
            let unit = if declared.kind == Kind::Volume { 1.0 } else { 100.0 };
            let percent = if unit > 1.0 { " %" } else { "" };
            found.push((
                *date,
                format!(
                    "{}; usual are {} ± {}{percent}",
                    describe(*date),
                    number(usual.median * unit),
                    number(allowed * unit)
                ),
            ));
        }
    }
    found
}

/// Why the newest date is too far behind the reference, if it is.
fn lag(declared: &Anomaly, rows: &BTreeMap<i32, u64>, last: i32, reference: i32) -> Option<String> {
    let dates: Vec<i32> = rows.range(last.saturating_sub(declared.days)..).map(|(date, _)| *date).collect();
    if dates.len() < declared.min_days.max(2) {
        return None;
    }
    let gaps = dates.windows(2).map(|pair| f64::from(pair[1] - pair[0])).collect();
    let usual = Usual::of(gaps)?;
    let allowed = usual.median + (declared.deviations * SCALE * usual.deviation).max(declared.tolerance);
    let days = reference.saturating_sub(last);
    (f64::from(days) > allowed).then(|| {
        format!(
            "the newest date, {days} days before {}; usual are at most {}",
            date_text(reference),
            number(allowed)
        )
    })
}

/// The middle of some values and how far they are from it.
struct Usual {
    median: f64,
    deviation: f64,
}

impl Usual {
    fn of(values: Vec<f64>) -> Option<Usual> {
        let median = median(values.clone())?;
        let deviation = median_of_deviations(values, median)?;
        Some(Usual { median, deviation })
    }
}

fn median_of_deviations(values: Vec<f64>, from: f64) -> Option<f64> {
    median(values.into_iter().map(|value| (value - from).abs()).collect())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get(values.len().checked_sub(1)? / 2)?;
    Some((lower + upper) / 2.0)
}

/// At most two digits after the point.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Rows of the dates in which the column is null.
async fn nulls(
    run: &Run,
    declared: &Anomaly,
    column: &str,
    dates: &BTreeSet<i32>,
    instead: Option<&Table>,
) -> Result<BTreeMap<i32, u64>> {
    let context = engine::context(&run.state);
    let table = &declared.table;
    let names = BTreeSet::from([dirty::stored_table(table)]);
    inputs::register_instead(run, &context, &names, Some(dates), instead).await?;
    let (date, column) = (quoted(&declared.date_column), quoted(column));
    let query = format!(
        "select {date}, count(*) as n from {}.{} where {column} is null group by {date}",
        table.schema,
        quoted(&table.table)
    );
    let mut found = BTreeMap::new();
    for batch in context.sql(&query).await?.collect().await? {
        let dates = batch.column(0).as_primitive::<Date32Type>();
        let counts = batch.column(1).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            found.insert(dates.value(row), counts.value(row).unsigned_abs());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::sql::TableName;

    fn declared(kind: Kind, deviations: f64, tolerance: f64, delay_days: usize) -> Anomaly {
        Anomaly {
            kind,
            table: TableName::new("silver", "t"),
            date_column: "date".to_owned(),
            days: 10,
            min_days: 3,
            deviations,
            tolerance,
            delay_days,
        }
    }

    fn volumes(declared: &Anomaly, rows: &[(i32, u64)], dates: Option<&[i32]>) -> Vec<i32> {
        let rows: BTreeMap<i32, u64> = rows.iter().copied().collect();
        let (first, last) = (*rows.keys().next().unwrap(), *rows.keys().next_back().unwrap());
        let dates = dates.map(|dates| dates.iter().copied().collect());
        let judged = judged(declared, &rows, dates.as_ref(), (first, last));
        let value = |date: i32| (date >= first).then(|| rows.get(&date).copied().unwrap_or(0) as f64);
        let found = unusual(declared, &judged, &rows, value, |_| String::new());
        found.into_iter().map(|(date, _)| date).collect()
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median_of_deviations(vec![1.0, 2.0, 9.0], 2.0), Some(1.0));
        assert_eq!(number(2.5), "2.5");
        assert_eq!(number(100.0), "100");
    }

    #[test]
    fn a_date_is_held_against_the_days_before_it() {
        let steady = declared(Kind::Volume, 5.0, 0.1, 0);
        let days = [(1, 100), (2, 100), (3, 100), (4, 110), (5, 111), (6, 100)];
        // 110 lies within 10 % of 100, 111 does not; nothing is said of the first three
        assert_eq!(volumes(&steady, &days, None), [5]);
        assert_eq!(volumes(&steady, &days, Some(&[4, 6])), Vec::<i32>::new());
        // a day without rows between others has 0
        assert_eq!(volumes(&steady, &[(1, 9), (2, 9), (3, 9), (5, 9)], None), [4]);
        // what varies may vary
        let wild = [(1, 100), (2, 150), (3, 80), (4, 120), (5, 170), (6, 900)];
        assert_eq!(volumes(&steady, &wild, None), [6]);
        // too little history
        assert_eq!(volumes(&steady, &[(1, 9), (2, 9), (9, 900)], None), Vec::<i32>::new());
    }

    #[test]
    fn the_newest_dates_may_wait_and_are_judged_later() {
        let patient = declared(Kind::Volume, 5.0, 0.1, 1);
        let days = [(1, 100), (2, 100), (3, 100), (4, 5)];
        assert_eq!(volumes(&patient, &days, Some(&[4])), Vec::<i32>::new());
        let next = [(1, 100), (2, 100), (3, 100), (4, 5), (5, 1)];
        assert_eq!(volumes(&patient, &next, Some(&[5])), [4]);
    }

    #[test]
    fn a_table_lags_when_it_is_later_than_it_used_to_be() {
        let until = || Kind::Freshness { until: Until::Now };
        let daily: BTreeMap<i32, u64> = (1..=9).map(|date| (date, 1)).collect();
        assert!(lag(&declared(until(), 5.0, 1.0, 0), &daily, 9, 11).is_none());
        assert!(lag(&declared(until(), 5.0, 1.0, 0), &daily, 9, 12).is_some());
        assert!(lag(&declared(until(), 5.0, 7.0, 0), &daily, 9, 12).is_none());
        let new: BTreeMap<i32, u64> = (8..=9).map(|date| (date, 1)).collect();
        assert!(lag(&declared(until(), 5.0, 1.0, 0), &new, 9, 99).is_none(), "too little history");
    }
}
