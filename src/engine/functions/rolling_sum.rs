//! `rolling_sum`: what the last days came to, on each day.
//!
//! For one group, the aggregate takes a date and a decimal value per row and literal spans in days, the longest last. It
//! gives, for every date whose longest span holds a row, the exact sum over each span: the date itself and the days
//! before it. A day without rows in a short span sums to 0 there.
//!
//! One pass per group with a sum per span that each day enters and leaves, where a join with a range of days would
//! make as many rows as the span has days.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, StructArray};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Fields};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::rolling::{self, Groups, OneGroup, Rolling, list_field};

type Entry = rolling::Entry<i128>;

/// `rolling_sum(date, value, days, …)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RollingSum {
    signature: Signature,
}

impl Default for RollingSum {
    fn default() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

/// `date`, then `sum_1`, `sum_2`, … in the order of the spans.
fn fields(num_spans: usize, scale: i8) -> Fields {
    let sum = DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale);
    let sums = (1..=num_spans).map(|n| Field::new(format!("sum_{n}"), sum.clone(), false));
    std::iter::once(Field::new("date", DataType::Date32, false)).chain(sums).collect()
}

impl AggregateUDFImpl for RollingSum {
    fn name(&self) -> &'static str {
        "rolling_sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Date32, DataType::Decimal128(_, scale), spans @ ..] if !spans.is_empty() => {
                Ok(DataType::List(list_field(DataType::Struct(fields(spans.len(), *scale)))))
            }
            _ => plan_err!(
                "`rolling_sum` takes a date, a decimal, and literal numbers of days, the longest last"
            ),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(Groups::new(Sums::new(&args)?))))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(rolling::state_fields(args.name, args.input_fields[1].data_type().clone()))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::new(Sums::new(&args)?)))
    }
}

/// What the aggregate was asked for.
#[derive(Debug)]
struct Sums {
    value_type: DataType,
    scale: i8,
    /// In days, the longest last.
    spans: Vec<i32>,
}

impl Sums {
    fn new(args: &AccumulatorArgs) -> Result<Self> {
        let value_type = args.expr_fields[1].data_type().clone();
        let DataType::Decimal128(_, scale) = value_type else {
            return exec_err!("`rolling_sum` of `{value_type}`");
        };
        let spans = (2..args.exprs.len())
            .map(|at| Ok(i32::try_from(rolling::literal(args, at)?).unwrap_or(i32::MAX)))
            .collect::<Result<Vec<_>>>()?;
        if !spans.is_sorted() {
            return exec_err!("the longest span of `rolling_sum` must come last");
        }
        Ok(Self { value_type, scale, spans })
    }

    fn roll(&self, group: &[Entry], dates: &mut Vec<i32>, sums: &mut [Vec<i128>]) -> Result<()> {
        let days: Vec<&[Entry]> = group.chunk_by(|a, b| a.date == b.date).collect();
        let mut entered = 0;
        let mut left = vec![0; self.spans.len()];
        let mut totals = vec![0i128; self.spans.len()];
        let mut date = group[0].date;
        while entered < days.len() || left.last().is_some_and(|left| *left < days.len()) {
            while let Some(day) = days.get(entered).filter(|day| day[0].date <= date) {
                let sum = sum(day)?;
                for total in &mut totals {
                    *total = add(*total, sum)?;
                }
                entered += 1;
            }
            for ((span, left), total) in self.spans.iter().zip(&mut left).zip(&mut totals) {
                while let Some(day) = days.get(*left).filter(|day| day[0].date <= date.saturating_sub(*span))
                {
                    *total = add(*total, -sum(day)?)?;
                    *left += 1;
                }
            }
            let is_empty = left.last().is_some_and(|left| *left == entered);
            if !is_empty {
                dates.push(date);
                for (column, total) in sums.iter_mut().zip(&totals) {
                    column.push(*total);
                }
            }
            date = match days.get(entered) {
                // nothing to tell of the days between
                Some(next) if is_empty => next[0].date,
                _ if date == i32::MAX => break,
                _ => date + 1,
            };
        }
        Ok(())
    }
}

fn sum(day: &[Entry]) -> Result<i128> {
    day.iter().try_fold(0, |total, entry| add(total, entry.value))
}

fn add(a: i128, b: i128) -> Result<i128> {
    match a.checked_add(b) {
        Some(sum) => Ok(sum),
        None => exec_err!("a sum of `rolling_sum` has more than 38 digits"),
    }
}

impl Rolling for Sums {
    type Value = Decimal128Type;

    fn value(&self, amount: i128) -> Result<i128> {
        Ok(amount)
    }

    fn value_type(&self) -> DataType {
        self.value_type.clone()
    }

    fn evaluate(&self, entries: &[Entry], lengths: &mut [usize]) -> Result<ArrayRef> {
        let mut dates = Vec::new();
        let mut sums = vec![Vec::new(); self.spans.len()];
        for group in entries.chunk_by(|a, b| a.group == b.group) {
            let before = dates.len();
            self.roll(group, &mut dates, &mut sums)?;
            lengths[group[0].group as usize] = dates.len() - before;
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Date32Array::from(dates))];
        for sums in sums {
            let sums =
                Decimal128Array::from(sums).with_precision_and_scale(DECIMAL128_MAX_PRECISION, self.scale)?;
            columns.push(Arc::new(sums));
        }
        Ok(Arc::new(StructArray::try_new(fields(self.spans.len(), self.scale), columns, None)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_definition(values in prop::collection::vec((0..60i32, -1000..1000i128), 1..60)) {
            let spans = vec![1, 7, 14];
            let asked = Sums { value_type: DataType::Decimal128(38, 6), scale: 6, spans: spans.clone() };
            let mut entries: Vec<Entry> =
                values.iter().map(|(date, value)| Entry { group: 0, date: *date, value: *value }).collect();
            entries.sort_unstable();
            let (mut dates, mut sums) = (Vec::new(), vec![Vec::new(); 3]);
            asked.roll(&entries, &mut dates, &mut sums).unwrap();
            let within = |date: i32, span: i32| {
                values.iter().filter(move |(d, _)| *d <= date && *d > date - span).map(|(_, value)| *value)
            };
            let expected: Vec<i32> = (0..80).filter(|date| within(*date, 14).count() > 0).collect();
            prop_assert_eq!(&dates, &expected);
            for (row, date) in dates.iter().enumerate() {
                for (column, span) in sums.iter().zip(&spans) {
                    prop_assert_eq!(column[row], within(*date, *span).sum::<i128>());
                }
            }
        }
    }
}
