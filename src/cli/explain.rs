//! `medallion explain-row`

use clap::Args;

use super::Places;
use super::output::{Format, json_rows, plain, print_text, text_table};
use crate::error::Result;
use crate::flow::explain::{self, Explained};
use crate::flow::plan::parse_table;
use crate::telemetry::Progress;

#[derive(Debug, Args)]
#[command(
    after_help = "Read off the row's own query: filters, joins, groups and windows on the way are followed. Where the sum of an\n\
    amount over all lines is exactly a column of the row, it says so.\n\n\
    Examples:\n  \
    medallion explain-row gold.finops_daily_usage org_id=org_1 usage_date=2025-08-01 service=compute\n  \
    medallion --format json explain-row gold.revenue_monthly org_id=org_1 billing_month=2025-08"
)]
pub struct ExplainArgs {
    /// The table
    table: String,
    /// The row: values of its key
    #[arg(required = true, value_name = "COLUMN=VALUE", value_parser = parse_value)]
    values: Vec<(String, String)>,
    /// Show at most so many lines per source; all are counted and added up
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

fn parse_value(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write it as `column=value`".to_owned()),
    }
}

pub async fn run(places: &Places, args: &ExplainArgs) -> Result<u8> {
    let run = places.open(Progress::new(false)).await?;
    let explained = explain::explain(&run, &parse_table(&args.table)?, &args.values, args.limit).await?;
    match places.format {
        Format::Json => {
            let mut all = serde_json::to_value(&explained)?;
            all["row"] = json_rows(std::slice::from_ref(&explained.row))?[0].take();
            print_text(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
        }
        _ => print_text(&page(&args.table, &explained)?)?,
    }
    Ok(0)
}

fn page(table: &str, explained: &Explained) -> Result<String> {
    let mut page = format!("{table}\n");
    for (name, value) in &explained.shown()? {
        page.push_str(&format!("  {name} = {}\n", plain(value)));
    }
    for behind in &explained.behind {
        page.push_str(&format!("\n{} lines of `{}`, by {}\n", behind.num_lines, behind.source, behind.table));
        for (name, sum) in &behind.money {
            let equal = behind.adds_up_to.get(name).map(|columns| format!(" = {}", columns.join(", ")));
            page.push_str(&format!("  sum of {name}: {sum}{}\n", equal.unwrap_or_default()));
        }
        let money: Vec<&String> = behind.money.keys().collect();
        let names: Vec<String> = ["file", "line"]
            .into_iter()
            .map(str::to_owned)
            .chain(money.iter().map(|name| (*name).clone()))
            .collect();
        let cells: Vec<Vec<String>> = behind
            .lines
            .iter()
            .map(|line| {
                let amounts = money.iter().map(|name| line.money.get(*name).cloned().unwrap_or_default());
                [plain(&line.file), line.line.to_string()].into_iter().chain(amounts).collect()
            })
            .collect();
        page.push_str(&text_table(&names, &cells));
        if behind.num_lines > behind.lines.len() {
            page.push_str(&format!("… and {} more\n", behind.num_lines - behind.lines.len()));
        }
    }
    if explained.behind.is_empty() {
        page.push_str("\nno landed line could be followed to it\n");
    }
    for table in &explained.not_followed {
        page.push_str(&format!("\nnot followed: {}\n", plain(table)));
    }
    Ok(page)
}
