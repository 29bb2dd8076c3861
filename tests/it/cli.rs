//! The command line: exit codes, formats, help.

use serde_json::Value;

use crate::mini;
use crate::support::{Done, Place, medallion, reference_lake};

const QUESTIONS: [&str; 5] =
    ["critical_tickets", "daily_cost", "genai_daily", "monthly_revenue", "top_services"];

fn ask(arguments: &[&str]) -> Done {
    reference_lake().0.medallion(arguments)
}

/// No records, or no amount.
fn is_nothing(difference: &Value) -> bool {
    *difference == 0 || *difference == "0.000000"
}

/// The cells of CSV without quotes in it.
fn csv(text: &str) -> Vec<Vec<&str>> {
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
    rows
}

#[test]
fn usage_errors_end_with_2() {
    for arguments in [
        vec!["nonsense"],
        vec![],
        vec!["run", "--nonsense"],
        vec!["--format", "xml", "status"],
        vec!["query", "daily_cost", "--param", "without an equals sign"],
        vec!["quarantine", "list", "--date", "yesterday"],
        vec!["quarantine", "list", "--source", "nothing"],
        vec!["sql", "select * from gold.nothing"],
        vec!["sql", "select * from nowhere.at_all"],
        vec!["completions", "cmd.exe"],
        vec!["--lake", "ftp://somewhere/x", "status"],
    ] {
        let mut command = medallion();
        command.arg("--project").arg(crate::support::repository());
        let (place, _) = reference_lake();
        command.arg("--landing").arg(&place.landing);
        if !arguments.contains(&"--lake") {
            command.arg("--lake").arg(&place.lake);
        }
        let done = Done::of(command.args(&arguments).output().unwrap());
        assert_eq!(done.code, Some(2), "{arguments:?}: {}", done.stderr);
        assert!(!done.stderr.trim().is_empty(), "{arguments:?} says nothing");
        assert_eq!(done.stdout, "", "{arguments:?}");
    }
}

#[test]
fn a_query_that_is_wrong_is_told_and_is_no_bug_of_ours() {
    for query in [
        "select nothing from gold.finops_daily_usage",
        "selct 1",
        "",
        "select 1; select 2",
        "insert into gold.org_profile values (1)",
        "drop table gold.org_profile",
        "create table x as select 1",
        "set datafusion.execution.batch_size = 1",
        "copy (select 1) to '/tmp/stolen.csv'",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select 1 / 0",
        "select cast('x' as int)",
    ] {
        let done = ask(&["sql", query]);
        assert!(matches!(done.code, Some(2..=4)), "`{query}` ends with {:?}: {}", done.code, done.stderr);
        assert!(done.stderr.starts_with("error: "), "`{query}`: {}", done.stderr);
        assert!(!done.stderr.contains("stack backtrace"), "{}", done.stderr);
    }
}

#[test]
fn sql_prints_every_format() {
    let query = "select org_id, cast(sum(cost_usd_increment) as text) as cost, count(*) as n, min(date) as first, bool_or(is_anomaly) as odd \
                 from silver.usage_events where org_id in ('org_a', 'org_b') group by org_id order by org_id";
    let json = ask(&["--format", "json", "sql", query]).json();
    let json_rows = json.as_array().unwrap();
    let text = ask(&["--format", "csv", "sql", query]).ok();
    let rows = csv(&text);
    assert_eq!(rows[0], ["org_id", "cost", "n", "first", "odd"]);
    assert_eq!((rows.len(), json_rows.len()), (3, 2));
    for (row, object) in rows[1..].iter().zip(json_rows) {
        let of_json: Vec<String> = object.as_object().unwrap().values().map(crate::support::plain).collect();
        assert_eq!(*row, of_json);
    }
    let table = ask(&["sql", query]).ok();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.starts_with("org_id"), "{table}");
    assert!(rows[1].iter().all(|cell| table.contains(cell)), "{table}");
}

#[test]
fn an_empty_result_is_still_a_result() {
    let query = "select org_id, date from silver.usage_events where false";
    assert_eq!(ask(&["--format", "json", "sql", query]).json(), Value::Array(Vec::new()));
    assert_eq!(ask(&["--format", "csv", "sql", query]).ok(), "org_id,date\n");
    assert!(ask(&["sql", query]).ok().starts_with("org_id  date"));
}

#[test]
fn nested_values_are_printed_in_every_format() {
    let query = "select org_id, tags, users_by_role from gold.org_profile where org_id = 'org_a'";
    let json = ask(&["--format", "json", "sql", query]).json();
    assert!(json[0]["tags"].is_array() && json[0]["users_by_role"].is_object(), "{json}");
    assert!(ask(&["--format", "csv", "sql", query]).ok().starts_with("org_id,tags,users_by_role\norg_a,"));
    assert!(ask(&["sql", query]).ok().contains("org_a"));
}

#[test]
fn status_and_balance_print_every_format() {
    let status = ask(&["--format", "json", "status"]).json();
    let tables = status.as_array().unwrap();
    assert!(tables.len() > 25, "{status}");
    let silver = tables.iter().find(|table| table["table"] == "silver.usage_events").unwrap();
    assert_eq!(
        silver["rows"].as_i64().unwrap(),
        ask(&["--format", "json", "sql", "select count(*) as n from silver.usage_events"]).json()[0]["n"]
            .as_i64()
            .unwrap()
    );
    assert!(tables.iter().all(|table| table["waits"] == "" && table["stale_partitions"] == 0), "{status}");
    let balance = ask(&["--format", "json", "balance"]).json();
    assert!(balance.as_array().unwrap().iter().all(|row| is_nothing(&row["difference"])), "{balance}");
    for command in ["status", "balance"] {
        assert!(ask(&[command]).ok().contains("usage_events"));
        let text = ask(&["--format", "csv", command]).ok();
        let rows = csv(&text);
        assert!(rows.len() > 5 && rows[0].len() > 5, "{command} --format csv is no CSV:\n{text}");
    }
    let quarantine = ask(&["--format", "json", "quarantine", "list"]).json();
    let counted: i64 =
        quarantine.as_array().unwrap().iter().map(|group| group["records"].as_i64().unwrap()).sum();
    let (place, _) = reference_lake();
    let expected: i64 = place
        .balance()
        .iter()
        .filter(|(name, _)| name.ends_with(" records"))
        .map(|(_, sides)| sides[4].parse::<f64>().unwrap() as i64)
        .sum();
    assert_eq!(counted, expected);
    let rows = ask(&["--format", "csv", "quarantine", "list", "--error-type", "malformed"]).ok();
    let names: Vec<&str> = quarantine[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        rows.lines().next().unwrap().split(',').collect::<Vec<_>>(),
        names,
        "CSV has the names of JSON"
    );
}

#[test]
fn run_prints_a_report_in_every_format() {
    let place = crate::mini::place();
    let [first, second] = crate::mini::batches();
    place.land(&first);
    let report = place.medallion(&["--format", "json", "run"]).json();
    assert_eq!((&report["run_id"], &report["new_files"]), (&1.into(), &2.into()));
    assert!(report["steps"].as_array().unwrap().iter().any(|step| step["table"] == "gold.total"));
    assert!(report["balance"].as_array().unwrap().iter().all(|row| is_nothing(&row["difference"])));
    place.land(&second);
    let told = place.run();
    for text in ["run 2: 2 new files", "gold.total", "the balance holds", "commits"] {
        assert!(told.contains(text), "`{text}` is missing in:\n{told}");
    }
    assert!(!told.contains('\u{1b}'), "no escape codes where no terminal is");
}

#[test]
fn every_question_answers_with_its_defaults_in_every_format() {
    for question in QUESTIONS {
        let rows = ask(&["--format", "json", "query", question]).json();
        assert!(!rows.as_array().unwrap().is_empty(), "{question} answers nothing");
        let text = ask(&["--format", "csv", "query", question]).ok();
        let names: Vec<&str> = rows[0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(csv(&text)[0], names, "{question}");
        assert!(ask(&["query", question]).ok().starts_with(names[0]), "{question}");
    }
    let told = ask(&["query"]).ok();
    assert!(QUESTIONS.iter().all(|question| told.contains(&format!("{question}: "))), "{told}");
}

#[test]
fn questions_take_parameters() {
    let rows = ask(&[
        "--format",
        "json",
        "query",
        "daily_cost",
        "--param",
        "org_id=org ü/c",
        "--param",
        "from_date=2025-08-01",
        "--param",
        "to_date=2025-08-12",
    ])
    .json();
    let (place, _) = reference_lake();
    let expected = place.sql("select usage_date from gold.finops_daily_usage where org_id = 'org ü/c'");
    assert_eq!(rows.as_array().unwrap().len(), expected.len());
    let none = ask(&["--format", "json", "query", "daily_cost", "--param", "org_id=' or true --"]).json();
    assert_eq!(none, Value::Array(Vec::new()), "a parameter is a value, never SQL");
}

#[test]
fn unknown_questions_and_parameters_list_the_known() {
    ask(&["query", "nothing"]).expect(2).tells(&QUESTIONS);
    ask(&["query", "daily_cost", "--param", "org=1"]).expect(2).tells(&[
        "`org`",
        "from_date",
        "org_id",
        "to_date",
    ]);
    ask(&["query", "daily_cost", "--param", "from_date=soon"]).expect(2).tells(&["from_date", "`soon`"]);
}

#[test]
fn questions_on_an_empty_lake_say_what_to_do() {
    let place = Place::reference();
    // a run that finds nothing makes the lake and no table
    place.run();
    place.medallion(&["query", "daily_cost"]).expect(2).tells(&["medallion run"]);
    place.medallion(&["status"]).ok();
    place.medallion(&["balance"]).ok();
    place.medallion(&["quarantine", "list"]).ok();
    assert_eq!(place.value("select count(*) from gold.org_profile"), "0");
}

#[test]
fn without_a_lake_nothing_is_answered_and_nothing_made() {
    let place = mini::place();
    let empty = place.folder().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let commands: [&[&str]; 17] = [
        &["sql", "select 1"],
        &["status"],
        &["balance"],
        &["quarantine", "list"],
        &["quarantine", "show"],
        &["quarantine", "export"],
        &["quarantine", "redrive", "--all"],
        &["runs", "list"],
        &["runs", "show"],
        &["alerts", "list"],
        &["explain-row", "gold.total", "site=north"],
        &["diff", "gold.total", "0", "1"],
        &["restore", "gold.total", "--to", "0"],
        &["doctor"],
        &["rerun", "--stale"],
        &["vacuum"],
        &["gc", "--keep-runs", "1"],
    ];
    for command in commands {
        place.medallion(command).expect(2).tells(&["there is no lake at", "medallion run", "--lake"]);
        assert!(!place.lake.try_exists().unwrap(), "{command:?} makes a lake");
    }
    // a folder is no lake
    let mut command = medallion();
    command.arg("--project").arg(&place.project).arg("--lake").arg(&empty).arg("status");
    Done::of(command.output().unwrap()).expect(2).tells(&["there is no lake at"]);
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
}

#[test]
fn a_landing_folder_that_is_not_there_is_told() {
    let place = mini::place();
    std::fs::remove_dir(&place.landing).unwrap();
    for command in ["run", "stream"] {
        place.medallion(&[command]).expect(6).tells(&["landing", "--landing"]);
        assert!(!place.lake.try_exists().unwrap(), "no lake is made for nothing");
    }
}

#[test]
fn a_lake_can_be_looked_at_without_its_landing() {
    let place = mini::place();
    place.land(&mini::batches().concat());
    place.run();
    std::fs::remove_dir_all(&place.landing).unwrap();
    place.medallion(&["status"]).ok();
    place.medallion(&["status", "--monitor"]).ok();
    place.medallion(&["quarantine", "show"]).ok();
    let told = place.medallion(&["doctor"]).ok();
    assert!(told.contains("landing") && told.contains("the lake is sound"), "{told}");
}

#[test]
fn doctor_tells_of_landed_files_that_are_gone() {
    let place = mini::place();
    place.land(&mini::batches().concat());
    place.run();
    assert!(!place.medallion(&["doctor"]).ok().contains("gone"));
    std::fs::remove_file(place.landing.join("readings/a.jsonl")).unwrap();
    let told = place.medallion(&["doctor"]).ok();
    assert!(told.contains("1 of 4 files") && told.contains("`readings/a.jsonl`"), "{told}");
}

#[test]
fn parameters_that_do_not_fit_are_usage() {
    let cases: [(&[&str], &str); 5] = [
        (&["top_services", "--param", "top_n=-1"], "`top_n` is a number of rows: -1 is too few"),
        (&["top_services", "--param", "top_n=many"], "`top_n` must be a whole number, not `many`"),
        (&["daily_cost", "--param", "from_date=2025-13-45"], "`from_date` must be a date, as 2025-08-31"),
        (&["daily_cost", "--param", "org_id=a", "--param", "org_id=b"], "`org_id` is given twice"),
        (&["daily_cost", "--param", "org=1"], "no parameter `org`"),
    ];
    for (arguments, expected) in cases {
        let done = ask(&[&["query"], arguments].concat()).expect(2).tells(&[expected]);
        for inner in ["eliminate_limit", "Optimizer", "Error during planning", "Cast error", "Arrow"] {
            assert!(!done.stderr.contains(inner), "{arguments:?}: {}", done.stderr);
        }
    }
}

#[test]
fn a_wrong_query_of_the_caller_is_usage() {
    for (query, expected) in [
        ("select * from gold.nothing", "gold.nothing"),
        ("select total_kost_usd from gold.finops_daily_usage", "there is `total_cost_usd`"),
        ("select 1 / 0", "zero"),
        ("select cast('x' as int)", "x"),
        ("drop table gold.org_profile", "`sql` takes one query"),
        ("copy (select 1) to '/tmp/stolen.csv'", "`sql` takes one query"),
        ("explain select 1", "`sql` takes one query"),
        ("", "`sql` takes one query"),
        ("select 1; select 2", "`sql` takes one query"),
        ("selct 1", "selct"),
    ] {
        let done = ask(&["sql", query]).expect(2).tells(&[expected]);
        for inner in ["ParserError", "SQL error", "Error during planning", "medallion.gold", "the file must"]
        {
            assert!(!done.stderr.contains(inner), "`{query}`: {}", done.stderr);
        }
    }
}

#[test]
fn check_and_the_list_of_questions_are_json_too() {
    let valid = ask(&["--format", "json", "check"]).json();
    assert_eq!(
        (&valid["project"], &valid["problems"]),
        (&"cloud_analytics".into(), &Value::Array(Vec::new()))
    );
    assert!(valid["models"].as_i64() > Some(20), "{valid}");
    let questions = ask(&["--format", "json", "query"]).json();
    let names: Vec<&str> =
        questions.as_array().unwrap().iter().map(|question| question["question"].as_str().unwrap()).collect();
    assert_eq!(names, QUESTIONS);
    assert!(questions[1]["parameters"].as_array().unwrap().iter().any(|one| one["name"] == "from_date"));
    let rows = ask(&["--format", "csv", "query"]).ok();
    assert!(rows.starts_with("question,title,parameters\ncritical_tickets,"), "{rows}");

    let place = Place::copied_reference();
    place.edit("sql/bronze/users.toml", "mode =", "modus =");
    let done = place.medallion(&["--format", "json", "check"]).expect(3);
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    let problem = &told["problems"][0];
    assert_eq!(
        (&problem["file"], problem["line"].as_i64() > Some(1)),
        (&"sql/bronze/users.toml".into(), true)
    );
    assert!(
        told["not_checked"].as_array().unwrap().iter().any(|file| file == "sql/silver/users.sql"),
        "{told}"
    );
    let done = place.medallion(&["--format", "csv", "check"]).expect(3);
    assert!(done.stdout.starts_with("file,line,message\nsql/bronze/users.toml,"), "{}", done.stdout);
}

#[test]
fn every_command_has_help_with_what_it_does() {
    let commands: [&[&str]; 26] = [
        &[],
        &["check"],
        &["run"],
        &["rerun"],
        &["runs", "list"],
        &["runs", "show"],
        &["diff"],
        &["restore"],
        &["optimize"],
        &["vacuum"],
        &["gc"],
        &["explain-row"],
        &["lineage"],
        &["doctor"],
        &["quarantine", "export"],
        &["quarantine", "redrive"],
        &["quarantine", "discard"],
        &["query"],
        &["sql"],
        &["status"],
        &["balance"],
        &["quarantine"],
        &["quarantine", "list"],
        &["quarantine", "show"],
        &["generate"],
        &["completions"],
    ];
    for command in commands {
        let done = Done::of(medallion().args(command).arg("--help").output().unwrap());
        let text = done.ok();
        assert!(text.contains("Usage: medallion") && text.contains("Options:"), "{command:?}: {text}");
    }
    let whole = Done::of(medallion().arg("--help").output().unwrap()).ok();
    assert!(whole.contains("Examples:") && whole.contains("Exit codes:"), "{whole}");
    for command in [["run"], ["query"], ["sql"], ["completions"]] {
        let text = Done::of(medallion().args(command).arg("--help").output().unwrap()).ok();
        assert!(text.contains("Example"), "{command:?} --help has no example");
    }
    assert!(Done::of(medallion().arg("--version").output().unwrap()).ok().starts_with("medallion "));
}

#[test]
fn completions_and_docs_are_printed() {
    let script = Done::of(medallion().args(["completions", "bash"]).output().unwrap()).ok();
    assert!(script.contains("_medallion()") && script.contains("quarantine"), "no completion script");
    let docs = ask(&["docs"]).ok();
    for heading in
        ["## Bronze", "### silver.usage_events", "### gold.org_profile", "## Questions", "## Checks"]
    {
        assert!(docs.contains(heading), "{heading}");
    }
}

#[test]
fn control_characters_of_the_data_never_reach_the_terminal() {
    let place = crate::mini::place();
    let bad = crate::data::Landed::new("readings/a.jsonl", "\u{1b}[2J\u{7}evil\n");
    place.land([&bad]);
    place.run();
    for arguments in [
        &["quarantine", "show"][..],
        &["quarantine", "list"],
        &["sql", "select cast(raw as text) as raw, reason from quarantine.readings"],
    ] {
        let told = place.medallion(arguments).ok();
        assert!(told.contains("evil") || told.contains("malformed"), "{told}");
        assert!(!told.contains('\u{1b}') && !told.contains('\u{7}'), "{told:?}");
    }
}

#[test]
fn numbers_are_exact_and_alike_in_every_answer() {
    let query = "select cast('123456789012.123457' as decimal(18, 6)) as money, 9007199254740993 as n, \
                 [cast('0.100000' as decimal(18, 6))] as list, cast('NaN' as double) as nan, cast(0.5 as double) as half";
    let row = ask(&["--format", "json", "sql", query]).json()[0].take();
    assert_eq!(row["money"], "123456789012.123457");
    assert_eq!(row["n"], 9_007_199_254_740_993_i64);
    assert_eq!(row["list"][0], "0.100000");
    assert_eq!((&row["nan"], &row["half"]), (&Value::Null, &0.5.into()));
    let balance = ask(&["--format", "json", "balance"]).json();
    for line in balance.as_array().unwrap() {
        let is_count = line["measure"] == "records";
        assert_eq!((line["landed"].is_i64(), line["landed"].is_string()), (is_count, !is_count), "{line}");
    }
    let rows = ask(&["--format", "csv", "balance"]).ok();
    let names: Vec<&str> = balance[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(csv(&rows)[0], names, "CSV has the names of JSON");
}

#[test]
fn a_text_that_is_cast_to_a_decimal_keeps_every_digit() {
    let query = "select cast('123456789012.123457' as decimal(18, 6)) as money";
    assert_eq!(ask(&["--format", "json", "sql", query]).json()[0]["money"], "123456789012.123457");
}

#[test]
fn quarantine_is_listed_by_error_type_and_by_date_when_asked() {
    let key = |group: &Value| (group["source"].to_string(), group["error_type"].to_string());
    let short = ask(&["--format", "json", "quarantine", "list"]).json();
    let long = ask(&["--format", "json", "quarantine", "list", "--by-date"]).json();
    let (short, long) = (short.as_array().unwrap(), long.as_array().unwrap());
    let keys: std::collections::BTreeSet<_> = short.iter().map(key).collect();
    assert_eq!(keys.len(), short.len(), "one line per source and error type");
    assert!(long.len() > short.len() && long.iter().all(|group| group["first_date"] == group["last_date"]));
    let sum = |groups: &[Value]| groups.iter().map(|group| group["records"].as_i64().unwrap()).sum::<i64>();
    assert_eq!(sum(short), sum(long));
    for command in ["list", "show"] {
        let told = ask(&["quarantine", command, "--error-type", "nope"]).ok();
        assert_eq!(told, "no refused record is like that\n", "{command}");
    }
}

#[test]
fn an_idle_run_is_no_run_and_an_absent_table_has_no_version() {
    let place = mini::place();
    place.land(&mini::batches()[0]);
    place.run();
    let report = place.medallion(&["--format", "json", "run"]).json();
    assert_eq!(report["run_id"], Value::Null);
    assert!(report["balance"].as_array().unwrap().iter().all(|row| row["scope"] == "lake"), "{report}");
    let empty = mini::place();
    empty.run();
    let status = empty.medallion(&["--format", "json", "status"]).json();
    let bronze = status.as_array().unwrap().iter().find(|table| table["table"] == "bronze.readings").unwrap();
    assert_eq!((&bronze["version"], &bronze["rows"]), (&Value::Null, &0.into()), "{status}");
}

#[test]
fn numbers_below_zero_are_told_with_their_range() {
    for option in ["--events", "--days", "--dirty"] {
        let done =
            Done::of(medallion().args(["generate", "--out", "/nowhere", option, "-5"]).output().unwrap());
        done.expect(2).tells(&["invalid value '-5'", option]);
    }
}
