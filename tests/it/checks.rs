//! Checks: what they tolerate, what is kept of them, and what they say of a table that is not what it used to be.

use crate::data::Landed;
use crate::mini::{self, reading, readings};
use crate::stream::{SMALL, streaming};
use crate::support::{Contents, Place, log_entries, write};

/// The mini project with a check; without a query where `sql` is empty.
fn checked(sql: &str, toml: &str) -> Place {
    let place = mini::place();
    declare(&place, "c", sql, toml);
    place
}

fn declare(place: &Place, name: &str, sql: &str, toml: &str) {
    if !sql.is_empty() {
        write(&place.project.join(format!("sql/checks/{name}.sql")), sql.as_bytes());
    }
    let toml = format!("description = \"It is so.\"\n{toml}\n");
    write(&place.project.join(format!("sql/checks/{name}.toml")), toml.as_bytes());
}

/// So many readings on a day, of which the last `without` have no note.
fn day_of(day: u32, count: usize, without: usize) -> Landed {
    let lines: Vec<String> = (0..count)
        .map(|at| {
            let line = reading(&format!("{day}-{at}"), day, "1");
            match at + without < count {
                true => line.replace('}', ",\"note\":\"n\"}"),
                false => line,
            }
        })
        .collect();
    readings(&format!("{day:02}.jsonl"), &lines)
}

/// The newest outcome of a check.
fn outcome(place: &Place, name: &str) -> (String, i64) {
    let query = format!(
        "select outcome, rows_found from ledger.checks where name = '{name}' order by run_id desc limit 1"
    );
    let rows = place.sql(&query);
    assert_eq!(rows.len(), 1, "`{name}` has no history");
    (rows[0]["outcome"].as_str().unwrap().to_owned(), rows[0]["rows_found"].as_i64().unwrap())
}

#[test]
fn rows_up_to_a_bound_are_tolerated() {
    let all = "select id from silver.readings\n";
    // 10 rows, 10 readings in silver
    for (toml, code, expected) in [
        ("", 4, "failed"),
        ("severity = \"warn\"", 0, "warned"),
        ("fail_above = 9", 4, "failed"),
        ("fail_above = 10", 0, "passed"),
        ("warn_above = 9\nfail_above = 10", 0, "warned"),
        ("warn_above = 10\nseverity = \"warn\"", 0, "passed"),
        ("fail_above = \"99.9999 %\"\nof = \"silver.readings\"", 4, "failed"),
        ("fail_above = \"100 %\"\nof = \"silver.readings\"", 0, "passed"),
        ("warn_above = \"5%\"\nfail_above = \"100 %\"\nof = \"bronze.readings\"", 0, "warned"),
        ("warn_above = 3\nfail_above = \"100 %\"\nof = \"gold.daily\"", 4, "failed"),
    ] {
        let place = checked(all, toml);
        place.land([&day_of(1, 10, 0)]);
        let told = place.medallion(&["run"]).expect(code);
        assert_eq!(outcome(&place, "c"), (expected.to_owned(), 10), "{toml}");
        if code == 4 {
            told.tells(&["the check `c` found 10 rows of which this is not true: It is so."]);
        }
    }
}

#[test]
fn shares_of_changed_dates_are_of_those_dates() {
    let toml = "scope = \"changed\"\nfail_above = \"50 %\"\nof = \"silver.readings\"";
    let place = checked("select id from silver.readings where note is null\n", toml);
    place.land([&day_of(1, 20, 0)]);
    place.run();
    assert_eq!(outcome(&place, "c"), ("passed".to_owned(), 0));
    place.land([&day_of(2, 4, 3)]);
    place.medallion(&["run"]).expect(4);
    assert_eq!(outcome(&place, "c"), ("failed".to_owned(), 3));
    // a finding is not forgotten by the next run, which asks all dates: 3 of 24 rows
    place.run();
    assert_eq!(outcome(&place, "c"), ("passed".to_owned(), 3));
    place.run_idle();
}

#[test]
fn a_check_of_changed_dates_stays_failed_until_it_is_mended() {
    let place = checked("select id from silver.readings where note is null\n", "scope = \"changed\"");
    place.land([&day_of(1, 20, 3)]);
    place.medallion(&["run"]).expect(4);
    place.land([&day_of(2, 20, 0)]);
    for _ in 0..2 {
        place.medallion(&["run"]).expect(4).tells(&["the check `c` found 3 rows of which this is not true"]);
        assert_eq!(outcome(&place, "c"), ("failed".to_owned(), 3));
    }
    place.edit("sql/checks/c.sql", "note is null", "note is null and amount < 0");
    place.run();
    assert_eq!(outcome(&place, "c"), ("passed".to_owned(), 0));
}

#[test]
fn every_run_that_looks_is_kept_and_no_other() {
    let place = checked("select id from silver.readings where amount > 5\n", "severity = \"warn\"");
    declare(&place, "d", "select id from silver.readings where amount > 50\n", "");
    place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
    place.run();
    place.run_idle();
    place.land([&readings("b.jsonl", &[reading("2", 1, "7")])]);
    place.run();
    place.land([&readings("c.jsonl", &[reading("3", 1, "70")])]);
    place.medallion(&["run"]).expect(4).tells(&["the check `d` found 1 row of which"]);
    let before = log_entries(&place.lake);
    for _ in 0..2 {
        let told = place.medallion(&["run"]).expect(4).tells(&["the check `d` found 1 row of which"]);
        assert!(told.stdout.contains("no table was changed"), "{}", told.stdout);
    }
    assert_eq!(before, log_entries(&place.lake), "the same finding is not written again");
    let rows = place
        .sql("select run_id, name, severity, outcome, rows_found from ledger.checks order by run_id, name");
    let told: Vec<String> = rows
        .iter()
        .map(|row| {
            format!(
                "{} {} {}",
                row["name"].as_str().unwrap(),
                row["outcome"].as_str().unwrap(),
                row["rows_found"]
            )
        })
        .collect();
    assert_eq!(told, ["c passed 0", "d passed 0", "c warned 1", "d passed 0", "c warned 2", "d failed 1"]);
    let runs = place.sql("select run_id from ledger.runs order by run_id");
    assert_eq!(runs.len(), 3);
    // a changed check is asked again, without any news in landing
    place.edit("sql/checks/d.sql", "> 50", "> 500");
    place.run();
    assert_eq!(outcome(&place, "d"), ("passed".to_owned(), 0));
    place.run_idle();
    let history = place.medallion(&["--format", "csv", "checks", "history", "d"]).ok();
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines.len(), 5, "{history}");
    assert!(lines[0].starts_with("run,checked,severity,outcome,rows,withheld,dates,details"), "{history}");
    assert!(lines[1].contains(",fail,passed,0,") && lines[2].contains(",fail,failed,1,"), "{history}");
    assert_eq!(
        place.medallion(&["--format", "csv", "checks", "history", "d", "--limit", "1"]).ok().lines().count(),
        2
    );
    let list = place.medallion(&["--format", "json", "checks", "list"]).json();
    assert_eq!(list[0]["name"], "c");
    assert_eq!(
        (&list[0]["severity"], &list[0]["last"]["outcome"]),
        (&"warn".into(), &"warned".into()),
        "{list}"
    );
    assert_eq!((&list[1]["fail_above"], &list[1]["last"]["rows_found"]), (&"0".into(), &0.into()), "{list}");
    place.medallion(&["checks", "list"]).ok();
    place
        .medallion(&["checks", "history", "nothing"])
        .expect(2)
        .tells(&["unknown check `nothing`, known: c, d"]);
    // with the runs, their checks are forgotten
    place.medallion(&["gc", "--keep-runs", "1"]).ok();
    assert_eq!(place.value("select count(*) from ledger.checks"), "2");
    assert_eq!(place.value("select count(distinct run_id) from ledger.checks"), "1");
    place.run_idle();
}

#[test]
fn a_run_that_was_killed_before_its_report_has_one_history() {
    let place = checked("select id from silver.readings where amount > 5\n", "severity = \"warn\"");
    place.land([&readings("a.jsonl", &[reading("1", 1, "7")])]);
    assert!(crate::crash::is_killed(&place, "committed ledger.checks", &["run"]));
    // what lands before the next run is of the same run
    place.land([&readings("b.jsonl", &[reading("2", 1, "8")])]);
    place.run();
    assert_eq!(outcome(&place, "c"), ("warned".to_owned(), 2));
    assert_eq!(place.value("select count(*) from ledger.checks"), "1");
    place.run_idle();
}

#[test]
fn a_stream_keeps_a_row_per_check_and_settle() {
    let place = streaming(SMALL);
    declare(&place, "c", "select id from silver.readings where amount > 5\n", "severity = \"warn\"");
    place.land((1..6).map(|day| day_of(day, 2, 0)).collect::<Vec<_>>().iter());
    place.medallion(&["stream", "--until-idle"]).ok();
    place.medallion(&["stream", "--until-idle"]).ok();
    let (checks, runs) = ("select count(*) from ledger.checks", "select count(*) from ledger.runs");
    assert_eq!(place.value(checks), place.value(runs));
    assert_eq!(place.value(checks), place.value("select count(distinct run_id) from ledger.checks"));
    let before = log_entries(&place.lake);
    place.medallion(&["stream", "--until-idle"]).ok();
    assert_eq!(before, log_entries(&place.lake), "an idle stream keeps nothing");
}

const VOLUME: &str = "kind = \"volume\"\ntable = \"silver.readings\"\nmin_days = 3\nseverity = \"warn\"";

#[test]
fn an_unusual_number_of_rows_is_told() {
    let place = checked("", VOLUME);
    place.land(&[day_of(1, 20, 0), day_of(2, 20, 0), day_of(3, 21, 0), day_of(4, 20, 0)]);
    place.run();
    assert_eq!(outcome(&place, "c"), ("passed".to_owned(), 0));
    place.land([&day_of(5, 22, 0)]);
    place.run();
    assert_eq!(outcome(&place, "c"), ("passed".to_owned(), 0), "within 10 %");
    place.land([&day_of(6, 9, 0)]);
    let told = place.run();
    assert!(told.contains("2025-08-06: 9 rows; usual are 20 ± 2"), "{told}");
    assert_eq!(outcome(&place, "c"), ("warned".to_owned(), 1));
    let kept = place.sql("select dates, details from ledger.checks where outcome = 'warned'");
    assert_eq!(kept[0]["dates"], "2025-08-06");
    assert_eq!(kept[0]["details"], "2025-08-06: 9 rows; usual are 20 ± 2");
    let shown = place.medallion(&["runs", "show"]).ok();
    assert!(
        shown.contains(
            "check `c` (warned): 1 row of which this is not true: It is so.\n    2025-08-06: 9 rows"
        ),
        "{shown}"
    );
    // told by the run that found it; the day after next says that the one between has no rows
    place.land([&day_of(8, 20, 0)]);
    place.run();
    assert_eq!(outcome(&place, "c"), ("passed".to_owned(), 0), "only what has changed is judged");
    place.edit("sql/checks/c.toml", "min_days", "scope = \"all\"\nmin_days");
    let told = place.run();
    assert!(told.contains("2025-08-06: 9 rows") && told.contains("2025-08-07: 0 rows"), "{told}");
    assert_eq!(outcome(&place, "c"), ("warned".to_owned(), 2));
    // the same tables, whatever way they came, say the same
    let other = checked("", &VOLUME.replace("min_days", "scope = \"all\"\nmin_days"));
    other.land(&[day_of(1, 20, 0), day_of(2, 20, 0), day_of(3, 21, 0), day_of(4, 20, 0)]);
    other.land(&[day_of(5, 22, 0), day_of(6, 9, 0), day_of(8, 20, 0)]);
    assert!(other.run().contains("2025-08-06: 9 rows; usual are 20 ± 2"));
    Contents::of(&other).assert_equals(&Contents::of(&place), "checks change no row");
}

#[test]
fn a_day_that_is_still_filling_is_judged_when_it_is_over() {
    let place = checked("", &format!("{VOLUME}\ndelay_days = 1"));
    place.land(&[day_of(1, 20, 0), day_of(2, 20, 0), day_of(3, 20, 0), day_of(4, 2, 0)]);
    place.run();
    assert_eq!(outcome(&place, "c"), ("passed".to_owned(), 0));
    place.land([&day_of(5, 3, 0)]);
    let told = place.run();
    assert!(told.contains("2025-08-04: 2 rows; usual are 20 ± 2"), "{told}");
    assert_eq!(outcome(&place, "c"), ("warned".to_owned(), 1));
}

#[test]
fn an_unusual_share_of_nulls_is_told() {
    let toml = "kind = \"null_rate\"\ntable = \"silver.readings\"\ncolumn = \"note\"\nmin_days = 3\ntolerance = \"5 %\"";
    let place = checked("", toml);
    place.land(&[day_of(1, 20, 2), day_of(2, 20, 2), day_of(3, 20, 2), day_of(4, 20, 3)]);
    place.run();
    assert_eq!(outcome(&place, "c"), ("passed".to_owned(), 0));
    place.land([&day_of(5, 20, 10)]);
    place.medallion(&["run"]).expect(4).tells(&[
        "the check `c` found 1 row of which this is not true: It is so.; 2025-08-05: 10 of 20 rows without `note`; usual are 10 ± 5 %",
    ]);
    assert_eq!(outcome(&place, "c"), ("failed".to_owned(), 1));
    // fewer nulls than usual are as unusual
    place.land([&day_of(6, 20, 0)]);
    place.medallion(&["run"]).expect(4).tells(&["2025-08-06: 0 of 20 rows"]);
    // bronze has a history, too
    let place = checked("", &toml.replace("silver", "bronze"));
    place.land(&[day_of(1, 20, 2), day_of(2, 20, 2), day_of(3, 20, 2), day_of(4, 20, 19)]);
    place.medallion(&["run"]).expect(4).tells(&["2025-08-04: 19 of 20 rows without `note`"]);
}

#[test]
fn a_table_that_lags_behind_another_is_told() {
    let place = checked(
        "",
        "kind = \"freshness\"\ntable = \"gold.daily\"\nuntil = \"silver.readings\"\nmin_days = 3",
    );
    place.edit("sql/gold/daily.sql", "group by", "where date <= date '2025-08-05'\ngroup by");
    place.land((1..8).map(|day| day_of(day, 2, 0)).collect::<Vec<_>>().iter());
    place.run();
    assert_eq!(outcome(&place, "c"), ("passed".to_owned(), 0), "two days, usual is one and one is tolerated");
    place.land([&day_of(8, 2, 0)]);
    place
        .medallion(&["run"])
        .expect(4)
        .tells(&["2025-08-05: the newest date, 3 days before 2025-08-08; usual are at most 2"]);
    assert_eq!(outcome(&place, "c"), ("failed".to_owned(), 1));
}

#[test]
fn a_table_that_gets_old_is_told_also_where_nothing_is_new() {
    let today = chrono::Utc::now().date_naive();
    let place =
        checked("", "kind = \"freshness\"\ntable = \"silver.readings\"\nuntil = \"now\"\nmin_days = 3");
    let files: Vec<Landed> = (2..8)
        .map(|ago| {
            let date = today - chrono::Days::new(ago);
            let line = reading(&ago.to_string(), 1, "1").replace("2025-08-01", &date.to_string());
            let mut file = readings(&format!("{ago}.jsonl"), &[line]);
            file.modified = u64::try_from(chrono::Utc::now().timestamp()).unwrap();
            file
        })
        .collect();
    place.land(&files);
    place.run();
    assert_eq!(outcome(&place, "c"), ("passed".to_owned(), 0), "the day before yesterday is not old");
    place.run_idle();
    place.medallion(&["status", "--monitor"]).ok();
    // a day that is over earlier: the tables are as they were, and are too old now
    place.edit("sql/checks/c.toml", "min_days", "tolerance = \"0 days\"\nmin_days");
    place.medallion(&["run"]).expect(4).tells(&["the newest date, 2 days before"]);
    let before = log_entries(&place.lake);
    place.medallion(&["run"]).expect(4).tells(&["the newest date, 2 days before"]);
    assert_eq!(before, log_entries(&place.lake), "told again, kept once");
    assert_eq!(place.value("select count(*) from ledger.checks"), "2");
    place
        .medallion(&["status", "--monitor"])
        .expect(4)
        .tells(&["the check `c` found 1 row of which", "the newest date"]);
}

#[test]
fn an_unusual_date_can_be_kept_out_of_gold() {
    let toml = "kind = \"volume\"\ntable = \"gold.daily\"\nguards = \"gold.daily\"\nmin_days = 3";
    let place = checked("", toml);
    // one row per site and day: usual is one site
    let sites = |day: u32, count: usize| {
        let lines: Vec<String> = (0..count)
            .map(|at| reading(&format!("{day}-{at}"), day, "1").replace("north", &format!("site{at}")))
            .collect();
        readings(&format!("{day:02}-{count}.jsonl"), &lines)
    };
    place.land(&[sites(1, 5), sites(2, 5), sites(3, 5), sites(4, 2)]);
    place.medallion(&["run"]).expect(4).tells(&[
        "withheld from `gold.daily`: 2025-08-04..2025-08-04 (1 date)",
        "the check `c` found 1 row in what was to replace it",
    ]);
    assert_eq!(place.value("select cast(max(day) as varchar) from gold.daily"), "2025-08-03");
    assert_eq!(outcome(&place, "c"), ("withheld".to_owned(), 0));
    let more: Vec<String> =
        (2..5).map(|at| reading(&format!("4-{at}"), 4, "1").replace("north", &format!("site{at}"))).collect();
    place.land([&readings("more.jsonl", &more)]);
    place.run();
    assert_eq!(place.value("select count(*) from gold.daily"), "20");
    place.run_idle();
    // and so can a share of nulls
    let toml = "kind = \"null_rate\"\ntable = \"gold.daily\"\ncolumn = \"readings\"\nguards = \"gold.daily\"\nmin_days = 3";
    let place = checked("", toml);
    place.edit("sql/gold/daily.sql", "count(*) as readings", "nullif(count(*), 3) as readings");
    place.land(&[day_of(1, 2, 0), day_of(2, 2, 0), day_of(3, 2, 0), day_of(4, 3, 0)]);
    place.medallion(&["run"]).expect(4).tells(&["withheld from `gold.daily`: 2025-08-04"]);
    assert_eq!(place.value("select count(*) from gold.daily"), "3");
}

#[test]
fn mistakes_of_checks_are_told() {
    let all = "select id from silver.readings\n";
    let volume = "kind = \"volume\"\ntable = \"silver.readings\"\n";
    let cases: Vec<(&str, String, &str)> = vec![
        (
            "",
            "severity = \"warn\"".to_owned(),
            "sql/checks/c.toml: `c.sql` is missing beside it, or a `kind`",
        ),
        (all, volume.to_owned(), "sql/checks/c.sql: `c.toml` says a `kind`, so there is no query"),
        (all, "days = 3".to_owned(), "c.toml:2: `days` belongs to a check with a `kind`"),
        ("", "kind = \"size\"".to_owned(), "c.toml:2: unknown variant `size`"),
        ("", "kind = \"volume\"".to_owned(), "c.toml:2: a check with a `kind` needs `table`"),
        ("", volume.replace("readings", "reading"), "c.toml:3: there is no stored table `silver.reading`"),
        ("", volume.replace("readings", "sites"), "c.toml:3: `silver.sites` has no partitions by date"),
        (
            "",
            format!("{volume}column = \"id\""),
            "c.toml:4: `column` means nothing to a check of this `kind`",
        ),
        ("", volume.replace("volume", "null_rate"), "c.toml:2: a check of a null rate needs `column`"),
        (
            "",
            format!("{}column = \"nmae\"", volume.replace("volume", "null_rate")),
            "c.toml:4: `silver.readings` has no column `nmae`",
        ),
        ("", volume.replace("volume", "freshness"), "c.toml:2: a check of freshness needs `until`"),
        (
            "",
            format!("{}until = \"then\"", volume.replace("volume", "freshness")),
            "c.toml:4: there is no stored table `then`",
        ),
        (
            "",
            format!("{}until = \"now\"\ntolerance = \"10 %\"", volume.replace("volume", "freshness")),
            "c.toml:5: `10 %` is not a duration",
        ),
        ("", format!("{volume}tolerance = \"2 days\""), "c.toml:4: `2 days` is no share"),
        ("", format!("{volume}days = 0"), "c.toml:4: must be at least 1"),
        ("", format!("{volume}days = 3"), "c.toml:4: 3 days of history never hold the 7"),
        ("", format!("{volume}deviations = -1"), "c.toml:4: `deviations` is a number, 0 or more"),
        ("", format!("{volume}guards = \"gold.daily\""), "c.toml:4: the check does not read `gold.daily`"),
        (
            "",
            "kind = \"freshness\"\ntable = \"gold.daily\"\nuntil = \"now\"\nguards = \"gold.daily\""
                .to_owned(),
            "c.toml:5: a check of freshness guards nothing",
        ),
        (all, "fail_above = \"5\"".to_owned(), "c.toml:2: `5` is no share"),
        (all, "fail_above = -1".to_owned(), "c.toml:2: "),
        (all, "fail_above = \"5 %\"".to_owned(), "c.toml:2: a share needs `of`"),
        (all, "of = \"silver.readings\"".to_owned(), "c.toml:2: `of` is for shares"),
        (
            all,
            "fail_above = \"5 %\"\nof = \"silver.raedings\"".to_owned(),
            "c.toml:3: there is no stored table",
        ),
        (
            all,
            "severity = \"warn\"\nfail_above = 3".to_owned(),
            "c.toml:3: a check with `severity = \"warn\"` never fails",
        ),
        (
            all,
            "warn_above = 3".to_owned(),
            "c.toml:2: more than `warn_above` (3) warns and more than `fail_above` (0) fails",
        ),
        (all, "max_rows = 3".to_owned(), "c.toml:2: unknown field `max_rows`"),
    ];
    for (sql, toml, expected) in cases {
        let place = checked(sql, &toml);
        let told = place.medallion(&["check"]);
        assert_eq!(told.code, Some(3), "{toml}: {}{}", told.stdout, told.stderr);
        told.tells(&[expected]);
    }
}
