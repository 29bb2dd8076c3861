//! How the stream works: the section `[stream]` of `medallion.toml`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// What one micro-batch may hold, and when silver, gold and serving follow.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamLimits {
    /// Files of one micro-batch.
    pub batch_files: usize,
    /// Landed bytes of one micro-batch; one file is always taken.
    pub batch_bytes: u64,
    /// Records of one micro-batch, judged by the bytes per record seen so far.
    pub batch_rows: u64,
    /// A micro-batch that takes longer makes the next ones smaller.
    #[serde(deserialize_with = "duration")]
    pub batch_time: Duration,
    /// How often landing is looked at.
    #[serde(deserialize_with = "duration")]
    pub poll: Duration,
    /// A file that did not appear by being renamed is taken when it has not changed for so long.
    #[serde(deserialize_with = "duration")]
    pub quiet: Duration,
    /// Silver, gold and serving follow bronze at most so often.
    #[serde(deserialize_with = "duration")]
    pub refresh: Duration,
    /// With nothing new for so long, the stream settles.
    #[serde(deserialize_with = "duration")]
    pub idle: Duration,
    /// The stream settles at the latest so long after the last time.
    #[serde(deserialize_with = "duration")]
    pub settle: Duration,
    /// What the keys of recent events may take in memory: about 2 bytes each, and 35 MB for the newest million of a date.
    pub ids_bytes: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            batch_files: 1000,
            batch_bytes: 64 * 1024 * 1024,
            batch_rows: 250_000,
            batch_time: Duration::from_secs(2),
            poll: Duration::from_millis(200),
            quiet: Duration::from_secs(2),
            refresh: Duration::from_secs(1),
            idle: Duration::from_secs(5),
            settle: Duration::from_secs(180),
            ids_bytes: 256 * 1024 * 1024,
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let written = String::deserialize(deserializer)?;
    parse_duration(&written).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "`{written}` is not a duration; write a number and milliseconds, seconds, minutes, hours or days"
        ))
    })
}

/// `200 milliseconds`, `2 hours`.
pub fn parse_duration(written: &str) -> Option<Duration> {
    let (number, unit) = written.trim().split_once(' ')?;
    let milliseconds = match unit.trim().trim_end_matches('s') {
        "millisecond" => 1,
        "second" => 1000,
        "minute" => 60_000,
        "hour" => 3_600_000,
        "day" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (written, milliseconds) in
            [("200 milliseconds", 200), ("1 second", 1000), ("3 minutes", 180_000), ("2 days", 172_800_000)]
        {
            assert_eq!(parse_duration(written), Some(Duration::from_millis(milliseconds)), "{written}");
        }
        for wrong in ["", "5", "5s", "-1 seconds", "1.5 seconds", "1 fortnight"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
