//! OpenLineage events: what ran, on what, and how it ended, in the shape that the specification asks for
//! (<https://openlineage.io/spec/2-0-2/OpenLineage.json> and its facets), to a file and to a server.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::DateTime;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::mini;
use crate::receiver::{Answer, Receiver};
use crate::serving::Served;
use crate::support::{Contents, Done, Place, pause, walk, write};

const KEY: &str = "key0SECRET";

/// What each facet must hold beside what every facet holds: the `required` of its schema, and the versions that have it.
const FACETS: [(&str, &str, &[&str]); 15] = [
    ("processing_engine", "1-1-1/ProcessingEngineRunFacet", &["version"]),
    ("parent", "1-2-0/ParentRunFacet", &["run", "job"]),
    ("tags", "1-0-0/TagsRunFacet", &[]),
    ("errorMessage", "1-0-1/ErrorMessageRunFacet", &["message", "programmingLanguage"]),
    ("jobType", "2-0-4/JobTypeJobFacet", &["processingType", "integration"]),
    ("sql", "1-1-0/SQLJobFacet", &["query"]),
    ("schema", "1-2-0/SchemaDatasetFacet", &[]),
    ("columnLineage", "1-2-0/ColumnLineageDatasetFacet", &["fields"]),
    ("symlinks", "1-0-1/SymlinksDatasetFacet", &[]),
    ("storage", "1-0-1/StorageDatasetFacet", &["storageLayer"]),
    ("version", "1-0-1/DatasetVersionDatasetFacet", &["datasetVersion"]),
    ("documentation", "1-1-0/DocumentationDatasetFacet", &["description"]),
    ("outputStatistics", "1-0-2/OutputStatisticsOutputDatasetFacet", &[]),
    ("inputStatistics", "1-0-0/InputStatisticsInputDatasetFacet", &[]),
    ("dataQualityAssertions", "1-1-0/DataQualityAssertionsDatasetFacet", &["assertions"]),
];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` is missing in {value:#}"))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn is_facet(name: &str, facet: &Value) {
    assert!(text(facet, "_producer").starts_with("https://"));
    let (_, schema, required) =
        FACETS.iter().find(|(known, ..)| *known == name).unwrap_or_else(|| panic!("the facet `{name}`"));
    let class = schema.split('/').nth(1).unwrap();
    let url = format!("https://openlineage.io/spec/facets/{schema}.json#/$defs/{class}");
    assert_eq!(text(facet, "_schemaURL"), url);
    for key in *required {
        assert!(!facet[key].is_null(), "`{key}` of `{name}`: {facet:#}");
    }
    for field in items(&facet["fields"]) {
        text(field, "name");
    }
    for fields in facet["fields"].as_object().into_iter().flat_map(|fields| fields.values()) {
        for input in fields["inputFields"].as_array().unwrap() {
            for key in ["namespace", "name", "field"] {
                text(input, key);
            }
        }
    }
    for assertion in items(&facet["assertions"]) {
        text(assertion, "assertion");
        assert!(assertion["success"].is_boolean());
    }
    for identifier in items(&facet["identifiers"]) {
        assert!(["namespace", "name", "type"].iter().all(|key| !text(identifier, key).is_empty()));
    }
    for tag in items(&facet["tags"]) {
        assert!(["key", "value"].iter().all(|key| !text(tag, key).is_empty()));
    }
}

fn are_facets(facets: &Value) {
    for (name, facet) in facets.as_object().into_iter().flatten() {
        is_facet(name, facet);
    }
}

/// The event has the shape of a `RunEvent`.
fn is_run_event(event: &Value) {
    assert!(["START", "COMPLETE", "FAIL", "ABORT"].contains(&text(event, "eventType")));
    DateTime::parse_from_rfc3339(text(event, "eventTime")).unwrap();
    assert!(text(event, "producer").starts_with("https://"));
    assert_eq!(
        text(event, "schemaURL"),
        "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    );
    let id = Uuid::parse_str(text(&event["run"], "runId")).unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert!(!text(&event["job"], "namespace").is_empty() && !text(&event["job"], "name").is_empty());
    are_facets(&event["run"]["facets"]);
    are_facets(&event["job"]["facets"]);
    for (side, facets) in [("inputs", "inputFacets"), ("outputs", "outputFacets")] {
        for dataset in event[side].as_array().unwrap() {
            assert!(!text(dataset, "namespace").is_empty() && !text(dataset, "name").is_empty());
            are_facets(&dataset["facets"]);
            are_facets(&dataset[facets]);
        }
    }
}

/// Every run begins once and then ends once, and parts belong to a run that was there.
fn are_runs(events: &[Value]) {
    let mut states: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for event in events {
        is_run_event(event);
        let state = (text(event, "eventType"), text(event, "eventTime"));
        states.entry(text(&event["run"], "runId")).or_default().push(state);
    }
    for (run, states) in &states {
        assert_eq!(states.len(), 2, "{run}: {states:?}");
        assert!(states[0].0 == "START" && states[1].0 != "START", "{run}: {states:?}");
        assert!(states[0].1 <= states[1].1, "{run}: {states:?}");
    }
    for event in events {
        let parent = &event["run"]["facets"]["parent"];
        if parent["job"]["namespace"] == event["job"]["namespace"] {
            assert!(states.contains_key(text(&parent["run"], "runId")), "{event:#}");
        }
    }
}

/// The jobs with their last states, in order.
fn told(events: &[Value]) -> Vec<(String, String)> {
    let last = events.iter().filter(|event| event["eventType"] != "START");
    last.map(|event| (text(&event["job"], "name").to_owned(), text(event, "eventType").to_owned())).collect()
}

fn job<'a>(events: &'a [Value], name: &str, state: &str) -> &'a Value {
    let found = events.iter().find(|event| event["job"]["name"] == name && event["eventType"] == state);
    found.unwrap_or_else(|| panic!("{name} {state} in {:?}", told(events)))
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The small project with a check and a file for events.
fn place() -> Place {
    let mut files = mini::FILES.to_vec();
    files.push(("sql/checks/small.sql", "select id from silver.readings where amount > 100\n"));
    files.push(("sql/checks/small.toml", "description = \"Readings are small.\"\n"));
    let place = Place::with_project(&files);
    place.edit("medallion.toml", "[limits]", "[openlineage]\nfile = \"events/lineage.jsonl\"\n[limits]");
    place
}

fn file(place: &Place) -> std::path::PathBuf {
    place.project.join("events/lineage.jsonl")
}

#[test]
fn a_run_tells_of_every_table_that_it_wrote() {
    let place = place();
    let [first, second] = mini::batches();
    place.land(&first);
    place.run();
    let events = lines(&file(&place));
    are_runs(&events);
    let jobs =
        ["bronze.readings", "bronze.sites", "silver.sites", "silver.readings", "gold.daily", "gold.total"];
    let mut expected: Vec<(String, String)> =
        jobs.iter().chain(&["checks", "run"]).map(|job| ((*job).to_owned(), "COMPLETE".to_owned())).collect();
    let mut ended = told(&events);
    assert_eq!(ended.last(), expected.last(), "the run ends last");
    ended.sort();
    expected.sort();
    assert_eq!(ended, expected);
    assert_eq!(text(&events[0]["job"], "name"), "run");

    let lake = fs::canonicalize(&place.lake).unwrap();
    let dataset = |table: &str| json!({"namespace": "file", "name": lake.join(table).to_string_lossy()});
    let run = job(&events, "run", "COMPLETE");
    assert_eq!(run["job"]["namespace"], "medallion://mini");
    assert_eq!(run["job"]["facets"]["jobType"]["processingType"], "BATCH");
    let daily = job(&events, "gold.daily", "COMPLETE");
    assert_eq!(daily["run"]["facets"]["parent"]["run"]["runId"], run["run"]["runId"]);
    assert_eq!(
        daily["run"]["facets"]["parent"]["job"],
        json!({"namespace": "medallion://mini", "name": "run"})
    );
    assert!(text(&daily["job"]["facets"]["sql"], "query").contains("group by site, date"));
    assert_eq!(daily["inputs"], json!([dataset("silver/readings")]));
    let output = &daily["outputs"][0];
    assert_eq!(json!({"namespace": output["namespace"], "name": output["name"]}), dataset("gold/daily"));
    assert_eq!(output["outputFacets"]["outputStatistics"]["rowCount"], 1);
    assert_eq!(output["facets"]["version"]["datasetVersion"], "0");
    assert_eq!(output["facets"]["storage"]["storageLayer"], "delta");
    assert_eq!(output["facets"]["symlinks"]["identifiers"][0]["name"], "gold.daily");
    let fields: Vec<&str> =
        items(&output["facets"]["schema"]["fields"]).iter().map(|field| text(field, "name")).collect();
    assert_eq!(fields, ["site", "amount", "readings", "day"]);
    let amount = &output["facets"]["columnLineage"]["fields"]["amount"]["inputFields"];
    assert_eq!(amount.as_array().unwrap().len(), 1);
    assert_eq!(
        (&amount[0]["name"], &amount[0]["field"]),
        (&dataset("silver/readings")["name"], &"amount".into())
    );

    // what lands, what is refused, and what a query sees as `accepted` is bronze
    let bronze = job(&events, "bronze.readings", "COMPLETE");
    let landing = fs::canonicalize(&place.landing).unwrap();
    assert_eq!(bronze["inputs"][0]["name"], landing.join("readings/*.jsonl").to_string_lossy().as_ref());
    let statistics = &bronze["inputs"][0]["inputFacets"]["inputStatistics"];
    assert_eq!((&statistics["rowCount"], &statistics["fileCount"]), (&4.into(), &1.into()));
    assert_eq!(bronze["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"], 3);
    assert_eq!(bronze["outputs"][1]["name"], dataset("quarantine/readings")["name"]);
    assert_eq!(bronze["outputs"][1]["outputFacets"]["outputStatistics"]["rowCount"], 1);
    let silver = job(&events, "silver.readings", "COMPLETE");
    assert_eq!(silver["inputs"], json!([dataset("bronze/readings"), dataset("silver/sites")]));
    let checks = job(&events, "checks", "COMPLETE");
    let assertion = &checks["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"][0];
    assert_eq!(checks["inputs"][0]["name"], dataset("silver/readings")["name"]);
    assert_eq!((&assertion["name"], &assertion["success"]), (&"small".into(), &true.into()));

    // appended: a run that finds nothing new, a run that fails a check, a rerun
    place.run_idle();
    place.land(&second);
    place.edit("sql/checks/small.sql", "> 100", "> 3");
    place.medallion(&["run"]).expect(4);
    place.medallion(&["rerun", "--select", "gold.daily", "--dry-run"]).expect(0);
    place.medallion(&["rerun", "--select", "gold.daily", "--force"]).expect(4);
    let all = lines(&file(&place));
    are_runs(&all);
    let later = &all[events.len()..];
    assert_eq!(told(&later[..2]), [("run".to_owned(), "COMPLETE".to_owned())], "nothing to do");
    let failed = job(later, "run", "FAIL");
    assert_eq!(
        failed["run"]["facets"]["errorMessage"]["message"],
        "the check `small` found 1 row of which this is not true: Readings are small."
    );
    let checks = job(later, "checks", "COMPLETE");
    let assertion = &checks["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"][0];
    assert_eq!((&assertion["success"], &assertion["actual"]), (&false.into(), &"1".into()));
    let rerun = job(later, "rerun", "FAIL");
    let tags = items(&rerun["run"]["facets"]["tags"]["tags"]);
    assert!(tags.iter().any(|tag| tag["value"] == "rerun --select gold.daily"), "{tags:?}");
    let again = later.iter().rfind(|event| event["job"]["name"] == "gold.daily").unwrap();
    assert_eq!(again["run"]["facets"]["parent"]["run"]["runId"], rerun["run"]["runId"]);
    assert_eq!(later.iter().filter(|event| event["job"]["name"] == "rerun").count(), 2, "a dry run is none");
    place.medallion(&["vacuum"]).ok();
    assert_eq!(lines(&file(&place)).len(), all.len(), "a vacuum that only tells is none");
    place.medallion(&["vacuum", "--delete"]).ok();
    assert_eq!(told(&lines(&file(&place))[all.len()..]), [("vacuum".to_owned(), "COMPLETE".to_owned())]);
}

#[test]
fn jobs_without_runs_name_the_same_datasets() {
    let place = place();
    place.land(&mini::batches()[0]);
    place.run();
    let events = lines(&file(&place));
    let job_events = place.medallion(&["lineage", "--as", "openlineage"]).ok();
    for line in job_events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            text(&event, "schemaURL"),
            "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/JobEvent"
        );
        are_facets(&event["job"]["facets"]);
        let ran = job(&events, text(&event["job"], "name"), "COMPLETE");
        assert_eq!(ran["inputs"], event["inputs"]);
        assert_eq!(
            ran["outputs"][0]["facets"]["columnLineage"],
            event["outputs"][0]["facets"]["columnLineage"]
        );
        are_facets(&event["outputs"][0]["facets"]);
    }
    assert_eq!(job_events.lines().count(), 4);
}

#[test]
fn an_error_is_told_with_its_message() {
    let place = place();
    place.edit("sql/gold/total.sql", "select site", "select sight");
    place.medallion(&["run"]).expect(3);
    let events = lines(&file(&place));
    are_runs(&events);
    let message = &job(&events, "run", "FAIL")["run"]["facets"]["errorMessage"];
    assert!(text(message, "message").contains("sql/gold/total.sql:1"), "{message:#}");
    assert_eq!(message["programmingLanguage"], "rust");
}

/// The binary with a server to tell.
fn command(place: &Place, url: &str, arguments: &[&str]) -> Command {
    let mut command = place.told_command(arguments);
    command.env("OPENLINEAGE_URL", url).env("OPENLINEAGE_API_KEY", KEY);
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    command
}

#[track_caller]
fn keeps_key(place: &Place, done: Done) -> Done {
    assert!(!done.stderr.contains(KEY) && !done.stdout.contains(KEY), "{done:?}");
    for path in walk(&place.lake) {
        let bytes = fs::read(path).unwrap();
        assert!(!bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
    }
    done
}

#[test]
fn a_server_is_told_in_order_with_the_key_and_the_parent_of_the_scheduler() {
    let (place, server) = (mini::place(), Receiver::start());
    place.land(&mini::batches()[0]);
    let parent = "01890a5d-ac96-774b-bcce-b302099a8057";
    let mut command = command(&place, &server.url("/base/"), &["run"]);
    command.env("OPENLINEAGE_PARENT_ID", format!("airflow/daily.run/{parent}"));
    command.env("OPENLINEAGE_NAMESPACE", "finance");
    keeps_key(&place, Done::of(command.output().unwrap())).ok();
    let requests = server.take();
    for request in &requests {
        assert_eq!(request.path, "/base/api/v1/lineage");
        assert_eq!(request.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
    let events: Vec<Value> = requests.iter().map(|request| request.json()).collect();
    are_runs(&events);
    assert_eq!(events.len(), 14, "six tables and the run");
    let run = job(&events, "run", "COMPLETE");
    assert_eq!(run["job"]["namespace"], "finance");
    let given = &run["run"]["facets"]["parent"];
    assert_eq!((&given["run"]["runId"], &given["job"]["namespace"]), (&parent.into(), &"airflow".into()));
    assert_eq!(events.last(), Some(run));

    // switched off
    let mut off = self::command(&place, &server.url("/"), &["run"]);
    Done::of(off.env("OPENLINEAGE_DISABLED", "true").output().unwrap()).ok();
    assert_eq!(server.take().len(), 0);
}

#[test]
fn a_server_that_is_away_slow_or_broken_changes_nothing() {
    let plain = mini::place();
    plain.land(&mini::batches().into_iter().flatten().collect::<Vec<_>>());
    plain.run();
    for (answer, why) in [
        (Some(Answer::Status(500)), "it answers 500"),
        (Some(Answer::Silence), "does not answer within 5 s"),
        (None, "onnection refused"),
    ] {
        let (place, server) = (mini::place(), Receiver::start());
        place.land(&mini::batches().into_iter().flatten().collect::<Vec<_>>());
        if let Some(answer) = answer {
            server.answer(&[], answer);
        }
        let url = answer.map_or_else(|| "http://127.0.0.1:1".to_owned(), |_| server.url(""));
        let begun = Instant::now();
        let done = keeps_key(&place, Done::of(command(&place, &url, &["run"]).output().unwrap()));
        assert!(begun.elapsed() < Duration::from_secs(45), "{why}: {:?}", begun.elapsed());
        let is_told = done.stderr.contains(why) || done.stderr.contains("were not delivered within 25 s");
        assert!(is_told && done.stderr.contains("openlineage"), "{why}: {}", done.stderr);
        done.ok();
        Contents::of(&place).assert_equals(&Contents::of(&plain), why);
    }
}

#[test]
fn a_stream_tells_of_each_settle() {
    let place = place();
    place.edit(
        "medallion.toml",
        "[limits]",
        "[stream]\npoll = \"20 milliseconds\"\nquiet = \"100 milliseconds\"\nrefresh = \"50 milliseconds\"\n\
         idle = \"200 milliseconds\"\n[limits]",
    );
    let mut command = place.command(&["stream"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for (number, batch) in mini::batches().into_iter().enumerate() {
        place.land(&batch);
        let begun = Instant::now();
        while told(&lines(&file(&place))).iter().filter(|(job, _)| job == "stream").count() <= number {
            assert!(begun.elapsed() < Duration::from_secs(60), "no settle is told");
            pause(Duration::from_millis(50));
        }
    }
    assert!(Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
    Done::of(child.wait_with_output().unwrap()).ok();
    let events = lines(&file(&place));
    are_runs(&events);
    let settles: Vec<&Value> = events
        .iter()
        .filter(|event| event["job"]["name"] == "stream" && event["eventType"] == "COMPLETE")
        .collect();
    assert!(settles.len() >= 2, "{:?}", told(&events));
    assert!(settles.iter().all(|settle| settle["job"]["facets"]["jobType"]["processingType"] == "STREAMING"));
    let ingested = events.iter().filter(|event| event["job"]["name"] == "bronze.readings");
    let rows: Vec<&Value> = ingested
        .filter(|event| event["eventType"] == "COMPLETE")
        .map(|event| &event["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"])
        .collect();
    assert_eq!(rows, [&json!(3), &json!(4)], "what each settle brought");
}

#[test]
fn published_marts_are_tables_of_cassandra() {
    let served = Served::mini();
    let path = served.place.folder().join("events.jsonl");
    served.place.land(&mini::batches()[0]);
    let run = |arguments: &[&str]| {
        let mut command = served.command(arguments);
        Done::of(command.env("MEDALLION_OPENLINEAGE_FILE", &path).output().unwrap()).ok()
    };
    run(&["run"]);
    run(&["publish", "--full", "daily"]);
    let events = lines(&path);
    are_runs(&events);
    let published: Vec<&Value> = events
        .iter()
        .filter(|event| event["job"]["name"] == "serving.daily" && event["eventType"] == "COMPLETE")
        .collect();
    assert_eq!(published.len(), 2);
    for (event, parent) in published.into_iter().zip(["run", "publish"]) {
        assert_eq!(event["run"]["facets"]["parent"]["job"]["name"], parent);
        assert!(text(&event["inputs"][0], "name").ends_with("/gold/daily"));
        let output = &event["outputs"][0];
        assert!(text(output, "namespace").contains("://"), "{output:#}");
        assert_eq!(text(output, "name"), format!("{}.daily", served.space.name));
        assert_eq!(output["outputFacets"]["outputStatistics"]["rowCount"], 1);
    }
}

#[test]
fn a_file_that_can_not_be_written_is_a_warning() {
    let place = mini::place();
    place.land(&mini::batches()[0]);
    write(&place.folder().join("plain"), b"no folder");
    let mut command = place.told_command(&["run"]);
    command.env("MEDALLION_OPENLINEAGE_FILE", place.folder().join("plain/events.jsonl"));
    Done::of(command.output().unwrap()).expect(0).tells(&["openlineage events can't be appended"]);
}
