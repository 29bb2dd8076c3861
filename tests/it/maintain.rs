//! The past can be asked and gone back to; housekeeping changes no row and takes nothing that is needed.

use serde_json::Value;

use crate::crash::is_killed;
use crate::mini;
use crate::support::{Contents, Place, active_files, copy_folder, log_entries, tables};

/// The first batch is version 0 of silver and gold, the second version 1.
fn filled() -> Place {
    let place = mini::place();
    for batch in mini::batches() {
        place.land(&batch);
        place.run();
    }
    place
}

/// A lake whose bronze came in many small files.
fn in_small_files() -> Place {
    let place = filled();
    for day in 10..16 {
        let lines = [mini::reading(&format!("d{day}"), 1, "1"), mini::reading(&format!("e{day}"), day, "2")];
        place.land([&mini::readings(&format!("day{day}.jsonl"), &lines)]);
        place.run();
    }
    place
}

fn num_files(place: &Place, table: &str) -> usize {
    active_files(&place.lake.join(table)).len()
}

#[test]
fn the_past_can_be_asked_by_version_and_by_time() {
    let place = mini::place();
    let [first, second] = mini::batches();
    place.land(&first);
    place.run();
    let count = "select count(*) as n from silver.readings";
    let before = place.value(count);
    crate::support::pause(std::time::Duration::from_millis(5));
    let between = chrono::Utc::now().to_rfc3339();
    crate::support::pause(std::time::Duration::from_millis(5));
    place.land(&second);
    place.run();
    let now = place.value(count);
    assert_ne!(before, now);
    let asked = |when: &str, query: &str| {
        let text = place.medallion(&["--format", "csv", "sql", "--as-of", when, query]).ok();
        text.lines().nth(1).unwrap_or_default().to_owned()
    };
    for (when, expected) in [("0", &before), ("1", &now), (&between, &before), ("2999-01-01", &now)] {
        assert_eq!(asked(when, count), *expected, "as of {when}");
    }
    place
        .medallion(&["sql", "--as-of", "2000-01-01", count])
        .expect(2)
        .tells(&["there was no `silver.readings` yet; give a later time"]);
    let joined = "select count(*) from silver.readings r join gold.daily d on r.date = d.day";
    let rows_then = asked(&between, joined);
    assert_eq!(rows_then, before, "every table of a query is of that time");
    place.medallion(&["sql", "--as-of", "0", joined]).expect(2).tells(&["give a time"]);
    place.medallion(&["sql", "--as-of", "7", count]).expect(2).tells(&["no version 7", "newest is 1"]);
    place.medallion(&["sql", "--as-of", "soon", count]).expect(2);
    place
        .medallion(&["sql", "--as-of", "0", "select * from accepted.readings"])
        .expect(2)
        .tells(&["no past"]);
}

#[test]
fn differences_of_two_versions_are_told_by_key() {
    let place = filled();
    let diff = place.medallion(&["--format", "json", "diff", "silver.sites", "0", "1"]).json();
    assert_eq!(
        (&diff["added"], &diff["removed"], &diff["changed"]),
        (&1.into(), &0.into(), &1.into()),
        "{diff}"
    );
    let changed =
        diff["differences"].as_array().unwrap().iter().find(|one| one["change"] == "changed").unwrap();
    assert_eq!(changed["key"], Value::from(vec!["north"]));
    assert!(
        changed["columns"].as_array().unwrap().contains(&serde_json::json!(["name", "North", "Far North"])),
        "{changed}"
    );
    let back = place.medallion(&["--format", "json", "diff", "silver.sites", "1", "0"]).json();
    assert_eq!((&back["added"], &back["removed"]), (&0.into(), &1.into()));
    let none = place.medallion(&["--format", "json", "diff", "gold.total", "1", "1"]).json();
    assert_eq!(none["differences"].as_array().unwrap().len(), 0);
    assert!(place.medallion(&["diff", "silver.sites", "0", "1"]).ok().contains("name: North → Far North"));
    place.medallion(&["diff", "silver.sites", "0", "9"]).expect(2);
    for times in [["2000-01-01", "2999-01-01"], ["1", "2000-01-01"]] {
        let arguments = [&["diff", "silver.sites"][..], &times].concat();
        place.medallion(&arguments).expect(2).tells(&["there was no `silver.sites` yet; give a later time"]);
    }
    let cut = ["diff", "silver.sites", "0", "1", "--limit", "1"];
    let told = place.medallion(&cut).ok();
    assert!(told.contains("the first 1 of 2 are shown"), "{told}");
    let told = place.medallion(&[&["--format", "json"], &cut[..]].concat()).json();
    assert_eq!((&told["left_out"], told["differences"].as_array().unwrap().len()), (&1.into(), 1));
    assert_eq!(diff["left_out"], 0);
}

#[test]
fn a_restored_table_stays_and_what_depends_on_it_follows() {
    let place = filled();
    let now = Contents::of(&place);
    let then = place
        .medallion(&["--format", "csv", "sql", "--as-of", "0", "select * from gold.daily order by 1, 2"])
        .ok();
    place.medallion(&["restore", "gold.daily", "--to", "0"]).ok();
    assert_eq!(
        place.medallion(&["--format", "csv", "sql", "select * from gold.daily order by 1, 2"]).ok(),
        then
    );
    assert_eq!(
        place.value("select sum(amount) from gold.total"),
        place.value("select sum(amount) from gold.daily"),
        "the total follows"
    );
    place.run_idle();
    place.medallion(&["rerun", "--select", "gold.daily"]).ok();
    place.medallion(&["restore", "gold.daily", "--to", "1"]).ok();
    Contents::of(&place).assert_equals(&now, "there and back");
    // a zone by time, and the balance says what silver has lost by it
    for zone in ["silver", "gold"] {
        let done = place.medallion(&["restore", zone, "--to", "2000-01-01"]).expect(2);
        done.tells(&[&format!("there was no table of `{zone}` yet; give a later time")]);
    }
    place.medallion(&["restore", "gold.daily", "--to", "2000-01-01"]).expect(2).tells(&["give a later time"]);
    Contents::of(&place).assert_equals(&now, "nothing was there then");
    place.medallion(&["restore", "silver.readings", "--to", "0"]).expect(4).tells(&["balance"]);
    place.medallion(&["run", "--full-refresh"]).ok();
    Contents::of(&place).assert_equals(&now, "refreshed");
    place.medallion(&["restore", "bronze.readings", "--to", "0"]).expect(2);
    for zone in ["bronze", "ledger", "daily"] {
        let done = place.medallion(&["restore", zone, "--to", "2999-01-01"]).expect(2);
        done.tells(&[
            "can't be restored; write a table of silver or gold as `zone.table`, or one of these zones",
        ]);
    }
    place.medallion(&["restore", "gold", "--to", "0"]).expect(2).tells(&["give a time"]);
}

#[test]
fn a_compaction_changes_no_row_and_makes_nothing_dirty() {
    let place = in_small_files();
    let contents = Contents::of(&place);
    let before = num_files(&place, "bronze/readings");
    let told = place.medallion(&["optimize"]).ok();
    assert!(told.contains("bronze.readings") && told.contains("ledger.landed"), "{told}");
    assert!(num_files(&place, "bronze/readings") < before);
    assert_eq!(num_files(&place, "ledger/files"), 1);
    Contents::of(&place).assert_equals(&contents, "optimize");
    place.medallion(&["balance"]).ok();
    assert!(place.medallion(&["runs", "list"]).ok().contains("run"));
    place.run_idle();
    let entries = log_entries(&place.lake);
    assert!(place.medallion(&["optimize"]).ok().contains("no table has small files"));
    assert_eq!(entries, log_entries(&place.lake));
    // the past is there until a vacuum
    assert_eq!(
        place
            .medallion(&[
                "--format",
                "csv",
                "sql",
                "--as-of",
                "0",
                "select count(*) as n from bronze.readings"
            ])
            .ok(),
        "n\n3\n"
    );
    // and the next run goes on from there
    place.land([&mini::readings("more.jsonl", &[mini::reading("more", 1, "1")])]);
    place.run();
    Contents::of(&place).assert_equals(&crate::rerun::fresh(&place), "a run after a compaction");
}

/// Before, `optimize` committed the table as it is declared now, without its description, and did not count the rows.
#[test]
fn a_compaction_leaves_the_table_as_its_log_says() {
    let place = in_small_files();
    let metadata = || {
        let log = place.lake.join("bronze/readings/_delta_log");
        let mut entries: Vec<_> = crate::support::walk(&log)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        entries.sort();
        let lines = entries.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>();
        lines.lines().rev().find(|line| line.contains("\"metaData\"")).unwrap().to_owned()
    };
    let before = metadata();
    assert!(before.contains("What was measured."), "{before}");
    let note = "{ name = \"note\", type = \"text\" },";
    place.edit("sql/bronze/readings.toml", note, &format!("{note} {{ name = \"extra\", type = \"text\" }},"));
    let num_before = num_files(&place, "bronze/readings");
    place.medallion(&["optimize"]).ok();
    assert!(num_files(&place, "bronze/readings") < num_before);
    assert_eq!(metadata(), before);
    place.land([&mini::readings("more.jsonl", &[mini::reading("more", 1, "1")])]);
    place.run();
    assert!(metadata().contains("extra"));
    assert_eq!(place.value("select count(extra) from bronze.readings"), "0");
    assert_eq!(place.value("select count(*) from silver.readings where id = 'more'"), "1");
}

#[test]
fn which_rows_are_stale_stays_known_through_a_compaction() {
    let place = in_small_files();
    place.edit("sql/silver/readings.sql", "r.note,", "coalesce(r.note, 'none') as note,");
    place.land([&mini::readings("more.jsonl", &[mini::reading("more", 2, "1")])]);
    place.run();
    place.medallion(&["optimize"]).ok();
    place.medallion(&["rerun", "--stale"]).ok();
    Contents::of(&place).assert_equals(&crate::rerun::fresh(&place), "stale after a compaction");
}

#[test]
fn a_vacuum_takes_only_what_no_retained_version_needs() {
    let place = in_small_files();
    place.medallion(&["run", "--full-refresh"]).ok();
    place.medallion(&["optimize"]).ok();
    let contents = Contents::of(&place);
    let all = |place: &Place| crate::support::walk(&place.lake).len();
    let before = all(&place);
    let told = place.medallion(&["vacuum"]).ok();
    assert!(told.contains("0 files, 0 bytes"), "nothing is older than a week: {told}");
    let told = place.medallion(&["vacuum", "--older-than", "0s"]).ok();
    assert!(told.contains("could be deleted") && !told.contains("0 files,"), "{told}");
    assert_eq!(all(&place), before, "it only tells");
    let lock = std::fs::File::options().write(true).open(place.lake.join("_medallion.lock")).unwrap();
    lock.lock().unwrap();
    place.medallion(&["vacuum", "--older-than", "0s", "--delete"]).expect(5);
    place.medallion(&["vacuum", "--older-than", "7d", "--delete"]).ok();
    lock.unlock().unwrap();
    place.medallion(&["vacuum", "--older-than", "0s", "--delete"]).ok();
    assert!(all(&place) < before);
    Contents::of(&place).assert_equals(&contents, "vacuum");
    for (name, table) in crate::support::table_folders(&place.lake) {
        let there = crate::support::walk(&table)
            .iter()
            .filter(|path| {
                path.extension().is_some_and(|end| end == "parquet")
                    && !path.components().any(|part| part.as_os_str() == "_delta_log")
            })
            .count();
        assert_eq!(there, active_files(&table).len(), "{name}");
    }
    place.run_idle();
    place.medallion(&["run", "--full-refresh"]).ok();
    Contents::of(&place).assert_equals(&contents, "full refresh after a vacuum");
    place.medallion(&["sql", "--as-of", "0", "select * from silver.readings"]).expect(4).tells(&["vacuum"]);
    place.medallion(&["vacuum", "--older-than", "soon"]).expect(2);
}

#[test]
fn housekeeping_killed_at_every_point_costs_nothing() {
    let before = in_small_files();
    let expected = Contents::of(&before);
    for arguments in [&["optimize"][..], &["gc", "--keep-runs", "2"]] {
        let mut point = 0;
        loop {
            let mut place = Place::of(&before.project);
            copy_folder(&before.lake, &place.lake);
            place.landing.clone_from(&before.landing);
            if !is_killed(&place, &point.to_string(), arguments) {
                break;
            }
            Contents::of(&place).assert_equals(&expected, &format!("{arguments:?} killed at {point}"));
            place.run_idle();
            place.medallion(arguments).ok();
            assert_eq!(tables(&place.lake), tables(&before.lake));
            point += 1;
        }
        assert!(point >= 4, "{arguments:?}: only {point} kill points");
    }
}

#[test]
fn old_runs_are_forgotten_and_the_newest_stay() {
    let place = in_small_files();
    let balance = place.balance();
    place.medallion(&["gc", "--keep-runs", "0"]).expect(2);
    place.medallion(&["gc", "--keep-runs", "3"]).ok();
    let runs = place.medallion(&["--format", "json", "runs", "list"]).json();
    let ids: Vec<i64> = runs.as_array().unwrap().iter().map(|run| run["run_id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!(place.balance(), balance);
    place.run_idle();
    place.land([&mini::readings("more.jsonl", &[mini::reading("more", 1, "1")])]);
    place.run();
    let last = place.medallion(&["--format", "json", "runs", "show"]).json();
    assert!(last["run_id"].as_i64() > Some(ids[0]), "{last}");
    assert!(place.medallion(&["runs", "show"]).ok().contains("gold.total"));
    place.medallion(&["runs", "show", "1"]).expect(2).tells(&["does not know run 1"]);
}

#[test]
fn the_steps_of_runs_are_a_table_and_every_table_names_its_run() {
    let place = filled();
    let steps = place.sql(
        "select step, table_name, scope, partitions, rows_written, landed, quarantined, version, seconds \
         from ledger.steps where run_id = 2 order by step",
    );
    let reported = place.medallion(&["--format", "json", "runs", "show", "2"]).json();
    let reported = reported["report"]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), reported.len());
    for (at, (step, said)) in steps.iter().zip(reported).enumerate() {
        assert_eq!(step["step"], at + 1);
        for (column, key) in [("table_name", "table"), ("rows_written", "rows"), ("scope", "scope")] {
            assert_eq!(step[column], said[key], "{step}");
        }
        assert_eq!(step["version"], 1, "the second commit of each: {step}");
        assert!(step["seconds"].as_f64().unwrap() > 0.0, "{step}");
    }
    let of = |table: &str| steps.iter().find(|step| step["table_name"] == table).unwrap();
    assert_eq!(
        (&of("bronze.readings")["landed"], &of("bronze.readings")["partitions"]),
        (&5.into(), &3.into())
    );
    assert_eq!((&of("gold.total")["partitions"], &of("gold.total")["landed"]), (&1.into(), &Value::Null));
    assert_eq!(
        place.value("select count(*) from ledger.steps where started > finished or started is null"),
        "0"
    );
    let before = place.value("select count(*) from ledger.steps where run_id = 1");
    let then = place.medallion(&[
        "--format",
        "csv",
        "sql",
        "--as-of",
        "0",
        "select count(*) as n from ledger.steps",
    ]);
    assert_eq!(then.ok(), format!("n\n{before}\n"));
    place.medallion(&["sql", "select * from ledger.nothing"]).expect(2).tells(&["runs", "steps"]);
    // every table says which run has changed it last, also after a compaction
    place.medallion(&["optimize"]).ok();
    let status = place.medallion(&["--format", "json", "status"]).json();
    for table in status.as_array().unwrap() {
        let expected = if table["table"] == "quarantine.sites" { 1 } else { 2 };
        assert_eq!(table["run"], expected, "{table}");
    }
}

#[test]
fn a_monitor_is_told_what_a_person_must_look_at() {
    let place = filled();
    place.medallion(&["status", "--monitor"]).ok();
    place.edit("sql/bronze/sites.toml", "mode = \"upserts\"", "mode = \"upserts\"\nfreshness = \"1 hours\"");
    place.medallion(&["status", "--monitor"]).ok();
    place.edit("sql/bronze/sites.toml", "1 hours", "0 seconds");
    place.medallion(&["status", "--monitor"]).expect(4).tells(&["`bronze.sites` is", "it may be 0 s"]);
    place.medallion(&["status"]).ok();
    place.edit("sql/bronze/sites.toml", "0 seconds", "1 days");
    // a run that is stopped by an error is told to the ledger
    place.edit("sql/gold/daily.toml", "key = [\"site\", \"day\"]", "key = [\"site\"]");
    place
        .land([&mini::readings("more.jsonl", &[mini::reading("more", 1, "1"), mini::reading("m2", 2, "1")])]);
    place.medallion(&["run"]).expect(4).tells(&["not unique"]);
    place.medallion(&["status", "--monitor"]).expect(4).tells(&["ended as `error`", "not unique"]);
    let shown = place.medallion(&["runs", "show"]).ok();
    assert!(shown.contains("not unique"), "{shown}");
    let status = place.medallion(&["--format", "json", "status"]).json();
    let waits = status.as_array().unwrap().iter().find(|table| table["table"] == "gold.daily").unwrap();
    assert!(waits["waits"].as_str().unwrap().contains("2025-08-01"), "{waits}");
    place.edit("sql/gold/daily.toml", "key = [\"site\"]", "key = [\"site\", \"day\"]");
    place.medallion(&["rerun", "--failed"]).ok();
    place.medallion(&["status", "--monitor"]).ok();
    place.run_idle();
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let sound = in_small_files();
    let expected = Contents::of(&sound);
    assert!(sound.medallion(&["doctor", "--deep"]).ok().contains("the lake is sound"));
    let copy = || {
        let mut place = Place::of(&sound.project);
        copy_folder(&sound.lake, &place.lake);
        place.landing.clone_from(&sound.landing);
        place
    };
    let first = |table: &str, place: &Place| {
        let folder = place.lake.join(table);
        folder.join(active_files(&folder).into_iter().next().unwrap().0)
    };
    let find = |place: &Place, deep: bool, texts: &[&str]| {
        let arguments = if deep { vec!["doctor", "--deep"] } else { vec!["doctor"] };
        let told = place.medallion(&arguments).expect(4);
        for text in texts {
            assert!(told.stdout.contains(text), "`{text}` is missing in {}", told.stdout);
        }
    };
    // a mart's file is gone: the remedy works
    let place = copy();
    std::fs::remove_file(first("gold/daily", &place)).unwrap();
    find(&place, false, &["gold.daily", "is gone", "medallion rerun --missing"]);
    place.medallion(&["rerun", "--missing"]).ok();
    Contents::of(&place).assert_equals(&expected, "the remedy");
    place.medallion(&["doctor"]).ok();
    // bytes have changed: only reading sees it
    let place = copy();
    let file = first("silver/readings", &place);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[4..middle].fill(0xff);
    std::fs::write(&file, bytes).unwrap();
    place.medallion(&["doctor"]).ok();
    find(
        &place,
        true,
        &[
            "silver.readings",
            "has other bytes than were written",
            "medallion rerun --select silver.readings --from 2025-08-",
        ],
    );
    place
        .medallion(&["rerun", "--from", "2025-08-01", "--to", "2025-08-31", "--select", "silver.readings"])
        .ok();
    Contents::of(&place).assert_equals(&expected, "the remedy for damage");
    // logs
    let entry = |table: &str, version: i64, place: &Place| {
        place.lake.join(table).join(format!("_delta_log/{version:020}.json"))
    };
    let place = copy();
    std::fs::remove_file(entry("bronze/readings", 1, &place)).unwrap();
    find(&place, false, &["bronze.readings", "log entry 1", "backup"]);
    let place = copy();
    std::fs::write(entry("gold/total", 0, &place), "{\"add\":").unwrap();
    find(&place, false, &["gold.total", "log entry 0", "damaged"]);
    // a part of the lake is of an older backup
    let place = copy();
    let newest = |table: &str| {
        std::fs::read_dir(place.lake.join(table).join("_delta_log")).unwrap().count() as i64 - 1
    };
    std::fs::remove_file(entry("silver/readings", newest("silver/readings"), &place)).unwrap();
    find(&place, false, &["gold.daily", "was restored", "--full-refresh"]);
    place.medallion(&["run", "--full-refresh"]).ok();
    Contents::of(&place).assert_equals(&expected, "the remedy for a restored table");
}
