//! Which keys come more than once, in a few bytes for each: two Bloom filters, of the keys that were seen and of those that
//! were seen again. A few keys that come once are among them; none that comes again is missing.

use arrow::array::ArrayRef;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use parquet::bloom_filter::Sbbf;

use super::{half, hashes, quoted};
use crate::error::Result;
use crate::project::source::{DATE, Mode, Source};

/// 16 bits for each key: one of about a thousand others passes.
const FILTER_BYTES: usize = 2;

pub(super) struct Repeated {
    keys: Sbbf,
    num_rows: usize,
}

impl Repeated {
    /// Reads the keys of the bronze records that are registered.
    pub async fn find(context: &SessionContext, source: &Source, num_rows: u64) -> Result<Self> {
        let mut columns: Vec<String> = source.key().map(quoted).collect();
        if source.mode == Mode::Events {
            columns.push(quoted(DATE));
        }
        let query = format!("select {} from bronze.{}", columns.join(", "), quoted(&source.name));
        let mut batches = context.sql(&query).await?.execute_stream().await?;
        let filter = || Sbbf::new_with_num_of_bytes(FILTER_BYTES * usize::try_from(num_rows).unwrap_or(0));
        let (mut seen, mut keys) = (filter(), filter());
        let mut num_again = 0;
        while let Some(batch) = batches.try_next().await? {
            let columns: Vec<ArrayRef> = batch.columns().to_vec();
            for key in hashes(&columns, batch.num_rows())? {
                let key = half(key);
                if seen.check(&key) {
                    keys.insert(&key);
                    num_again += 1;
                } else {
                    seen.insert(&key);
                }
            }
        }
        // each that came again belongs to one that came before, which may be another each time
        Ok(Self { keys, num_rows: 2 * num_again })
    }

    /// Whether the key may come more than once.
    pub fn may_hold(&self, key: u128) -> bool {
        self.keys.check(&half(key))
    }

    /// At most about so many records have one of these keys.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }
}
