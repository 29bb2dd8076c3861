//! Sends alerts beside the work: a task that takes observations, compares them with what each destination was told, and
//! tells what is new.
//!
//! Told first, remembered then: a process that dies in between tells twice, and nothing is lost. What could not be delivered
//! is not remembered, so the next observation tells it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use url::Url;

use super::alert::{About, Alert, Condition, Observation, State, now};
use super::http::{Client, SecretUrl};
use super::memory::{Memory, Remembered};
use super::payload;
use crate::error::Result;
use crate::project::alerts::{AlertForm, AlertKind, AlertManifest};

/// Somebody who is told, and where.
#[derive(Debug)]
pub struct Destination {
    pub title: String,
    form: AlertForm,
    on: BTreeSet<AlertKind>,
    rows: usize,
    /// Or why there is none.
    url: std::result::Result<SecretUrl, String>,
    /// What it was told, as far as the lake could not be asked.
    open: BTreeMap<String, Remembered>,
}

/// What became of a message.
#[derive(Debug)]
pub struct Delivery {
    pub to: String,
    pub failure: Option<String>,
}

/// The destinations of a project in `folder`.
pub fn destinations(folder: &Path, declared: &[AlertManifest]) -> Vec<Destination> {
    let of = |alert: &AlertManifest| Destination {
        title: alert.title(),
        form: alert.kind,
        on: alert.on.clone(),
        rows: alert.rows,
        url: url_of(folder, alert),
        open: BTreeMap::new(),
    };
    declared.iter().map(of).collect()
}

fn url_of(folder: &Path, alert: &AlertManifest) -> std::result::Result<SecretUrl, String> {
    match (&alert.url_env, &alert.url_file) {
        (Some(variable), _) => match std::env::var(variable) {
            Ok(text) if !text.trim().is_empty() => {
                SecretUrl::parse(&text).map_err(|why| format!("the variable `{variable}` {why}"))
            }
            _ => Err(format!("the variable `{variable}` is not set")),
        },
        (_, Some(file)) => {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("`{}` can't be read ({error})", path.display()))?;
            SecretUrl::parse(&text).map_err(|why| format!("`{}` {why}", path.display()))
        }
        _ => Err("neither `url_env` nor `url_file` is given".to_owned()),
    }
}

impl Destination {
    pub fn wants(&self, kind: AlertKind) -> bool {
        self.on.contains(&kind)
            || (matches!(kind, AlertKind::Check | AlertKind::Balance)
                && self.on.contains(&AlertKind::Failure))
    }

    /// Why nothing can be sent there, if so.
    pub fn why_off(&self) -> Option<String> {
        let why = self.url.as_ref().err()?;
        Some(format!("alerts to {} are off: {why}", self.title))
    }

    async fn post(&self, client: &Client, body: &serde_json::Value) -> std::result::Result<(), String> {
        let url = self.url.as_ref().map_err(Clone::clone)?;
        client.post(url, &body.to_string(), None).await
    }

    /// Tells what is new; whether everything was delivered.
    async fn tell(
        &mut self,
        client: &Client,
        about: &About,
        memory: Option<&Memory>,
        observed: &Observation,
    ) {
        if self.url.is_err() {
            return;
        }
        if let Some(memory) = memory {
            match memory.of(&self.title).await {
                Ok(open) => self.open = open,
                Err(error) => tracing::warn!("{error}; an alert may be told twice"),
            }
        }
        let alerts = self.news(observed);
        let messages: Vec<(serde_json::Value, Vec<&Alert>)> = match self.form {
            _ if alerts.is_empty() => Vec::new(),
            AlertForm::Slack => {
                let all: Vec<&Alert> = alerts.iter().collect();
                vec![(payload::slack(&all, about, self.rows), all)]
            }
            AlertForm::Webhook => {
                alerts.iter().map(|alert| (alert.to_json(about, self.rows), vec![alert])).collect()
            }
        };
        let mut failure = None;
        let mut undelivered: Vec<&str> = Vec::new();
        for (body, told) in &messages {
            // one that does not take the first message would not take the next
            if failure.is_none() {
                failure = self.post(client, body).await.err();
            }
            match failure {
                None => self.note(memory, told).await,
                Some(_) => undelivered.extend(told.iter().map(|alert| alert.condition.key.as_str())),
            }
        }
        if let Some(why) = failure {
            tracing::warn!(
                "{} alerts to {} were not delivered ({}): {why}; what still holds is told the next time",
                undelivered.len(),
                self.title,
                undelivered.join(", ")
            );
        }
        self.forget_gone(memory, observed).await;
    }

    /// What begins, ends or happens.
    fn news(&self, observed: &Observation) -> Vec<Alert> {
        let time = now();
        let alert = |state: State, condition: &Condition, since: &str| Alert {
            state,
            condition: condition.clone(),
            since: since.to_owned(),
            time: time.clone(),
            run_id: observed.run_id,
            command: observed.command.clone(),
        };
        let conditions = observed.conditions.iter();
        conditions
            .filter_map(|condition| match self.open.get(&condition.key) {
                None if !condition.is_of(&self.on) => None,
                _ if condition.is_event => condition.is_bad.then(|| alert(State::Notice, condition, &time)),
                None => condition.is_bad.then(|| alert(State::Firing, condition, &time)),
                Some(open) => (!condition.is_bad).then(|| alert(State::Resolved, condition, &open.since)),
            })
            .collect()
    }

    async fn note(&mut self, memory: Option<&Memory>, told: &[&Alert]) {
        for alert in told {
            let key = &alert.condition.key;
            let noted = match alert.state {
                State::Notice => Ok(()),
                State::Firing => {
                    let open = Remembered {
                        key: key.clone(),
                        to: self.title.clone(),
                        since: alert.since.clone(),
                        title: alert.condition.title.clone(),
                    };
                    self.open.insert(key.clone(), open.clone());
                    match memory {
                        Some(memory) => memory.remember(&open).await,
                        None => Ok(()),
                    }
                }
                State::Resolved => self.forget(memory, key).await,
            };
            if let Err(error) = noted {
                tracing::warn!("{error}; the alert `{key}` may be told again");
            }
        }
    }

    async fn forget(&mut self, memory: Option<&Memory>, key: &str) -> Result<()> {
        self.open.remove(key);
        match memory {
            Some(memory) => memory.forget(&self.title, key).await,
            None => Ok(()),
        }
    }

    /// Checks and objectives that the project no longer has.
    async fn forget_gone(&mut self, memory: Option<&Memory>, observed: &Observation) {
        let is_gone = |key: &&String| {
            observed.known.iter().any(|(prefix, known)| key.starts_with(prefix) && !known.contains(*key))
        };
        let gone: Vec<String> = self.open.keys().filter(is_gone).cloned().collect();
        for key in gone {
            if let Err(error) = self.forget(memory, &key).await {
                tracing::warn!(%error, "the alert `{key}` stays open");
            }
        }
    }
}

/// The task that sends.
pub struct Sender {
    observations: mpsc::UnboundedSender<Observation>,
    done: oneshot::Receiver<()>,
}

impl Sender {
    pub fn start(destinations: Vec<Destination>, about: About, lake: Option<Url>) -> Sender {
        let (observations, mut waiting) = mpsc::unbounded_channel::<Observation>();
        let (finished, done) = oneshot::channel();
        tokio::spawn(async move {
            let mut worker = Worker { destinations, about, lake, client: None, memory: None };
            while let Some(observed) = waiting.recv().await {
                worker.tell(&observed).await;
            }
            let _ = finished.send(());
        });
        Sender { observations, done }
    }

    pub fn send(&self, observation: Observation) {
        // the task ends after the channel
        let _ = self.observations.send(observation);
    }

    /// Waits until everything is told, but no longer than `wait`.
    pub async fn close(self, wait: Duration) {
        drop(self.observations);
        if tokio::time::timeout(wait, self.done).await.is_err() {
            tracing::warn!(
                "alerts were not delivered within {} s; what still holds is told the next time",
                wait.as_secs()
            );
        }
    }
}

struct Worker {
    destinations: Vec<Destination>,
    about: About,
    lake: Option<Url>,
    client: Option<Client>,
    memory: Option<Memory>,
}

impl Worker {
    async fn tell(&mut self, observed: &Observation) {
        if self.memory.is_none() {
            // before the first run there is no lake to remember in
            self.memory = self.lake.as_ref().and_then(|lake| Memory::open(lake).ok());
        }
        if self.client.is_none() {
            match Client::new() {
                Ok(client) => self.client = Some(client),
                Err(error) => tracing::warn!(%error, "no alert can be sent"),
            }
        }
        let Some(client) = &self.client else {
            return;
        };
        let (about, memory) = (&self.about, self.memory.as_ref());
        let telling = self.destinations.iter_mut().map(|to| to.tell(client, about, memory, observed));
        join_all(telling).await;
    }
}

/// Sends a test message to every destination, or to the one of that name.
///
/// # Errors
/// `Bug` where TLS can't be set up.
pub async fn test(destinations: &[Destination], about: &About) -> Result<Vec<Delivery>> {
    let client = Client::new()?;
    let time = now();
    let alert = Alert {
        state: State::Notice,
        condition: Condition {
            kind: AlertKind::Anomaly,
            key: "test".to_owned(),
            is_bad: true,
            is_event: true,
            title: "this is a test; nothing is wrong".to_owned(),
            details: json!({"test": true}),
            rows: Vec::new(),
        },
        since: time.clone(),
        time,
        run_id: None,
        command: "alerts test".to_owned(),
    };
    let sending = destinations.iter().map(async |to: &Destination| {
        let body = match to.form {
            AlertForm::Slack => payload::slack(&[&alert], about, 0),
            AlertForm::Webhook => alert.to_json(about, 0),
        };
        Delivery { to: to.title.clone(), failure: to.post(&client, &body).await.err() }
    });
    Ok(join_all(sending).await)
}
