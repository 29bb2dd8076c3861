//! An independent computation of the contract gives the same rows, in every table and in the balance.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Done, Place, reference_lake, repository};

/// The public data set, where it lies beside the repository.
fn real_data() -> Option<PathBuf> {
    let folder = repository().join("../shared/data/cloud_provider_analytics");
    folder.is_dir().then_some(folder)
}

fn python(script: &str) -> Command {
    let found = Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "this test needs python3: install it (`apt-get install python3`, Python 3.11 or newer)"
    );
    let mut command = Command::new("python3");
    command.arg(repository().join("tests/oracle").join(script));
    command
}

/// Compares the lake of a place with what the oracle makes of its landing.
fn assert_equals_the_oracle(place: &Place, landing: &Path) {
    let out = tempfile::tempdir().unwrap();
    Done::of(python("oracle.py").arg(landing).arg(out.path()).output().unwrap()).ok();
    let told = Done::of(
        python("compare.py")
            .arg(out.path())
            .arg(env!("CARGO_BIN_EXE_medallion"))
            .arg("--quiet")
            .arg("--project")
            .arg(&place.project)
            .arg("--landing")
            .arg(landing)
            .arg("--lake")
            .arg(&place.lake)
            .output()
            .unwrap(),
    );
    assert_eq!(told.code, Some(0), "{}\n{}", told.stdout, told.stderr);
    assert!(told.stdout.ends_with("\n0 differences\n"), "{}", told.stdout);
}

#[test]
fn own_data_equals_the_oracle() {
    let (place, _) = reference_lake();
    assert_equals_the_oracle(place, &place.landing);
}

#[test]
fn the_oracle_test_can_fail() {
    let (shared, contents) = reference_lake();
    let place = Place::reference();
    place.land(&crate::data::reference());
    place.run();
    assert!(!contents.table("gold/finops_daily_usage").is_empty());
    // one more event that the oracle is told of and the lake is not
    let event = crate::data::Landed::new(
        "usage_events_stream/more.jsonl",
        "{\"event_id\":\"one more\",\"timestamp\":\"2025-08-03T00:00:00Z\",\"org_id\":\"org_a\",\"cost_usd_increment\":0}\n",
    );
    place.land([&event]);
    let out = tempfile::tempdir().unwrap();
    Done::of(python("oracle.py").arg(&place.landing).arg(out.path()).output().unwrap()).ok();
    let mut compare = python("compare.py");
    compare
        .arg(out.path())
        .arg(env!("CARGO_BIN_EXE_medallion"))
        .arg("--quiet")
        .arg("--project")
        .arg(&shared.project);
    let told = Done::of(
        compare.arg("--landing").arg(&place.landing).arg("--lake").arg(&place.lake).output().unwrap(),
    );
    assert_eq!(told.code, Some(1), "{}", told.stdout);
}

#[test]
fn the_real_data_equals_the_oracle_and_the_contracts_facts() {
    let Some(landing) = real_data() else {
        eprintln!("skipped: the real data set does not lie beside the repository");
        return;
    };
    let mut place = Place::reference();
    place.landing = landing.clone();
    place.run();
    let counts = [
        ("silver.usage_events", "42989"),
        ("gold.finops_daily_usage", "11050"),
        ("gold.cost_anomaly", "165"),
        ("gold.genai_usage_daily", "1131"),
        ("gold.carbon_daily", "4580"),
        ("gold.org_service_cost_summary", "15599"),
        ("gold.support_tickets_summary", "984"),
        ("gold.tickets_by_severity_daily", "364"),
        ("gold.revenue_monthly", "240"),
        ("gold.org_profile", "80"),
        ("quarantine.usage_events where error_type = 'cost_out_of_range'", "211"),
        ("quarantine.usage_events", "211"),
    ];
    let counted: Vec<String> =
        counts.iter().map(|(table, _)| format!("(select count(*) from {table}) as \"{table}\"")).collect();
    let found = &place.sql(&format!("select {}", counted.join(", ")))[0];
    for (table, expected) in counts {
        assert_eq!(found[table].to_string(), expected, "{table}");
    }
    assert_eq!(place.value("select sum(total_cost_usd) from gold.finops_daily_usage"), "148351.575900");
    assert_eq!(place.records("usage_events"), [43_200, 42_989, 0, 0, 211]);
    assert_equals_the_oracle(&place, &landing);
}

#[test]
fn nastier_data_made_from_the_real_equals_the_oracle() {
    let Some(real) = real_data() else {
        eprintln!("skipped: the real data set does not lie beside the repository");
        return;
    };
    let mut place = Place::reference();
    place.landing = place.folder().join("mutated");
    let mut mutate = python("mutate.py");
    mutate.arg(real).arg(&place.landing).args(["--seed", "20251121", "--events", "3000"]);
    Done::of(mutate.output().unwrap()).ok();
    place.run();
    assert_equals_the_oracle(&place, &place.landing.clone());
}
