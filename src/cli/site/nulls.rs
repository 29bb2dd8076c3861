//! How often the values of a column are null: counted, over as many of the newest rows as is quick.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::facts::TableFacts;
use crate::engine;
use crate::error::Result;
use crate::flow::decide::quoted;
use crate::flow::{Run, inputs};
use crate::project::sql::TableName;

/// Whole dates are counted, the newest first, until there are so many rows.
const ENOUGH: u64 = 100_000;

/// A table without dates that has more rows is not counted.
const MOST: u64 = 1_000_000;

/// What was counted.
#[derive(Debug)]
pub struct Nulls {
    pub rows: u64,
    /// The first date that was counted, where not all were.
    pub newest: Option<String>,
    columns: BTreeMap<String, u64>,
}

impl Nulls {
    /// How often a column is null, in words.
    pub fn share(&self, column: &str) -> String {
        match self.columns.get(column) {
            None => String::new(),
            Some(0) => "never".to_owned(),
            Some(nulls) if *nulls == self.rows => "always".to_owned(),
            Some(nulls) => {
                let percent = *nulls as f64 * 100.0 / self.rows as f64;
                // neither rounded to never nor to always
                format!("{:.1} %", percent.clamp(0.1, 99.9))
            }
        }
    }
}

/// Counts them. `None` where the table has no rows, or too many at once.
///
/// # Errors
/// The store's.
pub async fn count(run: &Run, name: &TableName, facts: &TableFacts) -> Result<Option<Nulls>> {
    let mut rows = 0;
    let mut dates = BTreeSet::new();
    for (date, count) in facts.by_date.iter().rev() {
        if rows >= ENOUGH {
            break;
        }
        rows += count;
        dates.insert(*date);
    }
    let is_by_date = !dates.is_empty();
    if facts.total.rows == 0 || (!is_by_date && facts.total.rows > MOST) || rows > MOST {
        return Ok(None);
    }
    let (schema, _) = run.declared(name)?;
    let counts: Vec<String> =
        schema.fields().iter().map(|field| format!("count({})", quoted(field.name()))).collect();
    let query =
        format!("select count(*), {} from {}.{}", counts.join(", "), name.schema, quoted(&name.table));
    let context = engine::context(&run.state);
    let names = BTreeSet::from([name.clone()]);
    inputs::register_dates_of(run, &context, &names, is_by_date.then_some(&dates)).await?;
    let batches = context.sql(&query).await?.collect().await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else {
        return Ok(None);
    };
    let counted = |at: usize| batch.column(at).as_primitive::<Int64Type>().value(0).cast_unsigned();
    let rows = counted(0);
    let columns = schema.fields().iter().enumerate();
    let columns = columns.map(|(at, field)| (field.name().clone(), rows - counted(at + 1))).collect();
    let newest = dates.first().filter(|_| dates.len() < facts.by_date.len());
    let newest = newest.and_then(|date| chrono::NaiveDate::from_epoch_days(*date));
    Ok((rows > 0).then(|| Nulls { rows, newest: newest.map(|date| date.to_string()), columns }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_never_rounded_to_none_or_all() {
        let columns = [("a", 0), ("b", 1), ("c", 99_999), ("d", 100_000), ("e", 12_345)];
        let columns = columns.map(|(name, nulls)| (name.to_owned(), nulls)).into();
        let nulls = Nulls { rows: 100_000, newest: None, columns };
        let told = ["a", "b", "c", "d", "e", "f"].map(|column| nulls.share(column));
        assert_eq!(told, ["never", "0.1 %", "99.9 %", "always", "12.3 %", ""]);
    }
}
