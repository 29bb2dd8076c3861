//! Cassandra in trouble: nothing is lost, nothing is written twice, and the exit code says what happened.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use scylla::client::session_builder::SessionBuilder;

use crate::cassandra::{Cluster, Cql, Node, Settings, node, wait_until};
use crate::mini;
use crate::proxy::{Fate, Kind, Proxy, Refusal};
use crate::serving::{Served, first_readings, reading, wait_for_claim};
use crate::stream::{Running, SMALL, land_whole, wait_for};

/// Many readings, so that a publication takes its time.
fn land_many(served: &Served, name: &str, amount: u32) {
    let lines: Vec<String> = (0..600)
        .map(|at| {
            reading(&format!("{name}{at}"), 1 + at % 20, &format!("site {}", at % 150), &amount.to_string())
        })
        .collect();
    served.place.land([&mini::readings(&format!("{name}.jsonl"), &lines)]);
}

/// A command that waits at a failpoint until the file is gone.
fn hold(mut command: Command, served: &Served, at: &str) -> Child {
    let file = served.place.folder().join("hold");
    fs::write(&file, "").unwrap();
    command.env("MEDALLION_HOLD_AT", at).env("MEDALLION_HOLD_FILE", &file);
    let publisher = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_claim(served);
    publisher
}

fn release(served: &Served) {
    fs::remove_file(served.place.folder().join("hold")).unwrap();
}

#[test]
fn a_store_that_keeps_a_publisher_waiting_holds_no_stream_up() {
    let mut served = Served::mini();
    // longer than anybody waits here
    served.place.edit("medallion.toml", "retry_seconds = 20", "retry_seconds = 600");
    served.place.edit("medallion.toml", "[limits]", SMALL);
    served.place.land([&first_readings()]);
    served.run();
    let is_busy = Arc::new(AtomicBool::new(true));
    let busy = Arc::clone(&is_busy);
    let proxy = Proxy::before(node().contact(), move |request| match request.kind {
        Kind::Batch | Kind::Execute if busy.load(Ordering::Relaxed) => Fate::Refuse(Refusal::Overloaded),
        _ => Fate::Pass,
    });
    served.contact = proxy.contact();
    let mut command = served.command(&["stream"]);
    let stream = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    for day in [11, 12] {
        let file = mini::readings(&format!("{day}.jsonl"), &[reading(&day.to_string(), day, "north", "1")]);
        land_whole(&served.place, &file);
        let of_day = format!("select count(*) from gold.daily where cast(day as varchar) = '2025-08-{day}'");
        wait_for(&served.place, &of_day, "1");
    }
    is_busy.store(false, Ordering::Relaxed);
    stream.stop().ok();
    served.assert_equal("what was missing was written in the end");
    served.medallion(&["reconcile"]).ok();
}

#[test]
fn with_cassandra_down_gold_is_complete_and_the_next_run_publishes() {
    let mut served = Served::mini();
    served.place.land([&first_readings()]);
    let contact = std::mem::replace(&mut served.contact, "127.0.0.1:9".to_owned());
    let done =
        served.medallion(&["run"]).expect(6).tells(&["can't connect to cassandra at 127.0.0.1:9", "refused"]);
    assert!(!done.stderr.contains("pool"), "{}", done.stderr);
    assert!(done.stdout.contains("the balance holds"), "{}", done.stdout);
    assert_eq!(served.place.value("select count(*) from gold.daily"), "4");
    for arguments in [&["publish"][..], &["reconcile"], &["check", "--connect"]] {
        served.medallion(arguments).expect(6);
    }
    served.contact = contact;
    assert!(served.run().contains("everything: never published"));
    served.assert_equal("after it came back");
}

#[test]
fn a_node_that_dies_in_the_middle_is_exit_6_and_the_rest_follows() {
    let node = Node::start(&Settings::default());
    let served = Served::mini_on(&node);
    land_many(&served, "a", 1);
    served.place.run();
    let publisher = hold(served.command(&["publish"]), &served, "replace daily");
    node.freeze();
    release(&served);
    crate::support::pause(Duration::from_secs(3));
    node.thaw();
    let ended = publisher.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    served.assert_equal("a frozen node that came back");
    land_many(&served, "b", 2);
    served.place.run();
    let publisher = hold(served.command(&["publish"]), &served, "replace daily");
    node.freeze();
    release(&served);
    let ended = publisher.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(6), "{}", String::from_utf8_lossy(&ended.stderr));
    node.thaw();
    wait_until("the node answers", || served.space.cql.try_rows("select key from system.local").is_ok());
    served.run();
    served.assert_equal("what was left over");
}

#[test]
fn errors_that_pass_are_repeated() {
    let served_by = |rule: fn(u32, Kind) -> Fate| {
        let mut served = Served::mini();
        let seen = AtomicU32::new(0);
        let proxy = Proxy::before(node().contact(), move |request| match request.kind {
            kind @ (Kind::Batch | Kind::Execute) => rule(seen.fetch_add(1, Ordering::Relaxed), kind),
            _ => Fate::Pass,
        });
        served.contact = proxy.contact();
        land_many(&served, "a", 1);
        served.run();
        served.assert_equal("through trouble");
        land_many(&served, "b", 2);
        served.run();
        served.assert_equal("through trouble, again");
        served.medallion(&["reconcile"]).ok();
    };
    served_by(|number, _| match number % 3 {
        0 => Fate::Refuse(Refusal::Overloaded),
        _ => Fate::Pass,
    });
    served_by(|number, _| match number % 8 {
        0 => Fate::Deny(Refusal::WriteTimeout),
        2 => Fate::Refuse(Refusal::Unavailable),
        4 => Fate::Refuse(Refusal::Bootstrapping),
        6 => Fate::Refuse(Refusal::Unprepared),
        _ => Fate::Pass,
    });
    served_by(|number, _| match number {
        60 | 120 => Fate::Disconnect,
        90 => Fate::Lose,
        _ if number % 7 == 0 => Fate::Delay(Duration::from_millis(30)),
        _ => Fate::Pass,
    });
}

#[test]
fn an_overload_that_does_not_end_is_exit_6_in_bounded_time() {
    let mut served = Served::mini();
    served.place.edit("medallion.toml", "retry_seconds = 20", "retry_seconds = 2");
    served.place.land([&first_readings()]);
    let proxy = Proxy::before(node().contact(), |request| match request.kind {
        Kind::Batch => Fate::Refuse(Refusal::Overloaded),
        _ => Fate::Pass,
    });
    served.run();
    let contact = std::mem::replace(&mut served.contact, proxy.contact());
    let begun = std::time::Instant::now();
    served.place.land([&mini::readings("b.jsonl", &[reading("9", 4, "north", "1")])]);
    served.medallion(&["run"]).expect(6).tells(&["did not take the request", "overloaded"]);
    assert!(begun.elapsed() < Duration::from_secs(60));
    served.contact = contact;
    served.run();
    served.assert_equal("after the overload");
}

#[test]
fn one_node_of_three_may_go_and_return_in_the_middle() {
    let mut cluster = Cluster::three();
    let space = Cql::connect(SessionBuilder::new().known_nodes(cluster.contacts())).keyspace(3);
    let contacts = cluster.contacts().join(",");
    let served = Served::mini_in(space, contacts);
    // a slow machine's nodes take their time to see that another one is back
    served.place.edit("medallion.toml", "retry_seconds = 20", "retry_seconds = 90");
    land_many(&served, "a", 1);
    served.place.run();
    let publisher = hold(served.command(&["publish"]), &served, "replace daily");
    cluster.kill(3);
    release(&served);
    let ended = publisher.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    served.assert_equal("two of three");
    // the third returns with what it had: it has forgotten every statement
    land_many(&served, "b", 2);
    served.place.run();
    let publisher = hold(served.command(&["publish"]), &served, "replace daily");
    cluster.restart(3);
    cluster.kill(1);
    release(&served);
    let ended = publisher.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    served.assert_equal("another two of three");
    let complaints = cluster.node(3).complaints();
    assert!(complaints.is_empty(), "of the engine's statements, after the restart: {complaints:#?}");
    served.medallion(&["reconcile"]).ok();
}
