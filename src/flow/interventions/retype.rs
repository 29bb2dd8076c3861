//! Refused records, typed again as their files were.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};

use crate::decode::{Decoded, Decoder, Format};
use crate::error::{Error, Result};
use crate::flow::Run;
use crate::flow::bronze::{Arrival, MAX_EVENT_TIME};
use crate::flow::late::{self, Lateness};
use crate::flow::quarantine::{self, Refused};
use crate::ledger::{self, FileRecord};
use crate::project::source::Source;

/// CSV headers are looked for in so many lines at the beginning of a file.
const HEADER_LINES: u64 = 10;

/// Types records again, each as a record of its file.
#[derive(Debug)]
pub struct Retyper {
    source: Source,
    files: HashMap<String, FileRecord>,
    headers: BTreeMap<String, Vec<u8>>,
}

impl Retyper {
    /// Learns what the records' files were like.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn new(run: &Run, source: &Source, records: impl Iterator<Item = &Refused>) -> Result<Retyper> {
        let paths: BTreeSet<&str> = records.map(|record| record.source_file.as_str()).collect();
        let files = ledger::files(&run.ledger.files).await?;
        let files = files.into_iter().filter(|file| paths.contains(file.path.as_str()));
        let mut headers = BTreeMap::new();
        if source.layout.format == Format::Csv {
            let lines: BTreeSet<u64> = (1..=HEADER_LINES).collect();
            let wanted = paths.iter().map(|path| ((*path).to_owned(), lines.clone())).collect();
            for ((path, _), raw) in quarantine::read_lines(run, source, wanted).await? {
                // sorted by line: the first one is the header
                headers.entry(path).or_insert(raw);
            }
        }
        Ok(Retyper {
            source: source.clone(),
            files: files.map(|file| (file.path.clone(), file)).collect(),
            headers,
        })
    }

    /// Types `bytes` as today's contract says, in the place of `record`: one row, or one reject.
    ///
    /// # Errors
    /// `Data` where the bytes are not one record, or what is needed of the record's file is gone.
    pub fn decode(&self, record: &Refused, bytes: &[u8]) -> Result<Decoded> {
        let path = &record.source_file;
        let file = self
            .files
            .get(path)
            .ok_or_else(|| Error::data(format!("`{path}` is in no batch of `ledger.files`")))?;
        let mut decoder = Decoder::new(Arc::clone(&self.source.layout), file.modified);
        if self.source.layout.format == Format::Csv {
            let header = self.headers.get(path).ok_or_else(|| {
                Error::data(format!(
                    "the header of `{path}` can't be read: put the file back as it was taken in, then run again"
                ))
            })?;
            decoder.push(header);
            decoder.push(b"\n");
        }
        decoder.push(bytes);
        decoder.finish();
        let decoded = decoder.take()?;
        if decoded.landed != 1 {
            return Err(Error::data(format!(
                "expected one record in the place of `{path}`, line {}, found {}",
                record.source_line, decoded.landed
            )));
        }
        Ok(decoded)
    }

    /// The record's event time, where it may move the watermark.
    pub(super) fn newest(&self, record: &Refused, decoded: &Decoded) -> Option<i64> {
        let file = self.files.get(&record.source_file)?;
        late::newest(&self.source, &decoded.batch, file.modified)
    }

    /// The bronze row of a decoded record.
    pub(super) fn bronze_row(
        &self,
        run: &Run,
        source: &Source,
        record: &Refused,
        decoded: &Decoded,
    ) -> Result<RecordBatch> {
        let file = self.files.get(&record.source_file).ok_or_else(|| {
            Error::data(format!("`{}` is in no batch of `ledger.files`", record.source_file))
        })?;
        let mut columns = decoded.batch.columns().to_vec();
        columns[source.layout.columns.len()] = Arc::new(Int64Array::from(vec![record.source_line]));
        let batch = RecordBatch::try_new(decoded.batch.schema(), columns)?;
        let table = run.bronze_of(&source.name)?;
        let watermark = source.watermark_delay.zip(table.position(MAX_EVENT_TIME));
        let arrival = Arrival {
            source: source.clone(),
            started: run.started_at,
            batch_id: record.batch_id,
            watermark: watermark.map(|(delay, newest)| newest - delay),
        };
        let is_late = late::mark(source, &batch, arrival.watermark, &mut Lateness::default());
        arrival.rows(&batch, is_late, file)
    }
}
