//! What is told to others: alerts to people, OpenLineage events to catalogues.
//!
//! Promise: whatever becomes of a message, the command that it is about does the same and ends with the same exit code, at
//! most [`LAST_WAIT`] later. A message that could not be delivered is a warning. URLs are secrets and are shown nowhere.

pub mod alert;
mod beside;
pub mod conditions;
pub mod http;
pub mod memory;
pub mod openlineage;
mod payload;
mod sender;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use url::Url;

use self::alert::{About, Condition, Observation};
use self::openlineage::Emitter;
use self::sender::Sender;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::checks::CheckResult;
use crate::flow::report::Report;
use crate::flow::serving::Publication;
use crate::flow::{Run, gate};
use crate::project::alerts::{AlertKind, Declared};
use crate::store::cassandra::Target;

pub use self::sender::{Delivery, Destination, destinations, test};

/// A command waits so long for its last messages, and meanwhile for its last spans.
pub const LAST_WAIT: Duration = Duration::from_secs(25);

/// One that was told to end waits no longer than this: the process ends soon after.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// What a command tells others. Nothing, and at no cost, where the project declares nobody to be told.
#[derive(Clone, Default)]
pub struct Telling {
    alerts: Option<Arc<Alerts>>,
    lineage: Option<Arc<Emitter>>,
}

/// Where a command works.
#[derive(Debug, Clone)]
pub struct Places {
    /// The project's folder.
    pub project: PathBuf,
    pub lake: Option<Url>,
    pub landing: Option<Url>,
}

struct Alerts {
    command: &'static str,
    kinds: Vec<AlertKind>,
    sender: Mutex<Option<Sender>>,
    /// How the command ends is no news.
    ends_silently: AtomicBool,
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Telling(alerts: {}, openlineage: {})", self.alerts.is_some(), self.lineage.is_some())
    }
}

/// How a command ended.
#[derive(Debug)]
pub enum Ended<'a> {
    /// With this exit code.
    Done(u8),
    Failed(&'a Error),
    /// By a signal: nothing is wrong, and nobody waits.
    Stopped,
}

impl Telling {
    /// Whom the project wants told of this command.
    pub fn open(declared: &Declared, places: Places, command: &'static str) -> Telling {
        Telling {
            alerts: Self::open_alerts(declared, &places, command),
            lineage: Self::open_lineage(declared, places, command),
        }
    }

    fn open_lineage(declared: &Declared, places: Places, command: &'static str) -> Option<Arc<Emitter>> {
        // it moves no data
        if command == "status" {
            return None;
        }
        let settings = openlineage::Settings::of(&places.project, &declared.openlineage);
        let names = openlineage::names(&declared.project, &declared.openlineage, places);
        let emitter = Arc::new(Emitter::open(settings, names, command)?);
        if command != "stream" {
            emitter.begin();
        }
        Some(emitter)
    }

    fn open_alerts(declared: &Declared, places: &Places, command: &'static str) -> Option<Arc<Alerts>> {
        let destinations = sender::destinations(&places.project, &declared.alerts);
        for off in destinations.iter().filter_map(Destination::why_off) {
            tracing::warn!("{off}");
        }
        if destinations.is_empty() {
            return None;
        }
        let lake = places.lake.clone();
        let kinds = AlertKind::ALL.into_iter().filter(|kind| destinations.iter().any(|to| to.wants(*kind)));
        let kinds = kinds.collect();
        let about = About { project: declared.project.clone(), lake: lake.as_ref().map(http::shown) };
        let sender = Mutex::new(Some(Sender::start(destinations, about, lake)));
        Some(Arc::new(Alerts { command, kinds, sender, ends_silently: AtomicBool::new(false) }))
    }

    /// Whether anybody wants to know where marts are published.
    pub fn wants_store(&self) -> bool {
        self.lineage.is_some()
    }

    /// Whether anybody wants to be told of this.
    pub fn wants(&self, kind: AlertKind) -> bool {
        self.alerts.as_ref().is_some_and(|alerts| alerts.kinds.contains(&kind))
    }

    /// Tells what is and is not as it should be; what was told already is not told again.
    pub fn observe(&self, observation: Observation) {
        let Some(alerts) = self.alerts.as_ref().filter(|_| !observation.is_empty()) else {
            return;
        };
        let sender = alerts.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref() {
            sender.send(observation);
        }
    }

    /// A run has closed its books: what its report says, and how fresh the tables are now.
    /// `store` is where marts are published.
    pub async fn settled(&self, run: &Run, report: &Report, more: Vec<Condition>, store: Option<&Target>) {
        if let Some(lineage) = &self.lineage {
            let store = store.map(openlineage::store);
            let names = store.as_ref().map(|(store, keyspace)| (store.as_str(), keyspace.as_str()));
            if let Err(error) = lineage.settled(run, report, names).await {
                tracing::warn!(%error, "no openlineage events of this run");
            }
        }
        let Some(alerts) = &self.alerts else {
            return;
        };
        let mut observation = conditions::of_report(&run.project, report);
        observation.run_id = report.run_id;
        observation.command.clone_from(&report.command);
        // a command that still works tells at its end how it ended
        if alerts.command == "stream" {
            observation.conditions.push(conditions::of_command(alerts.command, None));
        }
        observation.conditions.extend(more);
        self.observe(observation);
        self.look_at_freshness(run).await;
    }

    /// What a monitor has found that no run has told: the clock alone can do that.
    pub async fn looked_at(&self, run: &Run, by_the_clock: &[CheckResult]) {
        let Some(alerts) = &self.alerts else {
            return;
        };
        match gate::tell(run) {
            Ok(withheld) => {
                let found = conditions::of_checks(&run.project, by_the_clock, &withheld);
                self.observe(Observation { command: alerts.command.to_owned(), ..found });
            }
            Err(error) => tracing::warn!(%error, "what is withheld could not be looked at"),
        }
        self.look_at_freshness(run).await;
    }

    /// How fresh the tables are now.
    pub async fn look_at_freshness(&self, run: &Run) {
        let Some(alerts) = self.alerts.as_ref().filter(|_| self.wants(AlertKind::Freshness)) else {
            return;
        };
        match conditions::of_freshness(run).await {
            Ok(found) => self.observe(Observation { command: alerts.command.to_owned(), ..found }),
            Err(error) => tracing::warn!(%error, "how fresh the tables are could not be looked at"),
        }
    }

    /// A command has published marts, and nothing else.
    pub async fn published(&self, run: &Run, published: &[Publication], store: &Target) {
        if let Some(lineage) = &self.lineage {
            let (store, keyspace) = openlineage::store(store);
            if let Err(error) = lineage.served(run, published, Some((&store, &keyspace))).await {
                tracing::warn!(%error, "no openlineage events of what was published");
            }
        }
    }

    /// A stream has taken something in.
    pub fn begun(&self) {
        if let Some(lineage) = &self.lineage {
            lineage.begin();
        }
    }

    /// A stream tries again what an error has stopped.
    pub fn failed(&self, error: &Error) {
        if let Some(lineage) = &self.lineage {
            lineage.stumbled(&error.to_string());
        }
    }

    /// How a part of a stream fares that goes on whatever becomes of it.
    pub fn stumbled(&self, what: &str, error: Option<&Error>) {
        let Some(alerts) = &self.alerts else {
            return;
        };
        let condition = conditions::of_command(what, error);
        self.observe(Observation {
            command: alerts.command.to_owned(),
            conditions: vec![condition],
            ..Observation::default()
        });
    }

    /// How the command is about to end is no news: it was told by [`Telling::stumbled`], or nothing was begun.
    pub fn end_silently(&self) {
        if let Some(alerts) = &self.alerts {
            alerts.ends_silently.store(true, Ordering::Relaxed);
        }
    }

    /// Tells how the command ended, and waits until everything is told, or for a bounded time.
    pub async fn ended(&self, how: Ended<'_>) {
        let wait = if matches!(how, Ended::Stopped) { SHORT_WAIT } else { LAST_WAIT };
        let events = async {
            if let Some(lineage) = &self.lineage {
                lineage.ended(&how, wait).await;
            }
        };
        tokio::join!(events, self.last_alerts(&how, wait));
    }

    async fn last_alerts(&self, how: &Ended<'_>, wait: Duration) {
        let Some(alerts) = &self.alerts else {
            return;
        };
        let condition = match alerts.ends_silently.load(Ordering::Relaxed) {
            true => None,
            false => last(alerts.command, how, std::io::IsTerminal::is_terminal(&std::io::stderr())),
        };
        self.observe(Observation {
            command: alerts.command.to_owned(),
            conditions: condition.into_iter().collect(),
            ..Observation::default()
        });
        let sender = alerts.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            sender.close(wait).await;
        }
    }
}

/// What a command's end says; `is_read`: by whoever typed the command.
fn last(command: &str, how: &Ended<'_>, is_read: bool) -> Option<Condition> {
    match how {
        Ended::Stopped => None,
        // what is wrong with the tables a report has told; of these two there is none
        Ended::Done(code) if matches!(command, "publish" | "reconcile") => {
            Some(conditions::of_exit(command, *code))
        }
        Ended::Done(_) => Some(conditions::of_command(command, None)),
        Ended::Failed(error) => {
            let is_news = match error.kind() {
                // another run does the work; of two streams one is too many
                ErrorKind::Conflict => command == "stream",
                ErrorKind::Usage => !is_read,
                _ => true,
            };
            is_news.then(|| conditions::of_command(command, Some(error)))
        }
    }
}

/// The alerts that are open: told, and not yet told to be over.
///
/// # Errors
/// The store's.
pub async fn open_alerts(lake: &Url) -> Result<Vec<memory::Remembered>> {
    let mut found = memory::Memory::open(lake)?.all().await?;
    found.sort_by(|a, b| (&a.since, &a.key, &a.to).cmp(&(&b.since, &b.key, &b.to)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_that_no_report_explains_is_told() {
        let told = |command: &str, how: Ended<'_>| {
            last(command, &how, false)
                .map(|condition| (condition.is_bad, condition.is_event, condition.title))
        };
        let by_hand = told("reconcile", Ended::Done(4)).unwrap();
        assert_eq!(by_hand, (true, true, "`reconcile` ended with exit code 4".to_owned()));
        assert_eq!(told("publish", Ended::Done(4)).map(|told| (told.0, told.1)), Some((true, false)));
        assert_eq!(told("publish", Ended::Done(0)).map(|told| told.0), Some(false));
        assert_eq!(told("run", Ended::Done(4)).map(|told| told.0), Some(false), "its report says why");
        assert_eq!(told("stream", Ended::Stopped), None);
        let error = Error::conflict("another has it");
        assert_eq!(told("run", Ended::Failed(&error)), None);
        assert!(told("stream", Ended::Failed(&error)).is_some());
    }
}
