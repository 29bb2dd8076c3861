//! `medallion balance`

use super::Places;
use super::output::{Format, print_cells, print_text};
use super::run::render_balance;
use crate::error::{ErrorKind, Result};
use crate::flow::balance::{self, BalanceRow};
use crate::telemetry::Progress;

pub async fn run(places: &Places) -> Result<u8> {
    let run = places.open(Progress::new(false)).await?;
    let rows = balance::stored(&run).await?;
    match places.format {
        Format::Json => print_text(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?,
        Format::Csv => print_cells(&names(), &rows.iter().map(cells).collect::<Vec<_>>(), Format::Csv)?,
        _ if rows.is_empty() => print_text("no run has stored a balance yet\n")?,
        _ => {
            print_text(&format!("the last run\n\n{}", render_balance(&rows, "run")))?;
            print_text(&format!("\nthe whole lake\n\n{}", render_balance(&rows, "lake")))?;
        }
    }
    let holds = rows.iter().all(|row| row.difference == 0);
    Ok(if holds { 0 } else { ErrorKind::Data.exit_code() })
}

fn names() -> Vec<String> {
    let sides = ["landed", "accepted", "duplicates", "superseded", "quarantined", "difference"];
    ["scope", "source", "measure"].into_iter().chain(sides).map(str::to_owned).collect()
}

fn cells(row: &BalanceRow) -> Vec<String> {
    let sides = [row.landed, row.accepted, row.duplicates, row.superseded, row.quarantined, row.difference];
    let mut cells = vec![row.scope.clone(), row.source.clone(), row.measure.clone()];
    cells.extend(sides.map(|side| row.amount(side)));
    cells
}
