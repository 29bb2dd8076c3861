//! The project's questions, asked as prepared statements.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use scylla::frame::response::result::{CollectionType, ColumnType, NativeType};

use super::Cassandra;
use super::raw::Bound;
use crate::error::{During, Error, Result};
use crate::project::Question;
use crate::project::cql_type::CqlType;
use crate::store::rows::push_cell;
use crate::store::{decode, encode};

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
            decode::column(kind, field.data_type(), &cells).during(|| format!("column `{}`", field.name()))
        });
        Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?)?)
    }
}

/// The type of a column or marker as Cassandra tells it.
fn kind(told: &ColumnType<'_>) -> Result<CqlType> {
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
