//! A question about collections has one answer, whoever gives it.

use serde_json::json;

use crate::cassandra::{Cql, node};
use crate::mini;
use crate::serving::{Served, first_readings};
use crate::support::write;

const SHAPES: &str = "with given as (
    select
        site,
        case site
            when 'north' then make_array('z', 'a', 'é', 'a', 'B')
            when 'south' then array_remove_all(make_array('x'), 'x')
        end as tags,
        case site when 'north' then make_array('z', 'm', 'a')
            else array_remove_all(make_array('x'), 'x') end as names,
        case site when 'north' then make_array(3, 2, 1) else array_remove_all(make_array(1), 1) end as numbers,
        case site when 'north' then make_array(date '2025-08-02', date '1969-12-31', date '2025-08-01')
            else array_remove_all(make_array(date '2025-08-02'), date '2025-08-02') end as dates
    from gold.daily
    group by site
)
select
    site,
    tags,
    tags as words,
    tags as fixed,
    case when site <> 'east' then arrow_cast(numbers, 'List(Int32)') end as digits,
    case when site <> 'east' then map(names, arrow_cast(numbers, 'List(Int32)')) end as counts,
    case when site <> 'east' then map(names, arrow_cast(numbers, 'List(Decimal128(38, 6))')) end as amounts,
    case when site <> 'east' then map(dates, arrow_cast(numbers, 'List(Int32)')) end as days
from given
";

const TABLE: &str = "create table shapes (site text, tags set<text>, words list<text>, fixed frozen<set<text>>, \
                     digits set<int>, counts map<text, int>, amounts map<text, decimal>, days map<date, int>, \
                     primary key ((site)))";

const INSERT: &str = "insert into shapes (site, tags, words, fixed, digits, counts, amounts, days) \
                      values (:site, :tags, :words, :fixed, :digits, :counts, :amounts, :days) \
                      using timestamp :committed_at;\n";

const QUESTION: &str = "select site, tags as labels, words, fixed, digits, counts, amounts, days, map_keys(counts) as names \
                        from shapes\nwhere site = :site;\n";

/// The small project and a mart of every kind of collection.
fn served() -> Served {
    let place = mini::place();
    for (path, text) in [
        ("sql/gold/shapes.sql", SHAPES),
        ("sql/gold/shapes.toml", "description = \"Collections.\"\nkey = [\"site\"]\n"),
        ("cql/tables/shapes.cql", &format!("{TABLE};\n")),
        ("cql/publish/shapes.cql", INSERT),
        ("cql/questions/shape.cql", QUESTION),
        ("cql/questions/shape.toml", "title = \"Of a site\"\n[parameters.site]\ntype = \"text\"\n"),
    ] {
        write(&place.project.join(path), text.as_bytes());
    }
    Served::in_keyspace(place, Cql::of(node()).keyspace(1), node().contact())
}

#[test]
fn both_stores_show_collections_in_one_form() {
    let served = served();
    served.place.land([&first_readings()]);
    served.run();
    for site in ["north", "south", "east", "nowhere"] {
        for format in ["table", "csv", "json"] {
            let site = format!("site={site}");
            let ask = |store: &str| {
                served
                    .medallion(&["--format", format, "query", "shape", "--param", &site, "--store", store])
                    .ok()
            };
            assert_eq!(ask("gold"), ask("cassandra"), "{format} of {site}");
        }
    }
    let answer = |site: &str| {
        let site = format!("site={site}");
        served.medallion(&["--format", "json", "query", "shape", "--param", &site]).json()[0].take()
    };
    let ordered = |site: &str| serde_json::to_string(&answer(site)).unwrap();
    assert_eq!(
        answer("north"),
        json!({
            "site": "north",
            "labels": ["B", "a", "z", "é"],
            "words": ["z", "a", "é", "a", "B"],
            "fixed": ["B", "a", "z", "é"],
            "digits": [1, 2, 3],
            "counts": {"a": 1, "m": 2, "z": 3},
            "amounts": {"a": "1.000000", "m": "2.000000", "z": "3.000000"},
            "days": {"1969-12-31": 2, "2025-08-01": 1, "2025-08-02": 3},
            "names": ["a", "m", "z"],
        }),
        "{}",
        ordered("north")
    );
    for site in ["south", "east"] {
        let answer = answer(site);
        let values = answer.as_object().unwrap();
        assert!(values.iter().all(|(name, value)| name == "site" || value.is_null()), "{answer}");
    }
    // the text tells the order too
    let told = served.medallion(&["query", "shape", "--param", "site=north"]).ok();
    for text in ["[B, a, z, é]", "[z, a, é, a, B]", "{a: 1, m: 2, z: 3}", "{1969-12-31: 2, 2025-08-01: 1"] {
        assert!(told.contains(text), "`{text}` is missing in\n{told}");
    }
    served.medallion(&["reconcile"]).ok();
}

#[test]
fn a_frozen_collection_is_another_type() {
    let served = served();
    served.place.land([&first_readings()]);
    served.place.run();
    for (declared, live, told) in [
        ("frozen<set<text>>", "set<text>", "shapes.fixed: `set<text>` in cassandra, `frozen<set<text>>` in"),
        (
            "map<text, int>",
            "frozen<map<text, int>>",
            "shapes.counts: `frozen<map<text, int>>` in cassandra, `map<text,int>` in",
        ),
    ] {
        served.space.cql.run(["drop table if exists shapes", TABLE.replace(declared, live).as_str()]);
        for command in [&["check", "--connect"][..], &["publish"]] {
            served.medallion(command).expect(3).tells(&[told, "nothing was written"]);
        }
        assert!(served.space.cql.try_rows("select * from daily").is_err(), "nothing was created");
    }
    served.space.cql.run(["drop table shapes"]);
    served.medallion(&["publish"]).ok();
    served.medallion(&["check", "--connect"]).ok();
}
