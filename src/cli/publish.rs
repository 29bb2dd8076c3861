//! `medallion publish`

use clap::Args;

use super::Places;
use super::output::{Format, print_text, text_table};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Run;
use crate::flow::report::Report;
use crate::flow::serving::{self, GoldTables, Publication, Scope};
use crate::project::Project;
use crate::project::mart::Mart;
use crate::store::cassandra::Plan;
use crate::telemetry::Progress;
use crate::trigger::publisher::Publisher;

#[derive(Debug, Args)]
#[command(
    after_help = "A run publishes what it changed by itself; this is for what is left over: Cassandra was down, was\n\
    restored or is new.\n\n\
    Examples:\n  \
    medallion publish                        every mart, what changed since it was last published\n  \
    medallion publish --full revenue_monthly one mart wholly, whatever Cassandra says that it holds\n  \
    medallion publish --migrate              and alter tables in Cassandra that lack a column or option"
)]
pub struct PublishArgs {
    /// Marts; all by default
    marts: Vec<String>,
    /// Write every partition, remove what gold does not have, and count what is there then; exit code 4 where it is
    /// something else all the same, since somebody wrote with a time in the future
    #[arg(long)]
    full: bool,
    /// Alter the tables in Cassandra where that loses nothing: add columns that they lack, set the declared time to live,
    /// compaction and other options
    #[arg(long)]
    migrate: bool,
}

pub async fn run(places: &Places, args: &PublishArgs) -> Result<u8> {
    let progress = Progress::new(!places.quiet);
    let run = places.open(progress.clone()).await?;
    let marts = select(&run.project, &args.marts)?;
    let project = std::sync::Arc::clone(&run.project);
    let (manifest, store) = places.cassandra(&project).await?;
    let plan = store.prepare(manifest, &marts, args.migrate).await?;
    let Plan { missing: created, altered, dropped, .. } = plan;
    let scope = Scope { is_full: args.full, created, altered, dropped };
    let begun = std::time::Instant::now();
    let published = serving::publish(&GoldTables::of(&run)?, &store, &marts, &scope).await;
    progress.finish();
    let published = published?;
    // everything is published, whatever the settings say by now
    if places.telling.wants_store()
        && let Ok(Some((_, target))) = places.serving(&project)
    {
        places.telling.published(&run, &published, &target).await;
    }
    print_text(&match places.format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&published)?),
        _ if published.is_empty() => {
            "nothing was written: gold's versions were published before, and no table was emptied since; \
             `medallion reconcile` compares rows\n"
                .to_owned()
        }
        _ => render(&published, begun.elapsed().as_secs_f64()),
    })?;
    let obstacles: Vec<&String> =
        published.iter().filter_map(|publication| publication.obstacle.as_ref()).collect();
    for obstacle in &obstacles {
        tracing::error!("{obstacle}");
    }
    Ok(if obstacles.is_empty() { 0 } else { ErrorKind::Data.exit_code() })
}

/// The marts of these names, or all.
///
/// # Errors
/// `Usage`, listing the marts that there are.
pub fn select(project: &Project, names: &[String]) -> Result<Vec<Mart>> {
    if let Some(unknown) = names.iter().find(|name| !project.marts.iter().any(|mart| mart.name == **name)) {
        let known: Vec<&str> = project.marts.iter().map(|mart| mart.name.as_str()).collect();
        return Err(Error::usage(format!(
            "`{unknown}` is not published; known: {} (each has a file in `cql/tables` and `cql/publish`)",
            known.join(", ")
        )));
    }
    let is_wanted = |mart: &&Mart| names.is_empty() || names.contains(&mart.name);
    Ok(project.marts.iter().filter(is_wanted).cloned().collect())
}

/// Publishes what a command has changed and puts it into the command's report. Gold is complete whatever becomes of it;
/// what could not be published is left for the next run.
///
/// # Errors
/// As [`Publisher::publish`].
pub async fn follow_up(places: &Places, run: &Run, report: Option<&mut Report>) -> Result<()> {
    let serving = places.serving(&run.project)?;
    let begun = std::time::Instant::now();
    let published = Publisher::new(serving.map(|(_, target)| target)).publish(run).await?;
    if let Some(report) = report {
        report.published = published;
        report.publishing_seconds = begun.elapsed().as_secs_f64();
    }
    Ok(())
}

/// What was published, as a table, and how long it took.
pub fn render(published: &[Publication], seconds: f64) -> String {
    let names = ["serving table", "rows written", "partitions", "removed", "what"].map(str::to_owned);
    let rows: Vec<Vec<String>> = published
        .iter()
        .map(|publication| {
            vec![
                publication.mart.clone(),
                publication.rows.to_string(),
                publication.partitions.to_string(),
                publication.removed.to_string(),
                publication.what.clone(),
            ]
        })
        .collect();
    let num_rows: u64 = published.iter().map(|publication| publication.rows).sum();
    format!("{}\n{num_rows} rows published in {seconds:.2} s\n", text_table(&names, &rows))
}
