//! What datasets and jobs are called: <https://openlineage.io/docs/spec/naming>. A dataset is named by where it is kept, so
//! that whatever else reads or writes the same place means the same dataset.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};
use url::Url;

use crate::flow::dirty::stored_table;
use crate::project::Project;
use crate::project::lineage::{ColumnName, Lineage};
use crate::project::sql::TableName;
use crate::telemetry::variable;
use crate::zone;

/// The zone that lineage has for what lands.
const LANDING: &str = "landing";

/// Where a project's jobs and datasets are.
#[derive(Debug, Clone)]
pub struct Names {
    /// The namespace of jobs.
    pub jobs: String,
    pub lake: Option<Url>,
    pub landing: Option<Url>,
    /// The project's folder: reference tables.
    pub folder: PathBuf,
}

/// A dataset's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dataset {
    pub namespace: String,
    pub name: String,
}

impl Dataset {
    pub fn to_json(&self) -> Value {
        json!({"namespace": self.namespace, "name": self.name})
    }

    /// An object or a folder below a place.
    fn below(root: &Url, path: &str) -> Dataset {
        let decoded = |text: &str| match Url::parse(&format!("file://{text}")).map(|url| url.to_file_path()) {
            Ok(Ok(path)) => path.to_string_lossy().into_owned(),
            _ => text.to_owned(),
        };
        let root_path = root.path().trim_end_matches('/');
        let host = root.host_str().unwrap_or_default();
        let key = format!("{}/{path}", decoded(root_path));
        let (namespace, name) = match root.scheme() {
            "file" => ("file".to_owned(), key),
            "s3" | "s3a" => (format!("s3://{host}"), key.trim_start_matches('/').to_owned()),
            "gs" => (format!("gs://{host}"), key.trim_start_matches('/').to_owned()),
            "az" | "azure" | "adl" | "abfs" | "abfss" => {
                let (container, account) = match root.username() {
                    // `az://container/…`
                    "" => (host, variable("AZURE_STORAGE_ACCOUNT_NAME")),
                    // `abfss://container@account.dfs.core.windows.net/…`
                    container => (container, host.split('.').next().map(str::to_owned)),
                };
                let account = account.unwrap_or_else(|| "unknown".to_owned());
                (format!("abfss://{container}@{account}.dfs.core.windows.net"), key)
            }
            scheme => (format!("{scheme}://{host}"), key),
        };
        Dataset { namespace, name }
    }

    /// A serving table.
    pub fn served(store: &str, keyspace: &str, table: &str) -> Dataset {
        Dataset { namespace: store.to_owned(), name: format!("{keyspace}.{table}") }
    }
}

impl Names {
    /// The dataset of a stored table, of a source's files, or of a reference table. `None` where its place is not known.
    pub fn of(&self, project: &Project, table: &TableName) -> Option<Dataset> {
        match table.schema.as_str() {
            LANDING => {
                let files = project.source(&table.table).map_or(table.table.as_str(), |source| &source.files);
                Some(Dataset::below(self.landing.as_ref()?, files))
            }
            zone::REFERENCE => {
                let folder = std::path::absolute(&self.folder).ok()?;
                let root = Url::from_directory_path(folder).ok()?;
                Some(Dataset::below(&root, &format!("sql/reference/{}.csv", table.table)))
            }
            schema => Some(Dataset::below(self.lake.as_ref()?, &format!("{schema}/{}", table.table))),
        }
    }
}

/// The stored tables that a table's query reads: views are looked through, what is accepted of a source is its bronze.
pub fn stored_inputs(project: &Project, lineage: &Lineage, table: &TableName) -> BTreeSet<TableName> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<TableName> = lineage.tables.get(table).into_iter().flatten().cloned().collect();
    while let Some(input) = waiting.pop() {
        let stored = stored_table(&input);
        if !seen.insert(stored.clone()) {
            continue;
        }
        match project.model(&stored) {
            Some(view) if view.is_view => {
                waiting.extend(lineage.tables.get(&stored).into_iter().flatten().cloned())
            }
            _ => {
                found.insert(stored);
            }
        }
    }
    found
}

/// The columns of stored tables that a column's values are computed from.
pub fn stored_columns(project: &Project, lineage: &Lineage, column: &ColumnName) -> BTreeSet<ColumnName> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<ColumnName> = lineage.columns.get(column).into_iter().flatten().cloned().collect();
    while let Some(source) = waiting.pop() {
        if !seen.insert(source.clone()) {
            continue;
        }
        let is_derived = matches!(source.table.schema.as_str(), zone::ACCEPTED | zone::VERSIONS)
            || project.model(&source.table).is_some_and(|model| model.is_view);
        match is_derived {
            true => waiting.extend(lineage.columns.get(&source).into_iter().flatten().cloned()),
            false => {
                found.insert(source);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets_are_named_by_their_place() {
        let named = |root: &str| {
            let found = Dataset::below(&Url::parse(root).unwrap(), "gold/daily");
            (found.namespace, found.name)
        };
        let pair = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        assert_eq!(named("file:///srv/my%20lake/"), pair("file", "/srv/my lake/gold/daily"));
        assert_eq!(named("s3://bucket/lake/prod"), pair("s3://bucket", "lake/prod/gold/daily"));
        assert_eq!(named("s3://bucket"), pair("s3://bucket", "gold/daily"));
        assert_eq!(
            named("abfss://lake@company.dfs.core.windows.net/prod"),
            pair("abfss://lake@company.dfs.core.windows.net", "/prod/gold/daily")
        );
        assert_eq!(named("gs://bucket/lake"), pair("gs://bucket", "lake/gold/daily"));
    }
}
