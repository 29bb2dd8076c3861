//! Rows of a query that are new: asked again after each refresh, over the dates that have changed only.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::row::{RowConverter, SortField};
use datafusion::prelude::SessionContext;

use crate::engine;
use crate::error::{During, Error, Result};
use crate::flow::{Run, dirty, inputs};
use crate::lake::table::Table;
use crate::project::sql::{self, TableName};
use crate::zone;

/// So many rows are remembered as shown; then the oldest knowledge is dropped, and a row may be shown again.
const REMEMBERED_ROWS: usize = 1_000_000;

/// What becomes of new rows.
pub type Show = Box<dyn FnMut(&[RecordBatch]) -> Result<()> + Send>;

/// A query whose new rows are shown.
pub struct Watch {
    name: String,
    query: String,
    inputs: BTreeSet<TableName>,
    /// The tables as they were looked at.
    looked_at: BTreeMap<TableName, Table>,
    /// Dates whose rows from before are known not to be new.
    known_dates: BTreeSet<i32>,
    has_looked: bool,
    shown: HashSet<u64>,
    hasher: ahash::RandomState,
    show: Show,
}

impl Watch {
    /// Watches from now on: what the tables hold already is not new.
    ///
    /// # Errors
    /// `Usage` where the project has no such watch.
    pub fn begin(run: &Run, name: &str, show: Show) -> Result<Watch> {
        let Some(watch) = run.project.watches.iter().find(|watch| watch.name == name) else {
            let known: Vec<&str> = run.project.watches.iter().map(|watch| watch.name.as_str()).collect();
            return Err(Error::usage(match known.is_empty() {
                true => format!("unknown watch `{name}`; write the query to `sql/watch/{name}.sql`"),
                false => format!("unknown watch `{name}`, known: {}", known.join(", ")),
            }));
        };
        let inputs = sql::inputs(&watch.sql).map_err(|(_, message)| Error::project(message))?;
        let mut found = Watch {
            name: name.to_owned(),
            query: watch.sql.clone(),
            inputs,
            looked_at: BTreeMap::new(),
            known_dates: BTreeSet::new(),
            has_looked: false,
            shown: HashSet::new(),
            hasher: ahash::RandomState::new(),
            show,
        };
        found.looked_at = found.tables(run);
        Ok(found)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn tables(&self, run: &Run) -> BTreeMap<TableName, Table> {
        let names = self.inputs.iter().map(dirty::stored_table);
        names.filter_map(|name| Some((name.clone(), run.table(&name).ok()?.clone()))).collect()
    }

    /// Shows the rows that were not there before.
    ///
    /// # Errors
    /// Those of the query, and of showing.
    pub async fn look(&mut self, run: &Run) -> Result<()> {
        let tables = self.tables(run);
        let version_before = |name: &TableName| self.looked_at.get(name).map_or(-1, Table::version);
        if tables.iter().all(|(name, table)| table.version() == version_before(name)) {
            return Ok(());
        }
        let mut dates = BTreeSet::new();
        for (name, table) in &tables {
            let changed = table.changed_since(version_before(name), 1).await?;
            dates.extend(dirty::dates_of(changed.unwrap_or_default()));
        }
        let during = || format!("watching `{}`", self.name);
        let unknown: BTreeSet<i32> = &dates - &self.known_dates;
        let rows = self.rows(run, &dates).await.during(during)?;
        let before = match self.has_looked && unknown.is_empty() {
            true => Vec::new(),
            // the query is right, so it is the files of then that are wrong: a vacuum has deleted them
            false => self.rows_before(run, &unknown).await.unwrap_or_else(|error| {
                tracing::warn!("{}: {error}; rows that were there before may be shown as new", during());
                Vec::new()
            }),
        };
        for batch in &before {
            self.new_rows(batch)?;
        }
        self.known_dates.extend(unknown);
        self.has_looked = true;
        self.looked_at = tables;
        let rows = rows.iter().map(|batch| self.new_rows(batch)).collect::<Result<Vec<_>>>()?;
        if rows.iter().any(|batch| batch.num_rows() > 0) {
            (self.show)(&rows)?;
        }
        Ok(())
    }

    async fn rows(&self, run: &Run, dates: &BTreeSet<i32>) -> Result<Vec<RecordBatch>> {
        let context: SessionContext = engine::context(&run.state);
        inputs::register_references(run, &context)?;
        for input in self.inputs.iter().filter(|input| input.schema != zone::REFERENCE) {
            let partition = run.declared(&dirty::stored_table(input))?.1;
            let wanted = (!partition.is_empty()).then(|| dates.clone());
            inputs::register_input(run, &context, input, wanted).await?;
        }
        Ok(context.sql(&self.query).await?.collect().await?)
    }

    /// The rows of these dates when the tables were looked at last. What a source's rules accept has no past: a watch over
    /// `accepted.*` shows what a date had already.
    async fn rows_before(&self, run: &Run, dates: &BTreeSet<i32>) -> Result<Vec<RecordBatch>> {
        let context: SessionContext = engine::context(&run.state);
        inputs::register_references(run, &context)?;
        for input in self.inputs.iter().filter(|input| input.schema != zone::REFERENCE) {
            let stored = dirty::stored_table(input);
            let Some(table) = self.looked_at.get(&stored).filter(|_| stored == *input) else {
                return Ok(Vec::new());
            };
            let (schema, partition) = run.declared(&stored)?;
            let wanted = (!partition.is_empty()).then(|| dates.clone());
            let rows = run.scan(table, schema, &partition, wanted.as_ref())?;
            engine::register(&context, input, Arc::new(rows));
        }
        Ok(context.sql(&self.query).await?.collect().await?)
    }

    fn new_rows(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let fields = batch.columns().iter().map(|column| SortField::new(column.data_type().clone()));
        let rows = RowConverter::new(fields.collect())?.convert_columns(batch.columns())?;
        if self.shown.len() > REMEMBERED_ROWS {
            self.shown.clear();
        }
        let is_new: BooleanArray = rows
            .iter()
            .map(|row| {
                let mut hasher = self.hasher.build_hasher();
                hasher.write(row.as_ref());
                Some(self.shown.insert(hasher.finish()))
            })
            .collect();
        Ok(filter_record_batch(batch, &is_new)?)
    }
}
