//! Killed anywhere and run again, the lake is that of an uninterrupted run.
//!
//! `MEDALLION_KILL_AT=<n>` ends a run at its n-th failpoint: there is one before and one after every log entry.

use crate::data;
use crate::mini;
use crate::support::{Contents, Place, copy_folder, log_entries, reference_lake};

/// Whether a run with this kill point was killed; one that is not must end well.
#[track_caller]
pub fn is_killed(place: &Place, point: &str, arguments: &[&str]) -> bool {
    let mut command = place.command(arguments);
    let done = crate::support::Done::of(command.env("MEDALLION_KILL_AT", point).output().unwrap());
    match done.code {
        None => true,
        code => {
            assert_eq!(code, Some(0), "killed at {point}: {}", done.stderr);
            false
        }
    }
}

#[track_caller]
fn assert_healed(place: &Place, expected: &Contents, how: &str) {
    let told = place.medallion(&["run"]);
    assert_eq!(told.code, Some(0), "{how}, the run after it:\n{}{}", told.stdout, told.stderr);
    Contents::of(place).assert_equals(expected, how);
    let balance = place.medallion(&["balance"]);
    assert_eq!(balance.code, Some(0), "{how}:\n{}", balance.stdout);
    place.run_idle();
}

#[test]
fn a_first_run_killed_at_every_point_is_continued() {
    let place = mini::place();
    let files = mini::batches().concat();
    place.land(&files);
    place.run();
    let expected = Contents::of(&place);
    let mut point = 0;
    loop {
        let place = mini::place();
        place.land(&files);
        if !is_killed(&place, &point.to_string(), &["run"]) {
            break;
        }
        assert_healed(&place, &expected, &format!("first run killed at {point}"));
        point += 1;
    }
    assert!(point >= 20, "only {point} kill points: are they still there?");
}

#[test]
fn a_later_run_killed_at_every_point_is_continued() {
    let [first, second] = mini::batches();
    let place = mini::place();
    place.land(&first);
    place.run();
    let before = mini::place();
    copy_folder(&place.lake, &before.lake);
    place.land(&second);
    place.run();
    let expected = Contents::of(&place);
    let mut point = 0;
    loop {
        let place = mini::place();
        copy_folder(&before.lake, &place.lake);
        place.land(first.iter().chain(&second));
        if !is_killed(&place, &point.to_string(), &["run"]) {
            break;
        }
        // and files that land between the crash and the next run change nothing of it
        assert_healed(&place, &expected, &format!("second run killed at {point}"));
        point += 1;
    }
    assert!(point >= 20, "only {point} kill points: are they still there?");
}

#[test]
fn a_run_killed_again_and_again_comes_to_its_end() {
    let files = mini::batches().concat();
    let place = mini::place();
    place.land(&files);
    place.run();
    let expected = Contents::of(&place);
    for point in ["1", "2", "3", "5"] {
        let place = mini::place();
        place.land(&files);
        let mut times = 0;
        while is_killed(&place, point, &["run"]) {
            times += 1;
            assert!(times < 40, "killed at {point}, the run does not come forward");
        }
        assert_healed(&place, &expected, &format!("killed {times} times at {point}"));
    }
}

#[test]
fn files_that_land_after_a_crash_are_taken_in_too() {
    let [first, second] = mini::batches();
    let place = mini::place();
    place.land(&first);
    place.run();
    place.land(&second);
    place.run();
    let expected = Contents::of(&place);
    for point in [
        "commit bronze.readings",
        "committed bronze.readings",
        "committed ledger.files",
        "commit silver.readings",
    ] {
        let place = mini::place();
        place.land(&first);
        assert!(is_killed(&place, point, &["run"]), "{point} is never passed");
        place.land(&second);
        assert_healed(&place, &expected, &format!("killed at `{point}`, then more landed"));
    }
}

#[test]
fn a_killed_full_refresh_is_continued() {
    let place = mini::place();
    place.land(&mini::batches().concat());
    place.run();
    let expected = Contents::of(&place);
    let mut point = 0;
    while is_killed(&place, &point.to_string(), &["run", "--full-refresh"]) {
        let told = place.medallion(&["run"]);
        assert_eq!(told.code, Some(0), "full refresh killed at {point}:\n{}{}", told.stdout, told.stderr);
        Contents::of(&place).assert_equals(&expected, &format!("full refresh killed at {point}"));
        point += 1;
    }
    assert!(point >= 8, "only {point} kill points");
    place.run_idle();
}

#[test]
fn the_reference_project_killed_at_spread_points_is_continued() {
    let (shared, expected) = reference_lake();
    // one before and one after each log entry
    let entries = log_entries(&shared.lake);
    let points =
        2 * entries.iter().filter(|path| path.extension().is_some_and(|found| found == "json")).count();
    for at in 0..8 {
        let point = (at * points / 8 + at % 2).to_string();
        let place = Place::reference();
        place.land(&data::reference());
        assert!(is_killed(&place, &point, &["run"]), "point {point} of {points} is never passed");
        assert_healed(&place, expected, &format!("killed at {point} of {points}"));
    }
}

#[test]
fn a_run_that_is_told_to_end_ends_and_is_continued() {
    let (_, expected) = reference_lake();
    let place = Place::reference();
    place.land(&data::reference());
    let child = place.command(&["run"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    crate::cassandra::wait_until("the run commits", || !log_entries(&place.lake).is_empty());
    let told = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let done = crate::support::Done::of(child.wait_with_output().unwrap());
    assert_eq!(done.code, Some(143), "{done:?}");
    assert_healed(&place, expected, "told to end");
}
