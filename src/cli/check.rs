//! `medallion check`

use super::{Places, output};
use crate::error::Result;
use crate::project::{Project, diagnostics};

pub async fn run(places: &Places) -> Result<u8> {
    match Project::check(&places.project).await? {
        Err(problems) => Err(diagnostics::to_error(&problems)),
        Ok(project) => {
            output::print_text(&format!(
                "project `{}` is valid: {} sources, {} models, {} checks, {} questions\n",
                project.name,
                project.sources.len(),
                project.models.len(),
                project.checks.len(),
                project.questions.len()
            ))?;
            Ok(0)
        }
    }
}
