//! `medallion doctor`

use clap::Args;

use super::Places;
use super::output::{Format, print_cells, print_text};
use crate::error::{ErrorKind, Result};
use crate::flow::doctor::{self, Finding};
use crate::telemetry::Progress;

#[derive(Debug, Args)]
#[command(
    after_help = "Looks at every table's log, checkpoints and files, and at the ledger against the tables: also for tables and commits\n\
    that were there and are gone. Changes nothing. Ends with exit code 4 where it finds a problem. Notes are no problems.\n\n\
    Examples:\n  medallion doctor\n  medallion doctor --deep      reads every file too, and compares its bytes with its checksum"
)]
pub struct DoctorArgs {
    /// Read every file of the newest versions, and count its rows
    #[arg(long)]
    deep: bool,
}

pub async fn run(places: &Places, args: &DoctorArgs) -> Result<u8> {
    let progress = Progress::new(!places.quiet);
    let project = places.load().await?;
    let lake = places.lake(&project).await?;
    let mut found: Vec<Finding> = Vec::new();
    for name in doctor::tables(&project) {
        progress.stage(&format!("looking at {name}"));
        found.extend(doctor::examine(&lake, &name, args.deep).await?);
    }
    progress.stage("comparing the ledger with the tables");
    let compared = async {
        let run = places.open_on(project, lake, progress.clone()).await?;
        doctor::compare(&run).await
    };
    let is_problem = |finding: &Finding| finding.kind == "problem";
    match compared.await {
        Ok(more) => found.extend(more),
        // what is damaged can't be compared
        Err(error) if found.iter().any(is_problem) => {
            tracing::warn!("the ledger was not compared with the tables: {error}");
        }
        Err(error) => return Err(error),
    }
    progress.finish();
    let num_problems = found.iter().filter(|finding| is_problem(finding)).count();
    if places.format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    } else {
        let names = ["", "table", "what", "what to do"].map(str::to_owned);
        let cells: Vec<Vec<String>> = found
            .iter()
            .map(|finding| {
                vec![
                    finding.kind.to_owned(),
                    finding.table.clone(),
                    finding.what.clone(),
                    finding.remedy.clone(),
                ]
            })
            .collect();
        if !cells.is_empty() || places.format == Format::Csv {
            print_cells(&names, &cells, places.format)?;
        }
        if places.format == Format::Table {
            print_text(&match num_problems {
                0 => "the lake is sound\n".to_owned(),
                problems => format!("{problems} problems\n"),
            })?;
        }
    }
    Ok(if num_problems == 0 { 0 } else { ErrorKind::Data.exit_code() })
}
