//! The lake: Delta tables over any object store, one folder per zone and table.
//!
//! Promise: a commit is all or nothing, is on the disk when it is reported, and is visible to every reader as one
//! version. Nothing outside this module knows how a table is stored.

pub mod commit;
pub mod durable;
mod encoding;
pub mod log;
pub mod maintain;
pub mod partition;
pub mod scan;
pub mod schema;
pub mod table;
pub mod write;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreScheme};
use tokio::task::JoinSet;
use url::Url;

use self::durable::Durable;
use self::table::Table;
use crate::error::{During, Error, Result};

/// A root of tables: a folder or a bucket.
#[derive(Clone)]
pub struct Lake {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    durable: Option<Arc<Durable>>,
    url: Url,
    folder: Option<PathBuf>,
    /// Differs between processes and calls, so that file and commit names never collide.
    process: String,
    counter: AtomicU64,
    checkpoints_in_background: AtomicBool,
    /// Those being written.
    checkpoints: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lake({})", self.inner.url)
    }
}

/// An object store at a URI, rooted at its path, and the local folder where there is one.
pub struct Root {
    pub store: Arc<dyn ObjectStore>,
    pub url: Url,
    pub folder: Option<PathBuf>,
    /// Of a cloud's store: lists what lies below the root page by page.
    pub pages: Option<Pages>,
}

/// A store that lists page by page, and the names that are asked for.
#[derive(Clone)]
pub struct Pages {
    pub store: Arc<dyn PaginatedListStore>,
    /// Empty, or ending with `/`.
    pub prefix: String,
}

/// Turns a URI or a local path into a URL; a relative path is taken from `base`.
///
/// # Errors
/// `Usage` where the text is neither.
pub fn parse_location(text: &str, base: &std::path::Path) -> Result<Url> {
    if text.contains("://") {
        return Url::parse(text)
            .map_err(|error| Error::usage(format!("`{text}` is not a uri")).because(error));
    }
    let path = base.join(text);
    let path = std::path::absolute(&path)?;
    Url::from_directory_path(&path)
        .map_err(|()| Error::usage(format!("`{}` is not a usable path", path.display())))
}

/// Opens the store behind `url`. Credentials of clouds come from their usual environment variables.
///
/// # Errors
/// `Usage` where the scheme is unknown, `Unavailable` where the folder can't be used.
pub fn open_root(url: &Url, create: bool) -> Result<Root> {
    if url.scheme() == "file" {
        let folder = url.to_file_path().map_err(|()| Error::usage(format!("`{url}` is not a local path")))?;
        if create {
            std::fs::create_dir_all(&folder).map_err(|error| {
                Error::unavailable(format!("can't create the folder `{}`", folder.display())).because(error)
            })?;
        }
        let folder = std::fs::canonicalize(&folder).map_err(|error| {
            Error::unavailable(format!("can't open the folder `{}`", folder.display())).because(error)
        })?;
        let store = LocalFileSystem::new_with_prefix(&folder)?;
        return Ok(Root { store: Arc::new(store), url: url.clone(), folder: Some(folder), pages: None });
    }
    let unusable = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::usage(format!("can't use `{}`; known are file, s3, gs, az and memory uris", url.scheme()))
            .because(error)
    };
    let (scheme, path) = ObjectStoreScheme::parse(url).map_err(|error| unusable(error.into()))?;
    // a builder takes the variables that it knows
    macro_rules! cloud {
        ($builder:ident) => {{
            let variables = std::env::vars().map(|(name, value)| (name.to_lowercase(), value));
            let builder = variables.fold(
                $builder::new().with_url(url.to_string()),
                |builder, (name, value)| match name.parse() {
                    Ok(key) if CLOUD_VARIABLES.iter().any(|prefix| name.starts_with(prefix)) => {
                        builder.with_config(key, value)
                    }
                    _ => builder,
                },
            );
            let store = Arc::new(builder.build().map_err(|error| unusable(error.into()))?);
            (Arc::clone(&store) as Arc<dyn ObjectStore>, Some(store as Arc<dyn PaginatedListStore>))
        }};
    }
    let (store, pages): (Arc<dyn ObjectStore>, Option<Arc<dyn PaginatedListStore>>) = match scheme {
        ObjectStoreScheme::AmazonS3 => cloud!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => cloud!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => cloud!(MicrosoftAzureBuilder),
        ObjectStoreScheme::Memory => (Arc::new(InMemory::new()), None),
        _ => return Err(unusable("there is no such store".into())),
    };
    let prefix = if path.as_ref().is_empty() { String::new() } else { format!("{path}/") };
    Ok(Root {
        store: Arc::new(PrefixStore::new(store, path)),
        url: url.clone(),
        folder: None,
        pages: pages.map(|store| Pages { store, prefix }),
    })
}

const CLOUD_VARIABLES: [&str; 3] = ["aws_", "google_", "azure_"];

impl Root {
    /// Stands for a folder that is not there: nothing can be read from it.
    pub fn absent(url: &Url) -> Root {
        Root {
            store: Arc::new(InMemory::new()),
            url: url.clone(),
            folder: url.to_file_path().ok(),
            pages: None,
        }
    }
}

impl Lake {
    /// Opens the lake at `url`; with `create` a local folder is made where there is none.
    ///
    /// # Errors
    /// As [`open_root`].
    pub fn open(url: &Url, create: bool) -> Result<Lake> {
        let root = open_root(url, create).during(|| "opening the lake".to_owned())?;
        let mut durable = None;
        let store: Arc<dyn ObjectStore> = match &root.folder {
            Some(folder) => {
                let local = LocalFileSystem::new_with_prefix(folder)?;
                let store = Arc::new(Durable::new(local, folder.clone()));
                durable = Some(Arc::clone(&store));
                store
            }
            None => root.store,
        };
        Ok(Self::with_store(store, durable, root.url, root.folder))
    }

    /// A lake in memory, for tests.
    pub fn in_memory(store: Arc<dyn ObjectStore>) -> Result<Lake> {
        let url = Url::parse("memory:///").map_err(|error| Error::bug("bad url").because(error))?;
        Ok(Self::with_store(store, None, url, None))
    }

    fn with_store(
        store: Arc<dyn ObjectStore>,
        durable: Option<Arc<Durable>>,
        url: Url,
        folder: Option<PathBuf>,
    ) -> Self {
        let nanos = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
        let process = format!("{nanos:x}-{:x}", std::process::id());
        Self {
            inner: Arc::new(Inner {
                store,
                durable,
                url,
                folder,
                process,
                counter: AtomicU64::new(0),
                checkpoints_in_background: AtomicBool::new(false),
                checkpoints: Mutex::default(),
            }),
        }
    }

    /// The store of all tables, rooted at the lake.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner.store)
    }

    pub fn url(&self) -> &Url {
        &self.inner.url
    }

    /// Whether anything lies below a zone.
    ///
    /// # Errors
    /// The store's.
    pub async fn has_zone(&self, zone: &str) -> Result<bool> {
        let mut listed = self.inner.store.list(Some(&Path::from(zone)));
        let found = listed.try_next().await.map_err(Error::from);
        Ok(found.during(|| format!("looking into the lake `{}`", self.inner.url))?.is_some())
    }

    /// The local folder, where the lake is on a local disk.
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.inner.folder.as_deref()
    }

    /// From now on a commit does not wait for the checkpoint that it makes due; [`Self::checkpoints_written`] does.
    pub fn checkpoint_in_background(&self) {
        self.inner.checkpoints_in_background.store(true, Ordering::Relaxed);
    }

    fn checkpoints_in_background(&self) -> bool {
        self.inner.checkpoints_in_background.load(Ordering::Relaxed)
    }

    fn spawn_checkpoint(&self, checkpoint: impl Future<Output = ()> + Send + 'static) {
        let mut checkpoints = self.inner.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        while checkpoints.try_join_next().is_some() {}
        checkpoints.spawn(checkpoint);
    }

    /// Waits for checkpoints that are written in the background: a runtime that ends before them tears them in two.
    pub async fn checkpoints_written(&self) {
        let mut checkpoints =
            std::mem::take(&mut *self.inner.checkpoints.lock().unwrap_or_else(PoisonError::into_inner));
        while checkpoints.join_next().await.is_some() {}
    }

    /// A name that no other call and no other process gets.
    pub fn unique_name(&self) -> String {
        let count = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        format!("{}-{count:x}", self.inner.process)
    }

    /// Opens `<zone>/<table>`, whether it exists or not.
    ///
    /// # Errors
    /// As [`log::load`].
    pub async fn table(&self, zone: &str, name: &str) -> Result<Table> {
        let full_name = format!("{zone}.{name}");
        let root = Path::from_iter([zone, name]);
        let snapshot =
            log::load(self.inner.store.as_ref(), &root).await.during(|| format!("opening `{full_name}`"))?;
        Ok(Table::new(self.clone(), full_name, root, snapshot))
    }

    /// Makes everything written so far durable. Log entries call it for the files that they name; a run calls it at
    /// its end for the entries themselves.
    ///
    /// # Errors
    /// The disk's.
    pub async fn sync(&self) -> Result<()> {
        if let Some(durable) = &self.inner.durable {
            durable.sync().await.map_err(|error| {
                Error::unavailable("the disk did not keep what was written").because(error)
            })?;
        }
        Ok(())
    }

    async fn sync_data(&self) -> Result<()> {
        match &self.inner.durable {
            Some(durable) if durable.has_pending_data() => self.sync().await,
            _ => Ok(()),
        }
    }
}
