//! Refused records that an operator lets in, edits or discards: the lake stays a function of what landed and of that.

use serde_json::Value;

use crate::crash::is_killed;
use crate::data::Landed;
use crate::mini;
use crate::rerun::fresh;
use crate::support::{Contents, Place, copy_folder, log_entries};

const RULE: &str = "sql/bronze/readings.toml";

/// Both batches, and a file that sorts before them with what today's contract refuses.
fn filled() -> Place {
    let place = mini::place();
    let no_site = |id: &str, day: u32, amount: &str| {
        mini::reading(id, day, amount).replace("\"site\":\"north\"", "\"site\":null")
    };
    let lines = [
        no_site("s1", 1, "10.5"),
        no_site("4", 2, "4"),
        no_site("1", 1, "77"),
        mini::reading("x", 4, "-9").replace("}", ",\"more\":\"=1+1\"}"),
        "=cmd|' /C calc'!A0".to_owned(),
    ];
    place.land([&mini::readings("0.jsonl", &lines)]);
    for batch in mini::batches() {
        place.land(&batch);
        place.run();
    }
    place
}

/// Lets readings land without a site.
fn mend_the_contract(place: &Place) {
    place.edit(RULE, "name = \"site\", type = \"text\", required = true", "name = \"site\", type = \"text\"");
    place.edit("sql/silver/readings.sql", "r.site, s.name", "coalesce(r.site, '?') as site, s.name");
}

fn count(place: &Place, condition: &str) -> String {
    place.value(&format!("select count(*) from quarantine.readings where {condition}"))
}

#[track_caller]
fn assert_settled(place: &Place, how: &str) {
    let contents = Contents::of(place);
    place.medallion(&["balance"]).ok();
    place.run_idle();
    place.medallion(&["run", "--full-refresh"]).ok();
    Contents::of(place).assert_equals(&contents, &format!("full refresh after {how}"));
}

fn redrive(place: &Place, arguments: &[&str]) -> Value {
    let all = [&["--format", "json", "quarantine", "redrive"], arguments].concat();
    place.medallion(&all).json()["outcome"].take()
}

#[test]
fn records_that_a_mended_contract_accepts_leave_quarantine_for_their_landed_place() {
    let place = filled();
    assert_eq!(count(&place, "error_type = 'missing_required'"), "3");
    let outcome = redrive(&place, &["--error-type", "missing_required"]);
    assert_eq!((&outcome["accepted"], &outcome["refused"]), (&0.into(), &3.into()), "{outcome}");
    mend_the_contract(&place);
    place.medallion(&["rerun", "--stale"]).ok();
    let before = log_entries(&place.lake);
    let told = redrive(&place, &["--error-type", "missing_required", "--dry-run"]);
    assert_eq!(told["accepted"], 3, "{told}");
    assert_eq!(before, log_entries(&place.lake), "a dry run commits nothing");
    let outcome = redrive(&place, &["--error-type", "missing_required"]);
    // the reading 4 of the first file is the first of its key now: the one of the later file is in conflict with it
    assert_eq!((&outcome["chosen"], &outcome["accepted"]), (&3.into(), &3.into()), "{outcome}");
    Contents::of(&place).assert_equals(&fresh(&place), "redriven");
    assert_eq!(place.value("select source_file from silver.readings where id = '1'"), "readings/0.jsonl");
    assert_settled(&place, "a redrive");
    let again = redrive(&place, &["--error-type", "missing_required"]);
    assert_eq!(again["chosen"], 0, "{again}");
}

#[test]
fn records_that_a_mended_rule_accepts_leave_quarantine() {
    let place = filled();
    place.edit(RULE, "amount < 0", "amount < -5");
    let outcome = redrive(&place, &["--error-type", "negative"]);
    assert_eq!((&outcome["chosen"], &outcome["accepted"]), (&3.into(), &2.into()), "{outcome}");
    place.medallion(&["rerun", "--stale"]).ok();
    Contents::of(&place).assert_equals(&fresh(&place), "redriven");
    assert_settled(&place, "a redrive of a rule's records");
}

#[test]
fn an_edited_record_stands_in_for_the_landed_one() {
    let place = filled();
    let patch = place.folder().join("patch.json");
    let patch_path = patch.to_str().unwrap();
    let at =
        ["--file", "readings/a.jsonl", "--line", "4", "--patch", patch_path, "--reason", "torn in transit"];
    // refused itself
    std::fs::write(&patch, "{\"id\":\"torn\"}\n").unwrap();
    let before = log_entries(&place.lake);
    let all = [&["quarantine", "redrive"], &at[..]].concat();
    place.medallion(&all).expect(4).tells(&["`missing_required`"]);
    std::fs::write(&patch, format!("{}\n{}\n", mini::reading("p", 1, "1"), mini::reading("q", 1, "1")))
        .unwrap();
    place.medallion(&all).expect(4).tells(&["expected one record"]);
    assert_eq!(before, log_entries(&place.lake), "nothing was changed");
    // of a record that bronze had refused
    std::fs::write(&patch, format!("{}\n", mini::reading("torn", 2, "12.25"))).unwrap();
    assert_eq!(redrive(&place, &at)["accepted"], 1);
    let torn = "concat(amount, ' ', source_file, ' ', source_line) from silver.readings where id = 'torn'";
    assert_eq!(place.value(&format!("select {torn}")), "12.250000 readings/a.jsonl 4");
    assert_settled(&place, "an edited bronze record");
    // of one that a rule had refused: its place in bronze holds the edited one, the ledger keeps what landed
    std::fs::write(&patch, format!("{}\n", mini::reading("3", 5, "3.25"))).unwrap();
    let outcome = redrive(&place, &["--file", "readings/a.jsonl", "--line", "3", "--patch", patch_path]);
    assert_eq!(outcome["accepted"], 1, "{outcome}");
    let there = "from bronze.readings where source_file = 'readings/a.jsonl' and source_line = 3";
    assert_eq!(place.value(&format!("select count(*) {there}")), "1");
    assert_eq!(place.value("select amount from silver.readings where id = '3'"), "3.250000");
    let kept = "select count(*) from ledger.interventions where action = 'edit' and arrow_cast(raw, 'Utf8') like '%-3.25%'";
    assert_eq!(place.value(kept), "1");
    // one that is edited into what a rule refuses stays refused, with the edited bytes
    std::fs::write(&patch, mini::reading("x", 4, "-8")).unwrap();
    let outcome = redrive(&place, &["--file", "readings/0.jsonl", "--line", "4", "--patch", patch_path]);
    assert_eq!((&outcome["accepted"], &outcome["refused"]), (&0.into(), &1.into()), "{outcome}");
    let refused = place.quarantined("readings");
    let raw =
        &refused.iter().find(|record| record.file == "readings/0.jsonl" && record.line == 4).unwrap().raw;
    assert!(String::from_utf8_lossy(raw).contains("-8"));
    assert_settled(&place, "edited silver records");
    let balance = place.balance();
    assert_eq!(balance["readings amount"][5], "0.000000", "{balance:?}");
    place.medallion(&["quarantine", "redrive", "--source", "readings", "--patch", patch_path]).expect(2);
}

/// A run that was killed between bronze and what the ledger says of its files.
#[test]
fn an_edited_record_of_a_file_that_is_not_reported_yet_costs_no_raw_bytes() {
    let place = mini::place();
    place.land(&mini::batches()[0]);
    assert!(is_killed(&place, "commit ledger.landed", &["run"]));
    let patch = place.folder().join("patch.json");
    std::fs::write(&patch, mini::reading("p", 1, "1")).unwrap();
    let outcome =
        redrive(&place, &["--file", "readings/a.jsonl", "--line", "4", "--patch", patch.to_str().unwrap()]);
    assert_eq!(outcome["accepted"], 1, "{outcome}");
    assert_eq!(place.value("select count(*) from ledger.landed where hash = ''"), "0");
    assert_eq!((count(&place, "stage = 'silver'"), count(&place, "raw_bytes = 0")), ("1".into(), "0".into()));
    assert_settled(&place, "an edit after a kill");
}

#[test]
fn a_csv_record_is_let_in_by_its_files_header() {
    let place = filled();
    let patch = place.folder().join("patch.csv");
    std::fs::write(&patch, "west,\"West, far\",2024-03-01\n").unwrap();
    let outcome = redrive(
        &place,
        &["--source", "sites", "--error-type", "missing_key", "--patch", patch.to_str().unwrap()],
    );
    assert_eq!(outcome["accepted"], 1, "{outcome}");
    assert_eq!(place.value("select name from silver.sites where site = 'west'"), "West, far");
    assert_settled(&place, "a csv record");
    std::fs::remove_file(place.landing.join("sites_2025-07-01.csv")).unwrap();
    place.medallion(&["quarantine", "redrive", "--all", "--dry-run"]).ok();
}

#[test]
fn discarded_records_stay_refused_whatever_rules_come() {
    let place = filled();
    let landed = place.records("readings");
    for (arguments, expected) in [
        (&["--error-type", "negative", "--date", "2025-08-02"][..], "1"),
        (&["--error-type", "malformed"], "3"),
        (&["--error-type", "duplicate_conflict"], "4"),
    ] {
        let all = [&["quarantine", "discard", "--reason", "test data"], arguments].concat();
        place.medallion(&all).ok();
        assert_eq!(count(&place, "error_type = 'discarded'"), expected, "{arguments:?}");
        assert_eq!(place.records("readings"), landed, "the balance counts them where they were counted");
    }
    let shown = place.medallion(&["quarantine", "show", "--error-type", "discarded"]).ok();
    assert!(shown.contains("test data") && shown.contains("torn {"), "{shown}");
    assert_settled(&place, "discards");
    place.edit(RULE, "amount < 0", "amount < -100");
    place.medallion(&["run", "--full-refresh"]).ok();
    assert_eq!(count(&place, "error_type = 'discarded'"), "4");
    assert_eq!(place.value("select count(*) from silver.readings where amount = -3.25"), "0");
    let outcome = redrive(&place, &["--error-type", "discarded"]);
    assert_eq!(outcome["skipped"].as_array().unwrap().len(), 4, "{outcome}");
    place.medallion(&["quarantine", "discard", "--all"]).expect(2);
    place.medallion(&["quarantine", "discard", "--all", "--reason", " "]).expect(2);
    place.medallion(&["quarantine", "discard", "--reason", "x"]).expect(2).tells(&["--all"]);
    assert_eq!(place.value("select count(distinct note) from ledger.interventions"), "1");
}

#[test]
fn who_decides_is_kept_also_where_the_environment_does_not_say() {
    let place = filled();
    let by = |error_type: &str, names: &[(&str, &str)]| {
        let mut command =
            place.command(&["quarantine", "discard", "--error-type", error_type, "--reason", "x"]);
        for name in ["MEDALLION_OPERATOR", "USER", "LOGNAME"] {
            command.env_remove(name);
        }
        command.envs(names.iter().copied());
        crate::support::Done::of(command.output().unwrap()).ok();
        let newest = "(select max(intervention_id) from ledger.interventions)";
        place.value(&format!(
            "select max(operator) from ledger.interventions where intervention_id = {newest}"
        ))
    };
    assert_eq!(by("negative", &[("USER", "ada"), ("MEDALLION_OPERATOR", "grace")]), "grace");
    assert_eq!(by("malformed", &[("LOGNAME", "ada"), ("USER", " ")]), "ada");
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert_eq!(by("missing_required", &[]), format!("uid {uid}"));
}

#[test]
fn a_redrive_or_discard_killed_at_every_point_is_finished_by_the_next_run() {
    let before = filled();
    mend_the_contract(&before);
    before.medallion(&["rerun", "--stale"]).ok();
    for arguments in [
        &["quarantine", "redrive", "--error-type", "missing_required"][..],
        &["quarantine", "discard", "--reason", "none of ours", "--all"],
    ] {
        let copy = || {
            let mut place = Place::of(&before.project);
            copy_folder(&before.lake, &place.lake);
            place.landing.clone_from(&before.landing);
            place
        };
        let whole = copy();
        whole.medallion(arguments).ok();
        let expected = Contents::of(&whole);
        let mut point = 0;
        loop {
            let place = copy();
            if !is_killed(&place, &point.to_string(), arguments) {
                break;
            }
            place.run();
            // killed before it was written ahead, it has not been decided
            if point == 0 {
                place.medallion(arguments).ok();
            }
            Contents::of(&place).assert_equals(&expected, &format!("{arguments:?} killed at {point}"));
            place.medallion(&["balance"]).ok();
            point += 1;
        }
        assert!(point >= 8, "{arguments:?}: only {point} kill points");
    }
}

#[test]
fn exports_keep_the_bytes_and_run_nothing_in_a_spreadsheet() {
    let place = filled();
    let lines = place.medallion(&["quarantine", "export", "--source", "readings"]).ok();
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len().to_string(), count(&place, "true"));
    let bad = records.iter().find(|record| record["source_line"] == 5).unwrap();
    assert_eq!(bad["raw"], "=cmd|' /C calc'!A0");
    let hex: String = "=cmd|' /C calc'!A0".bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(bad["raw_hex"], hex.as_str());
    let out = place.folder().join("refused.csv");
    place.medallion(&["quarantine", "export", "--as", "csv", "--out", out.to_str().unwrap()]).ok();
    let nowhere = place.folder().join("nowhere/export.csv");
    place
        .medallion(&["quarantine", "export", "--out", nowhere.to_str().unwrap()])
        .expect(2)
        .tells(&["can't write", "nowhere/export.csv"]);
    let text = std::fs::read_to_string(out).unwrap();
    assert!(text.contains("\"'=cmd|' /C calc'!A0\""), "{text}");
    for line in text.split("\r\n") {
        for cell in line.split("\",\"") {
            assert!(!cell.trim_start_matches(['"', ' ']).starts_with(['=', '+', '-', '@', '\t']), "{line}");
        }
    }
}

#[test]
fn a_damaged_file_is_no_record_that_could_be_let_in() {
    let place = mini::place();
    let mut bytes = crate::data::gzip(format!("{}\n", mini::reading("1", 1, "1")).repeat(2000).as_bytes());
    bytes.truncate(bytes.len() / 2);
    place.land([&Landed::new("readings/a.jsonl.gz", bytes)]);
    place.medallion(&["run"]);
    let outcome = redrive(&place, &["--all"]);
    assert!(outcome["skipped"][0]["why"].as_str().unwrap().contains("land the file again"), "{outcome}");
}
