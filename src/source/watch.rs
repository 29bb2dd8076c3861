//! The operating system's word that a file was renamed into a folder, and so is complete. Where there is none (other
//! systems, network disks), a file is complete when it has been quiet.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
pub use linux::Watch;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::ffi::OsStr;
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;

    use rustix::fd::OwnedFd;
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

    use super::{HashSet, Path, PathBuf};

    /// Watches folders.
    pub struct Watch {
        queue: OwnedFd,
        folders: HashMap<i32, PathBuf>,
    }

    impl Watch {
        /// `None` where the system has no watches left.
        pub fn new() -> Option<Watch> {
            let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
            Some(Watch { queue, folders: HashMap::new() })
        }

        /// Watches one more folder.
        pub fn add(&mut self, folder: &Path) {
            match inotify::add_watch(&self.queue, folder, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR) {
                Ok(id) => {
                    self.folders.insert(id, folder.to_path_buf());
                }
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "the folder can't be watched");
                }
            }
        }

        /// Files that were renamed into the folders since the last call.
        pub fn moved_in(&mut self) -> HashSet<PathBuf> {
            let mut found = HashSet::new();
            let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
            let mut events = inotify::Reader::new(&self.queue, &mut buffer);
            // ends when nothing waits, or can't be read: then files are found by being quiet
            while let Ok(event) = events.next() {
                if event.events().contains(ReadFlags::ISDIR) {
                    continue;
                }
                if let (Some(folder), Some(name)) = (self.folders.get(&event.wd()), event.file_name()) {
                    found.insert(folder.join(OsStr::from_bytes(name.to_bytes())));
                }
            }
            found
        }
    }
}

/// Stands in where the system's word is not used.
#[cfg(not(target_os = "linux"))]
pub struct Watch;

#[cfg(not(target_os = "linux"))]
impl Watch {
    pub fn new() -> Option<Watch> {
        None
    }

    pub fn add(&mut self, _folder: &Path) {}

    pub fn moved_in(&mut self) -> HashSet<PathBuf> {
        HashSet::new()
    }
}
