//! Writes survive power loss: no log entry appears before the files that it names are on the disk.
//!
//! Watched from outside with `strace`; where that is not installed, the test says that it has shown nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};

use crate::mini;
use crate::support::{Done, Place, medallion, table_folders};

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

fn traced(place: &Place, arguments: &[&str]) -> Option<String> {
    let available = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !available.is_ok_and(|status| status.success()) {
        eprintln!("nothing is shown: strace is not installed (`apt-get install strace`)");
        return None;
    }
    let trace = place.folder().join("trace.txt");
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-y",
        "-s",
        "1000",
        "-e",
        "trace=link,linkat,rename,renameat,renameat2,fsync,fdatasync,syncfs",
        "-o",
    ]);
    strace.arg(&trace).arg(medallion().get_program()).arg("--quiet").arg("--project").arg(&place.project);
    strace.arg("--landing").arg(&place.landing).arg("--lake").arg(&place.lake).args(arguments);
    let done = Done::of(strace.output().unwrap());
    if done.code != Some(0) && done.stderr.contains("ptrace") {
        eprintln!("nothing is shown: tracing is not allowed here: {}", done.stderr);
        return None;
    }
    done.ok();
    Some(fs::read_to_string(trace).unwrap())
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
        let Some(trace) = traced(&place, &["run"]) else {
            return;
        };
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
    if let Some(trace) = traced(&place, &["run"]) {
        assert!(trace.contains("syncfs("), "many files are synced at once");
        assert_durable(&place, &trace);
    }
}

fn count_entries(place: &Place) -> usize {
    let logs = table_folders(&place.lake).into_values().map(|folder| folder.join("_delta_log"));
    logs.map(|log| fs::read_dir(log).unwrap().count()).sum()
}
