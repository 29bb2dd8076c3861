//! `medallion docs --html`: the project and its lake as one page that needs nothing else: no server, no network, no
//! second file. Made of the same declarations and logs that the engine runs on, so it cannot say anything else; the same
//! project and lake always give the same bytes.
//!
//! Whatever stands in data, descriptions or names is text: [`html`] escapes by construction, and a content security policy
//! lets nothing run or load that is not the page's own.

mod atlas;
mod calendar;
mod checks;
mod columns;
mod contract;
mod dictionary;
mod facts;
mod graph;
mod html;
mod nulls;
mod page;
mod picture;
mod plot;
mod runs;
mod serving;
mod sql;
mod trends;
mod words;

use std::path::Path;
use std::sync::Arc;

use self::atlas::{Atlas, LANDING};
use self::facts::Facts;
use super::Places;
use crate::error::{During, Error, Result};
use crate::project::Project;
use crate::project::sql::TableName;
use crate::telemetry::Progress;

/// The page's name in its folder.
const INDEX: &str = "index.html";

/// All that the page is made of.
struct Site<'a> {
    project: &'a Project,
    atlas: Atlas,
    /// `None` without a lake.
    facts: Option<Facts>,
}

impl Site<'_> {
    /// Whether a table has a section.
    fn has(&self, table: &TableName) -> bool {
        table.schema != LANDING && self.atlas.find(table).is_some()
    }

    /// The tables of a zone that have a section, by name.
    fn tables_of(&self, zone: &str) -> Vec<TableName> {
        let names = self.atlas.nodes.iter().map(|node| &node.name);
        names.filter(|name| name.schema == zone && self.has(name)).cloned().collect()
    }
}

/// Writes the page into `folder`, from the project and, if `with_lake`, from what its lake says.
///
/// # Errors
/// `Usage` where the folder can't be written; the stores'.
pub async fn write(places: &Places, folder: &Path, with_lake: bool) -> Result<String> {
    let project = places.load().await?;
    let facts = match with_lake {
        true => facts_of(places, &project).await?,
        false => None,
    };
    let page = page(&project, facts).await?;
    let written = || -> std::io::Result<std::path::PathBuf> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(INDEX);
        // whoever looks meanwhile sees the old page or the new one
        let new = folder.join(format!(".{INDEX}.tmp"));
        std::fs::write(&new, &page)?;
        std::fs::rename(&new, &path)?;
        Ok(path)
    };
    let path = written().map_err(|error| {
        Error::usage(format!("can't write the site to `{}`; name another folder", folder.display()))
            .because(error)
    })?;
    Ok(format!("{} ({})", path.display(), words::bytes(i64::try_from(page.len()).unwrap_or(i64::MAX))))
}

async fn page(project: &Project, facts: Option<Facts>) -> Result<String> {
    let site = Site { project, atlas: Atlas::of(project).await?, facts };
    Ok(page::document(&site))
}

/// `None` where there is no lake: looking at one must not make one.
async fn facts_of(places: &Places, project: &Arc<Project>) -> Result<Option<Facts>> {
    let Some(lake) = places.lake_if_any(project).await? else {
        return Ok(None);
    };
    let run = places.open_on(Arc::clone(project), lake, Progress::new(false)).await?;
    facts::gather(&run).await.during(|| "gathering what the lake says".to_owned())
}
