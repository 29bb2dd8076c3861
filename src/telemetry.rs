//! What a run shows while it works: a progress line on a terminal, log lines otherwise.

pub mod otlp;

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use self::otlp::Otlp;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    Quiet,
    Normal,
    Verbose,
    Trace,
}

/// Sends log lines to standard error, where `MEDALLION_LOG` refines what is logged, module by module, and traces and metrics
/// to where the environment says.
pub fn start_logging(verbosity: Verbosity) -> Otlp {
    // spans (`hop`) make traces, and are no part of a log line, whatever the variable says
    let level = match verbosity {
        Verbosity::Quiet => "error,scylla=off",
        // the driver warns of every connection that it loses; what matters of that is said by us
        Verbosity::Normal => "warn,scylla=off,medallion=info",
        Verbosity::Verbose => "info,scylla=warn,medallion=debug,hop=off",
        Verbosity::Trace => "debug,medallion=trace,hop=off",
    };
    let given = variable("MEDALLION_LOG").and_then(|text| EnvFilter::try_new(format!("{text},hop=off")).ok());
    let filter = given.unwrap_or_else(|| EnvFilter::new(level));
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    let (otlp, complaints) = Otlp::from_environment();
    // a second subscriber in one process (tests) is not an error
    let _ = match otlp.tracer() {
        None => Registry::default().with(lines).with(filter).try_init(),
        Some(tracer) => {
            let spans = tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_level(false)
                .with_tracked_inactivity(false)
                .with_filter(Targets::new().with_target(otlp::SPANS, tracing::Level::INFO));
            Registry::default().with(lines.with_filter(filter)).with(spans).try_init()
        }
    };
    for complaint in complaints {
        tracing::warn!("{complaint}");
    }
    otlp
}

/// What a variable of the environment says; a blank one says nothing.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The cause of an error that has none itself.
pub fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

/// `1 file`, `2 files`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `2025-08-31T12:00:00Z` for microseconds since the epoch.
pub fn time_text(micros: i64) -> String {
    match chrono::DateTime::from_timestamp_micros(micros) {
        Some(time) => time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        None => micros.to_string(),
    }
}

/// `90 s`, `12 min`, `5 h`, `3 days`.
pub fn duration_text(seconds: i64) -> String {
    match seconds.max(0) {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The progress of one command.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: Option<ProgressBar>,
    work: Arc<Work>,
}

/// What there is to do, where that is known, and what of it is done.
#[derive(Debug, Default)]
struct Work {
    begun: OnceLock<Instant>,
    expected_rows: AtomicU64,
    done_rows: AtomicU64,
}

impl Progress {
    /// A bar where standard error is a terminal.
    pub fn new(is_wanted: bool) -> Self {
        if !is_wanted || !std::io::stderr().is_terminal() {
            return Self { bar: None, work: Arc::default() };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}, {human_pos} rows ({per_sec})")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar: Some(bar), work: Arc::default() }
    }

    /// Says what is being done now.
    pub fn stage(&self, name: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(name.to_owned()),
            None => tracing::debug!("{name}"),
        }
    }

    /// Counts rows that were read or written.
    pub fn inc(&self, rows: u64) {
        self.work.done_rows.fetch_add(rows, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(rows);
        }
    }

    /// From now on it is known how many rows there are to be at most.
    pub fn expect(&self, rows: u64) {
        let _ = self.work.begun.set(Instant::now());
        self.work.expected_rows.store(rows, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(rows);
            if let Ok(style) = ProgressStyle::with_template(
                "{spinner} {elapsed_precise} {msg}, {human_pos} of at most {human_len} rows, {eta} left",
            ) {
                bar.set_style(style);
            }
        }
    }

    /// Says how far the work is, where it is known how much there is: by the pace so far.
    pub fn tell(&self) {
        let (Some(begun), expected) =
            (self.work.begun.get(), self.work.expected_rows.load(Ordering::Relaxed))
        else {
            return;
        };
        let done = self.work.done_rows.load(Ordering::Relaxed);
        if self.bar.is_none() && done > 0 && done < expected {
            let left = begun.elapsed().as_secs_f64() * (expected - done) as f64 / done as f64;
            tracing::info!("{done} of at most {expected} rows are computed, about {left:.1} s are left");
        }
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
