//! The project's questions, asked as prepared statements.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use scylla::frame::response::result::{CollectionType, ColumnType, NativeType};
use scylla::statement::prepared::PreparedStatement;

use super::Cassandra;
use super::raw::Bound;
use crate::error::{During, Error, Result};
use crate::project::Question;
use crate::project::cql_type::CqlType;
use crate::store::rows::{key_fault, project, push_cell};
use crate::store::{canonical, decode, encode};

impl Cassandra {
    /// Answers a question with the values of its parameters; the columns are those that gold would give.
    ///
    /// # Errors
    /// `Project` where Cassandra does not know the table or a column, and those of asking.
    pub async fn answer(
        &self,
        question: &Question,
        values: &HashMap<String, ScalarValue>,
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        self.ask_question(question, values, schema)
            .await
            .during(|| format!("answering `{}` from cassandra", question.name))
    }

    async fn ask_question(
        &self,
        question: &Question,
        values: &HashMap<String, ScalarValue>,
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let prepared = self.prepared(&question.cql).await?;
        let mut bound = Vec::new();
        for marker in prepared.get_variable_col_specs().iter() {
            let value = values
                .get(marker.name())
                .ok_or_else(|| Error::bug(format!("the parameter `{}` has no value", marker.name())))?;
            match value.is_null() {
                true => push_cell(&mut bound, None),
                false => encode::scalar(value, &kind(marker.typ())?, &mut bound)
                    .during(|| format!("the parameter `{}`", marker.name()))?,
            }
        }
        let is_zero = |limit: &ScalarValue| {
            limit.cast_to(&DataType::Int64).is_ok_and(|limit| limit == ScalarValue::Int64(Some(0)))
        };
        let limit = question.limit.as_ref().and_then(|name| values.get(name));
        // what Cassandra refuses is asked in vain, here as in gold
        if limit.is_some_and(is_zero) || key_fault(&partition_key(&prepared, &bound)).is_some() {
            return Ok(RecordBatch::new_empty(Arc::clone(schema)));
        }
        let columns = prepared.get_current_result_set_col_specs();
        let kinds: Vec<CqlType> =
            columns.get().iter().map(|column| kind(column.typ())).collect::<Result<_>>()?;
        if kinds.len() != schema.fields().len() {
            return Err(Error::project(format!(
                "cassandra answers with {} columns, gold with {}",
                kinds.len(),
                schema.fields().len()
            )));
        }
        let rows = self.rows("asking", &prepared, Bound::Values(&bound)).await?;
        let columns = schema.fields().iter().zip(&kinds).enumerate().map(|(at, (field, kind))| {
            let cells: Vec<Option<&[u8]>> = rows.iter().map(|row| row.bytes(at)).collect();
            decode::column(kind, field.data_type(), &cells)
                .and_then(|column| canonical::column(kind, &column))
                .during(|| format!("column `{}`", field.name()))
        });
        Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?)?)
    }
}

/// The key of the partition that is asked for; empty where the statement names several.
fn partition_key(prepared: &PreparedStatement, bound: &[u8]) -> Vec<u8> {
    let mut indexes: Vec<_> = prepared.get_variable_pk_indexes().iter().collect();
    indexes.sort_by_key(|index| index.sequence);
    let indexes: Vec<usize> = indexes.iter().map(|index| usize::from(index.index)).collect();
    let mut key = Vec::new();
    project(bound, &indexes, &mut key);
    key
}

/// The type of a column or marker as Cassandra tells it.
pub(super) fn kind(told: &ColumnType<'_>) -> Result<CqlType> {
    let refused =
        || Error::project(format!("cassandra's type `{told:?}` is not supported; leave the column out"));
    Ok(match told {
        ColumnType::Native(native) => match native {
            NativeType::Text | NativeType::Ascii => CqlType::Text,
            NativeType::Boolean => CqlType::Boolean,
            NativeType::Int => CqlType::Int,
            NativeType::BigInt => CqlType::BigInt,
            NativeType::Varint => CqlType::Varint,
            NativeType::Double => CqlType::Double,
            NativeType::Decimal => CqlType::Decimal,
            NativeType::Date => CqlType::Date,
            NativeType::Timestamp => CqlType::Timestamp,
            _ => return Err(refused()),
        },
        ColumnType::Collection { typ, .. } => match typ {
            CollectionType::List(item) => CqlType::List(Box::new(kind(item)?)),
            CollectionType::Set(item) => CqlType::Set(Box::new(kind(item)?)),
            CollectionType::Map(key, value) => CqlType::Map(Box::new(kind(key)?), Box::new(kind(value)?)),
            _ => return Err(refused()),
        },
        _ => return Err(refused()),
    })
}
