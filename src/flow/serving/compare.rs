//! Gold against a serving store, partition by partition, a range of tokens at a time; what differs is named and, on request,
//! mended.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use serde::Serialize;

use super::rows::{RANGE_ROWS, load, ranges};
use super::tables::GoldTables;
use super::{CONCURRENT_PARTITIONS, census, gold_version, later_writes};
use crate::error::{Error, Result};
use crate::project::mart::Mart;
use crate::store::rows::{Partition, Partitions, cells};
use crate::store::state::{Claim, State};
use crate::store::{ServingStore, decode};

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Gold has it, the store does not.
    Missing,
    /// The store has it, gold does not.
    Extra,
    /// Both have it, with other values.
    Different,
}

/// One row that differs.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    pub mart: String,
    pub kind: Kind,
    /// The primary key: `org_id=a, usage_date=2025-08-01`.
    pub key: String,
    /// Of a different row, the columns: `total_cost_usd: 1.5 in gold, 2.5 in the store`.
    pub columns: String,
    /// After a repair, whether it differs no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<bool>,
}

/// What comparing a mart has found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Reconciled {
    pub mart: String,
    /// Rows of gold.
    pub rows: u64,
    pub missing: u64,
    pub extra: u64,
    pub different: u64,
    /// Partitions that were written again and differ no longer.
    pub repaired: u64,
    /// Rows that still differ.
    pub left: u64,
    /// Partitions that differed.
    #[serde(skip)]
    partitions: u64,
    /// The first of the rows that differ.
    pub differences: Vec<Difference>,
    /// Why rows differ after a repair, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

impl Reconciled {
    /// Rows that differ.
    fn num_rows(&self) -> u64 {
        self.missing + self.extra + self.different
    }
}

/// Compares a mart with what the store holds of it. With `repair` the partitions that differ are written again, as of now:
/// what somebody else has written carries the clock's time, so no earlier one would prevail. Then they are compared once
/// more: somebody may have written with a time in the future.
///
/// # Errors
/// The stores'.
pub async fn reconcile(
    tables: &GoldTables,
    store: &dyn ServingStore,
    mart: &Mart,
    repair: bool,
    limit: usize,
) -> Result<Reconciled> {
    let mut found = pass(tables, store, mart, repair, limit).await?;
    found.left = found.num_rows();
    if !repair || found.left == 0 {
        return Ok(found);
    }
    let after = pass(tables, store, mart, false, limit).await?;
    found.left = after.num_rows();
    found.repaired = found.partitions.saturating_sub(after.partitions);
    // both passes name rows in the same order, so what is left of the first ones is among the first ones
    let left: BTreeSet<&str> = after.differences.iter().map(|row| row.key.as_str()).collect();
    for row in &mut found.differences {
        row.repaired = Some(!left.contains(row.key.as_str()));
    }
    if found.left > 0 {
        let latest = census(store, mart, tables.of_mart(mart)?).await?.latest;
        let now = chrono::Utc::now().timestamp_micros();
        found.obstacle = Some(later_writes(mart, latest.filter(|latest| *latest > now)));
    }
    Ok(found)
}

/// Compares once; with `repair`, writes the partitions that differ.
async fn pass(
    tables: &GoldTables,
    store: &dyn ServingStore,
    mart: &Mart,
    repair: bool,
    limit: usize,
) -> Result<Reconciled> {
    let mut found = Reconciled { mart: mart.name.clone(), ..Reconciled::default() };
    let table = tables.of_mart(mart)?;
    if table.snapshot().is_none() {
        return Ok(found);
    }
    let mut repairing: Option<State> = None;
    for range in ranges(table, RANGE_ROWS) {
        let (gold, live) =
            tokio::try_join!(load(tables, mart, tables.scan(mart)?, range, None), store.read(mart, range))?;
        found.rows += gold.by_key.values().map(|partition| partition.num_rows() as u64).sum::<u64>();
        let differing = compare(mart, &gold, &live, limit, &mut found);
        found.partitions += differing.len() as u64;
        if !repair || differing.is_empty() {
            continue;
        }
        if repairing.is_none() {
            repairing = Some(begin_repair(tables, store, mart).await?);
        }
        let at = repairing.as_ref().map_or(0, |state| state.at);
        let partitions = differing.into_iter().map(|key| match gold.by_key.get(key) {
            Some(partition) => partition.clone(),
            None => Partition::empty(key),
        });
        let mut writing = futures::stream::iter(partitions)
            .map(|partition| async move { store.replace(mart, &partition, at, false).await })
            .buffer_unordered(CONCURRENT_PARTITIONS);
        while let Some(written) = writing.next().await {
            written?;
        }
    }
    if let Some(state) = repairing {
        let finished = State { claims: Vec::new(), ..state.clone() };
        store.advance(mart, Some(state.at), &finished).await?;
    }
    Ok(found)
}

/// Claims a time for the repair that is later than what anybody has written.
async fn begin_repair(tables: &GoldTables, store: &dyn ServingStore, mart: &Mart) -> Result<State> {
    let state = store.state(mart).await?;
    let gold = gold_version(tables.of_mart(mart)?).await?;
    let (Some(state), Some(gold)) = (state, gold) else {
        return Err(Error::conflict("nothing is published yet; run `medallion publish` first"));
    };
    let is_current = state.published.as_ref().is_some_and(|published| published.gold == gold);
    if !is_current || !state.claims.is_empty() {
        return Err(Error::conflict(
            "the store does not hold gold's version; run `medallion publish` first, then reconcile again",
        ));
    }
    let at = chrono::Utc::now().timestamp_micros().max(state.at.saturating_add(2));
    let claim =
        Claim { gold, at, owner: tables.unique_name(), fingerprint: mart.fingerprint(), is_whole: false };
    let claimed = State::with_claim(Some(&state), claim);
    match store.advance(mart, Some(state.at), &claimed).await? {
        true => Ok(claimed),
        false => Err(Error::conflict("another run is publishing at the same time; reconcile again later")),
    }
}

/// Counts and names the rows that differ; gives the keys of their partitions.
fn compare<'a>(
    mart: &Mart,
    gold: &'a Partitions,
    live: &'a Partitions,
    limit: usize,
    found: &mut Reconciled,
) -> Vec<&'a [u8]> {
    let keys: BTreeSet<&[u8]> = gold.by_key.keys().chain(live.by_key.keys()).map(AsRef::as_ref).collect();
    let mut differing = Vec::new();
    for key in keys {
        let (ours, theirs) = (gold.by_key.get(key), live.by_key.get(key));
        if ours.map(Partition::digest) == theirs.map(Partition::digest) {
            continue;
        }
        differing.push(key);
        let (ours, theirs) = (by_clustering(mart, ours), by_clustering(mart, theirs));
        for clustering in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let (kind, row, columns) = match (ours.get(clustering), theirs.get(clustering)) {
                (Some(row), None) => (Kind::Missing, row, String::new()),
                (None, Some(row)) => (Kind::Extra, row, String::new()),
                (Some(ours), Some(theirs)) if ours != theirs => {
                    (Kind::Different, ours, describe_columns(mart, ours, theirs))
                }
                _ => continue,
            };
            match kind {
                Kind::Missing => found.missing += 1,
                Kind::Extra => found.extra += 1,
                Kind::Different => found.different += 1,
            }
            if found.differences.len() < limit {
                let key = describe_key(mart, row);
                let mart = mart.name.clone();
                found.differences.push(Difference { mart, kind, key, columns, repaired: None });
            }
        }
    }
    differing
}

/// A partition's rows by their clustering key.
fn by_clustering<'a>(mart: &Mart, partition: Option<&'a Partition>) -> BTreeMap<Vec<u8>, &'a [u8]> {
    let rows = partition.into_iter().flat_map(Partition::rows);
    rows.map(|row| {
        let mut key = Vec::new();
        crate::store::rows::project(row, &mart.clustering, &mut key);
        (key, row)
    })
    .collect()
}

fn describe_key(mart: &Mart, row: &[u8]) -> String {
    let values: Vec<Option<&[u8]>> = cells(row).collect();
    let parts = mart.partition_key.iter().chain(&mart.clustering).map(|at| {
        let value = values.get(*at).copied().flatten();
        format!("{}={}", mart.insert.values[*at].0, decode::show(&mart.types[*at], value))
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn describe_columns(mart: &Mart, ours: &[u8], theirs: &[u8]) -> String {
    let columns = mart.insert.values.iter().zip(&mart.types);
    let pairs = cells(ours).zip(cells(theirs)).zip(columns);
    let differing = pairs.filter(|((ours, theirs), _)| ours != theirs);
    let differing = differing.map(|((ours, theirs), ((name, _), kind))| {
        format!("{name}: {}", decode::show_difference(kind, ours, theirs))
    });
    differing.collect::<Vec<_>>().join("; ")
}
