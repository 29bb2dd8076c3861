//! `medallion balance`

use super::Places;
use super::output::{Format, print_rows, print_text};
use super::run::render_balance;
use crate::error::{ErrorKind, Result};
use crate::flow::balance;
use crate::telemetry::Progress;

pub async fn run(places: &Places) -> Result<u8> {
    let run = places.open(Progress::new(false)).await?;
    let rows = balance::stored(&run).await?;
    match places.format {
        Format::Json => print_text(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?,
        Format::Csv => print_rows(&[balance::rows(0, &rows)?], Format::Csv)?,
        _ if rows.is_empty() => print_text("no run has stored a balance yet\n")?,
        _ => {
            print_text(&format!("the last run\n\n{}", render_balance(&rows, "run")))?;
            print_text(&format!("\nthe whole lake\n\n{}", render_balance(&rows, "lake")))?;
        }
    }
    let holds = rows.iter().all(|row| row.difference == 0);
    Ok(if holds { 0 } else { ErrorKind::Data.exit_code() })
}
