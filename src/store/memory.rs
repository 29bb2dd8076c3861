//! A serving store in memory: what [`super::ServingStore`] promises and nothing else, by the plainest means.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::rows::{Partition, Partitions, TokenRange, project, token};
use super::state::State;
use super::{Census, ServingStore};
use crate::error::Result;
use crate::project::mart::Mart;

/// What a partition holds: when it was last deleted, and its rows by clustering key with the time of each.
#[derive(Debug, Default)]
struct Stored {
    deleted: Option<i64>,
    rows: BTreeMap<Vec<u8>, (i64, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct Tables {
    states: HashMap<String, State>,
    partitions: HashMap<String, BTreeMap<Box<[u8]>, Stored>>,
}

/// Marts in memory.
#[derive(Debug, Default)]
pub struct Memory {
    tables: Mutex<Tables>,
}

impl Memory {
    fn with<T>(&self, act: impl FnOnce(&mut Tables) -> T) -> T {
        act(&mut self.tables.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl ServingStore for Memory {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn ready(&self, _: &[&Mart]) -> Result<()> {
        Ok(())
    }

    async fn state(&self, mart: &Mart) -> Result<Option<State>> {
        Ok(self.with(|tables| tables.states.get(&mart.name).cloned()))
    }

    async fn advance(&self, mart: &Mart, expected: Option<i64>, next: &State) -> Result<bool> {
        Ok(self.with(|tables| {
            let is_expected = tables.states.get(&mart.name).map(|state| state.at) == expected;
            if is_expected {
                tables.states.insert(mart.name.clone(), next.clone());
            }
            is_expected
        }))
    }

    async fn forget(&self, mart: &Mart) -> Result<()> {
        self.with(|tables| tables.states.remove(&mart.name));
        Ok(())
    }

    async fn has_rows(&self, mart: &Mart) -> Result<bool> {
        Ok(self.with(|tables| {
            tables.partitions.get(&mart.name).into_iter().flatten().any(|(_, stored)| !stored.rows.is_empty())
        }))
    }

    async fn replace(&self, mart: &Mart, partition: &Partition, at: i64, _: bool) -> Result<()> {
        self.with(|tables| {
            let table = tables.partitions.entry(mart.name.clone()).or_default();
            let stored = table.entry(partition.key.clone()).or_default();
            let deleted = stored.deleted.map_or(at - 1, |before| before.max(at - 1));
            stored.deleted = Some(deleted);
            stored.rows.retain(|_, (written, _)| *written > deleted);
            for row in partition.rows() {
                let mut clustering = Vec::new();
                project(row, &mart.clustering, &mut clustering);
                let newer = stored.rows.get(&clustering).is_some_and(|(written, _)| *written > at);
                if at > deleted && !newer {
                    stored.rows.insert(clustering, (at, row.to_vec()));
                }
            }
        });
        Ok(())
    }

    async fn read(&self, mart: &Mart, range: TokenRange) -> Result<Partitions> {
        Ok(self.with(|tables| {
            let mut found = Partitions::default();
            for (key, stored) in tables.partitions.get(&mart.name).into_iter().flatten() {
                if range.contains(token(key)) {
                    stored.rows.values().for_each(|(_, row)| found.push(key, row));
                }
            }
            found
        }))
    }

    async fn census(&self, mart: &Mart, range: TokenRange) -> Result<Census> {
        Ok(self.with(|tables| {
            let mut found = Census::default();
            for (key, stored) in tables.partitions.get(&mart.name).into_iter().flatten() {
                if range.contains(token(key)) {
                    let latest = stored.rows.values().map(|(written, _)| *written).max();
                    found += Census { rows: stored.rows.len() as u64, latest };
                }
            }
            found
        }))
    }

    async fn keys(&self, mart: &Mart, range: TokenRange) -> Result<Vec<Box<[u8]>>> {
        Ok(self.read(mart, range).await?.by_key.into_keys().collect())
    }
}
