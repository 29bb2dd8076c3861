//! A project as written: the TOML files, key by key. Unknown keys are refused; meaning is checked in [`super`]. Every key
//! has a default, so that a file with mistakes can be read past them; which ones must be there is said beside.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::alerts::AlertManifest;
use super::lenient::Manifest;
use super::stream::StreamLimits;

/// `medallion.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectManifest {
    pub project: About,
    pub landing: Location,
    pub lake: Location,
    pub limits: Limits,
    pub stream: StreamLimits,
    pub serving: Option<ServingManifest>,
    pub alerts: Vec<AlertManifest>,
    pub openlineage: OpenLineageManifest,
}

impl Manifest for ProjectManifest {
    const REQUIRED: &[(&'static str, &[&'static str])] =
        &[("", &["project"]), ("project", &["name"]), ("serving", &["keyspace"]), ("alerts", &["kind"])];
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct About {
    pub name: String,
    pub description: String,
}

/// Where a zone is: a path relative to the project, or a URI.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Location {
    pub uri: Option<String>,
}

/// What one record, file or run may cost.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// A longer line is quarantined as `malformed`. Bytes.
    pub line_bytes: usize,
    /// A more deeply nested line is quarantined as `malformed`. Levels.
    pub nesting: usize,
    /// A compressed file that unpacks to more is cut off there. Bytes.
    pub unpacked_bytes: u64,
    /// A compressed file that unpacks to more than this many times its size is refused.
    pub unpacked_ratio: u64,
    /// What the query engine may hold before it spills to disk. Bytes.
    pub memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line_bytes: 1024 * 1024,
            nesting: 64,
            unpacked_bytes: 64 * 1024 * 1024 * 1024,
            // JSON of ever the same keys reaches 20 to 50; gzip can make 1030, which is what a bomb does
            unpacked_ratio: 200,
            memory_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// Where the marts are published. Without hosts (here or from the caller) nothing is, and gold answers questions.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServingManifest {
    /// The Cassandra keyspace of the marts.
    pub keyspace: String,
    /// Nodes to begin with: `host` or `host:port`.
    pub hosts: Vec<String>,
    /// The datacenter that is written and read.
    pub datacenter: Option<String>,
    /// Copies per datacenter, for a keyspace that is created: `NetworkTopologyStrategy`.
    pub replication: BTreeMap<String, u32>,
    /// Copies in all, for a keyspace that is created without `replication`: `SimpleStrategy`.
    pub replication_factor: Option<u32>,
    pub user: Option<String>,
    /// A file that holds the password and nothing else.
    pub password_file: Option<PathBuf>,
    /// Certificates that vouch for the nodes, PEM. With it the connection is encrypted.
    pub tls_ca: Option<PathBuf>,
    /// Our own certificate and its key, PEM, where the nodes ask for one.
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Requests that may be on their way at once.
    #[serde(default = "default_max_requests")]
    pub max_requests: usize,
    /// For how long a refused or lost request is repeated. Seconds.
    #[serde(default = "default_retry_seconds")]
    pub retry_seconds: u64,
}

fn default_max_requests() -> usize {
    64
}

fn default_retry_seconds() -> u64 {
    60
}

/// Where OpenLineage events go; the environment takes precedence.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenLineageManifest {
    /// Appended to, a line each; relative to the project.
    pub file: Option<PathBuf>,
    /// A server: `http://marquez:5000`.
    pub url: Option<String>,
    /// Of jobs; `medallion://<project>` by default.
    pub namespace: Option<String>,
}

/// `sql/bronze/<source>.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceManifest {
    pub description: String,
    pub files: String,
    pub format: FormatName,
    pub mode: ModeName,
    pub key: Vec<String>,
    pub partition: String,
    pub event_time: Option<String>,
    pub watermark_delay: Option<String>,
    /// What becomes of a record behind the watermark.
    pub late: LatePolicy,
    pub future_limit: Option<String>,
    /// How long there may be nothing new.
    pub freshness: Option<String>,
    pub money: Vec<String>,
    pub columns: Vec<ColumnManifest>,
    pub rules: Vec<RuleManifest>,
    pub warnings: Vec<WarningManifest>,
}

impl Manifest for SourceManifest {
    const REQUIRED: &[(&'static str, &[&'static str])] = &[
        ("", &["description", "files", "format", "mode", "key", "partition", "columns"]),
        ("columns", &["name", "type"]),
        ("rules", &["error_type", "when", "reason"]),
        ("warnings", &["name", "when"]),
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatName {
    #[default]
    Jsonl,
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// Immutable facts: the first record of a key and date is the one.
    #[default]
    Events,
    /// Versions of a thing: the latest record of a key is the one.
    Upserts,
}

/// What becomes of a record behind the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatePolicy {
    /// Taken in and marked.
    #[default]
    Accept,
    /// Refused as `late`.
    Quarantine,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnManifest {
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
    pub required: bool,
    pub description: String,
}

/// A record for which `when` is true is quarantined as `error_type`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleManifest {
    pub error_type: String,
    pub when: String,
    pub reason: String,
}

/// A record for which `when` is true is counted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarningManifest {
    pub name: String,
    pub when: String,
    pub description: String,
}

/// `sql/silver/<table>.toml` and `sql/gold/<mart>.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelManifest {
    pub description: String,
    /// Not stored: read by other models as if its query stood there.
    pub view: bool,
    pub key: Vec<String>,
    pub partition: Vec<String>,
    /// The source whose accepted records this table holds one for one; the balance checks it.
    pub accounts_for: Option<String>,
    /// The output has the dates of this input.
    pub dates_of: Option<String>,
    /// The output can have every date from this input's first to its last.
    pub calendar_of: Option<String>,
    /// How long a change of an input may wait.
    pub freshness: Option<String>,
    /// How a partition of the output depends on the inputs, where it is not the same date of each.
    pub inputs: BTreeMap<String, InputManifest>,
    /// What the columns mean, for the data dictionary.
    pub columns: BTreeMap<String, String>,
}

impl Manifest for ModelManifest {
    const REQUIRED: &[(&'static str, &[&'static str])] =
        &[("", &["description"]), ("inputs.*", &["days_before"])];
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InputManifest {
    /// `[from, to]`: a partition reads the input's dates from `to` days before to `from` days before its own.
    pub days_before: [u32; 2],
}

/// `sql/checks/<rule>.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckManifest {
    pub description: String,
    pub severity: SeverityName,
    /// By default `all` for a query, `changed` for a `kind`.
    pub scope: Option<CheckScope>,
    /// A gold table whose partitions are not committed where the check fails.
    pub guards: Option<String>,
    /// More rows than this are a warning.
    pub warn_above: Option<AmountManifest>,
    /// More rows than this fail the run.
    pub fail_above: Option<AmountManifest>,
    /// The table whose rows shares are of.
    pub of: Option<String>,
    /// In place of a query: what of `table` is held against its own history.
    pub kind: Option<KindName>,
    pub table: Option<String>,
    pub column: Option<String>,
    pub days: Option<u16>,
    pub min_days: Option<u16>,
    pub deviations: Option<f64>,
    /// A share, or a duration for `freshness`.
    pub tolerance: Option<String>,
    pub delay_days: Option<u16>,
    /// `now`, or a table.
    pub until: Option<String>,
}

/// A number of rows, or a share: `0.5 %`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a number of rows or a share such as `0.5 %`")]
pub enum AmountManifest {
    Rows(u64),
    Share(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KindName {
    Volume,
    NullRate,
    Freshness,
}

impl Manifest for CheckManifest {
    const REQUIRED: &[(&'static str, &[&'static str])] = &[("", &["description"])];
}

/// Which rows a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckScope {
    /// All of its inputs.
    #[default]
    All,
    /// Of inputs by date, the dates that changed in any of them since the last report.
    Changed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeverityName {
    Warn,
    #[default]
    Fail,
}

/// `cql/questions/<question>.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuestionManifest {
    pub title: String,
    pub parameters: BTreeMap<String, ParameterManifest>,
}

impl Manifest for QuestionManifest {
    const REQUIRED: &[(&'static str, &[&'static str])] = &[("", &["title"]), ("parameters.*", &["type"])];
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParameterManifest {
    #[serde(rename = "type")]
    pub type_name: String,
    pub description: String,
    /// A query over gold that gives the value when the caller gives none.
    pub default: Option<String>,
}
