//! Sends events: appended to a file, a line each, and to a server, a request each.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::Settings;
use crate::notify::beside::Beside;
use crate::notify::http::{Client, Refused};
use crate::store::cassandra::connect::Secret;
use crate::telemetry::counted;

/// A file that can't be written within this time (a share that is away, a pipe that nobody reads) is not written any more.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// The task that sends.
pub struct Transport(Beside<Vec<Value>>);

impl Transport {
    pub fn start(settings: Settings) -> Transport {
        Transport(Beside::start("openlineage events", |mut waiting: mpsc::Receiver<Vec<Value>>| async move {
            let mut worker = Worker { settings, client: None };
            while let Some(events) = waiting.recv().await {
                worker.append(&events).await;
                worker.post(&events).await;
            }
        }))
    }

    pub fn send(&self, events: Vec<Value>) {
        if !events.is_empty() {
            self.0.hand_over(events);
        }
    }

    /// Waits until everything is sent, but no longer than `wait`.
    pub async fn close(self, wait: Duration) {
        if !self.0.close(wait).await {
            tracing::warn!("openlineage events were not delivered within {} s", wait.as_secs());
        }
    }
}

struct Worker {
    settings: Settings,
    client: Option<Client>,
}

impl Worker {
    async fn append(&mut self, events: &[Value]) {
        let Some(path) = self.settings.file.clone() else {
            return;
        };
        let shown = path.display().to_string();
        let text: String = events.iter().map(|event| format!("{event}\n")).collect();
        let writing = tokio::task::spawn_blocking(move || append(&path, &text));
        let why = match tokio::time::timeout(FILE_TIMEOUT, writing).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                self.settings.file = None;
                format!("it takes longer than {} s, and is not tried again", FILE_TIMEOUT.as_secs())
            }
        };
        tracing::warn!("openlineage events can't be appended to `{shown}`: {why}");
    }

    async fn post(&mut self, events: &[Value]) {
        let Some(url) = &self.settings.url else {
            return;
        };
        if self.client.is_none() {
            match Client::new() {
                Ok(made) => self.client = Some(made),
                Err(error) => tracing::warn!(%error, "no openlineage event can be sent"),
            }
        }
        let Some(client) = &self.client else {
            return;
        };
        let bearer = self.settings.api_key.as_ref().map(Secret::reveal);
        let mut refused: Option<Refused> = None;
        let mut num_left = 0;
        for event in events {
            if refused.as_ref().is_none_or(|refused| !refused.is_of_all) {
                match client.post(url, &event.to_string(), bearer).await {
                    Ok(()) => continue,
                    Err(error) => refused = Some(error),
                }
            }
            num_left += 1;
        }
        if let Some(refused) = refused {
            let events = counted(num_left, "openlineage event");
            tracing::warn!("{events} could not be delivered: {}", refused.why);
        }
    }
}

/// In one call, so that lines of several processes hardly ever mix.
fn append(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}
