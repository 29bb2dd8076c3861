//! Nodes that want to be sure: TLS verified in both directions and a password, against real nodes; whatever does not
//! fit is refused before a row is sent, and no secret is told.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use scylla::client::session_builder::SessionBuilder;

use crate::authority::{Authority, Identity};
use crate::cassandra::{Clients, Cql, Node, Settings, Tls};
use crate::mini;
use crate::serving::Served;
use crate::support::{Done, write};

const PASSWORD: &str = "cassandra";

/// A session that the nodes' authority has vouched for, to look at what was published.
fn insider(node: &Node, authority: &Authority) -> Cql {
    let tls = authority.client(Some(&authority.sign(&["tester"], 2099)));
    let builder = SessionBuilder::new().known_node(node.contact()).user("cassandra", PASSWORD);
    Cql::connect(builder.tls_context(Some(Arc::new(tls))))
}

/// The project says this of its connection, and nothing else.
fn declare(served: &Served, base: &str, lines: &[&str]) {
    fs::write(served.place.project.join("medallion.toml"), format!("{base}{}\n", lines.join("\n"))).unwrap();
}

fn place_identity(served: &Served, name: &str, identity: &Identity) {
    let project = &served.place.project;
    write(&project.join(format!("{name}.pem")), identity.certificate.as_bytes());
    write(&project.join(format!("{name}.key")), identity.key.as_bytes());
}

/// Publishes everything, with this password in the environment.
fn publish(served: &Served, password: &str) -> Done {
    let mut command = served.command(&["publish", "--full"]);
    let done = Done::of(command.env("MEDALLION_CASSANDRA_PASSWORD", password).output().unwrap());
    for secret in ["PRIVATE KEY", "wrong-word"] {
        assert!(
            !done.stderr.contains(secret) && !done.stdout.contains(secret),
            "`{secret}` was told: {done:?}"
        );
    }
    done
}

fn holds(folder: &Path, text: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => holds(&path, text),
            false => fs::read(&path).unwrap().windows(text.len()).any(|window| window == text),
        }
    })
}

#[test]
fn both_sides_show_who_they_are_before_a_row_is_sent() {
    let authority = Arc::new(Authority::new("the nodes' authority"));
    let stranger = Authority::new("a stranger");
    let tls = Tls { authority: authority.clone(), identity: None, clients: Clients::Certified };
    let node = Node::start(&Settings { passwords: true, tls: Some(tls), ..Settings::default() });
    let served = Served::mini_in(insider(&node, &authority).keyspace(1), node.contact());
    let project = served.place.project.clone();
    let base = fs::read_to_string(project.join("medallion.toml")).unwrap().replace("= 20", "= 2");
    write(&project.join("ca.pem"), authority.pem.as_bytes());
    write(&project.join("stranger.pem"), stranger.pem.as_bytes());
    write(&project.join("password"), b"cassandra\n");
    place_identity(&served, "ours", &authority.sign(&["medallion"], 2099));
    place_identity(&served, "foreign", &stranger.sign(&["medallion"], 2099));
    place_identity(&served, "expired", &authority.sign(&["medallion"], 2021));
    served.place.land(&mini::batches().concat());
    served.place.run();

    let user = "user = \"cassandra\"";
    let ca = "tls_ca = \"ca.pem\"";
    let ours = ["tls_certificate = \"ours.pem\"", "tls_key = \"ours.key\""];
    let nothing_came = |how: &str| {
        let tables = served.space.cql.rows(&format!(
            "select table_name from system_schema.tables where keyspace_name = '{}'",
            served.space.name
        ));
        assert!(tables.is_empty(), "{how}: {tables:?}");
    };

    // who the node is
    declare(&served, &base, &[user, "tls_ca = \"stranger.pem\"", ours[0], ours[1]]);
    publish(&served, PASSWORD).expect(2).tells(&["do not trust each other's certificates"]);
    nothing_came("another authority");
    // who we are
    declare(&served, &base, &[user, ca]);
    publish(&served, PASSWORD).expect(2).tells(&["do not trust each other's certificates"]);
    nothing_came("no certificate of ours");
    for (name, how) in [("foreign", "a stranger's certificate"), ("expired", "an expired certificate")] {
        let (certificate, key) =
            (format!("tls_certificate = \"{name}.pem\""), format!("tls_key = \"{name}.key\""));
        declare(&served, &base, &[user, ca, &certificate, &key]);
        publish(&served, PASSWORD).expect(2).tells(&["do not trust each other's certificates"]);
        nothing_came(how);
    }
    // without encryption the node does not listen
    declare(&served, &base, &[user]);
    publish(&served, PASSWORD).expect(6).tells(&["can't connect to cassandra"]);
    nothing_came("no encryption");
    // the password
    declare(&served, &base, &[user, ca, ours[0], ours[1]]);
    publish(&served, "wrong-word").expect(2).tells(&["refuses the user and the password"]);
    nothing_came("a wrong password");
    // what can't be read
    declare(&served, &base, &[user, "tls_ca = \"ours.key\"", ours[0], ours[1]]);
    publish(&served, PASSWORD).expect(2).tells(&["ours.key", "certificate"]);
    declare(&served, &base, &[user, ca, ours[0], "tls_key = \"ours.pem\""]);
    publish(&served, PASSWORD).expect(2).tells(&["ours.pem", "private key"]);

    declare(&served, &base, &[user, ca, ours[0], ours[1], "password_file = \"password\""]);
    served.medallion(&["publish"]).ok();
    served.assert_equal("all as it should be, the password in a file");
    served.medallion(&["reconcile"]).ok();
    let key = fs::read(project.join("ours.key")).unwrap();
    assert!(!holds(&served.place.lake, &key[30..80]), "a key has no business in the lake");
}

#[test]
fn a_node_must_show_a_valid_certificate_for_its_address() {
    let authority = Arc::new(Authority::new("the nodes' authority"));
    for (identity, how) in [
        (authority.sign(&["another.example"], 2099), "another name"),
        (authority.sign(&["127.0.0.1"], 2099), "another address"),
        (authority.sign(&["any.example"], 2021), "expired"),
    ] {
        let tls = Tls { authority: authority.clone(), identity: Some(identity), clients: Clients::Everybody };
        let node = Node::start(&Settings { tls: Some(tls), ..Settings::default() });
        let served = Served::mini_on(&node);
        let base = fs::read_to_string(served.place.project.join("medallion.toml")).unwrap();
        write(&served.place.project.join("ca.pem"), authority.pem.as_bytes());
        served.place.land(&mini::batches()[0]);
        served.place.run();
        declare(&served, &base.replace("= 20", "= 2"), &["tls_ca = \"ca.pem\""]);
        let told = publish(&served, PASSWORD).expect(2);
        assert!(told.stderr.contains("ertificate"), "{how}: {}", told.stderr);
    }
}
