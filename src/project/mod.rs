//! What is declared: a project folder, read once, validated, and then a value that cannot be wrong.
//!
//! [`Project::load`] reads `medallion.toml`, `sql/` and `cql/`, reports every problem at once with file and line, and
//! touches no data. No table, column or rule of a domain is known here or anywhere else in the engine.

pub mod alerts;
pub mod check;
pub mod contact;
pub mod cql;
pub mod cql_type;
pub mod diagnostics;
pub mod fingerprint;
mod graph;
pub mod lenient;
pub mod lineage;
pub mod manifest;
pub mod mart;
pub mod model;
mod read;
pub mod source;
pub mod sql;
pub mod stream;
mod validate;

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;

use self::alerts::AlertManifest;
use self::check::Check;
use self::cql_type::CqlType;
use self::diagnostics::Problems;
use self::manifest::{Limits, OpenLineageManifest, ParameterManifest, ServingManifest};
use self::mart::Mart;
use self::model::Model;
use self::source::Source;
use self::stream::StreamLimits;
use crate::error::{Error, Result};

/// A project that was found correct.
#[derive(Debug, Clone)]
pub struct Project {
    pub folder: PathBuf,
    pub name: String,
    pub description: String,
    pub landing: Option<String>,
    pub lake: Option<String>,
    pub limits: Limits,
    pub stream: StreamLimits,
    pub serving: Option<ServingManifest>,
    pub alerts: Vec<AlertManifest>,
    pub openlineage: OpenLineageManifest,
    /// By name.
    pub sources: Vec<Source>,
    /// Inputs before outputs.
    pub models: Vec<Model>,
    pub references: Vec<Reference>,
    pub checks: Vec<Check>,
    pub questions: Vec<Question>,
    /// What is published, by name.
    pub marts: Vec<Mart>,
    pub generators: Vec<Generator>,
    pub watches: Vec<Watch>,
}

/// A query whose new rows a stream shows: `sql/watch/<name>.sql`.
#[derive(Debug, Clone)]
pub struct Watch {
    pub name: String,
    pub sql: String,
}

/// A small table that is kept with the project: `sql/reference/<name>.csv`.
#[derive(Debug, Clone)]
pub struct Reference {
    pub name: String,
    pub rows: RecordBatch,
    /// Changes when its values change.
    pub fingerprint: String,
}

/// A question that BI asks: `cql/questions/<name>.cql`.
#[derive(Debug, Clone)]
pub struct Question {
    pub name: String,
    pub file: PathBuf,
    pub title: String,
    pub parameters: Vec<(String, ParameterManifest)>,
    pub cql: String,
    /// The same question for gold, with `$named` markers.
    pub gold_sql: String,
    pub table: String,
    /// The parameter that bounds the number of rows.
    pub limit: Option<String>,
    /// The table's columns that are collections, and their types.
    pub collections: Vec<(String, CqlType)>,
}

/// A query that makes landing data: `sql/landing/<source>.sql`.
#[derive(Debug, Clone)]
pub struct Generator {
    pub source: String,
    pub file: PathBuf,
    pub sql: String,
}

impl Project {
    /// Reads and validates the project in `folder`.
    ///
    /// # Errors
    /// `Project`, listing every problem with file and line.
    pub async fn load(folder: &Path) -> Result<Project> {
        match Self::check(folder).await? {
            Ok(project) => Ok(project),
            Err(problems) => Err(problems.to_error()),
        }
    }

    /// As [`Project::load`], with the problems as values.
    ///
    /// # Errors
    /// `Usage` where there is no project in the folder.
    pub async fn check(folder: &Path) -> Result<std::result::Result<Project, Problems>> {
        if !folder.join(read::PROJECT_FILE).is_file() {
            return Err(Error::usage(format!(
                "there is no `medallion.toml` in `{}`; name the project's folder with `--project`",
                folder.display()
            )));
        }
        let mut found = diagnostics::Diagnostics::default();
        let written = read::read(folder, &mut found);
        let project = validate::validate(folder, written, &mut found).await;
        Ok(match project {
            Some(project) if found.is_empty() => Ok(project),
            _ => Err(found.into_problems()),
        })
    }

    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.name == name)
    }

    pub fn model(&self, table: &sql::TableName) -> Option<&Model> {
        self.models.iter().find(|model| model.table == *table)
    }

    /// The models whose result is stored, inputs before outputs.
    pub fn stored_models(&self) -> impl Iterator<Item = &Model> {
        self.models.iter().filter(|model| !model.is_view)
    }

    /// The checks that keep bad partitions out of the table.
    pub fn guards_of<'a>(&'a self, table: &'a sql::TableName) -> impl Iterator<Item = &'a Check> {
        self.checks.iter().filter(move |check| check.guards.as_ref() == Some(table))
    }

    /// # Errors
    /// `Usage`, listing the questions that there are.
    pub fn question(&self, name: &str) -> Result<&Question> {
        self.questions.iter().find(|question| question.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.questions.iter().map(|q| q.name.as_str()).collect();
            Error::usage(format!("unknown question `{name}`, known: {}", known.join(", ")))
        })
    }
}
