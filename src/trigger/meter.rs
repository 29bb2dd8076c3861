//! What a stream says of itself while it works: numbers that a status line, a log and a metrics endpoint show.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::{duration_text, time_text};

/// Upper ends of the buckets of durations, in seconds.
pub(super) const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// The rate that is shown is that of the last micro-batches, over about this long.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// The numbers of one stream.
#[derive(Debug)]
pub struct Meter {
    inner: Mutex<Numbers>,
    on_duration: OnDuration,
}

/// Who else is told how long something took: the metric's name, and the time.
pub(super) type TellDuration = Box<dyn Fn(&'static str, Duration) + Send + Sync>;

#[derive(Default)]
struct OnDuration(OnceLock<TellDuration>);

impl std::fmt::Debug for OnDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OnDuration({})", self.0.get().is_some())
    }
}

/// Whether a number only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// A number that is shown, and where it is read off.
pub(super) struct Number<T> {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    value: fn(&T) -> Option<f64>,
}

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> Option<f64>) -> Number<T> {
    Number { name, kind: Kind::Counter, help, value }
}

const fn gauge<T>(name: &'static str, help: &'static str, value: fn(&T) -> Option<f64>) -> Number<T> {
    Number { name, kind: Kind::Gauge, help, value }
}

/// One for each source.
pub(super) static OF_SOURCES: [Number<SourceNumbers>; 7] = [
    counter("medallion_landed_files_total", "Files taken in.", |s| Some(s.files as f64)),
    counter("medallion_landed_records_total", "Records that landed.", |s| Some(s.landed as f64)),
    counter("medallion_typed_records_total", "Records appended to bronze.", |s| Some(s.typed as f64)),
    counter("medallion_quarantined_records_total", "Records refused on the way into bronze.", |s| {
        Some(s.quarantined as f64)
    }),
    counter("medallion_late_records_total", "Records behind the watermark.", |s| Some(s.late as f64)),
    gauge("medallion_watermark_timestamp_seconds", "The watermark, in seconds since the epoch.", |s| {
        s.watermark.map(seconds)
    }),
    gauge(
        "medallion_newest_event_timestamp_seconds",
        "The newest event time, in seconds since the epoch.",
        |s| s.newest.map(seconds),
    ),
];

/// One for all.
pub(super) static OF_STREAM: [Number<Numbers>; 5] = [
    gauge("medallion_backlog_files", "Files found and not yet taken in.", |n| Some(n.backlog_files as f64)),
    gauge("medallion_unfinished_files", "Files that may still grow.", |n| Some(n.waiting_files as f64)),
    gauge("medallion_problems", "Problems that the last settle found.", |n| Some(n.num_problems as f64)),
    counter("medallion_errors_total", "Steps that failed and were repeated.", |n| Some(n.errors as f64)),
    gauge(
        "medallion_last_commit_timestamp_seconds",
        "When the last commit was made, in seconds since the epoch.",
        |n| n.last_commit.map(seconds),
    ),
];

/// Histograms.
pub(super) const DURATIONS: [(&str, &str); 3] = [
    ("medallion_micro_batch_duration_seconds", "Landing to bronze."),
    ("medallion_refresh_duration_seconds", "Bronze to gold."),
    ("medallion_settle_duration_seconds", "Checks and balance."),
];

#[derive(Debug)]
pub(super) struct Numbers {
    started: Instant,
    by_source: BTreeMap<String, SourceNumbers>,
    micro_batches: Durations,
    refreshes: Durations,
    settles: Durations,
    errors: u64,
    backlog_files: usize,
    waiting_files: usize,
    num_problems: usize,
    last_commit: Option<i64>,
    recent: Vec<(Instant, u64)>,
}

/// What one source has brought.
#[derive(Debug, Default, Clone)]
pub(super) struct SourceNumbers {
    files: u64,
    landed: u64,
    typed: u64,
    quarantined: u64,
    late: u64,
    /// Microseconds since the epoch.
    watermark: Option<i64>,
    newest: Option<i64>,
}

/// A histogram of durations.
#[derive(Debug, Default)]
struct Durations {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        for (bucket, count) in BUCKETS.iter().zip(&mut self.counts) {
            if seconds <= *bucket {
                *count += 1;
            }
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// What one step of a source brought.
#[derive(Debug, Default, Clone, Copy)]
pub struct Arrived {
    pub files: u64,
    pub landed: u64,
    pub typed: u64,
    pub quarantined: u64,
    pub late: u64,
}

/// What a stream has done in all.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Totals {
    pub micro_batches: u64,
    pub files: u64,
    pub records: u64,
    pub quarantined: u64,
    pub late: u64,
    pub settles: u64,
    pub errors: u64,
    pub seconds: f64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Numbers {
                started: Instant::now(),
                by_source: BTreeMap::new(),
                micro_batches: Durations::default(),
                refreshes: Durations::default(),
                settles: Durations::default(),
                errors: 0,
                backlog_files: 0,
                waiting_files: 0,
                num_problems: 0,
                last_commit: None,
                recent: Vec::new(),
            }),
            on_duration: OnDuration::default(),
        }
    }
}

impl Meter {
    fn with<T>(&self, change: impl FnOnce(&mut Numbers) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A source's part of a micro-batch is in bronze.
    pub fn arrived(&self, source: &str, arrived: Arrived) {
        self.with(|numbers| {
            let of_source = numbers.by_source.entry(source.to_owned()).or_default();
            of_source.files += arrived.files;
            of_source.landed += arrived.landed;
            of_source.typed += arrived.typed;
            of_source.quarantined += arrived.quarantined;
            of_source.late += arrived.late;
            let now = Instant::now();
            numbers.recent.push((now, arrived.landed));
            numbers.recent.retain(|(at, _)| now.duration_since(*at) <= RATE_WINDOW);
        });
    }

    /// Where a source stands in event time; microseconds since the epoch.
    pub fn event_time(&self, source: &str, newest: Option<i64>, watermark: Option<i64>) {
        self.with(|numbers| {
            let of_source = numbers.by_source.entry(source.to_owned()).or_default();
            of_source.newest = newest;
            of_source.watermark = watermark;
        });
    }

    /// Tells of durations from now on; the first who asks is told.
    pub(super) fn on_duration(&self, tell: TellDuration) {
        let _ = self.on_duration.0.set(tell);
    }

    fn took(&self, (name, _): (&'static str, &str), elapsed: Duration) {
        if let Some(tell) = self.on_duration.0.get() {
            tell(name, elapsed);
        }
    }

    /// A number of each source that has it.
    pub(super) fn by_source(&self, number: &Number<SourceNumbers>) -> Vec<(String, f64)> {
        self.with(|numbers| {
            let values = numbers.by_source.iter().map(|(name, of)| Some((name.clone(), (number.value)(of)?)));
            values.flatten().collect()
        })
    }

    pub(super) fn value(&self, number: &Number<Numbers>) -> Option<f64> {
        self.with(|numbers| (number.value)(numbers))
    }

    pub fn micro_batch(&self, elapsed: Duration) {
        self.took(DURATIONS[0], elapsed);
        self.with(|numbers| {
            numbers.micro_batches.add(elapsed);
            numbers.last_commit = Some(chrono::Utc::now().timestamp_micros());
        });
    }

    pub fn refreshed(&self, elapsed: Duration) {
        self.took(DURATIONS[1], elapsed);
        self.with(|numbers| {
            numbers.refreshes.add(elapsed);
            numbers.last_commit = Some(chrono::Utc::now().timestamp_micros());
        });
    }

    pub fn settled(&self, elapsed: Duration, num_problems: usize) {
        self.took(DURATIONS[2], elapsed);
        self.with(|numbers| {
            numbers.settles.add(elapsed);
            numbers.num_problems = num_problems;
        });
    }

    pub fn failed(&self) {
        self.with(|numbers| numbers.errors += 1);
    }

    /// Files that are found and not yet taken in, and files that may still grow.
    pub fn waiting(&self, backlog_files: usize, waiting_files: usize) {
        self.with(|numbers| {
            numbers.backlog_files = backlog_files;
            numbers.waiting_files = waiting_files;
        });
    }

    pub fn totals(&self) -> Totals {
        self.with(|numbers| {
            let sum =
                |of: fn(&SourceNumbers) -> u64| -> u64 { numbers.by_source.values().map(of).sum::<u64>() };
            Totals {
                micro_batches: numbers.micro_batches.count,
                files: sum(|source| source.files),
                records: sum(|source| source.landed),
                quarantined: sum(|source| source.quarantined),
                late: sum(|source| source.late),
                settles: numbers.settles.count,
                errors: numbers.errors,
                seconds: numbers.started.elapsed().as_secs_f64(),
            }
        })
    }

    /// One line for a terminal.
    pub fn line(&self) -> String {
        let totals = self.totals();
        self.with(|numbers| {
            let now = Instant::now();
            let recent = numbers.recent.iter().filter(|(at, _)| now.duration_since(*at) <= RATE_WINDOW);
            let window = RATE_WINDOW.min(numbers.started.elapsed()).as_secs_f64().max(1.0);
            let rate = recent.map(|(_, records)| *records).sum::<u64>() as f64 / window;
            let mut line = format!(
                "{rate:.0} records/s, {} in all, {} late, {} quarantined",
                totals.records, totals.late, totals.quarantined
            );
            if numbers.backlog_files + numbers.waiting_files > 0 {
                let _ = write!(line, ", {} files wait", numbers.backlog_files + numbers.waiting_files);
            }
            for (name, source) in &numbers.by_source {
                if let Some(watermark) = source.watermark {
                    let _ = write!(line, " | {name} watermark {}", time_text(watermark));
                    if let Some(newest) = source.newest {
                        let _ = write!(line, ", lag {}", lag_text(newest));
                    }
                }
            }
            if let Some(commit) = numbers.last_commit {
                let _ = write!(line, " | last commit {}", time_text(commit));
            }
            if numbers.num_problems > 0 {
                let _ = write!(line, " | {} PROBLEMS", numbers.num_problems);
            }
            line
        })
    }

    /// The numbers in Prometheus' text format.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: Kind, help: &str| {
            let kind = if kind == Kind::Counter { "counter" } else { "gauge" };
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        for number in &OF_SOURCES {
            head(&mut text, number.name, number.kind, number.help);
            for (source, value) in self.by_source(number) {
                let _ = writeln!(text, "{}{{source=\"{}\"}} {value}", number.name, escaped(&source));
            }
        }
        for number in &OF_STREAM {
            if let Some(value) = self.value(number) {
                head(&mut text, number.name, number.kind, number.help);
                let _ = writeln!(text, "{} {value}", number.name);
            }
        }
        self.with(|numbers| {
            let durations = [&numbers.micro_batches, &numbers.refreshes, &numbers.settles];
            for ((name, help), durations) in DURATIONS.iter().zip(durations) {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
                for (bucket, count) in BUCKETS.iter().zip(durations.counts) {
                    let _ = writeln!(text, "{name}_bucket{{le=\"{bucket}\"}} {count}");
                }
                let (count, sum) = (durations.count, durations.sum);
                let _ = writeln!(
                    text,
                    "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}"
                );
            }
        });
        text
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

/// How long ago a time is, for people.
fn lag_text(micros: i64) -> String {
    duration_text(chrono::Utc::now().timestamp_micros().saturating_sub(micros) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_in_prometheus_text_format() {
        let meter = Meter::default();
        meter.arrived("clicks", Arrived { files: 1, landed: 10, typed: 9, quarantined: 1, late: 2 });
        meter.arrived("clicks", Arrived { files: 1, landed: 5, typed: 5, ..Arrived::default() });
        meter.event_time("clicks", Some(3_000_000), Some(1_500_000));
        meter.micro_batch(Duration::from_millis(30));
        let text = meter.prometheus();
        for line in [
            "# TYPE medallion_landed_records_total counter",
            "medallion_landed_records_total{source=\"clicks\"} 15",
            "medallion_late_records_total{source=\"clicks\"} 2",
            "medallion_watermark_timestamp_seconds{source=\"clicks\"} 1.5",
            "medallion_micro_batch_duration_seconds_bucket{le=\"0.025\"} 0",
            "medallion_micro_batch_duration_seconds_bucket{le=\"0.05\"} 1",
            "medallion_micro_batch_duration_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(meter.line().contains("15 in all, 2 late, 1 quarantined"), "{}", meter.line());
    }
}
