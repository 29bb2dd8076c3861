//! An Astra database, as far as that can be had without one: real nodes behind a stand-in for its metadata service and
//! proxy ([`crate::standin`]).

use std::collections::HashMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use medallion::store::cassandra::astra::bundle::Bundle;
use medallion::store::cassandra::astra::tunnel::Tunnel;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use scylla::client::session_builder::SessionBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::authority::Authority;
use crate::cassandra::{Clients, Cluster, Cql, Node, Settings, Tls, node, runtime, wait_until};
use crate::mini;
use crate::proxy::{Fate, Kind, Proxy, Refusal};
use crate::serving::{Served, first_readings, reading};
use crate::standin::{HOST, Standin};
use crate::support::{Done, write};

/// The token of the nodes that ask for one.
pub const TOKEN: &str = "AstraCS:canary-of-the-token";

/// With this variable, tests that are given a node get it through the tunnel.
const EVERYWHERE: &str = "MEDALLION_TEST_THROUGH_ASTRA";

/// `ADDRESS:PORT` of a node, or a bundle for a stand-in before it.
pub fn instead_of(contact: String) -> String {
    static STANDINS: OnceLock<Mutex<HashMap<String, Standin>>> = OnceLock::new();
    if std::env::var_os(EVERYWHERE).is_none() || contact.starts_with("astra:") {
        return contact;
    }
    let mut standins = STANDINS.get_or_init(Mutex::default).lock().unwrap();
    let standin = standins.entry(contact.clone()).or_insert_with(|| {
        Standin::before(&[(Cql::connect(SessionBuilder::new().known_node(&contact)), contact)])
    });
    standin.contact()
}

/// Before the node that tests share.
fn before_node() -> Standin {
    Standin::before(&[(Cql::of(node()), node().contact())])
}

#[test]
fn the_serving_suite_passes_through_the_tunnel() {
    if std::env::var_os(EVERYWHERE).is_some() {
        return; // this is that suite
    }
    let mut suite = Command::new(std::env::current_exe().unwrap());
    suite.args(["serving::", "--test-threads", "2"]).env(EVERYWHERE, "1").env_remove("RUST_BACKTRACE");
    let done = suite.output().unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{told}\n{}", String::from_utf8_lossy(&done.stderr));
    assert!(!told.contains("running 0 tests") && told.contains("serving::"), "{told}");
}

#[test]
fn a_token_is_asked_for_and_never_shown() {
    let node = Node::start(&Settings { passwords: true, ..Settings::default() });
    let superuser =
        || Cql::connect(SessionBuilder::new().known_node(node.contact()).user("cassandra", "cassandra"));
    let space = superuser().keyspace(1);
    // as on Astra, a token's user may do everything in a keyspace and create none
    space.cql.run([
        format!("create role \"token\" with password = '{TOKEN}' and login = true").as_str(),
        format!("grant all on keyspace {} to \"token\"", space.name).as_str(),
    ]);
    let standin = Standin::before(&[(superuser(), node.contact())]);
    let served = Served::mini_in(space, standin.contact());
    served.place.land([&first_readings()]);
    let mut wrong = served.command(&["-vv", "check", "--connect"]);
    let done = Done::of(wrong.env("MEDALLION_ASTRA_TOKEN", "AstraCS:canary-of-another").output().unwrap());
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(!format!("{done:?}").contains("canary-of"), "{done:?}");

    let file = served.place.folder().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let mut run = served.command(&["-vv", "run"]);
    run.env_remove("MEDALLION_ASTRA_TOKEN").env("MEDALLION_ASTRA_TOKEN_FILE", &file);
    let done = Done::of(run.output().unwrap()).expect(0);
    assert!(!format!("{done:?}").contains("canary-of"), "{done:?}");
    served.assert_equal("with a token from a file");
    for entry in walk(&served.place.lake) {
        let bytes = std::fs::read(&entry).unwrap();
        let is_in = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!is_in("canary-of"), "{}", entry.display());
    }
}

/// Every file below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(walk(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn three_nodes_lose_one_and_change() {
    let mut cluster = Cluster::three();
    let session = |contact: &str| Cql::connect(SessionBuilder::new().known_node(contact));
    let contacts = cluster.contacts();
    let space = session(&contacts[0]).keyspace(3);
    let nodes: Vec<(Cql, String)> =
        contacts.iter().map(|contact| (session(contact), contact.clone())).collect();
    let standin = Standin::before(&nodes);
    drop(nodes);
    let of_contact = |contact: &str| {
        let told = standin.told.lock().unwrap();
        told.routes.iter().find(|(_, to)| *to == contact).unwrap().0.clone()
    };
    let ids: Vec<String> = contacts.iter().map(|contact| of_contact(contact)).collect();
    let served = Served::mini_in(space, standin.contact());
    // the others take about 20 s to see that a node is gone, and until then may ask it for a range of rows
    served.place.edit("medallion.toml", "retry_seconds = 20", "retry_seconds = 90");
    served.place.land([&first_readings()]);
    served.run();
    served.assert_equal("through the tunnel");
    served.medallion(&["reconcile"]).ok();
    // a short command may end before it has met all of them
    wait_until("every node was asked for", || {
        served.medallion(&["reconcile"]).ok();
        standin.told.lock().unwrap().names.len() >= ids.len()
    });
    let asked_for: Vec<String> = standin.told.lock().unwrap().names.keys().cloned().collect();
    assert_eq!(asked_for, sorted(&ids), "every node by its host id, and nobody else");

    cluster.kill(3);
    served
        .place
        .land([&mini::readings("b.jsonl", &[reading("5", 3, "north", "9"), reading("6", 3, "west", "1")])]);
    served.run();
    wait_until("two nodes answer", || served.space.cql.try_rows("select site from daily").is_ok());
    served.assert_equal("one node down");

    // the metadata service names a node that is no more, and one that nobody had named before
    cluster.restart(3);
    standin.told.lock().unwrap().listed = vec![stranger(1), ids[2].clone()];
    served.place.land([&mini::readings("c.jsonl", &[reading("7", 4, "north", "9")])]);
    served.run();
    served.assert_equal("other nodes named");
    served.medallion(&["reconcile"]).ok();
}

fn sorted(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}

/// A host id of nobody.
fn stranger(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02x}")
}

#[test]
fn a_tunnel_follows_the_nodes() {
    let standin = before_node();
    let bundle = Bundle::read(standin.contact().trim_start_matches("astra:").as_ref()).unwrap();
    let tunnel = runtime().block_on(Tunnel::open(&bundle)).unwrap();
    let entrance = tunnel.entrances[0].to_string();
    assert_eq!(standin.told.lock().unwrap().num_asked, 1);
    {
        let mut told = standin.told.lock().unwrap();
        let old = told.listed[0].clone();
        let contact = told.routes.remove(&old).unwrap();
        told.routes.insert(stranger(7), contact);
        told.listed = vec![stranger(7)];
    }
    // a refused connection makes it ask again
    wait_until("the tunnel has found the new node", || {
        runtime().block_on(async {
            let mut stream = TcpStream::connect(&entrance).await.unwrap();
            // OPTIONS of protocol version 4
            stream.write_all(&[4, 0, 0, 0, 5, 0, 0, 0, 0]).await.unwrap();
            stream.read_u8().await.is_ok()
        })
    });
    let told = standin.told.lock().unwrap();
    assert!(told.num_asked >= 2 && told.names.contains_key(&stranger(7)));
}

#[test]
fn a_keyspace_is_asked_for_and_not_created() {
    let standin = before_node();
    let served = Served::mini_in(Cql::of(node()).keyspace(1), standin.contact());
    served.place.land([&first_readings()]);
    served.space.cql.run([format!("drop keyspace {}", served.space.name).as_str()]);
    let told = |arguments: &[&str]| {
        served
            .medallion(arguments)
            .expect(2)
            .tells(&["no keyspace", "create it at https://astra.datastax.com"]);
    };
    told(&["run"]);
    told(&["publish"]);
    told(&["reconcile"]);
    told(&["check", "--connect"]);
    let keyspaces = Cql::of(node()).rows("select keyspace_name from system_schema.keyspaces");
    assert!(!format!("{keyspaces:?}").contains(&format!("\"{}\"", served.space.name)));
}

#[test]
fn a_used_up_rate_slows_the_publisher() {
    let refused = Arc::new(AtomicUsize::new(0));
    let proxy = Proxy::before(node().contact(), {
        let (refused, seen) = (refused.clone(), AtomicUsize::new(0));
        move |request| match request.kind {
            // rows of ours; the driver does not repeat what it asks for itself
            Kind::Batch | Kind::Execute
                if ["north", "south", "east"].iter().any(|site| request.contains(site))
                    && seen.fetch_add(1, Ordering::Relaxed) % 2 == 0 =>
            {
                refused.fetch_add(1, Ordering::Relaxed);
                Fate::Refuse(Refusal::RateLimited)
            }
            _ => Fate::Pass,
        }
    });
    let standin = Standin::before(&[(Cql::of(node()), proxy.contact())]);
    let served = Served::mini_in(Cql::of(node()).keyspace(1), standin.contact());
    served.place.land([&first_readings()]);
    served.run();
    served.assert_equal("every other request was over the rate");
    assert!(refused.load(Ordering::Relaxed) >= 3);
}

/// `medallion check --connect` with a bundle, which must fail.
fn refused(served: &Served, contact: &str, code: i32, texts: &[&str]) {
    let mut command = served.command(&["-vv", "check", "--connect"]);
    let done =
        Done::of(command.env("MEDALLION_CASSANDRA", contact).output().unwrap()).expect(code).tells(texts);
    assert!(!format!("{done:?}").contains("canary-of"), "{done:?}");
}

#[test]
fn who_is_not_vouched_for_is_refused() {
    let standin = before_node();
    let served = Served::mini_in(Cql::of(node()).keyspace(1), standin.contact());
    served.medallion(&["check", "--connect"]).ok();
    let ours = |name: &str| standin.authority.sign(&[name], 2099);
    let at = |standin: &Standin, name: &str, ca: &str, identity| {
        format!("astra:{}", standin.bundle(name, ca, &identity).display())
    };

    // we, of them
    let other = Authority::new("somebody else");
    let contact = at(&standin, "other-ca", &other.pem, ours("client"));
    refused(&served, &contact, 2, &["was not signed by the bundle's `ca.crt`", HOST]);
    for (names, until, text) in [
        (&[HOST][..], 2021, "the server's certificate has expired"),
        (
            &["elsewhere.example.org"][..],
            2099,
            "the server's certificate is not for the bundle's host `localhost`",
        ),
        // the name that is asked for is not what counts
        (&["00000000-0000-4000-8000-000000000001"][..], 2099, "is not for the bundle's host `localhost`"),
    ] {
        let authority = Authority::new("the database's authority");
        let server = authority.sign(names, until);
        let bad = Standin::with(&[(Cql::of(node()), node().contact())], authority, &server);
        refused(&served, &bad.contact(), 2, &[text]);
        // the same for nodes, where the metadata service was good
        let bundle = Bundle::read(bad.contact().trim_start_matches("astra:").as_ref()).unwrap();
        let is_accepted = handshake(&bad, bundle.node_tls().unwrap());
        assert!(is_accepted.is_err(), "{names:?}");
    }

    // they, of us
    let contact = at(&standin, "other-client", &standin.authority.pem, other.sign(&["client"], 2099));
    refused(&served, &contact, 2, &["refuses the bundle's certificate `cert`"]);
    let contact = at(&standin, "expired", &standin.authority.pem, standin.authority.sign(&["client"], 2021));
    refused(&served, &contact, 2, &["`cert` expired on 2021-12-31"]);
    assert!(handshake(&standin, without_certificate(standin.authority.roots())).is_err());
    let bundle = Bundle::read(standin.contact().trim_start_matches("astra:").as_ref()).unwrap();
    handshake(&standin, bundle.node_tls().unwrap()).unwrap();

    // a name that no node has
    standin.told.lock().unwrap().listed = vec![stranger(1)];
    standin.told.lock().unwrap().routes.clear();
    refused(&served, &standin.contact(), 6, &["the Astra database at localhost"]);
    standin.told.lock().unwrap().status = Some(503);
    refused(&served, &standin.contact(), 6, &["answers 503", "is the database active?"]);

    let mut command = served.command(&["check", "--connect"]);
    Done::of(command.env_remove("MEDALLION_ASTRA_TOKEN").output().unwrap())
        .expect(2)
        .tells(&["MEDALLION_ASTRA_TOKEN"]);
    refused(&served, "astra:/no/such/bundle.zip", 2, &["/no/such/bundle.zip"]);
    refused(&served, &format!("{},{}", standin.contact(), node().contact()), 2, &["stands alone"]);
    drop(standin);
}

#[test]
fn a_pipe_is_no_bundle_and_holds_nobody_up() {
    let place = mini::place();
    place.run();
    let manifest = std::fs::read_to_string(place.project.join("medallion.toml")).unwrap();
    let serving =
        "\n[serving]\nkeyspace = \"k\"\nhosts = [\"127.0.0.1:1\"]\nuser = \"u\"\npassword_file = \"pipe\"\n";
    write(&place.project.join("medallion.toml"), format!("{manifest}{serving}").as_bytes());
    let pipe = place.project.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut reconcile = place.command(&["reconcile"]);
    reconcile.env("MEDALLION_CASSANDRA", format!("astra:{}", pipe.display()));
    Done::of(reconcile.output().unwrap()).expect(2).tells(&["is no regular file"]);

    // a password may come from a pipe; who waits for one can be told to end
    let waiting = place.command(&["reconcile"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut writer = std::fs::OpenOptions::new();
    writer.write(true).custom_flags(libc::O_NONBLOCK);
    let mut held = None;
    wait_until("the password is being read", || {
        held = writer.open(&pipe).ok();
        held.is_some()
    });
    assert!(Command::new("kill").args(["-TERM", &waiting.id().to_string()]).status().unwrap().success());
    Done::of(waiting.wait_with_output().unwrap()).expect(143);
    drop(held);
}

fn without_certificate(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// Speaks to the stand-in over TLS and reads a byte of its answer.
fn handshake(standin: &Standin, config: ClientConfig) -> std::io::Result<u8> {
    runtime().block_on(async {
        let stream = TcpStream::connect((HOST, standin.port())).await?;
        let name = ServerName::try_from(HOST).unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"GET /metadata HTTP/1.1\r\n\r\n").await?;
        tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await?
    })
}

/// Client CPU per row through the tunnel and with TLS straight to the same nodes; `make bench-astra` prints it.
#[test]
#[ignore = "a measurement, of a release binary"]
fn cost_of_the_tunnel() {
    let binary = std::env::var("MEDALLION_BENCH_BINARY").unwrap();
    let authority = Arc::new(Authority::new("the nodes' authority"));
    let tls = Tls { authority: authority.clone(), identity: None, clients: Clients::Everybody };
    let cluster = Cluster::with(Settings { tls: Some(tls), ..Settings::default() });
    let contacts = cluster.contacts();
    let session = |contact: &str| Cql::connect(SessionBuilder::new().known_node(contact));
    let nodes: Vec<_> = contacts.iter().map(|contact| (session(contact), contact.clone())).collect();
    let standin = Standin::before(&nodes);
    let served = Served::reference_in(session(&contacts[0]).keyspace(1), contacts.join(","));
    std::fs::write(served.place.project.join("ca.pem"), &authority.pem).unwrap();
    served.place.edit("medallion.toml", "retry_seconds = 20", "retry_seconds = 60\ntls_ca = \"ca.pem\"");
    let command = |contact: &str, arguments: &[&str]| {
        // the shell prints its children's user and system time
        let mut command = Command::new("bash");
        command.args(["-c", "\"$@\" >&2; times", "-", &binary, "--quiet"]);
        command.arg("--project").arg(&served.place.project).arg("--lake").arg(&served.place.lake);
        command.arg("--landing").arg(std::env::var_os("BENCH_DATA").unwrap()).args(arguments);
        command.env("MEDALLION_CASSANDRA", contact).env("MEDALLION_ASTRA_TOKEN", TOKEN);
        let done = Done::of(command.output().unwrap()).expect(0);
        let seconds = |text: &str| {
            let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
            minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
        };
        let rows = done
            .stderr
            .lines()
            .find_map(|line| line.split_once(" rows published in ")?.0.parse::<u64>().ok());
        let of_children = done.stdout.lines().last().unwrap();
        (of_children.split_whitespace().map(seconds).sum::<f64>(), rows)
    };
    let straight = contacts.join(",");
    command(&straight, &["run"]);
    let mut spent = [Vec::new(), Vec::new()];
    let mut num_rows = 0;
    for _ in 0..7 {
        for (contact, spent) in [&straight, &standin.contact()].into_iter().zip(&mut spent) {
            let (seconds, rows) = command(contact, &["publish", "--full"]);
            num_rows = rows.unwrap();
            spent.push(seconds);
        }
    }
    let [tls, tunnel] = spent.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    });
    assert!(tls > 0.0 && tunnel > 0.0, "no time was measured");
    let micros = |seconds: f64| seconds * 1e6 / num_rows as f64;
    println!(
        "{num_rows} rows, client CPU per row, medians of 7: TLS {:.2} us, through the tunnel {:.2} us: {:+.1} % (wanted: at most +25 %)",
        micros(tls),
        micros(tunnel),
        (tunnel / tls - 1.0) * 100.0
    );
}
