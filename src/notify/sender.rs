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
use tokio::sync::mpsc;
use url::Url;

use super::alert::{About, Alert, Condition, Observation, State, now};
use super::beside::Beside;
use super::http::{Client, Refused, SecretUrl};
use super::memory::{Memory, Remembered};
use super::payload;
use crate::error::Result;
use crate::project::alerts::{AlertForm, AlertKind, AlertManifest};
use crate::telemetry::counted;

/// Somebody who is told, and where.
#[derive(Debug)]
pub struct Destination {
    pub title: String,
    form: AlertForm,
    on: BTreeSet<AlertKind>,
    rows: usize,
    /// Or why there is none.
    url: std::result::Result<SecretUrl, String>,
    /// What it was told and is open.
    open: BTreeMap<String, Remembered>,
    /// What of that the lake could not be told: what is open, and (`None`) what is over.
    unsaved: BTreeMap<String, Option<Remembered>>,
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
        unsaved: BTreeMap::new(),
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
        kind.is_among(&self.on)
    }

    /// Why nothing can be sent there, if so.
    pub fn why_off(&self) -> Option<String> {
        let why = self.url.as_ref().err()?;
        Some(format!("alerts to {} are off: {why}", self.title))
    }

    async fn post(&self, client: &Client, body: &serde_json::Value) -> std::result::Result<(), Refused> {
        let url = self.url.as_ref().map_err(|why| Refused::always(why.clone()))?;
        client.post(url, &body.to_string(), None).await
    }

    /// Tells what is new.
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
            self.recall(memory).await;
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
        let mut refused: Option<Refused> = None;
        let mut undelivered: Vec<&str> = Vec::new();
        for (body, told) in &messages {
            if refused.as_ref().is_none_or(|refused| !refused.is_of_all) {
                match self.post(client, body).await {
                    Ok(()) => {
                        self.note(memory, told).await;
                        continue;
                    }
                    Err(error) => refused = Some(error),
                }
            }
            undelivered.extend(told.iter().map(|alert| alert.condition.key.as_str()));
        }
        if let Some(refused) = refused {
            tracing::warn!(
                "{} to {} could not be delivered ({}): {}; what still holds is told the next time",
                counted(undelivered.len(), "alert"),
                self.title,
                undelivered.join(", "),
                refused.why
            );
        }
        self.forget_gone(memory, observed).await;
    }

    /// What the lake says is open, and what it could not be told: that counts all the same.
    async fn recall(&mut self, memory: &Memory) {
        match memory.of(&self.title).await {
            Ok(open) => self.open = open,
            Err(error) => {
                tracing::warn!("{error}; an alert may be told twice");
                return;
            }
        }
        let mut may_save = true;
        for (key, open) in std::mem::take(&mut self.unsaved) {
            let memory = may_save.then_some(memory);
            may_save &= self.keep(memory, &key, open).await.is_ok();
        }
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
                None if !condition.kind.is_among(&self.on) => None,
                _ if condition.is_event => condition.is_bad.then(|| alert(State::Notice, condition, &time)),
                None => condition.is_bad.then(|| alert(State::Firing, condition, &time)),
                Some(open) => (!condition.is_bad).then(|| alert(State::Resolved, condition, &open.since)),
            })
            .collect()
    }

    async fn note(&mut self, memory: Option<&Memory>, told: &[&Alert]) {
        for alert in told {
            let key = &alert.condition.key;
            let open = match alert.state {
                State::Notice => continue,
                State::Resolved => None,
                State::Firing => Some(Remembered {
                    key: key.clone(),
                    to: self.title.clone(),
                    since: alert.since.clone(),
                    title: alert.condition.title.clone(),
                }),
            };
            if let Err(error) = self.keep(memory, key, open).await {
                tracing::warn!("{error}; the alert `{key}` may be told again");
            }
        }
    }

    /// Remembers what is open, or (`None`) that it is over: here, and where it can be in the lake.
    async fn keep(&mut self, memory: Option<&Memory>, key: &str, open: Option<Remembered>) -> Result<()> {
        let saved = match (memory, &open) {
            (None, _) => Ok(()),
            (Some(memory), Some(open)) => memory.remember(open).await,
            (Some(memory), None) => memory.forget(&self.title, key).await,
        };
        match &open {
            Some(open) => drop(self.open.insert(key.to_owned(), open.clone())),
            None => drop(self.open.remove(key)),
        }
        match memory.is_some() && saved.is_ok() {
            true => drop(self.unsaved.remove(key)),
            false => drop(self.unsaved.insert(key.to_owned(), open)),
        }
        saved
    }

    /// Checks and objectives that the project no longer has.
    async fn forget_gone(&mut self, memory: Option<&Memory>, observed: &Observation) {
        let is_gone = |key: &&String| {
            observed.known.iter().any(|(prefix, known)| key.starts_with(prefix) && !known.contains(*key))
        };
        let gone: Vec<String> = self.open.keys().filter(is_gone).cloned().collect();
        for key in gone {
            if let Err(error) = self.keep(memory, &key, None).await {
                tracing::warn!(%error, "the alert `{key}` stays open");
            }
        }
    }
}

/// What waits, without what a later observation says anew: where many wait, they are told as one. Only what happens is told
/// each time.
fn merged(waiting: Vec<Observation>) -> Vec<Observation> {
    let mut keys: BTreeSet<String> = BTreeSet::new();
    let mut prefixes: BTreeSet<&'static str> = BTreeSet::new();
    let mut left = Vec::new();
    for mut observed in waiting.into_iter().rev() {
        observed.conditions.retain(|condition| condition.is_event || !keys.contains(&condition.key));
        observed.known.retain(|prefix, _| !prefixes.contains(prefix));
        let lasting = observed.conditions.iter().filter(|condition| !condition.is_event);
        keys.extend(lasting.map(|condition| condition.key.clone()));
        prefixes.extend(observed.known.keys().copied());
        if !observed.is_empty() {
            left.push(observed);
        }
    }
    left.reverse();
    left
}

/// The task that sends.
pub struct Sender(Beside<Observation>);

impl Sender {
    pub fn start(destinations: Vec<Destination>, about: About, lake: Option<Url>) -> Sender {
        Sender(Beside::start("alerts", |mut waiting: mpsc::Receiver<Observation>| async move {
            let mut worker = Worker { destinations, about, lake, client: None, memory: None };
            while let Some(first) = waiting.recv().await {
                let mut all = vec![first];
                while let Ok(next) = waiting.try_recv() {
                    all.push(next);
                }
                for observed in merged(all) {
                    worker.tell(&observed).await;
                }
            }
        }))
    }

    pub fn send(&self, observation: Observation) {
        self.0.hand_over(observation);
    }

    /// Waits until everything is told, but no longer than `wait`.
    pub async fn close(self, wait: Duration) {
        if !self.0.close(wait).await {
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
        let refused = to.post(&client, &body).await.err();
        Delivery { to: to.title.clone(), failure: refused.map(|refused| refused.why) }
    });
    Ok(join_all(sending).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::conditions;

    fn destination() -> Destination {
        let declared = AlertManifest { name: Some("team".to_owned()), ..AlertManifest::default() };
        destinations(Path::new("."), &[declared]).remove(0)
    }

    fn open(key: &str) -> Remembered {
        Remembered {
            key: key.to_owned(),
            to: "team".to_owned(),
            since: "2025-08-01T00:00:00Z".to_owned(),
            title: "it is so".to_owned(),
        }
    }

    /// The only file below a folder.
    fn file_below(folder: &Path) -> std::path::PathBuf {
        let entry = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => file_below(&entry.path()),
            false => entry.path(),
        }
    }

    #[tokio::test]
    async fn what_the_lake_could_not_be_told_counts_all_the_same() {
        let lake = tempfile::tempdir().unwrap();
        let memory = Memory::open(&Url::from_directory_path(lake.path()).unwrap()).unwrap();
        let mut to = destination();
        to.keep(Some(&memory), "check:a", Some(open("check:a"))).await.unwrap();
        // a folder where the file is to be: it can be neither written nor deleted
        let file = file_below(lake.path());
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(to.keep(Some(&memory), "check:a", Some(open("check:a"))).await.is_err());
        to.recall(&memory).await;
        assert!(to.open.contains_key("check:a"), "it was told");
        std::fs::remove_dir(&file).unwrap();
        to.recall(&memory).await;
        assert_eq!(memory.all().await.unwrap(), [open("check:a")], "saved as soon as that is possible");
        assert!(to.unsaved.is_empty());

        // over while there was no lake to say so
        to.keep(None, "check:a", None).await.unwrap();
        to.recall(&memory).await;
        assert!(to.open.is_empty() && memory.all().await.unwrap().is_empty());
    }

    #[test]
    fn what_waits_is_told_as_it_is_now() {
        let observed = |conditions: Vec<Condition>| Observation { conditions, ..Observation::default() };
        let fails = crate::error::Error::unavailable("the store is away");
        let waiting = vec![
            observed(vec![conditions::of_command("stream", Some(&fails))]),
            observed(vec![conditions::of_watch("odd", 1, Vec::new())]),
            observed(vec![
                conditions::of_watch("odd", 2, Vec::new()),
                conditions::of_command("publish", None),
            ]),
            observed(vec![conditions::of_command("stream", None)]),
        ];
        let left: Vec<Vec<(String, bool)>> = merged(waiting)
            .iter()
            .map(|observed| observed.conditions.iter().map(|one| (one.key.clone(), one.is_bad)).collect())
            .collect();
        let one = |key: &str, is_bad: bool| (key.to_owned(), is_bad);
        assert_eq!(
            left,
            [
                vec![one("watch:odd", true)],
                vec![one("watch:odd", true), one("failure:publish", false)],
                vec![one("failure:stream", false)]
            ]
        );
    }
}
