//! What gold answers: serving tables and questions, held against the marts.

use std::collections::BTreeSet;
use std::str::FromStr;

use arrow::datatypes::DataType;

use super::Planner;
use crate::decode::Type;
use crate::project::cql_type::CqlType;
use crate::project::diagnostics::Diagnostics;
use crate::project::model::Model;
use crate::project::read::{Pair, Text, Written};
use crate::project::sql::TableName;
use crate::project::{Question, cql};
use crate::type_name::type_name;
use crate::zone;

pub(super) fn serving_tables(
    written: &Written,
    models: &[Model],
    planner: &Planner,
    found: &mut Diagnostics,
) -> Vec<cql::ServingTable> {
    let mut tables = Vec::new();
    for (name, text) in &written.tables {
        let table = match cql::parse_table(&text.text) {
            Ok(table) => table,
            Err(message) => {
                found.add(&text.file, 1, message);
                continue;
            }
        };
        if table.name != *name {
            found.add_at(
                &text.file,
                &text.text,
                &table.name,
                format!("the table is `{}`, the file `{name}`", table.name),
            );
        }
        let mart = models.iter().find(|model| model.table == TableName::new(zone::GOLD, name));
        match mart {
            _ if planner.is_broken(zone::GOLD, name) => found.not_checked(&text.file),
            None => {
                let message = format!("there is no mart `gold.{name}`");
                found.add_at(&text.file, &text.text, &table.name, message);
            }
            Some(mart) => compare_columns(&table, mart, text, found),
        }
        tables.push(table);
    }
    tables
}

fn compare_columns(table: &cql::ServingTable, mart: &Model, text: &Text, found: &mut Diagnostics) {
    for (column, kind) in &table.columns {
        match mart.schema.field_with_name(column) {
            Err(_) => found.add_at(
                &text.file,
                &text.text,
                column,
                format!("`{}` has no column `{column}`", mart.table),
            ),
            Ok(field) if !fits(field.data_type(), kind) => {
                let message = format!(
                    "`{column}` is `{kind}` here and `{}` in `{}`",
                    type_name(field.data_type()),
                    mart.table
                );
                found.add_at(&text.file, &text.text, column, message);
            }
            Ok(_) => {}
        }
    }
    for field in mart.schema.fields() {
        if !table.columns.iter().any(|(column, _)| column == field.name()) {
            let message = format!("the column `{}` of `{}` is missing", field.name(), mart.table);
            found.add_at(&text.file, &text.text, &table.name, message);
        }
    }
    for column in table.partition_key.iter().chain(table.clustering.iter().map(|(name, _)| name)) {
        if !table.columns.iter().any(|(declared, _)| declared == column) {
            found.add_at(
                &text.file,
                &text.text,
                "primary",
                format!("the key column `{column}` is not declared"),
            );
        }
    }
    let cql_key: BTreeSet<&String> =
        table.partition_key.iter().chain(table.clustering.iter().map(|(name, _)| name)).collect();
    if let Some(missing) = mart.key.iter().find(|column| !cql_key.contains(column)) {
        let message = format!(
            "the key column `{missing}` of `{}` is not in the primary key, so rows would be lost",
            mart.table
        );
        found.add_at(&text.file, &text.text, "primary", message);
    }
}

/// Whether a mart's column can be kept in a CQL column of that type without loss.
fn fits(data_type: &DataType, kind: &str) -> bool {
    CqlType::parse(kind).is_some_and(|kind| kind.keeps(data_type))
}

pub(super) async fn question(
    name: &str,
    pair: &Pair<crate::project::manifest::QuestionManifest>,
    written: &Written,
    tables: &[cql::ServingTable],
    planner: &Planner,
    found: &mut Diagnostics,
) -> Option<Question> {
    let code = &pair.code;
    if cql::table_of(&code.text).is_some_and(|table| written.is_unread_table(&table, tables)) {
        found.not_checked(&code.file);
        return None;
    }
    let select = match cql::parse_select(&code.text, tables) {
        Ok(select) => select,
        Err(message) => {
            found.add(&code.file, 1, message);
            return None;
        }
    };
    if let Some(table) = tables.iter().find(|table| table.name == select.table) {
        for column in cql::unrestricted(&code.text, table) {
            let message = format!(
                "`{column}` is part of the partition key: fix it by `{column} = :{column}`, or add a table for the question"
            );
            found.add_at(&code.file, &code.text, "where", message);
        }
    }
    let parameters = &pair.manifest.parameters;
    for marker in select.markers.iter().filter(|_| !pair.damage.touches("parameters")) {
        if !parameters.contains_key(marker) {
            found.add_at(
                &code.file,
                &code.text,
                marker,
                format!("`:{marker}` is not declared in `{name}.toml`"),
            );
        }
    }
    for (parameter, declared) in parameters {
        if !select.markers.contains(parameter) {
            found.add_at(
                &pair.toml.file,
                &pair.toml.text,
                parameter,
                format!("the question does not use `:{parameter}`"),
            );
        }
        if let Err(message) = Type::from_str(&declared.type_name)
            && !pair.damage.touches("parameters")
        {
            found.add_at(&pair.toml.file, &pair.toml.text, parameter, message);
        }
        if let Some(default) = &declared.default {
            let text = Text { file: pair.toml.file.clone(), text: default.clone() };
            planner.plan(&text, found).await;
        }
    }
    let columns = tables.iter().find(|table| table.name == select.table).map(|table| &table.columns);
    let typed = columns.into_iter().flatten().filter_map(|(column, kind)| {
        CqlType::parse(kind).filter(|kind| !kind.is_scalar()).map(|kind| (column.clone(), kind))
    });
    let gold = Text { file: code.file.clone(), text: select.gold_sql.clone() };
    planner.plan(&gold, found).await?;
    Some(Question {
        name: name.to_owned(),
        file: code.file.clone(),
        title: pair.manifest.title.clone(),
        parameters: parameters.iter().map(|(name, declared)| (name.clone(), declared.clone())).collect(),
        cql: code.text.clone(),
        gold_sql: select.gold_sql,
        table: select.table,
        limit: select.limit,
        collections: typed.collect(),
    })
}
