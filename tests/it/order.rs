//! Results are a function of what landed: in which order and in how many runs does not show.

use std::collections::BTreeSet;

use crate::data::{self, Landed, Random};
use crate::mini;
use crate::support::{Contents, Place, reference_lake};

/// Lands and runs part by part; the result must be that of all at once.
#[track_caller]
fn assert_same(parts: &[Vec<Landed>], how: &str) -> Place {
    let (_, expected) = reference_lake();
    let place = Place::reference();
    for part in parts {
        place.land(part);
        place.run();
    }
    let names: Vec<Vec<&str>> =
        parts.iter().map(|part| part.iter().map(|file| file.path.as_str()).collect()).collect();
    Contents::of(&place).assert_equals(expected, &format!("{how}: {names:?}"));
    place
}

fn is_event(file: &Landed) -> bool {
    file.path.starts_with("usage_events")
}

#[test]
fn file_by_file_in_a_shuffled_order_is_all_at_once() {
    let mut files = data::reference();
    Random::new(3).shuffle(&mut files);
    let parts: Vec<Vec<Landed>> = files.into_iter().map(|file| vec![file]).collect();
    assert_same(&parts, "file by file");
}

#[test]
fn file_by_file_in_every_order_is_all_at_once() {
    let files = mini::batches().concat();
    let place = mini::place();
    place.land(&files);
    place.run();
    let expected = Contents::of(&place);
    // every order of four files, as the digits of their places
    for order in 0..256 {
        let order: Vec<usize> = (0..4).map(|at| order >> (2 * at) & 3).collect();
        if order.iter().collect::<BTreeSet<_>>().len() < 4 {
            continue;
        }
        let place = mini::place();
        for at in &order {
            place.land([&files[*at]]);
            place.run();
        }
        Contents::of(&place).assert_equals(&expected, &format!("order {order:?}"));
    }
}

#[test]
fn events_before_masters_and_masters_before_events_are_all_at_once() {
    let (events, masters): (Vec<Landed>, Vec<Landed>) = data::reference().into_iter().partition(is_event);
    let place = assert_same(&[events.clone(), masters.clone()], "events first");
    place.run_idle();
    let place = assert_same(&[masters, events], "masters first");
    place.medallion(&["run", "--full-refresh"]).ok();
    Contents::of(&place).assert_equals(&reference_lake().1, "masters first, then a full refresh");
}

#[test]
fn random_splits_over_runs_are_all_at_once() {
    for seed in 0..4 {
        let mut random = Random::new(1000 + seed);
        let mut files = data::reference();
        random.shuffle(&mut files);
        let mut parts = vec![Vec::new(); 2 + random.below(2)];
        for file in files {
            let at = random.below(parts.len());
            parts[at].push(file);
        }
        let place = assert_same(&parts, &format!("split {seed}"));
        if seed % 3 == 0 {
            place.medallion(&["run", "--full-refresh"]).ok();
            Contents::of(&place)
                .assert_equals(&reference_lake().1, &format!("split {seed}, then a full refresh"));
        }
    }
}

#[test]
fn the_sample_has_a_row_in_every_table() {
    let (place, contents) = reference_lake();
    let names: Vec<&str> = contents.names().collect();
    for mart in [
        "carbon_daily",
        "cost_anomaly",
        "finops_daily_usage",
        "genai_usage_daily",
        "org_profile",
        "org_service_cost_summary",
        "revenue_monthly",
        "support_tickets_summary",
        "tickets_by_severity_daily",
    ] {
        assert!(
            names.contains(&format!("gold/{mart}").as_str()),
            "{mart} is empty, so no test shows a thing of it"
        );
    }
    let types: Vec<String> = place
        .sql("select distinct error_type from quarantine.usage_events order by 1")
        .iter()
        .map(|row| row["error_type"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "bad_type",
        "cost_out_of_range",
        "duplicate_conflict",
        "future_timestamp",
        "malformed",
        "missing_key",
        "missing_required",
        "out_of_range",
    ];
    assert_eq!(types, expected);
    for source in ["usage_events", "customers_orgs", "billing_monthly"] {
        assert!(
            place.records(source).iter().skip(1).filter(|records| **records > 0).count() >= 3,
            "{source}"
        );
    }
}
