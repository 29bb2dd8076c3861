//! Before anything is written, the tables in Cassandra are compared with those that the project declares.

use std::fs;

use crate::cassandra::{Cql, node};
use crate::mini;
use crate::serving::{Served, first_readings};
use crate::support::{Place, write};

fn served() -> Served {
    let served = Served::mini();
    served.place.land([&first_readings()]);
    served.place.run();
    served
}

#[test]
fn a_missing_keyspace_and_its_tables_are_created_as_declared() {
    for (replication, expected) in [
        ("", "org.apache.cassandra.locator.SimpleStrategy"),
        ("replication = { datacenter1 = 1 }\n", "org.apache.cassandra.locator.NetworkTopologyStrategy"),
    ] {
        let served = served();
        served.space.cql.run([format!("drop keyspace {}", served.space.name).as_str()]);
        let path = served.place.project.join("medallion.toml");
        let manifest = fs::read_to_string(&path).unwrap();
        fs::write(path, manifest + replication).unwrap();
        let told = served.medallion(&["check", "--connect"]).ok();
        let class = expected.rsplit('.').next().unwrap();
        assert!(told.contains(&format!("there is no keyspace `{}`", served.space.name)), "{told}");
        assert!(told.contains(&format!("creates it with replication {{'class': '{class}'")), "{told}");
        assert!(told.contains("and in it: daily, total"), "{told}");
        served.run();
        served.space.cql.run([format!("use {}", served.space.name).as_str()]);
        served.assert_equal("a created keyspace");
        let query = format!(
            "select replication from system_schema.keyspaces where keyspace_name = '{}'",
            served.space.name
        );
        let kept = &served.named_rows(&query)[0]["replication"];
        assert!(kept.contains(expected) && kept.contains(": 1"), "{kept}");
        let query = format!(
            "select compaction, default_time_to_live from system_schema.tables where keyspace_name = '{}' and table_name = 'daily'",
            served.space.name
        );
        let table = &served.named_rows(&query)[0];
        assert!(table["compaction"].contains("LeveledCompactionStrategy"), "{table:?}");
        assert_eq!(table["default_time_to_live"], "7776000");
        served.medallion(&["check", "--connect"]).ok();
        // and again, between two runs
        served.space.cql.run([format!("drop keyspace {}", served.space.name).as_str()]);
        served
            .medallion(&["reconcile"])
            .expect(3)
            .tells(&["there is no keyspace", "`medallion publish` creates it"]);
        assert!(served.run().contains("everything: never published"));
        served.space.cql.run([format!("use {}", served.space.name).as_str()]);
        served.assert_equal("a keyspace that was dropped between two runs");
    }
}

#[test]
fn a_table_that_differs_is_told_column_by_column_and_nothing_is_written() {
    for (ddl, told) in [
        (
            "site text, day date, amount decimal, readings int, primary key ((site), day)",
            "daily.readings: `int` in cassandra, `bigint`",
        ),
        (
            "site text, day date, amount decimal, readings bigint, more text, primary key ((site), day)",
            "daily.more: in cassandra only",
        ),
        (
            "site text, day date, amount decimal, readings bigint, primary key ((site, day))",
            "daily.day: column 2 of the partition key in cassandra, column 1 of the clustering key",
        ),
        (
            "site text, day date, amount decimal, readings bigint, primary key ((site), day, readings)",
            "daily.readings: column 2 of the clustering key, asc in cassandra, no part of the key",
        ),
        (
            "site text, day timestamp, amount decimal, readings bigint, primary key ((site), day)",
            "daily.day: `timestamp` in cassandra, `date`",
        ),
        (
            "site text, amount decimal, readings bigint, primary key ((site), amount)",
            "daily.day: missing in cassandra",
        ),
        (
            "site text, day date, amount decimal, primary key ((site), day)",
            "alter table daily add readings bigint",
        ),
        (
            "site text, day date, amount decimal, readings bigint, primary key ((site), day)",
            "daily.day: column 1 of the clustering key, asc in cassandra",
        ),
    ] {
        let served = served();
        served.space.cql.run([format!("create table daily ({ddl})").as_str()]);
        for arguments in [&["check", "--connect"][..], &["run"], &["publish"], &["publish", "total"]] {
            let done = served.medallion(arguments);
            // only what is published is looked at
            if arguments == ["publish", "total"] {
                done.ok();
            } else {
                done.expect(3).tells(&[told, "nothing was written"]);
                assert!(
                    served.space.cql.try_rows("select * from total").is_err(),
                    "{ddl}: a table was created"
                );
            }
        }
        assert_eq!(served.rows("daily").len(), 0, "{ddl}");
    }
}

#[test]
fn every_table_that_differs_is_told_before_anything_is_written() {
    let served = served();
    served.run();
    served.place.land([&mini::readings("b.jsonl", &[crate::serving::reading("5", 3, "west", "5")])]);
    served.space.cql.run([
        "drop table daily",
        "create table daily (site text, day date, amount double, readings bigint, primary key ((site), day)) \
         with clustering order by (day desc)",
        "alter table total add more text",
    ]);
    let before = served.rows("total");
    let state = served.rows("medallion_published");
    for arguments in [&["check", "--connect"][..], &["run"], &["publish"], &["publish", "--full"]] {
        served.medallion(arguments).expect(3).tells(&[
            "daily.amount: `double` in cassandra, `decimal` in `cql/tables/daily.cql`",
            "total.more: in cassandra only",
            "nothing was written",
        ]);
    }
    assert_eq!((served.rows("total"), served.rows("medallion_published")), (before, state));
    assert!(served.rows("daily").is_empty());
}

#[test]
fn our_own_table_is_compared_as_every_other() {
    for (ddl, told) in [
        (
            "(mart int, at bigint, version bigint, committed_at timestamp, state text, primary key ((mart)))",
            "medallion_published.mart: `int` in cassandra, `text` in medallion's own table",
        ),
        (
            "(id text, mart text, primary key ((id)))",
            "medallion_published.id: in cassandra only, column 1 of the partition key",
        ),
        (
            "(mart text, at bigint, version bigint, committed_at timestamp, state text, primary key ((mart), at))",
            "medallion_published.at: column 1 of the clustering key, asc in cassandra, no part of the key",
        ),
        (
            "(mart text, at bigint, state text, primary key ((mart)))",
            "alter table medallion_published add version bigint: `medallion publish --migrate` does it",
        ),
        (
            "(mart text, at bigint, version bigint, committed_at timestamp, state text, primary key ((mart))) \
             with default_time_to_live = 60",
            "alter table medallion_published with default_time_to_live = 0",
        ),
    ] {
        let served = served();
        served.space.cql.run([format!("create table medallion_published {ddl}").as_str()]);
        for arguments in [&["check", "--connect"][..], &["run"], &["publish"]] {
            served.medallion(arguments).expect(3).tells(&[told, "nothing was written"]);
            assert!(served.space.cql.try_rows("select * from daily").is_err(), "{ddl}: a table was created");
        }
        if told.starts_with("alter table") {
            served.medallion(&["publish", "--migrate"]).ok();
            served.assert_equal(ddl);
            served.medallion(&["check", "--connect"]).ok();
            assert!(!served.run().contains("serving table"));
        }
    }
}

#[test]
fn hints_write_names_as_cql_wants_them() {
    let served = served();
    served.run();
    served.space.cql.run([
        "alter table daily add \"Extra Col\" text",
        "alter table daily add \"order\" text",
        "alter table total add \"a\"\"b\" text",
    ]);
    let hints = [
        "alter table daily drop \"Extra Col\"",
        "alter table daily drop \"order\"",
        "alter table total drop \"a\"\"b\"",
    ];
    let told = hints.map(|hint| format!("drop it with `{hint}`"));
    served.medallion(&["check", "--connect"]).expect(3).tells(&told.each_ref().map(String::as_str));
    // they are what helps
    served.space.cql.run(hints);
    served.medallion(&["check", "--connect"]).ok();
}

#[test]
fn columns_are_added_on_request_and_filled() {
    let served = served();
    served.run();
    served.place.edit(
        "sql/gold/daily.sql",
        "count(*) as readings",
        "count(*) as readings, max(amount) as highest",
    );
    served.medallion(&["check"]).expect(3).tells(&["the column `highest` of `gold.daily` is missing"]);
    served.place.edit("cql/tables/daily.cql", "readings bigint,", "readings bigint, highest decimal,");
    served.place.edit("cql/tables/daily.cql", "7776000", "86400");
    served.medallion(&["check"]).expect(3).tells(&["the column `highest` is not filled"]);
    served.place.edit("cql/publish/daily.cql", "amount, readings)", "amount, readings, highest)");
    served.place.edit("cql/publish/daily.cql", ":readings)", ":readings, :highest)");
    served.place.medallion(&["run", "--full-refresh"]).ok();
    served.medallion(&["run"]).expect(3).tells(&["alter table daily add highest decimal", "--migrate"]);
    let told = served.medallion(&["publish", "--migrate"]).ok();
    assert!(told.contains("the table or the statement has changed"), "{told}");
    served.assert_equal("a column more");
    let query = format!(
        "select default_time_to_live from system_schema.tables where keyspace_name = '{}' and table_name = 'daily'",
        served.space.name
    );
    assert_eq!(served.named_rows(&query)[0]["default_time_to_live"], "86400");
    assert!(!served.run().contains("serving table"));
}

#[test]
fn options_of_a_table_are_compared_and_set_on_request() {
    let served = served();
    served.run();
    served.medallion(&["check", "--connect"]).ok();
    served.space.cql.run([
        "alter table daily with compaction = {'class': 'SizeTieredCompactionStrategy'} and comment = 'by hand'",
    ]);
    let told = "alter table daily with compaction = {'class': 'LeveledCompactionStrategy'}: `medallion publish --migrate` does it";
    served.medallion(&["check", "--connect"]).expect(3).tells(&[told]);
    // no row depends on it
    served.run();
    let told = served.medallion(&["publish", "--migrate"]).ok();
    assert!(told.contains("nothing was written"), "{told}");
    served.medallion(&["check", "--connect"]).ok();
}

#[test]
fn what_can_be_altered_is_told_beside_what_can_not() {
    let served = served();
    served
        .space
        .cql
        .run(["create table daily (site text, day date, amount double, primary key ((site), day)) \
                           with clustering order by (day desc)"]);
    served.medallion(&["publish", "--migrate"]).expect(3).tells(&[
        "daily.amount: `double` in cassandra, `decimal`",
        "alter table daily add readings bigint: `medallion publish --migrate` does it once the rest fits",
        "alter table daily with default_time_to_live = 7776000",
    ]);
    assert!(served.space.cql.try_rows("select readings from daily").is_err());
}

#[test]
fn readers_are_told_how_a_table_differs() {
    let served = served();
    let question = "select day, readings from daily where site = :site;\n";
    let site = "title = \"A site\"\n[parameters.site]\ntype = \"text\"\n";
    write(&served.place.project.join("cql/questions/by_day.cql"), question.as_bytes());
    write(&served.place.project.join("cql/questions/by_day.toml"), site.as_bytes());
    served.run();
    let query = ["query", "by_day", "--param", "site=north", "--store", "cassandra"];
    served.medallion(&query).ok();
    served.space.cql.run(["alter table daily drop readings"]);
    for arguments in [&["reconcile"][..], &["reconcile", "--repair"], &query] {
        let done = served.medallion(arguments).expect(3).tells(&["alter table daily add readings bigint"]);
        assert!(!done.stderr.contains("Preparation failed"), "{}", done.stderr);
    }
    served.space.cql.run(["drop table daily"]);
    for arguments in [&["reconcile"][..], &query] {
        served.medallion(arguments).expect(3).tells(&["lacks daily", "`medallion publish` creates"]);
    }
}

#[test]
fn nodes_that_can_not_be_are_refused() {
    let served = served();
    for (contact, told) in [
        ("db:99999", "a port is a number from 1 to 65535"),
        ("a:b", "a port is"),
        ("http://x", "leave out"),
        (":9042", "the host is missing"),
        ("127.0.0.1,,x", "the host is missing"),
    ] {
        let mut check = served.command(&["check", "--connect"]);
        let done = crate::support::Done::of(check.env("MEDALLION_CASSANDRA", contact).output().unwrap());
        done.expect(2).tells(&["is no node of cassandra", told]);
    }
}

#[test]
fn a_column_that_was_lost_is_added_and_filled() {
    let served = served();
    served.run();
    served.space.cql.run(["alter table daily drop readings"]);
    served.medallion(&["run"]).expect(3).tells(&["alter table daily add readings bigint"]);
    let told = served.medallion(&["publish", "--migrate"]).ok();
    assert!(told.contains("a column was dropped and has come back"), "{told}");
    served.assert_equal("a column that was lost");
    let told = served.medallion(&["publish"]).ok();
    assert!(told.contains("nothing was written"), "{told}");
}

#[test]
fn publishing_statements_are_validated_with_the_project() {
    let table = "create table daily (site text, day date, amount decimal, readings bigint, primary key ((site), day));\n";
    for (insert, told) in [
        ("update daily set amount = 1", "`insert into`"),
        (
            "insert into daily (site, day, amount, readings) values (:site, :day, :amount, :readings)",
            "using timestamp :committed_at",
        ),
        (
            "insert into total (site) values (:site) using timestamp :committed_at",
            "the statement fills `total`, the file is `daily`",
        ),
        (
            "insert into daily (site, day, amount) values (:site, :day, :amount) using timestamp :committed_at",
            "the column `readings` is not filled",
        ),
        (
            "insert into daily (site, day, amount, readings) values (:site, :day, :amuont, :readings) using timestamp :committed_at",
            "`gold.daily` has no column `amuont`",
        ),
        (
            "insert into daily (site, day, amount, readings) values (:site, :day, :readings, :readings) using timestamp :committed_at",
            "`amount` is `decimal` and `readings` is `bigint`",
        ),
        (
            "insert into daily (site, day, amount, readings, more) values (:site, :day, :amount, :readings, :readings) using timestamp :committed_at",
            "the table has no column `more`",
        ),
    ] {
        let place = mini::place();
        write(&place.project.join("cql/tables/daily.cql"), table.as_bytes());
        write(&place.project.join("cql/publish/daily.cql"), insert.as_bytes());
        place.medallion(&["check"]).expect(3).tells(&["cql/publish/daily.cql", told]);
    }
    let place = mini::place();
    write(
        &place.project.join("cql/publish/daily.cql"),
        b"insert into daily (site) values (:site) using timestamp :committed_at",
    );
    place.medallion(&["check"]).expect(3).tells(&["`cql/tables/daily.cql` is missing"]);
}

#[test]
fn the_section_serving_is_validated() {
    for (line, told) in [
        ("keyspace = \"a; drop\"", "the keyspace `a; drop` must begin with a letter"),
        ("keyspace = \"k\"\nhost = [\"a\"]", "host"),
        ("keyspace = \"k\"\nreplication = { \"dc'1\" = 1 }", "the datacenter `dc'1`"),
        ("keyspace = \"k\"\nreplication_factor = 0", "at least one copy"),
        ("keyspace = \"k\"\nreplication_factor = 1\nreplication = { dc = 1 }", "not both"),
        ("keyspace = \"k\"\ntls_key = \"k.pem\"", "belong together"),
        ("keyspace = \"k\"\nhosts = [\"db:0\"]", "`db:0` is no node of cassandra"),
        ("keyspace = \"k\"\nmax_requests = 0", "between 1 and 4096"),
        ("keyspace = \"k\"\npassword_file = \"p\"", "needs `serving.user`"),
    ] {
        let place = mini::place();
        let path = place.project.join("medallion.toml");
        let manifest = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{manifest}\n[serving]\n{line}\n")).unwrap();
        place.medallion(&["check"]).expect(3).tells(&["medallion.toml", told]);
    }
}

#[test]
fn a_cassandra_without_a_section_and_none_at_all_are_told() {
    let place: Place = mini::place();
    let mut command = place.command(&["run"]);
    let done =
        crate::support::Done::of(command.env("MEDALLION_CASSANDRA", node().contact()).output().unwrap());
    done.expect(2).tells(&["no section `serving`"]);
    let served = served();
    for arguments in [&["publish"][..], &["reconcile"], &["check", "--connect"]] {
        served.place.medallion(arguments).expect(2).tells(&["no cassandra is configured", "--cassandra"]);
    }
    served
        .medallion(&["publish", "dialy"])
        .expect(2)
        .tells(&["`dialy` is not published; known: daily, total"]);
}

#[test]
fn users_need_their_password_and_their_rights() {
    let settings = crate::cassandra::Settings { passwords: true, ..crate::cassandra::Settings::default() };
    let node = crate::cassandra::Node::start(&settings);
    let admin = || {
        scylla::client::session_builder::SessionBuilder::new()
            .known_node(node.contact())
            .user("cassandra", "cassandra")
    };
    let space = Cql::connect(admin()).keyspace(1);
    space.cql.run(["create role reader with password = 'canary-7f3' and login = true"]);
    let place = mini::place();
    let served = Served::in_keyspace(place, space, node.contact());
    write(&served.place.project.join("cql/tables/daily.cql"), b"create table daily (site text, day date, amount decimal, readings bigint, primary key ((site), day));\n");
    write(&served.place.project.join("cql/publish/daily.cql"), b"insert into daily (site, day, amount, readings) values (:site, :day, :amount, :readings) using timestamp :committed_at;\n");
    served.place.land([&first_readings()]);
    served.place.run();
    let done =
        served.medallion(&["publish"]).expect(2).tells(&["`serving.user`", "MEDALLION_CASSANDRA_PASSWORD"]);
    assert!(!done.stderr.contains("SessionBuilder"), "{}", done.stderr);
    let path = served.place.project.join("medallion.toml");
    let manifest = fs::read_to_string(&path).unwrap();
    let with_user = |user: &str| fs::write(&path, format!("{manifest}user = \"{user}\"\n")).unwrap();
    let attempt = |password: &str| {
        let mut command = served.command(&["-vv", "publish"]);
        command.env("MEDALLION_CASSANDRA_PASSWORD", password).env("MEDALLION_LOG", "trace");
        let done = crate::support::Done::of(command.output().unwrap());
        assert!(
            !done.stderr.contains("canary-7f3") && !done.stdout.contains("canary-7f3"),
            "{}",
            done.stderr
        );
        done
    };
    with_user("reader");
    served.medallion(&["publish"]).expect(2).tells(&["MEDALLION_CASSANDRA_PASSWORD"]);
    let done = attempt("wrong").expect(2).tells(&["refuses the user and the password"]);
    let told = done.stderr.lines().find(|line| line.starts_with("error:")).unwrap();
    assert!(told.contains("password: Provided username reader and/or password are incorrect"), "{told}");
    attempt("canary-7f3").expect(2);
    served.space.cql.run([format!("grant all on keyspace {} to reader", served.space.name).as_str()]);
    // a node remembers for two seconds what a role may not do
    crate::cassandra::wait_until("the grant is known", || attempt("canary-7f3").code == Some(0));
    served.assert_equal("with rights");
    fs::write(served.place.project.join("secret"), "canary-7f3\n").unwrap();
    fs::write(&path, format!("{manifest}user = \"reader\"\npassword_file = \"secret\"\n")).unwrap();
    served.medallion(&["reconcile"]).ok();
}
