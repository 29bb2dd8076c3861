//! `medallion check`

use clap::Args;

use super::{Places, output};
use crate::error::Result;
use crate::project::{Project, diagnostics};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    medallion check                                  the project's files alone\n  \
    medallion --cassandra db1:9042 check --connect   and what is in Cassandra; nothing is changed there")]
pub struct CheckArgs {
    /// Also compare the serving tables, statements and questions with the live Cassandra
    #[arg(long)]
    connect: bool,
}

pub async fn run(places: &Places, args: &CheckArgs) -> Result<u8> {
    let project = match Project::check(&places.project).await? {
        Err(problems) => return Err(diagnostics::to_error(&problems)),
        Ok(project) => project,
    };
    let published = match project.marts.len() {
        0 => String::new(),
        marts => format!(", {marts} published marts"),
    };
    output::print_text(&format!(
        "project `{}` is valid: {} sources, {} models, {} checks, {} questions{published}\n",
        project.name,
        project.sources.len(),
        project.models.len(),
        project.checks.len(),
        project.questions.len(),
    ))?;
    if args.connect {
        let (_, store) = places.cassandra(&project).await?;
        let plan = store.check(&project).await?;
        let (keyspace, missing) = (store.keyspace(), plan.missing.join(", "));
        output::print_text(&match (&plan.keyspace, plan.missing.is_empty()) {
            (Some(replication), _) => format!(
                "there is no keyspace `{keyspace}`; the next run creates it with replication {replication}, and in it: {missing}\n"
            ),
            (None, true) => format!("keyspace `{keyspace}` fits: {} tables\n", project.marts.len()),
            (None, false) => format!("keyspace `{keyspace}` fits; the next run creates: {missing}\n"),
        })?;
    }
    Ok(0)
}
