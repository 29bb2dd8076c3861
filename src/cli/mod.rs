//! The command line: one file per command, one match arm per command.

mod alerts;
mod balance;
mod check;
mod checks;
mod completions;
mod docs;
mod doctor;
mod explain;
mod generate;
mod lineage;
mod maintain;
mod metrics;
mod monitor;
pub mod output;
mod publish;
mod published;
mod quarantine;
mod query;
mod reconcile;
mod redrive;
mod rerun;
mod run;
mod runs;
mod site;
mod sql;
mod status;
mod stream;
mod telling;
mod travel;
mod turn;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing::{Instrument, Span};
use url::Url;

use self::output::Format;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Run, lock};
use crate::lake::{Lake, Root, open_root, parse_location};
use crate::notify::{Ended, Telling};
use crate::project::Project;
use crate::project::manifest::ServingManifest;
use crate::store::cassandra::{Cassandra, Target};
use crate::telemetry::otlp::Otlp;
use crate::telemetry::{self, Progress, Verbosity};
use crate::zone;

/// Moves landed files through bronze, silver and gold Delta tables, and proves that nothing was lost.
#[derive(Debug, Parser)]
#[command(
    name = "medallion",
    version,
    after_help = "Examples:\n  \
        medallion check                                   validate the project in this folder\n  \
        medallion run                                     take in everything that waits in landing\n  \
        medallion stream                                  follow landing, until Ctrl-C\n  \
        medallion --landing /data/in --lake s3://b/l run  other places than the project's\n  \
        medallion --cassandra db1:9042 run                and publish the marts\n  \
        medallion query daily_cost --param org_id=org_1   answer a question from gold\n  \
        medallion sql 'select count(*) from silver.users' read any zone\n\n\
        Exit codes: 0 done, 2 usage, 3 project, 4 data (balance, check or changed file), 5 conflict with another run,\n\
        6 a store is unavailable, 70 a bug.\n\
        Every global option can be given as a variable, e.g. MEDALLION_LAKE."
)]
pub struct Cli {
    #[command(flatten)]
    pub places: Places,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Places {
    /// The project's folder, which holds `medallion.toml`
    #[arg(long, global = true, env = "MEDALLION_PROJECT", default_value = ".", value_name = "DIR")]
    pub project: PathBuf,
    /// Where files land: a folder or a URI (file, s3, gs, az); the project's own by default
    #[arg(long, global = true, env = "MEDALLION_LANDING", value_name = "URI")]
    pub landing: Option<String>,
    /// Where the zones are kept: a folder or a URI; the project's own by default
    #[arg(long, global = true, env = "MEDALLION_LAKE", value_name = "URI")]
    pub lake: Option<String>,
    /// Cassandra nodes that marts are published to, `host:port,…`, or `astra:PATH.zip` for an Astra database; the
    /// project's own by default, gold where it has none
    #[arg(
        long,
        global = true,
        env = "MEDALLION_CASSANDRA",
        value_delimiter = ',',
        value_name = "HOST:PORT,…"
    )]
    pub cassandra: Vec<String>,
    /// How rows are printed
    #[arg(long, global = true, env = "MEDALLION_FORMAT", default_value = "table", value_name = "FORMAT")]
    pub format: Format,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Who is told of what the command does.
    #[arg(skip)]
    telling: Telling,
    /// Where traces and metrics go.
    #[arg(skip)]
    otlp: Otlp,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Validate the project: every problem at once, with file and line
    Check(check::CheckArgs),
    /// Move everything that waits in landing to gold (and Cassandra), then print the balance
    Run(run::RunArgs),
    /// Bring the serving tables in Cassandra to what gold says
    Publish(publish::PublishArgs),
    /// Compare the serving tables in Cassandra with gold, row by row
    Reconcile(reconcile::ReconcileArgs),
    /// Follow landing and move micro-batches to gold until SIGINT or SIGTERM
    Stream(stream::StreamArgs),
    /// Compute partitions again, and everything that depends on them
    Rerun(rerun::RerunArgs),
    /// Answer a question of the project
    Query(query::QueryArgs),
    /// Run a read-only SQL query over the zones
    Sql(sql::SqlArgs),
    /// Show every table: version, rows, size, what waits, what is stale, how fresh it is
    Status(status::StatusArgs),
    /// Show what runs did
    Runs(runs::RunsArgs),
    /// Send a test alert, or show the alerts that are open
    Alerts(alerts::AlertsArgs),
    /// Show the project's checks and how they ended, run by run
    Checks(checks::ChecksArgs),
    /// Show the balance of the last run and of the whole lake
    Balance,
    /// Look at refused records, let them in again, or discard them
    Quarantine(quarantine::QuarantineArgs),
    /// Show where a table or column comes from, or ends up
    Lineage(lineage::LineageArgs),
    /// Show the landed lines behind one row
    ExplainRow(explain::ExplainArgs),
    /// Show what changed between two versions of a table
    Diff(travel::DiffArgs),
    /// Take a table, or a zone, back to a version, and compute what depends on it
    Restore(travel::RestoreArgs),
    /// Put small files together, sorted by the table's key
    Optimize(maintain::OptimizeArgs),
    /// Delete files that no retained version needs
    Vacuum(maintain::VacuumArgs),
    /// Look whether the lake is sound, and say what to do
    Doctor(doctor::DoctorArgs),
    /// Forget old runs in the ledger
    Gc(maintain::GcArgs),
    /// Make landing data of the project's domain, with faults mixed in
    Generate(generate::GenerateArgs),
    /// Print the data dictionary as Markdown, or write a site of the project and its lake
    Docs(docs::DocsArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// The exit code of a command that SIGTERM has ended.
const TERMINATED: u8 = 143;

/// How long a command that was told to end may take to notice.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the command; the result is the exit code.
///
/// # Errors
/// What stopped it.
pub async fn run(cli: Cli) -> Result<u8> {
    let mut places = cli.places;
    places.otlp = telemetry::start_logging(match (places.quiet, places.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, 1) => Verbosity::Verbose,
        (false, _) => Verbosity::Trace,
    });
    let (teller, told) = tokio::sync::oneshot::channel();
    // a stream finishes its batch first, and listens itself
    let is_stream = matches!(cli.command, Command::Stream(_));
    if !is_stream {
        tell_of_end(teller);
    }
    let mut root = Span::none();
    if let Some(name) = cli.command.moves_data() {
        places.telling = places.telling(name);
        // a stream has no end that a trace could wait for: its steps are traces
        if !is_stream {
            root = places.otlp.root(name);
        }
    }
    // boxed: the futures of all commands in one are deeper than the compiler follows
    let working = Box::pin(command(&places, cli.command)).instrument(root.clone());
    let done = tokio::select! {
        done = working => done,
        Ok(()) = told => Ok(TERMINATED),
    };
    match &done {
        Ok(code) => {
            root.record("exit_code", *code);
        }
        Err(error) => {
            root.record("exit_code", error.kind().exit_code());
            root.record("otel.status_code", "ERROR");
            root.record("otel.status_description", error.to_string());
        }
    }
    drop(root);
    let ended = match &done {
        Ok(TERMINATED | stream::FORCED) => Ended::Stopped,
        Ok(code) => Ended::Done(*code),
        Err(error) => Ended::Failed(error),
    };
    telling::last_messages(places.telling, places.otlp, ended, is_stream).await;
    done
}

async fn command(places: &Places, command: Command) -> Result<u8> {
    match command {
        Command::Check(args) => check::run(places, &args).await,
        Command::Run(args) => run::run(places, &args).await,
        Command::Publish(args) => publish::run(places, &args).await,
        Command::Reconcile(args) => reconcile::run(places, &args).await,
        Command::Stream(args) => stream::run(places, &args).await,
        Command::Rerun(args) => rerun::run(places, &args).await,
        Command::Query(args) => query::run(places, &args).await,
        Command::Sql(args) => sql::run(places, &args).await,
        Command::Status(args) => status::run(places, &args).await,
        Command::Runs(args) => runs::run(places, &args).await,
        Command::Alerts(args) => alerts::run(places, &args).await,
        Command::Checks(args) => checks::run(places, &args).await,
        Command::Balance => balance::run(places).await,
        Command::Quarantine(args) => quarantine::run(places, &args).await,
        Command::Lineage(args) => lineage::run(places, &args).await,
        Command::ExplainRow(args) => explain::run(places, &args).await,
        Command::Diff(args) => travel::diff(places, &args).await,
        Command::Restore(args) => travel::restore(places, &args).await,
        Command::Optimize(args) => maintain::optimize(places, &args).await,
        Command::Vacuum(args) => maintain::vacuum(places, &args).await,
        Command::Doctor(args) => doctor::run(places, &args).await,
        Command::Gc(args) => maintain::gc(places, &args).await,
        Command::Generate(args) => generate::run(places, &args).await,
        Command::Docs(args) => docs::run(places, &args).await,
        Command::Completions(args) => completions::run(&args),
    }
}

/// Tells of SIGTERM, and ends the process where nobody listens: a command may wait in a call of the system, as of a file that
/// is a pipe. The system's own way to end is not there for process 1 of a container: it would not notice.
fn tell_of_end(teller: tokio::sync::oneshot::Sender<()>) {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::spawn(async move {
            terminate.recv().await;
            tracing::warn!("stopped by SIGTERM; the next run continues");
            let _ = teller.send(());
            tokio::time::sleep(GRACE).await;
            #[expect(clippy::disallowed_methods, reason = "the thread of `main` is the one that waits")]
            std::process::exit(i32::from(TERMINATED));
        });
    }
    #[cfg(not(unix))]
    drop(teller);
}

async fn open_run(project: Arc<Project>, landing: Root, lake: Lake, progress: Progress) -> Result<Run> {
    let url = lake.url().clone();
    Run::open(project, landing, lake, progress).await.map_err(|error| match error.kind() {
        ErrorKind::Unavailable => error.during(format!("opening the lake `{url}`")),
        _ => error,
    })
}

impl Places {
    async fn load(&self) -> Result<Arc<Project>> {
        Ok(Arc::new(Project::load(&self.project).await?))
    }

    /// The project's lake, made where there is none: for what takes files in.
    fn new_lake(&self, project: &Project) -> Result<Lake> {
        Lake::open(&self.lake_url(project.lake.as_deref())?, true)
    }

    /// The project's lake, which must be there.
    async fn lake(&self, project: &Project) -> Result<Lake> {
        let url = self.lake_url(project.lake.as_deref())?;
        self.lake_if_any(project).await?.ok_or_else(|| {
            Error::usage(format!("there is no lake at `{url}`; `medallion run` makes it, or mind `--lake`"))
        })
    }

    /// The project's lake, where there is one.
    async fn lake_if_any(&self, project: &Project) -> Result<Option<Lake>> {
        let url = self.lake_url(project.lake.as_deref())?;
        if let Ok(folder) = url.to_file_path()
            && !is_there(&folder)?
        {
            return Ok(None);
        }
        let lake = Lake::open(&url, false)?;
        // a first run that finds nothing leaves its lock only
        let has_lock = match lake.folder() {
            Some(folder) => is_there(&folder.join(lock::WRITES))?,
            None => false,
        };
        Ok((has_lock || lake.has_zone(zone::LEDGER).await?).then_some(lake))
    }

    fn lake_url(&self, declared: Option<&str>) -> Result<Url> {
        let (base, text) = self.place(self.lake.as_deref(), declared, "lake");
        parse_location(text, &base)
    }

    /// Where the project's files land, which must be there: for what takes them in.
    fn landing(&self, project: &Project) -> Result<Root> {
        let url = self.landing_url(project)?;
        open_root(&url, false).map_err(|error| match error.kind() {
            ErrorKind::Unavailable => Error::unavailable(format!(
                "can't open the landing `{url}`; make the folder, or mind `--landing`: {error}"
            )),
            _ => error.during("opening landing"),
        })
    }

    fn landing_url(&self, project: &Project) -> Result<Url> {
        let (base, text) = self.place(self.landing.as_deref(), project.landing.as_deref(), "landing");
        parse_location(text, &base)
    }

    /// Opens the project's lake, which must be there.
    async fn open(&self, progress: Progress) -> Result<Run> {
        let project = self.load().await?;
        let lake = self.lake(&project).await?;
        self.open_on(project, lake, progress).await
    }

    /// Landing may be gone: of what is in the lake only the rest of a few long records is read from there.
    async fn open_on(&self, project: Arc<Project>, lake: Lake, progress: Progress) -> Result<Run> {
        let url = self.landing_url(&project)?;
        let landing = match open_root(&url, false) {
            Err(error) if error.kind() == ErrorKind::Unavailable => Root::absent(&url),
            opened => opened.map_err(|error| error.during("opening landing"))?,
        };
        open_run(project, landing, lake, progress).await
    }

    /// The cluster that marts are published to; `None` where neither the caller nor the project names one.
    fn serving<'a>(&self, project: &'a Project) -> Result<Option<(&'a ServingManifest, Target)>> {
        let Some(serving) = &project.serving else {
            return match self.cassandra.is_empty() {
                true => Ok(None),
                false => Err(Error::usage("the project has no section `serving`, which names the keyspace")),
            };
        };
        let hosts: Vec<String> = self.cassandra.iter().map(|host| host.trim().to_owned()).collect();
        // an empty variable is none
        let hosts = if hosts.iter().all(String::is_empty) { Vec::new() } else { hosts };
        Ok(Target::of(serving, &hosts, &project.folder)?.map(|target| (serving, target)))
    }

    /// As [`Places::serving`], for commands that need one.
    async fn cassandra<'a>(&self, project: &'a Project) -> Result<(&'a ServingManifest, Cassandra)> {
        let Some((serving, target)) = self.serving(project)? else {
            return Err(Error::usage(
                "no cassandra is configured; name nodes with `--cassandra HOST:PORT` (or `astra:PATH.zip`) or `serving.hosts` in `medallion.toml`",
            ));
        };
        Ok((serving, Cassandra::open(target, serving).await?))
    }

    /// A place given by the caller is relative to where they are, one of the project to the project.
    fn place<'a>(
        &self,
        given: Option<&'a str>,
        declared: Option<&'a str>,
        default: &'a str,
    ) -> (PathBuf, &'a str) {
        match given {
            Some(text) => (PathBuf::from("."), text),
            None => (self.project.clone(), declared.unwrap_or(default)),
        }
    }
}

/// Whether there is such a file or folder; one that can't be looked at is an error, not a no.
fn is_there(path: &Path) -> Result<bool> {
    path.try_exists()
        .map_err(|error| Error::usage(format!("can't look at `{}`", path.display())).because(error))
}
