//! Whether two sides refuse each other's certificates.
//!
//! In TLS 1.3 a client may speak before the other side has looked at its certificate (RFC 8446, section 2). A node that
//! does not want it says so and hangs up, and the driver, in the middle of its first words, sees a broken pipe and not
//! the reason. Here nothing is said, so the reason can be read.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A node that has nothing against us is silent: it waits for our first words.
const SILENCE: Duration = Duration::from_secs(5);

/// Why one of `hosts` (`host:port`) and we don't trust each other; `None` where that is not the trouble.
pub async fn distrust(hosts: &[String], config: &Arc<rustls::ClientConfig>) -> Option<rustls::Error> {
    for host in hosts {
        if let Some(error) = distrust_of(host, None, config).await {
            return Some(error);
        }
    }
    None
}

/// The same of one place, whose certificate must bear `name`, or else the address that is connected to.
pub async fn distrust_of(
    host: &str,
    name: Option<&str>,
    config: &Arc<rustls::ClientConfig>,
) -> Option<rustls::Error> {
    let error = timeout(SILENCE, greet(host, name, config)).await.ok()?.err()?;
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let is_distrust = matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_));
    is_distrust.then(|| error.clone())
}

/// Shakes hands and listens.
async fn greet(host: &str, name: Option<&str>, config: &Arc<rustls::ClientConfig>) -> std::io::Result<()> {
    let stream = TcpStream::connect(host).await?;
    let name = match name {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?,
        // what the driver checks, too
        None => ServerName::IpAddress(stream.peer_addr()?.ip().into()),
    };
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    stream.read_u8().await.map(drop)
}
