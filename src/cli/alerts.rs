//! `medallion alerts`

use clap::{Args, Subcommand};
use serde_json::json;

use super::Places;
use super::output::{Format, print_cells, print_text};
use crate::error::{Error, ErrorKind, Result};
use crate::notify::alert::About;
use crate::notify::{self, Destination};

#[derive(Debug, Args)]
#[command(
    after_help = "Who is told of what is declared in `[[alerts]]` of medallion.toml; docs/monitoring.md describes it.\n\n\
    Examples:\n  \
    medallion alerts test     send a test message to everybody: 0 delivered, 6 not, 2 no url\n  \
    medallion alerts list     what was told and is not over"
)]
pub struct AlertsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send a test message
    Test {
        /// To this destination only: its name, as `alerts test` without it prints it
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
    },
    /// Show open alerts: who was told what, since when
    List,
}

pub async fn run(places: &Places, args: &AlertsArgs) -> Result<u8> {
    match &args.what {
        What::Test { to } => test(places, to.as_deref()).await,
        What::List => list(places).await,
    }
}

async fn test(places: &Places, only: Option<&str>) -> Result<u8> {
    let project = places.load().await?;
    let mut destinations = notify::destinations(&project.folder, &project.alerts);
    if destinations.is_empty() {
        return Err(Error::usage("nobody is to be told: `medallion.toml` has no `[[alerts]]`"));
    }
    if let Some(only) = only {
        let known: Vec<String> = destinations.iter().map(|to| to.title.clone()).collect();
        destinations.retain(|to| to.title == only);
        if destinations.is_empty() {
            return Err(Error::usage(format!("nobody is called `{only}`, known: {}", known.join(", "))));
        }
    }
    let off: Vec<String> = destinations.iter().filter_map(Destination::why_off).collect();
    let lake = places.lake_url(project.lake.as_deref())?;
    let about = About { project: project.name.clone(), lake: Some(notify::http::shown(&lake)) };
    let delivered = notify::test(&destinations, &about).await?;
    let outcome = |failure: &Option<String>| failure.clone().unwrap_or_else(|| "delivered".to_owned());
    if places.format == Format::Json {
        let rows: Vec<_> = delivered
            .iter()
            .map(|one| json!({"to": one.to, "delivered": one.failure.is_none(), "failure": one.failure}))
            .collect();
        print_text(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
    } else {
        let rows: Vec<Vec<String>> =
            delivered.iter().map(|one| vec![one.to.clone(), outcome(&one.failure)]).collect();
        print_cells(&["to", "outcome"].map(str::to_owned), &rows, places.format)?;
    }
    Ok(match delivered.iter().all(|one| one.failure.is_none()) {
        true => 0,
        false if !off.is_empty() => ErrorKind::Usage.exit_code(),
        false => ErrorKind::Unavailable.exit_code(),
    })
}

async fn list(places: &Places) -> Result<u8> {
    let project = places.load().await?;
    let lake = places.lake(&project).await?;
    let open = notify::open_alerts(lake.url()).await?;
    if places.format == Format::Json {
        print_text(&format!("{}\n", serde_json::to_string_pretty(&open)?))?;
        return Ok(0);
    }
    if open.is_empty() && places.format == Format::Table {
        print_text("no alert is open\n")?;
        return Ok(0);
    }
    let rows: Vec<Vec<String>> =
        open.into_iter().map(|alert| vec![alert.since, alert.key, alert.to, alert.title]).collect();
    print_cells(&["since", "alert", "told to", "what"].map(str::to_owned), &rows, places.format)?;
    Ok(0)
}
