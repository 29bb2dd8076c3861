//! The stream: follows landing and moves micro-batches through the same hops as a batch run.
//!
//! | when | what |
//! |---|---|
//! | files are complete | landing → bronze and quarantine, at once |
//! | `refresh` after the last time | bronze → silver → gold |
//! | nothing new for `idle`, every `settle`, at the end | checks, balance, the report |
//!
//! Nothing is remembered that the lake does not say: a stream that ends anywhere is continued by the next stream or run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::anomalies::Anomalies;
use super::export;
use super::meter::Meter;
use super::publisher::Publisher;
use super::stop::Stop;
use super::watch::Watch;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::landing::{self, Pending};
use crate::flow::report::Report;
use crate::flow::{self, Run};
use crate::ledger;
use crate::notify::Telling;
use crate::project::stream::StreamLimits;
use crate::source::files::LandedFile;
use crate::source::follow::Follower;

/// How often the whole of landing is compared with what was taken in.
const COMPARE_EVERY: Duration = Duration::from_secs(600);

/// Waits between attempts while a store is unavailable: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How often it is looked at how fresh the tables are, also with nothing new: that is when they are not.
const FRESHNESS_EVERY: Duration = Duration::from_secs(10);

/// A stream that has failed so often in a row is not about to mend itself: somebody is told.
const TELLING_FAILURES: u32 = 3;

/// With `--until-idle`, so many failures in a row end the stream.
const MAX_FAILURES: u32 = 5;

/// A micro-batch is never made smaller than this by its time.
const LEAST_BYTES: u64 = 1024 * 1024;

/// So many rows in memory are refreshed without waiting.
const MAX_FRESH: usize = 200_000;

/// Small files are looked for after so many micro-batches.
const COMPACT_EVERY: usize = 8;

/// Bytes of a record, before any was seen.
const RECORD_BYTES: f64 = 250.0;

/// How a stream works.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// End when nothing is left.
    pub until_idle: bool,
}

/// Follows landing until it is asked to stop, or idle; returns the report of the last settle.
///
/// # Errors
/// `Conflict` where another run has changed the lake; what no retry can mend.
pub async fn run(
    run: &mut Run,
    options: Options,
    stop: &Stop,
    meter: &Arc<Meter>,
    watches: &mut [Watch],
    publisher: &mut Publisher,
    telling: &Telling,
) -> Result<Report> {
    run.command = "stream".to_owned();
    run.lake.checkpoint_in_background();
    run.remember_recent(run.project.stream.ids_bytes);
    let mut failures = 0;
    let mut anomalies = Anomalies::begin(run, telling)?;
    loop {
        let (out, told) = ((&mut *watches, &mut *publisher), (telling, &mut anomalies));
        let mut stream = Stream::begin(run, options, stop, meter, out, told);
        let ended = stream.work(&mut failures).await;
        let error = match ended {
            Ok(report) => return Ok(report),
            Err(error) => error,
        };
        failures += 1;
        let is_hopeless = options.until_idle && failures >= MAX_FAILURES;
        if error.kind() != ErrorKind::Unavailable || is_hopeless || stop.is_asked() {
            return Err(error);
        }
        meter.failed();
        telling.failed(&error);
        if failures >= TELLING_FAILURES {
            telling.stumbled("stream", Some(&error));
        }
        let mut wait = RETRY.0.saturating_mul(1 << (failures - 1).min(5)).min(RETRY.1);
        tracing::error!("{error}; nothing is lost, trying again in {} s", wait.as_secs());
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.asked() => return Err(error),
            }
            match run.reopen().await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::Unavailable && !options.until_idle => {
                    meter.failed();
                    telling.stumbled("stream", Some(&error));
                    tracing::error!("{error}; trying again");
                    wait = RETRY.1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

struct Stream<'a> {
    run: &'a mut Run,
    limits: StreamLimits,
    options: Options,
    stop: &'a Stop,
    meter: &'a Arc<Meter>,
    watches: &'a mut [Watch],
    publisher: &'a mut Publisher,
    telling: &'a Telling,
    anomalies: &'a mut Anomalies,
    report: Report,
    /// Found and not yet taken in: the oldest first.
    backlog: BTreeMap<(i64, String), LandedFile>,
    /// What one micro-batch may hold now.
    batch_bytes: u64,
    record_bytes: f64,
    /// Since the last compaction.
    num_batches: usize,
    is_dirty: bool,
    has_refreshed: bool,
    is_unsettled: bool,
    last_arrival: Instant,
    last_refresh: (Instant, Duration),
    last_settle: Instant,
    last_compare: Instant,
    last_freshness: Instant,
}

impl<'a> Stream<'a> {
    fn begin(
        run: &'a mut Run,
        options: Options,
        stop: &'a Stop,
        meter: &'a Arc<Meter>,
        (watches, publisher): (&'a mut [Watch], &'a mut Publisher),
        (telling, anomalies): (&'a Telling, &'a mut Anomalies),
    ) -> Self {
        let limits = run.project.stream.clone();
        let report = Report::begin(run);
        let now = Instant::now();
        Self {
            batch_bytes: limits.batch_bytes,
            limits,
            run,
            options,
            stop,
            meter,
            watches,
            publisher,
            telling,
            anomalies,
            report,
            backlog: BTreeMap::new(),
            record_bytes: RECORD_BYTES,
            num_batches: 0,
            is_dirty: true,
            has_refreshed: false,
            is_unsettled: true,
            last_arrival: now,
            last_refresh: (now, Duration::ZERO),
            last_settle: now,
            last_compare: now,
            last_freshness: now,
        }
    }

    async fn work(&mut self, failures: &mut u32) -> Result<Report> {
        let known = ledger::files(&self.run.ledger.files).await?;
        self.report.problems = landing::problems(self.run, &known).await?;
        for problem in &self.report.problems {
            tracing::error!("{problem}");
        }
        let pending = landing::unfinished(self.run, &known);
        let mut follower = Follower::new(
            Arc::clone(&self.run.project),
            Arc::clone(&self.run.landing),
            known.into_iter().map(|file| file.path),
            self.limits.quiet,
        );
        export::note_event_times(self.meter, self.run)?;
        if !pending.batches.is_empty() {
            self.micro_batch(pending).await?;
        }
        loop {
            let look = follower.look().await?;
            for file in look.ready {
                self.backlog.insert((file.modified, file.path.clone()), file);
            }
            self.meter.waiting(self.backlog.len(), look.num_waiting);
            if self.stop.is_asked() {
                return self.end().await;
            }
            let files = self.next_files();
            let has_worked = !files.is_empty();
            if has_worked {
                let mut pending = Pending::default();
                self.run.begin_batch();
                landing::write_ahead(self.run, &files, &mut pending).await?;
                self.micro_batch(pending).await?;
                self.meter.waiting(self.backlog.len(), look.num_waiting);
                *failures = 0;
            }
            if self.is_refresh_due() {
                self.refresh().await?;
            }
            if self.num_batches >= COMPACT_EVERY {
                flow::compact::compact(self.run).await?;
                self.num_batches = 0;
            }
            if self.is_settle_due() {
                self.settle(false).await?;
            }
            if self.last_freshness.elapsed() >= FRESHNESS_EVERY {
                self.telling.look_at_freshness(self.run).await;
                self.last_freshness = Instant::now();
            }
            let is_idle = !has_worked && self.backlog.is_empty() && look.num_waiting == 0;
            if self.options.until_idle && is_idle {
                return self.end().await;
            }
            if self.backlog.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep(self.limits.poll) => {}
                    () = self.stop.asked() => {}
                }
            }
        }
    }

    /// The next micro-batch, at least one file where there is one.
    fn next_files(&mut self) -> Vec<LandedFile> {
        let by_rows = (self.limits.batch_rows as f64 * self.record_bytes) as u64;
        let most_bytes = self.batch_bytes.min(by_rows);
        let mut files: Vec<LandedFile> = Vec::new();
        let mut bytes = 0;
        while files.len() < self.limits.batch_files.max(1)
            && let Some(entry) = self.backlog.first_entry()
            && (files.is_empty() || bytes + entry.get().bytes <= most_bytes)
        {
            bytes += entry.get().bytes;
            files.push(entry.remove());
        }
        files
    }

    /// Landing → bronze.
    #[tracing::instrument(target = "hop", name = "micro-batch", skip_all)]
    async fn micro_batch(&mut self, pending: Pending) -> Result<()> {
        let begun = Instant::now();
        let num_files: usize = pending.batches.values().flat_map(|batch| batch.values()).map(Vec::len).sum();
        let bytes: i64 =
            pending.batches.values().flat_map(|batch| batch.values().flatten()).map(|file| file.bytes).sum();
        let num_steps = self.report.steps.len();
        self.telling.begun();
        self.report.new_files += pending.num_new_files;
        flow::take_in(self.run, &pending, &mut self.report).await?;
        self.run.lake.sync().await?;
        let elapsed = begun.elapsed();
        let mut records = 0;
        for step in &self.report.steps[num_steps..] {
            let landed = step.landed.unwrap_or(0);
            records += landed;
            export::count(self.meter, step);
        }
        self.report.fold_steps();
        export::note_event_times(self.meter, self.run)?;
        self.meter.micro_batch(elapsed);
        if records > 0 {
            let seen = bytes as f64 / records as f64;
            self.record_bytes = 0.8 * self.record_bytes + 0.2 * seen.clamp(1.0, 1e6);
        }
        if elapsed > self.limits.batch_time {
            let share = self.limits.batch_time.as_secs_f64() / elapsed.as_secs_f64();
            let smaller = bytes.unsigned_abs() as f64 * share;
            self.batch_bytes = (smaller as u64).clamp(LEAST_BYTES, self.limits.batch_bytes.max(LEAST_BYTES));
        } else if elapsed < self.limits.batch_time / 2 {
            self.batch_bytes = self.batch_bytes.saturating_mul(2).min(self.limits.batch_bytes);
        }
        tracing::debug!(files = num_files, records, ms = elapsed.as_millis(), "micro-batch in bronze");
        self.num_batches += 1;
        self.is_dirty = true;
        self.is_unsettled = true;
        self.last_arrival = Instant::now();
        Ok(())
    }

    /// Files that wait get at least as much of the time as refreshing takes.
    fn is_refresh_due(&self) -> bool {
        let (ended, took) = self.last_refresh;
        if self.run.num_fresh() >= MAX_FRESH {
            return true;
        }
        let pause = match self.backlog.is_empty() {
            true => self.limits.refresh.saturating_sub(took),
            false => self.limits.refresh.max(took),
        };
        self.is_dirty && ended.elapsed() >= pause
    }

    #[tracing::instrument(target = "hop", name = "refresh", skip_all)]
    async fn refresh(&mut self) -> Result<()> {
        let begun = Instant::now();
        // what came before this process is computed once; from then on what is new can be appended
        match self.has_refreshed {
            true => flow::refresh_recent(self.run, &mut self.report).await?,
            false => flow::refresh(self.run, &mut self.report).await?,
        }
        self.has_refreshed = true;
        self.report.fold_steps();
        self.run.lake.sync().await?;
        self.last_refresh = (Instant::now(), begun.elapsed());
        self.meter.refreshed(begun.elapsed());
        self.is_dirty = false;
        self.publisher.follow(self.run).await;
        self.look_at_watches().await
    }

    async fn look_at_watches(&mut self) -> Result<()> {
        for watch in self.watches.iter_mut() {
            watch.look(self.run).await?;
        }
        self.anomalies.look(self.run).await;
        Ok(())
    }

    fn is_settle_due(&self) -> bool {
        let is_idle = self.backlog.is_empty() && self.last_arrival.elapsed() >= self.limits.idle;
        self.is_unsettled && (is_idle || self.last_settle.elapsed() >= self.limits.settle)
    }

    /// Everything is computed, checked and balanced, and the report is in the ledger.
    #[tracing::instrument(target = "hop", name = "settle", skip_all)]
    async fn settle(&mut self, is_last: bool) -> Result<Report> {
        let begun = Instant::now();
        if self.last_compare.elapsed() >= COMPARE_EVERY {
            let known = ledger::files(&self.run.ledger.files).await?;
            self.report.problems = landing::problems(self.run, &known).await?;
            self.last_compare = Instant::now();
        }
        if self.num_batches > 0 {
            flow::compact::compact(self.run).await?;
            self.num_batches = 0;
        }
        if self.is_dirty {
            // appended where that is possible, so that less is left to be computed again
            self.refresh().await?;
        }
        flow::refresh(self.run, &mut self.report).await?;
        self.report.fold_steps();
        self.look_at_watches().await?;
        flow::settle(self.run, &mut self.report).await?;
        self.publisher.follow(self.run).await;
        self.report.published = self.publisher.take_published();
        let (news, store) = (self.anomalies.take(is_last), self.publisher.target());
        self.telling.settled(self.run, &self.report, news, store).await;
        self.telling.stumbled("publish", self.publisher.failure());
        self.last_freshness = Instant::now();
        self.run.begin_again().await;
        let mut next = Report::begin(self.run);
        next.problems = self.report.problems.clone();
        let report = std::mem::replace(&mut self.report, next);
        let verdict = report.verdict();
        for line in &verdict {
            tracing::error!("{line}");
        }
        self.is_unsettled = false;
        self.last_settle = Instant::now();
        self.meter.settled(begun.elapsed(), verdict.len());
        tracing::info!("settled in {:.2} s: {}", begun.elapsed().as_secs_f64(), self.meter.line());
        Ok(report)
    }

    async fn end(&mut self) -> Result<Report> {
        let report = self.settle(true).await?;
        self.publisher.finish(self.run).await;
        Ok(report)
    }
}

/// A stream works on a lake that nobody else writes.
///
/// # Errors
/// As [`super::batch::lock`].
pub fn lock(lake: &crate::lake::Lake) -> Result<flow::lock::Lock> {
    super::batch::lock(lake).map_err(|error| match error.kind() {
        ErrorKind::Conflict => Error::conflict(format!(
            "{}; a lake has one writer at a time, a run or a stream",
            error.message()
        )),
        _ => error,
    })
}
