//! What a run shows while it works: a progress line on a terminal, log lines otherwise.

pub mod otlp;

use std::io::IsTerminal;
use std::time::Duration;

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
    // spans (`hop`) make traces, and are no part of a log line
    let level = match verbosity {
        Verbosity::Quiet => "error,scylla=off",
        // the driver warns of every connection that it loses; what matters of that is said by us
        Verbosity::Normal => "warn,scylla=off,medallion=info",
        Verbosity::Verbose => "info,scylla=warn,medallion=debug,hop=off",
        Verbosity::Trace => "debug,medallion=trace,hop=off",
    };
    let filter = EnvFilter::try_from_env("MEDALLION_LOG").unwrap_or_else(|_| EnvFilter::new(level));
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

/// `1 file`, `2 files`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
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
}

impl Progress {
    /// A bar where standard error is a terminal.
    pub fn new(is_wanted: bool) -> Self {
        if !is_wanted || !std::io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}, {human_pos} rows ({per_sec})")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar: Some(bar) }
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
        if let Some(bar) = &self.bar {
            bar.inc(rows);
        }
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
