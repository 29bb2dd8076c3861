//! OpenLineage: what ran, what it read and wrote, and how it ended, for catalogues such as Marquez or DataHub.
//!
//! A command, and each settle of a stream, is a run of a job (`run`, `rerun`, `stream`, …). Each table that it wrote, its
//! checks and each mart that it published are runs of jobs of their own, whose parent it is. Events are sent beside the work, in
//! order; one that can't be delivered is a warning.

pub mod event;
pub mod names;
mod transport;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use uuid::{Builder, Uuid};

use self::event::{Described, JobRun, Parent, State};
use self::names::{Dataset, Names};
use self::transport::Transport;
use super::Ended;
use super::http::SecretUrl;
use crate::error::Result;
use crate::flow::Run;
use crate::flow::report::Report;
use crate::flow::serving::Publication;
use crate::project::lineage::Lineage;
use crate::project::manifest::OpenLineageManifest;
use crate::project::sql::TableName;
use crate::store::cassandra::Target;
use crate::store::cassandra::connect::Secret;
use crate::telemetry::variable;
use crate::zone;

/// Where events go.
#[derive(Debug, Default)]
pub struct Settings {
    pub url: Option<SecretUrl>,
    pub api_key: Option<Secret>,
    pub file: Option<PathBuf>,
}

impl Settings {
    /// What the project declares; the environment takes precedence.
    pub fn of(folder: &Path, declared: &OpenLineageManifest) -> Settings {
        if variable("OPENLINEAGE_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Settings::default();
        }
        let (whose, base) = match variable("OPENLINEAGE_URL") {
            Some(url) => ("the variable `OPENLINEAGE_URL`", Some(url)),
            None => ("`openlineage.url` in `medallion.toml`", declared.url.clone()),
        };
        let endpoint = variable("OPENLINEAGE_ENDPOINT").unwrap_or_else(|| "api/v1/lineage".to_owned());
        let url = base.and_then(|base| {
            let url = format!("{}/{}", base.trim().trim_end_matches('/'), endpoint.trim_start_matches('/'));
            SecretUrl::parse(&url)
                .map_err(|why| tracing::warn!("no openlineage events are sent: {whose} {why}"))
                .ok()
        });
        let file = match variable("MEDALLION_OPENLINEAGE_FILE") {
            Some(path) => Some(PathBuf::from(path)),
            None => declared.file.as_ref().map(|path| folder.join(path)),
        };
        Settings { url, api_key: variable("OPENLINEAGE_API_KEY").map(Secret::new), file }
    }

    fn is_empty(&self) -> bool {
        self.url.is_none() && self.file.is_none()
    }
}

/// What a project's jobs and datasets are called.
pub fn names(project: &str, declared: &OpenLineageManifest, places: super::Places) -> Names {
    let namespace = variable("OPENLINEAGE_NAMESPACE").or_else(|| declared.namespace.clone());
    Names {
        jobs: namespace.unwrap_or_else(|| format!("medallion://{project}")),
        lake: places.lake,
        landing: places.landing,
        folder: places.project,
    }
}

/// The namespace of a cluster's tables, and their keyspace.
pub fn store(target: &Target) -> (String, String) {
    let namespace = match (&target.bundle, target.hosts.first()) {
        (Some(bundle), _) => format!("astra://{}", bundle.host),
        (None, host) => format!("cassandra://{}", host.map_or("unknown", String::as_str)),
    };
    (namespace, target.keyspace.clone())
}

/// `namespace/job/run id`, as schedulers hand it down.
fn parent_of(text: &str) -> Option<Parent> {
    let (rest, run_id) = text.trim().rsplit_once('/')?;
    let (namespace, job) = rest.rsplit_once('/')?;
    let run_id = Uuid::parse_str(run_id).ok()?.to_string();
    Some(Parent { namespace: namespace.to_owned(), job: job.to_owned(), run_id })
}

/// What is between the beginning and the end of a command or of a settle.
struct Current {
    job: JobRun,
    /// Why it ends with another exit code than 0, as far as that is known.
    verdict: Vec<String>,
}

/// Makes events and sends them.
pub struct Emitter {
    command: &'static str,
    names: Names,
    parent: Option<Parent>,
    current: Mutex<Option<Current>>,
    lineage: OnceCell<Lineage>,
    transport: Mutex<Option<Transport>>,
    counter: AtomicU64,
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

impl Emitter {
    /// `None` where nobody wants events.
    pub fn open(settings: Settings, names: Names, command: &'static str) -> Option<Emitter> {
        if settings.is_empty() {
            return None;
        }
        let parent = std::env::var("OPENLINEAGE_PARENT_ID").ok();
        Some(Emitter {
            command,
            names,
            parent: parent.as_deref().and_then(parent_of),
            current: Mutex::new(None),
            lineage: OnceCell::new(),
            transport: Mutex::new(Some(Transport::start(settings))),
            counter: AtomicU64::new(0),
        })
    }

    /// A stream's runs are its settles.
    fn is_stream(&self) -> bool {
        self.command == "stream"
    }

    /// Ordered by time, and different in every process.
    fn new_id(&self) -> Uuid {
        let mut hasher = blake3::Hasher::new();
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let nanos = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
        let host = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        hasher.update(format!("{nanos} {count} {} {host}", std::process::id()).as_bytes());
        hasher.update(&uuid_entropy());
        let mut random = [0; 10];
        random.copy_from_slice(&hasher.finalize().as_bytes()[..10]);
        let millis = u64::try_from(nanos / 1_000_000).unwrap_or(0);
        Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    fn send(&self, events: Vec<Value>) {
        let transport = self.transport.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(transport) = transport.as_ref() {
            transport.send(events);
        }
    }

    /// The command, or what a stream settles next, begins; nothing where it has.
    pub fn begin(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_some() {
            return;
        }
        let job = JobRun {
            id: self.new_id(),
            namespace: self.names.jobs.clone(),
            job: self.command.replace(' ', "_"),
            parent: self.parent.clone(),
            facets: json!({"jobType": event::job_type("JOB", self.is_stream())}),
            run_facets: Map::new(),
        };
        self.send(vec![job.event(State::Start, now(), &[], &[])]);
        *current = Some(Current { job, verdict: Vec::new() });
    }

    /// What a report says: each table, the checks, what was published. Ends a stream's run.
    ///
    /// # Errors
    /// Those of reading lineage off the project.
    pub async fn settled(&self, run: &Run, report: &Report, store: Option<(&str, &str)>) -> Result<()> {
        self.begin();
        let lineage = self.lineage.get_or_try_init(|| Lineage::of(&run.project)).await?;
        let described = Described { project: &run.project, lineage, names: &self.names };
        let events = self.of_report(&described, run, report)?;
        self.send(events);
        self.published(&described, &report.published, store);
        if self.is_stream() {
            self.finish(State::Complete, None);
        }
        Ok(())
    }

    /// The runs of tables and checks, and what the report says of the run that they are parts of.
    fn of_report(&self, described: &Described<'_>, run: &Run, report: &Report) -> Result<Vec<Value>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(current) = current.as_mut() else {
            return Ok(Vec::new());
        };
        let mut known = vec![("command", report.command.clone())];
        // a run that changed nothing has no number
        known.extend(report.run_id.map(|id| ("medallion_run_id", id.to_string())));
        let tags: Vec<Value> = known
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value, "source": "medallion"}))
            .collect();
        let tags = event::facet("1-0-0/TagsRunFacet", json!({"tags": tags}));
        current.job.run_facets.insert("tags".to_owned(), tags);
        current.verdict = report.verdict();
        let mut events = Vec::new();
        let mut add =
            |job: String, facets: Value, times: (i64, i64), inputs: Vec<Value>, outputs: Vec<Value>| {
                let child = JobRun {
                    id: self.new_id(),
                    namespace: self.names.jobs.clone(),
                    job,
                    parent: Some(current.job.as_parent()),
                    facets,
                    run_facets: Map::new(),
                };
                events.push(child.event(State::Start, times.0, &inputs, &[]));
                events.push(child.event(State::Complete, times.1, &inputs, &outputs));
            };
        for step in &report.steps {
            if let Some((table, inputs, outputs)) = described.step(run, step) {
                let facets = described.job_facets(&table, self.is_stream());
                add(table.to_string(), facets, (step.started, step.finished), inputs, outputs);
            }
        }
        if !report.checks.is_empty() {
            let facets = json!({"jobType": event::job_type("CHECKS", self.is_stream())});
            add("checks".to_owned(), facets, (now(), now()), described.checked(report), Vec::new());
        }
        Ok(events)
    }

    /// What was published, where no report says so.
    ///
    /// # Errors
    /// Those of reading lineage off the project.
    pub async fn served(
        &self,
        run: &Run,
        published: &[Publication],
        store: Option<(&str, &str)>,
    ) -> Result<()> {
        let lineage = self.lineage.get_or_try_init(|| Lineage::of(&run.project)).await?;
        let described = Described { project: &run.project, lineage, names: &self.names };
        self.published(&described, published, store);
        Ok(())
    }

    fn published(&self, described: &Described<'_>, published: &[Publication], store: Option<(&str, &str)>) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(current), Some((store, keyspace))) = (current.as_ref(), store) else {
            return;
        };
        let mut events = Vec::new();
        for publication in published.iter().filter(|publication| publication.partitions > 0) {
            let gold = TableName::new(zone::GOLD, &publication.mart);
            let inputs: Vec<Value> = described.dataset(&gold).iter().map(Dataset::to_json).collect();
            let mut output = Dataset::served(store, keyspace, &publication.mart).to_json();
            output["outputFacets"] = json!({"outputStatistics": event::facet(
                "1-0-2/OutputStatisticsOutputDatasetFacet", json!({"rowCount": publication.rows}),
            )});
            let child = JobRun {
                id: self.new_id(),
                namespace: self.names.jobs.clone(),
                job: format!("serving.{}", publication.mart),
                parent: Some(current.job.as_parent()),
                facets: json!({"jobType": event::job_type("PUBLISH", self.is_stream())}),
                run_facets: Map::new(),
            };
            let finished = now();
            let started = finished - (publication.seconds * 1e6) as i64;
            events.push(child.event(State::Start, started, &inputs, &[]));
            events.push(child.event(State::Complete, finished, &inputs, &[output]));
        }
        self.send(events);
    }

    /// Ends what has begun; what has not looked right has failed.
    fn finish(&self, state: State, message: Option<&str>) {
        let Some(mut current) = self.current.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let verdict = current.verdict.join("; ");
        // what was found is more than that something was
        let found = (!verdict.is_empty()).then_some(verdict.as_str());
        let (state, message) = match (state, found, message) {
            (State::Complete, None, None) => (State::Complete, None),
            (State::Complete, Some(found), _) => (State::Fail, Some(found)),
            (State::Complete, None, Some(message)) => (State::Fail, Some(message)),
            (state, _, message) => (state, message),
        };
        if let Some(message) = message {
            current.job.run_facets.insert("errorMessage".to_owned(), event::error_message(message));
        }
        self.send(vec![current.job.event(state, now(), &[], &[])]);
    }

    /// An error after which a stream goes on.
    pub fn stumbled(&self, error: &str) {
        self.finish(State::Fail, Some(error));
    }

    /// The command has ended; waits until everything is sent, or for a bounded time.
    pub async fn ended(&self, how: &Ended<'_>, wait: Duration) {
        match how {
            // between two settles nothing has begun
            Ended::Done(0) => self.finish(State::Complete, None),
            Ended::Done(code) => {
                self.finish(State::Complete, Some(&format!("it ended with exit code {code}")));
            }
            Ended::Failed(error) => {
                self.begin();
                self.finish(State::Fail, Some(&error.to_string()));
            }
            Ended::Stopped => self.finish(State::Abort, None),
        }
        let transport = self.transport.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(transport) = transport {
            transport.close(wait).await;
        }
    }
}

/// Differs between processes with the same number on different machines.
fn uuid_entropy() -> [u8; 8] {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_may_have_slashes_in_its_namespace() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let parent = parent_of(&format!("airflow://prod/daily.run/{id}")).unwrap();
        assert_eq!((parent.namespace.as_str(), parent.job.as_str()), ("airflow://prod", "daily.run"));
        assert_eq!(parent.run_id, id);
        assert_eq!(parent_of("airflow/daily/no-uuid"), None);
        assert_eq!(parent_of(id), None);
    }
}
