//! Where questions are answered: gold itself by default, or a serving store that marts are published to.
//!
//! A serving store keeps a mart by partition. Whoever publishes claims a time for the mart first, writes with it, and says
//! at the end what the store holds now ([`state::State`]). A later time wins, row by row and partition by partition,
//! whatever order writes arrive in: that is what every implementation promises, and what `tests/it/conformance.rs` asks of all.

pub mod canonical;
pub mod cassandra;
pub mod decode;
pub mod encode;
pub mod memory;
pub mod rows;
pub mod state;

use async_trait::async_trait;

use self::rows::{Partition, Partitions, TokenRange};
use self::state::State;
use crate::error::Result;
use crate::project::mart::Mart;

/// What a store has of a mart, without the rows themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    pub rows: u64,
    /// The latest time that a value of them was written with, microseconds; `None` where there is none that tells.
    pub latest: Option<i64>,
}

impl std::ops::AddAssign for Census {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.latest = self.latest.max(other.latest);
    }
}

/// A store that marts are published to.
#[async_trait]
pub trait ServingStore: Send + Sync {
    /// What the store is, for messages.
    fn name(&self) -> String;

    /// Makes sure that the marts' rows can be written, without writing any.
    async fn ready(&self, marts: &[&Mart]) -> Result<()>;

    /// What the store says about a mart; `None` where nobody has ever published it.
    async fn state(&self, mart: &Mart) -> Result<Option<State>>;

    /// Replaces a mart's state if it is still the one of time `expected`. Says whether it was.
    async fn advance(&self, mart: &Mart, expected: Option<i64>, next: &State) -> Result<bool>;

    /// Removes a mart's state, whatever it is.
    async fn forget(&self, mart: &Mart) -> Result<()>;

    /// Whether the store has any row of the mart.
    async fn has_rows(&self, mart: &Mart) -> Result<bool>;

    /// Makes the rows of `partition` (possibly none) all that the store holds of its key, as of time `at`. Whatever has
    /// been or will be written with an earlier time has no effect. With `is_new` the caller knows that nobody can have
    /// written the partition before.
    async fn replace(&self, mart: &Mart, partition: &Partition, at: i64, is_new: bool) -> Result<()>;

    /// The rows of a range of tokens, as they would be published.
    async fn read(&self, mart: &Mart, range: TokenRange) -> Result<Partitions>;

    /// How many rows there are in a range of tokens, and when they were written.
    async fn census(&self, mart: &Mart, range: TokenRange) -> Result<Census>;

    /// The partition keys of a range of tokens.
    async fn keys(&self, mart: &Mart, range: TokenRange) -> Result<Vec<Box<[u8]>>>;
}
