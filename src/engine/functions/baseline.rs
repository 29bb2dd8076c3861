//! `rolling_baseline`: what was normal in the days before each day.
//!
//! For one group, the aggregate takes a date and a decimal value per row and gives, for every date `d` that has at
//! least `min_count` values on the `days` dates before it (`d` itself excluded): their number, mean, sample standard
//! deviation, median, MAD (median of |x − median|) and 99th percentile (linear interpolation).
//!
//! Exact, and independent of the order of rows: values are integers of the decimal's last digit, sums are exact, and
//! each result is rounded once, to a double. One sort per group, then a sorted window that each day's run enters by a
//! merge and leaves by another, so a day costs as much as its window, not as much as a join with it.

use std::any::Any;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Float64Array, Int64Array, ListArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Field, FieldRef, Fields, Int64Type, i256};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;

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

fn list_field(item: DataType) -> FieldRef {
    Arc::new(Field::new("element", item, true))
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
        Ok(Box::new(OneGroup { groups: Groups::new(&args)? }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name: &str, item| {
            Arc::new(Field::new(format!("{}_{name}", args.name), DataType::List(list_field(item)), true))
        };
        Ok(vec![field("dates", DataType::Date32), field("values", DataType::Int64)])
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::new(&args)?))
    }
}

fn literal(args: &AccumulatorArgs, at: usize) -> Result<i64> {
    let expr: &dyn Any = args.exprs[at].as_ref();
    match expr.downcast_ref::<Literal>().map(Literal::value) {
        Some(ScalarValue::Int64(Some(value))) if *value > 0 => Ok(*value),
        _ => exec_err!("argument {} of `rolling_baseline` must be a positive literal", at + 1),
    }
}

/// One landed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    group: u32,
    date: i32,
    value: i64,
}

/// All values of all groups, sorted only when results are wanted.
#[derive(Debug)]
struct Groups {
    days: i32,
    min_count: usize,
    scale: i8,
    entries: Vec<Entry>,
    num_groups: usize,
}

impl Groups {
    fn new(args: &AccumulatorArgs) -> Result<Self> {
        let scale = match args.expr_fields[1].data_type() {
            DataType::Decimal128(_, scale) => *scale,
            other => return exec_err!("`rolling_baseline` of `{other}`"),
        };
        Ok(Self {
            days: i32::try_from(literal(args, 2)?).unwrap_or(i32::MAX),
            min_count: usize::try_from(literal(args, 3)?).unwrap_or(usize::MAX),
            scale,
            entries: Vec::new(),
            num_groups: 0,
        })
    }

    fn push(&mut self, group: usize, date: i32, value: i64) -> Result<()> {
        let Ok(group) = u32::try_from(group) else {
            return exec_err!("`rolling_baseline` has more than 2^32 groups");
        };
        self.entries.push(Entry { group, date, value });
        Ok(())
    }

    /// The sorted entries of the groups that are emitted; the others move up.
    fn take(&mut self, emit_to: EmitTo) -> (Vec<Entry>, usize) {
        let num_emitted = match emit_to {
            EmitTo::All => self.num_groups,
            EmitTo::First(n) => n,
        };
        let mut emitted = std::mem::take(&mut self.entries);
        emitted.sort_unstable();
        let first_kept = emitted.partition_point(|entry| (entry.group as usize) < num_emitted);
        self.entries = emitted.split_off(first_kept);
        for entry in &mut self.entries {
            entry.group -= num_emitted as u32;
        }
        self.num_groups -= num_emitted;
        (emitted, num_emitted)
    }
}

/// Where each group's entries end, as list offsets.
fn offsets(entries: &[Entry], num_groups: usize) -> OffsetBuffer<i32> {
    let mut lengths = vec![0; num_groups];
    for entry in entries {
        lengths[entry.group as usize] += 1;
    }
    OffsetBuffer::from_lengths(lengths)
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.num_groups = total_num_groups;
        let dates = values[0].as_primitive::<Date32Type>();
        let amounts = values[1].as_primitive::<Decimal128Type>();
        self.entries.reserve(group_indices.len());
        for (row, group) in group_indices.iter().enumerate() {
            let is_wanted = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if is_wanted && dates.is_valid(row) && amounts.is_valid(row) {
                let Ok(value) = i64::try_from(amounts.value(row)) else {
                    return exec_err!("a value of `rolling_baseline` has more than 18 digits");
                };
                self.push(*group, dates.value(row), value)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (entries, num_groups) = self.take(emit_to);
        let mut columns = Columns::default();
        let mut lengths = vec![0; num_groups];
        let unit = 10f64.powi(i32::from(self.scale));
        for group in entries.chunk_by(|a, b| a.group == b.group) {
            let before = columns.date.len();
            roll(group, self.days, self.min_count, unit, &mut columns);
            lengths[group[0].group as usize] = columns.date.len() - before;
        }
        let item = Arc::new(columns.finish()?);
        let offsets = OffsetBuffer::from_lengths(lengths);
        let field = list_field(item.data_type().clone());
        Ok(Arc::new(ListArray::try_new(field, offsets, item, None)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (entries, num_groups) = self.take(emit_to);
        let offsets = offsets(&entries, num_groups);
        let dates = Date32Array::from_iter_values(entries.iter().map(|entry| entry.date));
        let values = Int64Array::from_iter_values(entries.iter().map(|entry| entry.value));
        Ok(vec![
            Arc::new(ListArray::try_new(
                list_field(DataType::Date32),
                offsets.clone(),
                Arc::new(dates),
                None,
            )?),
            Arc::new(ListArray::try_new(list_field(DataType::Int64), offsets, Arc::new(values), None)?),
        ])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.num_groups = total_num_groups;
        let dates = values[0].as_list::<i32>();
        let amounts = values[1].as_list::<i32>();
        for (row, group) in group_indices.iter().enumerate() {
            if dates.is_null(row) {
                continue;
            }
            let (run_dates, run_amounts) = (dates.value(row), amounts.value(row));
            let run_dates = run_dates.as_primitive::<Date32Type>().values();
            let run_amounts = run_amounts.as_primitive::<Int64Type>().values();
            for (date, value) in run_dates.iter().zip(run_amounts.iter()) {
                self.push(*group, *date, *value)?;
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let num_rows = values[0].len();
        let is_wanted = |row: usize| {
            filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
                && values[0].is_valid(row)
                && values[1].is_valid(row)
        };
        let nulls = NullBuffer::from_iter((0..num_rows).map(is_wanted));
        let offsets =
            OffsetBuffer::new(ScalarBuffer::from_iter(0..=i32::try_from(num_rows).unwrap_or(i32::MAX)));
        let amounts = values[1].as_primitive::<Decimal128Type>();
        let amounts = amounts.clone().with_precision_and_scale(38, 0)?;
        let amounts = cast(&amounts, &DataType::Int64)?;
        let list = |item: DataType, array: ArrayRef| -> Result<ArrayRef> {
            Ok(Arc::new(ListArray::try_new(list_field(item), offsets.clone(), array, Some(nulls.clone()))?))
        };
        Ok(vec![list(DataType::Date32, Arc::clone(&values[0]))?, list(DataType::Int64, amounts)?])
    }

    fn size(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }
}

/// The aggregate without `group by`.
#[derive(Debug)]
struct OneGroup {
    groups: Groups,
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let group_indices = vec![0; values[0].len()];
        GroupsAccumulator::update_batch(&mut self.groups, values, &group_indices, None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.groups.num_groups = 1;
        let lists = GroupsAccumulator::evaluate(&mut self.groups, EmitTo::All)?;
        ScalarValue::try_from_array(&lists, 0)
    }

    fn size(&self) -> usize {
        GroupsAccumulator::size(&self.groups)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.groups.num_groups = 1;
        let states = GroupsAccumulator::state(&mut self.groups, EmitTo::All)?;
        states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let group_indices = vec![0; states[0].len()];
        GroupsAccumulator::merge_batch(&mut self.groups, states, &group_indices, 1)
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
