//! The project's watches, for alerts: what is new is counted while a run or a stream works, and told when it settles.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::watch::Watch;
use crate::error::Result;
use crate::flow::Run;
use crate::notify::Telling;
use crate::notify::alert::Condition;
use crate::notify::conditions;
use crate::project::alerts::AlertKind;

/// More rows are counted, not kept.
const KEPT_ROWS: usize = 20;

/// A stream that finds new rows again and again tells so at most this often.
const PAUSE: Duration = Duration::from_secs(600);

/// New rows of one watch.
#[derive(Default)]
struct Found {
    count: usize,
    rows: Vec<String>,
}

struct Counted {
    watch: Watch,
    found: Arc<Mutex<Found>>,
    told: Option<Instant>,
}

/// The watches of a project, where somebody wants to be told of anomalies.
pub struct Anomalies {
    watches: Vec<Counted>,
}

impl Anomalies {
    /// Watches from now on.
    ///
    /// # Errors
    /// As [`Watch::begin`].
    pub fn begin(run: &Run, telling: &Telling) -> Result<Anomalies> {
        let mut watches = Vec::new();
        if telling.wants(AlertKind::Anomaly) {
            for declared in &run.project.watches {
                let found = Arc::new(Mutex::new(Found::default()));
                let kept = Arc::clone(&found);
                let show = Box::new(move |batches: &[RecordBatch]| {
                    note(&mut kept.lock().unwrap_or_else(PoisonError::into_inner), batches)
                });
                let watch = Watch::begin(run, &declared.name, show)?;
                watches.push(Counted { watch, found, told: None });
            }
        }
        Ok(Anomalies { watches })
    }

    /// Looks for new rows. A watch that fails is a warning: the tables are right without it.
    pub async fn look(&mut self, run: &Run) {
        for counted in &mut self.watches {
            if let Err(error) = counted.watch.look(run).await {
                tracing::warn!("{error}; its anomalies are not told");
            }
        }
    }

    /// What is to be told now; with `is_last` whatever there is.
    pub fn take(&mut self, is_last: bool) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for counted in &mut self.watches {
            if !is_last && counted.told.is_some_and(|told| told.elapsed() < PAUSE) {
                continue;
            }
            let found = std::mem::take(&mut *counted.found.lock().unwrap_or_else(PoisonError::into_inner));
            if found.count > 0 {
                counted.told = Some(Instant::now());
                conditions.push(conditions::of_watch(counted.watch.name(), found.count, found.rows));
            }
        }
        conditions
    }
}

fn note(found: &mut Found, batches: &[RecordBatch]) -> Result<()> {
    let options = FormatOptions::new();
    for batch in batches {
        found.count += batch.num_rows();
        let kept = KEPT_ROWS.saturating_sub(found.rows.len()).min(batch.num_rows());
        let schema = batch.schema();
        let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let formatters = formatters.collect::<std::result::Result<Vec<_>, _>>()?;
        for row in 0..kept {
            let cells = schema.fields().iter().zip(&formatters).map(|(field, column)| {
                let value: String = column.value(row).to_string().chars().take(200).collect();
                format!("{}={value}", field.name())
            });
            found.rows.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    Ok(())
}
