//! What a table's folder holds beside what its log names.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::partition::decode;
use super::table::Table;
use crate::error::{Error, Result};

/// Where a file that the log names lies in the store.
///
/// # Errors
/// `Data` where the path in the log is damaged.
pub fn location(table: &Table, path: &str) -> Result<Path> {
    Path::parse(format!("{}/{}", table.root(), decode(path)?))
        .map_err(|error| Error::data(format!("`{path}` in the log is no object path")).because(error))
}

/// A file in a table's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub bytes: u64,
    /// Milliseconds since the epoch.
    pub modified: i64,
}

/// Every data file in the table's folder, its log aside.
///
/// # Errors
/// The store's.
pub async fn stored_files(table: &Table) -> Result<BTreeMap<Path, Stored>> {
    let log = table.root().clone().join("_delta_log");
    let listed: Vec<_> = table.lake().store().list(Some(table.root())).try_collect().await?;
    let files = listed.into_iter().filter(|meta| !meta.location.prefix_matches(&log));
    Ok(files
        .map(|meta| {
            let stored = Stored { bytes: meta.size, modified: meta.last_modified.timestamp_millis() };
            (meta.location, stored)
        })
        .collect())
}
