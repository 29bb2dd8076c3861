//! A broken project is told before anything runs: every problem at once, with file and line.

use crate::mini;
use crate::support::{Done, Place};

/// The mini project with files replaced or added.
fn project(changed: &[(&str, &str)]) -> Place {
    let kept = mini::FILES.iter().filter(|(path, _)| changed.iter().all(|(other, _)| other != path));
    let files: Vec<(&str, &str)> = kept.chain(changed).copied().collect();
    Place::with_project(&files)
}

fn text(path: &str) -> &'static str {
    mini::FILES.iter().find(|(file, _)| *file == path).unwrap().1
}

#[track_caller]
fn refused(place: &Place) -> Done {
    let told = place.medallion(&["check"]).expect(3);
    // `run` says the same and touches nothing
    let run = place.medallion(&["run"]).expect(3);
    assert_eq!(run.stderr, told.stderr);
    assert!(place.lake.symlink_metadata().is_err(), "a broken project touches no lake");
    told
}

#[test]
fn a_correct_project_is_told_so() {
    let told = mini::place().medallion(&["check"]).ok();
    assert_eq!(told, "project `mini` is valid: 2 sources, 4 models, 0 checks, 0 questions\n");
    Place::reference().medallion(&["check"]).ok();
}

#[test]
fn problems_of_several_files_are_told_at_once() {
    let readings = text("sql/bronze/readings.toml")
        .replace("key = [\"id\"]", "key = []")
        .replace("{ name = \"note\", type = \"text\" }", "{ name = \"note\", type = \"varchar(3)\" }");
    let place = project(&[
        ("sql/bronze/readings.toml", &readings),
        ("sql/bronze/sites.toml", &text("sql/bronze/sites.toml").replace("mode =", "modus = 1\nmode =")),
        ("sql/gold/daily.toml", &text("sql/gold/daily.toml").replace("key =", "kye =")),
        ("sql/gold/other.sql", "select 1 as one\n"),
        ("sql/gold/notes.md", "what is this"),
        ("cql/questions/lonely.toml", "title = \"x\"\n"),
    ]);
    refused(&place).tells(&[
        "sql/bronze/readings.toml:6: a source needs a `key`",
        "sql/bronze/readings.toml:15: ",
        "varchar(3)",
        "sql/bronze/sites.toml:5: unknown field `modus`",
        "sql/gold/daily.toml:2: unknown field `kye`",
        "sql/gold/other.sql: `other.toml` is missing beside it",
        "sql/gold/notes.md: unused file",
        "cql/questions/lonely.toml: `lonely.cql` is missing beside it",
    ]);
}

#[test]
fn an_unknown_column_is_told_with_its_line() {
    let place = project(&[
        (
            "sql/gold/total.sql",
            "select site,\n    cast(sum(amuont) as decimal(38, 6)) as amount\nfrom gold.daily\ngroup by site\n",
        ),
        ("sql/gold/more.sql", "select site\nfrom gold.daily\nwhere nmae = 1\n"),
        ("sql/gold/more.toml", "description = \"x\"\nkey = [\"site\"]\n"),
    ]);
    refused(&place).tells(&["sql/gold/total.sql:2: ", "amuont", "sql/gold/more.sql:3: ", "nmae"]);
}

#[test]
fn cyclic_models_are_told_with_the_cycle_and_hide_no_other_problem() {
    let toml = "description = \"x\"\nkey = [\"site\"]\n";
    let place = project(&[
        ("sql/gold/a.sql", "select site\nfrom gold.b\n"),
        ("sql/gold/a.toml", toml),
        ("sql/gold/b.sql", "select site from gold.a\n"),
        ("sql/gold/b.toml", toml),
        ("sql/silver/sites.sql", &text("sql/silver/sites.sql").replace("name, opened", "nmae, opened")),
    ]);
    refused(&place).tells(&[
        "sql/gold/a.sql:2: the models read each other in a cycle: gold.a → gold.b",
        "sql/silver/sites.sql:1: ",
        "nmae",
    ]);
}

#[test]
fn a_broken_manifest_hides_no_other_problem() {
    let place = project(&[
        ("medallion.toml", "[project]\nname = \"mini\"\nowner = \"me\"\n"),
        ("sql/silver/sites.sql", &text("sql/silver/sites.sql").replace("name, opened", "nmae, opened")),
    ]);
    refused(&place).tells(&["medallion.toml:3: unknown field `owner`", "sql/silver/sites.sql:1: ", "nmae"]);
}

#[test]
fn each_mistake_is_told() {
    let bronze = text("sql/bronze/readings.toml");
    let edited = |from: &str, to: &str| {
        assert!(bronze.contains(from), "{from}");
        bronze.replacen(from, to, 1)
    };
    let model = |sql: &str| sql.to_owned();
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("medallion.toml", "[project\n".to_owned(), &["medallion.toml:1: "]),
        (
            "medallion.toml",
            "[landing]\nuri = \"x\"\n".to_owned(),
            &["medallion.toml: the key `project` is missing"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("type = \"timestamp\"", "type = \"time\""),
            &["readings.toml:12: ", "`time`"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("decimal(18,6)", "decimal(77,6)"),
            &["readings.toml:14: ", "decimal(77,6)"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("event_time = \"at\"", "event_time = \"at\"\nwatermark_delay = \"-2 hours\""),
            &["readings.toml:9: `-2 hours` is not a duration"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("event_time = \"at\"", "event_time = \"at\"\nfuture_limit = \"2000 milliseconds\""),
            &["readings.toml:9: `2000 milliseconds` is not a duration"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("money = [\"amount\"]", "money = [\"cost\"]"),
            &["readings.toml:9: ", "`cost`"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("money = [\"amount\"]", "money = [\"note\"]"),
            &["readings.toml:9: ", "`note`"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("partition = \"at\"", "partition = \"site\""),
            &["readings.toml:7: ", "date"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("key = [\"id\"]\n", ""),
            &["readings.toml: the key `key` is missing"],
        ),
        ("sql/bronze/readings.toml", edited("\"note\"", "\"id\""), &["readings.toml", "`id`", "twice"]),
        ("sql/bronze/readings.toml", edited("\"note\"", "\"_rescued\""), &["readings.toml:15: ", "_rescued"]),
        ("sql/bronze/readings.toml", edited("amount < 0", "amount"), &["readings.toml", "not boolean"]),
        ("sql/bronze/readings.toml", edited("amount < 0", "amuont < 0"), &["readings.toml", "amuont"]),
        (
            "sql/bronze/readings.toml",
            edited("format = \"jsonl\"", "format = \"xml\""),
            &["readings.toml:4: ", "xml"],
        ),
        ("sql/silver/sites.sql", model("select * from bronze.sites"), &["sites.sql:1: ", "bronze.sites"]),
        (
            "sql/silver/sites.sql",
            model("select * from accepted.nothing"),
            &["sites.sql:1: ", "accepted.nothing"],
        ),
        ("sql/silver/sites.sql", model("select\nfrom from"), &["sites.sql:2: "]),
        ("sql/silver/sites.sql", model("delete from accepted.sites"), &["sites.sql"]),
        ("sql/silver/sites.sql", model("select 1; select 2"), &["sites.sql"]),
        ("sql/silver/sites.sql", String::new(), &["sites.sql"]),
        (
            "sql/silver/sites.toml",
            "description = \"x\"\n".to_owned(),
            &["sites.toml: a stored model needs a `key`"],
        ),
        (
            "sql/silver/sites.toml",
            "description = \"x\"\nkey = [\"nothing\"]\n".to_owned(),
            &["sites.toml:2: ", "`nothing`"],
        ),
        (
            "sql/silver/sites.toml",
            "description = \"x\"\nkey = [\"site\"]\naccounts_for = \"readings\"\n".to_owned(),
            &["sites.toml:3: ", "`amount`"],
        ),
        (
            "sql/gold/total.sql",
            model("select site, arrow_cast(1, 'UInt64') as amount from gold.daily"),
            &["total.sql", "amount"],
        ),
    ];
    let mut wrong = Vec::new();
    for (path, content, expected) in &cases {
        let told = project(&[(path, content)]).medallion(&["check"]);
        let missing: Vec<_> = expected.iter().filter(|text| !told.stderr.contains(**text)).collect();
        if told.code != Some(3) || !missing.is_empty() {
            wrong.push(format!(
                "{path} `{content:.60}`: code {:?}, without {missing:?}: {}",
                told.code, told.stderr
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn questions_and_checks_are_validated() {
    let place = project(&[
        (
            "cql/tables/daily.cql",
            "create table daily (site text, day date, amount decimal, readings bigint, primary key ((site), day));\n",
        ),
        ("cql/questions/q.cql", "select day, amuont from daily where site = :site and day = :day;\n"),
        (
            "cql/questions/q.toml",
            "title = \"x\"\n[parameters.site]\ntype = \"text\"\n[parameters.more]\ntype = \"text\"\n",
        ),
        ("sql/checks/c.sql", "select * from gold.nothing\n"),
        ("sql/checks/c.toml", "description = \"x\"\nseverity = \"loud\"\n"),
        ("sql/checks/d.sql", "select nothing\nfrom gold.daily\n"),
        ("sql/checks/d.toml", "description = \"x\"\n"),
    ]);
    refused(&place).tells(&["cql/questions/q", "sql/checks/c.toml:2: ", "sql/checks/d.sql:1: "]);
}

#[test]
fn no_project_is_a_usage_error() {
    let place = Place::with_project(&[("readme.txt", "no project")]);
    place.medallion(&["check"]).expect(2).tells(&["medallion.toml", "--project"]);
}

/// The lines of problems that `check` tells.
fn problems(place: &Place) -> Vec<String> {
    let told = refused(place);
    told.stderr.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect()
}

#[track_caller]
fn assert_problems(place: &Place, starts: &[&str]) -> Done {
    let told = problems(place);
    assert_eq!(told.len(), starts.len(), "{told:#?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "`{told}` should begin with `{start}`");
    }
    refused(place)
}

#[cfg(unix)]
#[test]
fn files_that_cannot_be_read_are_problems_among_the_others() {
    let place = project(&[
        ("sql/gold/bin.toml", "description = \"x\"\nkey = [\"site\"]\n"),
        ("sql/silver/sites.sql", &text("sql/silver/sites.sql").replace("name, opened", "nmae, opened")),
        ("sql/gold/reader.sql", "select site from gold.bin\n"),
        ("sql/gold/reader.toml", "description = \"x\"\nkey = [\"site\"]\n"),
    ]);
    std::fs::write(place.project.join("sql/gold/bin.sql"), b"select 1 as site,\n'\xff'\n").unwrap();
    std::os::unix::fs::symlink("/nowhere", place.project.join("sql/gold/link.toml")).unwrap();
    let told = assert_problems(
        &place,
        &[
            "sql/gold/bin.sql:2: is not valid UTF-8",
            "sql/gold/link.toml: can't be read: it is a link to nothing",
            "sql/silver/sites.sql:1: there is no column `nmae`; there is `name`",
        ],
    );
    told.tells(&["not checked, because they depend on these: ", "sql/gold/reader.sql", "sql/gold/daily.sql"]);
}

#[test]
fn every_mistake_of_a_file_is_told_and_nothing_that_follows_from_it() {
    let readings = text("sql/bronze/readings.toml")
        .replace("format = \"jsonl\"", "format = \"xml\"")
        .replace("mode = \"events\"", "mood = \"events\"")
        .replace("{ name = \"note\", type = \"text\" }", "{ name = \"note\", type = \"txet\", more = 1 }")
        .replace("amount < 0", "amuont < 0");
    let place = project(&[("sql/bronze/readings.toml", &readings)]);
    let told = assert_problems(
        &place,
        &[
            "sql/bronze/readings.toml:4: unknown variant `xml`",
            "sql/bronze/readings.toml:5: unknown field `mood`",
            "sql/bronze/readings.toml:15: unknown field `more`",
            "sql/bronze/readings.toml:15: unknown type `txet`",
            "sql/bronze/readings.toml:19: `when` of `negative`: there is no column `amuont`; there is `amount`",
        ],
    );
    told.tells(&[
        "not checked, because they depend on these: ",
        "sql/silver/readings.sql",
        "sql/gold/daily.sql",
    ]);
}

#[test]
fn one_typo_is_one_problem() {
    for (path, from, to, start) in [
        ("sql/bronze/usage_events.toml", "mode =", "modus =", "unknown field `modus`"),
        ("sql/bronze/usage_events.toml", "format = \"jsonl\"", "format = \"jsonl", ""),
        ("sql/silver/users.sql", "accepted.users", "accepted.uesrs", "there is no table `accepted.uesrs`"),
        ("sql/gold/finops_daily_usage.toml", "partition =", "partitions =", "unknown field `partitions`"),
        (
            "cql/tables/org_profile.cql",
            "create table",
            "creat table",
            "the file must hold one `create table`",
        ),
    ] {
        let place = Place::copied_reference();
        place.edit(path, from, to);
        let told = problems(&place);
        assert_eq!(told.len(), 1, "{path}: {told:#?}");
        assert!(told[0].starts_with(path) && told[0].contains(start), "{told:?}");
    }
}

#[test]
fn what_depends_on_the_clock_or_on_chance_is_told() {
    let place = project(&[
        ("sql/gold/clock.sql", "select site, current_date() as day from silver.sites\n"),
        ("sql/gold/clock.toml", "description = \"x\"\nkey = [\"site\"]\n"),
        ("sql/gold/chance.sql", "select\n    site,\n    random() as share\nfrom silver.sites\n"),
        ("sql/gold/chance.toml", "description = \"x\"\nkey = [\"site\"]\n"),
    ]);
    assert_problems(
        &place,
        &[
            "sql/gold/chance.sql:3: `random` answers otherwise each time",
            "sql/gold/clock.sql:1: `current_date` answers otherwise each time",
        ],
    );
    place.edit("sql/bronze/readings.toml", "when = \"", "when = \"now() is null or ");
    let told = problems(&place);
    assert!(told.iter().any(|line| line.contains("readings.toml") && line.contains("`now`")), "{told:?}");
}

#[test]
fn two_sources_of_one_file_are_told() {
    let place = Place::copied_reference();
    place.edit("sql/bronze/nps_surveys.toml", "files = \"nps_surveys*.csv\"", "files = \"*s.csv\"");
    let told = problems(&place);
    assert!(told.iter().any(|line| line.contains("a file could belong to `nps_surveys` too")), "{told:?}");
}

#[test]
fn a_query_without_its_toml_is_examined() {
    let place = project(&[
        ("sql/gold/lonely.sql", "select nmae from silver.sites\n"),
        ("sql/gold/other.sql", "select site from gold.lonely\n"),
        ("sql/gold/other.toml", "description = \"x\"\nkey = [\"site\"]\n"),
    ]);
    assert_problems(
        &place,
        &[
            "sql/gold/lonely.sql: `lonely.toml` is missing beside it",
            "sql/gold/lonely.sql:1: there is no column `nmae`; there is `name`",
        ],
    );
}

#[test]
fn messages_name_no_inner_things() {
    let place = project(&[
        ("sql/checks/a.sql", "select * from gold.nothing\n"),
        ("sql/checks/a.toml", "description = \"x\"\n"),
        ("sql/checks/b.sql", "select site + true from gold.daily\n"),
        ("sql/checks/b.toml", "description = \"x\"\n"),
        ("sql/gold/parts.sql", "select site from gold.\"total$partitions\"\n"),
        ("sql/gold/parts.toml", "description = \"x\"\nkey = [\"site\"]\n"),
        ("sql/golld/a.sql", "select 1\n"),
    ]);
    let told = assert_problems(
        &place,
        &[
            "sql/checks/a.sql:1: there is no table `gold.nothing`",
            "sql/checks/b.sql:",
            "sql/gold/parts.sql:1: `gold.total` has no partitions",
            "sql/golld/a.sql: there is no folder `sql/golld`; ",
        ],
    );
    for inner in ["medallion.gold", "Error during planning", "$partitions", "Schema error"] {
        assert!(!told.stderr.contains(inner), "{}", told.stderr);
    }
}

#[test]
fn types_are_called_as_the_project_calls_them() {
    let place = project(&[
        ("sql/checks/b.sql", "select abs(site, 1) from gold.daily\n"),
        ("sql/checks/b.toml", "description = \"x\"\n"),
        ("sql/gold/total.sql", "select site,\n  arrow_cast(1, 'UInt64') as amount\nfrom gold.daily\n"),
    ]);
    let told = refused(&place).stderr;
    for text in [
        "'abs(text, bigint)'",
        "sql/gold/total.sql:2: column `amount` has the type `bigint unsigned`, which the lake can't hold",
    ] {
        assert!(told.contains(text), "`{text}` is missing in {told}");
    }
    let asked = project(&[]).medallion(&["sql", "select abs('a') + sum(site) from gold.daily"]);
    for text in [&told, &asked.stderr] {
        for arrows in ["Utf8", "Int64", "Decimal128", "Date32", "Timestamp("] {
            assert!(!text.contains(arrows), "{arrows} in {text}");
        }
    }
}

#[test]
fn a_problem_is_told_with_its_line_or_with_null() {
    let alerts = "[[alerts]]\nkind = \"slack\"\nurl_env = \"A\"\n".repeat(2);
    let serving = "[serving]\nkeyspace = \"k\"\nhosts = [\"a:b\"]\nmax_requests = 0\n";
    let table = "-- what is served\ncreate table daily (\n  site text,\n  amount int,\n  day date,\n  primary key (site, day)\n);\n";
    let publish =
        "-- how\ninsert into daily (site, day)\nvalues (:site, :day)\nusing timestamp :committed_at\n";
    let place = project(&[
        ("medallion.toml", &format!("{}{serving}{alerts}", text("medallion.toml"))),
        ("cql/tables/daily.cql", table),
        ("cql/tables/nobody.cql", &table.replace("daily", "nobody")),
        ("cql/publish/daily.cql", publish),
        ("cql/publish/other.cql", &publish.replace("daily", "other")),
        ("sql/gold/keyless.sql", "select site from gold.daily\n"),
        ("sql/gold/keyless.toml", "description = \"x\"\nkey = []\n"),
        ("sql/gold/lonely.sql", "select 1 as one\n"),
        ("sql/reference/empty.csv", ""),
    ]);
    let told = place.medallion(&["--format", "json", "check"]).expect(3);
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    let problems = told["problems"].as_array().unwrap();
    let line_of = |file: &str, message: &str| {
        let found = problems.iter().find(|problem| {
            problem["file"] == file && problem["message"].as_str().unwrap().contains(message)
        });
        found.unwrap_or_else(|| panic!("{file}: {message} is missing in {told:#}"))["line"].clone()
    };
    for (file, message, line) in [
        ("medallion.toml", "`serving.hosts`", Some(7)),
        ("medallion.toml", "`serving.max_requests`", Some(8)),
        ("medallion.toml", "`[[alerts]]` 2: there are two", Some(13)),
        ("cql/tables/daily.cql", "`amount` is `int` here and `decimal(38,6)`", Some(4)),
        ("cql/tables/daily.cql", "the column `readings` of `gold.daily` is missing", Some(2)),
        ("cql/tables/nobody.cql", "there is no mart `gold.nobody`", Some(2)),
        ("cql/publish/daily.cql", "the column `amount` is not filled", Some(2)),
        ("cql/publish/other.cql", "`cql/tables/other.cql` is missing", Some(2)),
        ("sql/gold/keyless.toml", "a stored model needs a `key`", Some(2)),
        ("sql/gold/lonely.sql", "`lonely.toml` is missing beside it", None),
        ("sql/reference/empty.csv", "the file is empty", None),
    ] {
        assert_eq!(line_of(file, message), serde_json::json!(line), "{file}: {message}");
    }
    let csv = place.medallion(&["--format", "csv", "check"]).expect(3).stdout;
    assert!(csv.contains("sql/gold/lonely.sql,,") && !csv.contains(",0,"), "{csv}");
}
