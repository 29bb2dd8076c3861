//! Somebody who is told: a small HTTP server that keeps what it is sent and answers as it is asked to.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::authority::Identity;
use crate::support::pause;

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    Status(u16),
    /// Sends the sender elsewhere.
    Redirect,
    /// Takes the request and never answers.
    Silence,
}

/// A request that was sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    answers: VecDeque<Answer>,
    then: Option<Answer>,
}

/// A server on a port of its own, until the test process ends.
pub struct Receiver {
    pub address: String,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    pub fn start() -> Receiver {
        Self::serve("http", |client| Box::new(client))
    }

    /// One that shows this certificate.
    pub fn with_tls(identity: &Identity) -> Receiver {
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let config = Arc::new(config);
        Self::serve("https", move |client| {
            Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), client))
        })
    }

    fn serve(
        scheme: &'static str,
        open: impl Fn(TcpStream) -> Box<dyn Connection> + Send + Sync + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, open) = (Arc::clone(&state), Arc::new(open));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (shared, open) = (Arc::clone(&shared), Arc::clone(&open));
                // a client that does not trust us hangs up
                std::thread::spawn(move || {
                    let _ = answer(open(client.unwrap()), &shared);
                });
            }
        });
        Receiver { address, scheme, state }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// The next requests are answered so, those after them with `then`.
    pub fn answer(&self, answers: &[Answer], then: Answer) {
        let mut state = self.state.lock().unwrap();
        state.answers = answers.iter().copied().collect();
        state.then = Some(then);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// What was sent since it was asked last.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Waits until something was sent that the test waits for.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_there: impl Fn(&[Request]) -> bool) -> Vec<Request> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(90) {
            let requests = self.requests();
            if is_there(&requests) {
                return requests;
            }
            pause(Duration::from_millis(20));
        }
        let bodies: Vec<String> = self
            .requests()
            .iter()
            .map(|request| String::from_utf8_lossy(&request.body).into_owned())
            .collect();
        panic!("{what} was not sent, but:\n{}", bodies.join("\n"));
    }
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

fn answer(mut client: Box<dyn Connection>, state: &Mutex<State>) -> std::io::Result<()> {
    let mut pending = Vec::new();
    loop {
        let Some(request) = read(&mut client, &mut pending)? else {
            return Ok(());
        };
        let fate = {
            let mut state = state.lock().unwrap();
            state.requests.push(request);
            state.answers.pop_front().or(state.then).unwrap_or(Answer::Status(200))
        };
        match fate {
            Answer::Status(status) => {
                write!(client, "HTTP/1.1 {status} So\r\nContent-Length: 2\r\n\r\nok")?;
            }
            Answer::Redirect => {
                write!(
                    client,
                    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/stolen\r\nContent-Length: 0\r\n\r\n"
                )?;
            }
            Answer::Silence => pause(Duration::from_secs(600)),
        }
        client.flush()?;
    }
}

/// One request; `None` where the client has gone.
fn read(client: &mut dyn Read, pending: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
    let mut buffer = [0; 16 * 1024];
    let mut head = None;
    loop {
        if head.is_none() {
            head = pending.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        }
        if let Some(start) = head {
            let text = String::from_utf8_lossy(&pending[..start]).into_owned();
            let mut lines = text.lines();
            let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
                .collect();
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
            if pending.len() >= start + length {
                let body = pending[start..start + length].to_vec();
                pending.drain(..start + length);
                return Ok(Some(Request { path, headers, body }));
            }
        }
        let size = client.read(&mut buffer)?;
        if size == 0 {
            return Ok(None);
        }
        pending.extend_from_slice(&buffer[..size]);
    }
}
