//! Traces and metrics to an OpenTelemetry collector, over OTLP/HTTP.
//!
//! Switched on by the standard variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, …), and only then is anything made: without them a
//! span costs one comparison. Delivered beside the work by threads of the SDK; a collector that is away is a warning, and
//! keeps no command from ending for longer than [`LAST_WAIT`].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{innermost, variable};

/// The target of spans. They make traces; the log does not show them.
pub const SPANS: &str = "hop";

/// At its end a command waits so long for the last spans and metrics.
pub const LAST_WAIT: Duration = Duration::from_secs(5);

const SHORT_WAIT: Duration = Duration::from_millis(500);

/// What telemetry calls us.
const NAME: &str = "medallion";

/// An attempt takes at most so long where `OTEL_EXPORTER_OTLP_TIMEOUT` does not say otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer holds next to nothing.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What is exported. Nothing by default.
#[derive(Clone, Default)]
pub struct Otlp {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Otlp(traces: {}, metrics: {})", self.traces.is_some(), self.metrics.is_some())
    }
}

/// Whether the environment wants a signal (`TRACES`, `METRICS`); what it wants and can't be had is said.
fn is_wanted(signal: &str, complaints: &mut Vec<String>) -> bool {
    let of_signal = |name: &str| {
        variable(&format!("OTEL_EXPORTER_OTLP_{signal}_{name}"))
            .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable(&format!("OTEL_{signal}_EXPORTER")).is_some_and(|exporter| exporter != "otlp");
    if is_off || of_signal("ENDPOINT").is_none() {
        return false;
    }
    match of_signal("PROTOCOL") {
        Some(protocol) if protocol != "http/protobuf" => {
            complaints.push(format!(
                "no {} are exported: only the protocol `http/protobuf` is known, not `{protocol}`",
                signal.to_lowercase()
            ));
            false
        }
        _ => true,
    }
}

impl Otlp {
    /// What the environment asks for, and what is to be said about it once the log is there.
    ///
    /// Call it inside the runtime that requests are made by.
    pub fn from_environment() -> (Otlp, Vec<String>) {
        let mut complaints = Vec::new();
        let (wants_traces, wants_metrics) =
            (is_wanted("TRACES", &mut complaints), is_wanted("METRICS", &mut complaints));
        if !wants_traces && !wants_metrics {
            return (Otlp::default(), complaints);
        }
        let client = match Client::new() {
            Ok(client) => Arc::new(client),
            Err(why) => {
                complaints.push(format!("no telemetry is exported: {why}"));
                return (Otlp::default(), complaints);
            }
        };
        let resource = resource();
        let mut found = Otlp::default();
        if wants_traces {
            match SpanExporter::builder().with_http().with_http_client(Shared(Arc::clone(&client))).build() {
                Ok(exporter) => {
                    let provider = SdkTracerProvider::builder().with_resource(resource.clone());
                    found.traces = Some(provider.with_batch_exporter(exporter).build());
                }
                // the error may repeat the endpoint, which may hold a password
                Err(_) => complaints
                    .push("no traces are exported: their endpoint or headers are not valid".to_owned()),
            }
        }
        if wants_metrics {
            match MetricExporter::builder().with_http().with_http_client(Shared(client)).build() {
                Ok(exporter) => {
                    let provider = SdkMeterProvider::builder().with_resource(resource);
                    found.metrics = Some(provider.with_periodic_exporter(exporter).build());
                }
                Err(_) => complaints
                    .push("no metrics are exported: their endpoint or headers are not valid".to_owned()),
            }
        }
        (found, complaints)
    }

    /// Makes the spans of this process.
    pub fn tracer(&self) -> Option<SdkTracer> {
        Some(self.traces.as_ref()?.tracer(NAME))
    }

    /// Makes the metrics of this process.
    pub fn meter(&self) -> Option<opentelemetry::metrics::Meter> {
        Some(self.metrics.as_ref()?.meter(NAME))
    }

    /// The span of a whole command, below that of whoever has started it (`TRACEPARENT`).
    pub fn root(&self, command: &str) -> Span {
        if self.traces.is_none() {
            return Span::none();
        }
        let span = tracing::info_span!(
            target: SPANS,
            "command",
            otel.name = command,
            exit_code = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
            otel.status_description = tracing::field::Empty,
        );
        let given = |name: &str| Some((name.to_owned(), variable(&name.to_uppercase())?));
        let carrier: HashMap<String, String> =
            ["traceparent", "tracestate"].into_iter().filter_map(given).collect();
        if !carrier.is_empty() {
            let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
            // a span that is filtered out needs no parent
            let _ = span.set_parent(parent);
        }
        span
    }

    /// Sends what is left, for a bounded time; a process that was told to end has next to none.
    pub async fn close(self, is_stopped: bool) {
        let wait = if is_stopped { SHORT_WAIT } else { LAST_WAIT };
        if self.traces.is_none() && self.metrics.is_none() {
            return;
        }
        // they block, and their requests are made by this runtime
        let traces = tokio::task::spawn_blocking(move || match self.traces {
            Some(provider) => provider.shutdown_with_timeout(wait).is_ok(),
            None => true,
        });
        let metrics = tokio::task::spawn_blocking(move || match self.metrics {
            Some(provider) => provider.shutdown().is_ok(),
            None => true,
        });
        let both = async { matches!(tokio::join!(traces, metrics), (Ok(true), Ok(true))) };
        if !tokio::time::timeout(wait, both).await.unwrap_or(false) {
            tracing::warn!("the last spans or metrics were not delivered within {} ms", wait.as_millis());
        }
    }
}

/// Who we are: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else our own name.
fn resource() -> Resource {
    let is_named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|text| text.contains("service.name="));
    let resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    match is_named {
        true => resource.build(),
        false => resource.with_service_name(NAME).build(),
    }
}

/// Makes the SDK's requests. Its threads know no runtime, so requests are made by ours.
struct Client {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
    is_down: AtomicBool,
}

/// The exporter wants a value.
#[derive(Debug, Clone)]
struct Shared(Arc<Client>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    fn new() -> Result<Client, String> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| error.to_string())?;
        let given = variable("OTEL_EXPORTER_OTLP_TIMEOUT").and_then(|text| text.parse().ok());
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(given.map_or(TIMEOUT, Duration::from_millis))
            .build()
            .map_err(|error| error.without_url().to_string())?;
        Ok(Client { http, runtime, is_down: AtomicBool::new(false) })
    }

    /// Says when the collector goes away, and when it is back.
    fn note(&self, host: &str, failure: Option<&str>) {
        let was_down = self.is_down.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(why) if !was_down => {
                tracing::warn!("telemetry is not delivered to `{host}`: {why}; the work goes on");
            }
            None if was_down => tracing::info!("telemetry is delivered to `{host}` again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Shared {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let host = parts.uri.authority().map_or("", |authority| authority.host()).to_owned();
        let sending = self.0.http.post(parts.uri.to_string()).headers(parts.headers).body(body);
        let exchange = self.0.runtime.spawn(async move {
            let mut answer = sending.send().await.map_err(reqwest::Error::without_url)?;
            let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_ANSWER_BYTES {
                    body.clear();
                    break;
                }
            }
            Ok::<_, reqwest::Error>((status, headers, body))
        });
        let exchanged = exchange.await.map_err(|error| error.to_string())?;
        let (status, headers, body) = exchanged.inspect_err(|error| {
            self.0.note(&host, Some(&cause(error)));
        })?;
        let failure = (!status.is_success()).then(|| format!("it answers {status}"));
        self.0.note(&host, failure.as_deref());
        let mut response = Response::builder().status(status);
        if let Some(known) = response.headers_mut() {
            *known = headers;
        }
        Ok(response.body(Bytes::from(body))?)
    }
}

fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    innermost(error).to_string()
}
