//! What runs did, kept as Delta tables beside the zones: `ledger.<table>`.
//!
//! `files` is written *before* a batch is processed, so that a replay after a crash is the same batch. The others
//! report what the zones' own commits already say; where a crash came in between, they are completed by the next run.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{During, Result};
use crate::lake::Lake;
use crate::lake::commit::{Change, Commit, Outcome};
use crate::lake::log::{self, Action};
use crate::lake::partition::decode;
use crate::lake::schema::from_delta;
use crate::lake::table::Table;
use crate::project::source::timestamp_type;
use crate::zone;

/// Digits of a balance's sums.
pub const SUM_TYPE: DataType = DataType::Decimal128(38, 6);

fn schema(fields: Vec<(&str, DataType)>) -> SchemaRef {
    let fields: Vec<Field> =
        fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
    Arc::new(Schema::new(fields))
}

/// Every ledger table and its columns.
pub fn schemas() -> [(&'static str, SchemaRef); 7] {
    [
        ("files", files_schema()),
        ("landed", landed_schema()),
        ("decisions", decisions_schema()),
        ("balances", balances_schema()),
        ("checks", checks_schema()),
        ("runs", runs_schema()),
        ("interventions", interventions_schema()),
    ]
}

/// Files that a batch takes in, written ahead.
pub fn files_schema() -> SchemaRef {
    schema(vec![
        ("batch_id", DataType::Int64),
        ("source", DataType::Utf8View),
        ("path", DataType::Utf8View),
        ("bytes", DataType::Int64),
        ("modified", timestamp_type()),
        ("file_time", timestamp_type()),
    ])
}

/// What each file was found to hold.
pub fn landed_schema() -> SchemaRef {
    schema(vec![
        ("batch_id", DataType::Int64),
        ("source", DataType::Utf8View),
        ("path", DataType::Utf8View),
        ("hash", DataType::Utf8View),
        ("landed", DataType::Int64),
        ("typed", DataType::Int64),
        ("quarantined", DataType::Int64),
        ("money", DataType::Utf8View),
        ("warnings", DataType::Utf8View),
        ("late", DataType::Utf8View),
    ])
}

/// What became of each bronze record, by date (null date: the whole source).
pub fn decisions_schema() -> SchemaRef {
    schema(vec![
        ("source", DataType::Utf8View),
        ("accepted", DataType::Int64),
        ("duplicates", DataType::Int64),
        ("superseded", DataType::Int64),
        ("quarantined", DataType::Int64),
        ("money", DataType::Utf8View),
        ("warnings", DataType::Utf8View),
        ("date", DataType::Date32),
        ("fingerprint", DataType::Utf8View),
    ])
}

/// What operators decided over refused records, written ahead: a record that was let in again, as it landed or edited, or
/// discarded. `raw` is what landed, `edited` what stands for it since.
pub fn interventions_schema() -> SchemaRef {
    schema(vec![
        ("intervention_id", DataType::Int64),
        ("action", DataType::Utf8View),
        ("source", DataType::Utf8View),
        ("stage", DataType::Utf8View),
        ("error_type", DataType::Utf8View),
        ("reason", DataType::Utf8View),
        ("source_file", DataType::Utf8View),
        ("source_line", DataType::Int64),
        ("batch_id", DataType::Int64),
        ("raw", DataType::BinaryView),
        ("edited", DataType::BinaryView),
        ("note", DataType::Utf8View),
        ("operator", DataType::Utf8View),
        ("at", timestamp_type()),
        ("date", DataType::Date32),
    ])
}

/// The balance of each run: `landed = accepted + duplicates + superseded + quarantined`.
pub fn balances_schema() -> SchemaRef {
    schema(vec![
        ("run_id", DataType::Int64),
        ("scope", DataType::Utf8View),
        ("source", DataType::Utf8View),
        ("measure", DataType::Utf8View),
        ("landed", SUM_TYPE),
        ("accepted", SUM_TYPE),
        ("duplicates", SUM_TYPE),
        ("superseded", SUM_TYPE),
        ("quarantined", SUM_TYPE),
        ("difference", SUM_TYPE),
    ])
}

/// How each check of each run ended. `dates` and `details` hold what the check says of single dates, separated by `; `.
pub fn checks_schema() -> SchemaRef {
    schema(vec![
        ("run_id", DataType::Int64),
        ("name", DataType::Utf8View),
        ("severity", DataType::Utf8View),
        ("outcome", DataType::Utf8View),
        ("rows_found", DataType::Int64),
        ("partitions_withheld", DataType::Int64),
        ("dates", DataType::Utf8View),
        ("details", DataType::Utf8View),
        ("checked", timestamp_type()),
    ])
}

/// Runs that changed something, with their whole report as JSON.
pub fn runs_schema() -> SchemaRef {
    schema(vec![
        ("run_id", DataType::Int64),
        ("command", DataType::Utf8View),
        ("started", timestamp_type()),
        ("finished", timestamp_type()),
        ("status", DataType::Utf8View),
        ("commits", DataType::Int64),
        ("report", DataType::Utf8View),
    ])
}

/// `ledger.steps`, which is no table of the lake: the steps that the reports in `ledger.runs` hold, one row each.
pub const STEPS: &str = "steps";

/// What each run did to each table. What a report of an older version does not say is null.
pub fn steps_schema() -> SchemaRef {
    schema(vec![
        ("run_id", DataType::Int64),
        ("command", DataType::Utf8View),
        ("step", DataType::Int64),
        ("table_name", DataType::Utf8View),
        ("scope", DataType::Utf8View),
        ("partitions", DataType::Int64),
        ("rows_written", DataType::Int64),
        ("unchanged", DataType::Int64),
        ("withheld", DataType::Int64),
        ("landed", DataType::Int64),
        ("quarantined", DataType::Int64),
        ("late", DataType::Int64),
        ("version", DataType::Int64),
        ("started", timestamp_type()),
        ("finished", timestamp_type()),
        ("seconds", DataType::Float64),
    ])
}

/// A batch column of integers.
pub fn integers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// A batch column of texts.
pub fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(values))
}

/// A batch column of UTC microseconds.
pub fn timestamps(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

/// A batch column of exact sums in millionths.
pub fn sums(values: impl IntoIterator<Item = i128>) -> ArrayRef {
    let array = Decimal128Array::from_iter_values(values).with_data_type(SUM_TYPE);
    Arc::new(array)
}

/// Reads a small table whole.
///
/// # Errors
/// The store's, and `Data` where a file is damaged.
pub async fn read(table: &Table) -> Result<Vec<RecordBatch>> {
    let Some(snapshot) = table.snapshot() else {
        return Ok(Vec::new());
    };
    let schema = from_delta(&snapshot.metadata.schema_string)?;
    let store = table.lake().store();
    let mut batches = Vec::new();
    for file in snapshot.files.values() {
        let path = object_store::path::Path::parse(format!("{}/{}", table.root(), decode(&file.path)?))
            .map_err(object_store::Error::from)?;
        let read = async {
            let bytes = store.get(&path).await?.bytes().await?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
            for batch in reader {
                batches.push(conform(&batch?, &schema)?);
            }
            Result::Ok(())
        };
        read.await.during(|| format!("reading `{path}` of `{}`", table.name()))?;
    }
    Ok(batches)
}

/// Reads what the newest commit with rows has appended; the whole table where a compaction has taken those files in.
/// So the last run's rows cost one file, however many runs there were.
///
/// # Errors
/// As [`read`].
pub async fn read_newest(table: &Table) -> Result<Vec<RecordBatch>> {
    const COMMITS_TO_LOOK_AT: i64 = 20;
    let Some(snapshot) = table.snapshot() else {
        return Ok(Vec::new());
    };
    let store = table.lake().store();
    for version in (0..=snapshot.version).rev().take(COMMITS_TO_LOOK_AT as usize) {
        let Ok(actions) = log::read_entry(store.as_ref(), table.root(), version).await else {
            break;
        };
        let added: Vec<String> = actions
            .into_iter()
            .filter_map(|action| match action {
                Action::Add(add) if add.data_change => Some(add.path),
                _ => None,
            })
            .collect();
        if added.is_empty() {
            continue;
        }
        let files: Vec<_> = added.iter().filter_map(|path| snapshot.files.get(path).cloned()).collect();
        if files.len() == added.len() {
            return read(&table.with_files(&snapshot.metadata, files)).await;
        }
        break;
    }
    read(table).await
}

/// The rows of a table whose first column is the run's number, with `rows` in the place of what a run has told before.
///
/// # Errors
/// As [`read`].
pub async fn with_rows_of_run(table: &Table, run_id: i64, rows: RecordBatch) -> Result<RecordBatch> {
    let mut kept = Vec::new();
    for batch in read(table).await? {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let of_others: BooleanArray = ids.iter().map(|id| Some(id != Some(run_id))).collect();
        kept.push(filter_record_batch(&batch, &of_others)?);
    }
    let schema = rows.schema();
    kept.push(rows);
    Ok(concat_batches(&schema, &kept)?)
}

/// Brings a batch to the schema; columns that an older file lacks are null.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) => cast(column, field.data_type()),
            None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Appends rows to a ledger table, once per `position`.
///
/// # Errors
/// Those of [`Table::commit`].
pub async fn append(table: &mut Table, rows: &RecordBatch, once: Option<(String, i64)>) -> Result<Outcome> {
    commit(table, rows, Change::Append, BTreeMap::new(), once).await
}

/// Appends rows and records the positions that they reflect.
///
/// # Errors
/// Those of [`Table::commit`].
pub async fn append_with_positions(
    table: &mut Table,
    rows: &RecordBatch,
    positions: BTreeMap<String, i64>,
) -> Result<Outcome> {
    commit(table, rows, Change::Append, positions, None).await
}

/// Replaces a ledger table's rows and records the positions that they reflect.
///
/// # Errors
/// Those of [`Table::commit`].
pub async fn replace(
    table: &mut Table,
    rows: &RecordBatch,
    positions: BTreeMap<String, i64>,
) -> Result<Outcome> {
    commit(table, rows, Change::ReplaceAll, positions, None).await
}

async fn commit(
    table: &mut Table,
    rows: &RecordBatch,
    change: Change,
    positions: BTreeMap<String, i64>,
    once: Option<(String, i64)>,
) -> Result<Outcome> {
    let prepared = prepare(table, rows).await?;
    table.commit(&Commit { change, positions, once, ..prepared }).await
}

/// Writes rows for an append that the caller commits, so that the files of several tables become durable together.
///
/// # Errors
/// The store's.
pub async fn prepare(table: &Table, rows: &RecordBatch) -> Result<Commit> {
    let schema = rows.schema();
    let mut writer = table.writer(Arc::clone(&schema), &[]);
    writer.write(rows).await?;
    Ok(Commit {
        change: Change::Append,
        schema,
        partition: Vec::new(),
        adds: writer.close().await?,
        positions: BTreeMap::new(),
        once: None,
        info: serde_json::Value::Null,
        description: String::new(),
    })
}

/// A file of landing as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    pub batch_id: i64,
    pub source: String,
    pub path: String,
    pub bytes: i64,
    /// Microseconds since the epoch.
    pub modified: i64,
    pub file_time: i64,
}

/// Every file that a batch has ever taken in, by path.
///
/// # Errors
/// As [`read`].
pub async fn files(table: &Table) -> Result<Vec<FileRecord>> {
    let mut files = Vec::new();
    for batch in read(table).await? {
        let integer = |at: usize| batch.column(at).as_primitive::<Int64Type>().clone();
        let time = |at: usize| batch.column(at).as_primitive::<TimestampMicrosecondType>().clone();
        let (ids, bytes, modified, times) = (integer(0), integer(3), time(4), time(5));
        let (sources, paths) = (batch.column(1).as_string_view(), batch.column(2).as_string_view());
        for row in 0..batch.num_rows() {
            files.push(FileRecord {
                batch_id: ids.value(row),
                source: sources.value(row).to_owned(),
                path: paths.value(row).to_owned(),
                bytes: bytes.value(row),
                modified: modified.value(row),
                file_time: times.value(row),
            });
        }
    }
    files.sort_by(|a, b| (a.batch_id, &a.path).cmp(&(b.batch_id, &b.path)));
    Ok(files)
}

/// Rows of [`files_schema`].
///
/// # Errors
/// Never in practice.
pub fn file_rows(files: &[FileRecord]) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new(
        files_schema(),
        vec![
            integers(files.iter().map(|file| file.batch_id)),
            texts(files.iter().map(|file| &file.source)),
            texts(files.iter().map(|file| &file.path)),
            integers(files.iter().map(|file| file.bytes)),
            timestamps(files.iter().map(|file| file.modified)),
            timestamps(files.iter().map(|file| file.file_time)),
        ],
    )?)
}

/// The ledger's tables, opened together.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub files: Table,
    pub landed: Table,
    pub decisions: Table,
    pub balances: Table,
    pub checks: Table,
    pub runs: Table,
    pub interventions: Table,
}

impl Ledger {
    /// # Errors
    /// The store's.
    pub async fn open(lake: &Lake) -> Result<Self> {
        let (files, landed, decisions, balances, checks, runs, interventions) = tokio::try_join!(
            lake.table(zone::LEDGER, "files"),
            lake.table(zone::LEDGER, "landed"),
            lake.table(zone::LEDGER, "decisions"),
            lake.table(zone::LEDGER, "balances"),
            lake.table(zone::LEDGER, "checks"),
            lake.table(zone::LEDGER, "runs"),
            lake.table(zone::LEDGER, "interventions"),
        )?;
        Ok(Self { files, landed, decisions, balances, checks, runs, interventions })
    }

    pub fn tables_mut(&mut self) -> [&mut Table; 7] {
        [
            &mut self.files,
            &mut self.landed,
            &mut self.decisions,
            &mut self.balances,
            &mut self.checks,
            &mut self.runs,
            &mut self.interventions,
        ]
    }

    pub fn tables(&self) -> [&Table; 7] {
        [
            &self.files,
            &self.landed,
            &self.decisions,
            &self.balances,
            &self.checks,
            &self.runs,
            &self.interventions,
        ]
    }
}
