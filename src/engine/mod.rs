//! Runs one SQL query over named tables. What a query means is DataFusion's; what we add are functions and settings.

mod functions;

use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, TableProvider,
};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::lake::scan::store_url;
use crate::project::sql::TableName;
use crate::zone;

pub use functions::{is_listed, register as register_functions, uniform};

const CATALOG: &str = "medallion";

/// The schemas that a query may name.
const SCHEMAS: [&str; 8] = [
    zone::BRONZE,
    zone::ACCEPTED,
    zone::VERSIONS,
    zone::SILVER,
    zone::GOLD,
    zone::QUARANTINE,
    zone::REFERENCE,
    zone::LEDGER,
];

fn config() -> SessionConfig {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut config = SessionConfig::new()
        .with_target_partitions(threads)
        .with_default_catalog_and_schema(CATALOG, zone::GOLD)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    // dimensions are broadcast: a hash join of two large sides can't spill (facts and hazards, H12)
    options.optimizer.hash_join_single_partition_threshold = 64 * 1024 * 1024;
    options.optimizer.hash_join_single_partition_threshold_rows = 1_000_000;
    options.execution.parquet.pushdown_filters = false;
    options.execution.collect_statistics = false;
    config
}

/// A state that plans but never reads.
pub fn planning_state() -> SessionState {
    with_functions(SessionStateBuilder::new().with_config(config()).with_default_features().build())
}

/// A state whose queries read the lake and spill to disk beyond `memory_bytes`.
///
/// # Errors
/// `Unavailable` where there is no place to spill to.
pub fn state(lake: &Lake, memory_bytes: usize) -> Result<SessionState> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
        .build_arc()
        .map_err(|error| Error::unavailable("the query engine can't start").because(error))?;
    let url = store_url()?;
    runtime.register_object_store(url.as_ref(), lake.store());
    Ok(with_functions(
        SessionStateBuilder::new()
            .with_config(config())
            .with_runtime_env(runtime)
            .with_default_features()
            .build(),
    ))
}

fn with_functions(mut state: SessionState) -> SessionState {
    if let Err(error) = functions::register(&mut state) {
        tracing::error!(%error, "functions could not be registered");
    }
    state
}

/// A context with the state's settings and no tables.
pub fn context(state: &SessionState) -> SessionContext {
    let catalogs = MemoryCatalogProviderList::new();
    let catalog = MemoryCatalogProvider::new();
    for schema in SCHEMAS {
        // registering a schema in a fresh catalog can't fail
        let _ = catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new()));
    }
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    let state =
        SessionStateBuilder::new_from_existing(state.clone()).with_catalog_list(Arc::new(catalogs)).build();
    SessionContext::new_with_state(state)
}

/// Lets queries of `context` read `table`; a table of the same name is replaced.
pub fn register(context: &SessionContext, table: &TableName, provider: Arc<dyn TableProvider>) {
    let schema = context.catalog(CATALOG).and_then(|catalog| catalog.schema(&table.schema));
    match schema {
        Some(schema) => {
            let _ = schema.deregister_table(&table.table);
            if let Err(error) = schema.register_table(table.table.clone(), provider) {
                tracing::error!(%table, %error, "table could not be registered");
            }
        }
        None => tracing::error!(%table, "table has an unknown zone"),
    }
}
