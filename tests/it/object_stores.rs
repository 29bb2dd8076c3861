//! The same lake behind S3's protocol: landing and lake are URIs, every request goes over HTTP to a server of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};

use crate::data::{self, Landed};
use crate::mini;
use crate::stream::{Running, SMALL, streaming};
use crate::support::{Contents, Done, Place, medallion, pause, repository, write};

const SECRET: &str = "never-to-be-told";

/// moto, one per test process; every test has a bucket of its own.
struct Server {
    port: u16,
    // it ends when its standard input does, which is when this process ends
    _script: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut script = Command::new(repository().join("scripts/object_store.sh"))
            .args(["run", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut told).unwrap();
        assert_eq!(told, "ready\n", "no S3 server: `scripts/setup.sh --services` installs it");
        Server { port, _script: script }
    })
}

/// A bucket with a landing folder and a lake, and the project that moves one into the other.
struct Bucket<'p> {
    name: String,
    project: &'p std::path::Path,
    store: AmazonS3,
    runtime: tokio::runtime::Runtime,
}

impl Bucket<'_> {
    fn of(project: &std::path::Path) -> Bucket<'_> {
        static BUCKETS: AtomicU32 = AtomicU32::new(0);
        let name = format!("bucket-{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
        put(&name, b"");
        let store = AmazonS3Builder::new()
            .with_endpoint(endpoint())
            .with_allow_http(true)
            .with_bucket_name(&name)
            .with_region("us-east-1")
            .with_access_key_id("tester")
            .with_secret_access_key(SECRET)
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Bucket { name, project, store, runtime }
    }

    /// Lands files one after the other in the order of their times, which the server's clock gives anew.
    fn land(&self, files: &[Landed]) {
        let mut files: Vec<&Landed> = files.iter().collect();
        files.sort_by_key(|file| file.modified);
        for file in files {
            let path = Path::from(format!("landing/{}", file.path));
            self.runtime.block_on(self.store.put(&path, file.bytes.clone().into())).unwrap();
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_in(&self.name, arguments)
    }

    fn command_in(&self, lake: &str, arguments: &[&str]) -> Command {
        let mut command = medallion();
        command.arg("--quiet").arg("--project").arg(self.project);
        command.args(["--landing", &format!("s3://{}/landing", self.name)]);
        command.args(["--lake", &format!("s3://{lake}/lake")]);
        command.env("AWS_ENDPOINT", endpoint()).env("AWS_ALLOW_HTTP", "true").env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", "tester").env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.args(arguments);
        command
    }

    fn medallion(&self, arguments: &[&str]) -> Done {
        done(self.command(arguments).output().unwrap())
    }

    /// What a run on the local disk makes of the same files with the same times.
    fn local_run(&self) -> (Place, Contents) {
        let place = Place::of(self.project);
        let folder = Path::from("landing");
        let landed: Vec<_> = self.runtime.block_on(self.store.list(Some(&folder)).try_collect()).unwrap();
        for object in landed {
            let path = place.folder().join(object.location.as_ref());
            write(&path, &self.bytes(&object.location));
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(object.last_modified.into()).unwrap();
        }
        place.run();
        let contents = Contents::of(&place);
        (place, contents)
    }

    fn bytes(&self, object: &Path) -> bytes::Bytes {
        self.runtime.block_on(async { self.store.get(object).await.unwrap().bytes().await.unwrap() })
    }

    fn objects(&self) -> Vec<Path> {
        let listed = self.store.list(Some(&Path::from("lake"))).map_ok(|object| object.location);
        let mut found: Vec<Path> = self.runtime.block_on(listed.try_collect()).unwrap();
        found.sort();
        found
    }

    /// What the lake holds, read from a copy on the local disk.
    fn contents(&self) -> Contents {
        let copy = Place::of(self.project);
        for object in self.objects() {
            // the names of partition folders are escaped in the log, and once more in what is asked of the server
            write(&copy.folder().join(object.as_ref()), &self.bytes(&object));
        }
        Contents::of(&copy)
    }
}

/// Puts an object (or makes a bucket) under a name that the client library would not take; `%` escapes.
fn put(path: &str, bytes: &[u8]) {
    let mut connection = TcpStream::connect(("127.0.0.1", server().port)).unwrap();
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len()
    );
    connection.write_all(&[head.as_bytes(), bytes].concat()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn endpoint() -> String {
    format!("http://127.0.0.1:{}", server().port)
}

fn done(output: Output) -> Done {
    let done = Done::of(output);
    assert!(!done.stdout.contains(SECRET) && !done.stderr.contains(SECRET), "the secret was told: {done:?}");
    done
}

#[test]
fn a_lake_in_s3_holds_what_a_local_one_holds() {
    let bucket = Bucket::of(repository());
    bucket.land(&data::reference());
    bucket.medallion(&["run"]).ok();
    let (local, expected) = bucket.local_run();
    bucket.contents().assert_equals(&expected, "in S3");

    let before = bucket.objects();
    let told = bucket.medallion(&["run"]).ok();
    assert!(told.contains("no table was changed"), "{told}");
    assert_eq!(bucket.objects(), before, "an idle run writes nothing");

    let ask = [
        "--format",
        "csv",
        "sql",
        "select service, count(*), sum(cost_usd_increment) from silver.usage_events group by service order by service",
    ];
    assert_eq!(bucket.medallion(&ask).ok(), local.medallion(&ask).ok());
    let refused = ["--format", "json", "quarantine", "show", "--source", "usage_events", "--limit", "1000"];
    let raw = |done: Done| -> Vec<String> {
        let shown = done.json();
        let mut all: Vec<_> =
            shown.as_array().unwrap().iter().map(|record| record["raw_hex"].to_string()).collect();
        all.sort();
        all
    };
    let ours = raw(bucket.medallion(&refused));
    assert!(!ours.is_empty());
    assert_eq!(ours, raw(local.medallion(&refused)));
}

#[test]
fn files_that_land_later_change_what_they_touch() {
    let place = mini::place();
    let [first, second] = mini::batches();
    let bucket = Bucket::of(&place.project);
    bucket.land(&first);
    bucket.medallion(&["run"]).ok();
    bucket.land(&second);
    bucket.medallion(&["run"]).ok();
    bucket.contents().assert_equals(&bucket.local_run().1, "in two runs");
}

#[test]
fn a_run_in_s3_killed_at_every_point_is_continued() {
    let place = mini::place();
    let files = mini::batches().concat();
    let mut point = 0;
    loop {
        let bucket = Bucket::of(&place.project);
        bucket.land(&files);
        let mut command = bucket.command(&["run"]);
        let killed = done(command.env("MEDALLION_KILL_AT", point.to_string()).output().unwrap());
        if killed.code.is_some() {
            assert_eq!(killed.code, Some(0), "{}", killed.stderr);
            break;
        }
        bucket.medallion(&["run"]).ok();
        bucket.contents().assert_equals(&bucket.local_run().1, &format!("killed at {point}"));
        point += 5;
    }
    assert!(point >= 20, "only {point} kill points: are they still there?");
}

#[test]
fn runs_at_once_meet_at_a_commit_that_one_wins() {
    let bucket = Bucket::of(repository());
    bucket.land(&data::reference());
    let started: Vec<Child> = (0..3)
        .map(|_| bucket.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    let ended: Vec<Done> = started.into_iter().map(|child| done(child.wait_with_output().unwrap())).collect();
    for done in &ended {
        assert!(matches!(done.code, Some(0 | 5)), "{done:?}");
    }
    assert!(ended.iter().any(|done| done.code == Some(0)), "{ended:?}");
    bucket.contents().assert_equals(&bucket.local_run().1, "three runs at once");
}

#[test]
fn a_stream_and_reruns_meet_at_commits_and_both_go_on() {
    let place = streaming(SMALL);
    let bucket = Bucket::of(&place.project);
    bucket.land(&mini::batches()[0]);
    let mut command = bucket.command(&["stream"]);
    let stream = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let begun = Instant::now();
    while bucket.objects().iter().all(|object| !object.as_ref().contains("lake/ledger/runs/_delta_log")) {
        assert!(begun.elapsed() < Duration::from_secs(100), "the stream does not settle");
        pause(Duration::from_millis(200));
    }
    for round in 0..4 {
        // a recent date and an old one
        let lines = [8, 1].map(|day| mini::reading(&format!("round{round}-{day}"), day, "1.25"));
        bucket.land(&[mini::readings(&format!("round{round}.jsonl"), &lines)]);
        let reruns: Vec<Child> = ["silver.readings", "gold.total"]
            .map(|table| {
                let all = ["rerun", "--select", table, "--force", "--wait", "5m"];
                bucket.command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .into();
        for rerun in reruns {
            // between two commits of the stream a balance need not hold
            let done = done(rerun.wait_with_output().unwrap());
            assert!(matches!(done.code, Some(0 | 4)), "{done:?}");
        }
    }
    bucket.land(&mini::batches()[1]);
    pause(Duration::from_secs(6));
    stream.stop().expect(0);
    bucket.medallion(&["stream", "--until-idle"]).ok();
    bucket.contents().assert_equals(&bucket.local_run().1, "a stream and reruns");
}

#[test]
fn a_bucket_that_is_not_there_and_a_server_that_is_not_there_are_said_so() {
    let place = mini::place();
    let bucket = Bucket::of(&place.project);
    let mut command = bucket.command_in("nowhere", &["run"]);
    done(command.output().unwrap()).expect(6).tells(&["nowhere"]);
    let mut command = bucket.command(&["run"]);
    command.env("AWS_ENDPOINT", "http://127.0.0.1:1");
    done(command.output().unwrap()).expect(6).tells(&["127.0.0.1:1", "opening the lake `s3://"]);
    let mut command = medallion();
    command.arg("--project").arg(&place.project).arg("--lake").arg(&place.lake);
    command.args(["--landing", &format!("s3://{}/landing", bucket.name), "run"]);
    command
        .env("AWS_ENDPOINT", "http://127.0.0.1:1")
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", "tester").env("AWS_SECRET_ACCESS_KEY", SECRET);
    done(command.output().unwrap()).expect(6).tells(&["127.0.0.1:1", "listing the landing `s3://"]);
}

#[test]
fn an_odd_key_is_refused_and_the_others_taken_in() {
    let place = mini::place();
    for command in [&["run"][..], &["stream", "--until-idle"]] {
        let bucket = Bucket::of(&place.project);
        let [first, second] = mini::batches();
        bucket.land(&[first, second].concat());
        let (_, expected) = bucket.local_run();
        // each of them in the middle of the others, and one at the very end
        for key in ["readings//a.jsonl", "readings/a%07.jsonl", "sites_%1B%5B2J.csv", "zzz%07", "_staging%07"]
        {
            put(&format!("{}/landing/{key}", bucket.name), b"{}");
        }
        let done = bucket.medallion(command).expect(4);
        let refused: BTreeSet<_> =
            done.stderr.lines().filter_map(|line| line.split_once("landing file")).collect();
        // a stream says so of every batch
        assert_eq!(refused.iter().map(|(_, what)| what).collect::<BTreeSet<_>>().len(), 4, "{}", done.stderr);
        done.tells(&[
            "`readings//a.jsonl`",
            "`readings/a\\u{7}.jsonl`",
            "`sites_\\u{1b}[2J.csv`",
            "`zzz\\u{7}`",
        ]);
        bucket.contents().assert_equals(&expected, "beside odd keys");
    }
}
