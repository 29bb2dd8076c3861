//! What runs and streams publish: what gold has changed since the last time. A store that can't be reached stops no stream:
//! gold goes on, and everything that is missing is written once it answers again.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::flow::Run;
use crate::flow::serving::{self, Publication, Scope};
use crate::store::cassandra::Cassandra;
use crate::store::cassandra::connect::Target;

/// Waits between attempts while the store fails: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Publishes the project's marts to one cluster, or nothing where none is configured.
pub struct Publisher {
    target: Option<Target>,
    store: Option<Cassandra>,
    not_before: Instant,
    wait: Duration,
    failure: Option<Error>,
    /// Since it was asked last.
    published: Vec<Publication>,
}

impl Publisher {
    pub fn new(target: Option<Target>) -> Self {
        Self {
            target,
            store: None,
            not_before: Instant::now(),
            wait: RETRY.0,
            failure: None,
            published: Vec::new(),
        }
    }

    /// Publishes what changed, unless the store has failed just now.
    pub async fn follow(&mut self, run: &Run) {
        if Instant::now() >= self.not_before {
            self.attempt(run).await;
        }
    }

    /// Publishes what changed, whatever was before.
    pub async fn finish(&mut self, run: &Run) {
        self.attempt(run).await;
    }

    /// One line per mart: a stream publishes many times between two settles.
    fn note(&mut self, published: Vec<Publication>) {
        for publication in published {
            match self.published.iter_mut().find(|known| known.mart == publication.mart) {
                None => self.published.push(publication),
                Some(known) => {
                    known.rows += publication.rows;
                    known.partitions += publication.partitions;
                    known.removed += publication.removed;
                    known.seconds += publication.seconds;
                    known.what = publication.what;
                }
            }
        }
    }

    /// What was published since it was asked last.
    pub fn take_published(&mut self) -> Vec<Publication> {
        std::mem::take(&mut self.published)
    }

    /// Where marts are published.
    pub fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// Why the last attempt failed, if it did.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// The same, when no attempt will follow.
    ///
    /// # Errors
    /// That of the last attempt.
    pub fn outcome(self) -> Result<()> {
        self.failure.map_or(Ok(()), Err)
    }

    async fn attempt(&mut self, run: &Run) {
        match self.publish(run).await {
            Ok(published) => {
                let rows: u64 = published.iter().map(|publication| publication.rows).sum();
                if rows > 0 {
                    tracing::debug!(rows, "published");
                }
                self.note(published);
                self.failure = None;
                self.wait = RETRY.0;
                self.not_before = Instant::now();
            }
            Err(error) => {
                tracing::warn!(
                    "{error}; gold goes on, publishing is tried again in {} s",
                    self.wait.as_secs()
                );
                self.failure = Some(error);
                self.not_before = Instant::now() + self.wait;
                self.wait = self.wait.saturating_mul(2).min(RETRY.1);
            }
        }
    }

    /// Publishes what changed; nothing where no cluster is configured.
    ///
    /// # Errors
    /// As [`serving::publish`], and those of connecting.
    pub async fn publish(&mut self, run: &Run) -> Result<Vec<Publication>> {
        let marts = &run.project.marts;
        let (Some(target), Some(manifest)) = (&self.target, &run.project.serving) else {
            return Ok(Vec::new());
        };
        if marts.is_empty() {
            return Ok(Vec::new());
        }
        // connected anew, and the tables compared again, after any failure
        let (store, scope) = match self.store.take() {
            Some(store) => (store, Scope::default()),
            None => {
                let store = Cassandra::open(target.clone(), manifest).await?;
                let plan = store.prepare(manifest, marts, false).await?;
                (store, Scope { is_full: false, created: plan.missing, altered: plan.altered })
            }
        };
        let published = serving::publish(run, &store, marts, &scope).await?;
        self.store = Some(store);
        Ok(published)
    }
}
