//! A partition that a check finds fault with does not come into the table that the check guards: what was there before
//! stays, the run says so, and once the cause is mended the lake is that of one batch.

use std::fs;

use crate::data::{Landed, Random};
use crate::mini::{self, reading, readings};
use crate::serving::Served;
use crate::stream::{SMALL, streaming};
use crate::support::{Contents, Done, Place, copy_folder, log_entries, tables, write};

const PAIRS: &str = "select site, day, readings\nfrom gold.daily\nwhere readings % 2 = 1\n";
const PAIRS_TOML: &str = "description = \"Readings come in pairs.\"\nguards = \"gold.daily\"\n";
const TOLD: &str = "withheld from `gold.daily`: ";

/// The mini project whose daily table is guarded.
fn guarded() -> Place {
    guard(mini::place())
}

fn guard(place: Place) -> Place {
    guard_with(&place, PAIRS, PAIRS_TOML);
    place
}

fn guard_with(place: &Place, sql: &str, toml: &str) {
    write(&place.project.join("sql/checks/pairs.sql"), sql.as_bytes());
    write(&place.project.join("sql/checks/pairs.toml"), toml.as_bytes());
}

/// Two good days; then a bad day, one that was good and is bad, and a good one; then what mends them.
fn files() -> [Landed; 3] {
    let line = |id: &str, day: u32| reading(id, day, &format!("{id}.5"));
    [
        readings("a.jsonl", &[line("1", 1), line("2", 1), line("3", 2), line("4", 2)]),
        readings("b.jsonl", &[line("5", 2), line("6", 3), line("7", 4), line("8", 4)]),
        readings("c.jsonl", &[line("9", 2), line("10", 3)]),
    ]
}

#[track_caller]
fn withheld(place: &Place, arguments: &[&str]) -> Done {
    place.medallion(arguments).expect(4).tells(&[TOLD])
}

/// The days of the guarded table and how many readings they have.
fn days(place: &Place) -> Vec<(String, i64)> {
    let rows = place.sql("select day, readings from gold.daily order by day");
    rows.iter()
        .map(|row| (row["day"].as_str().unwrap().to_owned(), row["readings"].as_i64().unwrap()))
        .collect()
}

fn day(day: u32, readings: i64) -> (String, i64) {
    (format!("2025-08-{day:02}"), readings)
}

/// What one batch over all files leaves.
fn mended() -> Contents {
    let place = guarded();
    place.land(&files());
    place.run();
    Contents::of(&place)
}

/// A lake whose second and third day are withheld.
fn with_withheld() -> Place {
    let [first, second, _] = files();
    let place = guarded();
    place.land([&first]);
    place.run();
    place.land([&second]);
    withheld(&place, &["run"]);
    place
}

#[track_caller]
fn assert_idle_and_told(place: &Place) {
    let before = log_entries(&place.lake);
    let told = withheld(place, &["run"]);
    assert!(told.stdout.contains("no table was changed"), "{}", told.stdout);
    assert_eq!(before, log_entries(&place.lake), "a run without news commits nothing");
}

#[test]
fn a_bad_partition_stays_out_and_the_others_come_in() {
    let [first, second, _] = files();
    let place = guarded();
    place.land([&first]);
    place.run();
    place.land([&second]);
    let told = withheld(&place, &["run"]).tells(&[
        "withheld from `gold.daily`: 2025-08-02..2025-08-03 (2 dates)",
        "what was there before stays, the check `pairs` found 2 rows",
        "Readings come in pairs.",
    ]);
    assert!(told.stdout.contains("2 partitions withheld"), "{}", told.stdout);
    // the second day is as it was, the third is not there, the fourth is new
    assert_eq!(days(&place), [day(1, 2), day(2, 2), day(4, 2)]);
    // what reads the table reads what is in it
    assert_eq!(
        place.value("select cast(amount as varchar) from gold.total"),
        place.value("select cast(sum(amount) as varchar) from gold.daily")
    );
    assert_idle_and_told(&place);
    let status = place.medallion(&["--format", "json", "status"]).json();
    let daily = status.as_array().unwrap().iter().find(|table| table["table"] == "gold.daily").unwrap();
    assert_eq!(daily["withheld_partitions"], serde_json::json!(["2025-08-02", "2025-08-03"]));
    assert_eq!(daily["waits"], "", "nothing new waits");
    place.medallion(&["status", "--monitor"]).expect(4).tells(&[TOLD]);
    let shown = place.medallion(&["runs", "show"]).ok();
    assert!(
        shown.contains("withheld from `gold.daily`: 2025-08-02, 2025-08-03, by the check `pairs`"),
        "{shown}"
    );
    let outcomes = place
        .sql("select outcome, rows_found, partitions_withheld, dates from ledger.checks order by run_id");
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    assert_eq!(outcomes[0]["outcome"], "passed");
    assert_eq!(outcomes[1]["outcome"], "withheld");
    assert_eq!(outcomes[1]["partitions_withheld"], 2);
    assert_eq!(outcomes[1]["dates"], "2025-08-02; 2025-08-03");
    // no file of what was withheld is left behind
    let files = crate::support::walk(&place.lake.join("gold/daily"));
    let folders = files.iter().filter(|file| file.to_string_lossy().contains("2025-08-03")).count();
    assert_eq!(folders, 0, "{files:?}");
    place.medallion(&["doctor"]).ok();
}

#[test]
fn what_mends_the_cause_lets_it_in() {
    let expected = mended();
    let [_, _, third] = files();
    let place = with_withheld();
    place.land([&third]);
    let told = place.run();
    assert!(!told.contains("withheld"), "{told}");
    Contents::of(&place).assert_equals(&expected, "mended by a file");
    place.run_idle();
    place.medallion(&["status", "--monitor"]).ok();
    assert_eq!(
        place.medallion(&["checks", "history", "pairs", "--limit", "1"]).ok().matches("passed").count(),
        1
    );
}

#[test]
fn one_of_two_is_let_in_when_it_alone_is_mended() {
    let place = with_withheld();
    place.land([&readings("c.jsonl", &[reading("9", 2, "9.5")])]);
    withheld(&place, &["run"]).tells(&["2025-08-03..2025-08-03 (1 date)", "found 1 row in"]);
    assert_eq!(days(&place), [day(1, 2), day(2, 4), day(4, 2)]);
    assert_idle_and_told(&place);
    place.land([&readings("d.jsonl", &[reading("10", 3, "10.5")])]);
    place.run();
    Contents::of(&place).table("gold/daily");
    assert_eq!(days(&place), [day(1, 2), day(2, 4), day(3, 2), day(4, 2)]);
}

#[test]
fn a_rule_that_refuses_the_cause_lets_the_rest_in() {
    let place = with_withheld();
    let edit = |place: &Place| {
        place.edit(
            "sql/bronze/readings.toml",
            "when = \"amount < 0\"",
            "when = \"amount < 0 or amount in (5.5, 6.5)\"",
        );
    };
    edit(&place);
    place.medallion(&["rerun", "--stale"]).ok();
    let fresh = guarded();
    edit(&fresh);
    fresh.land(&files()[..2]);
    fresh.run();
    Contents::of(&place).assert_equals(&Contents::of(&fresh), "mended by a rule");
    place.run_idle();
}

#[test]
fn a_changed_check_is_asked_again() {
    let without = mini::place();
    without.land(&files()[..2]);
    without.run();
    let expected = Contents::of(&without);
    for (how, sql, toml) in [
        ("it tolerates a row per date", PAIRS.to_owned(), format!("{PAIRS_TOML}fail_above = 1\n")),
        ("it looks for something else", PAIRS.replace("= 1", "= 7"), PAIRS_TOML.to_owned()),
        ("it guards nothing", PAIRS.replace("= 1", "= 7"), "description = \"Pairs.\"\n".to_owned()),
    ] {
        let place = with_withheld();
        guard_with(&place, &sql, &toml);
        place.run();
        Contents::of(&place).assert_equals(&expected, how);
        place.run_idle();
    }
    let place = with_withheld();
    fs::remove_file(place.project.join("sql/checks/pairs.sql")).unwrap();
    fs::remove_file(place.project.join("sql/checks/pairs.toml")).unwrap();
    place.run();
    Contents::of(&place).assert_equals(&expected, "there is no check any more");
    place.run_idle();
    // comments and descriptions change nothing
    let place = with_withheld();
    guard_with(
        &place,
        &format!("-- every reading has its twin\n{PAIRS}"),
        &PAIRS_TOML.replace("come", "are"),
    );
    assert_idle_and_told(&place);
}

#[test]
fn a_changed_model_is_asked_again() {
    let place = with_withheld();
    place.edit("sql/gold/daily.sql", "count(*) as readings", "2 * count(*) as readings");
    // of the other dates it is for the operator to say when they are computed again
    place.run();
    assert_eq!(days(&place), [day(1, 2), day(2, 6), day(3, 2), day(4, 2)]);
    place.medallion(&["rerun", "--stale"]).ok();
    assert_eq!(days(&place), [day(1, 4), day(2, 6), day(3, 2), day(4, 4)]);
    place.run_idle();
}

#[test]
fn reruns_and_full_refreshes_keep_it_out() {
    let place = with_withheld();
    let contents = tables(&place.lake);
    for arguments in [
        &["rerun", "--failed"][..],
        &["rerun", "--from", "2025-08-01", "--to", "2025-08-04"],
        &["rerun", "--from", "2025-08-02", "--to", "2025-08-02", "--select", "gold.daily", "--only"],
        &["rerun", "--select", "gold.total"],
        &["rerun", "--missing"],
        &["run", "--full-refresh"],
    ] {
        withheld(&place, arguments);
        for table in ["gold/daily", "gold/total", "silver/readings"] {
            assert_eq!(tables(&place.lake)[table], contents[table], "{table} after {arguments:?}");
        }
    }
    assert_idle_and_told(&place);
    let plan = place.medallion(&["--format", "json", "rerun", "--failed", "--dry-run"]).json();
    assert_eq!(
        (&plan["steps"][0]["table"], &plan["steps"][0]["partitions"]),
        (&"gold.daily".into(), &2.into())
    );
    // and a full refresh lets it in once it is mended
    place.land([&files()[2]]);
    place.medallion(&["run", "--full-refresh"]).ok();
    Contents::of(&place).assert_equals(&mended(), "mended, with a full refresh");
    place.run_idle();
}

#[test]
fn a_bad_partition_stays_out_of_a_new_lake_too() {
    let [first, second, third] = files();
    let place = guarded();
    place.land([&first, &second]);
    withheld(&place, &["run"]);
    assert_eq!(days(&place), [day(1, 2), day(4, 2)]);
    assert_idle_and_told(&place);
    place.land([&third]);
    place.run();
    Contents::of(&place).assert_equals(&mended(), "mended");
    // nothing of it is good
    let place = guarded();
    place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
    withheld(&place, &["run"]);
    assert_eq!(place.value("select count(*) from gold.daily"), "0");
    assert_eq!(place.value("select count(*) from gold.total"), "0");
    assert_idle_and_told(&place);
}

#[test]
fn killed_anywhere_it_stays_out_and_comes_in_when_it_is_mended() {
    let [first, second, third] = files();
    let begun = guarded();
    begun.land([&first]);
    begun.run();
    let reference = with_withheld();
    let (held, expected) = (Contents::of(&reference), mended());
    let mut point = 0;
    loop {
        let place = guarded();
        copy_folder(&begun.lake, &place.lake);
        place.land([&first, &second]);
        let mut command = place.command(&["run"]);
        let done = Done::of(command.env("MEDALLION_KILL_AT", point.to_string()).output().unwrap());
        if done.code.is_some() {
            done.expect(4);
            break;
        }
        withheld(&place, &["run"]);
        Contents::of(&place).assert_equals(&held, &format!("withheld, killed at {point}"));
        assert_idle_and_told(&place);
        assert_eq!(
            place.value("select count(*) from (select run_id, name from ledger.checks group by 1, 2 having count(*) > 1)"),
            "0",
            "killed at {point}"
        );
        assert_eq!(
            place.value("select count(*) from ledger.checks"),
            place.value("select count(*) from ledger.runs"),
            "killed at {point}"
        );
        point += 1;
    }
    assert!(point >= 15, "only {point} kill points");
    let mut point = 0;
    loop {
        let place = guarded();
        copy_folder(&reference.lake, &place.lake);
        place.land([&first, &second, &third]);
        if !crate::crash::is_killed(&place, &point.to_string(), &["run"]) {
            break;
        }
        place.run();
        Contents::of(&place).assert_equals(&expected, &format!("mended, killed at {point}"));
        place.run_idle();
        point += 1;
    }
    assert!(point >= 15, "only {point} kill points");
}

#[test]
fn a_killed_full_refresh_keeps_it_out() {
    let reference = with_withheld();
    let held = Contents::of(&reference);
    let mut point = 0;
    loop {
        let place = guarded();
        copy_folder(&reference.lake, &place.lake);
        place.land(&files()[..2]);
        let mut command = place.command(&["run", "--full-refresh"]);
        let done = Done::of(command.env("MEDALLION_KILL_AT", point.to_string()).output().unwrap());
        withheld(&place, &["run"]);
        Contents::of(&place).assert_equals(&held, &format!("full refresh killed at {point}"));
        if done.code.is_some() {
            break;
        }
        point += 1;
    }
    assert!(point >= 8, "only {point} kill points");
}

#[test]
fn a_stream_keeps_it_out_and_lets_it_in() {
    let [first, second, third] = files();
    let stream = || guard(streaming(SMALL));
    let place = stream();
    place.land([&first]);
    place.medallion(&["stream", "--until-idle"]).ok();
    place.land([&second]);
    withheld(&place, &["stream", "--until-idle"]);
    assert_eq!(days(&place), [day(1, 2), day(2, 2), day(4, 2)]);
    assert_idle_and_told(&place);
    place.land([&third]);
    place.medallion(&["stream", "--until-idle"]).ok();
    let batch = stream();
    batch.land(&files());
    batch.run();
    Contents::of(&place).assert_equals(&Contents::of(&batch), "streamed");
    // file by file in one stream, also what is bad for a while
    let place = stream();
    let many: Vec<Landed> = (0..12)
        .map(|at| readings(&format!("{at:02}.jsonl"), &[reading(&at.to_string(), 1 + at / 4, "1")]))
        .collect();
    place.land(&many);
    place.medallion(&["stream", "--until-idle"]).ok();
    let batch = stream();
    batch.land(&many);
    batch.run();
    Contents::of(&place).assert_equals(&Contents::of(&batch), "streamed one by one");
    place.run_idle();
}

#[test]
fn what_the_check_reads_is_followed_too() {
    let place = mini::place();
    guard_with(
        &place,
        "select d.site, d.day from gold.daily d left anti join silver.sites s on d.site = s.site\n",
        "description = \"Every site is known.\"\nguards = \"gold.daily\"\n",
    );
    // the table itself does not read the sites by a column that changes
    place.edit("sql/silver/readings.sql", "left join silver.sites s on r.site = s.site", "");
    place.edit("sql/silver/readings.sql", "s.name as site_name", "r.site as site_name");
    place.land([&files()[0]]);
    withheld(&place, &["run"]).tells(&["2025-08-01..2025-08-02 (2 dates)"]);
    assert_eq!(days(&place), []);
    assert_idle_and_told(&place);
    let sites = |month: u32, site: &str| {
        Landed::new(
            &format!("sites_2025-{month:02}-01.csv"),
            format!("site,name,opened\n{site},Name,2024-01-01\n"),
        )
    };
    place.land([&sites(7, "south")]);
    withheld(&place, &["run"]);
    assert_idle_and_told(&place);
    place.land([&sites(8, "north")]);
    place.run();
    assert_eq!(days(&place), [day(1, 2), day(2, 2)]);
    place.run_idle();
}

#[test]
fn a_table_without_partitions_is_kept_as_a_whole() {
    let place = mini::place();
    guard_with(
        &place,
        "select site from gold.total where amount > 100\n",
        "description = \"No site has more than 100.\"\nguards = \"gold.total\"\n",
    );
    let first = readings("a.jsonl", &[reading("1", 1, "60")]);
    let second = readings("b.jsonl", &[reading("2", 2, "50")]);
    place.land([&first]);
    place.run();
    place.land([&second]);
    let told = ["withheld from `gold.total`: whole table"];
    place.medallion(&["run"]).expect(4).tells(&told);
    assert_eq!(place.value("select cast(amount as varchar) from gold.total"), "60.000000");
    assert_eq!(days(&place).len(), 2, "other tables go on");
    let before = log_entries(&place.lake);
    place.medallion(&["run"]).expect(4).tells(&told);
    place.medallion(&["rerun", "--failed"]).expect(4).tells(&told);
    place.medallion(&["rerun", "--select", "gold.total"]).expect(4).tells(&told);
    assert_eq!(place.value("select cast(amount as varchar) from gold.total"), "60.000000");
    assert!(log_entries(&place.lake).len() >= before.len());
    place.medallion(&["run", "--full-refresh"]).expect(4).tells(&told);
    assert_eq!(place.value("select cast(amount as varchar) from gold.total"), "60.000000");
    place.edit("sql/checks/pairs.sql", "100", "110");
    place.run();
    assert_eq!(place.value("select cast(amount as varchar) from gold.total"), "110.000000");
    place.run_idle();
}

#[test]
fn a_check_that_compares_dates_sees_the_table_as_it_will_be() {
    // a day may not have twice as many readings as the day before it, as far as it is there
    let place = mini::place();
    guard_with(
        &place,
        "select n.site, n.day from gold.daily n join gold.daily b on n.site = b.site and n.day = b.day + 1\n\
         where n.readings >= 2 * b.readings\n",
        "description = \"Days do not double.\"\nguards = \"gold.daily\"\n",
    );
    let line = |id: u32, day: u32| reading(&id.to_string(), day, "1");
    place.land([&readings("a.jsonl", &[line(1, 1), line(2, 2)])]);
    place.run();
    // the second day is twice the first: withheld; the third is fine beside the new second day, not beside the old one
    let more = [line(3, 2), line(4, 3), line(5, 3)];
    place.land([&readings("b.jsonl", &more)]);
    withheld(&place, &["run"]).tells(&["2025-08-02..2025-08-03 (2 dates)"]);
    assert_eq!(days(&place), [day(1, 1), day(2, 1)]);
    assert_idle_and_told(&place);
    // the first day grows: the others are tried again with it, although nothing of theirs has changed
    place.land([&readings("c.jsonl", &[line(6, 1)])]);
    place.run();
    assert_eq!(days(&place), [day(1, 2), day(2, 2), day(3, 2)]);
    place.run_idle();
}

#[test]
fn old_partitions_do_not_stay_beside_new_columns() {
    let place = with_withheld();
    let before = tables(&place.lake);
    place.edit("sql/gold/daily.sql", "count(*) as readings", "cast(count(*) as int) as readings");
    place.medallion(&["run", "--full-refresh"]).expect(4).tells(&[
        "a check withholds 2025-08-02..2025-08-03 (2 dates) of `gold.daily`, whose columns have changed",
    ]);
    assert_eq!(tables(&place.lake)["gold/daily"], before["gold/daily"]);
    place.land([&files()[2]]);
    place.medallion(&["run", "--full-refresh"]).ok();
    assert_eq!(days(&place), [day(1, 2), day(2, 4), day(3, 2), day(4, 2)]);
    place.run_idle();
}

#[test]
fn what_was_let_in_before_there_was_a_check_is_told_and_stays() {
    let place = mini::place();
    place.land(&files()[..2]);
    place.run();
    guard_with(&place, PAIRS, PAIRS_TOML);
    let told = place.medallion(&["run"]).expect(4).tells(&["the check `pairs` found 2 rows"]);
    assert!(!told.stderr.contains("withheld"), "{}", told.stderr);
    assert_eq!(days(&place), [day(1, 2), day(2, 3), day(3, 1), day(4, 2)]);
    // a failed check is told again, and costs the ledger nothing
    let before = log_entries(&place.lake);
    place.medallion(&["run"]).expect(4).tells(&["the check `pairs` found 2 rows"]);
    assert_eq!(before, log_entries(&place.lake));
    place.land([&files()[2]]);
    place.run();
    Contents::of(&place).assert_equals(&mended(), "mended");
    place.run_idle();
}

#[test]
fn cassandra_keeps_the_old_rows() {
    let served = Served::mini();
    guard_with(&served.place, PAIRS, PAIRS_TOML);
    let [first, second, third] = files();
    served.place.land([&first]);
    served.run();
    served.place.land([&second]);
    served.medallion(&["run"]).expect(4).tells(&[TOLD]);
    served.assert_equal("two days are withheld");
    let rows = served.rows("daily");
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.iter().any(|row| row.contains("day=2025-08-02") && row.contains("readings=2")), "{rows:?}");
    served.medallion(&["reconcile"]).ok();
    served.place.land([&third]);
    served.run();
    served.assert_equal("mended");
    assert_eq!(served.rows("daily").len(), 4);
}

#[test]
fn mistakes_of_guards_are_told() {
    let toml = |more: &str| format!("description = \"x\"\n{more}\n");
    let cases: Vec<(&str, String, &str)> = vec![
        (
            PAIRS,
            toml("guards = \"gold.dialy\""),
            "sql/checks/pairs.toml:2: there is no gold table `gold.dialy`",
        ),
        (
            PAIRS,
            toml("guards = \"silver.readings\""),
            "pairs.toml:2: there is no gold table `silver.readings`",
        ),
        (
            PAIRS,
            toml("severity = \"warn\"\nguards = \"gold.daily\""),
            "pairs.toml:3: a check that guards a table must be able to fail",
        ),
        (PAIRS, toml("guards = \"gold.total\""), "pairs.toml:2: the check does not read `gold.total`"),
        (
            "select site from gold.daily\n",
            toml("guards = \"gold.daily\""),
            "pairs.toml:2: the query must return `day`, a date",
        ),
        (
            "select d.day from gold.daily d join gold.total t on d.site = t.site\n",
            toml("guards = \"gold.daily\""),
            "pairs.toml:2: the check reads `gold.total`, which is made from `gold.daily`",
        ),
        (
            "select d.day from gold.daily d, ledger.runs r\n",
            toml("guards = \"gold.daily\""),
            "pairs.toml:2: a check that guards a table may not read `ledger.runs`",
        ),
    ];
    for (sql, toml, expected) in cases {
        let place = mini::place();
        guard_with(&place, sql, &toml);
        place.medallion(&["check"]).expect(3).tells(&[expected]);
    }
    // two tables whose guards wait for each other
    let place = mini::place();
    write(
        &place.project.join("sql/gold/other.sql"),
        b"select site, date as day from silver.readings group by 1, 2\n",
    );
    write(
        &place.project.join("sql/gold/other.toml"),
        b"description = \"x\"\nkey = [\"site\", \"day\"]\npartition = [\"day\"]\n",
    );
    let both = "select d.day from gold.daily d join gold.other o on d.day = o.day where d.readings < 0\n";
    guard_with(&place, both, "description = \"x\"\nguards = \"gold.daily\"\n");
    place.medallion(&["check"]).ok();
    write(&place.project.join("sql/checks/quads.sql"), both.as_bytes());
    write(&place.project.join("sql/checks/quads.toml"), b"description = \"x\"\nguards = \"gold.other\"\n");
    place
        .medallion(&["check"])
        .expect(3)
        .tells(&["quads.toml:2: the check reads `gold.daily`, which is made from `gold.other`"]);
}

const COMMANDS: [&[&str]; 4] =
    [&["run"], &["stream", "--until-idle"], &["rerun", "--failed"], &["run", "--full-refresh"]];

/// Files land one by one while runs, streams, reruns and kills come and go; then what is left is mended.
fn assert_schedule(seed: u64) {
    let mut random = Random::new(seed);
    let place = guard(streaming(SMALL));
    // nothing but what takes in makes a lake
    place.run();
    let mut landed = Vec::new();
    for number in 0..5 {
        let lines: Vec<String> = (0..1 + random.below(5))
            .map(|_| {
                let (id, day) = (random.below(30).to_string(), 1 + u32::try_from(random.below(4)).unwrap());
                // a negative one is refused, a known one is a duplicate
                let amount = if random.below(8) == 0 { "-1" } else { "2.5" };
                reading(&id, day, amount)
            })
            .collect();
        landed.push(readings(&format!("{number}.jsonl"), &lines));
        place.land(landed.last());
        for _ in 0..1 + random.below(2) {
            let arguments = *random.pick(&COMMANDS);
            let mut command = place.command(arguments);
            if random.below(3) == 0 {
                command.env("MEDALLION_KILL_AT", random.below(40).to_string());
            }
            let done = Done::of(command.output().unwrap());
            assert!(matches!(done.code, None | Some(0 | 4)), "seed {seed}, {arguments:?}: {done:?}");
        }
    }
    let done = place.medallion(&["run"]);
    let odd = place.sql(
        "select cast(date as varchar) as day from silver.readings group by date having count(*) % 2 = 1",
    );
    assert_eq!(done.code, Some(if odd.is_empty() { 0 } else { 4 }), "seed {seed}: {odd:?} {done:?}");
    // what is in the table is good, and a date that is good as a whole is in the table
    assert_eq!(place.value("select count(*) from gold.daily where readings % 2 = 1"), "0", "seed {seed}");
    let missing = "select count(*) from (select date as day, count(*) as n from silver.readings group by date) s \
                   left join gold.daily d on s.day = d.day where s.n % 2 = 0 and s.n is distinct from d.readings";
    assert_eq!(place.value(missing), "0", "seed {seed}");
    let lines = odd.iter().enumerate().map(|(at, row)| {
        let day = row["day"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
        reading(&format!("mend-{at}"), day, "1")
    });
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        landed.push(readings("mend.jsonl", &lines));
        place.land(landed.last());
        place.run();
    }
    let batch = guard(streaming(SMALL));
    batch.land(&landed);
    batch.run();
    Contents::of(&place).assert_equals(&Contents::of(&batch), &format!("seed {seed}"));
    place.run_idle();
}

#[test]
fn any_schedule_ends_in_the_rows_of_one_batch() {
    let seeds = std::env::var("MEDALLION_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    for seed in 0..seeds {
        assert_schedule(seed);
    }
}
