//! The lake is plain Delta: other readers see the same tables, from log entries and from checkpoints.

use std::fs;
use std::path::Path;

use deltalake::DeltaTableBuilder;
use url::Url;

use crate::mini::{self, reading, readings};
use crate::support::{Contents, active_files, copy_folder, reference_lake, table_folders};

/// Version and files of a table, as the `deltalake` crate reads it.
fn opened(folder: &Path) -> (u64, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = Url::from_directory_path(folder).unwrap();
        let table = DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap();
        let files = table.get_file_uris().unwrap().map(|uri| uri.to_string()).collect();
        (table.version().unwrap(), files)
    })
}

#[test]
fn the_deltalake_crate_reads_every_table() {
    let (place, _) = reference_lake();
    let folders = table_folders(&place.lake);
    assert!(folders.len() > 25, "{folders:?}");
    let status = place.medallion(&["--format", "json", "status"]).json();
    for (name, folder) in folders {
        let (version, files) = opened(&folder);
        assert_eq!(files.len(), active_files(&folder).len(), "{name}");
        let dotted = name.replace('/', ".");
        if let Some(told) = status.as_array().unwrap().iter().find(|told| told["table"] == dotted) {
            assert_eq!(told["version"].as_u64().unwrap(), version, "{name}");
            assert_eq!(told["files"].as_u64().unwrap(), files.len() as u64, "{name}");
        }
    }
}

#[test]
fn a_checkpoint_stands_for_the_log_before_it() {
    let place = mini::place();
    let land = |number: u32| {
        let line = reading(&number.to_string(), 1 + number % 5, "1.25");
        place.land([&readings(&format!("f{number:02}.jsonl"), &[line])]);
    };
    for number in 0..22 {
        land(number);
        place.run();
    }
    let copy = mini::place();
    copy_folder(&place.lake, &copy.lake);
    copy_landing(&place.landing, &copy.landing);
    let mut checkpointed = Vec::new();
    for (name, folder) in table_folders(&copy.lake) {
        let log = folder.join("_delta_log");
        let Ok(last) = fs::read_to_string(log.join("_last_checkpoint")) else {
            continue;
        };
        let last: serde_json::Value = serde_json::from_str(&last).unwrap();
        let version = last["version"].as_u64().unwrap();
        let before = opened(&folder);
        for gone in 0..version {
            fs::remove_file(log.join(format!("{gone:020}.json"))).unwrap();
        }
        assert_eq!(opened(&folder), before, "{name}, from its checkpoint");
        checkpointed.push(name);
    }
    for name in ["bronze/readings", "silver/readings", "gold/daily", "ledger/files"] {
        assert!(checkpointed.iter().any(|found| found == name), "{name} has no checkpoint: {checkpointed:?}");
    }
    // ours reads it too, and goes on from it
    copy.run_idle();
    assert_eq!(copy.value("select count(*) from silver.readings"), "22");
    assert_eq!(copy.value("select amount from gold.total"), "27.500000");
    land(22);
    copy_landing(&place.landing, &copy.landing);
    place.run();
    copy.run();
    assert_eq!(copy.balance(), place.balance());
    copy.medallion(&["run", "--full-refresh"]).ok();
    for table in ["silver.readings", "gold.daily", "gold.total"] {
        let query = format!("select * from {table}");
        let [ours, theirs] = [&copy, &place].map(|place| {
            let mut rows: Vec<String> = place.sql(&query).iter().map(ToString::to_string).collect();
            rows.sort();
            rows
        });
        assert_eq!(ours, theirs, "{table}");
    }
}

/// As [`copy_folder`], with the files' times.
fn copy_landing(from: &Path, to: &Path) {
    copy_folder(from, to);
    for entry in fs::read_dir(to.join("readings")).unwrap() {
        crate::support::set_modified(&entry.unwrap().path(), 1_757_894_400);
    }
}

#[test]
fn what_the_engine_prints_is_what_its_files_hold() {
    let (place, contents) = reference_lake();
    let _: &Contents = contents;
    for table in ["silver/usage_events", "gold/org_profile", "bronze/usage_events", "quarantine/usage_events"]
    {
        let told = place.value(&format!("select count(*) from {}", table.replace('/', ".")));
        assert_eq!(told, contents.table(table).len().to_string(), "{table}");
    }
}
