//! New files of a landing that is followed: found without looking at the old ones again.
//!
//! On a local disk a folder is read only when it has changed, and only names that were never seen are looked at. A file is
//! complete when it appeared by being renamed (the operating system says so), or when neither size nor time has changed
//! for a while. Objects of a store are complete when they are listed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::files::{self, LandedFile};
use super::watch::Watch;
use crate::error::{Error, Result};
use crate::lake::Root;
use crate::project::Project;

/// A folder that changed less than this before it was read may have changed again within one tick of the file system's
/// clock.
const CLOCK_TICK: Duration = Duration::from_secs(2);

/// Listing an object store costs a request and money.
const STORE_POLL: Duration = Duration::from_secs(5);

/// What one look at landing brought.
#[derive(Debug, Default)]
pub struct Look {
    /// Complete files that were not known.
    pub ready: Vec<LandedFile>,
    /// Files that may still grow.
    pub num_waiting: usize,
}

/// Follows one landing.
pub struct Follower {
    project: Arc<Project>,
    landing: Arc<Root>,
    known: HashSet<String>,
    folders: Option<Arc<Mutex<Folders>>>,
    last_listed: Option<Instant>,
}

impl Follower {
    /// `known` are the files that were taken in; a file that does not appear by being renamed is complete when it has not
    /// changed for `quiet`.
    pub fn new(
        project: Arc<Project>,
        landing: Arc<Root>,
        known: impl Iterator<Item = String>,
        quiet: Duration,
    ) -> Self {
        let folders =
            landing.folder.as_ref().map(|root| Arc::new(Mutex::new(Folders::new(root.clone(), quiet))));
        Self { project, landing, known: known.collect(), folders, last_listed: None }
    }

    /// Looks for files that have not been found before.
    ///
    /// # Errors
    /// The store's; `Project` where two sources claim one file.
    pub async fn look(&mut self) -> Result<Look> {
        match self.folders.clone() {
            Some(folders) => self.look_at_folders(folders).await,
            None => self.look_at_store().await,
        }
    }

    async fn look_at_folders(&mut self, folders: Arc<Mutex<Folders>>) -> Result<Look> {
        let project = Arc::clone(&self.project);
        let known = std::mem::take(&mut self.known);
        let (known, look) = tokio::task::spawn_blocking(move || {
            let mut folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
            let look = folders.look(&project, &known);
            (known, look)
        })
        .await?;
        self.known = known;
        let look = look?;
        self.known.extend(look.ready.iter().map(|file| file.path.clone()));
        Ok(look)
    }

    async fn look_at_store(&mut self) -> Result<Look> {
        if self.last_listed.is_some_and(|last| last.elapsed() < STORE_POLL) {
            return Ok(Look::default());
        }
        self.last_listed = Some(Instant::now());
        let listing = files::list(&self.project, &self.landing).await?;
        let ready: Vec<LandedFile> =
            listing.files.into_iter().filter(|file| !self.known.contains(&file.path)).collect();
        self.known.extend(ready.iter().map(|file| file.path.clone()));
        Ok(Look { ready, num_waiting: 0 })
    }
}

/// The folders of a local landing.
struct Folders {
    root: PathBuf,
    quiet: Duration,
    watch: Option<Watch>,
    by_path: HashMap<PathBuf, Folder>,
    waiting: BTreeMap<PathBuf, Waiting>,
}

/// A folder as it was when it was read.
#[derive(Default)]
struct Folder {
    changed: Option<SystemTime>,
    read_at: Option<SystemTime>,
    subfolders: BTreeSet<PathBuf>,
    /// Names that need no further look.
    seen: HashSet<OsString>,
}

/// A file that may still grow.
struct Waiting {
    file: LandedFile,
    since: Instant,
}

impl Folders {
    fn new(root: PathBuf, quiet: Duration) -> Self {
        Self { root, quiet, watch: Watch::new(), by_path: HashMap::new(), waiting: BTreeMap::new() }
    }

    fn look(&mut self, project: &Project, known: &HashSet<String>) -> Result<Look> {
        let moved_in = match &mut self.watch {
            Some(watch) => watch.moved_in(),
            None => HashSet::new(),
        };
        let mut look = Look::default();
        self.look_again(&moved_in, &mut look);
        let mut folders = vec![self.root.clone()];
        while let Some(path) = folders.pop() {
            let has_news = moved_in.iter().any(|moved| moved.parent() == Some(&path));
            for name in self.new_names(&path, has_news)? {
                self.look_at(project, known, &path.join(name), &moved_in, &mut look)?;
            }
            if let Some(folder) = self.by_path.get(&path) {
                folders.extend(folder.subfolders.iter().cloned());
            }
        }
        look.num_waiting = self.waiting.len();
        Ok(look)
    }

    /// Files that waited: complete now, or grown.
    fn look_again(&mut self, moved_in: &HashSet<PathBuf>, look: &mut Look) {
        let mut done = Vec::new();
        for (path, waiting) in &mut self.waiting {
            let Some((bytes, modified)) = size_and_time(path) else {
                // gone again
                done.push((path.clone(), None));
                continue;
            };
            if (bytes, modified) != (waiting.file.bytes, waiting.file.modified) {
                waiting.file.bytes = bytes;
                waiting.file.modified = modified;
                waiting.file.file_time = files::time_in_name(&waiting.file.path).unwrap_or(modified);
                waiting.since = Instant::now();
            }
            if moved_in.contains(path) || waiting.since.elapsed() >= self.quiet {
                done.push((path.clone(), Some(waiting.file.clone())));
            }
        }
        for (path, file) in done {
            self.waiting.remove(&path);
            if let Some(file) = file {
                self.mark_seen(&path);
                look.ready.push(file);
            }
        }
    }

    /// Names of files in a folder that were not seen yet; none where the folder has not changed.
    fn new_names(&mut self, path: &FsPath, has_news: bool) -> Result<Vec<OsString>> {
        let failed = |error: std::io::Error| {
            Error::unavailable(format!("can't look into the landing folder `{}`", path.display()))
                .because(error)
        };
        let is_new = !self.by_path.contains_key(path);
        if is_new && let Some(watch) = &mut self.watch {
            // before it is read, so that nothing falls in between
            watch.add(path);
        }
        let folder = self.by_path.entry(path.to_path_buf()).or_default();
        let changed = match std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified()) {
            Ok(changed) => changed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path != self.root => {
                // the folders of a partitioned landing may be cleaned up
                *folder = Folder::default();
                return Ok(Vec::new());
            }
            Err(error) => return Err(failed(error)),
        };
        let is_settled = folder
            .read_at
            .is_some_and(|read_at| read_at.duration_since(changed).is_ok_and(|age| age > CLOCK_TICK));
        if folder.changed == Some(changed) && is_settled && !has_news {
            return Ok(Vec::new());
        }
        folder.read_at = Some(SystemTime::now());
        folder.changed = Some(changed);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if folder.seen.contains(&name) || name.to_str().is_some_and(files::is_unfinished) {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    folder.subfolders.insert(entry.path());
                }
                Ok(kind) if kind.is_file() => names.push(name),
                // links and devices are reported when the whole of landing is listed
                _ => {}
            }
        }
        names.sort();
        Ok(names)
    }

    fn look_at(
        &mut self,
        project: &Project,
        known: &HashSet<String>,
        path: &FsPath,
        moved_in: &HashSet<PathBuf>,
        look: &mut Look,
    ) -> Result<()> {
        if self.waiting.contains_key(path) {
            return Ok(());
        }
        let landed_path = self.landed_path(path);
        let source = match &landed_path {
            Some(landed_path) if !known.contains(landed_path) => files::claimant(project, landed_path)?,
            _ => None,
        };
        let (Some(landed_path), Some(source)) = (landed_path, source) else {
            self.mark_seen(path);
            return Ok(());
        };
        if files::refuse_special(&self.root, &landed_path).is_err() {
            return Ok(());
        }
        let Some((bytes, modified)) = size_and_time(path) else {
            return Ok(());
        };
        let file = LandedFile {
            file_time: files::time_in_name(&landed_path).unwrap_or(modified),
            path: landed_path,
            source,
            bytes,
            modified,
        };
        if moved_in.contains(path) || self.is_old(modified) {
            self.mark_seen(path);
            look.ready.push(file);
        } else {
            self.waiting.insert(path.to_path_buf(), Waiting { file, since: Instant::now() });
        }
        Ok(())
    }

    fn is_old(&self, modified: i64) -> bool {
        let quiet = i64::try_from(self.quiet.as_micros()).unwrap_or(i64::MAX);
        chrono::Utc::now().timestamp_micros().saturating_sub(modified) >= quiet
    }

    fn mark_seen(&mut self, path: &FsPath) {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && let Some(folder) = self.by_path.get_mut(parent)
        {
            folder.seen.insert(name.to_owned());
        }
    }

    /// The path as the store spells it.
    fn landed_path(&self, path: &FsPath) -> Option<String> {
        let root = object_store::path::Path::from_absolute_path(&self.root).ok()?;
        let whole = object_store::path::Path::from_absolute_path(path).ok()?;
        Some(whole.as_ref().strip_prefix(root.as_ref())?.trim_start_matches('/').to_owned())
    }
}

/// Bytes and modification time (microseconds since the epoch) of a regular file.
fn size_and_time(path: &FsPath) -> Option<(u64, i64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    let modified = chrono::DateTime::<chrono::Utc>::from(metadata.modified().ok()?);
    metadata.is_file().then(|| (metadata.len(), modified.timestamp_micros()))
}
