//! Whatever is lost of a lake is found, and what the doctor says to do about it does mend it.

use std::path::{Path, PathBuf};

use crate::mini;
use crate::support::{Contents, Done, Place, active_files, copy_folder};

/// A lake of three runs: silver and gold are at version 2, bronze has taken in three batches.
fn filled() -> Place {
    let place = mini::place();
    for batch in mini::batches() {
        place.land(&batch);
        place.run();
    }
    place.land([&mini::readings("c.jsonl", &[mini::reading("6", 3, "2"), mini::reading("7", 4, "3")])]);
    place.run();
    place
}

fn copy_of(sound: &Place) -> Place {
    let mut place = Place::of(&sound.project);
    copy_folder(&sound.lake, &place.lake);
    place.landing.clone_from(&sound.landing);
    place
}

fn remove_table(place: &Place, table: &str) {
    std::fs::remove_dir_all(place.lake.join(table)).unwrap();
}

fn newest_entry(place: &Place, table: &str) -> PathBuf {
    let entries = std::fs::read_dir(place.lake.join(table).join("_delta_log")).unwrap();
    let json = entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "json");
    json.max().unwrap()
}

fn remove_newest(place: &Place, table: &str) {
    std::fs::remove_file(newest_entry(place, table)).unwrap();
}

/// Any data file of the newest version, and the date of its partition.
fn a_file(place: &Place, table: &str) -> (PathBuf, Option<String>) {
    let folder = place.lake.join(table);
    let (path, partition) = active_files(&folder).into_iter().next().unwrap();
    let date = partition.as_object().and_then(|values| values.values().next()?.as_str().map(str::to_owned));
    (folder.join(path), date)
}

/// The size stays, the content does not.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[4..middle].fill(0xff);
    std::fs::write(path, bytes).unwrap();
}

/// One bit of a file; most readers would show another number and say nothing.
fn flip_bit(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// What the doctor says to do about the problems of a table.
#[track_caller]
fn remedies(place: &Place, table: &str) -> Vec<String> {
    let done = place.medallion(&["--format", "json", "doctor", "--deep"]).expect(4);
    let found: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let of_table =
        found.as_array().unwrap().iter().filter(|one| one["kind"] == "problem" && one["table"] == table);
    let remedies: Vec<String> = of_table.map(|one| one["remedy"].as_str().unwrap().to_owned()).collect();
    assert!(!remedies.is_empty(), "nothing about {table} in {found}");
    remedies
}

/// Does what a remedy says: deletes the files and folders that it names to delete, runs the commands that it names.
#[track_caller]
fn follow(place: &Place, remedy: &str) {
    let named: Vec<&str> = remedy.split('`').skip(1).step_by(2).collect();
    if remedy.contains("delete") {
        for path in named.iter().filter(|name| name.contains('/')).map(|name| place.lake.join(name)) {
            match path.is_dir() {
                true => std::fs::remove_dir_all(path).unwrap(),
                false => std::fs::remove_file(path).unwrap(),
            }
        }
    }
    for command in named.iter().filter_map(|name| name.strip_prefix("medallion ")) {
        place.medallion(&command.split(' ').collect::<Vec<_>>()).ok();
    }
}

#[track_caller]
fn assert_sound(place: &Place, expected: &Contents, what: &str) {
    let told = place.medallion(&["doctor", "--deep"]).ok();
    assert!(told.contains("the lake is sound"), "{what}: {told}");
    Contents::of(place).assert_equals(expected, what);
    place.run_idle();
}

#[test]
fn what_was_removed_is_found_and_what_is_said_mends_it() {
    let sound = filled();
    let expected = Contents::of(&sound);
    let tables = [
        "ledger/files",
        "ledger/landed",
        "ledger/decisions",
        "ledger/balances",
        "gold/daily",
        "gold/total",
        "silver/readings",
        "bronze/readings",
    ];
    for table in tables {
        for (how, remove) in [("gone", remove_table as fn(&Place, &str)), ("shorter", remove_newest)] {
            let place = copy_of(&sound);
            remove(&place, table);
            let remedies = remedies(&place, &table.replace('/', "."));
            follow(&place, &remedies[0]);
            assert_sound(&place, &expected, &format!("{table} was {how}: {}", remedies[0]));
        }
    }
    // what is refused by bronze is nowhere else; what is decided is decided again
    let place = copy_of(&sound);
    remove_newest(&place, "quarantine/readings");
    let remedy = remedies(&place, "quarantine.readings").remove(0);
    assert_eq!(remedy, "`medallion run --full-refresh`");
    follow(&place, &remedy);
    assert_sound(&place, &expected, "decisions over readings");
    let place = copy_of(&sound);
    remove_table(&place, "quarantine/readings");
    assert!(remedies(&place, "quarantine.readings")[0].contains("begin a new lake"));
    assert!(remedies(&place, "silver.readings")[0].contains("begin a new lake"));
}

/// Puts a folder of the lake back as it is in another lake.
fn put_back(place: &Place, from: &Place, folder: &str) {
    remove_table(place, folder);
    copy_folder(&from.lake.join(folder), &place.lake.join(folder));
}

/// Runs of which the ledger has two balances: their numbers were given twice.
fn numbers_given_twice(place: &Place) -> String {
    let of_runs =
        "select run_id from ledger.balances group by run_id, scope, source, measure having count(*) > 1";
    place.value(&format!("select count(*) from ({of_runs})"))
}

#[test]
fn a_run_never_gets_the_number_of_one_whose_report_is_lost() {
    let sound = filled();
    let expected = Contents::of(&sound);
    for lost in [1, 2, 3] {
        let place = Place::of(&sound.project);
        copy_folder(&sound.lake, &place.lake);
        copy_folder(&sound.landing, &place.landing);
        match lost {
            3 => remove_table(&place, "ledger/runs"),
            _ => (0..lost).for_each(|_| remove_newest(&place, "ledger/runs")),
        }
        if lost > 1 {
            let remedy = remedies(&place, "ledger.runs").remove(0);
            assert!(place.medallion(&["doctor"]).expect(4).stdout.contains("was written by run 3"));
            follow(&place, &remedy);
        } else {
            // it could as well have been killed
            assert!(place.medallion(&["doctor"]).ok().contains("has not reported"));
            place.run();
        }
        assert!(place.medallion(&["doctor", "--deep"]).ok().contains("the lake is sound"), "{lost}");
        let newest = if lost > 1 { ["4", "5"] } else { ["3", "4"] };
        assert_eq!(place.value("select max(run_id) from ledger.runs"), newest[0], "{lost}");
        assert_sound(&place, &expected, &format!("{lost} reports were lost"));
        place.land([&mini::readings("d.jsonl", &[mini::reading("8", 4, "1")])]);
        place.run();
        assert_eq!(place.value("select max(run_id) from ledger.runs"), newest[1], "{lost}");
        assert_eq!(numbers_given_twice(&place), "0", "{lost}");
        assert!(place.medallion(&["doctor"]).ok().contains("the lake is sound"), "{lost}");
    }
}

/// It could as well have been killed: what it has told of its balance is replaced, not told twice.
#[test]
fn a_run_that_goes_on_from_one_without_a_report_tells_one_balance() {
    let place = filled();
    remove_newest(&place, "ledger/runs");
    place.land([&mini::readings("d.jsonl", &[mini::reading("8", 4, "1")])]);
    place.run();
    assert_eq!(place.value("select max(run_id) from ledger.runs"), "3");
    assert_eq!(numbers_given_twice(&place), "0");
    assert_eq!(place.value("select count(distinct run_id) from ledger.balances"), "3");
    assert_sound(&place, &crate::rerun::fresh(&place), "a run without a report");
}

/// Then a discard is undone by the next run that decides its date, and the number of the next decision was given before.
#[test]
fn a_ledger_put_back_to_before_decisions_is_found() {
    let place = filled();
    let before = copy_of(&place);
    let discard = |error_type: &str| {
        place.medallion(&["quarantine", "discard", "--error-type", error_type, "--reason", "test data"]).ok();
    };
    let discarded = "select count(*) from quarantine.readings where error_type = 'discarded'";
    // refused by a rule: no table but quarantine says so
    discard("negative");
    let expected = Contents::of(&place);
    put_back(&place, &before, "ledger");
    assert!(remedies(&place, "ledger.interventions")[0].contains("decide again"));
    assert!(
        place.medallion(&["doctor"]).expect(4).stdout.contains("decision 1 over refused records is lost")
    );
    // what quarantine still shows is recorded again
    let again = copy_of(&place);
    again.medallion(&["quarantine", "discard", "--error-type", "discarded", "--reason", "test data"]).ok();
    assert_sound(&again, &expected, "discarded again");
    assert_eq!(again.value("select count(*) from ledger.interventions where error_type = 'discarded'"), "2");
    again.medallion(&["run", "--full-refresh"]).ok();
    assert_sound(&again, &expected, "discarded again, and refreshed");
    let told = place.medallion(&["run", "--full-refresh"]).ok();
    assert!(told.contains("decisions over refused records are lost"), "{told}");
    assert_eq!(place.value(discarded), "0", "the rules have decided again");
    assert!(place.run().contains("decisions over refused records are lost"), "until they are made again");
    place.medallion(&["doctor"]).expect(4);
    discard("negative");
    assert_sound(&place, &expected, "decided again");
    assert_eq!(place.value("select max(intervention_id) from ledger.interventions"), "2");
    assert_eq!(numbers_given_twice(&place), "0");
    // refused by bronze, several runs and decisions ago
    place.medallion(&["run", "--full-refresh"]).ok();
    discard("malformed");
    let expected = Contents::of(&place);
    assert_eq!(place.value(discarded), "3");
    put_back(&place, &before, "ledger");
    let told = place.medallion(&["doctor"]).expect(4).stdout;
    assert!(told.contains("decisions 1 to 3") && told.contains("the newest report is of run 3"), "{told}");
    place.run();
    place.medallion(&["quarantine", "discard", "--all", "--reason", "test data"]).ok();
    assert_eq!(place.value("select min(intervention_id) from ledger.interventions"), "4");
    assert!(place.medallion(&["doctor"]).ok().contains("the lake is sound"));
    assert_eq!(numbers_given_twice(&place), "0");
    assert_eq!(Contents::of(&place).table("silver/readings"), expected.table("silver/readings"));
}

#[test]
fn a_table_put_back_does_not_hide_the_others_from_status() {
    let place = filled();
    let before = copy_of(&place);
    place.land([&mini::readings("d.jsonl", &[mini::reading("8", 4, "1")])]);
    place.run();
    put_back(&place, &before, "silver/readings");
    for arguments in [&["status"][..], &["status", "--monitor"]] {
        let done = place.medallion(arguments).expect(4);
        assert!(
            done.stdout.contains("bronze.readings") && done.stdout.contains("gold.total"),
            "{}",
            done.stdout
        );
        done.tells(&["`gold.daily` has consumed version 3 of `silver.readings`, which is at version 2 now"]);
    }
    let tables = place.medallion(&["--format", "json", "status"]).expect(4).stdout;
    let tables: serde_json::Value = serde_json::from_str(&tables).unwrap();
    let with_problems = tables.as_array().unwrap().iter().filter(|table| !table["problem"].is_null());
    let names: Vec<&str> = with_problems.map(|table| table["table"].as_str().unwrap()).collect();
    assert_eq!(names, ["gold.daily"]);
    follow(&place, &remedies(&place, "gold.daily")[0]);
    assert_sound(&place, &crate::rerun::fresh(&place), "a table of before");
}

/// Files of a batch that the ledger has lost would share its number with what lands next, which would then never come.
#[test]
fn a_lost_batch_does_not_hide_what_lands_next() {
    let place = filled();
    remove_newest(&place, "ledger/files");
    place.land([&mini::readings("d.jsonl", &[mini::reading("8", 4, "1")])]);
    place.run();
    Contents::of(&place).assert_equals(&crate::rerun::fresh(&place), "a lost batch and a new file");
    assert_eq!(place.value("select max(batch_id) from ledger.files"), "4");
    place.run_idle();
    // a stream knows it, too
    remove_table(&place, "ledger/files");
    place.land([&mini::readings("e.jsonl", &[mini::reading("9", 4, "1")])]);
    place.medallion(&["stream", "--until-idle"]).ok();
    Contents::of(&place).assert_equals(&crate::rerun::fresh(&place), "a lost table and a new file");
    // which files these were is told by landing only
    remove_newest(&place, "ledger/files");
    std::fs::remove_file(place.landing.join("readings/e.jsonl")).unwrap();
    let done = place.medallion(&["run"]).expect(4);
    done.tells(&["`ledger.files` has lost `readings/e.jsonl`", "is gone from landing", "from a backup"]);
}

#[test]
fn each_kind_of_unreadable_file_has_its_own_remedy() {
    let sound = filled();
    let expected = Contents::of(&sound);
    for (table, name) in [("gold/daily", "gold.daily"), ("silver/sites", "silver.sites")] {
        let place = copy_of(&sound);
        std::fs::remove_file(a_file(&place, table).0).unwrap();
        assert_eq!(remedies(&place, name), ["`medallion rerun --missing`"]);
        follow(&place, "`medallion rerun --missing`");
        assert_sound(&place, &expected, &format!("a file of {name} was gone"));

        let place = copy_of(&sound);
        let (file, date) = a_file(&place, table);
        flip(&file);
        let command = match date {
            Some(date) => format!("`medallion rerun --select {name} --from {date} --to {date}`"),
            None => format!("`medallion rerun --select {name}`"),
        };
        assert_eq!(remedies(&place, name), [command.as_str()]);
        follow(&place, &command);
        assert_sound(&place, &expected, &format!("a file of {name} was damaged"));
    }
    for table in ["files", "landed", "decisions", "balances", "runs"] {
        for harm in [|path: &Path| std::fs::remove_file(path).unwrap(), flip] {
            let place = copy_of(&sound);
            harm(&a_file(&place, &format!("ledger/{table}")).0);
            let remedies = remedies(&place, &format!("ledger.{table}"));
            // there is no table of checks in a project without checks
            let remedy = remedies[0].replace("`ledger/checks`", "ledger/checks");
            follow(&place, &remedy);
            assert_sound(&place, &expected, &format!("ledger.{table}: {remedy}"));
        }
    }
    let place = copy_of(&sound);
    flip(&a_file(&place, "bronze/readings").0);
    assert!(remedies(&place, "bronze.readings")[0].contains("begin a new lake"));
}

#[test]
fn a_bit_that_has_changed_is_found_wherever_it_is() {
    let sound = filled();
    let expected = Contents::of(&sound);
    for table in ["gold/daily", "silver/readings", "bronze/readings", "ledger/landed"] {
        let (file, _) = a_file(&sound, table);
        let size = std::fs::metadata(&file).unwrap().len() as usize;
        let name = table.replace('/', ".");
        // compacted files too
        for step in 0..5 {
            let place = copy_of(&sound);
            if step == 0 {
                place.medallion(&["optimize", &name]).ok();
            }
            let (file, date) = a_file(&place, table);
            let size = if step == 0 { std::fs::metadata(&file).unwrap().len() as usize } else { size };
            flip_bit(&file, 4 + step * (size - 9) / 4);
            let remedies = remedies(&place, &name);
            if let ("gold" | "silver", Some(date)) = (table.split_once('/').unwrap().0, date) {
                let command = format!("`medallion rerun --select {name} --from {date} --to {date}`");
                assert_eq!(remedies, [command.as_str()]);
                follow(&place, &command);
                assert_sound(&place, &expected, &format!("bit of byte {step}/4 of {name}"));
            }
        }
    }
}

/// What happens to a table's log.
type Harm = fn(&Path);

#[test]
fn checkpoints_are_looked_at() {
    let place = mini::place();
    for number in 0..20 {
        place.land([&mini::readings(
            &format!("{number}.jsonl"),
            &[mini::reading(&number.to_string(), 1, "1")],
        )]);
        place.run();
    }
    let sound = place;
    let expected = Contents::of(&sound);
    let log = |place: &Place| place.lake.join("gold/daily/_delta_log");
    let checkpoint = "00000000000000000019.checkpoint.parquet";
    assert!(log(&sound).join(checkpoint).try_exists().unwrap());
    // the time of a version that is a checkpoint stands in its entry
    let status = sound.medallion(&["--format", "json", "status"]).json();
    for table in status.as_array().unwrap() {
        assert!(!table["committed"].as_str().unwrap_or_default().starts_with("1970"), "{table}");
    }
    let harms: [(&str, Harm); 4] = [
        ("checkpoint 19 can't be read", |log| flip(&log.join("00000000000000000019.checkpoint.parquet"))),
        ("names checkpoint 19, which is not there", |log| {
            std::fs::remove_file(log.join("00000000000000000019.checkpoint.parquet")).unwrap();
        }),
        ("names version 39, the log ends at 19", |log| {
            std::fs::write(log.join("_last_checkpoint"), r#"{"version":39,"size":3}"#).unwrap();
        }),
        ("`_last_checkpoint` can't be read", |log| {
            std::fs::write(log.join("_last_checkpoint"), "{\"vers").unwrap();
        }),
    ];
    for (what, harm) in harms {
        let place = copy_of(&sound);
        harm(&log(&place));
        let told: Done = place.medallion(&["doctor"]).expect(4);
        assert!(told.stdout.contains(what), "`{what}` is missing in {}", told.stdout);
        // a deleted checkpoint leaves the word about it
        for _ in 0..2 {
            if place.medallion(&["doctor"]).code == Some(0) {
                break;
            }
            for remedy in remedies(&place, "gold.daily") {
                follow(&place, &remedy);
            }
        }
        assert_sound(&place, &expected, what);
    }
}

#[test]
fn a_killed_run_is_told_to_a_monitor() {
    // before bronze, in the middle, and before the report
    for point in ["commit bronze.readings", "commit gold.total", "commit ledger.runs"] {
        let place = mini::place();
        place.land(&mini::batches()[0]);
        assert!(crate::crash::is_killed(&place, point, &["run"]));
        place.medallion(&["status", "--monitor"]).expect(4).tells(&["a run has ended without a report"]);
        // somebody is at work: it may be that run
        let lock = std::fs::File::options().write(true).open(place.lake.join("_medallion.lock")).unwrap();
        lock.lock().unwrap();
        place.medallion(&["status", "--monitor"]).ok();
        lock.unlock().unwrap();
        place.run();
        place.medallion(&["status", "--monitor"]).ok();
    }
    // what needs no report is no killed run
    let place = filled();
    for arguments in [&["optimize"][..], &["restore", "gold.total", "--to", "0", "--only"]] {
        place.medallion(arguments).ok();
        place.medallion(&["status", "--monitor"]).ok();
    }
    std::fs::remove_file(a_file(&place, "gold/total").0).unwrap();
    place.medallion(&["status", "--monitor"]).expect(4).tells(&["files of `gold.total` are gone"]);
}

/// A run says so too, but nobody may have been there to read it, and nothing new may have come since.
#[test]
fn a_monitor_is_told_of_what_was_lost_and_of_landed_files_that_are_wrong() {
    let place = filled();
    let before = copy_of(&place);
    let discard = ["quarantine", "discard", "--error-type", "malformed", "--reason", "test data"];
    // written ahead, and not applied
    assert!(crate::crash::is_killed(&place, "commit quarantine.readings", &discard));
    place.medallion(&["status", "--monitor"]).expect(4).tells(&["intervention 1 is not applied yet"]);
    assert!(place.medallion(&["doctor"]).ok().contains("intervention 1 is not applied yet"));
    place.run();
    place.medallion(&["status", "--monitor"]).ok();
    assert!(!place.medallion(&["doctor"]).ok().contains("not applied"));
    put_back(&place, &before, "ledger");
    let told = ["decision 1 over refused records is lost", "`medallion doctor` says what to do"];
    place.medallion(&["status", "--monitor"]).expect(4).tells(&told);
    place.medallion(&["quarantine", "discard", "--all", "--reason", "test data"]).ok();
    place.medallion(&["status", "--monitor"]).ok();
    // what no other table was made from
    let before = copy_of(&place);
    place.land([&mini::readings("d.jsonl", &[mini::reading("8", 4, "1")])]);
    place.run();
    put_back(&place, &before, "gold/total");
    place.medallion(&["status", "--monitor"]).expect(4).tells(&["`gold.total`: it has lost commits"]);
    place.run();
    place.medallion(&["status", "--monitor"]).ok();
    // nothing new has come, and no run has looked
    place.land([&mini::readings("d.jsonl", &[mini::reading("nine", 4, "1")])]);
    std::os::unix::fs::symlink("/nowhere", place.landing.join("readings/link.jsonl")).unwrap();
    let done = place.medallion(&["status", "--monitor"]).expect(4);
    done.tells(&[
        "landing file changed: `readings/d.jsonl`",
        "landing file `readings/link.jsonl` is refused",
    ]);
    place.medallion(&["status"]).ok();
}
