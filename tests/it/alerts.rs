//! Alerts: told when something begins and when it is over, once each, whoever looks; never at the cost of the run, and
//! without telling the URL.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::authority::Authority;
use crate::data::Landed;
use crate::mini;
use crate::receiver::{Answer, Receiver, Request};
use crate::support::{Contents, Done, Place, pause, walk, write};

/// Part of every URL: nothing but the receiver may see it.
const SECRET: &str = "T0SECRET";

const CHECK: [(&str, &str); 2] = [
    ("sql/checks/small.sql", "select id from silver.readings where amount > 100\n"),
    ("sql/checks/small.toml", "description = \"Readings are small.\"\n"),
];

/// The mini project with these sections, a check, and a receiver of webhooks.
struct Told {
    place: Place,
    receiver: Receiver,
}

impl Told {
    fn with(sections: &str) -> Told {
        let mut files = mini::FILES.to_vec();
        files.extend(CHECK);
        let place = Place::with_project(&files);
        place.edit("medallion.toml", "[limits]", &format!("{sections}\n[limits]"));
        Told { place, receiver: Receiver::start() }
    }

    fn webhook() -> Told {
        Self::with("[[alerts]]\nkind = \"webhook\"\nurl_env = \"HOOK\"\n")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.env("HOOK", self.receiver.url(&format!("/services/{SECRET}?key={SECRET}")));
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(proxy);
        }
        command
    }

    #[track_caller]
    fn medallion(&self, arguments: &[&str]) -> Done {
        keeps_secret(Done::of(self.command(arguments).output().unwrap()))
    }

    /// Lands readings of 2025-08-01 and runs.
    fn land_and_run(&self, name: &str, amounts: &[(&str, &str)]) -> Done {
        let lines: Vec<String> = amounts.iter().map(|(id, amount)| mini::reading(id, 1, amount)).collect();
        self.place.land(&[mini::readings(name, &lines)]);
        self.medallion(&["run"])
    }

    /// What was sent since it was asked last: state, key and title.
    fn told(&self) -> Vec<(String, String, String)> {
        self.receiver.take().iter().map(|request| short(&request.json())).collect()
    }

    fn is_secret_kept(&self) {
        for file in walk(&self.place.lake) {
            let bytes = fs::read(&file).unwrap();
            let is_in = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!is_in, "{} holds the secret", file.display());
        }
    }
}

#[track_caller]
fn keeps_secret(done: Done) -> Done {
    assert!(!done.stderr.contains(SECRET) && !done.stdout.contains(SECRET), "{done:?}");
    done
}

fn short(alert: &Value) -> (String, String, String) {
    let text = |key: &str| alert[key].as_str().unwrap().to_owned();
    (text("state"), text("key"), text("title"))
}

fn is(alert: &(String, String, String), state: &str, key: &str) -> bool {
    alert.0 == state && alert.1 == key
}

#[test]
fn a_failed_check_is_told_when_it_begins_and_when_it_is_over() {
    let told = Told::webhook();
    told.land_and_run("a.jsonl", &[("1", "1"), ("2", "500")]).expect(4);
    let requests = told.receiver.take();
    assert_eq!(requests.len(), 1, "{requests:?}");
    let (request, alert) = (&requests[0], requests[0].json());
    assert_eq!(request.path, format!("/services/{SECRET}?key={SECRET}"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    for (key, value) in [
        ("schema", "medallion.alert/1"),
        ("state", "firing"),
        ("kind", "check"),
        ("severity", "error"),
        ("key", "check:small"),
        ("title", "the check `small` found 1 row of which this is not true: Readings are small."),
        ("project", "mini"),
        ("command", "run"),
    ] {
        assert_eq!(alert[key], value, "{alert:#}");
    }
    assert_eq!(alert["run_id"], 1);
    assert_eq!(alert["since"], alert["time"]);
    assert!(alert["lake"].as_str().unwrap().starts_with("file:///"));
    assert_eq!(
        alert["details"],
        serde_json::json!({
            "check": "small", "description": "Readings are small.", "severity": "fail", "outcome": "failed", "rows": 1,
            "dates": [], "num_dates": 0, "findings": [], "num_findings": 0
        })
    );

    // it holds on: with nothing new, with something new, and computed again
    told.medallion(&["run"]).expect(4);
    told.land_and_run("b.jsonl", &[("3", "600")]).expect(4);
    told.medallion(&["rerun", "--select", "silver.readings"]).expect(4);
    assert_eq!(told.told(), [], "told once");
    let open = told.medallion(&["--format", "json", "alerts", "list"]).json();
    assert_eq!(open.as_array().unwrap().len(), 1, "{open}");
    assert_eq!((&open[0]["key"], &open[0]["since"]), (&"check:small".into(), &alert["since"]));

    // the check is made wider: it is over
    told.place.edit("sql/checks/small.sql", "> 100", "> 1000");
    told.medallion(&["run"]).ok();
    let over = told.receiver.take();
    assert_eq!(over.len(), 1, "{over:?}");
    assert_eq!(short(&over[0].json()).0, "resolved");
    assert_eq!(over[0].json()["since"], alert["since"], "it says since when it was open");
    told.medallion(&["run"]).ok();
    assert_eq!(told.told(), []);
    assert_eq!(told.medallion(&["alerts", "list"]).ok(), "no alert is open\n");
    told.is_secret_kept();
}

#[test]
fn a_check_that_is_no_longer_declared_leaves_no_open_alert() {
    let told = Told::webhook();
    told.land_and_run("a.jsonl", &[("1", "500")]).expect(4);
    assert_eq!(told.told().len(), 1);
    for (file, _) in CHECK {
        fs::rename(told.place.project.join(file), told.place.project.join(file.replace("small", "other")))
            .unwrap();
    }
    told.medallion(&["run"]).expect(4);
    assert!(is(&told.told()[0], "firing", "check:other"));
    let open = told.medallion(&["--format", "json", "alerts", "list"]).json();
    assert_eq!(open.as_array().unwrap().len(), 1, "{open}");
    // also when it was the last one
    for (file, _) in CHECK {
        fs::remove_file(told.place.project.join(file.replace("small", "other"))).unwrap();
    }
    told.medallion(&["run"]).ok();
    assert_eq!(told.medallion(&["alerts", "list"]).ok(), "no alert is open\n");
    assert_eq!(told.told(), [], "nobody knows whether it would pass");
}

#[test]
fn a_message_that_is_refused_holds_up_no_other() {
    let told = Told::webhook();
    for (file, text) in [
        ("sql/checks/tiny.sql", "select id from silver.readings where amount > 10\n"),
        ("sql/checks/tiny.toml", "description = \"Readings are tiny.\"\n"),
    ] {
        write(&told.place.project.join(file), text.as_bytes());
    }
    told.receiver.answer(&[Answer::Status(400)], Answer::Status(200));
    told.land_and_run("a.jsonl", &[("1", "500")]).expect(4);
    let sent = told.told();
    assert_eq!(sent.len(), 2, "{sent:?}");
    told.medallion(&["run"]).expect(4);
    assert_eq!(told.told(), [sent[0].clone()], "what was refused is tried again");
}

#[test]
fn an_error_that_stops_a_run_is_told_and_so_is_its_end() {
    let told = Told::webhook();
    told.land_and_run("a.jsonl", &[("1", "1")]).ok();
    assert_eq!(told.told(), [], "nothing is wrong");
    // a project that can't be read still says whom to tell
    told.place.edit("sql/gold/total.sql", "select site", "select sight");
    for _ in 0..2 {
        told.medallion(&["run"]).expect(3);
    }
    let alerts = told.receiver.take();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let alert = alerts[0].json();
    assert!(is(&short(&alert), "firing", "failure:run"), "{alert:#}");
    assert!(alert["title"].as_str().unwrap().contains("sql/gold/total.sql:1"), "{alert:#}");
    assert_eq!((&alert["details"]["exit_code"], &alert["run_id"]), (&3.into(), &Value::Null));

    // another run is at work: no news
    told.place.edit("sql/gold/total.sql", "select sight", "select site");
    let lock = fs::File::create(told.place.lake.join("_medallion.lock")).unwrap();
    lock.lock().unwrap();
    told.medallion(&["run"]).expect(5);
    assert_eq!(told.told(), []);
    drop(lock);
    told.medallion(&["run"]).ok();
    assert!(is(&told.told()[0], "resolved", "failure:run"));

    // what is given once is told each time
    for _ in 0..2 {
        told.medallion(&["rerun", "--select", "gold.nothing"]).expect(2);
        let alerts = told.told();
        assert!(alerts.len() == 1 && is(&alerts[0], "notice", "failure:rerun"), "{alerts:?}");
    }
    told.is_secret_kept();
}

#[test]
fn a_changed_landing_file_and_a_broken_balance_are_told() {
    let told = Told::webhook();
    told.land_and_run("a.jsonl", &[("1", "1")]).ok();
    write(&told.place.landing.join("readings/a.jsonl"), b"something else\n");
    told.medallion(&["run"]).expect(4);
    let alerts = told.told();
    assert!(alerts.len() == 1 && is(&alerts[0], "firing", "failure:landing"), "{alerts:?}");
    assert!(alerts[0].2.contains("readings/a.jsonl"), "{alerts:?}");

    // a model that claims to hold every record, and does not
    told.place.edit(
        "sql/silver/readings.sql",
        "from accepted.readings r",
        "from (select * from accepted.readings where id <> '9') r",
    );
    told.land_and_run("b.jsonl", &[("9", "2.5"), ("8", "1")]).expect(4);
    let alerts: Vec<Value> = told.receiver.take().iter().map(Request::json).collect();
    let keys: Vec<&str> = alerts.iter().map(|alert| alert["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["balance:readings:amount", "balance:readings:records"], "{alerts:#?}");
    assert!(alerts[0]["title"].as_str().unwrap().ends_with("difference 2.500000"), "{alerts:#?}");
    assert_eq!(alerts[1]["details"]["balance"][0]["difference"], 1);
    assert_eq!(alerts[1]["kind"], "balance");
}

#[test]
fn who_wants_failures_is_told_of_checks_but_not_of_anomalies() {
    let told = Told::with(
        "[[alerts]]\nname = \"pager\"\nkind = \"webhook\"\non = [\"failure\"]\nurl_env = \"HOOK\"\n\
         [[alerts]]\nname = \"team\"\nkind = \"slack\"\non = [\"anomaly\"]\nurl_file = \"slack.url\"\n",
    );
    let slack = Receiver::start();
    write(
        &told.place.project.join("slack.url"),
        format!("{}\n", slack.url(&format!("/{SECRET}"))).as_bytes(),
    );
    for (file, text) in [
        ("sql/checks/warned.sql", "select id from silver.readings where amount > 400\n"),
        ("sql/checks/warned.toml", "description = \"Hardly any is large.\"\nseverity = \"warn\"\n"),
        ("sql/watch/large.sql", "select id, amount from silver.readings where amount > 50\n"),
    ] {
        write(&told.place.project.join(file), text.as_bytes());
    }
    told.land_and_run("a.jsonl", &[("1", "500"), ("2", "60"), ("3", "1")]).expect(4);
    let alerts = told.told();
    assert!(alerts.len() == 1 && is(&alerts[0], "firing", "check:small"), "{alerts:?}");
    let sent = slack.take();
    assert_eq!(sent.len(), 1, "one message: {sent:?}");
    let message = sent[0].json();
    let text = message["text"].as_str().unwrap();
    let first = "[mini] the check `warned` found 1 row of which this is not true: Hardly any is large.";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("2 rows of the watch `large` are new"), "{text}");
    let blocks = message["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 3, "{message:#}");
    for block in &blocks[..2] {
        assert_eq!((&block["type"], &block["text"]["type"]), (&"section".into(), &"mrkdwn".into()));
    }
    let rows = blocks[1]["text"]["text"].as_str().unwrap();
    assert!(rows.contains("id=1 amount=500.000000\nid=2 amount=60.000000```"), "{rows}");
    assert_eq!(blocks[2]["type"], "context");

    // a further row of the same date: only that one is new
    told.land_and_run("b.jsonl", &[("4", "70")]).expect(4);
    assert_eq!(told.told(), []);
    let sent = slack.take();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].json()["text"].as_str().unwrap().ends_with("1 row of the watch `large` is new"));
    assert!(
        sent[0].json()["blocks"][0]["text"]["text"].as_str().unwrap().contains("```id=4 amount=70.000000```")
    );
}

#[test]
fn a_missed_objective_is_told_by_the_monitor_and_taken_back_by_the_run() {
    let told = Told::webhook();
    told.place.edit(
        "sql/bronze/readings.toml",
        "event_time = \"at\"",
        "event_time = \"at\"\nfreshness = \"3 seconds\"",
    );
    told.land_and_run("a.jsonl", &[("1", "1")]).ok();
    assert_eq!(told.told(), []);
    pause(Duration::from_secs(4));
    for _ in 0..2 {
        told.medallion(&["status", "--monitor"]).expect(4);
    }
    let alerts = told.told();
    assert!(alerts.len() == 1 && is(&alerts[0], "firing", "freshness:bronze.readings"), "{alerts:?}");
    assert!(alerts[0].2.contains("it may be 3 s"), "{alerts:?}");
    told.medallion(&["run"]).ok();
    assert_eq!(told.told(), [], "a run that brings nothing new does not tell it again");
    told.land_and_run("b.jsonl", &[("2", "1")]).ok();
    let alerts = told.told();
    assert!(alerts.len() == 1 && is(&alerts[0], "resolved", "freshness:bronze.readings"), "{alerts:?}");
    assert!(told.command(&["status"]).output().unwrap().status.success());
    assert_eq!(told.told(), [], "who only looks tells nobody");

    // the objective is missed again, and given up
    pause(Duration::from_secs(4));
    told.medallion(&["status", "--monitor"]).expect(4);
    assert_eq!(told.told().len(), 1);
    told.place.edit("sql/bronze/readings.toml", "freshness = \"3 seconds\"", "");
    told.medallion(&["status", "--monitor"]).ok();
    assert_eq!(told.told(), []);
    assert_eq!(told.medallion(&["alerts", "list"]).ok(), "no alert is open\n");
}

#[test]
fn what_a_full_refresh_computes_again_was_not_late() {
    let told = Told::webhook();
    told.place.edit(
        "sql/gold/daily.toml",
        "description = \"Per day.\"",
        "description = \"Per day.\"\nfreshness = \"1 hour\"",
    );
    told.land_and_run("a.jsonl", &[("1", "1")]).ok();
    told.medallion(&["run", "--full-refresh"]).ok();
    assert_eq!(told.told(), []);
}

/// A stream that runs until it is stopped.
fn stream(told: &Told) -> Child {
    let mut command = told.command(&["stream"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn stop(child: Child) -> Done {
    let sent = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
    keeps_secret(Done::of(child.wait_with_output().unwrap()))
}

fn streaming() -> Told {
    let told = Told::webhook();
    told.place.edit(
        "medallion.toml",
        "[limits]",
        "[stream]\npoll = \"20 milliseconds\"\nquiet = \"100 milliseconds\"\nrefresh = \"50 milliseconds\"\n\
         idle = \"200 milliseconds\"\nsettle = \"300 milliseconds\"\n[limits]",
    );
    write(
        &told.place.project.join("sql/watch/large.sql"),
        b"select id, amount from silver.readings where amount > 50\n",
    );
    told
}

fn keys(requests: &[Request], state: &str) -> Vec<String> {
    let alerts = requests.iter().map(|request| short(&request.json()));
    alerts.filter(|alert| alert.0 == state).map(|alert| alert.1).collect()
}

#[test]
fn a_stream_tells_each_thing_once_however_often_it_settles() {
    let told = streaming();
    told.place.edit(
        "sql/bronze/readings.toml",
        "event_time = \"at\"",
        "event_time = \"at\"\nfreshness = \"14 seconds\"",
    );
    let running = stream(&told);
    let land = |name: &str, id: &str, amount: &str| {
        told.place.land(&[mini::readings(name, &[mini::reading(id, 1, amount)])]);
    };
    land("a.jsonl", "1", "500");
    told.receiver
        .wait_for("the failed check", |sent| keys(sent, "firing").contains(&"check:small".to_owned()));
    for number in 2..6 {
        land(&format!("{number}.jsonl"), &number.to_string(), "60");
        let query = format!("select count(*) from ledger.runs where run_id >= {number}");
        let begun = Instant::now();
        while told.place.value(&query) == "0" {
            assert!(begun.elapsed() < Duration::from_secs(60), "the stream does not settle");
            pause(Duration::from_millis(100));
        }
    }
    // with nothing new, the source grows old
    let old = "freshness:bronze.readings".to_owned();
    told.receiver.wait_for("the missed objective", |sent| keys(sent, "firing").contains(&old));
    land("z.jsonl", "9", "1");
    told.receiver.wait_for("its end", |sent| keys(sent, "resolved").contains(&old));
    stop(running).expect(4);
    let sent = told.receiver.take();
    assert_eq!(keys(&sent, "firing"), ["check:small", "freshness:bronze.readings"]);
    assert_eq!(keys(&sent, "resolved"), ["freshness:bronze.readings"]);
    // the first new row is told at once, the others together and later
    assert_eq!(keys(&sent, "notice"), ["watch:large", "watch:large"]);
    let counts: Vec<Value> = sent
        .iter()
        .map(Request::json)
        .filter(|alert| alert["kind"] == "anomaly")
        .map(|alert| alert["details"]["rows"].clone())
        .collect();
    assert_eq!(counts, [1, 4]);

    // the next stream knows what the last one told
    let running = stream(&told);
    land("y.jsonl", "10", "2");
    let begun = Instant::now();
    while told.place.value("select count(*) from silver.readings where id = '10'") == "0" {
        assert!(begun.elapsed() < Duration::from_secs(60));
        pause(Duration::from_millis(100));
    }
    stop(running).expect(4);
    assert_eq!(told.told(), []);
}

#[test]
fn what_the_lake_does_not_keep_is_told_once_all_the_same() {
    let told = streaming();
    told.land_and_run("a.jsonl", &[("1", "1")]).ok();
    // a folder where the file is to be: like a full disk it can be read, and not written
    let short = |text: &str| blake3::hash(text.as_bytes()).to_hex()[..16].to_owned();
    let folder = told.place.lake.join("_medallion.alerts").join(short("webhook of `HOOK`"));
    fs::create_dir_all(folder.join(format!("{}.json", short("check:small")))).unwrap();
    let running = stream(&told);
    for number in 2..5 {
        let line = mini::reading(&number.to_string(), 1, "500");
        told.place.land(&[mini::readings(&format!("{number}.jsonl"), &[line])]);
        let query = format!("select count(*) from ledger.runs where run_id >= {number}");
        let begun = Instant::now();
        while told.place.value(&query) == "0" {
            assert!(begun.elapsed() < Duration::from_secs(60), "the stream does not settle");
            pause(Duration::from_millis(100));
        }
    }
    stop(running).expect(4);
    assert_eq!(keys(&told.receiver.take(), "firing"), ["check:small"]);
}

#[test]
fn a_stream_that_publishes_nothing_does_not_take_back_that_publishing_failed() {
    let told = streaming();
    told.land_and_run("a.jsonl", &[("1", "1")]).ok();
    told.medallion(&["publish"]).expect(2);
    let alerts = told.told();
    assert!(alerts.len() == 1 && is(&alerts[0], "firing", "failure:publish"), "{alerts:?}");
    told.place.land(&[mini::readings("b.jsonl", &[mini::reading("2", 1, "1")])]);
    told.medallion(&["stream", "--until-idle"]).ok();
    assert_eq!(told.told(), []);
}

#[test]
fn a_stream_that_ends_without_having_published_tells_that_and_no_more() {
    let told = streaming();
    told.place.edit("medallion.toml", "[limits]", "[serving]\nkeyspace = \"told\"\n[limits]");
    for (file, text) in [
        ("cql/tables/total.cql", "create table total (site text, amount decimal, primary key ((site)));\n"),
        (
            "cql/publish/total.cql",
            "insert into total (site, amount) values (:site, :amount) using timestamp :committed_at;\n",
        ),
    ] {
        write(&told.place.project.join(file), text.as_bytes());
    }
    told.place.land(&[mini::readings("a.jsonl", &[mini::reading("1", 1, "1")])]);
    let mut command = told.command(&["--cassandra", "127.0.0.1:9", "stream", "--until-idle"]);
    keeps_secret(Done::of(command.output().unwrap())).expect(6);
    let alerts = told.told();
    assert!(alerts.len() == 1 && is(&alerts[0], "firing", "failure:publish"), "{alerts:?}");
}

#[test]
fn a_further_signal_ends_the_waiting_for_a_receiver_that_is_silent() {
    let told = streaming();
    told.receiver.answer(&[], Answer::Silence);
    let mut running = stream(&told);
    told.place.land(&[mini::readings("a.jsonl", &[mini::reading("1", 1, "500")])]);
    told.receiver.wait_for("the failed check", |sent| !sent.is_empty());
    let terminate = |child: &Child| {
        Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    };
    terminate(&running);
    // the report is printed last, before the waiting
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("micro-batches")));
    let begun = Instant::now();
    let code = loop {
        terminate(&running);
        pause(Duration::from_millis(100));
        if let Some(status) = running.try_wait().unwrap() {
            break status.code();
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it waits on");
    };
    assert_eq!(code, Some(4));
}

/// The same files, with and without anybody to be told.
fn lands_all_the_same(told: &Told, how: &str) {
    let plain = mini::place();
    let files: Vec<Landed> = mini::batches().into_iter().flatten().collect();
    plain.land(&files);
    plain.run();
    Contents::of(&told.place).assert_equals(&Contents::of(&plain), how);
}

#[test]
fn a_receiver_that_is_away_slow_or_broken_changes_nothing_and_is_told_later() {
    for (answer, why) in [
        (Some(Answer::Status(500)), "it answers 500"),
        (Some(Answer::Status(403)), "it answers 403"),
        (Some(Answer::Redirect), "it answers 302"),
        (Some(Answer::Silence), "does not answer within 5 s"),
        (None, "onnection refused"),
    ] {
        let told = Told::webhook();
        told.place.edit("sql/checks/small.sql", "> 100", "> 1");
        told.place.land(&mini::batches().into_iter().flatten().collect::<Vec<_>>());
        if let Some(answer) = answer {
            told.receiver.answer(&[], answer);
        }
        let mut command = told.place.told_command(&["run"]);
        command.env(
            "HOOK",
            match answer {
                Some(_) => told.receiver.url(&format!("/{SECRET}")),
                None => format!("http://127.0.0.1:1/{SECRET}"),
            },
        );
        let begun = Instant::now();
        let done = keeps_secret(Done::of(command.output().unwrap())).expect(4);
        assert!(begun.elapsed() < Duration::from_secs(45), "{why}: {:?}", begun.elapsed());
        done.tells(&["could not be delivered (check:small)", why, "webhook of `HOOK`"]);
        let attempts = told.receiver.take().len();
        let expected = match answer {
            Some(Answer::Status(500) | Answer::Silence) => 3,
            Some(_) => 1,
            None => 0,
        };
        assert_eq!(attempts, expected, "{why}");
        lands_all_the_same(&told, why);

        // what still holds is told once somebody listens
        told.receiver.answer(&[Answer::Status(503)], Answer::Status(200));
        told.medallion(&["run"]).expect(4);
        let alerts = told.told();
        assert_eq!(alerts.len(), 2, "the second attempt is taken: {alerts:?}");
        assert!(is(&alerts[1], "firing", "check:small"));
        told.medallion(&["run"]).expect(4);
        assert_eq!(told.told(), []);
        told.is_secret_kept();
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let authority = Authority::new("private");
    let receiver = Receiver::with_tls(&authority.sign(&["localhost"], 2099));
    let told = Told::webhook();
    let port = receiver.address.rsplit(':').next().unwrap();
    let test = |trusted: Option<&str>, host: &str| {
        let mut command = told.command(&["--format", "json", "alerts", "test"]);
        command.env("HOOK", format!("https://{host}:{port}/{SECRET}")).env_remove("SSL_CERT_DIR");
        if let Some(pem) = trusted {
            let path = told.place.folder().join("ca.pem");
            fs::write(&path, pem).unwrap();
            command.env("SSL_CERT_FILE", path);
        }
        keeps_secret(Done::of(command.output().unwrap()))
    };
    let done = test(None, "localhost").expect(6);
    assert!(done.stdout.contains("certificate"), "{done:?}");
    let done = test(Some(&authority.pem), "127.0.0.1").expect(6);
    assert!(done.stdout.contains("certificate"), "another name: {done:?}");
    assert_eq!(receiver.take().len(), 0);
    test(Some(&authority.pem), "localhost").expect(0);
    assert_eq!(receiver.take().len(), 1);
}

#[test]
fn a_test_message_says_who_can_be_told() {
    let told = Told::with(
        "[[alerts]]\nkind = \"webhook\"\nurl_env = \"HOOK\"\n\
         [[alerts]]\nname = \"team\"\nkind = \"slack\"\nurl_env = \"SLACK\"\n",
    );
    let done = told.medallion(&["alerts", "test"]).expect(2);
    assert!(
        done.stdout.contains("team") && done.stdout.contains("the variable `SLACK` is not set"),
        "{done:?}"
    );
    let alert = told.receiver.take()[0].json();
    assert_eq!((&alert["key"], &alert["state"]), (&"test".into(), &"notice".into()));

    let slack = Receiver::start();
    let mut command = told.command(&["--format", "json", "alerts", "test", "--to", "team"]);
    let done = Done::of(command.env("SLACK", slack.url("/x")).output().unwrap()).json();
    assert_eq!(done, serde_json::json!([{"to": "team", "delivered": true, "failure": null}]));
    assert!(slack.take()[0].json()["text"].as_str().unwrap().contains("this is a test"));
    assert_eq!(told.told(), []);
    told.medallion(&["alerts", "test", "--to", "nobody"])
        .expect(2)
        .tells(&["known: webhook of `HOOK`, team"]);

    let mut command = told.command(&["alerts", "test", "--to", "team"]);
    let done = Done::of(command.env("SLACK", format!("ftp://x/{SECRET}")).output().unwrap());
    keeps_secret(done.expect(2));
    // a run says that it will not be able to tell, and goes on
    let mut command = told.place.told_command(&["run"]);
    let done = Done::of(command.env("HOOK", told.receiver.url("/")).output().unwrap()).expect(0);
    done.tells(&["alerts to team are off: the variable `SLACK` is not set"]);
}

#[test]
fn what_is_wrong_with_a_section_is_a_problem_of_the_project() {
    let told = Told::with(&format!(
        "[[alerts]]\nkind = \"slack\"\nurl_env = \"https://hooks.slack.com/{SECRET}\"\n\
         [[alerts]]\nkind = \"webhook\"\non = []\nurl_file = \"a\"\n"
    ));
    told.medallion(&["check"]).expect(3).tells(&["`url_env` names a variable", "`on` is empty"]);
}
