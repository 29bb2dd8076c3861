//! Operators beside a running stream: every command gets its turn, and the tables are those of one batch.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::data::{Landed, Random};
use crate::mini;
use crate::stream::{Running, SMALL, land_whole, random_landing, streaming, until_idle, wait_for};
use crate::support::{Contents, Done, Place, pause, plain};

const ALL_DATES: [&str; 5] = ["rerun", "--from", "2025-07-01", "--to", "2025-09-30"];

/// What a batch over the same files holds after the same decisions of operators.
fn batch_of(place: &Place, files: &[Landed]) -> Contents {
    let other = Place::of(&place.project);
    other.land(files);
    other.run();
    let edited = place.sql(
        "select source_file, source_line, arrow_cast(edited, 'Utf8') as edited from ledger.interventions \
         where action = 'edit' order by 1, 2",
    );
    for record in edited {
        let path = other.folder().join("patch.json");
        fs::write(&path, plain(&record["edited"])).unwrap();
        let (file, line) = (&plain(&record["source_file"]), plain(&record["source_line"]));
        let path = path.to_str().unwrap();
        other.medallion(&["quarantine", "redrive", "--file", file, "--line", &line, "--patch", path]).ok();
    }
    let discarded = place.sql(
        "select distinct source_file, source_line from ledger.interventions where action = 'discard' order by 1, 2",
    );
    for record in discarded {
        let (file, line) = (plain(&record["source_file"]), plain(&record["source_line"]));
        let all = ["quarantine", "discard", "--reason", "test", "--file", &file, "--line", &line];
        other.medallion(&all).ok();
    }
    Contents::of(&other)
}

#[track_caller]
fn assert_sound(place: &Place, expected: &Contents, how: &str) {
    Contents::of(place).assert_equals(expected, how);
    for (measure, sides) in place.balance() {
        assert!(["0", "0.000000"].contains(&&*sides[5]), "{how}: {measure} {sides:?}");
    }
    let doctor = place.medallion(&["doctor", "--deep"]);
    assert_eq!(doctor.code, Some(0), "{how}: {}{}", doctor.stdout, doctor.stderr);
    place.run_idle();
}

#[test]
fn every_command_gets_its_turn_beside_a_stream() {
    let place = streaming(SMALL);
    let mut files = mini::batches().concat();
    place.land(&files);
    let running = Running::start(&place);
    wait_for(&place, "select count(*) from silver.readings", "3");
    let commands: [&[&str]; 9] = [
        &ALL_DATES,
        &["rerun", "--select", "silver.readings", "gold.total", "--force"],
        &["quarantine", "redrive", "--all"],
        &["quarantine", "discard", "--error-type", "malformed", "--reason", "test"],
        &["optimize", "--target-mb", "1"],
        &["vacuum", "--older-than", "0s", "--delete"],
        &["gc", "--keep-runs", "2"],
        &["restore", "gold.daily", "--to", "2999-01-01"],
        &["rerun", "--missing"],
    ];
    for (at, command) in commands.into_iter().enumerate() {
        let done = place.medallion(command);
        assert_eq!(done.code, Some(0), "{command:?}: {}{}", done.stdout, done.stderr);
        // and the stream has gone on
        let id = format!("after{at}");
        let file = mini::readings(
            &format!("{id}.jsonl"),
            &[mini::reading(&id, 9, "1"), mini::reading("1", 1, "1.5")],
        );
        land_whole(&place, &file);
        files.push(file);
        wait_for(&place, &format!("select count(*) from silver.readings where id = '{id}'"), "1");
    }
    // landing is the stream's
    place.medallion(&["run"]).expect(5).tells(&["another run holds the lake"]);
    place.medallion(&["stream"]).expect(5).tells(&["a lake has one writer at a time"]);
    let done = running.stop().expect(0);
    assert!(done.stdout.contains("every landed record is accounted for"), "{}", done.stdout);
    assert_sound(&place, &batch_of(&place, &files), "every command beside a stream");
}

#[test]
fn a_run_that_waits_gets_its_turn_too_and_takes_landing_in() {
    // the stream looks at landing so rarely that the run is first
    let place = streaming(&SMALL.replace("20 milliseconds", "60 seconds"));
    place.land(&mini::batches()[0]);
    let running = Running::start(&place);
    wait_for(&place, "select count(*) from silver.readings", "2");
    place.land(&mini::batches()[1]);
    let told = place.medallion(&["run", "--wait", "60s"]).ok();
    assert!(told.contains("2 new files"), "{told}");
    let done = running.stop().expect(0);
    assert!(done.stdout.contains("every landed record is accounted for"), "{}", done.stdout);
    let files = mini::batches().concat();
    assert_sound(&place, &batch_of(&place, &files), "a run between");
}

#[test]
fn waiting_ends() {
    let place = streaming(SMALL);
    place.land(&mini::batches().concat());
    place.run();
    let lock = File::options().write(true).open(place.lake.join("_medallion.lock")).unwrap();
    lock.lock().unwrap();
    // another run: at once, or when it was told to wait
    place.medallion(&ALL_DATES).expect(5).tells(&["another run holds the lake"]);
    let begun = Instant::now();
    let waiting = [&ALL_DATES[..], &["--wait", "1s"]].concat();
    place.medallion(&waiting).expect(5).tells(&["waited 1 s for the run that holds it", "--wait"]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // a stream waits for it too
    place.medallion(&["stream", "--wait", "0s"]).expect(5).tells(&["another run holds the lake"]);
    let stream = Running::start(&place);
    pause(Duration::from_millis(700));
    drop(lock);
    wait_for(&place, "select count(*) > 0 from ledger.runs", "true");
    // somebody waits and does not come to take it
    let place_in_line = File::options().write(true).open(place.lake.join("_medallion.wait")).unwrap();
    while place_in_line.try_lock().is_err() {
        pause(Duration::from_millis(1));
    }
    pause(Duration::from_millis(300));
    drop(place_in_line);
    stream.stop().expect(0);
    place.run_idle();
}

/// A stream that is told to end while another has the lake settles when it gets it back.
#[test]
fn a_stream_is_told_to_end_while_another_has_the_lake() {
    let place = streaming(SMALL);
    place.land(&mini::batches().concat());
    let stream = Running::start(&place);
    wait_for(&place, "select count(*) from silver.readings", "3");
    let hold = place.folder().join("hold");
    fs::write(&hold, "").unwrap();
    let mut command = place.command(&["rerun", "--select", "silver.readings", "--force"]);
    command.env("MEDALLION_HOLD_AT", "commit ledger.runs").env("MEDALLION_HOLD_FILE", &hold);
    // a change that the rerun finds, so that it comes to its report
    land_whole(&place, &mini::readings("c.jsonl", &[mini::reading("c", 9, "1")]));
    wait_for(&place, "select count(*) from bronze.readings where id = 'c'", "1");
    let rerun = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    pause(Duration::from_millis(1500));
    stream.signal("TERM");
    pause(Duration::from_millis(500));
    fs::remove_file(&hold).unwrap();
    Done::of(rerun.wait_with_output().unwrap()).ok();
    let done = stream.end().expect(0);
    assert!(done.stdout.contains("every landed record is accounted for"), "{}", done.stdout);
    place.run_idle();
}

#[test]
fn what_a_killed_stream_and_a_killed_redrive_have_begun_is_finished_by_whoever_comes_next() {
    let files = mini::batches().concat();
    let expected = {
        let place = streaming(SMALL);
        place.land(&files);
        place.run();
        Contents::of(&place)
    };
    let mut point = 0;
    loop {
        let place = streaming(SMALL);
        place.land(&files);
        let mut command = place.command(&["stream", "--until-idle"]);
        let done = Done::of(command.env("MEDALLION_KILL_AT", point.to_string()).output().unwrap());
        if done.code.is_some() {
            break;
        }
        // a rerun takes in no new file, but what was written ahead: its balance holds
        let done = place.medallion(&ALL_DATES);
        assert_eq!(done.code, Some(0), "killed at {point}: {}{}", done.stdout, done.stderr);
        place.medallion(&["quarantine", "discard", "--error-type", "no_such", "--reason", "x"]).ok();
        until_idle(&place);
        Contents::of(&place).assert_equals(&expected, &format!("a stream killed at {point}, then a rerun"));
        point += 3;
    }
    assert!(point >= 40, "only {point} kill points");
    for at in ["committed ledger.interventions", "committed bronze.readings"] {
        let place = streaming(SMALL);
        place.land(&files);
        place.run();
        let patch = place.folder().join("patch.json");
        fs::write(&patch, mini::reading("torn", 2, "12.25")).unwrap();
        let all = ["--file", "readings/a.jsonl", "--line", "4", "--patch", patch.to_str().unwrap()];
        let mut command = place.command(&[&["quarantine", "redrive"], &all[..]].concat());
        let done = Done::of(command.env("MEDALLION_KILL_AT", at).output().unwrap());
        assert_eq!(done.code, None, "{at}");
        until_idle(&place);
        assert_eq!(place.value("select amount from silver.readings where id = 'torn'"), "12.250000");
        place.run_idle();
    }
}

/// A command that runs by itself, and may be killed.
struct Fired {
    what: String,
    child: Child,
    is_killed: bool,
}

fn fire(place: &Place, random: &mut Random, at: usize) -> Fired {
    let version = random.below(6).to_string();
    let days = (1 + random.below(5), 1 + random.below(5));
    let (from, to) =
        (format!("2025-08-{:02}", days.0.min(days.1)), format!("2025-08-{:02}", days.0.max(days.1)));
    let table = random.pick(&["silver.readings", "silver.sites", "gold.daily", "gold.total"]);
    let arguments: Vec<&str> = match random.below(11) {
        0 | 1 => vec!["rerun", "--from", &from, "--to", &to],
        2 => vec!["rerun", "--from", &from, "--to", &to, "--force"],
        3 => vec!["rerun", "--select", table, "--only"],
        4 => vec!["quarantine", "redrive", "--all"],
        5 => vec![
            "quarantine",
            "discard",
            "--error-type",
            "malformed",
            "--date",
            "1970-01-01",
            "--reason",
            "test",
        ],
        6 => vec!["restore", table, "--to", &version],
        7 => vec!["optimize", "--min-files", "2"],
        8 => vec!["vacuum", "--older-than", "0s", "--delete"],
        9 => vec!["gc", "--keep-runs", "1"],
        _ => vec!["rerun", "--failed"],
    };
    let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    if arguments[1] == "discard" {
        // what is malformed is that whatever else lands
        arguments.retain(|argument| !matches!(argument.as_str(), "--date" | "1970-01-01"));
        if random.one_in(2) {
            arguments.extend(["--file".to_owned(), format!("readings/{:02}-0.jsonl", random.below(50))]);
        }
    }
    if arguments[1] == "redrive" && random.one_in(2) {
        let refused = place.sql(
            "select source_file, source_line from quarantine.readings where error_type = 'malformed' order by 1, 2 limit 1",
        );
        if let Some(record) = refused.first() {
            let (file, line) = (plain(&record["source_file"]), record["source_line"].as_i64().unwrap());
            let text = mini::reading(&format!("patched{at}"), 2, "3.125");
            let path = place.folder().join(format!("patch{at}.json"));
            fs::write(&path, &text).unwrap();
            let path = path.to_str().unwrap().to_owned();
            arguments =
                ["quarantine", "redrive", "--file", &file, "--line", &line.to_string(), "--patch", &path]
                    .map(str::to_owned)
                    .to_vec();
        }
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = place.command(&arguments);
    let is_killed = random.one_in(4);
    if is_killed {
        command.env("MEDALLION_KILL_AT", random.below(20).to_string());
    }
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Fired { what: arguments.join(" "), child, is_killed }
}

/// Files land all the while; a stream runs and is killed now and then; commands of every kind are fired.
fn assert_mixture(seed: u64) {
    let mut random = Random::new(seed);
    let mut files = random_landing(&mut random);
    files.extend(random_landing(&mut random).into_iter().map(|file| Landed {
        path: file.path.replace(".jsonl", "-b.jsonl").replace(".csv", "1.csv"),
        ..file
    }));
    let place = streaming(SMALL);
    let mut told: Vec<String> = Vec::new();
    let mut rest = files.as_slice();
    let mut stream = Running::start(&place);
    // the lake is there
    while !place.lake.join("ledger/files/_delta_log").is_dir() {
        if let Some((first, later)) = rest.split_first() {
            land_whole(&place, first);
            rest = later;
        }
        pause(Duration::from_millis(100));
    }
    for at in 0..10 {
        let (part, later) = rest.split_at(random.below(rest.len().min(3) + 1));
        rest = later;
        for file in part {
            land_whole(&place, file);
        }
        pause(Duration::from_millis(random.below(150) as u64));
        if random.one_in(5) {
            stream.0.kill().unwrap();
            stream.end();
            told.push("stream killed".to_owned());
            if random.one_in(2) {
                stream = Running::start(&place);
                place.medallion(&ALL_DATES);
            } else {
                let done = place.medallion(&ALL_DATES);
                assert_eq!(done.code, Some(0), "{told:?}: {}{}", done.stdout, done.stderr);
                stream = Running::start(&place);
            }
            continue;
        }
        let fired: Vec<Fired> =
            (0..1 + random.below(2)).map(|second| fire(&place, &mut random, at * 2 + second)).collect();
        for Fired { what, child, is_killed } in fired {
            let done = Done::of(child.wait_with_output().unwrap());
            told.push(format!("{what}: {:?}", done.code));
            let output = format!("seed {seed}: {told:?}: {}{}", done.stdout, done.stderr);
            let is_right = match done.code {
                Some(0) => true,
                None => is_killed,
                // a version that there is not, or whose files a vacuum has deleted
                Some(2 | 4) if what.starts_with("restore") => {
                    output.contains("has no version")
                        || output.contains("did not exist")
                        || output.contains("a vacuum has deleted")
                }
                Some(5) => {
                    output.contains("`optimize` is putting files together")
                        || output.contains("are being deleted")
                }
                // the record was discarded or edited meanwhile
                Some(2) => what.contains("--patch") && output.contains("0 are chosen"),
                _ => false,
            };
            assert!(is_right, "{output}");
        }
    }
    for file in rest {
        land_whole(&place, file);
    }
    if random.one_in(2) {
        // one that is told to stop before it listens to signals ends as any process
        let done = stream.stop();
        assert!(matches!(done.code, None | Some(0)), "seed {seed}: {told:?}: {done:?}");
    } else {
        stream.0.kill().unwrap();
        stream.end();
    }
    until_idle(&place);
    // a restored table stays until it is rerun
    place
        .medallion(&["rerun", "--select", "silver.readings", "silver.sites", "gold.daily", "gold.total"])
        .ok();
    assert_sound(&place, &batch_of(&place, &files), &format!("seed {seed}: {told:?}"));
}

#[test]
fn random_mixtures_of_commands_beside_a_stream_are_one_batch_a() {
    for seed in 0..5 {
        assert_mixture(seed);
    }
}

#[test]
fn random_mixtures_of_commands_beside_a_stream_are_one_batch_b() {
    for seed in 100..105 {
        assert_mixture(seed);
    }
}

/// `make soak`: as many more as `MEDALLION_SOAK` says, a tenth of it.
#[test]
#[ignore = "takes as long as it is told to: make soak"]
fn soak_of_commands_beside_a_stream() {
    let mixtures = std::env::var("MEDALLION_SOAK").map_or(30, |text| text.parse::<u64>().unwrap() / 10);
    for seed in 1000..1000 + mixtures {
        assert_mixture(seed);
    }
}
