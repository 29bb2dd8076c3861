//! Traces and metrics as a collector gets them: decoded from the protobuf that was sent, with names, parents and values.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::mini;
use crate::receiver::{Answer, Receiver, Request};
use crate::support::{Contents, Done, Place, walk};

const KEY: &str = "otelSECRET";

fn command(place: &Place, endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = place.told_command(arguments);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    command.env("OTEL_EXPORTER_OTLP_HEADERS", format!("api-key={KEY}"));
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    command
}

#[track_caller]
fn keeps_key(place: &Place, done: Done) -> Done {
    assert!(!done.stderr.contains(KEY) && !done.stdout.contains(KEY), "{done:?}");
    // a project that is wrong makes no lake
    let is_there = place.lake.try_exists().unwrap();
    for path in if is_there { walk(&place.lake) } else { Vec::new() } {
        let bytes = std::fs::read(path).unwrap();
        assert!(!bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
    }
    done
}

fn text(value: &Option<AnyValue>) -> String {
    match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    attributes.iter().find(|known| known.key == key).map(|found| text(&found.value))
}

/// The spans that were sent, and the service that they are of.
fn spans(requests: &[Request]) -> (Vec<Span>, String) {
    let (mut spans, mut service) = (Vec::new(), String::new());
    for request in requests.iter().filter(|request| request.path == "/v1/traces") {
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(request.header("api-key"), Some(KEY));
        for of_resource in ExportTraceServiceRequest::decode(request.body.as_slice()).unwrap().resource_spans
        {
            service = attribute(&of_resource.resource.unwrap().attributes, "service.name").unwrap();
            spans.extend(of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    (spans, service)
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("`{name}` in {names:?}"))
}

fn is_below(spans: &[Span], child: &str, parent: &str) {
    let (child, parent) = (named(spans, child), named(spans, parent));
    assert_eq!(child.parent_span_id, parent.span_id, "`{}` below `{}`", child.name, parent.name);
    assert_eq!(child.trace_id, parent.trace_id);
    assert!(parent.start_time_unix_nano <= child.start_time_unix_nano);
    assert!(child.end_time_unix_nano <= parent.end_time_unix_nano);
}

/// The last value of each metric, by name and source; of a histogram its count.
fn metrics(requests: &[Request]) -> BTreeMap<(String, String), f64> {
    let mut found = BTreeMap::new();
    for request in requests.iter().filter(|request| request.path == "/v1/metrics") {
        let decoded = ExportMetricsServiceRequest::decode(request.body.as_slice()).unwrap();
        let scopes = decoded.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        for metric in scopes.flat_map(|scope| scope.metrics) {
            let points = match metric.data.unwrap() {
                Data::Sum(sum) => {
                    assert!(sum.is_monotonic, "{}", metric.name);
                    sum.data_points
                }
                Data::Gauge(gauge) => gauge.data_points,
                Data::Histogram(histogram) => {
                    let point = &histogram.data_points[0];
                    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                    assert_eq!(point.explicit_bounds.len(), 12);
                    found.insert((metric.name, String::new()), point.count as f64);
                    continue;
                }
                other => panic!("{other:?}"),
            };
            for point in points {
                let source = attribute(&point.attributes, "source").unwrap_or_default();
                let value = match point.value.unwrap() {
                    Number::AsDouble(value) => value,
                    Number::AsInt(value) => value as f64,
                };
                found.insert((metric.name.clone(), source), value);
            }
        }
    }
    found
}

fn value(metrics: &BTreeMap<(String, String), f64>, name: &str, source: &str) -> f64 {
    let found = metrics.get(&(name.to_owned(), source.to_owned()));
    *found.unwrap_or_else(|| panic!("{name} {source} in {metrics:?}"))
}

#[test]
fn a_run_is_one_trace_of_its_hops_and_its_counts_are_metrics() {
    let (place, collector) = (mini::place(), Receiver::start());
    place.land(&mini::batches()[0]);
    let mut run = command(&place, &collector.url(""), &["run"]);
    run.env("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    keeps_key(&place, Done::of(run.output().unwrap())).ok();
    let requests = collector.take();
    let (spans, service) = spans(&requests);
    assert_eq!(service, "medallion");
    let root = named(&spans, "run");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&root.trace_id), "0af7651916cd43dd8448eb211c80319c", "the scheduler's trace");
    assert_eq!(hex(&root.parent_span_id), "b7ad6b7169203331");
    assert_eq!(attribute(&root.attributes, "exit_code").as_deref(), Some("0"));
    for child in
        ["discover", "landing to bronze", "decide", "compute gold.daily", "commit gold.daily", "balance"]
    {
        is_below(&spans, child, "run");
    }
    is_below(&spans, "ingest readings", "landing to bronze");
    is_below(&spans, "commit bronze.readings", "landing to bronze");
    is_below(&spans, "commit quarantine.readings", "landing to bronze");
    assert!(spans.iter().all(|span| span.trace_id == root.trace_id));
    let daily = named(&spans, "compute gold.daily");
    assert_eq!(attribute(&daily.attributes, "table").as_deref(), Some("gold.daily"));
    assert_eq!(attribute(&daily.attributes, "rows").as_deref(), Some("1"));
    assert_eq!(attribute(&named(&spans, "commit gold.daily").attributes, "version").as_deref(), Some("0"));

    let metrics = metrics(&requests);
    for (name, source, expected) in [
        ("medallion_landed_records_total", "readings", 4.0),
        ("medallion_typed_records_total", "readings", 3.0),
        ("medallion_quarantined_records_total", "readings", 1.0),
        ("medallion_landed_files_total", "sites", 1.0),
        ("medallion_problems", "", 0.0),
        ("medallion_settle_duration_seconds", "", 1.0),
    ] {
        assert_eq!(value(&metrics, name, source), expected, "{name} {source}");
    }

    // what the log shows is what it shows without
    let plain = Done::of(place.told_command(&["-v", "run"]).output().unwrap());
    assert!(!plain.stderr.contains("commit{") && !plain.stderr.contains("run{"), "{}", plain.stderr);
}

#[test]
fn an_error_is_the_status_of_the_trace() {
    let (place, collector) = (mini::place(), Receiver::start());
    place.edit("sql/gold/total.sql", "select site", "select sight");
    let mut run = command(&place, &collector.url("/"), &["run"]);
    let done = Done::of(run.env("OTEL_SERVICE_NAME", "nightly").output().unwrap());
    keeps_key(&place, done.expect(3));
    let (spans, service) = spans(&collector.take());
    assert_eq!(service, "nightly");
    let status = named(&spans, "run").status.clone().unwrap();
    assert_eq!(status.code, 2, "error");
    assert!(status.message.contains("sql/gold/total.sql:1"), "{}", status.message);
}

#[test]
fn a_stream_sends_a_trace_for_each_step_and_the_numbers_of_its_meter() {
    let (place, collector) = (mini::place(), Receiver::start());
    place.edit(
        "medallion.toml",
        "[limits]",
        "[stream]\npoll = \"20 milliseconds\"\nquiet = \"100 milliseconds\"\nrefresh = \"50 milliseconds\"\n\
         idle = \"200 milliseconds\"\n[limits]",
    );
    let mut command = command(&place, &collector.url(""), &["--quiet", "stream"]);
    command.env("OTEL_METRIC_EXPORT_INTERVAL", "300").env("OTEL_BSP_SCHEDULE_DELAY", "200");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.land(&mini::batches()[0]);
    // while it works, not only at its end
    let requests = collector.wait_for("a settle", |requests| {
        let metrics = metrics(requests);
        metrics
            .get(&("medallion_settle_duration_seconds".to_owned(), String::new()))
            .is_some_and(|count| *count >= 1.0)
            && spans(requests).0.iter().any(|span| span.name == "settle")
    });
    let (seen, _) = spans(&requests);
    for step in ["micro-batch", "refresh", "settle"] {
        // a settle refreshes what is left
        let is_root = seen.iter().any(|span| span.name == step && span.parent_span_id.is_empty());
        assert!(is_root, "{step} is a trace of its own");
    }
    is_below(&seen, "landing to bronze", "micro-batch");
    place.land(&mini::batches()[1]);
    let begun = Instant::now();
    while place.value("select count(*) from bronze.readings") != "7" {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    assert!(Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
    keeps_key(&place, Done::of(child.wait_with_output().unwrap())).ok();
    let metrics = metrics(&collector.take());
    assert_eq!(value(&metrics, "medallion_landed_records_total", "readings"), 9.0);
    assert_eq!(value(&metrics, "medallion_landed_files_total", "readings"), 2.0);
    assert_eq!(value(&metrics, "medallion_backlog_files", ""), 0.0);
    assert_eq!(value(&metrics, "medallion_errors_total", ""), 0.0);
    assert!(value(&metrics, "medallion_micro_batch_duration_seconds", "") >= 2.0);
}

#[test]
fn a_collector_that_is_away_slow_or_broken_changes_nothing() {
    let files: Vec<_> = mini::batches().into_iter().flatten().collect();
    let plain = mini::place();
    plain.land(&files);
    plain.run();
    for (answer, why) in [
        (Some(Answer::Status(500)), "it answers 500"),
        (Some(Answer::Silence), "were not delivered within 5000 ms"),
        (None, "onnection refused"),
    ] {
        let (place, collector) = (mini::place(), Receiver::start());
        place.land(&files);
        if let Some(answer) = answer {
            collector.answer(&[], answer);
        }
        let url = answer.map_or_else(|| "http://127.0.0.1:1".to_owned(), |_| collector.url(""));
        let begun = Instant::now();
        let done = keeps_key(&place, Done::of(command(&place, &url, &["run"]).output().unwrap()));
        assert!(begun.elapsed() < Duration::from_secs(30), "{why}: {:?}", begun.elapsed());
        done.expect(0).tells(&[why]);
        Contents::of(&place).assert_equals(&Contents::of(&plain), why);
    }
}

#[test]
fn what_is_not_asked_for_is_not_sent() {
    let (place, collector) = (mini::place(), Receiver::start());
    let sent = |variables: &[(&str, &str)]| {
        let mut run = command(&place, &collector.url(""), &["run"]);
        let done = Done::of(run.envs(variables.iter().copied()).output().unwrap()).expect(0);
        let paths: Vec<String> = collector.take().into_iter().map(|request| request.path).collect();
        (paths, done.stderr)
    };
    assert_eq!(sent(&[("OTEL_SDK_DISABLED", "true")]).0, Vec::<String>::new());
    assert_eq!(sent(&[("OTEL_METRICS_EXPORTER", "none")]).0, ["/v1/traces"]);
    assert_eq!(sent(&[("OTEL_TRACES_EXPORTER", "none")]).0, ["/v1/metrics"]);
    let (paths, told) = sent(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert!(paths.is_empty() && told.contains("only the protocol `http/protobuf` is known"), "{told}");
    // a command that moves nothing is no trace
    let status = Done::of(command(&place, &collector.url(""), &["status"]).output().unwrap());
    status.ok();
    assert_eq!(spans(&collector.take()).0.len(), 0);
}
