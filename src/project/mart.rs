//! A mart as it is published: its serving table, and the statement that writes one row of it.

use std::collections::BTreeSet;

use arrow::datatypes::SchemaRef;

use super::contact;
use super::cql::{self, COMMITTED_AT, Insert, ServingTable};
use super::cql_type::CqlType;
use super::diagnostics::Diagnostics;
use super::lenient::line_of_key;
use super::manifest::ServingManifest;
use super::model::Model;
use super::read::{PROJECT_FILE, Text, Written};
use super::sql::TableName;
use crate::type_name::type_name;
use crate::zone;

/// A mart of gold with a table and a publishing statement in `cql/`.
#[derive(Debug, Clone)]
pub struct Mart {
    /// Of the mart in gold and of the table in Cassandra.
    pub name: String,
    pub table: ServingTable,
    /// `create table …`, as written.
    pub ddl: String,
    pub insert: Insert,
    /// The mart's columns in gold.
    pub schema: SchemaRef,
    /// The type of each value of the statement.
    pub types: Vec<CqlType>,
    /// The values that are the partition key, in its order.
    pub partition_key: Vec<usize>,
    /// The values that are the clustering key, in its order.
    pub clustering: Vec<usize>,
}

impl Mart {
    /// The mart's table in gold.
    pub fn gold(&self) -> TableName {
        TableName::new(zone::GOLD, &self.name)
    }

    /// Changes when rows would be written otherwise: after such a change everything is published again.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (column, kind) in &self.table.columns {
            hasher.update(format!("{column} {kind}\n").as_bytes());
        }
        hasher.update(format!("{:?} {:?} ", self.table.partition_key, self.table.clustering).as_bytes());
        hasher.update(format!("{:?}", self.insert.values).as_bytes());
        // rows live as long as was said when they were written
        hasher.update(format!("{:?}", self.table.ttl).as_bytes());
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

/// Every mart that has both files; what does not fit is reported.
pub(super) fn marts(
    written: &Written,
    tables: &[ServingTable],
    models: &[Model],
    found: &mut Diagnostics,
) -> Vec<Mart> {
    let mut marts = Vec::new();
    for (name, text) in &written.publish {
        let insert = match cql::parse_insert(&text.text) {
            Ok(insert) => insert,
            Err(message) => {
                found.add(&text.file, 1, message);
                continue;
            }
        };
        if insert.table != *name {
            let message = format!("the statement fills `{}`, the file is `{name}`", insert.table);
            found.add_at(&text.file, &text.text, &insert.table, message);
            continue;
        }
        let Some(ddl) = written.tables.get(name) else {
            if !written.is_unread_table(name, tables) {
                found.add_at(&text.file, &text.text, name, format!("`cql/tables/{name}.cql` is missing"));
            }
            continue;
        };
        let table = tables.iter().find(|table| table.name == *name);
        let model = models.iter().find(|model| model.table == TableName::new(zone::GOLD, name));
        // what is wrong with the table or the mart has been reported with them
        let (Some(table), Some(model)) = (table, model) else {
            continue;
        };
        marts.extend(mart(name, text, insert, table, ddl, model, found));
    }
    marts
}

fn mart(
    name: &str,
    text: &Text,
    insert: Insert,
    table: &ServingTable,
    ddl: &Text,
    model: &Model,
    found: &mut Diagnostics,
) -> Option<Mart> {
    let before = found.len();
    let mut filled = BTreeSet::new();
    let mut types = Vec::new();
    for (column, marker) in &insert.values {
        let mut add = |word: &str, message: String| found.add_at(&text.file, &text.text, word, message);
        if !filled.insert(column.as_str()) {
            add(column, format!("the column `{column}` is filled twice"));
        }
        let Some(kind) = table.column_type(column) else {
            add(column, format!("the table has no column `{column}`"));
            continue;
        };
        let Ok(field) = model.schema.field_with_name(marker) else {
            let message = match marker == COMMITTED_AT {
                true => format!("`:{marker}` stands for the time of the commit"),
                false => format!("`{}` has no column `{marker}`", model.table),
            };
            add(marker, message);
            continue;
        };
        match CqlType::parse(kind) {
            Some(kind) if kind.keeps(field.data_type()) => types.push(kind),
            _ => add(
                column,
                format!(
                    "`{column}` is `{kind}` and `{marker}` is `{}` in `{}`",
                    type_name(field.data_type()),
                    model.table
                ),
            ),
        }
    }
    for (column, _) in &table.columns {
        if !filled.contains(column.as_str()) {
            let message = format!("the column `{column}` is not filled");
            found.add_at(&text.file, &text.text, &insert.table, message);
        }
    }
    if found.len() > before {
        return None;
    }
    let at = |column: &String| insert.values.iter().position(|(filled, _)| filled == column);
    let partition_key: Option<Vec<usize>> = table.partition_key.iter().map(at).collect();
    let clustering: Option<Vec<usize>> = table.clustering.iter().map(|(column, _)| at(column)).collect();
    let (partition_key, clustering) = (partition_key?, clustering?);
    if let Some(column) = partition_key.iter().chain(&clustering).find(|at| !types[**at].is_scalar()) {
        let message = format!("the key column `{}` must not be a collection", insert.values[*column].0);
        found.add_at(&ddl.file, &ddl.text, "primary", message);
        return None;
    }
    Some(Mart {
        name: name.to_owned(),
        table: table.clone(),
        ddl: ddl.text.trim().trim_end_matches(';').to_owned(),
        schema: model.schema.clone(),
        insert,
        types,
        partition_key,
        clustering,
    })
}

/// What is wrong with the section `serving`.
pub(super) fn check_serving(serving: &ServingManifest, text: &str, found: &mut Diagnostics) {
    let mut add = |key: &str, message: String| {
        found.add(PROJECT_FILE, line_of_key(text, &format!("serving.{key}")), message);
    };
    if !is_identifier(&serving.keyspace) {
        let message = format!(
            "the keyspace `{}` must begin with a letter and hold letters, digits and `_` only, at most 48",
            serving.keyspace
        );
        add("keyspace", message);
    }
    for (datacenter, _) in serving.replication.iter().filter(|(name, _)| !is_datacenter(name)) {
        let message =
            format!("the datacenter `{datacenter}` may hold letters, digits, `_`, `-` and `.` only");
        add(&format!("replication.{datacenter}"), message);
    }
    if serving.replication.values().chain(&serving.replication_factor).any(|copies| *copies == 0) {
        let key = if serving.replication.is_empty() { "replication_factor" } else { "replication" };
        add(key, "a keyspace needs at least one copy".to_owned());
    }
    if !serving.replication.is_empty() && serving.replication_factor.is_some() {
        add(
            "replication_factor",
            "give `serving.replication` or `serving.replication_factor`, not both".to_owned(),
        );
    }
    // a bundle of Astra takes the place of nodes
    for host in serving.hosts.iter().filter(|host| !host.starts_with("astra:")) {
        if let Err(message) = contact::with_port(host) {
            add("hosts", format!("`serving.hosts`: {message}"));
        }
    }
    if serving.tls_certificate.is_some() != serving.tls_key.is_some() {
        let key = if serving.tls_key.is_none() { "tls_certificate" } else { "tls_key" };
        add(key, "`serving.tls_certificate` and `serving.tls_key` belong together".to_owned());
    }
    if serving.tls_certificate.is_some() && serving.tls_ca.is_none() {
        add("tls_certificate", "`serving.tls_certificate` needs `serving.tls_ca`".to_owned());
    }
    if serving.password_file.is_some() && serving.user.is_none() {
        add("password_file", "`serving.password_file` needs `serving.user`".to_owned());
    }
    if serving.max_requests == 0 || serving.max_requests > 4096 {
        add("max_requests", "`serving.max_requests` must be between 1 and 4096".to_owned());
    }
}

fn is_identifier(name: &str) -> bool {
    let mut letters = name.chars();
    name.len() <= 48
        && letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_datacenter(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}
