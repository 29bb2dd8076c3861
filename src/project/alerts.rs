//! Who is told when something is wrong: the sections `[[alerts]]` of `medallion.toml`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::diagnostics::Diagnostics;
use super::lenient::line_of_key;
use super::manifest::OpenLineageManifest;
use super::read::PROJECT_FILE;

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertKind {
    /// A command did not do its work: an error, or (also as a kind of its own) a failed check or balance.
    Failure,
    /// A check of severity `fail` found rows.
    Check,
    /// A declared `freshness` is missed.
    Freshness,
    /// The balance does not hold.
    Balance,
    /// A watch has new rows, or a check of severity `warn` found some.
    Anomaly,
}

impl AlertKind {
    pub const ALL: [AlertKind; 5] =
        [AlertKind::Failure, AlertKind::Check, AlertKind::Freshness, AlertKind::Balance, AlertKind::Anomaly];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertKind::Failure => "failure",
            AlertKind::Check => "check",
            AlertKind::Freshness => "freshness",
            AlertKind::Balance => "balance",
            AlertKind::Anomaly => "anomaly",
        }
    }

    /// Whether somebody who wants to be told of these kinds is to be told of this one. A failed check and a broken balance
    /// make a run fail, so `failure` means them too.
    pub fn is_among(self, kinds: &BTreeSet<AlertKind>) -> bool {
        let is_failure = matches!(self, AlertKind::Check | AlertKind::Balance);
        kinds.contains(&self) || (is_failure && kinds.contains(&AlertKind::Failure))
    }
}

/// How an alert is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertForm {
    /// Our own JSON, one request per alert.
    #[default]
    Webhook,
    /// An incoming webhook of Slack, and of what understands its format.
    Slack,
}

/// Somebody who is told. The URL is a secret: it comes from the environment or a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertManifest {
    pub name: Option<String>,
    pub kind: AlertForm,
    pub on: BTreeSet<AlertKind>,
    pub url_env: Option<String>,
    /// Relative to the project.
    pub url_file: Option<PathBuf>,
    /// So many of a watch's new rows are shown.
    pub rows: usize,
}

impl Default for AlertManifest {
    fn default() -> Self {
        Self {
            name: None,
            kind: AlertForm::default(),
            on: AlertKind::ALL.into_iter().collect(),
            url_env: None,
            url_file: None,
            rows: 3,
        }
    }
}

/// What of `medallion.toml` is needed to tell others, also that the rest of the project is broken.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    pub project: String,
    pub lake: Option<String>,
    pub landing: Option<String>,
    pub alerts: Vec<AlertManifest>,
    pub openlineage: OpenLineageManifest,
}

impl AlertManifest {
    /// How it is called in messages.
    pub fn title(&self) -> String {
        let form = match self.kind {
            AlertForm::Webhook => "webhook",
            AlertForm::Slack => "slack",
        };
        match (&self.name, &self.url_env, &self.url_file) {
            (Some(name), ..) => name.clone(),
            (_, Some(variable), _) => format!("{form} of `{variable}`"),
            (_, _, Some(file)) => format!("{form} of `{}`", file.display()),
            _ => form.to_owned(),
        }
    }
}

impl Declared {
    /// Reads `medallion.toml` as far as it can be read; what is wrong with it is told by who loads the project.
    pub fn read(folder: &Path) -> Declared {
        let Ok(text) = std::fs::read_to_string(folder.join(PROJECT_FILE)) else {
            return Declared::default();
        };
        let Ok(mut table) = text.parse::<toml::Table>() else {
            return Declared::default();
        };
        let text_at = |section: &str, key: &str| table.get(section)?.get(key)?.as_str().map(str::to_owned);
        let project = text_at("project", "name").unwrap_or_default();
        let (lake, landing) = (text_at("lake", "uri"), text_at("landing", "uri"));
        let sections = match table.remove("alerts") {
            Some(toml::Value::Array(sections)) => sections,
            _ => Vec::new(),
        };
        // without its kind it is not known how to speak to somebody
        let told = sections.into_iter().filter(|section| section.get("kind").is_some());
        let alerts = told.filter_map(|section| section.try_into().ok()).collect();
        let openlineage = table.remove("openlineage").and_then(|section| section.try_into().ok());
        Declared { project, lake, landing, alerts, openlineage: openlineage.unwrap_or_default() }
    }
}

/// What is wrong with the sections.
pub(super) fn check(alerts: &[AlertManifest], text: &str, found: &mut Diagnostics) {
    let mut titles = BTreeSet::new();
    for (number, alert) in alerts.iter().enumerate() {
        let mut add = |key: &str, message: String| {
            let line = line_of_key(text, &format!("alerts.{number}.{key}"));
            found.add(PROJECT_FILE, line, format!("`[[alerts]]` {}: {message}", number + 1));
        };
        match (&alert.url_env, &alert.url_file) {
            (Some(variable), None) if !is_variable(variable) => {
                let shown = shown(variable);
                add(
                    "url_env",
                    format!("`url_env` names a variable, letters, digits and `_`; `{shown}` is none"),
                );
            }
            (Some(_), Some(_)) | (None, None) => {
                add("url_env", "say where the url is kept with one of `url_env` and `url_file`".to_owned());
            }
            _ => {}
        }
        if alert.on.is_empty() {
            add("on", "`on` is empty: nobody would be told anything".to_owned());
        }
        if !titles.insert(alert.title()) {
            add("kind", format!("there are two of `{}`; give each a `name`", shown(&alert.title())));
        }
    }
}

fn is_variable(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Somebody may have written the URL itself, which is not to be repeated.
fn shown(text: &str) -> String {
    if text.contains("://") { "a url".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        #[derive(Deserialize)]
        struct Manifest {
            alerts: Vec<AlertManifest>,
        }
        let manifest: Manifest = toml::from_str(text).unwrap();
        let mut found = Diagnostics::default();
        check(&manifest.alerts, text, &mut found);
        found.into_sorted().iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn a_url_is_never_written_down() {
        let told =
            problems("[[alerts]]\nkind = \"slack\"\nurl_env = \"https://hooks.slack.com/services/T/B/x\"\n");
        assert!(told.contains("`url_env` names a variable") && !told.contains("hooks.slack"), "{told}");
        assert!(problems("[[alerts]]\nkind = \"slack\"\n").contains("`url_env` and `url_file`"));
        assert!(problems("[[alerts]]\nkind = \"slack\"\non = []\nurl_env = \"A\"\n").contains("nobody"));
        let twice = "[[alerts]]\nkind = \"slack\"\nurl_env = \"A\"\n".repeat(2);
        assert!(problems(&twice).contains("give each a `name`"));
        assert_eq!(problems("[[alerts]]\nkind = \"webhook\"\nurl_file = \"secrets/url\"\n"), "");
    }

    #[test]
    fn a_broken_project_still_says_whom_to_tell() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[project]\nname = \"p\"\nnonsense = 1\n[[alerts]]\nkind = \"slack\"\nurl_env = \"A\"\n\
                    [[alerts]]\nkind = \"pigeon\"\n[[alerts]]\nurl_env = \"B\"\n";
        std::fs::write(folder.path().join("medallion.toml"), text).unwrap();
        let declared = Declared::read(folder.path());
        assert_eq!((declared.project.as_str(), declared.alerts.len()), ("p", 1));
        assert_eq!(declared.alerts[0].on.len(), AlertKind::ALL.len());
    }
}
