//! The watermark of a source: the newest event time that bronze has seen, less the declared delay. It is derived from
//! bronze's log and advances between batches.
//!
//! A record is late when its event time lies strictly before the watermark that stood when its batch began. Lateness is
//! metadata of arrival: it decides what is recomputed when, never what the tables hold in the end, unless the source says
//! that late records are refused.

use std::collections::BTreeMap;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use serde::{Deserialize, Serialize};

use super::Run;
use super::bronze::MAX_EVENT_TIME;
use crate::error::Result;
use crate::project::source::Source;

/// The error type of late records, where the source refuses them.
pub const ERROR_TYPE: &str = "late";

/// The class behind the last of [`CLASSES`].
const MORE: &str = "more";

/// Upper ends of the histogram's classes, in microseconds, and their names.
const CLASSES: [(i64, &str); 7] = [
    (60_000_000, "up to 1 minute"),
    (600_000_000, "up to 10 minutes"),
    (3_600_000_000, "up to 1 hour"),
    (6 * 3_600_000_000, "up to 6 hours"),
    (24 * 3_600_000_000, "up to 1 day"),
    (7 * 24 * 3_600_000_000, "up to 7 days"),
    (30 * 24 * 3_600_000_000, "up to 30 days"),
];

/// The histogram's classes, from the least late to the most.
pub fn classes() -> impl Iterator<Item = &'static str> {
    CLASSES.iter().map(|(_, name)| *name).chain([MORE])
}

/// How late the late records of a file were, measured from the watermark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    pub records: u64,
    /// Seconds behind the watermark.
    pub most_seconds: i64,
    /// Records by how late they were.
    pub histogram: BTreeMap<String, u64>,
}

impl Lateness {
    fn count(&mut self, behind: i64) {
        self.records += 1;
        self.most_seconds = self.most_seconds.max(behind / 1_000_000);
        let class = CLASSES.iter().find(|(end, _)| behind <= *end).map_or(MORE, |(_, name)| name);
        *self.histogram.entry(class.to_owned()).or_default() += 1;
    }
}

/// The watermark as bronze stands now, microseconds since the epoch.
///
/// # Errors
/// `Bug` where the run has no such source.
pub fn watermark(run: &Run, source: &Source) -> Result<Option<i64>> {
    let newest = run.bronze_of(&source.name)?.position(MAX_EVENT_TIME);
    Ok(source.watermark_delay.zip(newest).map(|(delay, newest)| newest.saturating_sub(delay)))
}

fn event_times<'a>(
    source: &Source,
    decoded: &'a RecordBatch,
) -> Option<&'a arrow::array::PrimitiveArray<TimestampMicrosecondType>> {
    decoded.column(source.layout.event_time?).as_primitive_opt()
}

/// The newest event time that can move the watermark: an event that is newer than its own file has not happened yet, and
/// moves nothing.
pub fn newest(source: &Source, decoded: &RecordBatch, modified: i64) -> Option<i64> {
    event_times(source, decoded)?.iter().flatten().filter(|time| *time <= modified).max()
}

/// Which rows are strictly behind the watermark; counted in `late`.
pub fn mark(
    source: &Source,
    decoded: &RecordBatch,
    watermark: Option<i64>,
    late: &mut Lateness,
) -> BooleanArray {
    let (Some(watermark), Some(times)) = (watermark, event_times(source, decoded)) else {
        return BooleanArray::from(vec![false; decoded.num_rows()]);
    };
    let is_late = times.iter().map(|time| {
        let behind = time.map_or(0, |time| watermark.saturating_sub(time));
        if behind > 0 {
            late.count(behind);
        }
        Some(behind > 0)
    });
    is_late.collect()
}

/// The partition dates of decoded rows, as days since the epoch.
pub fn dates(source: &Source, decoded: &RecordBatch) -> Vec<Option<i32>> {
    let column = decoded.columns().last().and_then(|column| column.as_primitive_opt::<Date32Type>());
    match column {
        Some(dates) => dates.iter().collect(),
        None => vec![None; decoded.num_rows() * usize::from(source.layout.event_time.is_some())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_counted_by_class() {
        let mut late = Lateness::default();
        for behind in [1, 60_000_000, 60_000_001, 86_400_000_000, 99 * 86_400_000_000] {
            late.count(behind);
        }
        assert_eq!((late.records, late.most_seconds), (5, 99 * 86_400));
        let told: Vec<(&str, u64)> = late.histogram.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(told, [("more", 1), ("up to 1 day", 1), ("up to 1 minute", 2), ("up to 10 minutes", 1)]);
    }
}
