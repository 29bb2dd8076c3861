//! One run at a time: the others are refused, and no row is there twice.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use crate::data;
use crate::mini;
use crate::support::{Contents, Done, Place, reference_lake};

#[test]
fn a_run_is_refused_while_another_holds_the_lake_and_readers_are_not() {
    let place = mini::place();
    place.land(&mini::batches()[0]);
    place.run();
    place.land(&mini::batches()[1]);
    let lock = File::options().write(true).open(place.lake.join("_medallion.lock")).unwrap();
    lock.lock().unwrap();
    let before = Contents::of(&place);
    place.medallion(&["run"]).expect(5).tells(&["another run holds the lake"]);
    assert_eq!(place.value("select count(*) from silver.readings"), "2");
    place.medallion(&["status"]).ok();
    Contents::of(&place).assert_equals(&before, "a refused run");
    lock.unlock().unwrap();
    place.run();
    assert_eq!(place.records("readings")[0], 9);
}

#[test]
fn a_lock_file_that_a_dead_run_left_is_no_lock() {
    let place = mini::place();
    place.land(&mini::batches()[0]);
    std::fs::create_dir_all(&place.lake).unwrap();
    std::fs::write(place.lake.join("_medallion.lock"), "12345").unwrap();
    place.run();
}

#[test]
fn concurrent_processes_never_double_a_row() {
    let (_, expected) = reference_lake();
    let place = Place::reference();
    place.land(&data::reference());
    let running: Vec<_> = (0..4).map(|_| started(&mut place.command(&["run"]))).collect();
    let mut codes = Vec::new();
    for child in running {
        let done = Done::of(child.wait_with_output().unwrap());
        assert!(matches!(done.code, Some(0 | 5)), "{done:?}");
        codes.push(done.code);
    }
    assert!(codes.contains(&Some(0)), "{codes:?}");
    Contents::of(&place).assert_equals(expected, "four runs at once");
    place.run_idle();
}

fn started(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}
