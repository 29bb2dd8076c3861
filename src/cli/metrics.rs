//! `GET /metrics`, and nothing else: a few lines of HTTP for a scraper that is trusted with the port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::error::{Error, Result};
use crate::trigger::meter::Meter;

/// A longer request is not one of ours.
const MAX_REQUEST_BYTES: usize = 8 * 1024;

/// A client that does not ask within this time is let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves the meter until the process ends; returns the address that was bound.
///
/// # Errors
/// `Unavailable` where the address can't be had.
pub async fn serve(address: SocketAddr, meter: Arc<Meter>) -> Result<SocketAddr> {
    let failed = |error: std::io::Error| {
        Error::unavailable(format!("can't serve metrics at `{address}`; choose another with `--metrics`"))
            .because(error)
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((client, _)) => {
                    let meter = Arc::clone(&meter);
                    tokio::spawn(async move {
                        let answered = tokio::time::timeout(PATIENCE, answer(client, &meter)).await;
                        tracing::trace!(?answered, "metrics were asked for");
                    });
                }
                // out of descriptors, most likely: they come back
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(bound)
}

async fn answer(mut client: TcpStream, meter: &Meter) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST_BYTES {
        let size = client.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..size]);
    }
    let mut words = request.split(|byte| byte.is_ascii_whitespace());
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        (b"GET", b"/metrics") => ("200 OK", meter.prometheus()),
        (b"GET", b"/") => ("200 OK", "medallion stream; metrics are at /metrics\n".to_owned()),
        (b"GET", _) => ("404 Not Found", "metrics are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    client.shutdown().await
}
