//! Which alerts are open: one small object each in the lake's folder `_medallion.alerts`, so that every command, on
//! whatever machine, knows what was told. It is no part of any table; deleting it only makes what holds be told again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{Error, Result};
use crate::lake::open_root;

const FOLDER: &str = "_medallion.alerts";

/// A store that does not answer for so long is not asked again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An open alert, as somebody was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    pub key: String,
    /// Who was told.
    pub to: String,
    /// RFC 3339.
    pub since: String,
    pub title: String,
}

/// The open alerts of a lake.
pub struct Memory {
    store: Arc<dyn ObjectStore>,
}

impl Memory {
    /// # Errors
    /// Those of [`open_root`].
    pub fn open(lake: &Url) -> Result<Memory> {
        Ok(Memory { store: open_root(lake, false)?.store })
    }

    fn place(to: &str, key: Option<&str>) -> Path {
        let short = |text: &str| blake3::hash(text.as_bytes()).to_hex()[..16].to_owned();
        let folder = Path::from(FOLDER).join(short(to).as_str());
        match key {
            None => folder,
            Some(key) => folder.join(format!("{}.json", short(key)).as_str()),
        }
    }

    /// What `to` was told and is open, by key.
    ///
    /// # Errors
    /// The store's.
    pub async fn of(&self, to: &str) -> Result<BTreeMap<String, Remembered>> {
        let found = self.below(&Self::place(to, None)).await?;
        Ok(found.into_iter().map(|open| (open.key.clone(), open)).collect())
    }

    /// # Errors
    /// The store's.
    pub async fn all(&self) -> Result<Vec<Remembered>> {
        self.below(&Path::from(FOLDER)).await
    }

    async fn below(&self, folder: &Path) -> Result<Vec<Remembered>> {
        in_time(async {
            let listed: Vec<_> = self.store.list(Some(folder)).try_collect().await?;
            let mut found = Vec::new();
            for object in listed {
                let bytes = match self.store.get(&object.location).await {
                    Ok(object) => object.bytes().await?,
                    // resolved by another command just now
                    Err(object_store::Error::NotFound { .. }) => continue,
                    Err(error) => return Err(error.into()),
                };
                // what somebody else has put there is none of ours
                found.extend(serde_json::from_slice::<Remembered>(&bytes).ok());
            }
            Ok(found)
        })
        .await
    }

    /// # Errors
    /// The store's.
    pub async fn remember(&self, open: &Remembered) -> Result<()> {
        let text = serde_json::to_vec(open)?;
        in_time(async {
            self.store.put(&Self::place(&open.to, Some(&open.key)), text.into()).await?;
            Ok(())
        })
        .await
    }

    /// # Errors
    /// The store's.
    pub async fn forget(&self, to: &str, key: &str) -> Result<()> {
        in_time(async {
            match self.store.delete(&Self::place(to, Some(key))).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::unavailable(format!("the lake does not answer within {} s", TIMEOUT.as_secs()))),
    }
}
