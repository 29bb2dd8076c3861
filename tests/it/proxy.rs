//! A proxy between a client and one Cassandra node that understands the frames of CQL's native protocol: it can answer
//! chosen requests with an error in the node's place, hold them back, or lose them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::cassandra::runtime;

/// Kinds of requests, as the protocol numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Startup,
    Query,
    Prepare,
    Execute,
    Batch,
    Other(u8),
}

/// What a client asks.
pub struct Request {
    pub kind: Kind,
    /// The frame without its header.
    pub body: Vec<u8>,
}

impl Request {
    /// Whether the bytes of this text stand in it: the statement of a `Query` or `Prepare`, a bound text of the others.
    pub fn contains(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// The identity of the (first) prepared statement.
    fn prepared(&self) -> Option<Vec<u8>> {
        let at = match self.kind {
            Kind::Execute => 0,
            // its type, how many statements, and the first one's kind, which is 1 for a prepared one
            Kind::Batch if self.body.get(3) == Some(&1) => 4,
            _ => return None,
        };
        let length = usize::from(u16::from_be_bytes([*self.body.get(at)?, *self.body.get(at + 1)?]));
        self.body.get(at + 2..at + 2 + length).map(<[u8]>::to_vec)
    }
}

/// What becomes of a request.
pub enum Fate {
    Pass,
    /// The node gets it later.
    Delay(Duration),
    /// The node does not get it, the client is told this.
    Refuse(Refusal),
    /// The node gets it, and the client is told this in place of the node's answer.
    Deny(Refusal),
    /// Nobody answers.
    Lose,
    /// The connection ends.
    Disconnect,
}

/// An error of the protocol.
#[derive(Clone, Copy)]
pub enum Refusal {
    Unavailable,
    Overloaded,
    Bootstrapping,
    WriteTimeout,
    ReadTimeout,
    /// The node has forgotten the statement.
    Unprepared,
    /// What Astra says where a plan's rate is used up.
    RateLimited,
}

impl Refusal {
    fn body(self, request: &Request) -> Vec<u8> {
        const LOCAL_QUORUM: u16 = 6;
        let (code, message): (i32, &str) = match self {
            Refusal::Unavailable => (0x1000, "Cannot achieve consistency level LOCAL_QUORUM"),
            Refusal::Overloaded => (0x1001, "Server is in overloaded state"),
            Refusal::RateLimited => (0x1001, "Rate limit reached"),
            Refusal::Bootstrapping => (0x1002, "Cannot read from a bootstrapping node"),
            Refusal::WriteTimeout => (0x1100, "Operation timed out - received only 1 responses."),
            Refusal::ReadTimeout => (0x1200, "Operation timed out - received only 1 responses."),
            Refusal::Unprepared => (0x2500, "Prepared query not found"),
        };
        let mut body = code.to_be_bytes().to_vec();
        let text = |body: &mut Vec<u8>, text: &[u8]| {
            body.extend((text.len() as u16).to_be_bytes());
            body.extend(text);
        };
        text(&mut body, message.as_bytes());
        match self {
            Refusal::Overloaded | Refusal::RateLimited | Refusal::Bootstrapping => {}
            Refusal::Unprepared => text(&mut body, &request.prepared().unwrap_or_default()),
            Refusal::Unavailable | Refusal::WriteTimeout | Refusal::ReadTimeout => {
                body.extend(LOCAL_QUORUM.to_be_bytes());
                let (first, second): (i32, i32) = match self {
                    Refusal::Unavailable => (2, 1), // needed, alive
                    _ => (1, 2),                    // received, needed
                };
                body.extend(first.to_be_bytes());
                body.extend(second.to_be_bytes());
                match self {
                    Refusal::WriteTimeout if request.kind == Kind::Batch => {
                        text(&mut body, b"UNLOGGED_BATCH")
                    }
                    Refusal::WriteTimeout => text(&mut body, b"SIMPLE"),
                    Refusal::ReadTimeout => body.push(0),
                    _ => {}
                }
            }
        }
        body
    }
}

type Rule = dyn Fn(&Request) -> Fate + Send + Sync;

/// A running proxy; it and its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before `node` (`ADDRESS:PORT`), on another port of its address: drivers go by the address that a node says
    /// it has, and the port that they know. `rule` decides about every request of every connection.
    pub fn before(node: String, rule: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> Proxy {
        let rule: Arc<Rule> = Arc::new(rule);
        runtime().block_on(async {
            let (host, _) = node.split_once(':').unwrap();
            let listener = TcpListener::bind((host, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let task = tokio::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    let (node, rule) = (node.clone(), rule.clone());
                    connections.spawn(async move {
                        let _ = connection(client, &node, rule).await;
                    });
                }
            });
            Proxy { address, task }
        })
    }

    /// `ADDRESS:PORT` to connect to.
    pub fn contact(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Frame {
    header: [u8; 9],
    body: Vec<u8>,
}

impl Frame {
    async fn read(from: &mut OwnedReadHalf) -> io::Result<Frame> {
        let mut header = [0; 9];
        from.read_exact(&mut header).await?;
        let mut body = vec![0; u32::from_be_bytes([header[5], header[6], header[7], header[8]]) as usize];
        from.read_exact(&mut body).await?;
        Ok(Frame { header, body })
    }

    async fn write(&self, to: &Mutex<OwnedWriteHalf>) -> io::Result<()> {
        let bytes = [&self.header[..], &self.body].concat();
        to.lock().await.write_all(&bytes).await
    }

    fn stream(&self) -> [u8; 2] {
        [self.header[2], self.header[3]]
    }

    /// The answer `ERROR` to the frame of a request.
    fn error(to: &Frame, body: Vec<u8>) -> Frame {
        let [high, low] = to.stream();
        let mut header = [0x80 | to.header[0], 0, high, low, 0, 0, 0, 0, 0];
        header[5..].copy_from_slice(&(body.len() as u32).to_be_bytes());
        Frame { header, body }
    }
}

async fn connection(client: TcpStream, node: &str, rule: Arc<Rule>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect(node).await?;
    server.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let (to_client, to_server) = (Arc::new(Mutex::new(to_client)), Arc::new(Mutex::new(to_server)));
    // answers of the node that the client gets otherwise, by stream
    let denied: Mutex<Vec<([u8; 2], Frame)>> = Mutex::default();

    let answers = async {
        loop {
            let mut frame = Frame::read(&mut from_server).await?;
            let mut denied = denied.lock().await;
            if let Some(at) = denied.iter().position(|(stream, _)| *stream == frame.stream()) {
                frame = denied.swap_remove(at).1;
            }
            drop(denied);
            frame.write(&to_client).await?;
        }
    };
    let requests = async {
        loop {
            let frame = Frame::read(&mut from_client).await?;
            let kind = match frame.header[4] {
                0x01 => Kind::Startup,
                0x07 => Kind::Query,
                0x09 => Kind::Prepare,
                0x0A => Kind::Execute,
                0x0D => Kind::Batch,
                other => Kind::Other(other),
            };
            let request = Request { kind, body: frame.body.clone() };
            match rule(&request) {
                Fate::Pass => frame.write(&to_server).await?,
                Fate::Delay(time) => {
                    let to_server = to_server.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        let _ = frame.write(&to_server).await;
                    });
                }
                Fate::Refuse(refusal) => {
                    Frame::error(&frame, refusal.body(&request)).write(&to_client).await?;
                }
                Fate::Deny(refusal) => {
                    let answer = Frame::error(&frame, refusal.body(&request));
                    denied.lock().await.push((frame.stream(), answer));
                    frame.write(&to_server).await?;
                }
                Fate::Lose => {}
                Fate::Disconnect => return Ok(()),
            }
        }
    };
    // either side's end is the end
    tokio::select! {
        ended = answers => ended,
        ended = requests => ended,
    }
}
