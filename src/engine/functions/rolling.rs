//! What aggregates over the days of a group share: they keep every value with its date, and look at the days in order
//! once all are there.
//!
//! The result does not depend on the order of rows: entries are sorted by group, date and value before anyone sees them.

use std::any::Any;
use std::fmt::Debug;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Date32Array, ListArray, PrimitiveArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::expressions::Literal;

/// One value of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<V> {
    pub group: u32,
    pub date: i32,
    pub value: V,
}

/// An aggregate `f(date, decimal, …)` that gives a list per group.
pub trait Rolling: Debug + Send + Sync + 'static {
    /// How a value is kept.
    type Value: ArrowPrimitiveType<Native: Ord>;

    /// The value of a decimal's unscaled digits.
    fn value(&self, amount: i128) -> Result<<Self::Value as ArrowPrimitiveType>::Native>;

    /// The exact type of [`Rolling::Value`] between partial and final aggregation.
    fn value_type(&self) -> DataType;

    /// The items of all groups' lists; `lengths[group]` becomes the length of that group's list. Entries are sorted.
    fn evaluate(
        &self,
        entries: &[Entry<<Self::Value as ArrowPrimitiveType>::Native>],
        lengths: &mut [usize],
    ) -> Result<ArrayRef>;
}

type Native<R> = <<R as Rolling>::Value as ArrowPrimitiveType>::Native;

pub fn list_field(item: DataType) -> FieldRef {
    Arc::new(Field::new("element", item, true))
}

/// Dates and values between partial and final aggregation.
pub fn state_fields(name: &str, value: DataType) -> Vec<FieldRef> {
    let field = |part: &str, item| {
        Arc::new(Field::new(format!("{name}_{part}"), DataType::List(list_field(item)), true))
    };
    vec![field("dates", DataType::Date32), field("values", value)]
}

/// The argument at `at`, which must be a positive literal integer.
pub fn literal(args: &AccumulatorArgs, at: usize) -> Result<i64> {
    let expr: &dyn Any = args.exprs[at].as_ref();
    match expr.downcast_ref::<Literal>().map(Literal::value) {
        Some(ScalarValue::Int64(Some(value))) if *value > 0 => Ok(*value),
        _ => exec_err!("argument {} of `{}` must be a positive literal", at + 1, args.name),
    }
}

/// All values of all groups, sorted only when results are wanted.
#[derive(Debug)]
pub struct Groups<R: Rolling> {
    rolling: R,
    entries: Vec<Entry<Native<R>>>,
    num_groups: usize,
}

impl<R: Rolling> Groups<R> {
    pub fn new(rolling: R) -> Self {
        Self { rolling, entries: Vec::new(), num_groups: 0 }
    }

    fn push(&mut self, group: usize, date: i32, value: Native<R>) -> Result<()> {
        let Ok(group) = u32::try_from(group) else {
            return exec_err!("a rolling aggregate has more than 2^32 groups");
        };
        self.entries.push(Entry { group, date, value });
        Ok(())
    }

    /// The sorted entries of the groups that are emitted; the others move up.
    fn take(&mut self, emit_to: EmitTo) -> (Vec<Entry<Native<R>>>, usize) {
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

    fn values(&self, values: impl Iterator<Item = Native<R>>) -> PrimitiveArray<R::Value> {
        PrimitiveArray::<R::Value>::from_iter_values(values).with_data_type(self.rolling.value_type())
    }
}

fn list(items: ArrayRef, offsets: OffsetBuffer<i32>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    Ok(Arc::new(ListArray::try_new(list_field(items.data_type().clone()), offsets, items, nulls)?))
}

impl<R: Rolling> GroupsAccumulator for Groups<R> {
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
                self.push(*group, dates.value(row), self.rolling.value(amounts.value(row))?)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (entries, num_groups) = self.take(emit_to);
        let mut lengths = vec![0; num_groups];
        let items = self.rolling.evaluate(&entries, &mut lengths)?;
        list(items, OffsetBuffer::from_lengths(lengths), None)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (entries, num_groups) = self.take(emit_to);
        let mut lengths = vec![0; num_groups];
        for entry in &entries {
            lengths[entry.group as usize] += 1;
        }
        let offsets = OffsetBuffer::from_lengths(lengths);
        let dates = Date32Array::from_iter_values(entries.iter().map(|entry| entry.date));
        let values = self.values(entries.iter().map(|entry| entry.value));
        Ok(vec![list(Arc::new(dates), offsets.clone(), None)?, list(Arc::new(values), offsets, None)?])
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
        let all_dates = dates.values().as_primitive::<Date32Type>().values();
        let all_amounts = amounts.values().as_primitive::<R::Value>().values();
        for (row, group) in group_indices.iter().enumerate() {
            if dates.is_null(row) {
                continue;
            }
            let places = |offsets: &[i32]| offsets[row] as usize..offsets[row + 1] as usize;
            let run_dates = &all_dates[places(dates.value_offsets())];
            let run_amounts = &all_amounts[places(amounts.value_offsets())];
            for (date, value) in run_dates.iter().zip(run_amounts) {
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
        let amounts = (0..num_rows)
            .map(|row| match nulls.is_valid(row) {
                true => self.rolling.value(amounts.value(row)),
                false => Ok(Native::<R>::default()),
            })
            .collect::<Result<Vec<_>>>()?;
        let amounts = self.values(amounts.into_iter());
        Ok(vec![
            list(Arc::clone(&values[0]), offsets.clone(), Some(nulls.clone()))?,
            list(Arc::new(amounts), offsets, Some(nulls))?,
        ])
    }

    fn size(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<Native<R>>>()
    }
}

/// The aggregate without `group by`.
#[derive(Debug)]
pub struct OneGroup<R: Rolling>(pub Groups<R>);

impl<R: Rolling> Accumulator for OneGroup<R> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let group_indices = vec![0; values[0].len()];
        GroupsAccumulator::update_batch(&mut self.0, values, &group_indices, None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.num_groups = 1;
        let lists = GroupsAccumulator::evaluate(&mut self.0, EmitTo::All)?;
        ScalarValue::try_from_array(&lists, 0)
    }

    fn size(&self) -> usize {
        GroupsAccumulator::size(&self.0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.num_groups = 1;
        let states = GroupsAccumulator::state(&mut self.0, EmitTo::All)?;
        states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let group_indices = vec![0; states[0].len()];
        GroupsAccumulator::merge_batch(&mut self.0, states, &group_indices, 1)
    }
}
