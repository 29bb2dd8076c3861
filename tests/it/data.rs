//! Landing data of the reference project: small, always the same, and with everything that real landing has.

use std::fmt::Write as _;
use std::io::Write as _;

/// A file that lands.
#[derive(Debug, Clone)]
pub struct Landed {
    /// Relative to the landing folder.
    pub path: String,
    pub bytes: Vec<u8>,
    /// Seconds since the epoch.
    pub modified: u64,
}

impl Landed {
    /// A file of 2025-09-15, after everything that the tests land.
    pub fn new(path: &str, bytes: impl Into<Vec<u8>>) -> Landed {
        Landed { path: path.to_owned(), bytes: bytes.into(), modified: 1_757_894_400 }
    }
}

/// A small generator of numbers (SplitMix64), so that data never depends on a library's version.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const ORGS: [&str; 4] = ["org_a", "org_b", "org ü/c", "org_unknown"];
const EVENT_FILES: usize = 5;

/// The reference project's landing: a few hundred events over twelve days, two versions of masters.
pub fn reference() -> Vec<Landed> {
    let mut files = events(420, 7);
    files.extend(batch());
    files
}

/// Usage events in five files that each mix all dates, one of them compressed.
fn events(count: usize, seed: u64) -> Vec<Landed> {
    let mut random = Random::new(seed);
    let mut files = vec![String::new(); EVENT_FILES];
    let mut num_dirty = 0;
    for number in 0..count {
        let line = event(&mut random, number);
        let file = random.below(EVENT_FILES);
        files[file].push_str(&line);
        files[file].push('\n');
        if random.one_in(12) {
            // the same content in another form, in any file
            let again = line.replacen("{\"event_id\"", "{ \"event_id\"", 1);
            files[random.below(EVENT_FILES)].push_str(&format!("{again}\n"));
        }
        if random.one_in(25) {
            let conflict = line.replacen("\"cost_usd_increment\": ", "\"cost_usd_increment\": 1", 1);
            files[random.below(EVENT_FILES)].push_str(&format!("{conflict}\n"));
        }
        if number % 20 == 0 {
            let dirt = dirty(&mut random, &line, num_dirty);
            num_dirty += 1;
            files[file].push_str(&format!("{dirt}\n"));
        }
    }
    files[1].insert(0, '\u{feff}');
    files[2] = files[2].replace('\n', "\r\n");
    files[3].push_str("\n  \t\n");
    let mut landed = Vec::new();
    for (at, text) in files.into_iter().enumerate() {
        let name = format!("usage_events_stream/events_part_{at:04}.jsonl");
        landed.push(match at {
            4 => Landed::new(&format!("{name}.gz"), gzip(text.as_bytes())),
            _ => Landed::new(&name, text),
        });
    }
    landed
}

fn event(random: &mut Random, number: usize) -> String {
    let day = 1 + random.below(12);
    let (hour, minute) = (random.below(24), random.below(60));
    // most events share a service and a metric, so that there are baselines of 50 events and more
    let is_common = !random.one_in(3);
    let org = ORGS[if is_common { random.below(2) } else { random.below(4) }];
    let service = match is_common {
        true => *random.pick(&["compute", " Compute", "COMPUTE"]),
        false => *random.pick(&["storage", "genai", "GenAI", "database", "mystery", ""]),
    };
    let metric =
        if is_common { "requests" } else { *random.pick(&["requests", "cpu_hours", "storage_gb_hours"]) };
    let cost_micros = match random.below(60) {
        0 => 45_000_000 + random.below(1_000_000),
        _ => 900_000 + random.below(300_000),
    };
    let mut cost = format!("{}.{:06}", cost_micros / 1_000_000, cost_micros % 1_000_000);
    match random.below(40) {
        0 => cost = "-0.005".to_owned(),
        1 => cost = "-12.5".to_owned(),
        _ => {}
    }
    let amount = random.below(500);
    let value = match random.below(12) {
        0 => "null".to_owned(),
        1 => format!("\"{amount}.5\""),
        _ => format!("{amount}.25"),
    };
    let unit = *random.pick(&["null", "\"count\"", "\"hours\"", "\"\""]);
    let region = *random.pick(&["us-east", "EU-West-1", "moon", "sa-east "]);
    let mut line = format!(
        "{{\"event_id\": \"evt_{number:05}\", \"timestamp\": \"2025-08-{day:02}T{hour:02}:{minute:02}:00Z\", \
         \"org_id\": \"{org}\", \"resource_id\": \"res_{}\", \"service\": \"{service}\", \"region\": \"{region}\", \
         \"metric\": \"{metric}\", \"value\": {value}, \"unit\": {unit}, \"cost_usd_increment\": {cost}",
        random.below(6)
    );
    if day < 6 {
        line.push_str(", \"schema_version\": 1");
    } else {
        let _ = write!(line, ", \"schema_version\": 2, \"carbon_kg\": 0.{:03}", random.below(1000));
        if service.to_lowercase() == "genai" {
            let _ = write!(line, ", \"genai_tokens\": {}", random.below(5000));
        }
    }
    if random.one_in(3) {
        let _ = write!(line, ", \"user_id\": \"user_{}\"", random.below(6));
    }
    if random.one_in(30) {
        line.push_str(", \"colour\": {\"name\": \"blue\"}");
    }
    line.push('}');
    line
}

/// A record that must be refused, of each kind in turn.
fn dirty(random: &mut Random, line: &str, number: usize) -> String {
    let id = format!("bad_{}", random.below(100_000));
    let event = |date: &str, org: &str, cost: &str| {
        format!(
            "{{\"event_id\": \"{id}\", \"timestamp\": \"{date}\", \"org_id\": \"{org}\", \"cost_usd_increment\": {cost}}}"
        )
    };
    let noon = "2025-08-03T12:00:00Z";
    match number % 9 {
        0 => line[..line.floor_char_boundary(line.len() / 2)].to_owned(),
        1 => "not json at all".to_owned(),
        2 => event(noon, "org_a", "1.5").replacen(&id, "", 1),
        3 => event(noon, "", "2.25"),
        4 => event("yesterday", "org_a", "0.75"),
        5 => event(noon, "org_a", "1e30"),
        6 => event("2099-01-01T00:00:00Z", "org_b", "3.125"),
        7 => event(noon, "org_a", "0.5, \"org_id\": \"org_b\""),
        _ => event(noon, "org_a", "\"many\""),
    }
}

/// The seven batch sources; masters with two versions and dates in their names.
fn batch() -> Vec<Landed> {
    let orgs = "org_id,org_name,industry,hq_region,plan_tier,is_enterprise,signup_date,sales_rep,lifecycle_stage,\
                marketing_source,nps_score\n";
    let users = "user_id,org_id,email,role,active,created_at,last_login\n";
    let resources = "resource_id,org_id,service,region,created_at,state,tags_json\n";
    let invoices = "invoice_id,org_id,month,subtotal,credits,taxes,currency,exchange_rate_to_usd\n";
    let tickets = "ticket_id,org_id,category,severity,created_at,resolved_at,csat,sla_breached\n";
    let touches = "touch_id,org_id,campaign,channel,timestamp,clicked,converted\n";
    let surveys = "org_id,survey_date,nps_score,comment\n";
    let file =
        |name: &str, header: &str, rows: &[&str]| Landed::new(name, format!("{header}{}\n", rows.join("\n")));
    let many_users: Vec<String> = (0..6)
        .map(|n| {
            format!("user_{n},org_{},User{n}@Example.com,admin,true,2025-01-0{},", ["a", "b"][n % 2], n + 1)
        })
        .collect();
    let many_users: Vec<&str> = many_users.iter().map(String::as_str).collect();
    vec![
        file(
            "customers_orgs_2025-07-01.csv",
            orgs,
            &[
                "org_a,\"Alpha, Inc.\",retail,us-east,pro,true,2024-01-05,Ann,active,web,40",
                "org_b,Beta,,eu-west,free,false,2024-02-05,,lead,,",
                "org ü/c,\"Gämma \"\"G\"\"\",energy,,pro,no way,2024-03-05,Ann,active,web,140",
                "org_b,Beta,,eu-west,free,false,2024-02-05,,lead,,",
                "org_a,Other,retail,us-east,pro,true,2024-01-05,Ann,active,web,40",
                ",Nobody,,,,,2024-01-01,,,,",
            ],
        ),
        file(
            "customers_orgs_2025-08-06.csv",
            orgs,
            &[
                "org_a,\"Alpha, Inc.\",retail,us-east,enterprise,true,2024-01-05,Bob,active,web,55",
                "org_b,Beta,,eu-west,free,false,2024-02-05,,lead,,",
                "org_new,New,retail,us-east,pro,false,2025-08-01,,lead,,",
            ],
        ),
        file("users_2025-07-01.csv", users, &many_users),
        file(
            "users_2025-08-04T1200.csv",
            users,
            &["user_1,org_b,user1@example.com,viewer,false,2025-01-02,2025-08-01", "user_9,org_b,,,,,"],
        ),
        file(
            "resources_2025-07-01.csv",
            resources,
            &[
                "res_0,org_a,compute,us-east,2024-05-01,running,\"[\"\"prod\"\",\"\"web\"\"]\"",
                "res_1,org_b,GenAI,eu-west,2024-05-02,running,[]",
                "res_2,org_a,storage,us-east,2024-05-03,stopped,not json",
                "res_3,org_b,database,us-east,bad date,running,",
            ],
        ),
        file(
            "resources_2025-08-05.csv",
            resources,
            &[
                "res_0,org_a,compute,us-east,2024-05-01,terminated,\"[\"\"prod\"\"]\"",
                "res_4,org_b,odd,,2024-06-01,,",
            ],
        ),
        file(
            "billing_monthly_2025-08-01.csv",
            invoices,
            &[
                "inv_1,org_a,2025-07-01,100.5,10,,USD,1.1",
                "inv_2,org_b,2025-07-01,200,,20.25,EUR,1.0853",
                "inv_3,org_b,2025-06-01,-50,,,EUR,1.1",
                "inv_4,org_a,2025-06-01,70,,,GBP,",
                "inv_5,org_a,2025-06-01,70.1234567,,,USD,",
                "inv_1,org_a,2025-07-01,100.5,10,,USD,1.1",
            ],
        ),
        file(
            "billing_monthly_2025-08-09.csv",
            invoices,
            &["inv_2,org_b,2025-07-01,210,,20.25,EUR,1.0853", "inv_6,org_b,2025-07-01,1,2,3,EUR,1.2"],
        ),
        file(
            "support_tickets_2025-08-10.csv",
            tickets,
            &[
                "t_1,org_a,billing,critical,2025-08-01,2025-08-03,4,true",
                "t_2,org_a,billing,critical,2025-08-01,,,false",
                "t_3,org_b,outage,high,2025-08-02,2025-08-02,9,",
                "t_4,org_b,outage,,2025-08-04,2025-08-05,2,true",
                "t_5,org_b,\"torn",
            ],
        ),
        file(
            "marketing_touches_2025-08-10.csv",
            touches,
            &["m_1,org_a,spring,email,2025-07-01,true,false", "m_2,org_b,spring,,2025-07-02,true,true"],
        ),
        file(
            "nps_surveys_2025-08-10.csv",
            surveys,
            &["org_a,2025-08-01,50,fine", "org_a,2025-08-05,,", "org_b,2025-08-02,-300,bad"],
        ),
    ]
}
