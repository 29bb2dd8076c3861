//! How a command gets its turn with the lake: `--wait`, and what is repeated where two writers have met at a commit.

use std::time::{Duration, Instant};

use clap::Args;

use super::maintain::parse_age;
use crate::error::{ErrorKind, Result};
use crate::flow::lock::{self, Lock};
use crate::lake::Lake;

/// A commit that another writer has won is tried again for so long, when nobody says how long.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct TurnArgs {
    /// How long to wait for the lake, for example `90s` or `10m`. By default 10m beside a stream, which hands the lake over
    /// between two micro-batches; where another run has it, not at all (exit code 5)
    #[arg(long, value_name = "AGE", value_parser = patience)]
    pub wait: Option<Duration>,
}

/// `90s`, `10m`.
pub fn patience(text: &str) -> std::result::Result<Duration, String> {
    parse_age(text).map(|millis| Duration::from_millis(millis.unsigned_abs()))
}

impl TurnArgs {
    /// Takes the lake.
    ///
    /// # Errors
    /// As [`lock::wait`].
    pub async fn lock(&self, lake: &Lake) -> Result<Lock> {
        lock::wait(lake, self.wait).await
    }

    /// Acts, again and again where another writer was faster: on an object store, where there is no lock.
    ///
    /// # Errors
    /// Those of acting; `Conflict` only where others were faster for as long as it waits.
    pub async fn insist<T>(&self, act: impl AsyncFn() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            match act().await {
                Err(error)
                    if error.kind() == ErrorKind::Conflict
                        && begun.elapsed() < self.wait.unwrap_or(PATIENCE) =>
                {
                    tracing::info!("{error}: trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                done => return done,
            }
        }
    }
}
