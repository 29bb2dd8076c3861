//! What stands before an Astra database, on this machine: a metadata service and a proxy that passes a connection to the
//! node whose host id is the name asked for (SNI), both over TLS and for who has a certificate of the authority. Behind it
//! are real nodes. The secure connect bundle is made for it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use scylla::cluster::Node;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::authority::{Authority, Identity};
use crate::cassandra::{Cql, runtime};

/// The name that the database's certificates bear.
pub const HOST: &str = "localhost";

/// What the stand-in says and does; may be changed while it runs.
#[derive(Default)]
pub struct Told {
    /// Nodes that the proxy knows: host id and `ADDRESS:PORT`.
    pub routes: HashMap<String, String>,
    /// Nodes that the metadata service names.
    pub listed: Vec<String>,
    /// What the metadata service answers in place of 200.
    pub status: Option<u16>,
    /// How often it was asked.
    pub num_asked: usize,
    /// Names that were asked for at the proxy, and how often.
    pub names: BTreeMap<String, usize>,
}

/// A running stand-in; it ends when it is dropped.
pub struct Standin {
    pub authority: Authority,
    pub told: Arc<Mutex<Told>>,
    client: Identity,
    metadata_port: u16,
    folder: TempDir,
    _tasks: JoinSet<()>,
}

impl Standin {
    /// Before the nodes that the sessions lead to.
    pub fn before(nodes: &[(Cql, String)]) -> Standin {
        let authority = Authority::new("the database's authority");
        let server = authority.sign(&[HOST], 2099);
        Self::with(nodes, authority, &server)
    }

    /// With a certificate that servers should not have.
    pub fn with(nodes: &[(Cql, String)], authority: Authority, server: &Identity) -> Standin {
        // not by `system.local`: a session of a cluster asks whichever node it likes
        let id = |cql: &Cql, contact: &str| {
            let state = cql.session().get_cluster_state();
            let known = state.get_nodes_info();
            let is_it = |node: &Arc<Node>| known.len() == 1 || node.address.to_string() == contact;
            let node = known.iter().find(|node| is_it(node));
            node.unwrap_or_else(|| panic!("no node at {contact}: {known:?}")).host_id.to_string()
        };
        let routes: HashMap<String, String> =
            nodes.iter().map(|(cql, contact)| (id(cql, contact), contact.clone())).collect();
        assert_eq!(routes.len(), nodes.len(), "two contacts of one node");
        let mut listed: Vec<String> = routes.keys().cloned().collect();
        listed.sort();
        let told = Arc::new(Mutex::new(Told { routes, listed, ..Told::default() }));
        let config = server_config(&authority, server);
        let mut tasks = JoinSet::new();
        let metadata_port = runtime().block_on(async {
            let metadata = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let ports = (metadata.local_addr().unwrap().port(), proxy.local_addr().unwrap().port());
            let (its_told, its_config) = (told.clone(), config.clone());
            tasks.spawn(serve(metadata, move |stream| {
                answer(stream, its_config.clone(), its_told.clone(), ports.1)
            }));
            let its_told = told.clone();
            tasks.spawn(serve(proxy, move |stream| pass(stream, config.clone(), its_told.clone())));
            ports.0
        });
        let client = authority.sign(&["client"], 2099);
        Standin {
            authority,
            told,
            client,
            metadata_port,
            folder: tempfile::tempdir().unwrap(),
            _tasks: tasks,
        }
    }

    pub fn port(&self) -> u16 {
        self.metadata_port
    }

    /// `astra:PATH` of a good bundle.
    pub fn contact(&self) -> String {
        // a file of its own: another test may be reading the last one
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("good-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        format!("astra:{}", self.bundle(&name, &self.authority.pem, &self.client).display())
    }

    /// A bundle that trusts this authority and has this identity.
    pub fn bundle(&self, name: &str, ca: &str, identity: &Identity) -> PathBuf {
        let path = self.folder.path().join(format!("secure-connect-{name}.zip"));
        let config = serde_json::json!({
            "username": "", "password": "", "host": HOST, "port": self.metadata_port, "cql_port": 1,
            "keyspace": "", "localDC": "datacenter1", "keyStorePassword": "canary-of-the-bundle",
        });
        let parts = [
            ("config.json", config.to_string()),
            ("ca.crt", ca.to_owned()),
            ("cert", identity.certificate.clone()),
            ("key", identity.key.clone()),
        ];
        write_zip(&path, &parts);
        path
    }
}

fn write_zip(path: &Path, parts: &[(&str, String)]) {
    let mut writer = ZipWriter::new(File::create(path).unwrap());
    for (name, text) in parts {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap();
}

fn server_config(authority: &Authority, server: &Identity) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(authority.roots());
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

async fn serve<F>(listener: TcpListener, mut each: impl FnMut(TcpStream) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        stream.set_nodelay(true).unwrap();
        let connection = each(stream);
        connections.spawn(async move { drop(connection.await) });
    }
}

/// TLS with a client who has a certificate, and the name that they asked for.
async fn accept(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<(TlsStream<TcpStream>, String)> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let name = start.client_hello().server_name().unwrap_or_default().to_owned();
    match start.into_stream(config).into_fallible().await {
        Ok(stream) => Ok((stream, name)),
        Err((error, mut stream)) => {
            // what the client has sent is read before the connection ends, or it may never see why
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut rest)).await;
            Err(error)
        }
    }
}

async fn answer(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    told: Arc<Mutex<Told>>,
    proxy_port: u16,
) -> io::Result<()> {
    let (mut stream, _) = accept(stream, config).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let (status, body) = {
        let mut told = told.lock().unwrap();
        told.num_asked += 1;
        let is_metadata = request.starts_with(b"GET /metadata HTTP/1.1\r\n");
        let body = serde_json::json!({
            "version": 1, "region": "here",
            "contact_info": {
                "type": "sni_proxy", "local_dc": "datacenter1",
                "sni_proxy_address": format!("{HOST}:{proxy_port}"), "contact_points": told.listed,
            }
        });
        (told.status.unwrap_or(if is_metadata { 200 } else { 404 }), body.to_string())
    };
    let head = format!(
        "HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

async fn pass(stream: TcpStream, config: Arc<ServerConfig>, told: Arc<Mutex<Told>>) -> io::Result<()> {
    let (mut stream, name) = accept(stream, config).await?;
    let route = {
        let mut told = told.lock().unwrap();
        *told.names.entry(name.clone()).or_default() += 1;
        told.routes.get(&name).cloned()
    };
    let Some(contact) = route else { return stream.shutdown().await };
    let mut node = TcpStream::connect(contact).await?;
    node.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut node).await.map(|_| ())
}
