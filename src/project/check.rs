//! A check: what must be true of the lake's tables, how many exceptions are tolerated, and which table it guards.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::manifest::{CheckScope, SeverityName};
use super::sql::TableName;

/// A check that was found correct.
#[derive(Debug, Clone)]
pub struct Check {
    pub name: String,
    /// The query, or the TOML of a check without one.
    pub file: PathBuf,
    pub description: String,
    pub severity: SeverityName,
    pub scope: CheckScope,
    pub finds: Finds,
    /// Tables as the check names them.
    pub reads: BTreeSet<TableName>,
    pub tolerance: Tolerance,
    /// The gold table whose partitions are not committed where the check fails.
    pub guards: Option<TableName>,
    /// Changes when what it finds, or what becomes of it, may change.
    pub fingerprint: String,
}

/// What a check looks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Finds {
    /// The rows of a query.
    Rows(String),
    /// Dates on which a table is not what it used to be.
    Deviations(Anomaly),
}

/// How far a table may be from its own history.
#[derive(Debug, Clone, PartialEq)]
pub struct Anomaly {
    pub kind: Kind,
    pub table: TableName,
    /// The table's first partition column.
    pub date_column: String,
    /// Days before a date that are its history.
    pub days: i32,
    /// With fewer days of history nothing is said.
    pub min_days: usize,
    /// How many (scaled) median deviations are usual.
    pub deviations: f64,
    /// What is usual in any case: a share of the median (volume), a difference of shares (null rate), days (freshness).
    pub tolerance: f64,
    /// So many of the newest dates are not judged yet.
    pub delay_days: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Rows of a date.
    Volume,
    /// The share of a date's rows in which the column is null.
    NullRate { column: String },
    /// Days between the newest date and what it is held against.
    Freshness { until: Until },
}

/// What the newest date of a table is held against.
#[derive(Debug, Clone, PartialEq)]
pub enum Until {
    /// Today, UTC. The only check whose result depends on when it is asked.
    Now,
    /// The newest date of another table.
    Table(TableName),
}

impl Check {
    /// Whether the clock alone can change its outcome.
    pub fn follows_clock(&self) -> bool {
        matches!(&self.finds, Finds::Deviations(Anomaly { kind: Kind::Freshness { until: Until::Now }, .. }))
    }
}

/// How a check ended, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Passed,
    Warned,
    /// It keeps partitions out of the table that it guards.
    Withheld,
    Failed,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Warned => "warned",
            Outcome::Failed => "failed",
            Outcome::Withheld => "withheld",
        }
    }
}

/// What number of rows is tolerated.
#[derive(Debug, Clone, PartialEq)]
pub struct Tolerance {
    /// More rows are a warning.
    pub warn_above: Amount,
    /// More rows fail the run; `None`: however many, they are a warning.
    pub fail_above: Option<Amount>,
    /// The table whose rows are the whole that shares are of.
    pub of: Option<TableName>,
}

/// A number of rows, or a share of another number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    Rows(u64),
    /// In millionths.
    Share(u64),
}

impl Amount {
    /// `0.5 %`.
    pub fn parse_share(written: &str) -> Option<Amount> {
        let number = written.trim().strip_suffix('%')?.trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty()
            || whole.len() > 3
            || fraction.len() > 4
            || !is_number(whole)
            || !is_number(fraction)
        {
            return None;
        }
        let millionths: u64 = format!("{whole}{fraction:0<4}").parse().ok()?;
        (millionths <= 1_000_000).then_some(Amount::Share(millionths))
    }

    fn is_below(self, rows: i64, of: i64) -> bool {
        match self {
            Amount::Rows(most) => i128::from(rows) > i128::from(most),
            Amount::Share(millionths) => {
                i128::from(rows) * 1_000_000 > i128::from(of) * i128::from(millionths)
            }
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Amount::Rows(rows) => write!(f, "{rows}"),
            Amount::Share(millionths) => {
                let text = format!("{}.{:04}", millionths / 10_000, millionths % 10_000);
                write!(f, "{} %", text.trim_end_matches('0').trim_end_matches('.'))
            }
        }
    }
}

impl Tolerance {
    /// What `rows` found, of `of` rows in all, mean.
    pub fn judge(&self, rows: i64, of: i64) -> Outcome {
        if self.fail_above.is_some_and(|most| most.is_below(rows, of)) {
            return Outcome::Failed;
        }
        match self.warn_above.is_below(rows, of) {
            true => Outcome::Warned,
            false => Outcome::Passed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        for (written, millionths) in
            [("1 %", 10_000), ("0.5%", 5_000), ("100 %", 1_000_000), ("0.0001 %", 1), ("0 %", 0)]
        {
            assert_eq!(Amount::parse_share(written), Some(Amount::Share(millionths)), "{written}");
        }
        for wrong in ["", "1", "%", "-1 %", "101 %", "1.23456 %", "one %", ".5 %"] {
            assert_eq!(Amount::parse_share(wrong), None, "{wrong}");
        }
        assert_eq!(Amount::Share(5_000).to_string(), "0.5 %");
        assert_eq!(Amount::Share(1_000_000).to_string(), "100 %");
    }

    #[test]
    fn rows_are_judged_by_the_worst_bound_that_they_are_above() {
        let tolerance =
            Tolerance { warn_above: Amount::Rows(2), fail_above: Some(Amount::Share(100_000)), of: None };
        assert_eq!(tolerance.judge(2, 100), Outcome::Passed);
        assert_eq!(tolerance.judge(3, 100), Outcome::Warned);
        assert_eq!(tolerance.judge(10, 100), Outcome::Warned);
        assert_eq!(tolerance.judge(11, 100), Outcome::Failed);
        let warns = Tolerance { warn_above: Amount::Rows(0), fail_above: None, of: None };
        assert_eq!(warns.judge(1_000_000, 1), Outcome::Warned);
        // a share of nothing is nothing
        let share = Tolerance { warn_above: Amount::Share(1), fail_above: Some(Amount::Share(1)), of: None };
        assert_eq!(share.judge(1, 0), Outcome::Failed);
        assert_eq!(share.judge(0, 0), Outcome::Passed);
    }
}
