//! Arrow types and Delta types, in both directions.
//!
//! The lake holds: text, boolean, int, bigint, double, decimal, date, timestamp (UTC, microseconds), binary, and lists,
//! maps and structs of these. Anything else is named and refused before a run starts.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::type_name::type_name;

/// The type in which a column is kept: text views for every kind of text, lists and maps with Delta's element names.
///
/// # Errors
/// `Project`, naming the column and its type, where the lake can't hold it.
pub fn lake_type(column: &str, data_type: &DataType) -> Result<DataType> {
    Ok(match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Dictionary(_, values) => lake_type(column, values)?,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::BinaryView,
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float64
        | DataType::Date32
        | DataType::Decimal128(_, _) => data_type.clone(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => data_type.clone(),
        DataType::List(item) | DataType::LargeList(item) => DataType::List(element(column, item, "element")?),
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else {
                return Err(refused(column, data_type));
            };
            let [key, value] = pair.iter().as_slice() else {
                return Err(refused(column, data_type));
            };
            let key = Field::new("key", lake_type(column, key.data_type())?, false);
            let value = element(column, value, "value")?;
            let pair = DataType::Struct(Fields::from(vec![Arc::new(key), value]));
            DataType::Map(Arc::new(Field::new("key_value", pair, false)), false)
        }
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| element(column, field, field.name()))
                .collect::<Result<Vec<_>>>()?;
            DataType::Struct(Fields::from(fields))
        }
        other => return Err(refused(column, other)),
    })
}

fn element(column: &str, field: &Field, name: &str) -> Result<FieldRef> {
    let data_type = lake_type(column, field.data_type())?;
    Ok(Arc::new(Field::new(name, data_type, true)))
}

fn refused(column: &str, data_type: &DataType) -> Error {
    Error::project(format!(
        "column `{column}` has the type `{}`, which the lake can't hold; cast it to one of text, boolean, \
         int, bigint, double, decimal, date, timestamp in utc with microseconds, or a list, map or struct of these",
        type_name(data_type)
    ))
}

/// The schema in which a table is kept: every column nullable, `partition` columns last and in their order.
///
/// # Errors
/// `Project` where a type can't be held or a partition column does not exist.
pub fn lake_schema(schema: &Schema, partition: &[String]) -> Result<SchemaRef> {
    let mut fields = Vec::new();
    for field in schema.fields() {
        if !partition.contains(field.name()) {
            fields.push(element(field.name(), field, field.name())?);
        }
    }
    for name in partition {
        let field = schema
            .field_with_name(name)
            .map_err(|_| Error::project(format!("the partition column `{name}` is not among the columns")))?;
        fields.push(element(name, field, name)?);
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The schema as Delta keeps it in the log.
///
/// # Errors
/// `Bug` for a type that [`lake_type`] does not produce.
pub fn to_delta(schema: &Schema) -> Result<String> {
    let fields = fields_to_delta(schema.fields())?;
    Ok(json!({"type": "struct", "fields": fields}).to_string())
}

fn fields_to_delta(fields: &Fields) -> Result<Vec<Value>> {
    fields
        .iter()
        .map(|field| {
            Ok(json!({
                "name": field.name(),
                "type": type_to_delta(field.data_type())?,
                "nullable": field.is_nullable(),
                "metadata": {},
            }))
        })
        .collect()
}

fn type_to_delta(data_type: &DataType) -> Result<Value> {
    Ok(match data_type {
        DataType::Utf8View => json!("string"),
        DataType::BinaryView => json!("binary"),
        DataType::Boolean => json!("boolean"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float64 => json!("double"),
        DataType::Date32 => json!("date"),
        DataType::Timestamp(_, Some(_)) => json!("timestamp"),
        DataType::Decimal128(precision, scale) => json!(format!("decimal({precision},{scale})")),
        DataType::List(item) => json!({
            "type": "array",
            "elementType": type_to_delta(item.data_type())?,
            "containsNull": true,
        }),
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else {
                return Err(Error::bug("a map without entries"));
            };
            json!({
                "type": "map",
                "keyType": type_to_delta(pair[0].data_type())?,
                "valueType": type_to_delta(pair[1].data_type())?,
                "valueContainsNull": true,
            })
        }
        DataType::Struct(fields) => json!({"type": "struct", "fields": fields_to_delta(fields)?}),
        other => return Err(Error::bug(format!("type `{other}` is not a lake type"))),
    })
}

/// The Arrow schema of a table in the log.
///
/// # Errors
/// `Data` where the schema is damaged or has a type of another writer that the lake does not hold.
pub fn from_delta(schema_string: &str) -> Result<SchemaRef> {
    let parsed: Value = serde_json::from_str(schema_string)
        .map_err(|error| Error::data("the table's schema is damaged").because(error))?;
    Ok(Arc::new(Schema::new(fields_from_delta(&parsed["fields"])?)))
}

fn fields_from_delta(fields: &Value) -> Result<Vec<FieldRef>> {
    let fields =
        fields.as_array().ok_or_else(|| Error::data("the table's schema is damaged: it has no fields"))?;
    fields
        .iter()
        .map(|field| {
            let name = field["name"].as_str().unwrap_or_default();
            let nullable = field["nullable"].as_bool().unwrap_or(true);
            let data_type = type_from_delta(&field["type"])?;
            Ok(Arc::new(Field::new(name, data_type, nullable)))
        })
        .collect()
}

fn type_from_delta(written: &Value) -> Result<DataType> {
    if let Some(name) = written.as_str() {
        return primitive_from_delta(name);
    }
    match written["type"].as_str() {
        Some("array") => {
            let item = type_from_delta(&written["elementType"])?;
            Ok(DataType::List(Arc::new(Field::new("element", item, true))))
        }
        Some("map") => {
            let key = Field::new("key", type_from_delta(&written["keyType"])?, false);
            let value = Field::new("value", type_from_delta(&written["valueType"])?, true);
            let pair = DataType::Struct(Fields::from(vec![key, value]));
            let entries = Field::new("key_value", pair, false);
            Ok(DataType::Map(Arc::new(entries), false))
        }
        Some("struct") => Ok(DataType::Struct(fields_from_delta(&written["fields"])?.into())),
        _ => Err(Error::data(format!("the lake does not hold the type `{written}`"))),
    }
}

fn primitive_from_delta(name: &str) -> Result<DataType> {
    Ok(match name {
        "string" => DataType::Utf8View,
        "binary" => DataType::BinaryView,
        "boolean" => DataType::Boolean,
        "integer" => DataType::Int32,
        "long" => DataType::Int64,
        "double" => DataType::Float64,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        other => {
            let scale = other
                .strip_prefix("decimal(")
                .and_then(|rest| rest.strip_suffix(')'))
                .and_then(|rest| rest.split_once(','));
            match scale.map(|(p, s)| (p.trim().parse(), s.trim().parse())) {
                Some((Ok(precision), Ok(scale))) => DataType::Decimal128(precision, scale),
                _ => return Err(Error::data(format!("the lake does not hold the type `{other}`"))),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lake_type_comes_back() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        let pair = Fields::from(vec![
            Field::new("keys", DataType::Utf8, false),
            Field::new("values", DataType::Decimal128(38, 6), true),
        ]);
        let entries = Field::new("entries", DataType::Struct(pair), false);
        let schema = Schema::new(vec![
            Field::new("date", DataType::Date32, true),
            Field::new("name", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
            Field::new("tags", list, true),
            Field::new("costs", DataType::Map(Arc::new(entries), false), true),
            Field::new("score", DataType::Float64, true),
        ]);
        let kept = lake_schema(&schema, &["date".to_owned()]).unwrap();
        assert_eq!(kept.fields().last().unwrap().name(), "date");
        assert_eq!(from_delta(&to_delta(&kept).unwrap()).unwrap(), kept);
    }

    #[test]
    fn a_type_that_the_lake_cannot_hold_is_named() {
        let schema = Schema::new(vec![Field::new("rank", DataType::UInt64, true)]);
        let refused = lake_schema(&schema, &[]).unwrap_err().to_string();
        assert!(refused.contains("column `rank` has the type `bigint unsigned`"), "{refused}");
    }
}
