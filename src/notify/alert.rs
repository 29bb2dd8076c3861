//! Conditions, which hold or do not, and the alerts that are made of them when they begin and when they end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::project::alerts::AlertKind;

/// Something that is as it should be, or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub kind: AlertKind,
    /// Its name for as long as it is asked for: `check:no_negative_cost`.
    pub key: String,
    pub is_bad: bool,
    /// It happens and is over: told each time, and never taken back.
    pub is_event: bool,
    /// One sentence for people.
    pub title: String,
    /// For machines.
    pub details: Value,
    /// Rows to look at, each on a line.
    pub rows: Vec<String>,
}

/// What a command found.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    pub run_id: Option<i64>,
    pub command: String,
    pub conditions: Vec<Condition>,
    /// Keys that there are, by their beginning: an open alert of another key that begins so is over because nobody asks for
    /// it any more.
    pub known: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Observation {
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.known.is_empty()
    }
}

/// What every alert says of where it comes from.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub project: String,
    pub lake: Option<String>,
}

/// What is told of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It begins.
    Firing,
    /// It is over.
    Resolved,
    /// It happened.
    Notice,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Firing => "firing",
            State::Resolved => "resolved",
            State::Notice => "notice",
        }
    }
}

/// A message to people.
#[derive(Debug, Clone)]
pub struct Alert {
    pub state: State,
    pub condition: Condition,
    /// When it began, and is told; RFC 3339.
    pub since: String,
    pub time: String,
    pub run_id: Option<i64>,
    pub command: String,
}

impl Condition {
    pub fn severity(&self) -> &'static str {
        match self.kind {
            AlertKind::Anomaly => "warning",
            _ => "error",
        }
    }
}

impl Alert {
    /// The alert as our own JSON: docs/monitoring.md describes every key.
    pub fn to_json(&self, about: &About, num_rows: usize) -> Value {
        let mut details = self.condition.details.clone();
        if let Some(details) = details.as_object_mut()
            && !self.condition.rows.is_empty()
            && num_rows > 0
        {
            details.insert(
                "sample".to_owned(),
                json!(&self.condition.rows[..self.condition.rows.len().min(num_rows)]),
            );
        }
        json!({
            "schema": "medallion.alert/1",
            "state": self.state.as_str(),
            "kind": self.condition.kind.as_str(),
            "severity": self.condition.severity(),
            "key": self.condition.key,
            "title": self.condition.title,
            "project": about.project,
            "lake": about.lake,
            "command": self.command,
            "run_id": self.run_id,
            "since": self.since,
            "time": self.time,
            "details": details,
        })
    }
}

/// Now, as alerts have it.
pub fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
