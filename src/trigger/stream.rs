//! The stream: follows landing and moves micro-batches through the same hops as a batch run.
//!
//! | when | what |
//! |---|---|
//! | files are complete | landing → bronze and quarantine, at once |
//! | `refresh` after the last time | bronze → silver → gold |
//! | nothing new for `idle`, every `settle`, at the end | checks, balance, the report |
//! | a command waits for the lake | it gets its turn, between two of these |
//!
//! Nothing is remembered that the lake does not say: a stream that ends anywhere is continued by the next stream or run, and
//! one that was not alone with the lake looks at the tables again.

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
use crate::flow::compact::Compaction;
use crate::flow::landing::{self, Pending};
use crate::flow::lock::Seat;
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

/// So many commits in a row may be lost to other writers.
const MAX_CONFLICTS: u32 = 50;

/// Told to end while another command has the lake, a stream waits so long for it, to settle.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

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

/// Who sees what a stream does.
pub struct Outlets {
    pub watches: Vec<Watch>,
    pub publisher: Publisher,
    pub telling: Telling,
    anomalies: Anomalies,
}

impl Outlets {
    /// # Errors
    /// As [`Anomalies::begin`].
    pub fn new(run: &Run, watches: Vec<Watch>, publisher: Publisher, telling: Telling) -> Result<Outlets> {
        let anomalies = Anomalies::begin(run, &telling)?;
        Ok(Outlets { watches, publisher, telling, anomalies })
    }
}

/// Follows landing until it is asked to stop, or idle; returns the report of the last settle.
///
/// # Errors
/// `Conflict` where another process takes landing in; what no retry can mend.
pub async fn run(
    run: &mut Run,
    seat: &mut Seat,
    options: Options,
    stop: &Stop,
    meter: &Arc<Meter>,
    out: &mut Outlets,
) -> Result<Report> {
    run.command = "stream".to_owned();
    run.lake.checkpoint_in_background();
    run.remember_recent(run.project.stream.ids_bytes)?;
    let ended = follow(run, seat, options, stop, meter, out).await;
    run.lake.checkpoints_written().await;
    ended
}

async fn follow(
    run: &mut Run,
    seat: &mut Seat,
    options: Options,
    stop: &Stop,
    meter: &Arc<Meter>,
    out: &mut Outlets,
) -> Result<Report> {
    let mut tries = Tries::default();
    loop {
        let mut stream = Stream::begin(run, seat, options, stop, meter, out);
        let ended = stream.work(&mut tries).await;
        let is_fenced = stream.is_fenced;
        let error = match ended {
            Ok(report) => return Ok(report),
            Err(error) => error,
        };
        let mut wait = match error.kind() {
            // who changed the tables has done so rightly: they are looked at again
            ErrorKind::Conflict if !is_fenced && tries.conflicts < MAX_CONFLICTS => {
                tries.conflicts += 1;
                tracing::info!("{error}: the tables are looked at again");
                Duration::from_millis(20).saturating_mul(tries.conflicts)
            }
            ErrorKind::Unavailable if !stop.is_asked() => {
                tries.failures += 1;
                if options.until_idle && tries.failures >= MAX_FAILURES {
                    return Err(error);
                }
                meter.failed();
                out.telling.failed(&error);
                tries.tell(&out.telling, &error);
                let wait = RETRY.0.saturating_mul(1 << (tries.failures - 1).min(5)).min(RETRY.1);
                tracing::error!("{error}; nothing is lost, trying again in {} s", wait.as_secs());
                wait
            }
            _ => return Err(error),
        };
        let can_stop = error.kind() == ErrorKind::Unavailable;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.asked(), if can_stop => return Err(error),
                () = seat.wanted() => hand_over(seat, stop).await?,
            }
            match run.reopen().await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::Unavailable && !options.until_idle => {
                    meter.failed();
                    tries.failures += 1;
                    tries.tell(&out.telling, &error);
                    tracing::error!("{error}; trying again");
                    wait = RETRY.1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What went wrong since something went well.
#[derive(Debug, Default)]
struct Tries {
    failures: u32,
    conflicts: u32,
}

impl Tries {
    /// Tells somebody, where this is not about to mend itself.
    fn tell(&self, telling: &Telling, error: &Error) {
        if self.failures >= TELLING_FAILURES {
            telling.stumbled("stream", Some(error));
        }
    }
}

/// Gives the lake to whoever waits for it, and takes it back.
async fn hand_over(seat: &mut Seat, stop: &Stop) -> Result<()> {
    let begun = Instant::now();
    tracing::info!("the lake is handed over to a command that waits for it");
    let told_to_end = async {
        stop.asked().await;
        tokio::time::sleep(STOP_PATIENCE).await;
    };
    tokio::select! {
        handed = seat.hand_over() => handed?,
        () = told_to_end => return Err(Error::conflict(
            "told to end while another command has the lake; nothing is lost, the next stream or run settles",
        )),
    }
    tracing::info!("the lake is back after {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}

struct Stream<'a> {
    run: &'a mut Run,
    seat: &'a mut Seat,
    limits: StreamLimits,
    options: Options,
    stop: &'a Stop,
    meter: &'a Arc<Meter>,
    out: &'a mut Outlets,
    report: Report,
    /// Found and not yet taken in: the oldest first.
    backlog: BTreeMap<(i64, String), LandedFile>,
    /// What one micro-batch may hold now.
    batch_bytes: u64,
    record_bytes: f64,
    /// Since small files were last looked for.
    num_batches: usize,
    compaction: Option<Compaction>,
    is_dirty: bool,
    has_refreshed: bool,
    is_unsettled: bool,
    last_arrival: Instant,
    last_refresh: (Instant, Duration),
    last_settle: Instant,
    last_compare: Instant,
    last_freshness: Instant,
    /// The lake is another's, for good.
    is_fenced: bool,
}

impl<'a> Stream<'a> {
    fn begin(
        run: &'a mut Run,
        seat: &'a mut Seat,
        options: Options,
        stop: &'a Stop,
        meter: &'a Arc<Meter>,
        out: &'a mut Outlets,
    ) -> Self {
        let limits = run.project.stream.clone();
        let report = Report::begin(run);
        let now = Instant::now();
        Self {
            batch_bytes: limits.batch_bytes,
            limits,
            run,
            seat,
            options,
            stop,
            meter,
            out,
            report,
            backlog: BTreeMap::new(),
            record_bytes: RECORD_BYTES,
            num_batches: 0,
            compaction: None,
            is_dirty: true,
            has_refreshed: false,
            is_unsettled: true,
            last_arrival: now,
            last_refresh: (now, Duration::ZERO),
            last_settle: now,
            last_compare: now,
            last_freshness: now,
            is_fenced: false,
        }
    }

    async fn work(&mut self, tries: &mut Tries) -> Result<Report> {
        loop {
            if let Some(report) = self.follow(tries).await? {
                return Ok(report);
            }
        }
    }

    /// Follows landing to the end; `None` where it was another's meanwhile and is to be followed anew.
    async fn follow(&mut self, tries: &mut Tries) -> Result<Option<Report>> {
        flow::interventions::resume(self.run).await?;
        let known = landing::known_files(self.run).await?;
        self.report.left_in_landing(landing::left(self.run, &known).await?);
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
        self.backlog.clear();
        export::note_event_times(self.meter, self.run)?;
        // what comes from now on can be appended at once where nothing from before is left
        self.has_refreshed = flow::is_up_to_date(self.run).await?;
        if !pending.batches.is_empty() {
            self.micro_batch(pending).await?;
        }
        loop {
            if self.seat.is_wanted() && self.give_turn().await? {
                return Ok(None);
            }
            let look = follower.look().await?;
            for file in look.ready {
                self.backlog.insert((file.modified, file.path.clone()), file);
            }
            self.meter.waiting(self.backlog.len(), look.num_waiting);
            if self.stop.is_asked() {
                return self.settle(true).await.map(Some);
            }
            let files = self.next_files();
            let has_worked = !files.is_empty();
            if has_worked {
                let mut pending = Pending::default();
                self.run.begin_batch();
                let written = landing::write_ahead(self.run, &files, &mut pending).await;
                self.is_fenced = written.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict);
                written?;
                self.micro_batch(pending).await?;
                self.meter.waiting(self.backlog.len(), look.num_waiting);
                *tries = Tries::default();
            }
            if self.is_refresh_due() {
                self.refresh().await?;
            }
            self.compact().await?;
            if self.is_settle_due() {
                self.settle(false).await?;
                *tries = Tries::default();
            }
            self.out.publisher.follow(self.run).await?;
            if self.last_freshness.elapsed() >= FRESHNESS_EVERY {
                self.out.telling.look_at_freshness(self.run).await;
                self.last_freshness = Instant::now();
            }
            let is_idle = !has_worked && self.backlog.is_empty() && look.num_waiting == 0;
            if self.options.until_idle && is_idle {
                return self.settle(true).await.map(Some);
            }
            if self.backlog.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep(self.limits.poll) => {}
                    () = self.stop.asked() => {}
                    () = self.seat.wanted() => {}
                }
            }
        }
    }

    /// Somebody else's turn, between two steps. Everything is looked at again after it; whether landing, too, is to be.
    async fn give_turn(&mut self) -> Result<bool> {
        // what the other builds upon is to be on the disk before, and nothing of ours is to be written after
        self.end_compaction().await?;
        self.run.lake.sync().await?;
        let taken_in = self.run.ledger.files.version();
        let handed = hand_over(self.seat, self.stop).await;
        self.is_fenced = handed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict);
        handed?;
        self.run.reopen().await?;
        flow::interventions::resume(self.run).await?;
        self.report.run_id = Some(self.run.id);
        export::note_event_times(self.meter, self.run)?;
        self.is_dirty = true;
        self.has_refreshed = flow::is_up_to_date(self.run).await?;
        self.is_unsettled = true;
        Ok(self.run.ledger.files.version() != taken_in)
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
        self.out.telling.begun();
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

    /// Small files are put together beside the work, a part of them at a time.
    async fn compact(&mut self) -> Result<()> {
        if self.compaction.as_ref().is_some_and(Compaction::is_finished) {
            self.end_compaction().await?;
        }
        if self.compaction.is_none() && self.num_batches >= COMPACT_EVERY {
            self.compaction = Compaction::begin(self.run);
            self.num_batches = 0;
        }
        Ok(())
    }

    async fn end_compaction(&mut self) -> Result<()> {
        if let Some(compaction) = self.compaction.take() {
            compaction.commit(self.run).await?;
        }
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
        self.out.publisher.note_change();
        self.out.publisher.follow(self.run).await?;
        self.look_at_watches().await
    }

    async fn look_at_watches(&mut self) -> Result<()> {
        for watch in &mut self.out.watches {
            watch.look(self.run).await?;
        }
        self.out.anomalies.look(self.run).await;
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
            self.report.left_in_landing(landing::left(self.run, &known).await?);
            self.last_compare = Instant::now();
        }
        self.end_compaction().await?;
        if self.is_dirty {
            // appended where that is possible, so that less is left to be computed again
            self.refresh().await?;
        }
        flow::refresh(self.run, &mut self.report).await?;
        self.report.fold_steps();
        self.look_at_watches().await?;
        flow::settle(self.run, &mut self.report).await?;
        self.out.publisher.note_change();
        match is_last {
            true => self.out.publisher.finish(self.run).await?,
            false => self.out.publisher.follow(self.run).await?,
        }
        self.tell(is_last).await;
        self.run.begin_again().await;
        let mut next = Report::begin(self.run);
        next.left_in_landing(self.report.left.clone());
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

    /// Others are told what the settle has found.
    async fn tell(&mut self, is_last: bool) {
        self.report.published = self.out.publisher.take_published();
        let (telling, publisher) = (&self.out.telling, &self.out.publisher);
        let news = self.out.anomalies.take(is_last);
        telling.settled(self.run, &self.report, news, publisher.target()).await;
        // of a stream that publishes nothing there is nothing to tell
        if publisher.target().is_some() {
            telling.stumbled("publish", publisher.failure());
        }
        self.last_freshness = Instant::now();
    }
}
