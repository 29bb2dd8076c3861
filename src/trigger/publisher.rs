//! What runs and streams publish: what gold has changed since the last time. A store that is slow or can't be reached stops
//! no stream: gold goes on meanwhile, and everything that is missing is written once it answers.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::error::{Error, Result};
use crate::flow::Run;
use crate::flow::serving::{self, GoldTables, Publication, Scope};
use crate::project::manifest::ServingManifest;
use crate::project::mart::Mart;
use crate::store::cassandra::connect::Target;
use crate::store::cassandra::{Cassandra, Plan};

/// Waits between attempts while the store fails: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Publishes the project's marts to one cluster, or nothing where none is configured.
pub struct Publisher {
    target: Option<Target>,
    /// The session of the last attempt, where it did not fail.
    store: Option<Cassandra>,
    working: Option<JoinHandle<Attempt>>,
    /// Gold has changed since the last attempt began.
    is_behind: bool,
    not_before: Instant,
    wait: Duration,
    failure: Option<Error>,
    /// Since it was asked last.
    published: Vec<Publication>,
}

/// What became of an attempt, and the session, unless it failed.
type Attempt = Result<(Cassandra, Vec<Publication>)>;

impl Publisher {
    pub fn new(target: Option<Target>) -> Self {
        Self {
            target,
            store: None,
            working: None,
            is_behind: false,
            not_before: Instant::now(),
            wait: RETRY.0,
            failure: None,
            published: Vec::new(),
        }
    }

    /// Gold has changed.
    pub fn note_change(&mut self) {
        self.is_behind = true;
    }

    /// Publishes beside the work what has changed, unless that is being done, or has failed just now.
    ///
    /// # Errors
    /// As [`GoldTables::of`].
    pub async fn follow(&mut self, run: &Run) -> Result<()> {
        if self.working.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait_for_attempt().await;
        }
        let may_begin = self.working.is_none() && Instant::now() >= self.not_before;
        if self.is_behind && may_begin { self.begin(run) } else { Ok(()) }
    }

    /// Publishes what has changed, whatever was before.
    ///
    /// # Errors
    /// As [`GoldTables::of`].
    pub async fn finish(&mut self, run: &Run) -> Result<()> {
        self.wait_for_attempt().await;
        self.begin(run)?;
        self.wait_for_attempt().await;
        Ok(())
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
                    known.obstacle = publication.obstacle;
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

    /// Publishes what changed, and waits; nothing where no cluster is configured.
    ///
    /// # Errors
    /// As [`serving::publish`], and those of connecting.
    pub async fn publish(&mut self, run: &Run) -> Result<Vec<Publication>> {
        let Some((target, manifest)) = self.configured(run) else {
            return Ok(Vec::new());
        };
        let attempt =
            attempt(target, self.store.take(), manifest, run.project.marts.clone(), GoldTables::of(run)?);
        let (store, published) = attempt.await?;
        self.store = Some(store);
        Ok(published)
    }

    fn configured(&self, run: &Run) -> Option<(Target, ServingManifest)> {
        let target = self.target.clone().filter(|_| !run.project.marts.is_empty());
        target.zip(run.project.serving.clone())
    }

    fn begin(&mut self, run: &Run) -> Result<()> {
        self.is_behind = false;
        let Some((target, manifest)) = self.configured(run) else {
            return Ok(());
        };
        let tables = GoldTables::of(run)?;
        let attempt = attempt(target, self.store.take(), manifest, run.project.marts.clone(), tables);
        self.working = Some(tokio::spawn(attempt.in_current_span()));
        Ok(())
    }

    async fn wait_for_attempt(&mut self) {
        let Some(working) = self.working.take() else {
            return;
        };
        let ended = match working.await {
            Ok(attempt) => attempt,
            Err(error) => Err(Error::bug("publishing ended in the middle").because(error)),
        };
        match ended {
            Ok((store, published)) => {
                let rows: u64 = published.iter().map(|publication| publication.rows).sum();
                if rows > 0 {
                    tracing::debug!(rows, "published");
                }
                self.note(published);
                self.store = Some(store);
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
                self.is_behind = true;
                self.not_before = Instant::now() + self.wait;
                self.wait = self.wait.saturating_mul(2).min(RETRY.1);
            }
        }
    }
}

/// Publishes what changed; connected anew, and the tables compared again, after any failure.
async fn attempt(
    target: Target,
    store: Option<Cassandra>,
    manifest: ServingManifest,
    marts: Vec<Mart>,
    tables: GoldTables,
) -> Attempt {
    let (store, scope) = match store {
        Some(store) => (store, Scope::default()),
        None => {
            let store = Cassandra::open(target, &manifest).await?;
            let plan = store.prepare(&manifest, &marts, false).await?;
            let Plan { missing: created, altered, dropped, .. } = plan;
            (store, Scope { is_full: false, created, altered, dropped })
        }
    };
    let published = serving::publish(&tables, &store, &marts, &scope).await?;
    Ok((store, published))
}
