//! The engine knows no domain: another project, the same binary, rows that another program computed.

use std::collections::BTreeMap;
use std::fs;

use crate::support::{Place, copy_folder, repository};

fn place() -> Place {
    let folder = repository().join("examples/sensors");
    assert!(
        folder.is_dir(),
        "examples/sensors is missing: the second project proves that the engine knows no domain"
    );
    let place = Place::of(&folder);
    copy_folder(&folder.join("landing"), &place.landing);
    place
}

#[test]
fn the_sensors_project_gives_the_expected_rows() {
    let place = place();
    place.medallion(&["check"]).ok();
    place.run();
    let expected = repository().join("examples/sensors/expected");
    let queries = fs::read_to_string(expected.join("queries.toml")).unwrap();
    let queries: BTreeMap<String, String> = toml::from_str(&queries).unwrap();
    assert!(!queries.is_empty());
    for (name, query) in queries {
        let rows = fs::read_to_string(expected.join(format!("{name}.csv"))).unwrap();
        let found = place.medallion(&["--format", "csv", "sql", &query]).ok();
        if found != rows {
            let differing = found.lines().zip(rows.lines()).find(|(ours, theirs)| ours != theirs);
            panic!(
                "{name}: {} lines, expected {}; first {differing:?}",
                found.lines().count(),
                rows.lines().count()
            );
        }
    }
    place.run_idle();
}

#[test]
fn every_question_of_the_sensors_project_answers() {
    let place = place();
    place.run();
    for question in ["zone_trend", "device_gaps", "zone_health"] {
        let rows = place.medallion(&["--format", "json", "query", question]).json();
        assert!(!rows.as_array().unwrap().is_empty(), "{question}");
    }
}
