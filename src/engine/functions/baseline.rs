//! `rolling_baseline`: what was normal in the days before each day.
//!
//! For one group, the aggregate takes a date and a decimal value per row and gives, for every date `d` that has at
//! least `min_count` values on the `days` dates before it (`d` itself excluded): their number, mean, sample standard
//! deviation, median, MAD (median of |x − median|) and 99th percentile (linear interpolation).
//!
//! Exact, and independent of the order of rows: values are integers of the decimal's last digit, sums are exact, and
//! each result is rounded once, to a double. One sort per group, then a sorted window that each day's run enters by a
//! merge and leaves by another, so a day costs as much as its window, not as much as a join with it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Float64Array, Int64Array, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type, i256};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::rolling::{self, Groups, OneGroup, Rolling, list_field};

type Entry = rolling::Entry<i64>;

/// `rolling_baseline(date, value, days, min_count)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RollingBaseline {
    signature: Signature,
}

impl Default for RollingBaseline {
    fn default() -> Self {
        Self { signature: Signature::any(4, Volatility::Immutable) }
    }
}

fn baseline_fields() -> Fields {
    Fields::from(vec![
        Field::new("date", DataType::Date32, false),
        Field::new("n", DataType::Int64, false),
        Field::new("mean", DataType::Float64, false),
        Field::new("sd", DataType::Float64, false),
        Field::new("median", DataType::Float64, false),
        Field::new("mad", DataType::Float64, false),
        Field::new("p99", DataType::Float64, false),
    ])
}

impl AggregateUDFImpl for RollingBaseline {
    fn name(&self) -> &'static str {
        "rolling_baseline"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Date32, DataType::Decimal128(precision, _), _, _] if *precision <= 18 => {
                Ok(DataType::List(list_field(DataType::Struct(baseline_fields()))))
            }
            _ => plan_err!(
                "`rolling_baseline` takes a date, a decimal of at most 18 digits, and two literal integers"
            ),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(Groups::new(Baseline::new(&args)?))))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(rolling::state_fields(args.name, DataType::Int64))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::new(Baseline::new(&args)?)))
    }
}

/// What the aggregate was asked for.
#[derive(Debug)]
struct Baseline {
    days: i32,
    min_count: usize,
    scale: i8,
}

impl Baseline {
    fn new(args: &AccumulatorArgs) -> Result<Self> {
        let scale = match args.expr_fields[1].data_type() {
            DataType::Decimal128(_, scale) => *scale,
            other => return exec_err!("`rolling_baseline` of `{other}`"),
        };
        Ok(Self {
            days: i32::try_from(rolling::literal(args, 2)?).unwrap_or(i32::MAX),
            min_count: usize::try_from(rolling::literal(args, 3)?).unwrap_or(usize::MAX),
            scale,
        })
    }
}

impl Rolling for Baseline {
    // 64 bits hold 18 digits, in half the memory of the decimal
    type Value = Int64Type;

    fn value(&self, amount: i128) -> Result<i64> {
        i64::try_from(amount).or_else(|_| exec_err!("a value of `rolling_baseline` has more than 18 digits"))
    }

    fn value_type(&self) -> DataType {
        DataType::Int64
    }

    fn evaluate(&self, entries: &[Entry], lengths: &mut [usize]) -> Result<ArrayRef> {
        let mut columns = Columns::default();
        let unit = 10f64.powi(i32::from(self.scale));
        for group in entries.chunk_by(|a, b| a.group == b.group) {
            let before = columns.date.len();
            roll(group, self.days, self.min_count, unit, &mut columns);
            lengths[group[0].group as usize] = columns.date.len() - before;
        }
        Ok(Arc::new(columns.finish()?))
    }
}

#[derive(Debug, Default)]
struct Columns {
    date: Vec<i32>,
    n: Vec<i64>,
    mean: Vec<f64>,
    sd: Vec<f64>,
    median: Vec<f64>,
    mad: Vec<f64>,
    p99: Vec<f64>,
}

impl Columns {
    fn push(&mut self, date: i32, statistics: &Statistics) {
        self.date.push(date);
        self.n.push(statistics.n);
        self.mean.push(statistics.mean);
        self.sd.push(statistics.sd);
        self.median.push(statistics.median);
        self.mad.push(statistics.mad);
        self.p99.push(statistics.p99);
    }

    fn finish(self) -> Result<StructArray> {
        let doubles = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
        let columns = vec![
            Arc::new(Date32Array::from(self.date)) as ArrayRef,
            Arc::new(Int64Array::from(self.n)),
            doubles(self.mean),
            doubles(self.sd),
            doubles(self.median),
            doubles(self.mad),
            doubles(self.p99),
        ];
        Ok(StructArray::try_new(baseline_fields(), columns, None)?)
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Statistics {
    n: i64,
    mean: f64,
    sd: f64,
    median: f64,
    mad: f64,
    p99: f64,
}

/// The values of a range of days, sorted, with their exact sums.
#[derive(Debug, Default)]
struct Window {
    values: Vec<i64>,
    spare: Vec<i64>,
    sum: i128,
    sum_of_squares: i256,
}

impl Window {
    /// `run` is sorted.
    fn enter(&mut self, run: &[Entry]) {
        self.spare.clear();
        self.spare.reserve(self.values.len() + run.len());
        let mut entering = run.iter().map(|entry| entry.value).peekable();
        for value in self.values.iter().copied() {
            while let Some(next) = entering.next_if(|next| *next <= value) {
                self.spare.push(next);
            }
            self.spare.push(value);
        }
        self.spare.extend(entering);
        std::mem::swap(&mut self.values, &mut self.spare);
        let (sum, squares) = sums(run);
        self.sum += sum;
        self.sum_of_squares = self.sum_of_squares.wrapping_add(squares);
    }

    /// `run` is sorted and has entered before.
    fn leave(&mut self, run: &[Entry]) {
        let mut leaving = run.iter().map(|entry| entry.value).peekable();
        self.values.retain(|value| leaving.next_if_eq(value).is_none());
        let (sum, squares) = sums(run);
        self.sum -= sum;
        self.sum_of_squares = self.sum_of_squares.wrapping_sub(squares);
    }

    fn statistics(&self, unit: f64) -> Statistics {
        let values = &self.values;
        let n = values.len();
        let count = i256::from_i128(n as i128);
        let sum = i256::from_i128(self.sum);
        // n·Σx² − (Σx)² is n·(n−1)·variance, exactly
        let spread = count.wrapping_mul(self.sum_of_squares).wrapping_sub(sum.wrapping_mul(sum));
        let variance = to_f64(spread) / (n as f64 * (n as f64 - 1.0));
        let twice_median = i128::from(values[(n - 1) / 2]) + i128::from(values[n / 2]);
        let position = (n - 1) * 99;
        let (low, part) = (position / 100, position % 100);
        let high = (low + 1).min(n - 1);
        let step = i128::from(values[high]) - i128::from(values[low]);
        let hundred_p99 = i128::from(values[low]) * 100 + step * part as i128;
        Statistics {
            n: n as i64,
            mean: self.sum as f64 / n as f64 / unit,
            sd: if n > 1 { variance.sqrt() / unit } else { 0.0 },
            median: twice_median as f64 / 2.0 / unit,
            mad: four_mads(values, twice_median) as f64 / 4.0 / unit,
            p99: hundred_p99 as f64 / 100.0 / unit,
        }
    }
}

/// Exact to the last bit of a double: the digits are few enough or the value is rounded once.
fn to_f64(value: i256) -> f64 {
    match value.to_i128() {
        Some(value) => value as f64,
        None => value.to_string().parse().unwrap_or(f64::NAN),
    }
}

fn sums(run: &[Entry]) -> (i128, i256) {
    let sum = run.iter().map(|entry| i128::from(entry.value)).sum();
    let squares = run
        .iter()
        .try_fold(0i128, |total, entry| total.checked_add(i128::from(entry.value) * i128::from(entry.value)));
    let squares = match squares {
        Some(squares) => i256::from_i128(squares),
        None => run.iter().fold(i256::ZERO, |total, entry| {
            let square = i128::from(entry.value) * i128::from(entry.value);
            total.wrapping_add(i256::from_i128(square))
        }),
    };
    (sum, squares)
}

/// Four times the median of |x − median|, from sorted values: the distances left and right of the median are two
/// sorted lists, merged up to their middle.
fn four_mads(values: &[i64], twice_median: i128) -> i128 {
    let n = values.len();
    let distance = |index: usize| (2 * i128::from(values[index]) - twice_median).abs();
    let mut right = values.partition_point(|value| 2 * i128::from(*value) < twice_median);
    let mut left = right;
    let (mut low, mut high) = (0, 0);
    for rank in 0..=n / 2 {
        let take_left = left > 0 && (right == n || distance(left - 1) <= distance(right));
        let next = match take_left {
            true => {
                left -= 1;
                distance(left)
            }
            false => {
                right += 1;
                distance(right - 1)
            }
        };
        if rank == (n - 1) / 2 {
            low = next;
        }
        high = next;
    }
    low + high
}

/// Rolls the window over one group's sorted entries.
fn roll(group: &[Entry], days: i32, min_count: usize, unit: f64, columns: &mut Columns) {
    let runs: Vec<&[Entry]> = group.chunk_by(|a, b| a.date == b.date).collect();
    // a group that never reaches the count needs no window
    if group.len() < min_count {
        return;
    }
    let mut window = Window::default();
    let (mut entered, mut left) = (0, 0);
    let mut known: Option<Statistics> = None;
    let first = group[0].date;
    let last = group[group.len() - 1].date;
    for date in first.saturating_add(1)..=last.saturating_add(days) {
        while let Some(run) = runs.get(entered).filter(|run| run[0].date < date) {
            window.enter(run);
            entered += 1;
            known = None;
        }
        while let Some(run) = runs.get(left).filter(|run| run[0].date < date.saturating_sub(days)) {
            window.leave(run);
            left += 1;
            known = None;
        }
        if window.values.len() >= min_count.max(1) {
            let statistics = known.get_or_insert_with(|| window.statistics(unit));
            columns.push(date, statistics);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(values: &[(i32, i64)]) -> Vec<Entry> {
        let mut entries: Vec<Entry> =
            values.iter().map(|(date, value)| Entry { group: 0, date: *date, value: *value }).collect();
        entries.sort_unstable();
        entries
    }

    fn median(sorted: &[f64]) -> f64 {
        let n = sorted.len();
        (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
    }

    /// The definition, day by day.
    fn by_definition(values: &[(i32, i64)], date: i32, days: i32) -> Statistics {
        let mut x: Vec<f64> = values
            .iter()
            .filter(|(d, _)| *d < date && *d >= date - days)
            .map(|(_, value)| *value as f64)
            .collect();
        x.sort_by(f64::total_cmp);
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
        let middle = median(&x);
        let mut distances: Vec<f64> = x.iter().map(|v| (v - middle).abs()).collect();
        distances.sort_by(f64::total_cmp);
        let position = (n - 1.0) * 0.99;
        let (low, high) = (position.floor() as usize, position.ceil() as usize);
        Statistics {
            n: x.len() as i64,
            mean,
            sd: if x.len() > 1 { variance.sqrt() } else { 0.0 },
            median: middle,
            mad: median(&distances),
            p99: x[low] + (x[high] - x[low]) * (position - low as f64),
        }
    }

    proptest! {
        #[test]
        fn equals_the_definition(values in prop::collection::vec((0..40i32, -1000..1000i64), 1..200), days in 1..20i32, min_count in 1..10usize) {
            let mut columns = Columns::default();
            roll(&entries(&values), days, min_count, 1.0, &mut columns);
            let mut row = 0;
            for date in 0..80 {
                let n = values.iter().filter(|(d, _)| *d < date && *d >= date - days).count();
                if n < min_count {
                    continue;
                }
                let expected = by_definition(&values, date, days);
                prop_assert_eq!(columns.date[row], date);
                prop_assert_eq!(columns.n[row], expected.n);
                for (got, expected) in [
                    (columns.mean[row], expected.mean),
                    (columns.sd[row], expected.sd),
                    (columns.median[row], expected.median),
                    (columns.mad[row], expected.mad),
                    (columns.p99[row], expected.p99),
                ] {
                    prop_assert!((got - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{got} {expected}");
                }
                row += 1;
            }
            prop_assert_eq!(columns.date.len(), row);
        }
    }

    #[test]
    fn equal_values_have_no_spread_at_all() {
        let values: Vec<(i32, i64)> = (0..60).map(|n| (n % 30, 100_000)).collect();
        let mut columns = Columns::default();
        roll(&entries(&values), 30, 50, 1e6, &mut columns);
        assert!(columns.sd.iter().chain(&columns.mad).all(|value| *value == 0.0));
        assert_eq!(columns.median[0], 0.1);
    }

    #[test]
    fn the_largest_values_do_not_overflow() {
        let largest = 999_999_999_999_999_999;
        let values: Vec<(i32, i64)> =
            (0..1000).map(|n| (n / 2 % 10, if n % 2 == 0 { largest } else { -largest })).collect();
        let mut columns = Columns::default();
        roll(&entries(&values), 30, 50, 1e6, &mut columns);
        let last = columns.sd.len() - 1;
        assert_eq!(columns.mean[last], 0.0);
        assert!((columns.sd[0] / 1e12 - 1.0).abs() < 0.01, "{}", columns.sd[0]);
    }
}
