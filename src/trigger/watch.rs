//! Rows of a query that are new: asked again after each refresh, over the dates that have changed only.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, Hasher};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::row::{RowConverter, SortField};
use datafusion::prelude::SessionContext;

use crate::engine;
use crate::error::{During, Error, Result};
use crate::flow::{Run, dirty, inputs};
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
    /// The versions that were looked at.
    looked_at: BTreeMap<TableName, i64>,
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
            shown: HashSet::new(),
            hasher: ahash::RandomState::new(),
            show,
        };
        found.looked_at = found.versions(run);
        Ok(found)
    }

    fn versions(&self, run: &Run) -> BTreeMap<TableName, i64> {
        let tables = self.inputs.iter().map(dirty::stored_table);
        tables.filter_map(|name| Some((name.clone(), run.table(&name).ok()?.version()))).collect()
    }

    /// Shows the rows that were not there before.
    ///
    /// # Errors
    /// Those of the query, and of showing.
    pub async fn look(&mut self, run: &Run) -> Result<()> {
        let versions = self.versions(run);
        if versions == self.looked_at {
            return Ok(());
        }
        let mut dates = BTreeSet::new();
        for name in versions.keys() {
            let since = self.looked_at.get(name).copied().unwrap_or(-1);
            let changed = run.table(name)?.changed_since(since, 1).await?;
            dates.extend(dirty::dates_of(changed.unwrap_or_default()));
        }
        self.looked_at = versions;
        let rows = self.rows(run, &dates).await.during(|| format!("watching `{}`", self.name))?;
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
