//! The keyspace and its tables: compared with what the project declares before anything is written, created where they are
//! missing, widened on request, never narrowed and never dropped.

use std::collections::BTreeMap;

use super::Cassandra;
use super::options::{self, Options};
use super::raw::{Bound, RawRow};
use crate::error::{Error, Result};
use crate::project::cql::{self, ServingTable, TableOption, identifier};
use crate::project::manifest::ServingManifest;
use crate::project::mart::Mart;
use crate::store::rows::push_cell;

/// Our own table: what the store says about each mart ([`crate::store::state`]).
pub const STATE_TABLE: &str = "medallion_published";

const CREATE_STATE_TABLE: &str = "create table if not exists medallion_published (
    mart text,
    at bigint,
    version bigint,
    committed_at timestamp,
    state text,
    primary key ((mart))
) with compaction = {'class': 'LeveledCompactionStrategy'}
    and comment = 'what of each mart is published; kept by medallion, not to be changed by hand'";

/// A table as Cassandra has it.
#[derive(Debug, Default)]
pub struct LiveTable {
    /// Name → type, kind, place in its key, order.
    columns: BTreeMap<String, LiveColumn>,
    ttl: u32,
    options: Options,
    /// When columns were dropped, also those that have come back: milliseconds since the epoch.
    dropped: BTreeMap<String, i64>,
}

#[derive(Debug)]
struct LiveColumn {
    kind: String,
    role: String,
    position: i32,
    order: String,
}

/// What has to be done before rows can be written.
#[derive(Debug, Default)]
pub struct Plan {
    /// How the keyspace is to be created, where it is missing: its replication.
    pub keyspace: Option<String>,
    /// Marts whose tables are missing.
    pub missing: Vec<String>,
    /// Column by column, what differs and can't be mended by adding.
    pub differences: Vec<String>,
    /// Columns that Cassandra lacks, and other changes that lose nothing.
    pub alterations: Vec<String>,
    /// Marts whose tables those change.
    pub altered: Vec<String>,
    /// Changes of what rows do not depend on.
    pub options: Vec<String>,
    /// When one of a mart's columns was last dropped, milliseconds since the epoch: what was written of it before is gone.
    pub dropped: BTreeMap<String, i64>,
}

/// Compares the marts' tables and our own with the live ones. Changes nothing.
///
/// # Errors
/// Those of asking.
pub async fn compare(store: &Cassandra, marts: &[Mart]) -> Result<Plan> {
    let live = live_tables(store).await?;
    compare_tables(&live, marts)
}

fn compare_tables(live: &BTreeMap<String, LiveTable>, marts: &[Mart]) -> Result<Plan> {
    let mut plan = Plan::default();
    if let Some(live) = live.get(STATE_TABLE) {
        let table = cql::parse_table(CREATE_STATE_TABLE).map_err(Error::bug)?;
        compare_table(&table, live, "medallion's own table", &mut plan);
        plan.options.extend(options::alterations(&table, &live.options));
    }
    for mart in marts {
        match live.get(&mart.name) {
            None => plan.missing.push(mart.name.clone()),
            Some(live) => {
                let before = plan.alterations.len();
                compare_table(&mart.table, live, &format!("`cql/tables/{}.cql`", mart.name), &mut plan);
                if plan.alterations.len() > before {
                    plan.altered.push(mart.name.clone());
                }
                plan.options.extend(options::alterations(&mart.table, &live.options));
                let dropped = mart.table.columns.iter().filter_map(|(column, _)| live.dropped.get(column));
                plan.dropped.extend(dropped.max().map(|at| (mart.name.clone(), *at)));
            }
        }
    }
    Ok(plan)
}

/// Whether the keyspace is there.
///
/// # Errors
/// Those of asking.
pub async fn has_keyspace(store: &Cassandra) -> Result<bool> {
    let mut values = Vec::new();
    push_cell(&mut values, Some(store.keyspace().as_bytes()));
    let query = "select keyspace_name from system_schema.keyspaces where keyspace_name = ?";
    Ok(!store.ask(query, &values).await?.is_empty())
}

/// Creates the keyspace where it is missing.
///
/// # Errors
/// `Usage` where the user may not.
pub async fn create_keyspace(store: &Cassandra, serving: &ServingManifest) -> Result<()> {
    // both were held against an allow-list when the project was read
    let statement = format!(
        "create keyspace if not exists {} with replication = {}",
        store.keyspace(),
        replication(serving)
    );
    store.define(&statement).await
}

/// The replication of a keyspace that is created.
pub fn replication(serving: &ServingManifest) -> String {
    let class = match serving.replication.is_empty() {
        true => {
            format!("'SimpleStrategy', 'replication_factor': {}", serving.replication_factor.unwrap_or(1))
        }
        false => {
            let copies = serving.replication.iter().map(|(name, copies)| format!(", '{name}': {copies}"));
            format!("'NetworkTopologyStrategy'{}", copies.collect::<String>())
        }
    };
    format!("{{'class': {class}}}")
}

/// Creates the missing tables and our own; with `migrate`, adds what can be added. Gives what was done.
///
/// # Errors
/// `Project`, listing every difference, where a table is not what the project declares. Then nothing has been changed.
pub async fn prepare(
    store: &Cassandra,
    live: &BTreeMap<String, LiveTable>,
    marts: &[Mart],
    migrate: bool,
) -> Result<Plan> {
    let plan = compare_tables(live, marts)?;
    refuse(store, &plan, migrate)?;
    for statement in plan.alterations.iter().chain(&plan.options) {
        match migrate {
            true => tracing::info!("{statement}"),
            false => {
                tracing::warn!("{statement}: `medallion publish --migrate` does it");
                continue;
            }
        }
        store.define(statement).await?;
    }
    if !live.contains_key(STATE_TABLE) {
        store.define(CREATE_STATE_TABLE).await?;
    }
    for mart in marts.iter().filter(|mart| plan.missing.contains(&mart.name)) {
        store.define(&mart.ddl).await?;
    }
    if !plan.missing.is_empty() {
        store.look_again().await;
    }
    Ok(plan)
}

/// # Errors
/// `Project` where the plan has differences that `migrate` does not mend.
pub fn refuse(store: &Cassandra, plan: &Plan, migrate: bool) -> Result<()> {
    let mut told = plan.differences.clone();
    if !migrate || !told.is_empty() {
        let does_it = if told.is_empty() { "does it" } else { "does it once the rest fits" };
        let alterations = plan.alterations.iter();
        told.extend(
            alterations.map(|statement| format!("{statement}: `medallion publish --migrate` {does_it}")),
        );
    }
    if told.is_empty() {
        return Ok(());
    }
    Err(Error::project(format!(
        "the tables in keyspace `{}` are not those of `cql/tables`; nothing was written:\n  {}",
        store.keyspace(),
        told.join("\n  ")
    )))
}

/// Every table of the keyspace.
///
/// # Errors
/// Those of asking.
pub async fn live_tables(store: &Cassandra) -> Result<BTreeMap<String, LiveTable>> {
    let mut keyspace = Vec::new();
    push_cell(&mut keyspace, Some(store.keyspace().as_bytes()));
    let (columns, mut options, dropped) = tokio::try_join!(
        store.ask(
            "select table_name, column_name, type, kind, position, clustering_order from system_schema.columns \
             where keyspace_name = ?",
            &keyspace,
        ),
        options::of_tables(store, &keyspace),
        store.ask(
            "select table_name, column_name, dropped_time from system_schema.dropped_columns where keyspace_name = ?",
            &keyspace,
        ),
    )?;
    let integer = |row: &RawRow, at: usize| {
        row.bytes(at).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_be_bytes)
    };
    let mut live: BTreeMap<String, LiveTable> = BTreeMap::new();
    for row in &columns {
        let column = LiveColumn {
            kind: row.text(2),
            role: row.text(3),
            position: integer(row, 4),
            order: row.text(5),
        };
        live.entry(row.text(0)).or_default().columns.insert(row.text(1), column);
    }
    for row in &dropped {
        let at = row.bytes(2).and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes);
        if let Some(table) = live.get_mut(&row.text(0)) {
            table.dropped.insert(row.text(1), at);
        }
    }
    for (name, table) in &mut live {
        let mut options = options.remove(name).unwrap_or_default();
        table.ttl = match options.remove("default_time_to_live") {
            Some(TableOption::Word(seconds)) => seconds.parse().unwrap_or_default(),
            _ => 0,
        };
        // Astra chooses them by itself
        if !store.is_astra() {
            table.options = options;
        }
    }
    Ok(live)
}

/// Adds to the plan what differs between a table that `place` declares and the live one.
fn compare_table(table: &ServingTable, live: &LiveTable, place: &str, plan: &mut Plan) {
    let name = &table.name;
    for (column, kind) in &table.columns {
        let role = role(table, column);
        match live.columns.get(column) {
            None if role.0 == "regular" => {
                plan.alterations.push(format!("alter table {name} add {} {kind}", identifier(column)));
            }
            None => plan.differences.push(format!(
                "{name}.{column}: missing in cassandra, where it should be {}",
                describe(role)
            )),
            Some(found) => {
                if !is_same_type(&found.kind, kind) {
                    plan.differences
                        .push(format!("{name}.{column}: `{}` in cassandra, `{kind}` in {place}", found.kind));
                }
                let found_role = (found.role.as_str(), found.position, found.order.as_str());
                if found_role != role {
                    plan.differences.push(format!(
                        "{name}.{column}: {} in cassandra, {} in {place}",
                        describe(found_role),
                        describe(role)
                    ));
                }
            }
        }
    }
    for (column, found) in live.columns.iter().filter(|(column, _)| table.column_type(column).is_none()) {
        let column = identifier(column);
        if matches!(found.role.as_str(), "partition_key" | "clustering") {
            // Cassandra drops none of these
            let role = describe((&found.role, found.position, &found.order));
            plan.differences.push(format!("{name}.{column}: in cassandra only, {role}"));
            continue;
        }
        // nobody else declares our own
        let declare = if name == STATE_TABLE { "" } else { "declare it, or " };
        plan.differences.push(format!(
            "{name}.{column}: in cassandra only; {declare}drop it with `alter table {name} drop {column}`"
        ));
    }
    let ttl = table.ttl.unwrap_or(0);
    if live.ttl != ttl {
        plan.alterations.push(format!("alter table {name} with default_time_to_live = {ttl}"));
    }
}

/// Whether two types as DDL or Cassandra write them are one. A frozen collection is another than one that is not: a client
/// can change items of the one and only the whole of the other.
fn is_same_type(live: &str, declared: &str) -> bool {
    let plain = |text: &str| {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        text.replace("varchar", "text")
    };
    plain(live) == plain(declared)
}

/// What Cassandra says of a column: kind, place in its key, order.
fn role(table: &ServingTable, column: &str) -> (&'static str, i32, &'static str) {
    let place = |at: usize| i32::try_from(at).unwrap_or(i32::MAX);
    if let Some(at) = table.partition_key.iter().position(|name| name == column) {
        return ("partition_key", place(at), "none");
    }
    match table.clustering.iter().position(|(name, _)| name == column) {
        Some(at) if table.clustering[at].1 => ("clustering", place(at), "desc"),
        Some(at) => ("clustering", place(at), "asc"),
        None => ("regular", -1, "none"),
    }
}

fn describe((role, position, order): (&str, i32, &str)) -> String {
    let place = position + 1;
    match role {
        "partition_key" => format!("column {place} of the partition key"),
        "clustering" => format!("column {place} of the clustering key, {order}"),
        "static" => "static".to_owned(),
        _ => "no part of the key".to_owned(),
    }
}

/// A select of every column of the mart's statement, in its order, for a range of tokens.
pub fn select_range(mart: &Mart) -> String {
    let columns: Vec<&str> = mart.insert.values.iter().map(|(column, _)| column.as_str()).collect();
    let key = mart.table.partition_key.join(", ");
    format!("select {} from {} where token({key}) > ? and token({key}) <= ?", columns.join(", "), mart.name)
}

/// A select of the partition keys of a range of tokens.
pub fn select_keys(mart: &Mart) -> String {
    let key = mart.table.partition_key.join(", ");
    format!("select distinct {key} from {} where token({key}) > ? and token({key}) <= ?", mart.name)
}

/// How many rows there are in a range of tokens, then the latest write of each column that tells of one: a key has no time
/// of its own, and a collection has one per item.
pub fn select_census(mart: &Mart) -> String {
    let is_key = |at: &usize| mart.partition_key.contains(at) || mart.clustering.contains(at);
    let telling = (0..mart.types.len()).filter(|at| !is_key(at) && mart.types[*at].is_scalar());
    let times: String = telling.map(|at| format!(", max(writetime({}))", mart.insert.values[at].0)).collect();
    let key = mart.table.partition_key.join(", ");
    format!("select count(*){times} from {} where token({key}) > ? and token({key}) <= ?", mart.name)
}

/// A select of any row.
pub fn select_any(mart: &Mart) -> String {
    let column = mart.table.partition_key.first().map_or("", String::as_str);
    format!("select {column} from {} limit 1", mart.name)
}

/// Deletes a partition as of a time.
pub fn delete_partition(mart: &Mart) -> String {
    let conditions: Vec<String> =
        mart.table.partition_key.iter().map(|column| format!("{column} = ?")).collect();
    format!("delete from {} using timestamp ? where {}", mart.name, conditions.join(" and "))
}

impl Cassandra {
    /// Asks a small question of the system's tables.
    pub(super) async fn ask(&self, query: &str, values: &[u8]) -> Result<Vec<RawRow>> {
        let prepared = self.prepared(query).await?;
        let rows = self.rows("looking at the schema", &prepared, Bound::Values(values)).await?;
        Ok(rows)
    }
}
