//! Sends events: appended to a file, a line each, and to a server, a request each.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::Settings;
use crate::notify::http::Client;

/// The task that sends.
pub struct Transport {
    events: mpsc::UnboundedSender<Vec<Value>>,
    done: oneshot::Receiver<()>,
}

impl Transport {
    pub fn start(settings: Settings) -> Transport {
        let (events, mut waiting) = mpsc::unbounded_channel::<Vec<Value>>();
        let (finished, done) = oneshot::channel();
        tokio::spawn(async move {
            let mut client = None;
            while let Some(events) = waiting.recv().await {
                deliver(&settings, &mut client, &events).await;
            }
            let _ = finished.send(());
        });
        Transport { events, done }
    }

    pub fn send(&self, events: Vec<Value>) {
        if !events.is_empty() {
            // the task ends after the channel
            let _ = self.events.send(events);
        }
    }

    /// Waits until everything is sent, but no longer than `wait`.
    pub async fn close(self, wait: Duration) {
        drop(self.events);
        if tokio::time::timeout(wait, self.done).await.is_err() {
            tracing::warn!("openlineage events were not delivered within {} s", wait.as_secs());
        }
    }
}

async fn deliver(settings: &Settings, client: &mut Option<Client>, events: &[Value]) {
    if let Some(file) = &settings.file
        && let Err(error) = append(file, events)
    {
        tracing::warn!("openlineage events can't be appended to `{}`: {error}", file.display());
    }
    let Some(url) = &settings.url else {
        return;
    };
    if client.is_none() {
        match Client::new() {
            Ok(made) => *client = Some(made),
            Err(error) => tracing::warn!(%error, "no openlineage event can be sent"),
        }
    }
    let Some(client) = client else {
        return;
    };
    for (at, event) in events.iter().enumerate() {
        if let Err(why) = client.post(url, &event.to_string(), settings.api_key.as_deref()).await {
            // a server that does not take one would not take the next
            let left = events.len() - at;
            tracing::warn!("{left} openlineage events were not delivered: {why}");
            return;
        }
    }
}

/// In one write, so that lines of several processes do not mix.
fn append(path: &Path, events: &[Value]) -> std::io::Result<()> {
    let text: String = events.iter().map(|event| format!("{event}\n")).collect();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}
