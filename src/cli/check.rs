//! `medallion check`

use clap::Args;

use serde_json::json;

use super::output::Format;
use super::{Places, output};
use crate::error::{ErrorKind, Result};
use crate::project::Project;
use crate::project::diagnostics::{Diagnostic, Problems};

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
        Err(problems) if places.format == Format::Table => return Err(problems.to_error()),
        Err(problems) => {
            print_problems(&problems, places.format)?;
            return Ok(ErrorKind::Project.exit_code());
        }
        Ok(project) => project,
    };
    let connected = match args.connect {
        true => Some(connect(places, &project).await?),
        false => None,
    };
    if places.format != Format::Table {
        if places.format == Format::Csv {
            return print_problems(&Problems::default(), Format::Csv).map(|()| 0);
        }
        let mut told = json!({
            "project": project.name,
            "sources": project.sources.len(),
            "models": project.models.len(),
            "checks": project.checks.len(),
            "questions": project.questions.len(),
            "published_marts": project.marts.len(),
            "problems": [],
            "not_checked": [],
        });
        if let Some((keyspace, replication, missing)) = connected {
            told["keyspace"] = keyspace.into();
            told["keyspace_to_create_with"] = replication.into();
            told["missing_tables"] = missing.into();
        }
        return output::print_text(&format!("{}\n", serde_json::to_string_pretty(&told)?)).map(|()| 0);
    }
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
    if let Some((keyspace, replication, missing)) = connected {
        let missing = missing.join(", ");
        output::print_text(&match (replication, missing.is_empty()) {
            (Some(replication), _) => format!(
                "there is no keyspace `{keyspace}`; the next run creates it with replication {replication}, and in it: {missing}\n"
            ),
            (None, true) => format!("keyspace `{keyspace}` fits: {} tables\n", project.marts.len()),
            (None, false) => format!("keyspace `{keyspace}` fits; the next run creates: {missing}\n"),
        })?;
    }
    Ok(0)
}

/// The keyspace, the replication that it would be created with where there is none, and the tables that it lacks.
async fn connect(places: &Places, project: &Project) -> Result<(String, Option<String>, Vec<String>)> {
    let (_, store) = places.cassandra(project).await?;
    let plan = store.check(project).await?;
    Ok((store.keyspace().to_owned(), plan.keyspace, plan.missing))
}

fn print_problems(problems: &Problems, format: Format) -> Result<()> {
    if format == Format::Json {
        return output::print_text(&format!("{}\n", serde_json::to_string_pretty(problems)?));
    }
    let names = ["file", "line", "message"].map(str::to_owned);
    let cells = |problem: &Diagnostic| {
        let line = problem.known_line().map(|line| line.to_string());
        vec![problem.file.display().to_string(), line.unwrap_or_default(), problem.message.clone()]
    };
    let rows: Vec<Vec<String>> = problems.problems.iter().map(cells).collect();
    output::print_cells(&names, &rows, format)
}
