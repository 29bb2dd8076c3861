//! Everything that lies in a landing, also what can't be taken in: one odd name must not hide the other files.

use std::ffi::OsStr;
use std::io;
use std::path::{Path as FsPath, PathBuf};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, list::PaginatedListOptions};

use super::files::is_unfinished;
use crate::error::{Error, Result};
use crate::lake::{Pages, Root};

/// A name in landing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the landing root; of an odd name escaped.
    pub path: String,
    pub kind: Kind,
    pub bytes: u64,
    /// Microseconds since the epoch.
    pub modified: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    /// A symlink, which is never followed.
    Link,
    /// A device, a pipe, a socket.
    Special,
    /// A name that no path can hold: control characters, bytes that are no UTF-8, an empty part.
    OddName,
}

/// Every entry but those whose names say that they are still being written, by path.
///
/// # Errors
/// `Unavailable` where landing can't be listed.
pub async fn entries(landing: &Root) -> Result<Vec<Entry>> {
    let mut found = match (&landing.folder, &landing.pages) {
        (Some(folder), _) => {
            let root = folder.clone();
            tokio::task::spawn_blocking(move || walk(&root)).await?.map_err(|error| {
                Error::unavailable(format!("can't look into the landing folder `{}`", folder.display()))
                    .because(error)
            })?
        }
        (None, Some(pages)) => of_pages(pages).await.map_err(|error| told(landing, error))?,
        (None, None) => {
            let listed = landing.store.list(None).map_ok(|object| of_object(&object.location, &object));
            listed.try_collect().await.map_err(|error| told(landing, error))?
        }
    };
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn told(landing: &Root, error: object_store::Error) -> Error {
    Error::from(error).during(format!("listing the landing `{}`", landing.url))
}

/// Links are named and not followed.
fn walk(root: &FsPath) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let names = match std::fs::read_dir(root.join(&folder)) {
            // the folders of a partitioned landing may be cleaned up
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.as_os_str().is_empty() => {
                continue;
            }
            other => other?,
        };
        for name in names {
            let name = name?;
            let relative = folder.join(name.file_name());
            if is_unfinished(&name.file_name().to_string_lossy()) {
                continue;
            }
            let Some(path) = usable(&relative) else {
                found.push(odd_name(relative.as_os_str()));
                continue;
            };
            let metadata = match name.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let kind = metadata.file_type();
            if kind.is_dir() {
                folders.push(relative);
                continue;
            }
            let modified = chrono::DateTime::<chrono::Utc>::from(metadata.modified()?);
            found.push(Entry {
                path,
                kind: match (kind.is_file(), kind.is_symlink()) {
                    (true, _) => Kind::File,
                    (_, true) => Kind::Link,
                    _ => Kind::Special,
                },
                bytes: metadata.len(),
                modified: modified.timestamp_micros(),
            });
        }
    }
    Ok(found)
}

/// The path as landing spells it; `None` of an odd name.
pub fn usable(relative: &FsPath) -> Option<String> {
    let text = relative.to_str()?;
    Path::parse(text).is_ok().then(|| text.to_owned())
}

fn odd_name(name: &OsStr) -> Entry {
    Entry { path: escaped(name.as_encoded_bytes()), kind: Kind::OddName, bytes: 0, modified: 0 }
}

/// A name as it can be shown: `\n`, `\u{1b}`, `\xff`.
fn escaped(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        text.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    text
}

/// A page that holds an odd name comes back as an error that names it and nothing else. It is asked for in smaller and
/// smaller pieces until the odd name stands alone; then the listing goes on after it.
async fn of_pages(pages: &Pages) -> object_store::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut options = PaginatedListOptions::default();
    loop {
        match pages.store.list_paginated(Some(&pages.prefix), options.clone()).await {
            Ok(page) => {
                let objects = page.result.objects.iter();
                found.extend(objects.filter_map(|object| below(&pages.prefix, object)));
                let Some(token) = page.page_token else {
                    return Ok(found);
                };
                options = PaginatedListOptions {
                    page_token: Some(token),
                    max_keys: options.max_keys,
                    ..Default::default()
                };
            }
            Err(error) => {
                let Some(key) = odd_key(&error) else {
                    return Err(error);
                };
                match options.max_keys.unwrap_or(PAGE) {
                    1 => {
                        let name = key.strip_prefix(&pages.prefix).unwrap_or(&key);
                        if !name.split('/').any(is_unfinished) {
                            found.push(odd_name(OsStr::new(name)));
                        }
                        options = PaginatedListOptions { offset: Some(key), ..Default::default() };
                    }
                    many => options.max_keys = Some(many.div_ceil(8)),
                }
            }
        }
    }
}

/// What stores list at once.
const PAGE: usize = 1000;

fn odd_key(error: &object_store::Error) -> Option<String> {
    use object_store::path::Error as Odd;
    match error {
        object_store::Error::InvalidPath {
            source: Odd::EmptySegment { path } | Odd::BadSegment { path, .. },
        } => Some(path.clone()),
        _ => None,
    }
}

fn below(prefix: &str, object: &ObjectMeta) -> Option<Entry> {
    let path = object.location.as_ref().strip_prefix(prefix).filter(|path| !path.is_empty())?;
    if path.split('/').any(is_unfinished) {
        return None;
    }
    Some(of_object(&Path::parse(path).ok()?, object))
}

fn of_object(path: &Path, object: &ObjectMeta) -> Entry {
    Entry {
        path: path.to_string(),
        kind: Kind::File,
        bytes: object.size,
        modified: object.last_modified.timestamp_micros(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_shown_so_that_they_can_be_found() {
        assert_eq!(escaped("ü b.jsonl".as_bytes()), "ü b.jsonl");
        assert_eq!(escaped(b"a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(escaped(b"a\xff\xfeb"), "a\\xff\\xfeb");
    }

    #[test]
    fn names_with_control_characters_are_odd() {
        for (path, is_usable) in [("a/b c.jsonl", true), ("a/ü%2e.jsonl", true), ("a/b\n.jsonl", false)] {
            assert_eq!(usable(FsPath::new(path)).is_some(), is_usable, "{path:?}");
        }
    }
}
