//! What a table has behind `with`: compaction, comment and the like. None of it changes what rows say, so a difference stops
//! nothing; it is told, and mended on request.

use std::collections::BTreeMap;

use super::Cassandra;
use super::question::kind;
use super::raw::Bound;
use crate::error::Result;
use crate::project::cql::{ServingTable, TableOption};
use crate::project::cql_type::CqlType;
use crate::store::decode;

/// Cassandra keeps these in words of its own, which need not be those that were given.
const IN_OTHER_WORDS: [&str; 3] = ["speculative_retry", "additional_write_policy", "id"];

/// Options by name.
pub type Options = BTreeMap<String, TableOption>;

/// The options of every table of the keyspace. Those of types that are not used here are left out.
///
/// # Errors
/// Those of asking.
pub async fn of_tables(store: &Cassandra, keyspace: &[u8]) -> Result<BTreeMap<String, Options>> {
    let prepared = store.prepared("select * from system_schema.tables where keyspace_name = ?").await?;
    let rows = store.rows("looking at the schema", &prepared, Bound::Values(keyspace)).await?;
    let columns = prepared.get_current_result_set_col_specs();
    let mut tables = BTreeMap::new();
    for row in rows {
        let mut options = Options::new();
        for (at, column) in columns.get().iter().enumerate() {
            let (Some(bytes), Ok(kind)) = (row.bytes(at), kind(column.typ())) else {
                continue;
            };
            let value = match kind {
                CqlType::Map(..) => decode::text_entries(bytes).map(TableOption::Map),
                CqlType::Text => Some(TableOption::Text(String::from_utf8_lossy(bytes).into_owned())),
                CqlType::List(_) | CqlType::Set(_) => None,
                kind => Some(TableOption::Word(decode::show(&kind, Some(bytes)))),
            };
            options.extend(value.map(|value| (column.name().to_owned(), value)));
        }
        if let Some(TableOption::Text(name)) = options.remove("table_name") {
            tables.insert(name, options);
        }
    }
    Ok(tables)
}

/// What makes the declared options those of the live table.
pub fn alterations(table: &ServingTable, live: &Options) -> Vec<String> {
    let is_compared = |name: &str| !IN_OTHER_WORDS.contains(&name);
    let differs = |(name, declared): &(&String, &TableOption)| {
        is_compared(name) && live.get(*name).is_some_and(|live| !is_kept(declared, live))
    };
    let differing = table.options.iter().filter(differs);
    differing.map(|(name, value)| format!("alter table {} with {name} = {value}", table.name)).collect()
}

/// Whether the live value is what was declared. Cassandra adds its defaults to maps, and the package to a class.
fn is_kept(declared: &TableOption, live: &TableOption) -> bool {
    let is_same = |declared: &str, live: &str| {
        let number = |text: &str| text.parse::<f64>().ok();
        declared == live || number(declared).is_some_and(|wanted| number(live) == Some(wanted))
    };
    let class = |name: &str| name.rsplit('.').next().map(str::to_owned);
    match (declared, live) {
        (TableOption::Map(declared), TableOption::Map(live)) => declared.iter().all(|(key, value)| {
            live.get(key).is_some_and(|live| match key.as_str() {
                "class" => class(value) == class(live),
                _ => is_same(value, live),
            })
        }),
        (
            TableOption::Word(declared) | TableOption::Text(declared),
            TableOption::Word(live) | TableOption::Text(live),
        ) => is_same(declared, live),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::cql::parse_table;

    #[test]
    fn defaults_that_cassandra_adds_are_no_difference() {
        let table = |with: &str| {
            parse_table(&format!("create table t (a text, primary key ((a))) with {with}")).unwrap()
        };
        let live = table(
            "compaction = {'class': 'org.apache.cassandra.db.compaction.LeveledCompactionStrategy', 'max_threshold': '32'} \
             and bloom_filter_fp_chance = 0.1 and comment = 'x' and speculative_retry = '99p'",
        );
        let same = table(
            "compaction = {'class': 'LeveledCompactionStrategy'} and bloom_filter_fp_chance = 0.10 and comment = 'x' \
             and speculative_retry = '99PERCENTILE' and unheard_of = 1",
        );
        assert_eq!(alterations(&same, &live.options), Vec::<String>::new());
        let other = table(
            "compaction = {'class': 'LeveledCompactionStrategy', 'sstable_size_in_mb': 320} and comment = 'it''s'",
        );
        let expected = [
            "alter table t with comment = 'it''s'",
            "alter table t with compaction = {'class': 'LeveledCompactionStrategy', 'sstable_size_in_mb': '320'}",
        ];
        assert_eq!(alterations(&other, &live.options), expected);
    }
}
