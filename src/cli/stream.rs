//! `medallion stream`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::output::{Format, print_rows, print_text};
use super::run::{render_balance, render_left};
use super::turn::patience;
use super::{Places, metrics, open_run};
use crate::error::{ErrorKind, Result};
use crate::flow::lock::{self, Seat};
use crate::flow::report::Report;
use crate::telemetry::Progress;
use crate::trigger::export;
use crate::trigger::meter::{Meter, Totals};
use crate::trigger::publisher::Publisher;
use crate::trigger::stop::Stop;
use crate::trigger::stream::{self, Options, Outlets};
use crate::trigger::watch::Watch;

/// The exit code after a second signal: 128 and the number of SIGINT, as shells have it.
pub const FORCED: u8 = 130;

/// A plain log gets a line so often.
const LOG_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    medallion stream                           follow landing until Ctrl-C\n  \
    medallion stream --until-idle              take in what is there in micro-batches, then end\n  \
    medallion stream --watch anomalies         print the rows of sql/watch/anomalies.sql as they come\n  \
    medallion stream --metrics 127.0.0.1:9464  serve Prometheus metrics at /metrics meanwhile\n\n\
    The first SIGINT or SIGTERM finishes the micro-batch, settles (checks, balance) and ends with 0, or 4 where a\n\
    person has to look. A second one ends at once with 130 and loses nothing: the next stream or run continues.\n\
    How much a micro-batch holds and how often silver and gold follow is declared in `[stream]` of medallion.toml.")]
pub struct StreamArgs {
    /// End when nothing is left in landing
    #[arg(long)]
    until_idle: bool,
    /// Serve Prometheus metrics at http://ADDR/metrics; a port alone is one of 127.0.0.1
    #[arg(long, env = "MEDALLION_METRICS", value_name = "ADDR", value_parser = address)]
    metrics: Option<SocketAddr>,
    /// Print the new rows of a query of the project (`sql/watch/<NAME>.sql`) as they come
    #[arg(long, value_name = "NAME")]
    watch: Vec<String>,
    /// How long to wait where a run or another command has the lake at the start, for example `90s`; by default 10m. A second
    /// stream is refused at once (exit code 5)
    #[arg(long, value_name = "AGE", value_parser = patience)]
    wait: Option<Duration>,
}

/// `9464` is `127.0.0.1:9464`.
fn address(text: &str) -> std::result::Result<SocketAddr, String> {
    if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    text.parse().map_err(|_| "write an address and a port, as `127.0.0.1:9464`".to_owned())
}

pub async fn run(places: &Places, args: &StreamArgs) -> Result<u8> {
    let project = places.load().await?;
    let target = places.serving(&project)?.map(|(_, target)| target);
    // from here on a signal finishes what was begun
    let stop = Stop::on_signals()?;
    let landing = places.landing(&project)?;
    let lake = places.new_lake(&project)?;
    let longest = args.wait.unwrap_or(lock::BESIDE_A_STREAM);
    let mut seat = tokio::select! {
        seat = Seat::take(&lake, longest) => seat?,
        () = stop.asked() => {
            tracing::warn!("ended before it began");
            places.telling.end_silently();
            return Ok(0);
        }
    };
    let meter = Arc::new(Meter::default());
    if let Some(to) = places.otlp.meter() {
        export::export(&meter, &to);
    }
    if let Some(address) = args.metrics {
        let bound = metrics::serve(address, Arc::clone(&meter)).await?;
        tracing::info!("metrics at http://{bound}/metrics");
    }
    let publisher = Publisher::new(target);
    let mut run = open_run(project, landing, lake, Progress::new(false)).await?;
    let format = places.format;
    let watches = args
        .watch
        .iter()
        .map(|name| Watch::begin(&run, name, Box::new(move |rows| print_rows(rows, format))))
        .collect::<Result<Vec<_>>>()?;
    let mut out = Outlets::new(&run, watches, publisher, places.telling.clone())?;
    let status = Status::begin(!places.quiet, Arc::clone(&meter));
    let options = Options { until_idle: args.until_idle };
    let ended = tokio::select! {
        ended = stream::run(&mut run, &mut seat, options, &stop, &meter, &mut out) => ended,
        () = stop.forced() => {
            status.end();
            tracing::warn!("ended at once; the next stream or run continues");
            return Ok(FORCED);
        }
    };
    status.end();
    let report = ended?;
    let totals = meter.totals();
    match places.format {
        Format::Json => {
            let told = json!({"totals": totals, "report": report});
            print_text(&format!("{}\n", serde_json::to_string_pretty(&told)?))?;
        }
        _ => print_text(&render(&totals, &report))?,
    }
    // gold is complete and reported; what could not be published is left for the next stream or run
    out.publisher.outcome().inspect_err(|_| places.telling.end_silently())?;
    Ok(if report.verdict().is_empty() { 0 } else { ErrorKind::Data.exit_code() })
}

fn render(totals: &Totals, report: &Report) -> String {
    let holds = report.balance.iter().all(|row| row.difference == 0);
    format!(
        "{}{}\n{} micro-batches, {} files, {} records ({} late, {} refused) in {:.2} s\n{}\n",
        render_balance(&report.balance, "lake"),
        render_left(&report.left),
        totals.micro_batches,
        totals.files,
        totals.records,
        totals.late,
        totals.quarantined,
        totals.seconds,
        if holds {
            "the balance of the whole lake holds: every landed record is accounted for"
        } else {
            "THE BALANCE DOES NOT HOLD"
        },
    )
}

/// The status line of a terminal, or a log line now and then.
struct Status {
    bar: Option<ProgressBar>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Status {
    fn begin(is_wanted: bool, meter: Arc<Meter>) -> Status {
        use std::io::IsTerminal;
        if !is_wanted {
            return Status { bar: None, task: None };
        }
        if !std::io::stderr().is_terminal() {
            let task = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(LOG_EVERY).await;
                    tracing::info!("{}", meter.line());
                }
            });
            return Status { bar: None, task: Some(task) };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {wide_msg}") {
            bar.set_style(style);
        }
        let shown = bar.clone();
        let task = tokio::spawn(async move {
            loop {
                shown.set_message(meter.line());
                shown.tick();
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
        Status { bar: Some(bar), task: Some(task) }
    }

    fn end(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
