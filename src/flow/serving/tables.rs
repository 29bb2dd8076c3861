//! Gold as a run has left it so far. It stays as it is while the run goes on, so that publishing may take its time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SessionState;
use datafusion::prelude::SessionContext;

use super::super::Run;
use crate::engine;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::lake::scan::LakeScan;
use crate::lake::table::Table;
use crate::project::mart::Mart;
use crate::project::sql::TableName;
use crate::telemetry::Progress;

/// The tables of the project's marts, each at one version.
pub struct GoldTables {
    lake: Lake,
    state: SessionState,
    tables: HashMap<TableName, GoldTable>,
    pub(super) progress: Progress,
}

struct GoldTable {
    table: Table,
    schema: SchemaRef,
    partition: Vec<String>,
    /// Its rows, where the run still has them.
    rows: Option<Arc<Vec<RecordBatch>>>,
}

impl GoldTables {
    /// # Errors
    /// As [`Run::table`].
    pub fn of(run: &Run) -> Result<Self> {
        let mut tables = HashMap::new();
        for mart in &run.project.marts {
            let name = mart.gold();
            let table = run.table(&name)?.clone();
            let (schema, partition) = run.declared(&name)?;
            let rows = run.cached(&table);
            tables.insert(name, GoldTable { table, schema, partition, rows });
        }
        Ok(Self { lake: run.lake.clone(), state: run.state.clone(), tables, progress: run.progress.clone() })
    }

    fn get(&self, mart: &Mart) -> Result<&GoldTable> {
        let name = mart.gold();
        self.tables.get(&name).ok_or_else(|| Error::bug(format!("the table `{name}` is not open")))
    }

    /// # Errors
    /// `Bug` where the mart is not the project's.
    pub(super) fn of_mart(&self, mart: &Mart) -> Result<&Table> {
        Ok(&self.get(mart)?.table)
    }

    /// Its columns, and its partition columns.
    pub(super) fn declared(&self, mart: &Mart) -> Result<(SchemaRef, Vec<String>)> {
        let found = self.get(mart)?;
        Ok((Arc::clone(&found.schema), found.partition.clone()))
    }

    /// All of its rows.
    pub(super) fn scan(&self, mart: &Mart) -> Result<LakeScan> {
        let found = self.get(mart)?;
        let schema = Arc::clone(&found.schema);
        match &found.rows {
            Some(rows) => Ok(LakeScan::in_memory(schema, Arc::clone(rows))),
            None => LakeScan::new(&found.table, schema, &found.partition, None),
        }
    }

    pub(super) fn context(&self) -> SessionContext {
        engine::context(&self.state)
    }

    /// A name that no other publisher gets.
    pub(super) fn unique_name(&self) -> String {
        self.lake.unique_name()
    }
}
