//! A project of one stream and one master, small enough to be run a hundred times.

use crate::data::Landed;
use crate::support::Place;

const MANIFEST: &str = "[project]\nname = \"mini\"\n[limits]\nunpacked_bytes = 8_000_000\n";

const READINGS: &str = r#"
description = "What was measured."
files = "readings/*.jsonl"
format = "jsonl"
mode = "events"
key = ["id"]
partition = "at"
event_time = "at"
money = ["amount"]
columns = [
    { name = "id", type = "text" },
    { name = "at", type = "timestamp", required = true },
    { name = "site", type = "text", required = true },
    { name = "amount", type = "decimal(18,6)", required = true },
    { name = "note", type = "text" },
]

[[rules]]
error_type = "negative"
when = "amount < 0"
reason = "`amount` is negative"
"#;

const SITES: &str = r#"
description = "Where it was measured."
files = "sites*.csv"
format = "csv"
mode = "upserts"
key = ["site"]
partition = "opened"
columns = [
    { name = "site", type = "text" },
    { name = "name", type = "text" },
    { name = "opened", type = "date", required = true },
]
"#;

const SILVER_READINGS: &str = "select r.id, r.at, r.site, s.name as site_name, r.amount, r.note, r.source_file, \
                               r.source_line, r.date\nfrom accepted.readings r\nleft join silver.sites s on r.site = s.site\n";
const SILVER_READINGS_TOML: &str = "description = \"Readings.\"\nkey = [\"id\", \"date\"]\npartition = [\"date\"]\n\
                                    accounts_for = \"readings\"\n";
const SILVER_SITES: &str = "select site, name, opened, source_file, source_line from accepted.sites\n";
const SILVER_SITES_TOML: &str = "description = \"Sites.\"\nkey = [\"site\"]\naccounts_for = \"sites\"\n";
const GOLD_DAILY: &str = "select site, date as day, cast(sum(amount) as decimal(38, 6)) as amount, count(*) as readings\n\
                          from silver.readings\ngroup by site, date\n";
const GOLD_DAILY_TOML: &str =
    "description = \"Per day.\"\nkey = [\"site\", \"day\"]\npartition = [\"day\"]\n";
const GOLD_TOTAL: &str =
    "select site, cast(sum(amount) as decimal(38, 6)) as amount\nfrom gold.daily\ngroup by site\n";
const GOLD_TOTAL_TOML: &str = "description = \"In all.\"\nkey = [\"site\"]\n";

/// Its files, to be added to.
pub const FILES: [(&str, &str); 11] = [
    ("medallion.toml", MANIFEST),
    ("sql/bronze/readings.toml", READINGS),
    ("sql/bronze/sites.toml", SITES),
    ("sql/silver/readings.sql", SILVER_READINGS),
    ("sql/silver/readings.toml", SILVER_READINGS_TOML),
    ("sql/silver/sites.sql", SILVER_SITES),
    ("sql/silver/sites.toml", SILVER_SITES_TOML),
    ("sql/gold/daily.sql", GOLD_DAILY),
    ("sql/gold/daily.toml", GOLD_DAILY_TOML),
    ("sql/gold/total.sql", GOLD_TOTAL),
    ("sql/gold/total.toml", GOLD_TOTAL_TOML),
];

pub fn place() -> Place {
    Place::with_project(&FILES)
}

/// A reading of 2025-08-`day`.
pub fn reading(id: &str, day: u32, amount: &str) -> String {
    format!(
        "{{\"id\":\"{id}\",\"at\":\"2025-08-{day:02}T10:00:00Z\",\"site\":\"north\",\"amount\":{amount}}}"
    )
}

/// A file of readings.
pub fn readings(name: &str, lines: &[String]) -> Landed {
    Landed::new(&format!("readings/{name}"), format!("{}\n", lines.join("\n")))
}

/// Two batches with every kind of outcome: the second brings duplicates, conflicts, dirt and versions for the first.
pub fn batches() -> [Vec<Landed>; 2] {
    let line = |id: &str, day: u32, amount: &str| reading(id, day, amount);
    [
        vec![
            readings(
                "a.jsonl",
                &[line("1", 1, "1.5"), line("2", 1, "2"), line("3", 2, "-3.25"), "torn {".to_owned()],
            ),
            Landed::new(
                "sites_2025-07-01.csv",
                "site,name,opened\nnorth,North,2024-01-01\n,None,2024-01-01\n",
            ),
        ],
        vec![
            readings(
                "b.jsonl",
                &[
                    line("1", 1, "1.5"),
                    line("2", 1, "2.000001"),
                    line("4", 2, "4"),
                    line("5", 3, "-1"),
                    line("", 1, "7"),
                ],
            ),
            Landed::new(
                "sites_2025-08-01.csv",
                "site,name,opened\nnorth,Far North,2024-01-01\nsouth,South,2024-02-01\n",
            ),
        ],
    ]
}
