//! A meter's numbers as OpenTelemetry metrics, under the names that they have in Prometheus' format.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Histogram};

use super::meter::{Arrived, BUCKETS, DURATIONS, Kind, Meter, Number, OF_SOURCES, OF_STREAM};
use crate::error::Result;
use crate::flow::bronze::MAX_EVENT_TIME;
use crate::flow::report::{Report, Step};
use crate::flow::{Run, late};

/// Counts what a step of a source has brought.
pub(super) fn count(meter: &Meter, step: &Step) {
    let Some(landed) = step.landed else {
        return;
    };
    let source = step.table.split_once('.').map_or(step.table.as_str(), |(_, source)| source);
    meter.arrived(
        source,
        Arrived {
            files: step.files as u64,
            landed,
            typed: step.rows,
            quarantined: step.quarantined.unwrap_or(0),
            late: step.late.unwrap_or(0),
        },
    );
}

/// Notes where the sources stand in event time.
pub(super) fn note_event_times(meter: &Meter, run: &Run) -> Result<()> {
    for source in &run.project.sources {
        if let Some(watermark) = late::watermark(run, source)? {
            let newest = run.bronze_of(&source.name)?.position(MAX_EVENT_TIME);
            meter.event_time(&source.name, newest, Some(watermark));
        }
    }
    Ok(())
}

/// The numbers of a run that has ended.
///
/// # Errors
/// None in practice.
pub fn report(run: &Run, report: &Report, to: &opentelemetry::metrics::Meter) -> Result<()> {
    let meter = Arc::new(Meter::default());
    export(&meter, to);
    for step in &report.steps {
        count(&meter, step);
    }
    note_event_times(&meter, run)?;
    meter.settled(Duration::from_secs_f64(report.seconds), report.verdict().len());
    Ok(())
}

/// Exports the meter from now on.
pub fn export(meter: &Arc<Meter>, to: &opentelemetry::metrics::Meter) {
    for number in &OF_SOURCES {
        let read = Arc::clone(meter);
        observe(to, number, move |observer| {
            for (source, value) in read.by_source(number) {
                observer.observe(value, &[KeyValue::new("source", source)]);
            }
        });
    }
    for number in &OF_STREAM {
        let read = Arc::clone(meter);
        observe(to, number, move |observer| {
            if let Some(value) = read.value(number) {
                observer.observe(value, &[]);
            }
        });
    }
    let histograms: Vec<(&'static str, Histogram<f64>)> = DURATIONS
        .iter()
        .map(|(name, help)| {
            let made = to.f64_histogram(*name).with_description(*help).with_unit("s");
            (*name, made.with_boundaries(BUCKETS.to_vec()).build())
        })
        .collect();
    meter.on_duration(Box::new(move |name, duration| {
        for (_, histogram) in histograms.iter().filter(|(known, _)| *known == name) {
            histogram.record(duration.as_secs_f64(), &[]);
        }
    }));
}

/// Asks for a number whenever metrics are sent.
fn observe<T>(
    to: &opentelemetry::metrics::Meter,
    number: &Number<T>,
    read: impl Fn(&dyn AsyncInstrument<f64>) + Send + Sync + 'static,
) {
    match number.kind {
        Kind::Counter => {
            let made = to.f64_observable_counter(number.name).with_description(number.help);
            made.with_callback(read).build();
        }
        Kind::Gauge => {
            let made = to.f64_observable_gauge(number.name).with_description(number.help);
            made.with_callback(read).build();
        }
    }
}
