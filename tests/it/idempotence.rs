//! A rerun changes nothing.

use crate::data::{self, Landed};
use crate::mini;
use crate::support::{Contents, Place, log_entries};

#[test]
fn a_second_run_commits_nothing_and_says_so_and_a_full_refresh_gives_equal_rows() {
    let place = Place::reference();
    place.land(&data::reference());
    place.run();
    let contents = Contents::of(&place);
    place.run_idle();
    let report = place.medallion(&["--format", "json", "run"]).json();
    assert_eq!((&report["commits"], &report["new_files"]), (&0.into(), &0.into()), "{report}");

    let before = log_entries(&place.lake).len();
    place.medallion(&["run", "--full-refresh"]).ok();
    assert!(log_entries(&place.lake).len() > before, "a full refresh computes again");
    Contents::of(&place).assert_equals(&contents, "full refresh");
    place.run_idle();
}

#[test]
fn an_empty_landing_is_no_error_and_then_idle() {
    let place = mini::place();
    place.run();
    place.run_idle();
    place.medallion(&["balance"]).ok();
}

#[test]
fn new_files_recompute_only_the_dates_that_they_touch() {
    let place = mini::place();
    let lines: Vec<String> = (1..=9).map(|day| mini::reading(&format!("r{day}"), day, "1")).collect();
    place.land([&mini::readings("a.jsonl", &lines)]);
    place.run();
    place.land([&mini::readings("b.jsonl", &[mini::reading("new", 4, "2.5")])]);
    let report = place.medallion(&["--format", "json", "run"]).json();
    let steps = report["steps"].as_array().unwrap();
    let rows_of = |table: &str| {
        let step = steps.iter().find(|step| step["table"] == table);
        step.unwrap_or_else(|| panic!("{table} in {report}"))["rows"].clone()
    };
    assert_eq!(rows_of("bronze.readings"), 1);
    assert_eq!(rows_of("silver.readings"), 2, "the two readings of the fourth");
    assert_eq!(rows_of("gold.daily"), 1, "the fourth");
    assert_eq!(place.value("select amount from gold.daily where day = '2025-08-04'"), "3.500000");
    assert_eq!(place.value("select amount from gold.total"), "11.500000");
}

#[test]
fn a_duplicate_file_adds_duplicates_and_changes_no_row() {
    let place = mini::place();
    let lines = [mini::reading("1", 1, "1"), mini::reading("2", 2, "2")];
    place.land([&mini::readings("b.jsonl", &lines)]);
    place.run();
    let gold = |place: &Place| Contents::of(place).table("gold/daily").clone();
    let before = gold(&place);
    place.land([&mini::readings("c.jsonl", &lines)]);
    place.run();
    assert_eq!(gold(&place), before);
    assert_eq!(place.records("readings"), [4, 2, 2, 0, 0]);
    // the first by path is the accepted one, also when it comes last
    place.land([&Landed { modified: 1_757_000_000, ..mini::readings("a.jsonl", &lines) }]);
    place.run();
    assert_eq!(place.value("select distinct source_file from silver.readings"), "readings/a.jsonl");
    assert_eq!(place.records("readings"), [6, 2, 4, 0, 0]);
}
