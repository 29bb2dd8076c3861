//! Writes survive power loss: no log entry appears before the files that it names are on the disk.
//!
//! Watched from outside with `strace`, which can also let calls fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::mini;
use crate::stream::{Running, SMALL, land_whole, streaming, wait_for};
use crate::support::{Contents, Done, Place, medallion, pause, table_folders};

/// One finished system call: when it began and ended (in lines of the trace) and its text.
struct Call {
    began: usize,
    ended: usize,
    text: String,
}

/// Joins what `strace -f` splits where threads interleave.
fn calls(trace: &str) -> Vec<Call> {
    let mut unfinished: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    let mut found = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(begin) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, (at, begin));
        } else if let Some(end) = rest.strip_prefix("<... ") {
            if let Some((began, begin)) = unfinished.remove(pid) {
                let end = end.split_once(" resumed>").map_or("", |(_, end)| end);
                found.push(Call { began, ended: at, text: format!("{begin}{end}") });
            }
        } else {
            found.push(Call { began: at, ended: at, text: rest.to_owned() });
        }
    }
    found
}

/// The last quoted path of a call: what a link or rename creates.
fn created(text: &str) -> Option<&str> {
    let (before, _) = text.rsplit_once('"')?;
    before.rsplit_once('"').map(|(_, path)| path)
}

/// The path behind the descriptor that is synced, `fsync(7</x/y>)`.
fn synced(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('<')?;
    rest.split_once('>').map(|(path, _)| path)
}

const HOW_TO_TRACE: &str = "tracing is not allowed here: a container needs SYS_PTRACE, and other users than root \
    `sysctl kernel.yama.ptrace_scope=0`";

#[track_caller]
fn strace() -> Command {
    let available = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(
        available.is_ok_and(|status| status.success()),
        "`strace` is not installed: `make setup-services` installs it"
    );
    Command::new("strace")
}

/// What a run does to the disk.
#[track_caller]
fn traced_run(place: &Place) -> String {
    let trace = place.folder().join("trace.txt");
    let mut strace = strace();
    strace.args([
        "-f",
        "-y",
        "-s",
        "1000",
        "-e",
        "trace=?link,linkat,?rename,?renameat,renameat2,fsync,fdatasync,syncfs",
        "-o",
    ]);
    strace.arg(&trace).arg(medallion().get_program()).arg("--quiet").arg("--project").arg(&place.project);
    strace.arg("--landing").arg(&place.landing).arg("--lake").arg(&place.lake).arg("run");
    let done = Done::of(strace.output().unwrap());
    assert!(done.code == Some(0) || !done.stderr.contains("ptrace"), "{HOW_TO_TRACE}: {}", done.stderr);
    done.ok();
    fs::read_to_string(trace).unwrap()
}

#[track_caller]
fn assert_durable(place: &Place, trace: &str) {
    let lake = fs::canonicalize(&place.lake).unwrap().to_string_lossy().into_owned();
    let mut calls = calls(trace);
    calls.sort_by_key(|call| call.ended);
    let (mut entries, mut wrong) = (0, Vec::new());
    // path to the line at which it was there; what is on the disk leaves
    let mut pending: BTreeMap<String, usize> = BTreeMap::new();
    for call in &calls {
        if !call.text.ends_with("= 0") {
            continue;
        }
        let name = call.text.split('(').next().unwrap_or_default();
        match name {
            "syncfs" => pending.retain(|_, created| *created > call.began),
            "fsync" | "fdatasync" => {
                if let Some(path) = synced(&call.text)
                    && pending.get(path).is_some_and(|created| *created < call.began)
                {
                    pending.remove(path);
                }
            }
            "link" | "linkat" | "rename" | "renameat" | "renameat2" => {
                let Some(path) = created(&call.text).filter(|path| path.starts_with(&lake)) else {
                    continue;
                };
                if let Some((table, _)) = path.split_once("/_delta_log/")
                    && path.ends_with(".json")
                {
                    entries += 1;
                    let own = pending.keys().filter(|file| {
                        file.starts_with(&format!("{table}/")) && !file.contains("/_delta_log/")
                    });
                    wrong.extend(own.map(|file| format!("{path} before {file}")));
                }
                pending.insert(path.to_owned(), call.ended);
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "log entries before their files:\n{}", wrong.join("\n"));
    let left: BTreeSet<&String> = pending.keys().filter(|path| !path.contains("checkpoint")).collect();
    assert!(left.is_empty(), "not on the disk at the end: {left:?}");
    assert!(entries >= 10, "only {entries} log entries were seen");
}

#[test]
fn no_log_entry_appears_before_its_files_are_on_the_disk() {
    let place = mini::place();
    let [first, second] = mini::batches();
    for (at, files) in [first, second].iter().enumerate() {
        place.land(files);
        let before: usize = count_entries(&place);
        let trace = traced_run(&place);
        assert_durable(&place, &trace);
        assert!(count_entries(&place) > before, "run {at} has committed");
    }
}

#[test]
fn many_files_of_one_commit_are_on_the_disk_before_it() {
    // more dates than are synced one by one
    let place = mini::place();
    let lines: Vec<String> = (1..=28).map(|day| mini::reading(&format!("r{day}"), day, "1")).collect();
    place.land([&mini::readings("a.jsonl", &lines)]);
    let trace = traced_run(&place);
    assert!(trace.contains("syncfs("), "many files are synced at once");
    assert_durable(&place, &trace);
}

/// The disk fills under a stream: syncs tell it where blocks are given out late, as by most file systems. Then room is made.
#[test]
fn a_stream_outlives_a_full_disk() {
    for full in ["fsync,fdatasync,syncfs", "?link,linkat,?rename,?renameat,renameat2"] {
        let place = streaming(SMALL);
        let [first, second] = mini::batches();
        place.land(&first);
        let stream = Running::start(&place);
        let num_files = "select count(*) from ledger.files";
        wait_for(&place, num_files, &first.len().to_string());
        let trace = place.folder().join("trace.txt");
        let strace = strace()
            .args(["-f", "-e", &format!("trace={full}"), "-e", &format!("inject={full}:error=ENOSPC"), "-o"])
            .arg(&trace)
            .arg("-p")
            .arg(stream.0.id().to_string())
            .stderr(Stdio::piped())
            .spawn();
        let mut strace = Running(strace.unwrap());
        let mut told = String::new();
        let mut stderr = BufReader::new(strace.0.stderr.take().unwrap());
        stderr.read_line(&mut told).unwrap();
        assert!(told.contains("attached"), "{HOW_TO_TRACE}: {told}");
        second.iter().for_each(|file| land_whole(&place, file));
        let begun = Instant::now();
        while fs::read_to_string(&trace).unwrap().matches("(INJECTED)").count() < 6 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no calls of {full} have failed");
            pause(Duration::from_millis(50));
        }
        strace.signal("INT");
        strace.end();
        wait_for(&place, num_files, &(first.len() + second.len()).to_string());
        stream.stop().expect(0).tells(&["No space left on device"]);
        Contents::of(&place).assert_equals(&crate::rerun::fresh(&place), full);
        assert!(place.medallion(&["doctor", "--deep"]).ok().contains("the lake is sound"), "{full}");
    }
}

fn count_entries(place: &Place) -> usize {
    let logs = table_folders(&place.lake).into_values().map(|folder| folder.join("_delta_log"));
    logs.map(|log| fs::read_dir(log).unwrap().count()).sum()
}
