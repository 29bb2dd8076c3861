//! Real Cassandra nodes for tests, started by `scripts/cassandra.sh` on loopback addresses of their own. They end with the
//! process that asked for them, however it ends: the script holds the other end of a pipe.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::value::{CqlValue, Row};
use tokio::runtime::Runtime;

use crate::authority::{Authority, Identity};
use crate::support::repository;

/// One node per test process, without passwords and TLS, started when it is first asked for. Tests that use it keep to a
/// keyspace of their own ([`Cql::keyspace`]).
pub fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| Node::start(&Settings::default()))
}

/// How a node differs from the usual one.
#[derive(Clone, Default)]
pub struct Settings {
    /// Users and passwords; at first there is `cassandra` with the password `cassandra`.
    pub passwords: bool,
    /// TLS for clients.
    pub tls: Option<Tls>,
    /// Further lines for `cassandra.yaml`.
    pub yaml: Vec<String>,
}

/// TLS of a node.
#[derive(Clone)]
pub struct Tls {
    /// Vouches for the nodes and their clients.
    pub authority: Arc<Authority>,
    /// What every node shows; by default a certificate for its address.
    pub identity: Option<Identity>,
    pub clients: Clients,
}

/// Who may come to a node with TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// With and without TLS.
    Everybody,
    /// With TLS.
    Encrypted,
    /// With TLS and a certificate.
    Certified,
}

/// A running node. It is stopped, and its data removed, when this is dropped.
pub struct Node {
    address: Ipv4Addr,
    port: u16,
    folder: PathBuf,
    script: Child,
}

impl Node {
    /// Starts a node that is a cluster of its own.
    pub fn start(settings: &Settings) -> Node {
        let place = Site::free();
        place.node(1, settings, true)
    }

    /// `ADDRESS:PORT`, where it speaks CQL.
    pub fn contact(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// What it has logged since it was started.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log/system.log")).unwrap()
    }

    /// The lines of its log that warn of what clients do: batches too large, too many tombstones, unlogged batches over
    /// partitions, full table scans and what else a guardrail finds; statements that it can't prepare again. Empty is what a
    /// well-behaved client leaves.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.log();
        let of_clients = |line: &&str| {
            (line.starts_with("WARN") || line.starts_with("ERROR"))
                && [
                    "BatchStatement",
                    "Guardrail",
                    "guardrail",
                    "tombstone",
                    "ReadCommand",
                    "ClientWarn",
                    "removing statement",
                ]
                .iter()
                .any(|sign| line.contains(sign))
        };
        log.lines().filter(of_clients).map(str::to_owned).collect()
    }

    /// Ends the process at once, as a crash of the machine would.
    pub fn kill(mut self) {
        self.signal("KILL");
        self.script.wait().unwrap();
    }

    /// It stops answering and keeps its connections, until [`Node::thaw`].
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// The end of [`Node::freeze`].
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = fs::read_to_string(self.folder.join("pid")).unwrap();
        let sent = Command::new("kill").args([&format!("-{name}"), pid.trim()]).status().unwrap();
        assert!(sent.success(), "kill -{name} {pid}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// Three nodes on neighbouring addresses. Node numbers are 1 to 3.
pub struct Cluster {
    site: Site,
    settings: Settings,
    nodes: [Option<Node>; 3],
    _data: Removed,
}

impl Cluster {
    pub fn three() -> Cluster {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Cluster {
        let site = Site::free();
        let data = Removed(site.folder.clone());
        let nodes = [1, 2, 3].map(|number| Some(site.node(number, &settings, false)));
        Cluster { site, settings, nodes, _data: data }
    }

    /// A node that runs.
    pub fn node(&self, number: usize) -> &Node {
        self.nodes[number - 1].as_ref().unwrap_or_else(|| panic!("node {number} was stopped"))
    }

    /// `ADDRESS:PORT` of every node, whether it runs or not.
    pub fn contacts(&self) -> [String; 3] {
        [1, 2, 3].map(|number| format!("{}:{}", self.site.address(number), self.site.port))
    }

    /// Stops a node in order.
    pub fn stop(&mut self, number: usize) {
        drop(self.nodes[number - 1].take());
    }

    /// Ends a node at once.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number - 1].take().unwrap_or_else(|| panic!("node {number} was stopped")).kill();
    }

    /// Starts a node that was stopped or killed, with the data it had.
    pub fn restart(&mut self, number: usize) {
        assert!(self.nodes[number - 1].is_none(), "node {number} runs");
        self.nodes[number - 1] = Some(self.site.node(number as u8, &self.settings, false));
    }
}

/// A folder that is removed at the end; in a field after what uses it.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Three addresses, two ports and a folder that nobody else has.
struct Site {
    network: [u8; 3],
    port: u16,
    storage_port: u16,
    folder: PathBuf,
}

impl Site {
    fn free() -> Site {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        loop {
            let seed = blake3::hash(
                format!(
                    "{} {:?} {}",
                    std::process::id(),
                    Instant::now(),
                    TAKEN.fetch_add(1, Ordering::Relaxed)
                )
                .as_bytes(),
            );
            let seed = seed.as_bytes();
            let network = [127, 16 + seed[0] % 224, seed[1]];
            // below the ports that the system hands out by itself
            let port = 20_000 + u16::from(seed[2]) * 32 + u16::from(seed[3] % 16) * 2;
            let name = format!("medallion-cassandra-{}-{}-{port}", network[1], network[2]);
            let site =
                Site { network, port, storage_port: port + 1, folder: std::env::temp_dir().join(name) };
            let free = |port| (1..=3).all(|number| TcpListener::bind((site.address(number), port)).is_ok());
            if free(site.port) && free(site.storage_port) && fs::create_dir(&site.folder).is_ok() {
                return site;
            }
        }
    }

    fn address(&self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, number)
    }

    /// Starts a node here and waits until it answers; `alone` with nobody to join, and its data goes when it ends.
    fn node(&self, number: u8, settings: &Settings, alone: bool) -> Node {
        let (address, seed) = (self.address(number), self.address(1));
        let folder = if alone { self.folder.clone() } else { self.folder.join(format!("node{number}")) };
        let mut script = Command::new(repository().join("scripts/cassandra.sh"));
        script.arg("run").arg("--dir").arg(&folder).args(["--heap", if alone { "512m" } else { "384m" }]);
        script.args(["--address", &address.to_string(), "--seed", &seed.to_string()]);
        script.args(["--port", &self.port.to_string(), "--storage-port", &self.storage_port.to_string()]);
        script.args(["--nodes", if alone { "1" } else { "3" }]).args(["--yaml", "auto_snapshot: false"]);
        for line in &settings.yaml {
            script.arg("--yaml").arg(line);
        }
        if settings.passwords {
            script.arg("--auth");
        }
        if let Some(tls) = &settings.tls {
            let identity = tls.identity.clone();
            let identity = identity.unwrap_or_else(|| tls.authority.sign(&[&address.to_string()], 2099));
            let file = |name: &str| self.folder.join(format!("{name}{number}.pem"));
            let (server, clients) = (file("server"), file("clients"));
            fs::write(&server, format!("{}{}", identity.key, identity.certificate)).unwrap();
            fs::write(&clients, &tls.authority.pem).unwrap();
            script.arg("--tls").arg(server);
            match tls.clients {
                Clients::Everybody => {
                    script.arg("--tls-optional");
                }
                Clients::Encrypted => {}
                Clients::Certified => {
                    script.arg("--tls-clients").arg(clients);
                }
            }
        }
        if alone {
            script.arg("--temporary");
        }
        let told = self.folder.with_extension(format!("told{number}"));
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&told).unwrap());
        let mut script = script.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told_text = fs::read_to_string(&told).unwrap();
        let _ = fs::remove_file(&told);
        assert_eq!(line, "ready\n", "Cassandra did not start on {address}:\n{told_text}");
        Node { address, port: self.port, folder, script }
    }
}

/// What runs the asynchronous parts of tests.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

/// Asks again until the answer is yes, for at most a minute.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a minute later still not: {what}");
        runtime().block_on(async { tokio::time::sleep(Duration::from_millis(100)).await });
    }
}

/// A plain CQL session, beside what the engine does.
pub struct Cql {
    session: Session,
}

impl Cql {
    pub fn of(node: &Node) -> Cql {
        Self::connect(SessionBuilder::new().known_node(node.contact()))
    }

    pub fn connect(builder: SessionBuilder) -> Cql {
        Self::try_connect(builder).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_connect(builder: SessionBuilder) -> Result<Cql, String> {
        let builder = builder.connection_timeout(Duration::from_secs(30));
        runtime().block_on(builder.build()).map(|session| Cql { session }).map_err(|error| error.to_string())
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Runs statements that give no rows, one after another.
    pub fn run<'a>(&self, statements: impl IntoIterator<Item = &'a str>) {
        for statement in statements {
            self.rows(statement);
        }
    }

    /// The rows of a statement; none where it gives none.
    pub fn rows(&self, statement: &str) -> Vec<Vec<Option<CqlValue>>> {
        self.try_rows(statement).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    pub fn try_rows(&self, statement: &str) -> Result<Vec<Vec<Option<CqlValue>>>, String> {
        let answer =
            runtime().block_on(self.session.query_unpaged(statement, ())).map_err(|e| e.to_string())?;
        if !answer.is_rows() {
            return Ok(Vec::new());
        }
        let rows = answer.into_rows_result().map_err(|error| error.to_string())?;
        Ok(rows.rows::<Row>().unwrap().map(|row| row.unwrap().columns).collect())
    }

    /// An empty keyspace with this many copies of a row, which goes away with the value.
    pub fn keyspace(self, copies: usize) -> Keyspace {
        static NUMBER: Mutex<u32> = Mutex::new(0);
        let number = {
            let mut number = NUMBER.lock().unwrap();
            *number += 1;
            *number
        };
        // none is the beginning of another, so that log lines can be told apart
        let name = format!("test_{number:03}");
        self.run([format!(
            "create keyspace {name} with replication = \
             {{'class': 'NetworkTopologyStrategy', 'datacenter1': {copies}}}"
        )
        .as_str()]);
        self.run([format!("use {name}").as_str()]);
        Keyspace { name, cql: self }
    }
}

/// A keyspace of one test.
pub struct Keyspace {
    pub name: String,
    pub cql: Cql,
}

impl Drop for Keyspace {
    fn drop(&mut self) {
        let _ = self.cql.try_rows(&format!("drop keyspace {}", self.name));
    }
}

/// Whether a process that was started in this folder still runs.
pub fn runs_in(folder: &Path) -> bool {
    let wanted = format!("-Dcassandra.storagedir={}", folder.display());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|command| command.split(|&byte| byte == 0).any(|argument| argument == wanted.as_bytes()))
}

impl Node {
    /// Where its data, logs and configuration are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
