//! Rows to Parquet files, one folder per partition.
//!
//! A [`Writer`] buffers batches, splits them by partition value once the buffer is full, and appends each part to its
//! partition's open file, so a partition gets one file however its rows arrive. Encoding uses every core; a file is
//! uploaded whole when it is complete. Nothing is visible until the files are committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{Row, RowConverter, SortField};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;

use super::encoding;
use super::log::{Add, CHECKSUM, checksum};
use super::partition::{PartitionKey, encode, key_of_row, relative_path};
use crate::error::{Error, Result};

/// Cells (rows × columns) buffered before they are split by partition and encoded: at 16 bytes each about 200 MB. A
/// partition whose rows fit is encoded in one go; one that stays open between two splits holds its column writers,
/// and a thousand of those cost more than the rows.
const BUFFER_CELLS: usize = 12 * 1024 * 1024;

/// Batches whose parts would have fewer rows than this on average are put together before they are parted.
const ROWS_PER_PIECE: usize = 64;

/// … until they have so many rows.
const COALESCED_ROWS: usize = 16 * 1024;

/// A file is closed and another begun when it has this many encoded bytes.
const TARGET_FILE_BYTES: usize = 256 * 1024 * 1024;

/// Files that are encoded before the finished ones among them are uploaded.
const FILES_AT_ONCE: usize = 16;

/// Encoded bytes that may wait for their upload.
const WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Writes one table's new files.
pub struct Writer {
    store: Arc<dyn ObjectStore>,
    root: Path,
    schema: SchemaRef,
    partition: Vec<String>,
    /// Columns that hold a different value in nearly every row: a dictionary would be built and thrown away.
    unique_columns: Vec<String>,
    /// Makes the file names of this writer different from all others.
    file_prefix: String,
    tags: BTreeMap<String, Option<String>>,
    buffer: Vec<RecordBatch>,
    buffered_rows: usize,
    open: HashMap<PartitionKey, OpenFile>,
    finished: Vec<Finished>,
    uploaded: Vec<Add>,
    num_files: usize,
    /// The rows that were written, as long as they are at most so many.
    kept: Option<(Vec<RecordBatch>, usize)>,
}

struct OpenFile {
    writer: ArrowWriter<Vec<u8>>,
    rows: usize,
}

/// An encoded file.
struct Finished {
    key: PartitionKey,
    bytes: Vec<u8>,
    checksum: String,
    rows: usize,
}

impl Finished {
    fn of(key: PartitionKey, file: OpenFile) -> Result<Self> {
        let bytes = file.writer.into_inner()?;
        Ok(Self { key, checksum: checksum(&bytes), bytes, rows: file.rows })
    }
}

/// A partition and its rows: row numbers by batch, in the order of their arrival.
type PartitionRows = (PartitionKey, Vec<(usize, Vec<u32>)>);

/// What becomes of the files that a flush has written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    KeepOpen,
    Close,
}

enum Written {
    Open(PartitionKey, Box<OpenFile>),
    Closed(Finished),
}

impl Writer {
    /// `schema` is a lake schema (partition columns last), `file_prefix` unique in the table.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        root: Path,
        schema: SchemaRef,
        partition: Vec<String>,
        file_prefix: String,
    ) -> Self {
        Self {
            store,
            root,
            schema,
            partition,
            unique_columns: Vec::new(),
            file_prefix,
            tags: BTreeMap::new(),
            buffer: Vec::new(),
            buffered_rows: 0,
            open: HashMap::new(),
            finished: Vec::new(),
            uploaded: Vec::new(),
            num_files: 0,
            kept: None,
        }
    }

    /// Columns without repeated values, usually the key.
    pub fn with_unique_columns(mut self, columns: &[String]) -> Self {
        self.unique_columns = columns.to_vec();
        self
    }

    /// Tags that every file's log entry carries, beside its checksum.
    pub fn with_tags(mut self, tags: BTreeMap<String, Option<String>>) -> Self {
        self.tags = tags;
        self
    }

    /// Keeps the rows for [`Writer::close_with_rows`], as long as they are at most so many.
    pub fn keeping(mut self, max_rows: usize) -> Self {
        self.kept = Some((Vec::new(), max_rows));
        self
    }

    /// Takes rows; their columns are found by name and brought to the table's types.
    ///
    /// # Errors
    /// `Bug` where a column is missing, `Data` where a value does not fit its type, and the store's.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.conform(batch)?;
        self.buffered_rows += batch.num_rows();
        self.buffer.push(batch);
        if self.buffered_rows * self.schema.fields().len() >= BUFFER_CELLS {
            self.flush(Then::KeepOpen).await?;
        }
        Ok(())
    }

    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            let column = batch.column_by_name(field.name()).ok_or_else(|| {
                Error::bug(format!("column `{}` is missing in a batch for `{}`", field.name(), self.root))
            })?;
            columns.push(if column.data_type() == field.data_type() {
                Arc::clone(column)
            } else {
                cast(column, field.data_type())?
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Writes what is left and uploads the files.
    ///
    /// # Errors
    /// The store's, and those of [`Writer::write`].
    pub async fn close(self) -> Result<Vec<Add>> {
        Ok(self.close_with_rows().await?.0)
    }

    /// As [`Writer::close`], and the rows where they were few enough to be kept: the very ones that were written, so
    /// that keeping them costs no copy.
    ///
    /// # Errors
    /// As [`Writer::close`].
    pub async fn close_with_rows(mut self) -> Result<(Vec<Add>, Option<Vec<RecordBatch>>)> {
        self.flush(Then::Close).await?;
        let open = std::mem::take(&mut self.open);
        let closed = in_parallel(open.into_iter().collect(), |(key, file)| Finished::of(key, file)).await?;
        self.finished.extend(closed);
        self.upload_finished().await?;
        let mut adds = std::mem::take(&mut self.uploaded);
        adds.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((adds, self.kept.map(|(rows, _)| rows)))
    }

    async fn upload_finished(&mut self) -> Result<()> {
        let finished = std::mem::take(&mut self.finished);
        let mut uploads = Vec::with_capacity(finished.len());
        for file in finished {
            uploads.push(self.upload(file)?);
        }
        // the disk or the network waits, not the cores
        let added: Vec<Add> = futures::stream::iter(uploads).buffered(16).try_collect().await?;
        self.uploaded.extend(added);
        Ok(())
    }

    fn upload(&mut self, file: Finished) -> Result<impl Future<Output = Result<Add>> + use<>> {
        let Finished { key, bytes, checksum, rows } = file;
        let name = format!("{}-{:05}.parquet", self.file_prefix, self.num_files);
        self.num_files += 1;
        let relative = relative_path(&self.partition, &key, &name);
        let location = Path::parse(format!("{}/{relative}", self.root))
            .map_err(|error| Error::bug(format!("`{relative}` is no object path")).because(error))?;
        let partition_values = self.partition.iter().cloned().zip(key).collect();
        let mut tags = self.tags.clone();
        tags.insert(CHECKSUM.to_owned(), Some(checksum));
        let add = Add {
            path: encode(&relative, "/="),
            partition_values,
            size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            modification_time: chrono::Utc::now().timestamp_millis(),
            data_change: true,
            stats: Some(format!("{{\"numRecords\":{rows}}}")),
            tags: Some(tags),
            ..Add::default()
        };
        let store = Arc::clone(&self.store);
        Ok(async move {
            store.put(&location, bytes.into()).await?;
            Ok(add)
        })
    }

    async fn flush(&mut self, then: Then) -> Result<()> {
        let mut batches = std::mem::take(&mut self.buffer);
        self.buffered_rows = 0;
        if batches.is_empty() {
            return Ok(());
        }
        let num_file_columns = self.schema.fields().len() - self.partition.len();
        let mut groups = self.split(&batches, num_file_columns)?;
        let num_rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let num_pieces: usize = groups.iter().map(|(_, rows)| rows.len()).sum();
        if batches.len() > 1 && num_rows < num_pieces * ROWS_PER_PIECE {
            batches = coalesce(&self.schema, batches)?;
            groups = self.split(&batches, num_file_columns)?;
        }
        self.kept = self.kept.take().and_then(|(mut kept, room)| {
            let room = room.checked_sub(num_rows)?;
            kept.extend(batches.iter().cloned());
            Some((kept, room))
        });
        let file_columns: Vec<usize> = (0..num_file_columns).collect();
        let batches: Arc<[RecordBatch]> = batches
            .iter()
            .map(|batch| batch.project(&file_columns))
            .collect::<std::result::Result<Vec<_>, _>>()?
            .into();
        let schema = Arc::new(self.schema.project(&file_columns)?);
        let unique_columns: Arc<[String]> = self.unique_columns.clone().into();
        let encode = move |((key, rows), open): (PartitionRows, Option<OpenFile>)| {
            let num_rows = rows.iter().map(|(_, rows)| rows.len()).sum();
            let pieces = gather(&batches, rows)?;
            let mut file = match open {
                Some(file) => file,
                None => OpenFile {
                    writer: encoding::writer(Arc::clone(&schema), num_rows, &pieces, &unique_columns)?,
                    rows: 0,
                },
            };
            for piece in &pieces {
                file.writer.write(piece)?;
            }
            file.rows += num_rows;
            let is_full = file.writer.in_progress_size() + file.writer.bytes_written() > TARGET_FILE_BYTES;
            Ok(match then == Then::Close || is_full {
                true => Written::Closed(Finished::of(key, file)?),
                false => Written::Open(key, Box::new(file)),
            })
        };
        let mut groups = groups.into_iter().peekable();
        while groups.peek().is_some() {
            let part = groups.by_ref().take(FILES_AT_ONCE);
            let work = part.map(|group| {
                let open = self.open.remove(&group.0);
                (group, open)
            });
            for part in in_parallel(work.collect(), encode.clone()).await? {
                match part {
                    Written::Closed(file) => self.finished.push(file),
                    Written::Open(key, file) => {
                        self.open.insert(key, *file);
                    }
                }
            }
            if self.finished.iter().map(|file| file.bytes.len()).sum::<usize>() > WAITING_BYTES {
                self.upload_finished().await?;
            }
        }
        Ok(())
    }

    /// Which rows belong to which partition, in the order of their arrival.
    fn split(&self, batches: &[RecordBatch], num_file_columns: usize) -> Result<Vec<PartitionRows>> {
        let fields = &self.schema.fields()[num_file_columns..];
        if fields.is_empty() {
            let all = batches.iter().enumerate().map(|(index, batch)| (index, all_rows(batch)));
            return Ok(vec![(Vec::new(), all.collect())]);
        }
        let sort_fields = fields.iter().map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(sort_fields.collect())?;
        let mut ids: HashMap<Box<[u8]>, usize, ahash::RandomState> = HashMap::default();
        let mut groups: Vec<PartitionRows> = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            let columns = &batch.columns()[num_file_columns..];
            let keys = converter.convert_columns(columns)?;
            let mut last: Option<(Row<'_>, usize)> = None;
            for row in 0..batch.num_rows() {
                let key = keys.row(row);
                let known = match last {
                    Some((last, id)) if last == key => Some(id),
                    _ => ids.get(key.as_ref()).copied(),
                };
                let id = match known {
                    Some(id) => id,
                    None => {
                        ids.insert(key.as_ref().into(), groups.len());
                        groups.push((key_of_row(&self.root, &self.partition, columns, row)?, Vec::new()));
                        groups.len() - 1
                    }
                };
                last = Some((key, id));
                let row = u32::try_from(row).map_err(|_| Error::bug("a batch of over 4 billion rows"))?;
                match groups[id].1.last_mut() {
                    Some((last, rows)) if *last == index => rows.push(row),
                    _ => groups[id].1.push((index, vec![row])),
                }
            }
        }
        Ok(groups)
    }
}

/// Runs the work on blocking threads, as many as there are cores; results keep the order of the work.
async fn in_parallel<W, R>(
    work: Vec<W>,
    run: impl Fn(W) -> Result<R> + Send + Sync + 'static,
) -> Result<Vec<R>>
where
    W: Send + 'static,
    R: Send + 'static,
{
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = work.len().div_ceil(threads).max(1);
    let run = Arc::new(run);
    let mut tasks = Vec::new();
    let mut work = work.into_iter().peekable();
    while work.peek().is_some() {
        let part: Vec<W> = work.by_ref().take(share).collect();
        let run = Arc::clone(&run);
        tasks.push(tokio::task::spawn_blocking(move || {
            part.into_iter().map(|item| run(item)).collect::<Result<Vec<R>>>()
        }));
    }
    let mut results = Vec::new();
    for task in tasks {
        results.extend(task.await??);
    }
    Ok(results)
}

fn all_rows(batch: &RecordBatch) -> Vec<u32> {
    (0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX)).collect()
}

/// Fewer and larger batches, each put together when the one before has let its parts go.
fn coalesce(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let mut coalesced = Vec::new();
    let mut waiting = Vec::new();
    let mut num_rows = 0;
    for batch in batches {
        num_rows += batch.num_rows();
        waiting.push(batch);
        if num_rows >= COALESCED_ROWS {
            coalesced.push(concat_batches(schema, &waiting)?);
            waiting.clear();
            num_rows = 0;
        }
    }
    if !waiting.is_empty() {
        coalesced.push(concat_batches(schema, &waiting)?);
    }
    Ok(coalesced)
}

/// The rows of one partition, as few batches.
fn gather(batches: &[RecordBatch], rows: Vec<(usize, Vec<u32>)>) -> Result<Vec<RecordBatch>> {
    rows.into_iter()
        .map(|(index, rows)| {
            let batch = &batches[index];
            match (rows.first(), rows.last()) {
                // ascending, so a run without gaps
                (Some(first), Some(last)) if (last - first) as usize + 1 == rows.len() => {
                    Ok(batch.slice(*first as usize, rows.len()))
                }
                _ => Ok(take_record_batch(batch, &UInt32Array::from(rows))?),
            }
        })
        .collect()
}
