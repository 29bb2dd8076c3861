//! What a run did, for a tired person and for machines.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::balance::BalanceRow;
use super::bronze::Ingested;
use super::checks::CheckResult;
use super::dirty::{self, Work};

use super::landing::{Left, Pending};
use super::lost::{self, RUN};
use super::model::{Computed, describe};
use super::recent::Part;
use super::serving::Publication;
use super::{Run, balance, check_history, gate};
use crate::error::Result;
use crate::ledger;
use crate::project::fingerprint;
use crate::project::model::Model;
use crate::project::source::Source;
use crate::telemetry::counted;

/// The report of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its number in the ledger; none where nothing was changed.
    pub run_id: Option<i64>,
    /// `run` or `stream`.
    pub command: String,
    pub new_files: usize,
    #[serde(flatten)]
    pub left: Left,
    pub steps: Vec<Step>,
    pub warnings: BTreeMap<String, u64>,
    pub checks: Vec<CheckResult>,
    /// What checks keep out of the tables that they guard, whichever run withheld it.
    pub withheld: Vec<gate::Told>,
    pub balance: Vec<BalanceRow>,
    /// What was published; known after the run has closed its books, so the ledger does not have it.
    pub published: Vec<Publication>,
    /// How long that took, connecting to the store too.
    pub publishing_seconds: f64,
    /// What a person must look at; the exit code says so.
    pub problems: Vec<String>,
    pub commits: usize,
    pub seconds: f64,
    #[serde(skip)]
    started: std::time::Instant,
}

/// One table that the run changed.
#[derive(Debug, Serialize)]
pub struct Step {
    pub table: String,
    /// Rows that were written.
    pub rows: u64,
    /// Which partitions.
    pub scope: String,
    pub seconds: f64,
    /// When it was begun and done, microseconds since the epoch.
    pub started: i64,
    pub finished: i64,
    /// The version that it committed, where it committed one.
    pub version: Option<i64>,
    /// How many partitions were computed; of a table without partitions 1, of bronze those that rows were added to.
    pub partitions: usize,
    pub landed: Option<u64>,
    pub quarantined: Option<u64>,
    /// Records that arrived behind the watermark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<u64>,
    #[serde(skip)]
    pub files: usize,
    /// Partitions that were computed again, came out as they were and were left as they are.
    pub unchanged: usize,
    /// Partitions that were computed and that a check keeps out.
    pub withheld: usize,
    #[serde(skip)]
    pub warnings: BTreeMap<String, u64>,
}

impl Step {
    pub(super) fn ingested(source: &Source, ingested: &Ingested, started: i64) -> Self {
        let files = &ingested.reports;
        let mut warnings = BTreeMap::new();
        for file in files {
            for (column, count) in &file.warnings {
                let name = format!("{}.{column} did not parse and is null", source.name);
                *warnings.entry(name).or_default() += count;
            }
        }
        Self {
            table: format!("bronze.{}", source.name),
            rows: files.iter().map(|file| file.typed).sum(),
            scope: counted(files.len(), "file"),
            seconds: 0.0,
            started,
            finished: chrono::Utc::now().timestamp_micros(),
            version: Some(ingested.bronze.version()),
            partitions: ingested.num_partitions(),
            landed: Some(files.iter().map(|file| file.landed).sum()),
            quarantined: Some(files.iter().map(|file| file.quarantined).sum()),
            late: source.watermark_delay.map(|_| files.iter().map(|file| file.late.records).sum()),
            files: files.len(),
            unchanged: 0,
            withheld: 0,
            warnings,
        }
    }

    pub(super) fn computed(
        model: &Model,
        part: &Part,
        computed: &Computed,
        version: Option<i64>,
        elapsed: Duration,
    ) -> Self {
        let finished = chrono::Utc::now().timestamp_micros();
        Self {
            table: model.table.to_string(),
            rows: computed.rows,
            scope: match &part.append {
                Some(_) if part.work == Work::Nothing => "appended".to_owned(),
                _ => describe(&part.work),
            },
            seconds: elapsed.as_secs_f64(),
            started: finished - i64::try_from(elapsed.as_micros()).unwrap_or(0),
            finished,
            version,
            partitions: part.num_partitions(),
            landed: None,
            quarantined: None,
            late: None,
            files: 0,
            unchanged: computed.num_unchanged,
            withheld: computed.num_withheld,
            warnings: BTreeMap::new(),
        }
    }
}

impl Step {
    fn add(&mut self, later: Step) {
        self.rows += later.rows;
        self.seconds += later.seconds;
        self.finished = later.finished;
        self.version = later.version.or(self.version);
        self.partitions = later.partitions;
        self.files += later.files;
        self.withheld = later.withheld;
        self.scope = match self.landed {
            Some(_) => counted(self.files, "file"),
            None => later.scope,
        };
        for (total, more) in [
            (&mut self.landed, later.landed),
            (&mut self.quarantined, later.quarantined),
            (&mut self.late, later.late),
        ] {
            *total = total.zip(more).map(|(total, more)| total + more).or(*total).or(more);
        }
        for (name, count) in later.warnings {
            *self.warnings.entry(name).or_default() += count;
        }
    }
}

impl Report {
    /// An empty report of the run.
    pub fn begin(run: &Run) -> Self {
        Self {
            command: run.command.clone(),
            run_id: Some(run.id),
            new_files: 0,
            left: Left::default(),
            steps: Vec::new(),
            warnings: BTreeMap::new(),
            checks: Vec::new(),
            withheld: Vec::new(),
            balance: Vec::new(),
            published: Vec::new(),
            publishing_seconds: 0.0,
            problems: Vec::new(),
            commits: 0,
            seconds: 0.0,
            started: std::time::Instant::now(),
        }
    }

    /// One step per table: what the stream has done since it settled last.
    pub fn fold_steps(&mut self) {
        let mut folded: Vec<Step> = Vec::new();
        for step in self.steps.drain(..) {
            match folded.iter_mut().find(|known| known.table == step.table) {
                Some(known) => known.add(step),
                None => folded.push(step),
            }
        }
        self.steps = folded;
    }

    pub(super) fn landing(&mut self, pending: &Pending) {
        self.new_files = pending.num_new_files;
        self.left_in_landing(pending.left.clone());
    }

    /// What landing holds beside what is taken in.
    pub fn left_in_landing(&mut self, left: Left) {
        self.problems = left.problems();
        self.left = left;
    }

    /// Whether the run changed anything.
    pub fn is_idle(&self) -> bool {
        self.commits == 0
    }

    pub fn failed_checks(&self) -> impl Iterator<Item = &CheckResult> {
        self.checks.iter().filter(|check| check.has_failed())
    }

    /// What makes the run end with the exit code of bad data.
    pub fn verdict(&self) -> Vec<String> {
        let mut found = self.problems.clone();
        let unbalanced = self.balance.iter().filter(|row| row.difference != 0);
        found.extend(unbalanced.map(ToString::to_string));
        found.extend(self.failed_checks().map(ToString::to_string));
        found.extend(self.withheld.iter().map(ToString::to_string));
        found.extend(self.published.iter().filter_map(|publication| publication.obstacle.clone()));
        found
    }

    /// Whether checks have ended otherwise than when the books were closed last.
    pub(super) async fn has_other_checks(&self, run: &Run) -> Result<bool> {
        Ok(!self.checks.is_empty()
            && check_history::is_news(&self.checks, &check_history::last(&run.ledger).await?))
    }

    /// Whether the balance is another than when the books were closed last.
    pub(super) async fn has_other_balance(&self, run: &Run) -> Result<bool> {
        let of_lake = |rows: &[BalanceRow]| -> Vec<BalanceRow> {
            rows.iter().filter(|row| row.scope == "lake").cloned().collect()
        };
        Ok(of_lake(&self.balance) != of_lake(&balance::stored(run).await?))
    }

    /// What has changed since partitions were computed: models, and the rules that decide over records.
    pub(super) async fn warn_of_stale(&mut self, run: &Run) -> Result<()> {
        for model in run.project.stored_models() {
            let stale = dirty::stale(run, model)?;
            if !stale.is_empty() {
                let name = format!(
                    "partitions of {} were computed by an older form of it; `medallion rerun --stale` mends them",
                    model.table
                );
                self.warnings.insert(name, stale.num_partitions() as u64);
            }
        }
        for (source, dates) in super::decisions::stale(run).await? {
            let name = format!(
                "dates of {source} were decided by older rules; `medallion rerun --stale` decides them again"
            );
            self.warnings.insert(name, dates.len() as u64);
        }
        Ok(())
    }

    /// What the ledger has lost of what the tables know of.
    pub(super) fn warn_of_lost(&mut self, run: &Run) {
        if let Some(lost) = lost::lost_runs(run) {
            let name = "runs are not in `ledger.runs`: it has lost commits, and what these runs did is lost with them";
            self.warnings.insert(name.to_owned(), lost.count());
        }
        if let Some(lost) = lost::lost_decisions(run) {
            let name = "decisions over refused records are lost with a part of the ledger; `medallion doctor` says what to do";
            self.warnings.insert(name.to_owned(), lost.count());
        }
    }

    /// Appends the report to the ledger as it is, and leaves checks and balance open: the next run closes them.
    pub(super) async fn note(&mut self, run: &mut Run) -> Result<()> {
        if run.num_commits == 0 {
            return Ok(());
        }
        self.commits = run.num_commits + 1;
        self.seconds = self.started.elapsed().as_secs_f64();
        let row = super::runs::row(run, "done", self.commits, &serde_json::to_string(self)?)?;
        super::runs::append(run, &row).await?;
        run.num_commits += 1;
        Ok(())
    }

    /// Completes the report and appends it, with the balance, to the ledger.
    pub(super) async fn close(&mut self, run: &mut Run) -> Result<()> {
        for step in &self.steps {
            for (name, count) in &step.warnings {
                *self.warnings.entry(name.clone()).or_default() += count;
            }
        }
        for ((source, _), counts) in super::decisions::read(run).await? {
            for (name, count) in counts.warnings {
                *self.warnings.entry(format!("{source}.{name}, in the whole lake")).or_default() += count;
            }
        }
        for row in
            self.balance.iter().filter(|row| row.scope == "run" && row.measure == super::balance::RECORDS)
        {
            if row.quarantined * 2 > row.landed && row.landed > 0 {
                let name = format!("records of {} were refused, most of what landed", row.source);
                let records = u64::try_from(row.quarantined / 1_000_000).unwrap_or(0);
                self.warnings.insert(name, records);
            }
        }
        check_history::record(run, &self.checks).await?;
        self.commits = run.num_commits + 2;
        self.seconds = self.started.elapsed().as_secs_f64();
        let has_failed = !self.verdict().is_empty();
        let report = serde_json::to_string(self)?;
        let outcome = if has_failed { "failed" } else { "done" };
        let runs = super::runs::row(run, outcome, self.commits, &report)?;
        let balances = balance::prepare(run, &self.balance).await?;
        let mut runs = ledger::prepare(&run.ledger.runs, &runs).await?;
        runs.positions = positions(run);
        // a failed check or balance is looked at again by the next run, whatever is new
        let must_return =
            self.failed_checks().next().is_some() || self.balance.iter().any(|row| row.difference != 0);
        runs.positions.insert(UNSETTLED.to_owned(), i64::from(must_return));
        runs.positions.insert(CHECKS.to_owned(), form_of_checks(run));
        runs.positions.insert(RUN.to_owned(), run.id);
        run.ledger.balances.commit(&balances).await?;
        // so that a table of the ledger that has lost commits is known
        let ledger = run.ledger.tables().into_iter().filter(|table| table.name() != run.ledger.runs.name());
        runs.positions.extend(ledger.map(|table| (table.name().to_owned(), table.version())));
        run.ledger.runs.commit(&runs).await?;
        run.num_commits += 2;
        Ok(())
    }
}

/// Whether the last run left something to look at again.
const UNSETTLED: &str = "unsettled";

/// With which form of the project's checks the last run has closed.
const CHECKS: &str = "checks";

fn form_of_checks(run: &Run) -> i64 {
    let all = run.project.checks.iter().map(|check| check.fingerprint.as_str());
    fingerprint::position(&fingerprint::of_all(all))
}

/// The versions that a run has closed with.
fn positions(run: &Run) -> BTreeMap<String, i64> {
    run.zone_tables().map(|table| (table.name().to_owned(), table.version())).collect()
}

/// How the last run has left the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Books {
    /// Checks and balance speak of the tables as they are, and found nothing.
    Closed,
    /// They do, and a person has to look at what they found.
    Unsettled,
    /// They speak of other tables, or of other checks.
    Open,
}

/// How the last run has left the ledger.
///
/// # Errors
/// The store's.
pub(super) async fn books(run: &Run) -> Result<Books> {
    let runs = &run.ledger.runs;
    if run.zone_tables().all(|table| table.version() < 0) {
        return Ok(Books::Closed);
    }
    if runs.position(CHECKS) != Some(form_of_checks(run)) {
        return Ok(Books::Open);
    }
    // a run was killed, or its report is lost
    if lost::unreported_runs(run).is_some() {
        return Ok(Books::Open);
    }
    // what the last run found was lost since
    let found = [&run.ledger.balances, &run.ledger.checks];
    if found.into_iter().any(|table| runs.position(table.name()).is_some_and(|known| table.version() < known))
    {
        return Ok(Books::Open);
    }
    for table in run.zone_tables().filter(|table| table.version() >= 0) {
        let Some(known) = runs.position(table.name()) else {
            return Ok(Books::Open);
        };
        // a compaction since then has changed no row
        if known != table.version()
            && table.changed_since(known, 1).await?.is_none_or(|changed| !changed.is_empty())
        {
            return Ok(Books::Open);
        }
    }
    Ok(match runs.position(UNSETTLED) {
        Some(0) => Books::Closed,
        Some(_) => Books::Unsettled,
        None => Books::Open,
    })
}
