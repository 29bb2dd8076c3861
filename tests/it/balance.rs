//! A hop that drops, doubles or changes rows breaks the balance, and a broken balance fails the run.

use crate::data;
use crate::support::{Done, Place, reference_lake};

const SILVER: &str = "sql/silver/usage_events.sql";

/// An event that is accepted, and its cost.
fn an_event() -> (String, String) {
    let (place, _) = reference_lake();
    let whose = "from silver.usage_events where cost_usd_increment > 1 order by event_id limit 1";
    let [id, cost] =
        ["event_id", "cost_usd_increment"].map(|name| place.value(&format!("select {name} {whose}")));
    (id, cost)
}

/// Runs a copy of the reference project whose silver model is broken; the balance must fail.
#[track_caller]
fn broken(edits: &[(&str, &str, &str)]) -> (Place, Done) {
    let place = Place::copied_reference();
    for (file, from, to) in edits {
        place.edit(file, from, to);
    }
    place.land(&data::reference());
    let told = place.medallion(&["run"]).expect(4);
    assert!(told.stdout.contains("THE BALANCE DOES NOT HOLD"), "{}", told.stdout);
    place.medallion(&["balance"]).expect(4);
    (place, told)
}

#[test]
fn a_hop_that_drops_a_row_is_caught() {
    let (id, cost) = an_event();
    let (_, told) = broken(&[(SILVER, "from flagged", &format!("from flagged where event_id <> '{id}'"))]);
    told.tells(&[
        "the balance of `usage_events` (records, lake) does not hold: difference 1\n",
        &format!(
            "the balance of `usage_events` (cost_usd_increment, lake) does not hold: difference {cost}\n"
        ),
        "the balance of `usage_events` (records, run) does not hold: difference 1\n",
    ]);
}

#[test]
fn a_hop_that_doubles_rows_is_caught() {
    let (id, cost) = an_event();
    let doubled = format!(
        "    service,\n    copy\nfrom flagged\nleft join (select * from (values (1), (2)) as copies(copy)) as copies \
         on event_id = '{id}'"
    );
    // with the copy in its key, each row still has a key of its own: only the balance can see it
    let (_, told) = broken(&[
        (SILVER, "    service\nfrom flagged", &doubled.replace("    service,\n    copy\n", "    service\n")),
        (SILVER, "    date,\n    service\n", "    coalesce(copy, 0) as copy,\n    date,\n    service\n"),
        (
            "sql/silver/usage_events.toml",
            "key = [\"event_id\", \"date\"]",
            "key = [\"event_id\", \"date\", \"copy\"]",
        ),
    ]);
    told.tells(&[
        "the balance of `usage_events` (records, lake) does not hold: difference -1\n",
        &format!(
            "the balance of `usage_events` (cost_usd_increment, lake) does not hold: difference -{cost}\n"
        ),
    ]);
}

#[test]
fn a_hop_that_changes_an_amount_is_caught() {
    let (id, _) = an_event();
    let changed = format!(
        "    cast(cost_usd_increment + case when event_id = '{id}' then 0.000001 else 0 end as decimal(18, 6)) as \
         cost_usd_increment,\n    schema_version,"
    );
    let (_, told) = broken(&[(SILVER, "    cost_usd_increment,\n    schema_version,", &changed)]);
    let told = told.tells(&[
        "the balance of `usage_events` (cost_usd_increment, lake) does not hold: difference -0.000001\n",
    ]);
    assert!(!told.stderr.contains("(records"), "{}", told.stderr);
}

#[test]
fn a_broken_balance_is_told_until_it_is_repaired() {
    let (id, _) = an_event();
    let condition = format!("from flagged where event_id <> '{id}'");
    let (place, _) = broken(&[(SILVER, "from flagged", &condition)]);
    // nothing new has landed, and still it does not hold
    place
        .medallion(&["run"])
        .expect(4)
        .tells(&["`usage_events` (records, lake) does not hold: difference 1\n"]);
    place.edit(SILVER, &condition, "from flagged");
    place.medallion(&["run", "--full-refresh"]);
    place.medallion(&["run"]).ok();
    assert_eq!(place.balance()["usage_events records"][5], "0");
    place.run_idle();
}

#[test]
fn a_model_that_gives_a_key_twice_is_refused() {
    let place = Place::copied_reference();
    place.edit(SILVER, "from flagged", "from flagged cross join (values (1), (2)) as copies(copy)");
    place.land(&data::reference());
    let told = place.medallion(&["run"]);
    assert_eq!(told.code, Some(4), "{}{}", told.stdout, told.stderr);
    told.tells(&["silver.usage_events", "event_id"]);
    // what must not be is in no table
    let rows = place.value("select count(*) - count(distinct event_id || date) from silver.usage_events");
    assert_eq!(rows, "0");
}

#[test]
fn the_balance_adds_up_over_runs_and_the_whole_lake() {
    let place = crate::mini::place();
    let [first, second] = crate::mini::batches();
    place.land(&first);
    place.run();
    // landed, accepted, duplicates, superseded, quarantined
    assert_eq!(place.records("readings"), [4, 2, 0, 0, 2]);
    place.land(&second);
    let report = place.medallion(&["--format", "json", "run"]).json();
    assert_eq!(place.records("readings"), [9, 3, 1, 0, 5]);
    assert_eq!(place.records("sites"), [4, 2, 0, 1, 1]);
    let of_run = report["balance"].as_array().unwrap().iter();
    let row = of_run.clone().find(|row| row["scope"] == "run" && row["measure"] == "amount").unwrap();
    let sides = ["landed", "accepted", "duplicates", "quarantined", "difference"]
        .map(|side| row[side].as_str().unwrap());
    assert_eq!(sides, ["13.500001", "4.000000", "1.500000", "8.000001", "0.000000"]);
    assert_eq!(place.value("select count(*) from ledger.balances where difference <> 0"), "0");
}
