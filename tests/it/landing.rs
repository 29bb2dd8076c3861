//! What lands, however odd, costs what it must and no more, and nothing is read that should not be.

use std::fs;

use crate::data::{Landed, gzip};
use crate::mini::{self, reading, readings};
use crate::support::{Done, Place, set_modified};

#[test]
fn a_changed_file_is_a_problem_and_is_not_ingested() {
    let place = mini::place();
    place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
    place.run();
    let changed = Landed { modified: 1_757_900_000, ..readings("a.jsonl", &[reading("2", 1, "22")]) };
    place.land([&changed, &readings("b.jsonl", &[reading("3", 1, "3")])]);
    place.medallion(&["run"]).expect(4).tells(&["landing file changed", "`readings/a.jsonl`"]);
    let ids = place.value("select string_agg(id, ',' order by id) as ids from silver.readings");
    assert_eq!(ids, "1,3", "the old content and the other file");
    place.medallion(&["run"]).expect(4).tells(&["landing file changed"]);
    place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
    place.run_idle();
}

#[test]
fn a_file_of_the_same_size_and_other_content_is_seen_by_its_time() {
    let place = mini::place();
    place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
    place.run();
    place.land([&Landed { modified: 1_757_894_401, ..readings("a.jsonl", &[reading("1", 1, "2")]) }]);
    place.medallion(&["run"]).expect(4).tells(&["landing file changed"]);
}

#[test]
fn a_touched_file_is_no_problem() {
    let place = mini::place();
    place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
    place.run();
    set_modified(&place.landing.join("readings/a.jsonl"), 1_760_000_000);
    place.run_idle();
}

#[cfg(unix)]
#[test]
fn symlinks_are_refused_and_the_others_taken_in() {
    let place = mini::place();
    place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
    let secret = place.folder().join("secret.jsonl");
    fs::write(&secret, reading("secret", 1, "9")).unwrap();
    std::os::unix::fs::symlink(&secret, place.landing.join("readings/link.jsonl")).unwrap();
    std::os::unix::fs::symlink("/nowhere", place.landing.join("readings/dangling.jsonl")).unwrap();
    place.medallion(&["run"]).expect(4).tells(&["`readings/link.jsonl`", "symlink"]);
    assert_eq!(place.value("select string_agg(id, ',') as ids from silver.readings"), "1");
}

#[cfg(unix)]
#[test]
fn a_linked_folder_is_refused_too() {
    let place = mini::place();
    place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
    let outside = place.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("sites_x.csv"), "site,name,opened\nx,X,2024-01-01\n").unwrap();
    fs::rename(place.landing.join("readings"), outside.join("readings")).unwrap();
    std::os::unix::fs::symlink(outside.join("readings"), place.landing.join("readings")).unwrap();
    place.medallion(&["run"]);
    let read = place.sql("select * from ledger.files");
    assert!(read.is_empty(), "nothing behind a link is read: {read:?}");
}

#[test]
fn unfinished_names_are_ignored_until_they_are_renamed() {
    let place = mini::place();
    let line = [reading("1", 1, "1")];
    let names = [".hidden.jsonl", "_part.jsonl", "c.jsonl.tmp"];
    let files = names.map(|name| readings(name, &line));
    place.land(&files);
    place.land([&Landed::new("_staging/readings/d.jsonl", "x"), &Landed::new("readme.txt", "hello")]);
    place.run();
    place.run_idle();
    assert_eq!(place.sql("select * from ledger.files"), Vec::<serde_json::Value>::new());
    fs::rename(place.landing.join("readings/c.jsonl.tmp"), place.landing.join("readings/c.jsonl")).unwrap();
    place.run();
    assert_eq!(place.records("readings"), [1, 1, 0, 0, 0]);
}

#[test]
fn gzip_and_zstd_are_read_and_one_content_in_three_forms_is_duplicates() {
    let place = mini::place();
    let plain = readings("a.jsonl", &[reading("1", 1, "1"), reading("2", 2, "2")]);
    // two members in one file, as `cat a.gz b.gz` makes it
    let (first, second) = plain.bytes.split_at(30);
    let packed = [gzip(first), gzip(second)].concat();
    let zstd = zstd::stream::encode_all(plain.bytes.as_slice(), 3).unwrap();
    place.land([&Landed::new("readings/b.jsonl.gz", packed), &Landed::new("readings/c.jsonl.zst", zstd)]);
    place.run();
    assert_eq!(place.records("readings"), [4, 2, 2, 0, 0]);
    place.land([&plain]);
    place.run();
    assert_eq!(place.records("readings"), [6, 2, 4, 0, 0]);
}

#[test]
fn a_damaged_compressed_file_costs_its_rest_only() {
    let lines: Vec<String> = (0..2000)
        .map(|n| reading(&format!("{n}-{}", n * 7919 % 1_000_003), 1, &format!("{n}.{:03}", n * 31 % 997)))
        .collect();
    let whole = readings("a.jsonl", &lines).bytes;
    let torn = |packed: Vec<u8>| packed[..packed.len() / 2].to_vec();
    let mut flipped = gzip(&whole);
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].fill(0xAA);
    let files = [
        ("torn.jsonl.gz", torn(gzip(&whole))),
        ("flipped.jsonl.gz", flipped),
        ("torn.jsonl.zst", torn(zstd::stream::encode_all(whole.as_slice(), 3).unwrap())),
        ("no_gzip.jsonl.gz", b"this is no gzip".to_vec()),
        ("empty.jsonl.gz", Vec::new()),
    ];
    for (name, bytes) in files {
        let place = mini::place();
        place.land([&Landed::new(&format!("readings/{name}"), bytes)]);
        place.land([&readings("good.jsonl", &[reading("good", 1, "1")])]);
        place.run();
        let refused = place.quarantined("readings");
        assert!(refused.iter().all(|record| record.error_type == "malformed"), "{name}: {refused:?}");
        // the torn record at the end, and one that stands for all that could not be unpacked
        let is_flipped = name.starts_with("flipped"); // unpacks to garbage before its checksum shows
        assert!(is_flipped || refused.len() <= 2, "{name}: {refused:?}");
        assert!(name.starts_with("empty") || !refused.is_empty(), "{name}: the damage is not told");
        let [landed, accepted, duplicates, _, quarantined] = place.records("readings");
        assert_eq!((landed, duplicates), (accepted + quarantined, 0), "{name}");
        assert_eq!(place.value("select count(*) from silver.readings where id = 'good'"), "1", "{name}");
    }
}

#[test]
fn what_was_read_before_the_damage_is_kept() {
    let lines: Vec<String> =
        (0..20_000).map(|n| reading(&format!("id{}", n * 7919 % 1_000_003), 1, "1")).collect();
    let packed = gzip(&readings("a.jsonl", &lines).bytes);
    let place = mini::place();
    place.land([&Landed::new("readings/torn.jsonl.gz", &packed[..packed.len() * 3 / 4])]);
    place.run();
    let [_, accepted, ..] = place.records("readings");
    assert!(accepted > 10_000, "three quarters of the file are whole, {accepted} of 20000 records are kept");
}

#[test]
fn what_a_compressed_file_really_is_is_told() {
    let [one, two] = ["1", "2"].map(|id| format!("{}\n", reading(id, 1, "1")).into_bytes());
    let packed = gzip(&one);
    let files = [
        (
            "plain.jsonl.gz",
            one.clone(),
            0,
            "is no gzip, as its name says: it begins with the bytes 7b 22 69 64",
        ),
        (
            "plain.jsonl.zst",
            one.clone(),
            0,
            "is no zstd, as its name says: it begins with the bytes 7b 22 69 64",
        ),
        (
            "tail.jsonl.gz",
            [&packed[..], b"and more"].concat(),
            1,
            "something that is no gzip comes after the first",
        ),
        ("short_tail.jsonl.gz", [&packed[..], b"x"].concat(), 1, "it begins with the bytes 78"),
        ("torn.jsonl.gz", [&packed[..], &gzip(&two)[..10]].concat(), 1, "ends too early: its"),
        ("padded.jsonl.gz", [&packed[..], &[0; 512], &gzip(&two)[..], &[0; 3]].concat(), 2, ""),
    ];
    for (name, bytes, num_read, why) in files {
        let place = mini::place();
        place.land([&Landed::new(&format!("readings/{name}"), bytes)]);
        place.run();
        let refused = place.quarantined("readings");
        assert_eq!(refused.len(), usize::from(!why.is_empty()), "{name}: {refused:?}");
        assert!(refused.iter().all(|record| record.reason.contains(why)), "{name}: {refused:?}");
        let num_refused = refused.len() as i64;
        assert_eq!(
            place.records("readings"),
            [num_read + num_refused, num_read, 0, 0, num_refused],
            "{name}"
        );
    }
}

#[test]
fn a_bomb_of_tiny_records_is_one_refused_file() {
    let place = mini::place();
    let bomb = gzip(&b"tiny\n".repeat(2_000_000));
    let num_bytes = bomb.len();
    // as compressible as data may be
    let lines: Vec<String> = (0..60_000).map(|n| reading(&(n / 4).to_string(), 1, "1")).collect();
    let packed = gzip(&readings("a.jsonl", &lines).bytes);
    place.land([
        &Landed::new("readings/bomb.jsonl.gz", bomb),
        &Landed::new("readings/meant.jsonl.gz", packed),
    ]);
    place.run();
    let refused = place.quarantined("readings");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].reason.contains("unpacks to more than 200 times its size"), "{refused:?}");
    assert!(refused[0].reason.contains("none of it was read"), "{refused:?}");
    assert_eq!(place.records("readings"), [60_001, 15_000, 45_000, 0, 1]);
    let shown = place.medallion(&["quarantine", "show"]).ok();
    assert!(
        shown.starts_with("readings/bomb.jsonl.gz:0 ") && shown.contains("its bytes are in the landing file")
    );
    let raw_bytes = place.value("select raw_bytes from quarantine.readings");
    assert_eq!(raw_bytes, num_bytes.to_string());
    // whoever means it raises the limit, and is told which file's records are refused
    place.edit("medallion.toml", "[limits]", "[limits]\nunpacked_ratio = 5000");
    let long = format!("{}\n", "x".repeat(49)).repeat(100_000);
    place.land([&Landed::new("readings/again.jsonl.gz", gzip(long.as_bytes()))]);
    let told = Done::of(place.told_command(&["run"]).output().unwrap()).stderr;
    assert!(told.contains("of 100000 records in `readings/again.jsonl.gz` 100000 are refused"), "{told}");
    assert_eq!(place.value("select count(*) from quarantine.readings"), "100001");
}

#[test]
fn a_compression_bomb_is_cut_off() {
    let place = mini::place();
    place.edit("medallion.toml", "[limits]", "[limits]\nunpacked_ratio = 5000");
    let mut bomb = format!("{}\n", reading("1", 1, "1")).into_bytes();
    bomb.extend(std::iter::repeat_n(b"\n".as_slice(), 20_000_000).flatten());
    place.land([&Landed::new("readings/bomb.jsonl.gz", gzip(&bomb))]);
    place.run();
    let refused = place.quarantined("readings");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].reason.contains("unpacks to more than 8000000 bytes"), "{refused:?}");
    assert_eq!(place.records("readings"), [2, 1, 0, 0, 1]);
}

#[test]
fn byte_order_marks_carriage_returns_blank_lines_and_a_missing_last_line_end_cost_nothing() {
    let place = mini::place();
    let [one, two, three] = [1, 2, 3].map(|n| reading(&n.to_string(), 1, "1"));
    place.land([
        &Landed::new("readings/a.jsonl", format!("\u{feff}{one}\r\n\r\n \t \r\n{two}\r\n\n{three}")),
        &Landed::new("sites.csv", "\u{feff}site,name,opened\r\n\r\nnorth,\"No\r\nrth\",2024-01-01"),
    ]);
    place.run();
    assert_eq!(place.records("readings"), [3, 3, 0, 0, 0]);
    assert_eq!(place.records("sites"), [1, 1, 0, 0, 0]);
    assert_eq!(place.value("select source_line from silver.readings where id = '3'"), "6");
    assert_eq!(place.sql("select name from silver.sites")[0]["name"], "No\r\nrth");
}

/// Lands a bad line between two good ones, and at the end of a file; exactly that line is refused, with its bytes.
fn costs_one_record(name: &str, bad: &[u8]) -> Vec<String> {
    let place = mini::place();
    let (one, two) = (reading("1", 1, "1"), reading("2", 1, "2"));
    let middle = [one.as_bytes(), b"\n", bad, b"\r\n", two.as_bytes(), b"\n"].concat();
    let last = [one.as_bytes(), b"\n", bad].concat();
    place
        .land([&Landed::new("readings/a_middle.jsonl", middle), &Landed::new("readings/b_last.jsonl", last)]);
    place.run();
    let refused = place.quarantined("readings");
    let mut wrong = Vec::new();
    if place.records("readings") != [5, 2, 1, 0, 2] {
        wrong.push(format!("{name}: records are {:?}", place.records("readings")));
    }
    for (record, file) in refused.iter().zip(["readings/a_middle.jsonl", "readings/b_last.jsonl"]) {
        if (record.error_type.as_str(), record.file.as_str(), record.line) != ("malformed", file, 2) {
            wrong.push(format!("{name}: refused is {} {}:{}", record.error_type, record.file, record.line));
        }
        if record.raw != bad {
            wrong.push(format!(
                "{name}: {} raw bytes came back, not the {} landed",
                record.raw.len(),
                bad.len()
            ));
        }
        if record.raw_bytes != i64::try_from(bad.len()).unwrap() {
            wrong.push(format!("{name}: raw_bytes is {}", record.raw_bytes));
        }
    }
    wrong
}

#[test]
fn every_malformed_line_costs_one_record_and_its_bytes_come_back() {
    let good = reading("x", 1, "1");
    let within = |more: &str| good.replacen("{\"id\"", &format!("{{{more},\"id\""), 1).into_bytes();
    let bomb = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("torn", good.as_bytes()[..40].to_vec()),
        ("garbage", b"\x1b[2J<html>; drop table".to_vec()),
        ("nesting bomb", within(&format!("\"deep\":{bomb}"))),
        ("open nesting bomb", "{\"a\":".repeat(100_000).into_bytes()),
        ("NULs", vec![0; 300]),
        ("a NUL in a text", within("\"note\":\"a\0b\"")),
        ("invalid UTF-8", [&b"{\"id\":\"\xff\xfe\","[..], &good.as_bytes()[8..]].concat()),
        ("a lone surrogate half", b"{\"id\":\"\xed\xa0\x80\"}".to_vec()),
        ("two objects", format!("{good}{good}").into_bytes()),
        ("an array", format!("[{good}]").into_bytes()),
        ("a key twice", within("\"site\":\"south\"")),
        ("NaN", good.replace(":1}", ":NaN}").into_bytes()),
    ];
    let wrong: Vec<String> = cases.iter().flat_map(|(name, bad)| costs_one_record(name, bad)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_line_beyond_the_limit_costs_one_record_and_its_bytes_come_back() {
    let note = "long ".repeat(300_000);
    let line = reading("x", 1, "1").replacen("{\"id\"", &format!("{{\"note\":\"{note}\",\"id\""), 1);
    let wrong = costs_one_record("1.5 MB", line.as_bytes());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn broken_csv_records_cost_one_record_each() {
    let place = mini::place();
    let lines: [&[u8]; 8] = [
        b"site,name,opened",
        b"a,A,2024-01-01",
        b"b,\"open,2024-01-01",
        b"c,C,2024-01-01,more",
        b"d,\"x\"y,2024-01-01",
        b"e,\xff,2024-01-01",
        b"f,F",
        b"g,G,2024-01-01",
    ];
    place.land([&Landed::new("sites_2025-08-01.csv", lines.join(&b"\r\n"[..]))]);
    place.run();
    let refused = place.quarantined("sites");
    let found: Vec<(i64, &[u8])> =
        refused.iter().map(|record| (record.line, record.raw.as_slice())).collect();
    let expected: Vec<(i64, &[u8])> = (3..=7).zip(lines[2..7].iter().copied()).collect();
    assert_eq!(found, expected);
    assert_eq!(place.records("sites"), [7, 2, 0, 0, 5]);
}

#[test]
fn a_csv_file_without_a_declared_column_is_refused_whole() {
    let place = mini::place();
    place.land([
        &Landed::new("sites_1.csv", "site,opened\na,2024-01-01\nb,2024-01-01\n"),
        &Landed::new("sites_2.csv", "site,site,name,opened\na,a,A,2024-01-01\n"),
        &Landed::new("sites_3.csv", "opened,more,name,site\n2024-01-01,!,C,c\n"),
    ]);
    place.run();
    assert_eq!(place.records("sites"), [4, 1, 0, 0, 3]);
    assert_eq!(place.value("select _rescued from bronze.sites"), "{\"more\":\"!\"}");
}

#[test]
fn raw_bytes_of_records_that_silver_refused_come_back_too() {
    let place = mini::place();
    let lines = [reading("1", 1, "-1"), reading("2", 1, "2"), reading("2", 1, "3")];
    place.land([&readings("a.jsonl", &lines)]);
    place.run();
    let assert_all_there = |place: &Place| {
        let refused = place.quarantined("readings");
        let found: Vec<(&str, &[u8])> =
            refused.iter().map(|record| (record.error_type.as_str(), record.raw.as_slice())).collect();
        assert_eq!(found, [("negative", lines[0].as_bytes()), ("duplicate_conflict", lines[2].as_bytes())]);
    };
    assert_all_there(&place);
    // the date is decided again when its landing file is long gone
    fs::remove_file(place.landing.join("readings/a.jsonl")).unwrap();
    place.land([&readings("b.jsonl", &[reading("9", 1, "9")])]);
    place.run();
    assert_all_there(&place);
    place.medallion(&["run", "--full-refresh"]).ok();
    assert_all_there(&place);
}

#[test]
fn hostile_file_names_are_read_or_told_and_never_break_out() {
    let place = mini::place();
    let names = ["a b.jsonl", "ü%2e%2e.jsonl", "';drop table x;--.jsonl", "a=1&b=2#c.jsonl"];
    for (at, name) in names.iter().enumerate() {
        place.land([&readings(name, &[reading(&at.to_string(), 1, "1")])]);
    }
    place.run();
    assert_eq!(place.records("readings"), [4, 4, 0, 0, 0]);
    let files = place.sql("select source_file from silver.readings order by id");
    let found: Vec<&str> = files.iter().map(|row| row["source_file"].as_str().unwrap()).collect();
    assert_eq!(found, names.map(|name| format!("readings/{name}")));
    place.run_idle();
}

#[cfg(unix)]
#[test]
fn an_odd_name_is_refused_and_the_others_taken_in() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    for command in [&["run"][..], &["stream", "--until-idle"]] {
        let place = mini::place();
        place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
        let odd: [&[u8]; 3] = [b"readings/b\x1b[2J\n.jsonl", b"of no source\xff", b"_staging\n"];
        for name in odd {
            fs::write(place.landing.join(OsStr::from_bytes(name)), reading("2", 1, "2")).unwrap();
        }
        let done = place.medallion(command).expect(4);
        assert!(!done.stderr.contains("_staging"), "what is being written is not looked at: {}", done.stderr);
        done.tells(&["`readings/b\\u{1b}[2J\\n.jsonl`", "`of no source\\xff`", "rename it"]);
        assert_eq!(place.value("select string_agg(id, ',') as ids from silver.readings"), "1", "{command:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_a_folder_is_refused_where_files_could_lie_behind_it() {
    let place = mini::place();
    place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
    let outside = place.folder().join("outside");
    fs::rename(place.landing.join("readings"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, place.landing.join("latest")).unwrap();
    place.run();
    std::os::unix::fs::symlink(&outside, place.landing.join("readings")).unwrap();
    place.medallion(&["run"]).expect(4).tells(&["`readings` is refused", "symlink"]);
}

#[cfg(unix)]
#[test]
fn the_report_says_what_is_not_taken_in() {
    let place = mini::place();
    place.land([&readings("a.jsonl", &[reading("1", 1, "1")])]);
    place.run();
    let changed = Landed { modified: 1_757_900_000, ..readings("a.jsonl", &[reading("2", 1, "22")]) };
    place.land([&changed, &Landed::new("notes.txt", "hello"), &Landed::new("deep/other.csv", "x")]);
    std::os::unix::fs::symlink("/nowhere", place.landing.join("readings/link.jsonl")).unwrap();
    for command in [&["run"][..], &["stream", "--until-idle"]] {
        let told = place.medallion(command).expect(4).stdout;
        for text in [
            "NOT TAKEN IN",
            "readings/a.jsonl: other content",
            "readings/link.jsonl: it is a symlink",
            "of no source: 2 files (deep/other.csv, notes.txt)",
        ] {
            assert!(told.contains(text), "`{text}` is missing in:\n{told}");
        }
    }
    let done = place.medallion(&["--format", "json", "run"]).expect(4);
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["refused_files"][0]["path"], "readings/link.jsonl", "{report}");
    assert_eq!(report["changed_files"][0]["path"], "readings/a.jsonl", "{report}");
    assert_eq!(report["unclaimed_files"], 2, "{report}");
    assert_eq!(report["unclaimed"][1], "notes.txt", "{report}");
    assert_eq!(report["gone_files"], 0, "{report}");
    std::fs::remove_file(place.landing.join("readings/a.jsonl")).unwrap();
    let told = place.medallion(&["run"]).expect(4).stdout;
    assert!(
        told.contains("taken in and gone from landing since: 1 file (readings/a.jsonl); put them back"),
        "{told}"
    );
}
