//! Reruns: what is asked for and what depends on it is computed again, and the lake is that of a fresh run.

use crate::crash::is_killed;
use crate::data;
use crate::mini;
use crate::support::{Contents, Place, active_files, copy_folder, log_entries, tables, write};

const RULE: &str = "sql/bronze/readings.toml";
const SILVER: &str = "sql/silver/readings.sql";

/// A lake of the mini project after both batches.
fn filled() -> Place {
    let place = mini::place();
    for batch in mini::batches() {
        place.land(&batch);
        place.run();
    }
    place
}

/// What a new lake holds after one run of the place's project over its landing.
pub fn fresh(place: &Place) -> Contents {
    let other = Place::of(&place.project);
    copy_folder(&place.landing, &other.landing);
    for entry in crate::support::walk(&place.landing) {
        let relative = entry.strip_prefix(&place.landing).unwrap();
        let modified = std::fs::metadata(&entry).unwrap().modified().unwrap();
        let copy = std::fs::File::options().write(true).open(other.landing.join(relative)).unwrap();
        copy.set_modified(modified).unwrap();
    }
    other.run();
    Contents::of(&other)
}

fn stale_files(place: &Place) -> i64 {
    let status = place.medallion(&["--format", "json", "status"]);
    let tables: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    tables.as_array().unwrap().iter().map(|table| table["stale_partitions"].as_i64().unwrap()).sum()
}

#[track_caller]
fn assert_nothing_is_left(place: &Place) {
    assert_eq!(stale_files(place), 0);
    let before = log_entries(&place.lake);
    for arguments in [&["rerun", "--stale"][..], &["rerun", "--failed"], &["run"]] {
        let told = place.medallion(arguments).ok();
        assert!(told.contains("no table was changed"), "{arguments:?}: {told}");
    }
    assert_eq!(before, log_entries(&place.lake));
    place.medallion(&["balance"]).ok();
}

#[test]
fn a_backfill_says_what_it_is_going_to_do_how_far_it_is_and_goes_on_after_a_crash() {
    let place = filled();
    place.edit(SILVER, "r.amount,", "cast(r.amount + 1 - 1 as decimal(18, 6)) as amount,");
    let plan = place.medallion(&["--format", "json", "rerun", "--stale", "--dry-run"]).json();
    let sum = |what: &str| -> i64 {
        plan["steps"].as_array().unwrap().iter().map(|step| step[what].as_i64().unwrap()).sum()
    };
    for total in ["partitions", "rows", "bytes"] {
        assert!(plan[total].as_i64().unwrap() > 0 && plan[total] == sum(total), "{total}: {plan}");
    }
    assert!(plan["estimated_seconds"].as_f64().unwrap() > 0.0, "{plan}");
    let told = place.medallion(&["rerun", "--stale", "--dry-run"]).ok();
    assert!(told.contains("s by the pace of past runs"), "{told}");
    // the newest first, one at a time, killed now and then
    let newest = place.medallion(&["rerun", "--stale", "--order", "newest", "--max-partitions", "1"]).ok();
    assert!(
        newest.contains("2025-08-02..2025-08-02") && newest.contains("1 partitions are left"),
        "{newest}"
    );
    let mut command = place.command(&["rerun", "--stale", "--max-partitions", "1"]);
    command.env("MEDALLION_KILL_AT", "commit silver.readings");
    assert_eq!(crate::support::Done::of(command.output().unwrap()).code, None);
    let mut command = crate::support::medallion();
    command
        .arg("--project")
        .arg(&place.project)
        .arg("--landing")
        .arg(&place.landing)
        .arg("--lake")
        .arg(&place.lake);
    command.args(["rerun", "--stale", "--concurrency", "1", "--force"]);
    let done = crate::support::Done::of(command.output().unwrap()).expect(0);
    assert!(done.stderr.contains(" rows are computed, about "), "{}", done.stderr);
    assert_nothing_is_left(&place);
    Contents::of(&place).assert_equals(&fresh(&place), "a backfill");
}

#[test]
fn rows_in_another_order_and_nulls_are_no_difference() {
    let place = mini::place();
    // more rows than one batch of a reader holds, and a null among them
    let lines: Vec<String> = (0..3000)
        .map(|number| {
            let line = mini::reading(&format!("{number:05}"), 1, "1");
            if number == 1 { line } else { line.replace('}', ",\"note\":\"x\"}") }
        })
        .collect();
    let (first, second) = lines.split_at(1500);
    place.land([&mini::readings("a.jsonl", first), &mini::readings("b.jsonl", second)]);
    place.run();
    place.edit(SILVER, "on r.site = s.site\n", "on r.site = s.site\norder by r.id desc\n");
    let told = place.medallion(&["rerun", "--stale"]).ok();
    assert!(told.contains("1 partition as before"), "{told}");
    assert_eq!(place.value("select count(*) from silver.readings"), "3000");
}

/// What an `--only` leaves is the next run's to balance.
#[test]
fn a_rerun_of_one_table_only_does_not_judge_what_it_leaves() {
    let place = filled();
    place.edit(RULE, "amount < 0", "amount < -5");
    place
        .medallion(&[
            "rerun",
            "--select",
            "bronze.readings",
            "--from",
            "2025-08-01",
            "--to",
            "2025-08-09",
            "--only",
        ])
        .ok();
    assert_eq!(place.value("select count(*) from silver.readings where amount < 0"), "0");
    place.run();
    place.medallion(&["balance"]).ok();
    Contents::of(&place).assert_equals(&fresh(&place), "what was left");
    place.run_idle();
}

#[test]
fn comments_and_layout_make_nothing_stale() {
    let place = filled();
    place.edit(SILVER, "left join silver.sites s", "-- where it is\n  LEFT JOIN silver.sites   s");
    place.edit("sql/silver/readings.toml", "description = \"Readings.\"", "description = \"What was read.\"");
    assert_nothing_is_left(&place);
}

#[test]
fn a_changed_query_is_stale_until_a_rerun_mends_it() {
    let place = filled();
    place.edit(SILVER, "r.amount,", "cast(r.amount * 2 as decimal(18, 6)) as amount,");
    place.edit("sql/silver/readings.toml", "accounts_for = \"readings\"\n", "");
    assert!(stale_files(&place) > 0);
    let told = place.run();
    assert!(told.contains("no table was changed") && told.contains("medallion rerun --stale"), "{told}");
    let before = log_entries(&place.lake);
    let plan = place.medallion(&["--format", "json", "rerun", "--stale", "--dry-run"]).json();
    let tables: Vec<&str> =
        plan["steps"].as_array().unwrap().iter().map(|step| step["table"].as_str().unwrap()).collect();
    assert_eq!(tables, ["silver.readings", "gold.daily", "gold.total"], "{plan}");
    assert_eq!(before, log_entries(&place.lake), "a dry run commits nothing");
    let told = place.medallion(&["rerun", "--stale"]).ok();
    assert!(told.contains("gold.total"), "{told}");
    Contents::of(&place).assert_equals(&fresh(&place), "rerun --stale");
    assert_nothing_is_left(&place);
}

#[test]
fn a_changed_rule_is_noticed_and_decided_again() {
    let place = filled();
    place.edit(RULE, "amount < 0", "amount < -2");
    let told = place.run();
    assert!(told.contains("dates of readings were decided by older rules"), "{told}");
    place.medallion(&["rerun", "--stale"]).ok();
    Contents::of(&place).assert_equals(&fresh(&place), "another rule");
    assert_eq!(place.value("select count(*) from silver.readings where amount = -1"), "1");
    assert_nothing_is_left(&place);
    // and a rule that is gone leaves nothing behind
    let text = std::fs::read_to_string(place.project.join(RULE)).unwrap();
    let without = text.split("[[rules]]").next().unwrap();
    std::fs::write(place.project.join(RULE), without).unwrap();
    place.medallion(&["rerun", "--stale"]).ok();
    Contents::of(&place).assert_equals(&fresh(&place), "no rule");
    assert_nothing_is_left(&place);
}

#[test]
fn a_run_between_a_changed_rule_and_its_rerun_keeps_the_balance() {
    let place = filled();
    place.edit(RULE, "amount < 0", "amount < -2");
    // one more day, and a master that makes every reading be joined again
    place.land([
        &mini::readings("c.jsonl", &[mini::reading("c", 3, "-1.5")]),
        &data::Landed::new("sites_2025-09-01.csv", "site,name,opened\nnorth,Farther North,2024-01-01\n"),
    ]);
    place.run();
    place.medallion(&["balance"]).ok();
    place.medallion(&["rerun", "--stale"]).ok();
    Contents::of(&place).assert_equals(&fresh(&place), "a run, then the rerun");
    assert_nothing_is_left(&place);
}

#[test]
fn a_changed_reference_table_is_noticed_wherever_it_changed() {
    let place = mini::place();
    let lines: String = (0..50).map(|at| format!("site{at},zone{at}\n")).collect();
    let reference = place.project.join("sql/reference/zones.csv");
    write(&reference, format!("site,zone\nnorth,cold\n{lines}").as_bytes());
    place.edit(
        SILVER,
        "left join silver.sites s",
        "left join reference.zones z on r.site = z.site\nleft join silver.sites s",
    );
    place.edit(SILVER, "r.note,", "r.note, z.zone,");
    place.land(&mini::batches().concat());
    place.run();
    assert_eq!(stale_files(&place), 0);
    std::fs::write(&reference, format!("site,zone\nnorth,cold\n{}", lines.replace("zone25", "changed")))
        .unwrap();
    assert!(stale_files(&place) > 0, "a line in the middle of a long table counts");
    // no row of the lake has that site: the rerun finds them as they were and says so to the log only
    let before = Contents::of(&place);
    let gold = active_files(&place.lake.join("gold/daily"));
    place.medallion(&["rerun", "--stale"]).ok();
    Contents::of(&place).assert_equals(&before, "nothing depends on that line");
    assert_eq!(active_files(&place.lake.join("gold/daily")), gold, "nothing downstream was computed");
    assert_nothing_is_left(&place);
}

#[test]
fn a_rerun_of_a_sound_lake_changes_nothing() {
    let place = filled();
    let (contents, before) = (Contents::of(&place), log_entries(&place.lake));
    let files = active_files(&place.lake.join("silver/readings"));
    for arguments in [
        &["rerun", "--from", "2025-08-01", "--to", "2025-08-02"][..],
        &["rerun", "--from", "2025-08-01", "--to", "2025-08-02", "--force"],
        &["rerun", "--select", "silver.sites"],
        &["rerun", "--missing"],
    ] {
        let told = place.medallion(arguments).ok();
        assert!(told.contains("no table was changed"), "{arguments:?}: {told}");
        let has_computed = !arguments.contains(&"--missing");
        assert_eq!(told.contains("nothing differed"), has_computed, "{arguments:?}: {told}");
        assert_eq!(told.contains("nothing to recompute"), !has_computed, "{arguments:?}: {told}");
    }
    let forced = ["rerun", "--from", "2025-08-01", "--to", "2025-08-02", "--force"];
    let told = place.medallion(&forced).ok();
    assert!(told.contains("computed again: 5 partitions of 3 tables; nothing differed"), "{told}");
    assert_eq!(before, log_entries(&place.lake));
    assert_eq!(files, active_files(&place.lake.join("silver/readings")));
    Contents::of(&place).assert_equals(&contents, "reruns");
}

#[test]
fn partitions_whose_files_are_gone_come_back() {
    let place = filled();
    let contents = Contents::of(&place);
    for table in ["silver/readings", "gold/daily", "gold/total"] {
        let folder = place.lake.join(table);
        let (path, _) = active_files(&folder).into_iter().next().unwrap();
        std::fs::remove_file(folder.join(path)).unwrap();
    }
    place.medallion(&["rerun", "--missing"]).ok();
    Contents::of(&place).assert_equals(&contents, "rerun --missing");
    assert_nothing_is_left(&place);
}

/// A date of which nothing is left after its records were refused is not missing, and is not computed again and again.
#[test]
fn what_came_out_empty_is_not_missing() {
    let place = filled();
    // of the 3rd only a refused record has landed
    assert_eq!(place.value("select count(*) from bronze.readings where date = '2025-08-03'"), "1");
    assert_eq!(place.value("select count(*) from gold.daily where day = '2025-08-03'"), "0");
    let plan = place.medallion(&["--format", "json", "rerun", "--missing", "--dry-run"]).json();
    assert_eq!(plan["steps"], serde_json::json!([]), "{plan}");
    // what was never computed is
    place.land([&mini::readings("late.jsonl", &[mini::reading("late", 5, "1")])]);
    assert!(is_killed(&place, "commit silver.readings", &["run"]));
    let plan = place.medallion(&["--format", "json", "rerun", "--missing", "--dry-run"]).json();
    let asked: Vec<_> =
        plan["steps"].as_array().unwrap().iter().filter(|step| step["why"] == "asked for").collect();
    assert_eq!(
        (asked.len(), &asked[0]["table"], &asked[0]["partitions"]),
        (1, &"silver.readings".into(), &1.into())
    );
    place.medallion(&["rerun", "--missing"]).ok();
    Contents::of(&place).assert_equals(&fresh(&place), "rerun --missing after a kill");
    // and what a restore has taken away
    place.medallion(&["restore", "gold.daily", "--to", "0"]).ok();
    assert_eq!(place.value("select count(*) from gold.daily where day = '2025-08-05'"), "0");
    place.medallion(&["rerun", "--missing"]).ok();
    assert_eq!(place.value("select count(*) from gold.daily where day = '2025-08-05'"), "1");
}

/// What is asked for is computed; what reads it only where that comes out otherwise. A plan says both.
#[test]
fn a_plan_says_what_is_computed_at_least_and_at_most() {
    let place = filled();
    let day = ["--from", "2025-08-01", "--to", "2025-08-01"];
    let plan =
        |more: &[&str]| place.medallion(&[&["--format", "json", "rerun", "--dry-run"], more].concat()).json();
    let of_day = plan(&[&["--select", "silver.readings"][..], &day].concat());
    assert_eq!(of_day["at_least"]["partitions"], 1, "{of_day}");
    assert_eq!((&of_day["at_least"]["rows"], &of_day["partitions"]), (&2.into(), &3.into()), "{of_day}");
    for what in ["rows", "bytes"] {
        assert!(of_day["at_least"][what].as_i64() < of_day[what].as_i64(), "{of_day}");
    }
    assert!(of_day["at_least_seconds"].as_f64() < of_day["estimated_seconds"].as_f64(), "{of_day}");
    let forced = plan(&[&["--select", "silver.readings", "--force"][..], &day].concat());
    assert_eq!(forced["at_least"]["partitions"], forced["partitions"], "{forced}");
    let told =
        place.medallion(&[&["rerun", "--dry-run", "--select", "silver.readings"][..], &day].concat()).ok();
    assert!(told.contains("\n1 partitions, 2 rows, ") && told.contains("\nat most, if everything"), "{told}");
    // several tables are computed at the same time: past seconds are not added up as if they were not
    let last = place.medallion(&["--format", "json", "runs", "show"]).json();
    let all = plan(&["--from", "2025-08-01", "--to", "2025-08-31", "--force"]);
    let took = (last["finished"].as_i64().unwrap() - last["started"].as_i64().unwrap()) as f64 / 1e6;
    assert!(all["estimated_seconds"].as_f64().unwrap() < took * 3.0, "{all} against {took} s");
}

#[test]
fn a_date_that_was_spoiled_is_repaired_with_what_depends_on_it() {
    let place = filled();
    let contents = Contents::of(&place);
    place.edit(SILVER, "r.amount,", "cast(r.amount + 1 as decimal(18, 6)) as amount,");
    place
        .medallion(&["rerun", "--select", "silver.readings", "--from", "2025-08-01", "--to", "2025-08-01"])
        .expect(4)
        .tells(&["the balance of `readings` (amount, lake) does not hold"]);
    assert_ne!(&tables(&place.lake)["gold/total"], contents.table("gold/total"), "downstream came too");
    place.edit(SILVER, "cast(r.amount + 1 as decimal(18, 6)) as amount,", "r.amount,");
    // its own partition is of the other form, and of the date without rows the log can't say
    let plan = place.medallion(&["--format", "json", "rerun", "--stale", "--dry-run"]).json();
    let asked: Vec<_> =
        plan["steps"].as_array().unwrap().iter().filter(|step| step["why"] == "asked for").collect();
    assert_eq!((asked.len(), &asked[0]["partitions"]), (1, &2.into()), "{plan}");
    place.medallion(&["rerun", "--stale"]).ok();
    Contents::of(&place).assert_equals(&contents, "repaired");
    assert_nothing_is_left(&place);
}

#[test]
fn only_leaves_what_depends_on_it_to_the_next_run() {
    let place = filled();
    place.edit(SILVER, "r.note,", "coalesce(r.note, 'none') as note, ");
    place.edit("sql/gold/daily.sql", "count(*) as readings", "count(note) as readings");
    let day = ["--from", "2025-08-01", "--to", "2025-08-01"];
    let before = Contents::of(&place);
    place.medallion(&[&["rerun", "--select", "silver.readings", "--only"][..], &day].concat()).ok();
    let after = Contents::of(&place);
    assert_ne!(before.table("silver/readings"), after.table("silver/readings"));
    assert_eq!(before.table("gold/daily"), after.table("gold/daily"));
    let told = place.run();
    assert!(told.contains("gold.daily"), "the next run computes it: {told}");
    place.medallion(&["rerun", "--stale"]).ok();
    Contents::of(&place).assert_equals(&fresh(&place), "only, run, stale");
}

#[test]
fn a_limited_rerun_comes_to_its_end() {
    for order in ["oldest", "newest"] {
        let place = filled();
        place.edit(SILVER, "r.note,", "coalesce(r.note, 'none') as note,");
        place.edit(RULE, "amount < 0", "amount < -2");
        let mut calls = 0;
        while stale_files(&place) > 0 {
            place.medallion(&["rerun", "--stale", "--order", order, "--max-partitions", "1"]).ok();
            place.medallion(&["balance"]).ok();
            calls += 1;
            assert!(calls < 20, "{order} first: it does not come forward");
        }
        assert!(calls > 2, "{calls} calls");
        Contents::of(&place).assert_equals(&fresh(&place), order);
        assert_nothing_is_left(&place);
    }
}

#[test]
fn a_rerun_killed_at_every_point_is_continued() {
    let before = filled();
    before.edit(RULE, "amount < 0", "amount < -2");
    before.edit(SILVER, "r.note,", "coalesce(r.note, 'none') as note,");
    let expected = fresh(&before);
    let mut point = 0;
    loop {
        let mut place = Place::of(&before.project);
        copy_folder(&before.lake, &place.lake);
        place.landing.clone_from(&before.landing);
        if !is_killed(&place, &point.to_string(), &["rerun", "--stale"]) {
            break;
        }
        // a run in between must keep the balance, whatever was done
        if point % 3 == 0 {
            place.run();
        }
        place.medallion(&["rerun", "--stale"]).ok();
        Contents::of(&place).assert_equals(&expected, &format!("rerun killed at {point}"));
        assert_nothing_is_left(&place);
        point += 1;
    }
    assert!(point >= 10, "only {point} kill points");
}

#[test]
fn the_reference_project_with_another_rule_and_another_taxonomy_is_mended() {
    let place = Place::copied_reference();
    place.land(&data::reference());
    place.run();
    let rules = std::fs::read_to_string(place.project.join("sql/bronze/usage_events.toml")).unwrap();
    let changed = rules.replace("-0.01", "-5.00");
    assert_ne!(rules, changed);
    std::fs::write(place.project.join("sql/bronze/usage_events.toml"), changed).unwrap();
    let regions = place.project.join("sql/reference/region_codes.csv");
    let text = std::fs::read_to_string(&regions).unwrap();
    std::fs::write(
        &regions,
        format!("{}mars,us-east-1\n", text.replace("us-east,us-east-1", "us-east,us-west-1")),
    )
    .unwrap();
    place.medallion(&["rerun", "--stale"]).ok();
    Contents::of(&place).assert_equals(&fresh(&place), "rerun --stale");
    assert_nothing_is_left(&place);
}

#[test]
fn what_makes_no_sense_is_told() {
    let place = filled();
    place.medallion(&["rerun"]).expect(2).tells(&["--stale"]);
    place.medallion(&["rerun", "--stale", "--max-partitions", "0"]).expect(2).tells(&["--max-partitions"]);
    place.medallion(&["rerun", "--from", "2025-08-02", "--to", "2025-08-01"]).expect(2).tells(&["is after"]);
    place
        .medallion(&["rerun", "--select", "gold.nothing"])
        .expect(2)
        .tells(&["`gold.nothing`", "gold.daily"]);
    let lock = std::fs::File::options().write(true).open(place.lake.join("_medallion.lock")).unwrap();
    lock.lock().unwrap();
    place.medallion(&["rerun", "--stale"]).expect(5).tells(&["another run holds the lake"]);
    place.medallion(&["rerun", "--stale", "--dry-run"]).ok();
}

/// Changes of dates that nobody reads concern a table as little after a thousand commits as after one: it says that it
/// has seen them, or every status would read a thousand log entries.
#[test]
fn a_table_that_changes_do_not_concern_says_so_now_and_then() {
    let place = mini::place();
    write(
        &place.project.join("sql/gold/before.sql"),
        b"select site, cast(date + interval '1 day' as date) as day, count(*) as readings\nfrom silver.readings\ngroup by 1, 2\n",
    );
    write(
        &place.project.join("sql/gold/before.toml"),
        b"description = \"Of the day before.\"\nkey = [\"site\", \"day\"]\npartition = [\"day\"]\n\
          dates_of = \"silver.readings\"\ninputs.\"silver.readings\" = { days_before = [1, 1] }\n",
    );
    let land = |id: &str, day: u32| {
        place.land([&mini::readings(&format!("{id}.jsonl"), &[mini::reading(id, day, "1")])])
    };
    for number in 0..40 {
        land(&number.to_string(), 9);
        place.run();
    }
    place.run_idle();
    let entries = |table: &str| -> Vec<String> {
        let folder = place.lake.join(table).join("_delta_log");
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    };
    assert_eq!(entries("silver/readings").len(), 40);
    let said = entries("gold/before");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[1].contains("\"appId\":\"silver.readings\",\"version\":32"), "{}", said[1]);
    assert!(!said[1].contains("\"add\""), "{}", said[1]);
    // and what it has seen is not forgotten
    land("tenth", 10);
    place.run();
    assert_eq!(place.value("select readings from gold.before where day = '2025-08-10'"), "40");
    Contents::of(&place).assert_equals(&fresh(&place), "day by day");
    place.run_idle();
}
