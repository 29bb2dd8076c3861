//! Landing data out of nothing: `sql/landing/<source>.sql` gives sound records, this module breaks some of them.
//!
//! A query gives rows in one fixed order; they go to the source's files one after another, so that memory is bounded by
//! a few batches whatever the number of rows. Which record gets which [`Fault`] depends on the seed, the source's
//! name and the row's number alone: the same request gives the same bytes, names and modification times.

pub mod fault;
pub mod files;
pub mod query;
mod record;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, max};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::DateTime;
use datafusion::prelude::DataFrame;
use futures::StreamExt;
use tokio::sync::mpsc;

use self::fault::{Dice, FAULTS, Fault};
use self::files::{Compress, Names, Part, Written};
use self::query::{Parameters, Shape};
use self::record::{Record, Rows, header};
use crate::decode::{Format, Layout};
use crate::error::{During, Error, Result};
use crate::project::Project;
use crate::project::diagnostics::{Diagnostic, Problems};
use crate::project::source::{Mode, Source};
use crate::telemetry::Progress;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// How many repeated lines may wait for a later file.
const MAX_WAITING: usize = 4096;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Request {
    pub parameters: Parameters,
    /// The share of records that get a fault, 0 to 1.
    pub dirty: f64,
    pub out: PathBuf,
    /// Files of the largest source; the others get fewer, in proportion.
    pub files: usize,
    pub compress: Compress,
}

/// What was generated.
#[derive(Debug)]
pub struct Report {
    /// The modification time of every file, in microseconds since the epoch: the end of the newest event's day.
    pub modified: Option<i64>,
    pub sources: Vec<Generated>,
}

/// What was generated for one source.
#[derive(Debug)]
pub struct Generated {
    pub source: String,
    pub files: usize,
    pub bytes: u64,
    /// Lines, the faulty ones and repetitions counted, CSV headers not.
    pub records: u64,
    pub faults: BTreeMap<Fault, u64>,
}

/// A generator that is ready to run.
struct Prepared<'a> {
    source: &'a Source,
    frame: DataFrame,
    shape: Shape,
    rows: usize,
}

/// Writes the files of every source that has a generator.
///
/// # Errors
/// `Usage` where there is no generator or the folder is used; the queries' and the disk's.
pub async fn generate(project: &Project, request: &Request, progress: &Progress) -> Result<Report> {
    if project.generators.is_empty() {
        return Err(Error::usage(
            "the project has no generator; write `sql/landing/<source>.sql`, one query per source",
        ));
    }
    let prepared = prepare(project, request, progress).await?;
    let most_rows = prepared.iter().map(|prepared| prepared.rows).max().unwrap_or(0).max(1);
    let mut done = Vec::new();
    for prepared in prepared {
        progress.stage(&format!("generating {}", prepared.source.name));
        let parts = (prepared.rows * request.files / most_rows).max(1);
        let parts = if prepared.source.files.contains('*') { parts } else { 1 };
        done.push(write(prepared, parts, request, progress).await?);
    }
    let newest = |is_event: bool| {
        done.iter().filter(|done| done.has_event_time == is_event).filter_map(|done| done.newest).max()
    };
    let modified =
        newest(true).or(newest(false)).map(|newest| (newest / MICROS_PER_DAY + 1) * MICROS_PER_DAY);
    // a copy in a repository or an object store has another modification time: the name keeps the file's time
    let date =
        modified.and_then(DateTime::from_timestamp_micros).map(|time| time.format("%Y-%m-%d").to_string());
    let mut sources = Vec::new();
    for mut output in done {
        for (part, file) in output.written.into_iter().enumerate() {
            let target = request.out.join(output.names.of_part(part, date.as_deref()));
            output.generated.bytes += file.publish(&target, modified)?;
        }
        sources.push(output.generated);
    }
    Ok(Report { modified, sources })
}

/// Plans and counts, so that nothing is written where something is wrong.
async fn prepare<'a>(
    project: &'a Project,
    request: &Request,
    progress: &Progress,
) -> Result<Vec<Prepared<'a>>> {
    let mut prepared = Vec::new();
    for generator in &project.generators {
        let Some(source) = project.source(&generator.source) else {
            continue;
        };
        files::refuse_used(&request.out, &source.files)?;
        progress.stage(&format!("planning {}", source.name));
        let problem = |(line, message)| {
            let problem = Diagnostic { file: generator.file.clone(), line, message };
            Problems { problems: vec![problem], not_checked: Vec::new() }.to_error()
        };
        let frame = query::plan(&generator.sql, request.parameters).await.map_err(problem)?;
        let shape = query::shape(frame.schema().as_arrow(), &source.layout)
            .map_err(|mut problems| problem((0, problems.swap_remove(0).1)))?;
        let step = || format!("counting the rows of `{}`", generator.file.display());
        let rows = frame.clone().count().await.during(step)?;
        prepared.push(Prepared { source, frame, shape, rows });
    }
    Ok(prepared)
}

struct Output {
    generated: Generated,
    names: Names,
    mode: Mode,
    written: Vec<Written>,
    newest: Option<i64>,
    has_event_time: bool,
}

/// The query runs on one thread while another writes.
async fn write(
    prepared: Prepared<'_>,
    parts: usize,
    request: &Request,
    progress: &Progress,
) -> Result<Output> {
    let (sender, mut receiver) = mpsc::channel::<RecordBatch>(2);
    let frame = prepared.frame;
    let reading = tokio::spawn(async move {
        let mut stream = frame.execute_stream().await?;
        while let Some(batch) = stream.next().await {
            // the writer has failed and says why
            if sender.send(batch?).await.is_err() {
                break;
            }
        }
        Ok::<(), Error>(())
    });
    let mut writer = Writer::new(prepared.source, prepared.shape, prepared.rows, parts, request);
    let progress = progress.clone();
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(batch) = receiver.blocking_recv() {
            writer.write(&batch)?;
            progress.inc(batch.num_rows() as u64);
        }
        writer.finish()
    });
    let step = || format!("generating `{}`", prepared.source.name);
    let output = writing.await?.during(step)?;
    reading.await?.during(step)?;
    Ok(output)
}

/// Writes the rows of one source to its files, one after another.
struct Writer {
    layout: Arc<Layout>,
    shape: Shape,
    folder: PathBuf,
    rows_per_file: usize,
    dirty: f64,
    seed: i64,
    faults: Vec<Fault>,
    record: Record,
    line: Vec<u8>,
    row: usize,
    part: Option<Part>,
    /// How many files were begun.
    begun: usize,
    /// Lines that come again in a file after the one of this number.
    waiting: VecDeque<(usize, Vec<u8>)>,
    output: Output,
}

impl Writer {
    fn new(source: &Source, shape: Shape, rows: usize, parts: usize, request: &Request) -> Self {
        let layout = Arc::clone(&source.layout);
        let hash = blake3::hash(source.name.as_bytes());
        let salt = hash.as_bytes().iter().take(8).fold(0, |salt: i64, byte| salt << 8 | i64::from(*byte));
        Self {
            folder: request.out.clone(),
            rows_per_file: rows.div_ceil(parts).max(1),
            dirty: request.dirty,
            seed: request.parameters.seed ^ salt,
            faults: FAULTS.into_iter().filter(|fault| fault.applies(&shape, &layout)).collect(),
            record: Record::default(),
            line: Vec::new(),
            row: 0,
            part: None,
            begun: 0,
            waiting: VecDeque::new(),
            output: Output {
                generated: Generated {
                    source: source.name.clone(),
                    files: 0,
                    bytes: 0,
                    records: 0,
                    faults: BTreeMap::new(),
                },
                names: Names { pattern: source.files.clone(), parts, compress: request.compress },
                mode: source.mode,
                written: Vec::new(),
                newest: None,
                has_event_time: layout.event_time.is_some(),
            },
            layout,
            shape,
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.output.newest = self.output.newest.max(self.newest(batch)?);
        let rows = Rows::new(batch, &self.shape)?;
        for row in 0..rows.len {
            if self.row >= self.begun * self.rows_per_file {
                self.begin_file()?;
            }
            rows.read(row, &mut self.record)?;
            self.write_record()?;
            self.row += 1;
            if self.waiting.front().is_some_and(|(file, _)| *file < self.begun) {
                self.repeat()?;
            }
        }
        Ok(())
    }

    /// The latest event time, or partition date, of the rows; microseconds since the epoch.
    fn newest(&self, batch: &RecordBatch) -> Result<Option<i64>> {
        let column = self.layout.event_time.unwrap_or(self.layout.partition);
        let Some(field) = self.shape.fields.iter().find(|field| field.column == column) else {
            return Ok(None);
        };
        let instants = cast(
            batch.column(field.values),
            &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        )?;
        Ok(max(instants.as_primitive::<TimestampMicrosecondType>()))
    }

    fn write_record(&mut self) -> Result<()> {
        let mut dice = Dice::new(self.seed, i64::try_from(self.row).unwrap_or(i64::MAX));
        let fault = match dice.unit() < self.dirty {
            true => self.faults.get(dice.below(self.faults.len())).copied(),
            false => None,
        };
        self.line.clear();
        if fault.is_none_or(Fault::is_second_line) {
            self.record.write(&self.shape, &mut self.line);
            self.write_line()?;
        }
        let Some(fault) = fault else {
            return Ok(());
        };
        *self.output.generated.faults.entry(fault).or_default() += 1;
        self.line.clear();
        fault.write(&mut self.record, &self.shape, &self.layout, &mut dice, &mut self.line);
        // a later file's other record of an upserted key is its next version, not a conflict
        let can_wait =
            fault == Fault::Duplicate || fault == Fault::Conflict && self.output.mode == Mode::Events;
        if can_wait && self.begun < self.output.names.parts && self.waiting.len() < MAX_WAITING {
            self.waiting.push_back((self.begun, self.line.clone()));
            return Ok(());
        }
        self.write_line()
    }

    fn repeat(&mut self) -> Result<()> {
        if let Some((_, line)) = self.waiting.pop_front() {
            self.line = line;
            self.write_line()?;
        }
        Ok(())
    }

    fn write_line(&mut self) -> Result<()> {
        self.output.generated.records += 1;
        match &mut self.part {
            Some(part) => part.write_line(&self.line),
            None => Err(Error::bug("a record was written before its file was begun")),
        }
    }

    fn begin_file(&mut self) -> Result<()> {
        self.end_file()?;
        if self.begun >= self.output.names.parts {
            let message = "the query gave more rows than it counted; do not use random() or now() in it";
            return Err(Error::data(message));
        }
        let mut part = Part::create(&self.folder, &self.output.names.of_part(self.begun, None))?;
        if self.shape.format == Format::Csv {
            part.write_line(&header(&self.shape))?;
        }
        self.part = Some(part);
        self.begun += 1;
        Ok(())
    }

    fn end_file(&mut self) -> Result<()> {
        if let Some(part) = self.part.take() {
            self.output.written.push(part.finish()?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Output> {
        if self.part.is_none() {
            self.begin_file()?;
        }
        while !self.waiting.is_empty() {
            self.repeat()?;
        }
        self.end_file()?;
        self.output.generated.files = self.output.written.len();
        Ok(self.output)
    }
}

/// The folder as the caller named it, made where it is missing.
///
/// # Errors
/// `Unavailable` where it can't be made.
pub fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Error::unavailable(format!("can't make `{}`", folder.display())).because(error))
}

#[cfg(test)]
mod tests;
