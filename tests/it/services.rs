//! What stands in for the outside world does what the tests take for granted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use scylla::client::session_builder::SessionBuilder;
use scylla::value::CqlValue;

use crate::authority::Authority;
use crate::cassandra::{Clients, Cluster, Cql, Node, Settings, Tls, node, runs_in, runtime, wait_until};
use crate::proxy::{Fate, Kind, Proxy, Refusal};

#[test]
fn a_node_answers_cql_and_logs_what_it_dislikes() {
    let node = node();
    let space = Cql::of(node).keyspace(1);
    space.cql.run(["create table t (k int primary key, v text)", "insert into t (k, v) values (1, 'one')"]);
    assert_eq!(
        space.cql.rows("select k, v from t"),
        [[Some(CqlValue::Int(1)), Some(CqlValue::Text("one".to_owned()))]]
    );
    assert!(space.cql.try_rows("select nothing from t").is_err());

    let before = node.complaints();
    let long = "x".repeat(6 * 1024);
    space.cql.run([format!(
        "begin unlogged batch insert into t (k, v) values (2, '{long}'); insert into t (k, v) values (3, 'b'); apply batch"
    )
    .as_str()]);
    let is_new = |line: &String| line.contains(&space.name) && !before.contains(line);
    wait_until("the node has logged the large batch", || node.complaints().iter().any(is_new));
}

#[test]
fn a_node_ends_when_it_is_no_longer_wanted() {
    let node = Node::start(&Settings { passwords: true, ..Settings::default() });
    let folder = node.folder().to_path_buf();
    let builder = SessionBuilder::new().known_node(node.contact());
    assert!(Cql::try_connect(builder.clone()).is_err(), "a password is asked for");
    Cql::connect(builder.user("cassandra", "cassandra"));
    assert!(runs_in(&folder));
    drop(node);
    assert!(!runs_in(&folder));
    assert!(!folder.try_exists().unwrap(), "its data went too");
}

#[test]
fn three_nodes_keep_a_row_through_the_loss_of_one() {
    let mut cluster = Cluster::three();
    let space = Cql::connect(SessionBuilder::new().known_nodes(cluster.contacts())).keyspace(3);
    space.cql.run(["create table t (k int primary key, v int)", "insert into t (k, v) values (1, 1)"]);
    wait_until("a node knows both others", || space.cql.rows("select peer from system.peers").len() == 2);
    cluster.kill(3);
    // until the others have noticed, a read may wait for the one that is gone
    let both = || space.cql.try_rows("select k from t").is_ok_and(|rows| rows.len() == 2);
    wait_until("two of three take a row", || {
        space.cql.try_rows("insert into t (k, v) values (2, 2)").is_ok()
    });
    wait_until("two of three answer", both);
    cluster.restart(3);
    cluster.stop(1);
    wait_until("two of three answer again", both);
    assert!(runs_in(cluster.node(2).folder()));
}

/// A statement through a proxy that answers the first prepared execution with this.
fn refused_once(fate: fn() -> Fate) -> Result<(), String> {
    let node = node();
    let space = Cql::of(node).keyspace(1);
    space.cql.run(["create table t (k text primary key)"]);
    let executed = Arc::new(AtomicU32::new(0));
    let proxy = Proxy::before(node.contact(), {
        let executed = executed.clone();
        move |request| match request.kind {
            Kind::Execute if request.contains("claim") && executed.fetch_add(1, Ordering::Relaxed) == 0 => {
                fate()
            }
            _ => Fate::Pass,
        }
    });
    let through = Cql::connect(SessionBuilder::new().known_node(proxy.contact()));
    // a loaded machine's node may take seconds; what is lost never comes
    let timeout = Duration::from_secs(if matches!(fate(), Fate::Lose) { 2 } else { 30 });
    let answer = runtime().block_on(async {
        let session = through.session();
        let mut insert =
            session.prepare(format!("insert into {}.t (k) values (?)", space.name)).await.unwrap();
        insert.set_request_timeout(Some(timeout));
        insert.set_retry_policy(Some(Arc::new(scylla::policies::retry::FallthroughRetryPolicy::new())));
        session.execute_unpaged(&insert, ("claim",)).await.map(|_| ()).map_err(|error| error.to_string())
    });
    assert!(executed.load(Ordering::Relaxed) > 0, "the proxy saw it");
    let told = if answer.is_ok() { 1 } else { 0 };
    if matches!(fate(), Fate::Refuse(_) | Fate::Lose | Fate::Disconnect) {
        assert_eq!(space.cql.rows("select k from t").len(), told, "what was refused did not reach the node");
    }
    if matches!(fate(), Fate::Deny(_)) {
        assert_eq!(space.cql.rows("select k from t").len(), 1, "what was denied did reach the node");
    }
    answer
}

#[test]
fn the_proxy_answers_in_the_nodes_place() {
    let told = |fate| refused_once(fate).unwrap_err();
    assert!(told(|| Fate::Refuse(Refusal::Overloaded)).contains("overloaded"));
    assert!(told(|| Fate::Refuse(Refusal::Unavailable)).contains("LOCAL_QUORUM"));
    assert!(told(|| Fate::Deny(Refusal::WriteTimeout)).contains("timed out"));
    assert!(told(|| Fate::Deny(Refusal::ReadTimeout)).contains("timed out"));
    assert!(told(|| Fate::Refuse(Refusal::Bootstrapping)).contains("bootstrapping"));
    assert!(told(|| Fate::Refuse(Refusal::RateLimited)).contains("Rate limit"));
    told(|| Fate::Lose);
    told(|| Fate::Disconnect);
    // drivers prepare again by themselves
    refused_once(|| Fate::Refuse(Refusal::Unprepared)).unwrap();
    let begun = Instant::now();
    refused_once(|| Fate::Delay(Duration::from_millis(300))).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_frozen_node_keeps_its_connections() {
    let node = Node::start(&Settings::default());
    let space = Cql::of(&node).keyspace(1);
    node.freeze();
    let asked = runtime().block_on(async {
        let answer = space.cql.session().query_unpaged("select key from system.local", ());
        tokio::time::timeout(Duration::from_secs(1), answer).await.is_ok()
    });
    assert!(!asked, "a frozen node does not answer");
    node.thaw();
    wait_until("it answers again", || space.cql.try_rows("select key from system.local").is_ok());
}

#[test]
fn nodes_speak_tls_with_whom_they_should() {
    let authority = Arc::new(Authority::new("the nodes' authority"));
    let tls = |clients| Tls { authority: authority.clone(), identity: None, clients };
    let start = |clients| Node::start(&Settings { tls: Some(tls(clients)), ..Settings::default() });
    let certified = authority.client(Some(&authority.sign(&["client"], 2099)));
    let known = authority.client(None);
    let answers = |node: &Node, tls: Option<&rustls::ClientConfig>| {
        let tls = tls.map(|config| Arc::new(config.clone()));
        Cql::try_connect(SessionBuilder::new().known_node(node.contact()).tls_context(tls)).is_ok()
    };
    for (clients, expected) in [
        (Clients::Everybody, [true, true, true]),
        (Clients::Encrypted, [false, true, true]),
        (Clients::Certified, [false, false, true]),
    ] {
        let node = start(clients);
        let found = [None, Some(&known), Some(&certified)].map(|tls| answers(&node, tls));
        assert_eq!(found, expected);
    }
}
