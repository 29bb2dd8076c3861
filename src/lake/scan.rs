//! A table version as a DataFusion table: Parquet files found in the log, never by listing folders.
//!
//! Partition columns come from the log, files whose partition can't match a filter are not opened. The plan is an
//! ordinary Parquet scan, so it can be serialised and run elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::log::Add;
use super::partition::{PartitionKey, decode, partition_key};
use super::table::Table;
use crate::error::{Error, Result};

/// Reading this much from the end of a file usually brings its whole footer in one request.
const FOOTER_HINT: usize = 16 * 1024;

/// The name under which every session knows the lake's store.
pub fn store_url() -> DfResult<ObjectStoreUrl> {
    ObjectStoreUrl::parse("lake://lake")
}

/// Rows of one table at one version.
#[derive(Debug)]
pub struct LakeScan {
    schema: SchemaRef,
    num_partition_columns: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Files(Vec<PartitionedFile>),
    /// What the same process has just written and still holds.
    Memory(Arc<Vec<RecordBatch>>),
}

impl LakeScan {
    /// The table's rows, of all partitions or of those whose first values are listed.
    ///
    /// `schema` is what the project declares; columns that older files lack read as null.
    ///
    /// # Errors
    /// `Data` where the log does not fit the schema.
    pub fn new(
        table: &Table,
        schema: SchemaRef,
        partition: &[String],
        only: Option<&BTreeSet<PartitionKey>>,
    ) -> Result<Self> {
        let mut files = Vec::new();
        if let Some(snapshot) = table.snapshot() {
            let columns = &snapshot.metadata.partition_columns;
            if columns != partition {
                return Err(Error::data(format!(
                    "`{}` is partitioned by `{}`, the project says `{}`; run with `--full-refresh`",
                    table.name(),
                    columns.join(", "),
                    partition.join(", ")
                )));
            }
            let depth = only.and_then(|keys| keys.first()).map_or(0, Vec::len);
            for file in snapshot.files.values() {
                let key = partition_key(columns, &file.partition_values, depth);
                if only.is_none_or(|keys| keys.contains(&key)) {
                    files.push(partitioned_file(table.root(), &schema, partition, file)?);
                }
            }
        }
        Ok(Self { schema, num_partition_columns: partition.len(), content: Content::Files(files) })
    }

    /// The rows of some files of a version of `table`.
    ///
    /// # Errors
    /// `Data` where the log does not fit the schema.
    pub fn of_version_files<'a>(
        table: &Table,
        schema: SchemaRef,
        partition: &[String],
        files: impl IntoIterator<Item = &'a Arc<Add>>,
    ) -> Result<Self> {
        let files = files
            .into_iter()
            .map(|file| partitioned_file(table.root(), &schema, partition, file))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { schema, num_partition_columns: partition.len(), content: Content::Files(files) })
    }

    /// The rows of some files of the table, by their paths in the log.
    ///
    /// # Errors
    /// As [`LakeScan::new`].
    pub fn of_files(
        table: &Table,
        schema: SchemaRef,
        partition: &[String],
        paths: &BTreeSet<String>,
    ) -> Result<Self> {
        let files = table.snapshot().into_iter().flat_map(|snapshot| snapshot.files.values());
        let files = files
            .filter(|file| paths.contains(&file.path))
            .map(|file| partitioned_file(table.root(), &schema, partition, file))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { schema, num_partition_columns: partition.len(), content: Content::Files(files) })
    }

    /// How many rows it has, as the log says.
    pub fn num_rows(&self) -> u64 {
        match &self.content {
            Content::Memory(batches) => batches.iter().map(|batch| batch.num_rows() as u64).sum(),
            Content::Files(files) => {
                let of_files = files.iter().filter_map(|file| file.statistics.as_ref()?.num_rows.get_value());
                of_files.map(|rows| *rows as u64).sum()
            }
        }
    }

    /// Rows that are still in memory.
    pub fn in_memory(schema: SchemaRef, batches: Arc<Vec<RecordBatch>>) -> Self {
        Self { schema, num_partition_columns: 0, content: Content::Memory(batches) }
    }

    fn file_schema(&self) -> SchemaRef {
        let num_file_columns = self.schema.fields().len() - self.num_partition_columns;
        Arc::new(Schema::new(self.schema.fields()[..num_file_columns].to_vec()))
    }

    fn names_only_partition_columns(&self, filter: &Expr) -> bool {
        let partition = &self.schema.fields()[self.schema.fields().len() - self.num_partition_columns..];
        let columns = filter.column_refs();
        !columns.is_empty()
            && columns.iter().all(|column| partition.iter().any(|field| *field.name() == column.name))
    }

    /// The files that can hold rows for the filters, judged by their partition values.
    fn prune(
        &self,
        state: &dyn Session,
        files: &[PartitionedFile],
        filters: &[Expr],
    ) -> DfResult<Vec<PartitionedFile>> {
        let exact = filters.iter().filter(|filter| self.names_only_partition_columns(filter));
        let Some(predicate) = conjunction(exact.cloned()) else {
            return Ok(files.to_vec());
        };
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let num_file_columns = self.schema.fields().len() - self.num_partition_columns;
        let fields = self.schema.fields()[num_file_columns..].to_vec();
        let schema = Arc::new(Schema::new(fields));
        let columns = (0..self.num_partition_columns)
            .map(|index| {
                let values = files.iter().map(|file| file.partition_values[index].clone());
                ScalarValue::iter_to_array(values)
            })
            .collect::<DfResult<Vec<ArrayRef>>>()?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let df_schema = DFSchema::try_from(schema)?;
        let physical = state.create_physical_expr(predicate, &df_schema)?;
        let matches = physical.evaluate(&batch)?.into_array(files.len())?;
        let matches = matches.as_boolean();
        let kept = files.iter().zip(matches.iter()).filter(|(_, is_match)| *is_match == Some(true));
        Ok(kept.map(|(file, _)| file.clone()).collect())
    }
}

fn partitioned_file(
    root: &Path,
    schema: &SchemaRef,
    partition: &[String],
    file: &Arc<Add>,
) -> Result<PartitionedFile> {
    let damaged = |error| Error::data(format!("`{}` in the log is damaged", file.path)).because(error);
    let location = Path::parse(format!("{root}/{}", decode(&file.path)?))
        .map_err(|error| Error::data(format!("`{}` is no object path", file.path)).because(error))?;
    let mut values = Vec::with_capacity(partition.len());
    for column in partition {
        let data_type = schema.field_with_name(column)?.data_type();
        let value = match file.partition_values.get(column).cloned().flatten() {
            None => ScalarValue::try_from(data_type).map_err(damaged)?,
            Some(text) => scalar(&text, data_type).map_err(damaged)?,
        };
        values.push(value);
    }
    let num_rows = usize::try_from(file.num_records()).unwrap_or(usize::MAX);
    let mut statistics = Statistics::new_unknown(&Schema::new(
        schema.fields()[..schema.fields().len() - partition.len()].to_vec(),
    ));
    statistics.num_rows = Precision::Exact(num_rows);
    let meta = ObjectMeta {
        location,
        last_modified: chrono::DateTime::from_timestamp_millis(file.modification_time).unwrap_or_default(),
        size: u64::try_from(file.size).unwrap_or(0),
        e_tag: None,
        version: None,
    };
    Ok(PartitionedFile::new_from_meta(meta)
        .with_partition_values(values)
        .with_statistics(Arc::new(statistics))
        .with_metadata_size_hint(FOOTER_HINT))
}

fn scalar(text: &str, data_type: &DataType) -> DfResult<ScalarValue> {
    ScalarValue::try_from_string(text.to_owned(), data_type)
}

#[async_trait]
impl TableProvider for LakeScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let target_partitions = state.config().target_partitions();
        let files = match &self.content {
            Content::Files(files) => files,
            Content::Memory(batches) => {
                let partitions = deal(batches, target_partitions, &self.schema)?;
                let plan = MemorySourceConfig::try_new_exec(
                    &partitions,
                    Arc::clone(&self.schema),
                    projection.cloned(),
                )?;
                return Ok(plan);
            }
        };
        let files = self.prune(state, files, filters)?;
        let num_file_columns = self.schema.fields().len() - self.num_partition_columns;
        let partition_fields = self.schema.fields()[num_file_columns..].to_vec();
        let table_schema =
            TableSchema::builder(self.file_schema()).with_table_partition_cols(partition_fields).build();
        let mut source = ParquetSource::new(table_schema);
        if let Some(predicate) = conjunction(filters.iter().cloned()) {
            let df_schema = DFSchema::try_from(Arc::clone(&self.schema))?;
            source = source.with_predicate(state.create_physical_expr(predicate, &df_schema)?);
        }
        let mut statistics = Statistics::new_unknown(&self.schema);
        let num_rows = files.iter().map(|file| match &file.statistics {
            Some(statistics) => statistics.num_rows.get_value().copied().unwrap_or(0),
            None => 0,
        });
        statistics.num_rows = Precision::Exact(num_rows.sum());
        let num_bytes: u64 = files.iter().map(|file| file.object_meta.size).sum();
        statistics.total_byte_size = Precision::Inexact(usize::try_from(num_bytes).unwrap_or(usize::MAX));
        let config = FileScanConfigBuilder::new(store_url()?, Arc::new(source))
            .with_file_groups(group(files, target_partitions))
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let in_memory = matches!(self.content, Content::Memory(_));
        Ok(filters
            .iter()
            .map(|filter| match in_memory {
                true => TableProviderFilterPushDown::Unsupported,
                false if self.names_only_partition_columns(filter) => TableProviderFilterPushDown::Exact,
                false => TableProviderFilterPushDown::Inexact,
            })
            .collect())
    }
}

/// Files in as many groups as there are cores, of about the same size: the largest first into the lightest group.
fn group(mut files: Vec<PartitionedFile>, num_groups: usize) -> Vec<FileGroup> {
    files.sort_by_key(|file| std::cmp::Reverse(file.object_meta.size));
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> =
        (0..num_groups.clamp(1, files.len().max(1))).map(|_| (0, Vec::new())).collect();
    for file in files {
        if let Some(lightest) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            lightest.0 += file.object_meta.size;
            lightest.1.push(file);
        }
    }
    groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect()
}

/// Batches in memory, dealt to as many partitions as there are cores; long ones are cut so that all get work.
fn deal(
    batches: &[RecordBatch],
    num_partitions: usize,
    schema: &SchemaRef,
) -> DfResult<Vec<Vec<RecordBatch>>> {
    const ROWS: usize = 8192;
    let mut partitions: Vec<Vec<RecordBatch>> = vec![Vec::new(); num_partitions.max(1)];
    let mut next = 0;
    for batch in batches {
        let mut offset = 0;
        while offset < batch.num_rows() {
            let length = ROWS.min(batch.num_rows() - offset);
            let num = partitions.len();
            partitions[next % num].push(batch.slice(offset, length));
            next += 1;
            offset += length;
        }
    }
    if let Some(first) = partitions.first_mut()
        && first.is_empty()
    {
        first.push(RecordBatch::new_empty(Arc::clone(schema)));
    }
    Ok(partitions)
}

/// All batches as one.
///
/// # Errors
/// `Data` where the batches do not fit together.
pub fn concat_batches(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    if let [batch] = batches {
        return Ok(batch.clone());
    }
    if batches.is_empty() {
        return Ok(RecordBatch::new_empty(Arc::clone(schema)));
    }
    let columns = (0..schema.fields().len())
        .map(|index| {
            let parts: Vec<_> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
            concat(&parts)
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
