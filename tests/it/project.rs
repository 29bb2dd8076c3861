//! A broken project is told before anything runs: every problem at once, with file and line.

use crate::mini;
use crate::support::{Done, Place};

/// The mini project with files replaced or added.
fn project(changed: &[(&str, &str)]) -> Place {
    let kept = mini::FILES.iter().filter(|(path, _)| changed.iter().all(|(other, _)| other != path));
    let files: Vec<(&str, &str)> = kept.chain(changed).copied().collect();
    Place::with_project(&files)
}

fn text(path: &str) -> &'static str {
    mini::FILES.iter().find(|(file, _)| *file == path).unwrap().1
}

#[track_caller]
fn refused(place: &Place) -> Done {
    let told = place.medallion(&["check"]).expect(3);
    // `run` says the same and touches nothing
    let run = place.medallion(&["run"]).expect(3);
    assert_eq!(run.stderr, told.stderr);
    assert!(place.lake.symlink_metadata().is_err(), "a broken project touches no lake");
    told
}

#[test]
fn a_correct_project_is_told_so() {
    let told = mini::place().medallion(&["check"]).ok();
    assert_eq!(told, "project `mini` is valid: 2 sources, 4 models, 0 checks, 0 questions\n");
    Place::reference().medallion(&["check"]).ok();
}

#[test]
fn problems_of_several_files_are_told_at_once() {
    let readings = text("sql/bronze/readings.toml")
        .replace("key = [\"id\"]", "key = []")
        .replace("{ name = \"note\", type = \"text\" }", "{ name = \"note\", type = \"varchar(3)\" }");
    let place = project(&[
        ("sql/bronze/readings.toml", &readings),
        ("sql/bronze/sites.toml", &text("sql/bronze/sites.toml").replace("mode =", "modus = 1\nmode =")),
        ("sql/gold/daily.toml", &text("sql/gold/daily.toml").replace("key =", "kye =")),
        ("sql/gold/other.sql", "select 1 as one\n"),
        ("sql/gold/notes.md", "what is this"),
        ("cql/questions/lonely.toml", "title = \"x\"\n"),
    ]);
    refused(&place).tells(&[
        "sql/bronze/readings.toml: a source needs a `key`",
        "sql/bronze/readings.toml:15: ",
        "varchar(3)",
        "sql/bronze/sites.toml:5: unknown field `modus`",
        "sql/gold/daily.toml:2: unknown field `kye`",
        "sql/gold/other.sql: `other.toml` is missing beside it",
        "sql/gold/notes.md: unused file",
        "cql/questions/lonely.toml: `lonely.cql` is missing beside it",
    ]);
}

#[test]
fn an_unknown_column_is_told_with_its_line() {
    let place = project(&[
        (
            "sql/gold/total.sql",
            "select site,\n    cast(sum(amuont) as decimal(38, 6)) as amount\nfrom gold.daily\ngroup by site\n",
        ),
        ("sql/gold/more.sql", "select site\nfrom gold.daily\nwhere nmae = 1\n"),
        ("sql/gold/more.toml", "description = \"x\"\nkey = [\"site\"]\n"),
    ]);
    refused(&place).tells(&["sql/gold/total.sql:2: ", "amuont", "sql/gold/more.sql:3: ", "nmae"]);
}

#[test]
fn cyclic_models_are_told_with_the_cycle_and_hide_no_other_problem() {
    let toml = "description = \"x\"\nkey = [\"site\"]\n";
    let place = project(&[
        ("sql/gold/a.sql", "select site from gold.b\n"),
        ("sql/gold/a.toml", toml),
        ("sql/gold/b.sql", "select site from gold.a\n"),
        ("sql/gold/b.toml", toml),
        ("sql/silver/sites.sql", &text("sql/silver/sites.sql").replace("name, opened", "nmae, opened")),
    ]);
    refused(&place).tells(&["cycle", "gold.a → gold.b", "sql/silver/sites.sql:1: ", "nmae"]);
}

#[test]
fn a_broken_manifest_hides_no_other_problem() {
    let place = project(&[
        ("medallion.toml", "[project]\nname = \"mini\"\nowner = \"me\"\n"),
        ("sql/silver/sites.sql", &text("sql/silver/sites.sql").replace("name, opened", "nmae, opened")),
    ]);
    refused(&place).tells(&["medallion.toml:3: unknown field `owner`", "sql/silver/sites.sql:1: ", "nmae"]);
}

#[test]
fn each_mistake_is_told() {
    let bronze = text("sql/bronze/readings.toml");
    let edited = |from: &str, to: &str| {
        assert!(bronze.contains(from), "{from}");
        bronze.replacen(from, to, 1)
    };
    let model = |sql: &str| sql.to_owned();
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("medallion.toml", "[project\n".to_owned(), &["medallion.toml:1: "]),
        ("medallion.toml", "[landing]\nuri = \"x\"\n".to_owned(), &["medallion.toml", "project"]),
        (
            "sql/bronze/readings.toml",
            edited("type = \"timestamp\"", "type = \"time\""),
            &["readings.toml:12: ", "`time`"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("decimal(18,6)", "decimal(77,6)"),
            &["readings.toml:14: ", "decimal(77,6)"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("money = [\"amount\"]", "money = [\"cost\"]"),
            &["readings.toml:9: ", "`cost`"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("money = [\"amount\"]", "money = [\"note\"]"),
            &["readings.toml:9: ", "`note`"],
        ),
        (
            "sql/bronze/readings.toml",
            edited("partition = \"at\"", "partition = \"site\""),
            &["readings.toml:7: ", "date"],
        ),
        ("sql/bronze/readings.toml", edited("key = [\"id\"]\n", ""), &["readings.toml", "`key`"]),
        ("sql/bronze/readings.toml", edited("\"note\"", "\"id\""), &["readings.toml", "`id`", "twice"]),
        ("sql/bronze/readings.toml", edited("\"note\"", "\"_rescued\""), &["readings.toml:15: ", "_rescued"]),
        ("sql/bronze/readings.toml", edited("amount < 0", "amount"), &["readings.toml", "not boolean"]),
        ("sql/bronze/readings.toml", edited("amount < 0", "amuont < 0"), &["readings.toml", "amuont"]),
        (
            "sql/bronze/readings.toml",
            edited("format = \"jsonl\"", "format = \"xml\""),
            &["readings.toml:4: ", "xml"],
        ),
        ("sql/silver/sites.sql", model("select * from bronze.sites"), &["sites.sql:1: ", "bronze.sites"]),
        (
            "sql/silver/sites.sql",
            model("select * from accepted.nothing"),
            &["sites.sql:1: ", "accepted.nothing"],
        ),
        ("sql/silver/sites.sql", model("select\nfrom from"), &["sites.sql:2: "]),
        ("sql/silver/sites.sql", model("delete from accepted.sites"), &["sites.sql"]),
        ("sql/silver/sites.sql", model("select 1; select 2"), &["sites.sql"]),
        ("sql/silver/sites.sql", String::new(), &["sites.sql"]),
        (
            "sql/silver/sites.toml",
            "description = \"x\"\n".to_owned(),
            &["sites.toml: a stored model needs a `key`"],
        ),
        (
            "sql/silver/sites.toml",
            "description = \"x\"\nkey = [\"nothing\"]\n".to_owned(),
            &["sites.toml:2: ", "`nothing`"],
        ),
        (
            "sql/silver/sites.toml",
            "description = \"x\"\nkey = [\"site\"]\naccounts_for = \"readings\"\n".to_owned(),
            &["sites.toml:3: ", "`amount`"],
        ),
        (
            "sql/gold/total.sql",
            model("select site, arrow_cast(1, 'UInt64') as amount from gold.daily"),
            &["total.sql", "amount"],
        ),
    ];
    let mut wrong = Vec::new();
    for (path, content, expected) in &cases {
        let told = project(&[(path, content)]).medallion(&["check"]);
        let missing: Vec<_> = expected.iter().filter(|text| !told.stderr.contains(**text)).collect();
        if told.code != Some(3) || !missing.is_empty() {
            wrong.push(format!(
                "{path} `{content:.60}`: code {:?}, without {missing:?}: {}",
                told.code, told.stderr
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn questions_and_checks_are_validated() {
    let place = project(&[
        (
            "cql/tables/daily.cql",
            "create table daily (site text, day date, amount decimal, readings bigint, primary key ((site), day));\n",
        ),
        ("cql/questions/q.cql", "select day, amuont from daily where site = :site and day = :day;\n"),
        (
            "cql/questions/q.toml",
            "title = \"x\"\n[parameters.site]\ntype = \"text\"\n[parameters.more]\ntype = \"text\"\n",
        ),
        ("sql/checks/c.sql", "select * from gold.nothing\n"),
        ("sql/checks/c.toml", "description = \"x\"\nseverity = \"loud\"\n"),
        ("sql/checks/d.sql", "select nothing\nfrom gold.daily\n"),
        ("sql/checks/d.toml", "description = \"x\"\n"),
    ]);
    refused(&place).tells(&["cql/questions/q", "sql/checks/c.toml:2: ", "sql/checks/d.sql:1: "]);
}

#[test]
fn no_project_is_a_usage_error() {
    let place = Place::with_project(&[("readme.txt", "no project")]);
    place.medallion(&["check"]).expect(2).tells(&["medallion.toml", "--project"]);
}
