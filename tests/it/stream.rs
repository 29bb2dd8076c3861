//! The stream: however it was cut, stopped, killed and mixed with runs, it leaves what one batch leaves.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::data::{self, Landed, Random};
use crate::mini;
use crate::support::{Contents, Done, Place, pause, reference_lake, set_modified};

/// One file per micro-batch, and no waiting.
pub const SMALL: &str = "[stream]\nbatch_files = 1\npoll = \"20 milliseconds\"\nquiet = \"300 milliseconds\"\n\
                     refresh = \"50 milliseconds\"\nidle = \"200 milliseconds\"\n[limits]";

/// The mini project with a stream of these settings and a watermark.
pub fn streaming(settings: &str) -> Place {
    let place = mini::place();
    place.edit("medallion.toml", "[limits]", settings);
    place.edit(
        "sql/bronze/readings.toml",
        "event_time = \"at\"",
        "event_time = \"at\"\nwatermark_delay = \"2 hours\"",
    );
    place
}

pub fn until_idle(place: &Place) -> String {
    place.medallion(&["stream", "--until-idle"]).ok()
}

/// Lands a file as the contract wants it: written under another name, then renamed.
pub fn land_whole(place: &Place, file: &Landed) {
    let path = place.landing.join(&file.path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let hidden = path.with_file_name(format!(".{}", path.file_name().unwrap().to_string_lossy()));
    fs::write(&hidden, &file.bytes).unwrap();
    set_modified(&hidden, file.modified);
    fs::rename(hidden, path).unwrap();
}

/// A stream that runs until it is told to stop.
pub struct Running(pub Child);

impl Running {
    pub fn start(place: &Place) -> Running {
        let mut command = place.command(&["stream"]);
        Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status();
        assert!(sent.unwrap().success(), "the stream has ended already");
    }

    pub fn end(self) -> Done {
        Done::of(self.0.wait_with_output().unwrap())
    }

    pub fn stop(self) -> Done {
        self.signal("TERM");
        self.end()
    }
}

/// Waits until a query gives the value.
#[track_caller]
pub fn wait_for(place: &Place, query: &str, value: &str) {
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < Duration::from_secs(150) {
        let done = place.medallion(&["--format", "csv", "sql", query]);
        last = done.stdout.lines().nth(1).unwrap_or_default().to_owned();
        if last == value {
            return;
        }
        pause(Duration::from_millis(50));
    }
    panic!("{query}: {last}, expected {value}");
}

/// Files of readings and sites with duplicates, conflicts, dirt and versions, many of one key.
pub fn random_landing(random: &mut Random) -> Vec<Landed> {
    let mut files = Vec::new();
    for number in 0..3 + random.below(5) {
        let mut lines = Vec::new();
        for _ in 0..1 + random.below(8) {
            let (id, day) = (random.below(12).to_string(), 1 + u32::try_from(random.below(4)).unwrap());
            lines.push(match random.below(12) {
                0 => "no json".to_owned(),
                1 => mini::reading("", day, "1"),
                2 => mini::reading(&id, day, "-2.5"),
                3 => mini::reading(&id, day, "7.25"),
                _ => mini::reading(&id, day, &format!("{id}.5")),
            });
        }
        files.push(mini::readings(&format!("{:02}-{number}.jsonl", random.below(50)), &lines));
    }
    for number in 0..1 + random.below(3) {
        let name = random.pick(&["North", "Far North", "N"]);
        let text = format!("site,name,opened\nnorth,{name},2024-01-01\nsouth,South,2024-02-01\n");
        let month = 1 + random.below(9);
        files.push(Landed::new(&format!("sites_2025-{month:02}-01_{number}.csv"), text));
    }
    random.shuffle(&mut files);
    files
}

/// Lands the files in a random order and at random times, while streams, runs and reruns come, go and are killed.
fn assert_schedule(seed: u64) {
    let mut random = Random::new(seed);
    let files = random_landing(&mut random);
    let expected = {
        let place = streaming(SMALL);
        place.land(&files);
        place.run();
        Contents::of(&place)
    };
    let place = streaming(SMALL);
    // nothing but what takes in makes a lake
    place.run();
    let mut told = Vec::new();
    let mut rest = files.as_slice();
    while !rest.is_empty() {
        let (part, later) = rest.split_at(1 + random.below(rest.len()));
        rest = later;
        let action = random.below(8);
        told.push(format!("{} files, action {action}", part.len()));
        match action {
            0 => {
                place.land(part);
                place.run();
            }
            1 => {
                place.land(part);
                until_idle(&place);
            }
            2 | 3 => {
                place.land(part);
                let point = random.below(30).to_string();
                let arguments: &[&str] = if action == 2 { &["stream", "--until-idle"] } else { &["run"] };
                let mut command = place.command(arguments);
                let done = Done::of(command.env("MEDALLION_KILL_AT", &point).output().unwrap());
                assert!(matches!(done.code, None | Some(0)), "{told:?}: {done:?}");
            }
            // what landed waits; whatever else waits is computed
            6 => {
                place.land(part);
                place.medallion(&["rerun", "--from", "2025-08-01", "--to", "2025-08-04"]).ok();
            }
            4 | 7 => {
                let running = Running::start(&place);
                for file in part {
                    pause(Duration::from_millis(random.below(150) as u64));
                    land_whole(&place, file);
                }
                pause(Duration::from_millis(random.below(600) as u64));
                if action == 7 {
                    let day = format!("2025-08-0{}", 1 + random.below(4));
                    place.medallion(&["rerun", "--from", &day, "--to", "2025-08-04", "--wait", "5m"]).ok();
                }
                let done = running.stop();
                // a stream that is told to stop before it listens to signals ends as any process
                assert!(matches!(done.code, None | Some(0)), "{told:?}: {done:?}");
            }
            _ => {
                let mut running = Running::start(&place);
                for file in part {
                    land_whole(&place, file);
                    pause(Duration::from_millis(random.below(100) as u64));
                }
                pause(Duration::from_millis(random.below(1200) as u64));
                running.0.kill().unwrap();
                running.end();
            }
        }
    }
    if random.one_in(2) {
        place.run();
    } else {
        until_idle(&place);
    }
    Contents::of(&place).assert_equals(&expected, &format!("schedule {seed}: {told:?}"));
    place.run_idle();
}

fn assert_schedules(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        assert_schedule(seed);
    }
}

#[test]
fn random_schedules_of_streams_runs_reruns_and_kills_are_one_batch_a() {
    assert_schedules(0..15);
}

#[test]
fn random_schedules_of_streams_runs_reruns_and_kills_are_one_batch_b() {
    assert_schedules(100..115);
}

/// `make soak`: as many more as `MEDALLION_SOAK` says.
#[test]
#[ignore = "takes as long as it is told to: make soak"]
fn soak() {
    let schedules = std::env::var("MEDALLION_SOAK").map_or(300, |text| text.parse().unwrap());
    assert_schedules(1000..1000 + schedules);
}

#[test]
fn a_stream_leaves_the_reference_project_as_one_batch_does() {
    let (_, expected) = reference_lake();
    let place = Place::copied_reference();
    place.edit("medallion.toml", "batch_files = 1000", "batch_files = 2");
    place.land(&data::reference());
    until_idle(&place);
    Contents::of(&place).assert_equals(expected, "micro-batches of two files");
    place.run_idle();
    let before = crate::support::log_entries(&place.lake);
    until_idle(&place);
    assert_eq!(before, crate::support::log_entries(&place.lake), "an idle stream commits nothing");
}

/// What a table's commits say of themselves, the first one first.
fn infos(place: &Place, table: &str) -> Vec<serde_json::Value> {
    let log = place.lake.join(table).join("_delta_log");
    let mut entries: Vec<_> = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    entries.sort();
    let told = entries.iter().flat_map(|path| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect::<Vec<_>>()
    });
    told.filter(|action| !action["commitInfo"].is_null()).map(|action| action["commitInfo"].clone()).collect()
}

/// Log entries of a table by what they did.
fn operations(place: &Place, table: &str) -> Vec<String> {
    infos(place, table)
        .iter()
        .map(|info| {
            let plain = crate::support::plain;
            match plain(&info["operation"]).as_str() {
                "OPTIMIZE" => "compact".to_owned(),
                _ => plain(&info["operationParameters"]["mode"]),
            }
        })
        .collect()
}

/// The reference project's masters, and its events by time, without repeated keys and the future.
fn events_in_order() -> (Vec<Landed>, Vec<String>) {
    let (events, masters): (Vec<Landed>, Vec<Landed>) =
        data::reference().into_iter().partition(|file| file.path.starts_with("usage_events"));
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for file in events.iter().filter(|file| file.path.ends_with(".jsonl")) {
        for line in String::from_utf8_lossy(&file.bytes).trim_start_matches('\u{feff}').lines() {
            if let Ok(event) = serde_json::from_str::<serde_json::Value>(line)
                && let (Some(id), Some(time)) = (event["event_id"].as_str(), event["timestamp"].as_str())
                && time < "2026"
                && known.insert(id.to_owned())
            {
                lines.push((time.to_owned(), line.to_owned()));
            }
        }
    }
    lines.sort();
    (masters, lines.into_iter().map(|(_, line)| line).collect())
}

#[test]
fn a_watch_prints_rows_once_as_they_come() {
    let place = streaming(SMALL);
    crate::support::write(
        &place.project.join("sql/watch/large.sql"),
        b"select id, amount from silver.readings where amount > 5 order by id\n",
    );
    place.land([&mini::readings("before.jsonl", &[mini::reading("0", 8, "9")])]);
    place.run();
    let files = [
        mini::readings("a.jsonl", &[mini::reading("1", 9, "1"), mini::reading("2", 9, "6")]),
        mini::readings("b.jsonl", &[mini::reading("3", 9, "7.5"), mini::reading("4", 9, "2")]),
    ];
    place.land(&files);
    let told = place.medallion(&["--format", "csv", "stream", "--until-idle", "--watch", "large"]).ok();
    let rows: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with(char::is_numeric) && line.contains(','))
        .take(2)
        .collect();
    assert_eq!(rows, ["2,6.000000", "3,7.500000"], "{told}");
    place
        .medallion(&["stream", "--watch", "small"])
        .expect(2)
        .tells(&["unknown watch `small`, known: large"]);
}

#[test]
fn a_landing_that_is_away_for_a_while_is_waited_for() {
    let place = streaming(SMALL);
    let running = Running::start(&place);
    land_whole(&place, &mini::readings("a.jsonl", &[mini::reading("1", 1, "1")]));
    wait_for(&place, "select count(*) from bronze.readings", "1");
    let away = place.folder().join("away");
    fs::rename(&place.landing, &away).unwrap();
    pause(Duration::from_secs(2));
    fs::rename(&away, &place.landing).unwrap();
    land_whole(&place, &mini::readings("b.jsonl", &[mini::reading("2", 1, "1")]));
    wait_for(&place, "select count(*) from silver.readings", "2");
    let done = running.stop().expect(0);
    assert!(done.stderr.contains("nothing is lost, trying again in 1 s"), "{}", done.stderr);
    place.run_idle();
    assert_eq!(place.records("readings"), [2, 2, 0, 0, 0]);
}

fn appends(place: &Place, table: &str) -> usize {
    operations(place, table).iter().filter(|operation| *operation == "Append").count()
}

#[test]
fn events_are_appended_with_the_scores_of_a_batch() {
    let place = Place::copied_reference();
    let (mut files, lines) = events_in_order();
    // the newest events come while the stream runs: their baselines are those of the days before
    let (before, live) = lines.split_at(lines.len() - 8);
    let of = |name: &str, lines: &[String]| {
        Landed::new(&format!("usage_events_stream/{name}.jsonl"), format!("{}\n", lines.join("\n")))
    };
    files.push(of("before", before));
    files.push(of("live_0", &live[..2]));
    place.land(&files);
    let running = Running::start(&place);
    wait_for(&place, "select count(*) from silver.usage_events where source_file like '%live_0%'", "2");
    for (at, two) in live[2..8].chunks(2).enumerate() {
        let file = of(&format!("live_{}", at + 1), two);
        land_whole(&place, &file);
        let query = format!("select count(*) from silver.usage_events where source_file = '{}'", file.path);
        wait_for(&place, &query, "2");
        files.push(file);
    }
    running.stop().ok();
    let batch = Place::reference();
    batch.land(&files);
    batch.run();
    Contents::of(&place).assert_equals(&Contents::of(&batch), "events in order");
    place.run_idle();
    assert!(appends(&place, "silver/usage_events") >= 2, "{:?}", operations(&place, "silver/usage_events"));
}

#[test]
fn small_files_are_compacted_as_the_stream_runs() {
    let place = streaming(SMALL);
    let files: Vec<Landed> = (0..40u64)
        .map(|number| Landed {
            modified: 1_757_000_000 + number,
            ..mini::readings(&format!("{number:02}.jsonl"), &[mini::reading(&number.to_string(), 9, "1.5")])
        })
        .collect();
    let running = Running::start(&place);
    for (at, file) in files.iter().enumerate() {
        land_whole(&place, file);
        if at % 4 == 3 {
            wait_for(&place, "select count(*) from silver.readings", &(at + 1).to_string());
        }
    }
    running.stop().ok();
    let batch = streaming(SMALL);
    batch.land(&files);
    batch.run();
    Contents::of(&place).assert_equals(&Contents::of(&batch), "compacted");
    place.run_idle();
    assert!(appends(&place, "silver/readings") >= 8, "{:?}", operations(&place, "silver/readings"));
    // a day's sums are continued, also over compactions, and not computed from all of its rows each time
    let sums = infos(&place, "gold/daily");
    let continued = sums.iter().filter(|info| info["medallion"]["continued"] == 1).count();
    assert!(continued >= 4, "{sums:#?}");
    for table in ["bronze/readings", "ledger/files"] {
        assert!(operations(&place, table).contains(&"compact".to_owned()), "{table}");
        let active = crate::support::active_files(&place.lake.join(table));
        assert!(active.len() < 26, "{table}: {} files", active.len());
    }
}

#[test]
fn a_key_that_comes_again_is_decided_as_in_a_batch() {
    let place = streaming(SMALL);
    // the same date each time: first new keys, then one again with the same content, one with other, one that landed
    // before its first by path
    let file =
        |name: &str, modified: u64, lines: &[String]| Landed { modified, ..mini::readings(name, lines) };
    let lines = |ids: std::ops::Range<u32>| -> Vec<String> {
        ids.map(|id| mini::reading(&id.to_string(), 9, "1.5")).collect()
    };
    let files = [
        file("b.jsonl", 1_757_000_000, &lines(0..5)),
        file("c.jsonl", 1_757_000_001, &lines(5..9)),
        file("d.jsonl", 1_757_000_002, &lines(8..12)),
        file("e.jsonl", 1_757_000_003, &[mini::reading("3", 9, "7"), mini::reading("20", 9, "-1")]),
        file("a.jsonl", 1_757_000_004, &[mini::reading("1", 9, "4"), mini::reading("21", 9, "2")]),
        file("f.jsonl", 1_757_000_005, &lines(30..33)),
    ];
    place.land(&files);
    until_idle(&place);
    let batch = streaming(SMALL);
    batch.land(&files);
    batch.run();
    Contents::of(&place).assert_equals(&Contents::of(&batch), "keys that come again");
    place.run_idle();
}

#[test]
fn a_stream_killed_at_every_commit_is_continued_by_a_stream() {
    let files = mini::batches().concat();
    let place = streaming(SMALL);
    place.land(&files);
    until_idle(&place);
    let expected = Contents::of(&place);
    let batch = streaming(SMALL);
    batch.land(&files);
    batch.run();
    expected.assert_equals(&Contents::of(&batch), "a stream");
    let mut point = 0;
    loop {
        let place = streaming(SMALL);
        place.land(&files);
        let mut command = place.command(&["stream", "--until-idle"]);
        let done = Done::of(command.env("MEDALLION_KILL_AT", point.to_string()).output().unwrap());
        if done.code.is_some() {
            done.ok();
            break;
        }
        if point % 2 == 0 {
            until_idle(&place);
        } else {
            place.run();
        }
        Contents::of(&place).assert_equals(&expected, &format!("a stream killed at {point}"));
        place.run_idle();
        point += 1;
    }
    assert!(point >= 40, "only {point} kill points");
}

#[test]
fn a_stream_follows_landing_until_it_is_told_to_stop() {
    let place = streaming(SMALL);
    let running = Running::start(&place);
    let files = mini::batches().concat();
    let mut records = 0;
    for file in &files {
        land_whole(&place, file);
        if file.path.starts_with("readings") {
            records += if records == 0 { 3 } else { 4 };
            wait_for(&place, "select count(*) from bronze.readings", &records.to_string());
        }
    }
    // silver and gold follow without being asked
    wait_for(&place, "select count(*) from silver.readings", "3");
    wait_for(&place, "select name from silver.sites where site = 'north'", "Far North");
    place.medallion(&["run"]).expect(5).tells(&["another run holds the lake"]);
    place.medallion(&["stream"]).expect(5).tells(&["a lake has one writer at a time"]);
    land_whole(&place, &mini::readings("last.jsonl", &[mini::reading("last", 9, "1")]));
    wait_for(&place, "select count(*) from bronze.readings where id = 'last'", "1");
    let done = running.stop().expect(0);
    assert!(done.stdout.contains("every landed record is accounted for"), "{}", done.stdout);
    place.run_idle();
    assert_eq!(place.value("select amount from gold.daily where day = '2025-08-09'"), "1.000000");
    let told = place.value("select distinct command from ledger.runs");
    assert_eq!(told, "stream");
}

#[test]
fn a_second_signal_ends_at_once_and_loses_nothing() {
    let (_, expected) = reference_lake();
    let place = Place::reference();
    place.land(&data::reference());
    let running = Running::start(&place);
    // it listens to signals before it opens the lake
    while !place.lake.join("ledger/files/_delta_log").is_dir() {
        pause(Duration::from_millis(5));
    }
    running.signal("INT");
    pause(Duration::from_millis(100));
    running.signal("TERM");
    let begun = Instant::now();
    let done = running.end();
    assert!(matches!(done.code, Some(130)), "{done:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    place.run();
    Contents::of(&place).assert_equals(expected, "ended by a second signal");
}

#[test]
fn a_file_that_still_grows_is_not_taken() {
    let place = streaming(SMALL);
    let running = Running::start(&place);
    let path = place.landing.join("readings/growing.jsonl");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::create(&path).unwrap();
    for number in 0..30 {
        writeln!(file, "{}", mini::reading(&number.to_string(), 1, "1")).unwrap();
        pause(Duration::from_millis(50));
    }
    drop(file);
    wait_for(&place, "select count(*) from bronze.readings", "30");
    // one piece under a hidden name, then renamed
    land_whole(&place, &mini::readings("whole.jsonl", &[mini::reading("whole", 2, "1")]));
    wait_for(&place, "select count(*) from bronze.readings", "31");
    running.stop().ok();
    place.run_idle();
    assert_eq!(place.records("readings"), [31, 31, 0, 0, 0]);
}

#[test]
fn a_changed_landing_file_is_told_and_ends_a_stream_with_4() {
    let place = streaming(SMALL);
    let file = mini::readings("a.jsonl", &[mini::reading("1", 1, "1")]);
    place.land([&file]);
    until_idle(&place);
    place.land([&Landed {
        modified: file.modified + 1,
        ..mini::readings("a.jsonl", &[mini::reading("2", 1, "1")])
    }]);
    place
        .medallion(&["stream", "--until-idle"])
        .expect(4)
        .tells(&["landing file changed: `readings/a.jsonl`"]);
    assert_eq!(place.value("select count(*) from silver.readings"), "1");
}

fn at(id: &str, time: &str) -> String {
    mini::reading(id, 1, "1").replace("2025-08-01T10:00:00Z", time)
}

/// Three files in the order in which a stream takes them: the second has one late reading, the third two.
fn late_files() -> Vec<Landed> {
    let file =
        |name: &str, modified: u64, lines: &[String]| Landed { modified, ..mini::readings(name, lines) };
    vec![
        file("a.jsonl", 1_755_000_000, &[at("1", "2025-08-10T12:00:00Z")]),
        // the watermark is 10:00:00: strictly before it is late
        file(
            "b.jsonl",
            1_755_000_001,
            &[
                at("2", "2025-08-10T10:00:00Z"),
                at("3", "2025-08-10T09:59:59Z"),
                at("4", "2025-08-10T13:00:00Z"),
            ],
        ),
        file("c.jsonl", 1_755_000_002, &[at("5", "2025-08-10T10:59:00Z"), at("6", "2025-08-01T00:00:00Z")]),
    ]
}

#[test]
fn late_records_are_marked_counted_and_kept() {
    let place = streaming(SMALL);
    place.land(&late_files());
    until_idle(&place);
    let late = place.sql("select id from bronze.readings where is_late order by id");
    let late: Vec<&str> = late.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(late, ["3", "5", "6"]);
    assert_eq!(place.records("readings"), [6, 6, 0, 0, 0]);
    let told = place.value("select late from ledger.landed where path = 'readings/c.jsonl'");
    assert!(told.contains("\"records\":2") && told.contains("\"up to 1 minute\":1"), "{told}");
    assert!(told.contains("\"up to 30 days\":1") && told.contains("\"most_seconds\":817200"), "{told}");
    let status = place.medallion(&["--format", "json", "status"]).json();
    let readings = status.as_array().unwrap().iter().find(|row| row["table"] == "bronze.readings").unwrap();
    assert_eq!(readings["watermark"], "2025-08-10T11:00:00Z");
    assert!(readings["lag_seconds"].as_i64().unwrap() > 0, "{readings}");
    let batch = streaming(SMALL);
    batch.land(&late_files());
    batch.run();
    Contents::of(&place).assert_equals(&Contents::of(&batch), "late records");
}

#[test]
fn late_records_are_refused_where_the_source_says_so() {
    let place = streaming(SMALL);
    place.edit(
        "sql/bronze/readings.toml",
        "watermark_delay = \"2 hours\"",
        "watermark_delay = \"2 hours\"\nlate = \"quarantine\"",
    );
    place.land(&late_files());
    until_idle(&place);
    assert_eq!(place.records("readings"), [6, 3, 0, 0, 3]);
    let refused = place.quarantined("readings");
    assert!(refused.iter().all(|record| record.error_type == "late"), "{refused:?}");
    let raw: Vec<&[u8]> = refused.iter().map(|record| record.raw.as_slice()).collect();
    assert_eq!(raw[0], at("3", "2025-08-10T09:59:59Z").as_bytes());
    assert_eq!(place.balance()["readings amount"][4], "3.000000");
    place.run_idle();
}

#[test]
fn an_event_of_the_future_does_not_move_the_watermark() {
    let place = streaming(SMALL);
    // the file is of 2025-08-12T12:00:00Z: ten hours ahead is no error, but has not happened yet
    let file =
        |name: &str, lines: &[String]| Landed { modified: 1_755_000_000, ..mini::readings(name, lines) };
    place.land(&[
        file("a.jsonl", &[at("1", "2025-08-12T10:00:00Z"), at("2", "2025-08-12T22:00:00Z")]),
        file("b.jsonl", &[at("3", "2025-08-12T09:00:00Z"), at("4", "2025-08-14T00:00:00Z")]),
    ]);
    until_idle(&place);
    assert_eq!(place.value("select count(*) from bronze.readings where is_late"), "0");
    assert_eq!(place.quarantined("readings")[0].error_type, "future_timestamp");
    let status = place.medallion(&["--format", "json", "status"]).json();
    let readings = status.as_array().unwrap().iter().find(|row| row["table"] == "bronze.readings").unwrap();
    assert_eq!(readings["watermark"], "2025-08-12T08:00:00Z");
}

#[test]
fn metrics_are_served_while_the_stream_works() {
    let place = streaming(SMALL);
    place.land(&late_files());
    let mut command = crate::support::medallion();
    command.arg("--project").arg(&place.project).arg("--landing").arg(&place.landing);
    command.arg("--lake").arg(&place.lake).args(["stream", "--metrics", "127.0.0.1:0"]);
    let mut child =
        command.env("NO_COLOR", "1").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("the address is told").unwrap();
        if let Some((_, rest)) = line.split_once("http://") {
            break rest.strip_suffix("/metrics").unwrap().to_owned();
        }
    };
    let drain = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    let get = |path: &str| {
        let mut client = TcpStream::connect(&address).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    };
    let begun = Instant::now();
    loop {
        let answer = get("/metrics");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let wanted = [
            "medallion_landed_records_total{source=\"readings\"} 6\n",
            "medallion_late_records_total{source=\"readings\"} 3\n",
            "medallion_watermark_timestamp_seconds{source=\"readings\"} 1754823600\n",
        ];
        if wanted.iter().all(|line| answer.contains(line)) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{answer}");
        pause(Duration::from_millis(50));
    }
    assert!(get("/else").starts_with("HTTP/1.1 404 "));
    let running = Running(child);
    running.signal("TERM");
    assert_eq!(running.end().code, Some(0));
    drain.join().unwrap();
}
