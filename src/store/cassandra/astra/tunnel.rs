//! Loopback listeners that stand for the nodes of a database. The driver speaks plain CQL to them; what it says goes on
//! over TLS to the database's proxy, which passes it to the node whose host id is the name asked for (SNI).
//!
//! There is one *door* per host id, opened when the driver first hears of the node, and a few *entrances* for its first
//! connection, each of which leads to any node that answers. All of it ends when the tunnel is dropped.
//!
//! A door is open to every process of this machine; it lends our certificate, but whoever uses it still needs the
//! database's token.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use scylla::errors::TranslationError;
use scylla::policies::address_translator::{AddressTranslator, UntranslatedPeer};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

use super::bundle::Bundle;
use super::explain;
use super::metadata::{Metadata, Service};
use crate::error::{Error, Result};

/// The proxy and its answer to the first words of TLS, each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The metadata service is not asked more often.
const REFRESH_PAUSE: Duration = Duration::from_secs(5);

/// Large enough for a few records of TLS, which hold 16 KiB.
const BUFFER_BYTES: usize = 64 * 1024;

/// The way to a database's nodes.
pub struct Tunnel {
    shared: Arc<Shared>,
    doors: Mutex<HashMap<Uuid, SocketAddr>>,
    /// Where the driver begins.
    pub entrances: Vec<SocketAddr>,
    /// What listens; aborted with the tunnel.
    listeners: Mutex<JoinSet<()>>,
}

/// What every connection needs.
struct Shared {
    host: String,
    service: Service,
    connector: TlsConnector,
    metadata: RwLock<Metadata>,
    asked: Mutex<Instant>,
    failure: RwLock<Option<String>>,
}

/// Where a connection leads.
#[derive(Debug, Clone, Copy)]
enum Way {
    Node(Uuid),
    /// To the first node that answers, beginning with this one of the list.
    Any(usize),
}

impl Tunnel {
    /// Asks the metadata service for the nodes and makes sure that one of them can be reached.
    ///
    /// # Errors
    /// `Usage` where the bundle and the database do not fit together, `Unavailable` where nobody answers.
    pub async fn open(bundle: &Bundle) -> Result<Tunnel> {
        let service = Service::of(bundle)?;
        let metadata = service.fetch().await?;
        let connector = TlsConnector::from(Arc::new(bundle.node_tls()?));
        let num_nodes = metadata.nodes.len();
        let shared = Arc::new(Shared {
            host: bundle.host.clone(),
            service,
            connector,
            metadata: RwLock::new(metadata),
            asked: Mutex::new(Instant::now()),
            failure: RwLock::new(None),
        });
        // the driver would only see that a connection ended
        shared.connect(Way::Any(0)).await?;
        let mut tunnel =
            Tunnel { shared, doors: Mutex::default(), entrances: Vec::new(), listeners: Mutex::default() };
        for at in 0..num_nodes {
            let entrance = tunnel.listen(Way::Any(at)).await?;
            tunnel.entrances.push(entrance);
        }
        Ok(tunnel)
    }

    /// The datacenter that the database says is near.
    pub fn local_dc(&self) -> Option<String> {
        self.shared.known().local_dc
    }

    /// Why the last connection failed, if the last one did.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn door(&self, node: Uuid) -> Result<SocketAddr> {
        let mut doors = self.doors.lock().await;
        if let Some(door) = doors.get(&node) {
            return Ok(*door);
        }
        let door = self.listen(Way::Node(node)).await?;
        tracing::debug!(%node, %door, "a way to a node");
        doors.insert(node, door);
        if !self.shared.known().nodes.contains(&node) {
            let shared = Arc::clone(&self.shared);
            self.listeners.lock().await.spawn(async move { shared.refresh().await });
        }
        Ok(door)
    }

    async fn listen(&self, way: Way) -> Result<SocketAddr> {
        let failed = |error| Error::unavailable("can't listen on 127.0.0.1").because(error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::clone(&self.shared);
        self.listeners.lock().await.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&shared);
                        connections.spawn(async move { shared.pass(stream, way).await });
                    }
                    Err(error) => {
                        // no descriptor is free, or the peer has gone already
                        tracing::debug!(%error, "a connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
        Ok(address)
    }
}

impl Shared {
    fn known(&self) -> Metadata {
        self.metadata.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects, and passes bytes on until either side ends.
    async fn pass(&self, mut near: TcpStream, way: Way) {
        let _ = near.set_nodelay(true);
        let failure = match self.connect(way).await {
            Ok(mut far) => {
                match copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER_BYTES, BUFFER_BYTES).await {
                    Ok((_, received)) if received > 0 => None,
                    // a proxy may greet us before it finds that the node behind it is gone
                    Ok(_) => Some("the proxy of Astra ended a connection without an answer".to_owned()),
                    Err(error) => Some(format!("a connection through Astra's proxy broke: {error}")),
                }
            }
            Err(error) => Some(error.to_string()),
        };
        drop(near);
        let is_failed = failure.is_some();
        if let Some(error) = &failure {
            tracing::debug!(?way, %error, "a connection failed");
        }
        *self.failure.write().unwrap_or_else(PoisonError::into_inner) = failure;
        if is_failed {
            self.refresh().await;
        }
    }

    async fn connect(&self, way: Way) -> Result<TlsStream<TcpStream>> {
        let metadata = self.known();
        let first = match way {
            Way::Node(node) => return self.connect_to(node, &metadata.proxy).await,
            Way::Any(first) => first,
        };
        let mut failure = None;
        for at in 0..metadata.nodes.len() {
            let node = metadata.nodes[(first + at) % metadata.nodes.len()];
            match self.connect_to(node, &metadata.proxy).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::unavailable("the metadata service of Astra names no node")))
    }

    async fn connect_to(&self, node: Uuid, proxy: &str) -> Result<TlsStream<TcpStream>> {
        let what = || format!("can't reach node {node} through Astra's proxy at {proxy}");
        let late = || Error::unavailable(format!("{}: no answer in {} s", what(), CONNECT_TIMEOUT.as_secs()));
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(proxy)).await.map_err(|_| late())?;
        let stream = stream.map_err(|error| Error::unavailable(what()).because(error))?;
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(node.to_string())
            .map_err(|error| Error::bug("a host id is no name of a host").because(error))?;
        let handshake =
            timeout(CONNECT_TIMEOUT, self.connector.connect(name, stream)).await.map_err(|_| late())?;
        handshake.map_err(|error| explain(&error, &self.host, what()))
    }

    /// Asks for the nodes again, unless somebody just has.
    async fn refresh(&self) {
        let Ok(mut asked) = self.asked.try_lock() else { return };
        if asked.elapsed() < REFRESH_PAUSE {
            return;
        }
        match self.service.fetch().await {
            Ok(metadata) => {
                let mut known = self.metadata.write().unwrap_or_else(PoisonError::into_inner);
                if *known != metadata {
                    tracing::debug!(?metadata, "the database's nodes changed");
                    *known = metadata;
                }
            }
            Err(error) => tracing::debug!(%error, "the database's nodes are not known anew"),
        }
        *asked = Instant::now();
    }
}

#[async_trait]
impl AddressTranslator for Tunnel {
    async fn translate_address(
        &self,
        peer: &UntranslatedPeer,
    ) -> std::result::Result<SocketAddr, TranslationError> {
        self.door(peer.host_id())
            .await
            .map_err(|error| TranslationError::IoError(Arc::new(std::io::Error::other(error.to_string()))))
    }
}
