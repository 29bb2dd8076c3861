//! Marts in a real Cassandra: after every kind of run they are exactly what gold says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use arrow::array::Float64Array;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use scylla::value::{CqlValue, Row};
use serde_json::Value;

use crate::cassandra::{Cql, Keyspace, Node, node, runtime, wait_until};
use crate::data::{self, Landed};
use crate::mini;
use crate::support::{Done, Place, active_files, copy_folder, repository, write};

const DAILY: &str = "create table if not exists daily (site text, day date, amount decimal, readings bigint, \
                     primary key ((site), day)) with clustering order by (day desc) \
                     and compaction = {'class': 'LeveledCompactionStrategy'} and default_time_to_live = 7776000;\n";
const DAILY_INSERT: &str = "insert into daily (site, day, amount, readings) values (:site, :day, :amount, :readings) \
                            using timestamp :committed_at;\n";
const TOTAL: &str = "create table total (site text primary key, amount decimal);\n";
const TOTAL_INSERT: &str =
    "insert into total (site, amount) values (:site, :amount) using timestamp :committed_at;\n";

/// A project whose marts go to a keyspace of its own.
pub struct Served {
    pub place: Place,
    pub space: Keyspace,
    pub contact: String,
}

impl Served {
    /// The small project, in the node that all tests share.
    pub fn mini() -> Served {
        Self::mini_on(node())
    }

    pub fn mini_on(node: &Node) -> Served {
        Self::mini_in(Cql::of(node).keyspace(1), node.contact())
    }

    pub fn mini_in(space: Keyspace, contact: String) -> Served {
        let place = mini::place();
        write(&place.project.join("cql/tables/daily.cql"), DAILY.as_bytes());
        write(&place.project.join("cql/publish/daily.cql"), DAILY_INSERT.as_bytes());
        // a primary key without inner parentheses means the same to cassandra; ours are written out
        let total = TOTAL.replace(
            "site text primary key, amount decimal",
            "site text, amount decimal, primary key ((site))",
        );
        write(&place.project.join("cql/tables/total.cql"), total.as_bytes());
        write(&place.project.join("cql/publish/total.cql"), TOTAL_INSERT.as_bytes());
        Self::in_keyspace(place, space, contact)
    }

    /// The reference project.
    pub fn reference() -> Served {
        Self::reference_in(Cql::of(node()).keyspace(1), node().contact())
    }

    pub fn reference_in(space: Keyspace, contact: String) -> Served {
        let place = Place::copied_reference();
        place.edit("medallion.toml", "keyspace = \"cloud_analytics\"", "");
        let manifest = fs::read_to_string(place.project.join("medallion.toml")).unwrap();
        fs::write(place.project.join("medallion.toml"), manifest.replace("[serving]", "")).unwrap();
        Self::in_keyspace(place, space, contact)
    }

    pub fn in_keyspace(place: Place, space: Keyspace, contact: String) -> Served {
        let path = place.project.join("medallion.toml");
        let manifest = fs::read_to_string(&path).unwrap();
        let serving = format!("\n[serving]\nkeyspace = \"{}\"\nretry_seconds = 20\n", space.name);
        fs::write(path, manifest + &serving).unwrap();
        let contact = crate::astra::instead_of(contact);
        Served { place, space, contact }
    }

    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.place.command(arguments);
        command.env("MEDALLION_CASSANDRA", &self.contact).env("MEDALLION_ASTRA_TOKEN", crate::astra::TOKEN);
        command
    }

    pub fn medallion(&self, arguments: &[&str]) -> Done {
        Done::of(self.command(arguments).output().unwrap())
    }

    #[track_caller]
    pub fn run(&self) -> String {
        self.medallion(&["run"]).ok()
    }

    /// Ends the command at a failpoint.
    #[track_caller]
    pub fn kill(&self, arguments: &[&str], at: &str) {
        let done = Done::of(self.command(arguments).env("MEDALLION_KILL_AT", at).output().unwrap());
        assert_eq!(done.code, None, "`{at}` is never passed: {}{}", done.stdout, done.stderr);
    }

    /// Asserts that every mart in Cassandra is what gold's files hold, both read without the engine.
    #[track_caller]
    pub fn assert_equal(&self, how: &str) {
        let marts = fs::read_dir(self.place.project.join("cql/publish")).unwrap();
        let mut compared = 0;
        for mart in marts {
            let mart = mart.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
            let gold = gold_rows(&self.place.lake.join("gold").join(&mart));
            let live = self.rows(&mart);
            let missing: Vec<_> =
                gold.iter().filter(|row| live.binary_search(row).is_err()).take(3).collect();
            let extra: Vec<_> = live.iter().filter(|row| gold.binary_search(row).is_err()).take(3).collect();
            assert_eq!(
                gold,
                live,
                "{how}: {mart}: {} rows in gold, {} in cassandra\nmissing {missing:#?}\nextra {extra:#?}",
                gold.len(),
                live.len()
            );
            compared += gold.len();
        }
        assert!(compared > 0, "{how}: nothing was compared");
    }

    /// The rows of a table in Cassandra, as `column=value …`, sorted.
    pub fn rows(&self, table: &str) -> Vec<String> {
        let mut rows: Vec<String> = self
            .named_rows(&format!("select * from {table}"))
            .into_iter()
            .map(|row| {
                row.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
            })
            .collect();
        rows.sort();
        rows
    }

    pub fn named_rows(&self, query: &str) -> Vec<BTreeMap<String, String>> {
        let ask = || {
            let asked = self.space.cql.session().query_unpaged(query.to_owned(), ());
            runtime().block_on(asked).map_err(Box::new)
        };
        let mut answer = ask();
        // a cluster that has just lost a node takes a moment
        wait_until(query, || {
            if answer.is_err() {
                answer = ask();
            }
            answer.is_ok()
        });
        let answer = answer.unwrap().into_rows_result().unwrap();
        let names: Vec<String> = answer.column_specs().iter().map(|spec| spec.name().to_owned()).collect();
        let rows = answer.rows::<Row>().unwrap();
        rows.map(|row| names.iter().cloned().zip(row.unwrap().columns.iter().map(cql_text)).collect())
            .collect()
    }
}

fn cql_text(value: &Option<CqlValue>) -> String {
    let list = |items: &[CqlValue]| {
        let items: Vec<String> = items.iter().map(|item| cql_text(&Some(item.clone()))).collect();
        format!("[{}]", items.join(", "))
    };
    let Some(value) = value else {
        return "∅".to_owned();
    };
    match value {
        CqlValue::Text(text) | CqlValue::Ascii(text) => text.clone(),
        CqlValue::Boolean(value) => value.to_string(),
        CqlValue::Int(value) => value.to_string(),
        CqlValue::BigInt(value) => value.to_string(),
        CqlValue::Double(value) => {
            let array = Float64Array::from(vec![*value]);
            ArrayFormatter::try_new(&array, &FormatOptions::new()).unwrap().value(0).to_string()
        }
        CqlValue::Date(date) => {
            let days = i64::from(date.0) - (1 << 31);
            chrono::DateTime::from_timestamp(days * 86400, 0).unwrap().format("%Y-%m-%d").to_string()
        }
        CqlValue::Decimal(decimal) => {
            let (bytes, scale) = decimal.as_signed_be_bytes_slice_and_exponent();
            let mut whole = if bytes[0] & 0x80 == 0 { [0; 16] } else { [0xff; 16] };
            whole[16 - bytes.len()..].copy_from_slice(bytes);
            let unscaled = i128::from_be_bytes(whole);
            let digits = format!("{:0>1$}", unscaled.unsigned_abs(), scale as usize + 1);
            let (before, after) = digits.split_at(digits.len() - scale as usize);
            let sign = if unscaled < 0 { "-" } else { "" };
            if after.is_empty() { format!("{sign}{before}") } else { format!("{sign}{before}.{after}") }
        }
        CqlValue::Set(items) | CqlValue::List(items) => list(items),
        CqlValue::Map(pairs) => {
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(key, value)| {
                    format!("{}: {}", cql_text(&Some(key.clone())), cql_text(&Some(value.clone())))
                })
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => format!("{other:?}"),
    }
}

/// The rows of a mart as its files hold them, in the same form as [`Served::rows`].
fn gold_rows(table: &Path) -> Vec<String> {
    let options = FormatOptions::new().with_null("∅");
    let mut rows = Vec::new();
    for (path, partition) in active_files(table) {
        let file = fs::File::open(table.join(path.replace("%20", " "))).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let schema = batch.schema();
            for row in 0..batch.num_rows() {
                let mut values: BTreeMap<String, String> = BTreeMap::new();
                for (field, column) in schema.fields().iter().zip(batch.columns()) {
                    let text = ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string();
                    // cassandra keeps no empty collections
                    let text = if text == "[]" || text == "{}" { "∅".to_owned() } else { text };
                    values.insert(field.name().clone(), text);
                }
                for (name, value) in partition.as_object().unwrap() {
                    values.insert(name.clone(), value.as_str().unwrap_or("∅").to_owned());
                }
                rows.push(
                    values
                        .iter()
                        .map(|(name, value)| format!("{name}={value}"))
                        .collect::<Vec<_>>()
                        .join(" "),
                );
            }
        }
    }
    rows.sort();
    rows
}

/// A reading at a site.
pub fn reading(id: &str, day: u32, site: &str, amount: &str) -> String {
    mini::reading(id, day, amount).replace("\"north\"", &format!("\"{site}\""))
}

pub fn first_readings() -> Landed {
    mini::readings(
        "a.jsonl",
        &[
            reading("1", 1, "north", "1.5"),
            reading("2", 2, "north", "2"),
            reading("3", 1, "south", "3"),
            reading("4", 2, "east", "0.000001"),
        ],
    )
}

#[test]
fn every_mart_of_the_reference_project_is_served_and_questions_agree() {
    let served = Served::reference();
    served.place.land(&data::reference());
    let told = served.run();
    assert!(
        told.contains("org_service_cost_summary") && told.contains("everything: never published"),
        "{told}"
    );
    served.assert_equal("first run");
    let profile = served.named_rows("select tags, users_by_role, cost_by_service from org_profile");
    assert!(
        profile.iter().any(|row| row["tags"].starts_with('[') && row["cost_by_service"].starts_with('{'))
    );
    let told = served.medallion(&["--format", "json", "reconcile"]).json();
    assert!(told.as_array().unwrap().iter().all(|mart| mart["missing"] == 0 && mart["extra"] == 0));
    served.medallion(&["check", "--connect"]).ok();
    assert_questions_agree(&served);
    assert_collections_are_compared(&served);
    let complaints: Vec<String> =
        node().complaints().into_iter().filter(|line| line.contains(&served.space.name)).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Of sets and maps, the items that differ are named.
fn assert_collections_are_compared(served: &Served) {
    let known = "cardinality(tags) > 0 and cardinality(map_keys(users_by_role)) > 0";
    let org = served.place.value(&format!("select min(org_id) from gold.org_profile where {known}"));
    let alter = format!(
        "update org_profile set tags = tags + {{'ghost', 'spirit'}}, users_by_role['ghost'] = 7 where org_id = '{org}'"
    );
    served.space.cql.run([alter.as_str()]);
    let told = served.medallion(&["reconcile", "org_profile"]).expect(4).stdout;
    for text in ["tags: [ghost, spirit] only in the store", "users_by_role: {ghost: 7} only in the store"] {
        assert!(told.contains(text), "{told}");
    }
    let told = served.medallion(&["reconcile", "org_profile", "--repair"]).ok();
    assert!(told.contains("different, repaired"), "{told}");
    served.assert_equal("collections were repaired");
}

/// Every question, with its defaults and with every organisation and some ranges.
fn assert_questions_agree(served: &Served) {
    let both = |arguments: &[&str]| {
        let ask = |store: &str| served.medallion(&[arguments, &["--store", store]].concat()).ok();
        let (gold, cassandra) = (ask("gold"), ask("cassandra"));
        assert_eq!(gold, cassandra, "{arguments:?}");
        gold.lines().count()
    };
    let mut answered = 0;
    for question in ["daily_cost", "top_services", "critical_tickets", "monthly_revenue", "genai_daily"] {
        for format in ["table", "csv", "json"] {
            answered += both(&["--format", format, "query", question]);
        }
    }
    let orgs = served.place.sql("select org_id from gold.org_profile order by org_id limit 3");
    for org in orgs.iter().map(|row| row["org_id"].as_str().unwrap()) {
        let org = format!("org_id={org}");
        for (from, to) in
            [("2025-08-01", "2025-08-31"), ("2025-08-03", "2025-08-03"), ("2030-01-01", "2030-01-02")]
        {
            let (from, to) = (format!("from_date={from}"), format!("to_date={to}"));
            both(&[
                "--format",
                "csv",
                "query",
                "daily_cost",
                "--param",
                &org,
                "--param",
                &from,
                "--param",
                &to,
            ]);
        }
        for n in ["1", "3"] {
            both(&["query", "top_services", "--param", &org, "--param", &format!("top_n={n}")]);
        }
        both(&["--format", "json", "query", "monthly_revenue", "--param", &org]);
        both(&["query", "genai_daily", "--param", &org]);
    }
    // what Cassandra refuses, gold answers with nothing
    let endless = format!("org_id={}", "x".repeat(70_000));
    for key in ["org_id=", &endless] {
        for question in ["daily_cost", "top_services", "monthly_revenue", "genai_daily"] {
            assert_eq!(both(&["--format", "csv", "query", question, "--param", key]), 1);
        }
    }
    assert_eq!(both(&["--format", "csv", "query", "top_services", "--param", "top_n=0"]), 1);
    for store in ["gold", "cassandra"] {
        let arguments = ["query", "top_services", "--param", "top_n=-1", "--store", store];
        served.medallion(&arguments).expect(2).tells(&["`top_n` is a number of rows: -1 is too few"]);
    }
    for severity in ["", "critical", "low", "nothing", "'; drop table tickets_by_severity_daily; --"] {
        both(&["query", "critical_tickets", "--param", &format!("severity={severity}")]);
    }
    assert!(answered > 30, "{answered} lines");
}

#[test]
fn a_stream_publishes_and_outlives_an_absent_store() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.medallion(&["stream", "--until-idle"]).ok();
    served.assert_equal("a stream");
    // nobody answers: gold goes on, and says so
    served.place.land([&mini::readings("b.jsonl", &[reading("5", 3, "south", "5")])]);
    let mut alone = served.place.command(&["stream", "--until-idle"]);
    let done = Done::of(alone.env("MEDALLION_CASSANDRA", "127.0.0.1:1").output().unwrap());
    assert_eq!(done.code, Some(6), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("the balance of the whole lake holds"), "{}", done.stdout);
    served.medallion(&["stream", "--until-idle"]).ok();
    served.assert_equal("the next stream");
}

#[test]
fn a_run_writes_what_changed_and_nothing_else() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    served.assert_equal("first run");
    let before = served.named_rows("select site, day, writetime(amount) from daily");
    let idle = served.run();
    assert!(!idle.contains("serving table"), "{idle}");
    assert_eq!(before, served.named_rows("select site, day, writetime(amount) from daily"));
    // a later event of one site: that site's partition is replaced, the others keep their cells
    served.place.land([&mini::readings("b.jsonl", &[reading("5", 3, "south", "5")])]);
    served.run();
    served.assert_equal("second run");
    let after = served.named_rows("select site, day, writetime(amount) from daily");
    let times = |rows: &[BTreeMap<String, String>], site: &str| -> Vec<String> {
        let of_site = rows.iter().filter(|row| row["site"] == site);
        of_site.map(|row| row["writetime(amount)"].clone()).collect()
    };
    for site in ["north", "east"] {
        assert_eq!(times(&before, site), times(&after, site), "{site} did not change");
    }
    assert!(times(&after, "south").iter().all(|time| *time > times(&before, "south")[0]));
    // and a replay changes nothing
    let again = served.medallion(&["publish"]).ok();
    assert!(again.contains("nothing was written"), "{again}");
    assert_eq!(after, served.named_rows("select site, day, writetime(amount) from daily"));
}

#[test]
fn rows_that_gold_no_longer_has_disappear() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    served.place.edit("sql/gold/daily.sql", "group by", "where amount > 1 and site <> 'south'\ngroup by");
    served.medallion(&["run", "--full-refresh"]).ok();
    served.assert_equal("fewer rows");
    assert_eq!(served.rows("daily").len(), 2);
    served.place.edit("sql/gold/daily.sql", "where amount > 1 and site <> 'south'\n", "");
    served.medallion(&["run", "--full-refresh"]).ok();
    served.assert_equal("all rows again");
}

#[test]
fn reruns_and_restores_are_published_too() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    let before = served.rows("daily");
    served.place.edit(
        "sql/gold/daily.sql",
        "group by site, date",
        "where site <> 'north' group by site, date",
    );
    served.medallion(&["rerun", "--stale"]).ok();
    served.assert_equal("rerun");
    assert!(!served.rows("daily").iter().any(|row| row.contains("site=north")));
    served.medallion(&["restore", "gold.daily", "--to", "0", "--only"]).ok();
    served.assert_equal("restored");
    assert_eq!(served.rows("daily"), before);
}

#[test]
fn status_says_what_is_published() {
    let served = Served::mini();
    let standing = |contact: &str| {
        let mut command = served.place.command(&["--format", "json", "status"]);
        command.env("MEDALLION_CASSANDRA", contact).env("MEDALLION_ASTRA_TOKEN", crate::astra::TOKEN);
        let tables = Done::of(command.output().unwrap()).json();
        let daily = tables.as_array().unwrap().iter().find(|table| table["table"] == "gold.daily").unwrap();
        daily["published"].clone()
    };
    served.place.land(&mini::batches()[0]);
    served.place.run();
    assert_eq!(standing(&served.contact)["state"], "never");
    served.run();
    let published = standing(&served.contact);
    assert_eq!((&published["state"], &published["behind"]), (&"current".into(), &0.into()), "{published}");
    served.place.land(&mini::batches()[1]);
    served.place.run();
    let published = standing(&served.contact);
    assert_eq!((&published["state"], &published["behind"]), (&"behind".into(), &1.into()), "{published}");
    let told = served.medallion(&["status"]).ok();
    assert!(told.contains("v0, 1 behind"), "{told}");
    let begun = std::time::Instant::now();
    assert_eq!(standing("127.0.0.1:1")["state"], "unknown");
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    let tables = served.place.medallion(&["--format", "json", "status"]).json();
    assert!(
        tables.as_array().unwrap().iter().all(|table| table["published"].is_null()),
        "none is configured"
    );
}

#[test]
fn a_value_that_becomes_null_is_gone() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    let nullable = "nullif(cast(sum(amount) as decimal(38, 6)), 2) as amount";
    served.place.edit("sql/gold/daily.sql", "cast(sum(amount) as decimal(38, 6)) as amount", nullable);
    served.medallion(&["run", "--full-refresh"]).ok();
    served.assert_equal("a null");
    assert!(served.rows("daily").iter().any(|row| row.contains("amount=∅")));
}

#[test]
fn hostile_names_and_values_are_values() {
    let served = Served::mini();
    let sites =
        ["'; drop table daily; --", "a\\u0000b", "\\\"quoted\\\"", "%s :site ? $1", "日本\\n", "../../x"];
    let lines: Vec<String> =
        sites.iter().enumerate().map(|(at, site)| reading(&at.to_string(), 1, site, "1")).collect();
    served.place.land([&mini::readings("a.jsonl", &lines)]);
    served.run();
    assert_eq!(served.rows("total").len(), sites.len());
    served.assert_equal("hostile values");
    served.medallion(&["reconcile"]).ok();
}

#[test]
fn a_rebuilt_lake_wins() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    served.place.land([&mini::readings("b.jsonl", &[reading("5", 3, "west", "5")])]);
    served.run();
    fs::remove_dir_all(&served.place.lake).unwrap();
    fs::remove_file(served.place.landing.join("readings/b.jsonl")).unwrap();
    let told = served.run();
    assert!(told.contains("the lake is another one"), "{told}");
    served.assert_equal("rebuilt from less");
    assert!(!served.rows("total").iter().any(|row| row.contains("west")));
}

#[test]
fn an_older_lake_does_not_overwrite_a_newer_one_unless_told() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    let backup = served.place.folder().join("backup");
    copy_folder(&served.place.lake, &backup);
    served.place.land([&mini::readings("b.jsonl", &[reading("5", 3, "west", "5")])]);
    served.run();
    // the backup comes back: its version is behind what cassandra holds
    fs::remove_dir_all(&served.place.lake).unwrap();
    copy_folder(&backup, &served.place.lake);
    served.medallion(&["publish"]).expect(5).tells(&[
        "publish --full",
        "publishing `daily`: the store holds what another lake",
        "publishing `total`: the store holds what another lake",
    ]);
    served.medallion(&["publish", "--full"]).ok();
    served.assert_equal("restored, and told to");
}

#[test]
fn an_older_publisher_that_was_held_up_changes_nothing() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    // both lakes have the same history; the older one stays where it is
    served
        .place
        .land([&mini::readings("b.jsonl", &[reading("5", 3, "west", "5"), reading("6", 1, "north", "9")])]);
    served.place.medallion(&["run"]).ok();
    let old = served.place.folder().join("old");
    copy_folder(&served.place.lake, &old);
    served.place.edit("sql/gold/daily.sql", "group by", "where site <> 'west'\ngroup by");
    served.place.medallion(&["run", "--full-refresh"]).ok();
    for place in ["publish daily", "replace daily", "written daily"] {
        let mut older = hold(&served, &old, place);
        served.medallion(&["publish"]).ok();
        served.assert_equal("the newer one is done");
        fs::remove_file(served.place.folder().join("hold")).unwrap();
        assert!(older.wait().unwrap().success(), "{place}");
        served.assert_equal(&format!("the older one, held at `{place}`, is done too"));
        served.medallion(&["reconcile"]).ok();
        // once more from the state before: cassandra is told that the older one is what it holds
        served.space.cql.run(["truncate medallion_published", "truncate daily", "truncate total"]);
        Done::of(at_lake(&served, &old, &["publish", "--full"]).output().unwrap()).ok();
        rewind(&served);
    }
}

/// Cassandra says that it holds a version before the older lake's, so that both publishers have something to do.
fn rewind(served: &Served) {
    let state = served.named_rows("select state from medallion_published where mart = 'daily'");
    let mut state: Value = serde_json::from_str(&state[0]["state"]).unwrap();
    state["published"]["gold"]["version"] = 0.into();
    let committed =
        fs::read_to_string(served.place.lake.join("gold/daily/_delta_log/00000000000000000000.json"));
    let info: Value = serde_json::from_str(committed.unwrap().lines().next().unwrap()).unwrap();
    state["published"]["gold"]["committed"] = info["commitInfo"]["timestamp"].clone();
    let text = state.to_string().replace('\'', "''");
    served
        .space
        .cql
        .run([format!("update medallion_published set state = '{text}' where mart = 'daily'").as_str()]);
}

fn at_lake(served: &Served, lake: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = crate::support::medallion();
    command
        .arg("--quiet")
        .arg("--project")
        .arg(&served.place.project)
        .arg("--landing")
        .arg(&served.place.landing);
    command.arg("--lake").arg(lake).args(arguments);
    command.env("MEDALLION_CASSANDRA", &served.contact).env("MEDALLION_ASTRA_TOKEN", crate::astra::TOKEN);
    command
}

/// A publisher of `lake` that waits at a failpoint until the file `hold` is gone.
fn hold(served: &Served, lake: &Path, at: &str) -> Child {
    let file = served.place.folder().join("hold");
    fs::write(&file, "").unwrap();
    let mut command = at_lake(served, lake, &["publish", "daily"]);
    command.env("MEDALLION_HOLD_AT", at).env("MEDALLION_HOLD_FILE", &file);
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    wait_for_claim(served);
    child
}

/// Waits until a publisher of `daily` has claimed, and a moment more: the claim is there just before the place where it is held.
pub fn wait_for_claim(served: &Served) {
    wait_until("a publisher has claimed", || {
        let rows = served.space.cql.try_rows("select state from medallion_published where mart = 'daily'");
        // the table may not be there yet
        let claimed = |row: &Vec<Option<CqlValue>>| {
            row[0].as_ref().and_then(CqlValue::as_text).is_some_and(|state| !state.contains("\"claims\":[]"))
        };
        rows.is_ok_and(|rows| rows.iter().any(claimed))
    });
    crate::support::pause(std::time::Duration::from_secs(1));
}

#[test]
fn killed_anywhere_the_next_run_completes_it() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    for place in ["publish daily", "replace daily", "replace total", "written daily", "published total"] {
        served.kill(&["run"], place);
        served.run();
        served.assert_equal(&format!("first, killed at `{place}`"));
        served.space.cql.run(["truncate medallion_published", "truncate daily", "truncate total"]);
    }
    served.run();
    for (at, place) in ["publish daily", "replace daily", "replace total", "written daily"].iter().enumerate()
    {
        let site = ["north", "south", "west", "east"][at];
        let name = format!("c{at}.jsonl");
        let lines = [reading(&format!("c{at}"), 3, site, "4"), reading(&format!("d{at}"), 1, "north", "1")];
        served.place.land([&mini::readings(&name, &lines)]);
        served.kill(&["run"], place);
        // what the killed run had begun and what a later one takes back meet
        served.place.edit("sql/gold/daily.sql", "group by", &format!("where site <> '{site}'\ngroup by"));
        served.medallion(&["run", "--full-refresh"]).ok();
        served.assert_equal(&format!("then killed at `{place}`"));
        served.place.edit("sql/gold/daily.sql", &format!("where site <> '{site}'\n"), "");
        served.medallion(&["run", "--full-refresh"]).ok();
        served.assert_equal(&format!("and after `{place}` all again"));
    }
}

#[test]
fn reconcile_names_what_differs_and_mends_it() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    served.space.cql.run([
        "delete from daily where site = 'south'",
        "insert into daily (site, day, amount) values ('ghost', '2025-08-01', 1)",
        "update daily set readings = 77 where site = 'north' and day = '2025-08-01'",
    ]);
    let done = served.medallion(&["reconcile"]).expect(4);
    for text in ["site=ghost", "extra", "site=south", "missing", "readings: 1 in gold, 77 in the store"] {
        assert!(done.stdout.contains(text), "`{text}` is missing in\n{}", done.stdout);
    }
    // a run looks at versions, not at rows: it has nothing to do, and nobody says that the rows are right
    assert!(!served.run().contains("serving table"));
    let told = served.medallion(&["publish"]).ok();
    assert!(
        told.contains("nothing was written") && told.contains("`medallion reconcile` compares rows"),
        "{told}"
    );
    let told = served.medallion(&["--format", "json", "reconcile", "daily", "--repair"]).json();
    assert_eq!(
        (&told[0]["missing"], &told[0]["extra"], &told[0]["different"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!(told[0]["repaired"], 3);
    served.assert_equal("repaired");
    served.medallion(&["reconcile"]).ok();
    // and later runs still prevail over the repair
    served.place.land([&mini::readings("b.jsonl", &[reading("5", 1, "north", "5")])]);
    served.run();
    served.assert_equal("after the repair");
}

#[test]
fn reconcile_shortens_long_keys_for_people_only() {
    let served = Served::mini();
    let site = format!("begin{}end", "x".repeat(3000));
    served.place.land([&mini::readings("a.jsonl", &[reading("1", 1, &site, "1.5")])]);
    served.run();
    served.space.cql.run(["truncate daily"]);
    let told = served.medallion(&["reconcile", "daily"]).expect(4).stdout;
    assert!(told.contains("site=beginxxx") && told.contains("end, day=2025-08-01"), "{told}");
    assert!(told.lines().all(|line| line.chars().count() < 240), "{told}");
    let told = served.medallion(&["--format", "json", "reconcile", "daily"]).expect(4).stdout;
    assert!(told.contains(&format!("site={site}, day=2025-08-01")), "{told}");
}

#[test]
fn rows_of_a_later_time_are_told_and_not_called_mended() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    let way_out = "`truncate daily` in cassandra, then `medallion publish --full daily`";
    for (at, (statement, row, full)) in [
        (
            "insert into daily (site, day, amount) values ('north', '2025-08-01', 9) using timestamp 4102444800000000",
            "different, not repaired",
            ["(2100-01-01T00:00:00Z)", way_out],
        ),
        (
            "delete from daily using timestamp 4102444800000000 where site = 'north'",
            "missing, not repaired",
            ["`daily` has 2 rows and gold has 4", "`medallion reconcile daily` names those"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        // this one can be mended
        served
            .space
            .cql
            .run([statement, "update daily set readings = 77 where site = 'south' and day = '2025-08-01'"]);
        let done =
            served.medallion(&["reconcile", "--repair"]).expect(4).tells(&[way_out, "a later time than now"]);
        assert!(done.stdout.contains(row) && done.stdout.contains("different, repaired"), "{}", done.stdout);
        served.medallion(&["publish", "--full"]).expect(4).tells(&full);
        // whoever comes next is told, too
        served.medallion(&["publish"]).expect(4).tells(&full);
        served.medallion(&["run"]).expect(4).tells(&full);
        assert!(served.medallion(&["status"]).ok().contains("obstructed"));
        let told = ["`gold.daily` is published, and the serving store holds something else"];
        served.medallion(&["status", "--monitor"]).expect(4).tells(&told);
        served.space.cql.run(["truncate daily"]);
        match at {
            0 => served.medallion(&["publish", "--full", "daily"]).ok(),
            _ => served.run(),
        };
        served.assert_equal("truncated and published");
        served.medallion(&["reconcile", "--repair"]).ok();
        assert!(served.medallion(&["publish"]).ok().contains("nothing was written"));
        assert!(!served.medallion(&["status"]).ok().contains("obstructed"));
    }
}

#[test]
fn what_could_not_be_published_blocks_nothing_once_it_is_mended() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.place.edit("sql/gold/total.sql", "from gold.daily", "from silver.readings");
    served.run();
    // Cassandra keeps no empty partition key
    let odd = "from (select case when site = 'south' then '' else site end as site, date, amount from silver.readings) as r";
    served.place.edit("sql/gold/daily.sql", "from silver.readings", odd);
    served.place.land([&mini::readings("b.jsonl", &[reading("5", 3, "west", "7.25")])]);
    served.place.medallion(&["run", "--full-refresh"]).ok();
    for command in [&["publish"][..], &["publish", "--full"]] {
        let told = ["row site=, day=2025-08-01: its key `site` is empty", "mend the mart"];
        served.medallion(command).expect(4).tells(&told);
        // the other mart does not wait for it
        assert!(served.rows("total").contains(&"amount=7.250000 site=west".to_owned()));
    }
    served.place.edit("sql/gold/daily.sql", odd, "from silver.readings");
    served.place.medallion(&["run", "--full-refresh"]).ok();
    served.medallion(&["publish"]).ok();
    served.assert_equal("mended");
    assert!(!served.run().contains("serving table"));
}

#[test]
fn a_mart_that_was_published_from_files_that_were_vacuumed_is_published_again() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    served.place.edit("sql/gold/daily.sql", "count(*) as readings", "count(*) + 1 as readings");
    served.place.medallion(&["run", "--full-refresh"]).ok();
    let files = || {
        let folder = fs::read_dir(served.place.lake.join("gold/daily")).unwrap();
        folder.flat_map(|entry| crate::support::walk(&entry.unwrap().path())).count()
    };
    let before = files();
    served.place.medallion(&["vacuum", "--older-than", "0s", "--delete"]).ok();
    assert!(files() < before, "nothing was deleted");
    let mut publish = served.command(&["publish"]);
    let done = Done::of(publish.env("MEDALLION_LOG", "medallion=debug").output().unwrap()).expect(0);
    assert!(done.stderr.contains("what changed of `daily` can't be told"), "{}", done.stderr);
    served.assert_equal("vacuumed");
}

#[test]
fn an_older_publisher_of_everything_changes_nothing() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    for (at, arguments) in [&["publish", "--full"][..], &["publish"]].into_iter().enumerate() {
        if at == 1 {
            served.space.cql.run(["drop table daily"]);
        }
        // it has looked at gold and made the tables, and has written nothing
        let file = served.place.folder().join("hold");
        fs::write(&file, "").unwrap();
        let mut command = served.command(arguments);
        command.env("MEDALLION_HOLD_AT", "ready to publish").env("MEDALLION_HOLD_FILE", &file);
        let older = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the older one has made the tables", || {
            served.space.cql.try_rows("select site from daily").is_ok()
        });
        crate::support::pause(std::time::Duration::from_secs(2));
        let day = 5 + u32::try_from(at).unwrap();
        served
            .place
            .land([&mini::readings(&format!("{day}.jsonl"), &[reading(&day.to_string(), day, "east", "7")])]);
        served.run();
        served.assert_equal("the newer one");
        let rows = served.named_rows("select site, day, writetime(amount) from daily");
        fs::remove_file(&file).unwrap();
        Done::of(older.wait_with_output().unwrap()).expect(0);
        assert_eq!(rows, served.named_rows("select site, day, writetime(amount) from daily"));
        served.assert_equal("and it stays");
    }
}

#[test]
fn an_older_publisher_of_another_lake_gives_way_to_a_newer_one() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    // the lake is built anew, and its first publisher is held up
    fs::remove_dir_all(&served.place.lake).unwrap();
    served.place.run();
    let file = served.place.folder().join("hold");
    fs::write(&file, "").unwrap();
    let mut command = served.command(&["publish"]);
    command.env("MEDALLION_HOLD_AT", "ready to publish").env("MEDALLION_HOLD_FILE", &file);
    let older = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    crate::support::pause(std::time::Duration::from_secs(3));
    // its second one has claimed both marts and written nothing
    served.place.land([&mini::readings("b.jsonl", &[reading("5", 3, "west", "5")])]);
    served.place.run();
    served.kill(&["publish", "daily"], "publish daily");
    served.kill(&["publish", "total"], "publish total");
    let before = served.rows("medallion_published");
    fs::remove_file(&file).unwrap();
    Done::of(older.wait_with_output().unwrap()).expect(0);
    assert_eq!(before, served.rows("medallion_published"), "the older one has written");
    served.medallion(&["publish"]).ok();
    served.assert_equal("completed");
    assert!(served.rows("total").iter().any(|row| row.contains("west")));
}

#[test]
fn rows_get_the_life_that_is_declared_however_the_table_came_to_it() {
    let served = Served::mini();
    served.place.edit("cql/tables/daily.cql", "7776000", "20");
    served.place.land([&first_readings()]);
    served.run();
    served.place.edit("cql/tables/daily.cql", " = 20", " = 7776000");
    served.space.cql.run(["alter table daily with default_time_to_live = 7776000"]);
    let told = served.run();
    assert!(told.contains("everything: the table or the statement has changed"), "{told}");
    let lives = served.named_rows("select ttl(amount) from daily");
    assert!(lives.iter().all(|row| row["ttl(amount)"].parse::<u64>().unwrap() > 1_000_000), "{lives:?}");
}

#[test]
fn a_column_that_was_dropped_and_has_come_back_is_filled() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    served.space.cql.run(["alter table daily drop readings"]);
    served.space.cql.run(["alter table daily add readings bigint"]);
    let told = served.run();
    assert!(told.contains("everything: a column was dropped and has come back"), "{told}");
    served.assert_equal("filled again");
    assert!(!served.run().contains("serving table"), "and only once");
}

#[test]
fn a_damaged_state_is_told_and_replaced() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    for damage in [
        "update medallion_published set state = 'torn {' where mart = 'daily'",
        "update medallion_published set state = null where mart = 'daily'",
        "update medallion_published set at = 5 where mart = 'daily'",
    ] {
        served.space.cql.run([damage]);
        for command in ["run", "publish"] {
            served.medallion(&[command]).expect(4).tells(&["is damaged", "`medallion publish --full daily`"]);
        }
        served.medallion(&["publish", "--full", "daily"]).ok();
        served.assert_equal(damage);
        assert!(!served.run().contains("serving table"), "{damage}");
    }
}

#[test]
fn what_somebody_else_has_emptied_is_filled_again() {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.run();
    served.space.cql.run(["drop table daily"]);
    let told = served.run();
    assert!(told.contains("the table was gone"), "{told}");
    served.assert_equal("a dropped table");
    for command in ["run", "publish"] {
        served.space.cql.run(["truncate daily"]);
        let told = served.medallion(&[command]).ok();
        assert!(told.contains("the table was emptied"), "{told}");
        served.assert_equal("a truncated table");
    }
    served.space.cql.run(["drop table daily", DAILY.trim_end().trim_end_matches(';')]);
    let told = served.medallion(&["publish"]).ok();
    assert!(told.contains("the table was emptied"), "{told}");
    served.assert_equal("a table that somebody has made anew");
    served.space.cql.run(["truncate medallion_published"]);
    served.run();
    served.assert_equal("a lost state");
    // what was deleted by hand stands against everything that was written before
    served.space.cql.run(["delete from daily where site in ('north', 'south', 'east')"]);
    let told = served.run();
    assert!(told.contains("the table was emptied"), "{told}");
    served.assert_equal("a table of which every row was deleted");
    assert!(!served.run().contains("serving table"));
    let later = "using timestamp 4102444800000000";
    served
        .space
        .cql
        .run([format!("delete from daily {later} where site in ('north', 'south', 'east')").as_str()]);
    served.medallion(&["run"]).expect(4).tells(&["`daily` has 0 rows and gold has 4"]);
}

#[test]
fn rows_are_written_again_before_they_expire() {
    let served = Served::mini();
    served.place.edit("cql/tables/daily.cql", "7776000", "20");
    served.place.land([&first_readings()]);
    served.run();
    crate::support::pause(std::time::Duration::from_secs(11));
    let told = served.run();
    assert!(told.contains("rows would expire"), "{told}");
    crate::support::pause(std::time::Duration::from_secs(11));
    served.assert_equal("longer after the first run than rows live");
}

#[test]
fn the_repository_publishes_every_table_that_it_declares() {
    for project in [repository().to_path_buf(), repository().join("examples/sensors")] {
        let names = |folder: &str| {
            let entries = fs::read_dir(project.join("cql").join(folder)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("tables"), names("publish"));
    }
}
