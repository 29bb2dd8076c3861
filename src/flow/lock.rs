//! Who may write the lake: one process at a time, in turns.
//!
//! | file in the lake | held by | as long as |
//! |---|---|---|
//! | `_medallion.lock` | whoever writes | it writes |
//! | `_medallion.wait` | the next in line | it waits for the lake |
//! | `_medallion.stream` | a stream | it lives, also while it has handed the lake over |
//! | `_medallion.files` | many: who compacts without the lake; one: who deletes young files | it does so |
//!
//! On a local disk the operating system holds these locks and lets them go however the process ends; a file that is left
//! over is no lock. On an object store there are none: there two writers meet at a commit, which only one can win.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::lake::Lake;

/// In the lake's folder, as the others.
pub const WRITES: &str = "_medallion.lock";
const WAITS: &str = "_medallion.wait";
const STREAMS: &str = "_medallion.stream";
const FILES: &str = "_medallion.files";

/// How often a command that waits looks again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How often a stream looks that wants the lake back: more often, so that it is next whoever else waits.
const STREAM_LOOKS_EVERY: Duration = Duration::from_millis(2);

/// Who only looks whether a lock is held holds it for a moment.
const MOMENT: Duration = Duration::from_millis(200);

/// How long a command waits beside a stream when nobody says how long.
pub const BESIDE_A_STREAM: Duration = Duration::from_secs(600);

/// The lake is this process's, as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

/// Takes the lake for a run: at once or not at all.
///
/// # Errors
/// `Conflict` where another process has it, or a stream that has handed it over.
pub fn acquire(lake: &Lake) -> Result<Lock> {
    let Some(folder) = lake.folder() else {
        return Ok(Lock { _file: None });
    };
    match try_hold(&folder.join(WRITES), Hold::Alone)? {
        Some(file) if !is_held(&folder.join(STREAMS))? => Ok(Lock { _file: Some(file) }),
        _ => Err(refused(lake)),
    }
}

fn refused(lake: &Lake) -> Error {
    Error::conflict(format!(
        "another run holds the lake `{}`; wait until it ends, then run again",
        lake.url()
    ))
}

/// Takes the lake for a command of an operator. Beside a stream it waits in line until the stream hands the lake over, for
/// `patience` at most ([`BESIDE_A_STREAM`] by default); where another run has the lake it waits only if `patience` is given.
///
/// # Errors
/// `Conflict` where the lake is not to be had in that time.
pub async fn wait(lake: &Lake, patience: Option<Duration>) -> Result<Lock> {
    let Some(folder) = lake.folder() else {
        return Ok(Lock { _file: None });
    };
    let is_beside_stream = is_held(&folder.join(STREAMS))?;
    let patience = match (patience, is_beside_stream) {
        (Some(patience), _) => patience,
        (None, true) => BESIDE_A_STREAM,
        (None, false) => return acquire(lake),
    };
    let whom = match is_beside_stream {
        true => "the stream to hand over",
        false => "the run that holds it",
    };
    let begun = Instant::now();
    let mut has_told = false;
    let mut place = None;
    loop {
        // a place in line first, so that the stream sees that somebody waits, and those in line don't overtake each other
        if place.is_none() {
            place = try_hold(&folder.join(WAITS), Hold::Alone)?;
        }
        if place.is_some()
            && let Some(file) = try_hold(&folder.join(WRITES), Hold::Alone)?
        {
            return Ok(Lock { _file: Some(file) });
        }
        if begun.elapsed() >= patience {
            return Err(Error::conflict(format!(
                "waited {} s for {whom} of the lake `{}`, in vain; give it longer with `--wait`, or run again",
                patience.as_secs(),
                lake.url()
            )));
        }
        if !has_told && begun.elapsed() >= MOMENT {
            tracing::info!("waiting for {whom}");
            has_told = true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A stream's right to the lake: nobody else streams, and whoever waits gets a turn.
#[derive(Debug)]
pub struct Seat {
    folder: Option<PathBuf>,
    _presence: Option<File>,
    lock: Option<File>,
}

impl Seat {
    /// Takes the lake for a stream; where a run or another command has it, waits for `patience` at most.
    ///
    /// # Errors
    /// `Conflict` where there is a stream already, or the lake is not to be had in that time.
    pub async fn take(lake: &Lake, patience: Duration) -> Result<Seat> {
        let Some(folder) = lake.folder().map(Path::to_path_buf) else {
            return Ok(Seat { folder: None, _presence: None, lock: None });
        };
        let refused = |what: &str| {
            Error::conflict(format!(
                "another {what} holds the lake `{}`; a lake has one writer at a time, a run or a stream",
                lake.url()
            ))
        };
        let begun = Instant::now();
        let presence = loop {
            match try_hold(&folder.join(STREAMS), Hold::Alone)? {
                Some(file) => break file,
                None if begun.elapsed() >= MOMENT => return Err(refused("stream")),
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        };
        let mut has_told = false;
        let lock = loop {
            match try_hold(&folder.join(WRITES), Hold::Alone)? {
                Some(file) => break file,
                None if begun.elapsed() >= patience.max(MOMENT) => return Err(refused("run")),
                None => tokio::time::sleep(STREAM_LOOKS_EVERY).await,
            }
            if !has_told && begun.elapsed() >= MOMENT {
                tracing::info!("waiting for the run that holds the lake");
                has_told = true;
            }
        };
        Ok(Seat { folder: Some(folder), _presence: Some(presence), lock: Some(lock) })
    }

    /// Whether somebody waits for the lake.
    pub fn is_wanted(&self) -> bool {
        // where that can't be found out, nobody is helped by an error
        self.folder.as_ref().is_some_and(|folder| is_held(&folder.join(WAITS)).unwrap_or(false))
    }

    /// Returns when somebody waits for the lake.
    pub async fn wanted(&self) {
        while !self.is_wanted() {
            tokio::time::sleep(LOOK_EVERY.saturating_mul(3)).await;
        }
    }

    /// Lets whoever is next in line have the lake, and returns with it when they have done. To be dropped at any time: the
    /// seat is without the lake then.
    ///
    /// # Errors
    /// `Unavailable` where the disk is.
    pub async fn hand_over(&mut self) -> Result<()> {
        let Some(folder) = self.folder.clone() else {
            return Ok(());
        };
        self.lock = None;
        // the place in line is free when the next has got the lake, or has given up
        let place = hold(&folder.join(WAITS), STREAM_LOOKS_EVERY).await?;
        self.lock = Some(hold(&folder.join(WRITES), STREAM_LOOKS_EVERY).await?);
        drop(place);
        Ok(())
    }
}

/// Whether somebody writes the lake, or a stream that has handed it over; `None` on an object store, which has no locks.
/// Where it can't be told, somebody does.
pub fn is_written(lake: &Lake) -> Option<bool> {
    let folder = lake.folder()?;
    Some([WRITES, STREAMS].iter().any(|name| is_held(&folder.join(name)).unwrap_or(true)))
}

/// Held while files are put together without holding the lake: who deletes files that may not be committed yet waits.
///
/// # Errors
/// `Conflict` where files are just being deleted.
pub fn share_files(lake: &Lake) -> Result<Lock> {
    hold_files(lake, Hold::Together, "files are being deleted; run again when that is done")
}

/// Held while files are deleted that somebody may be about to commit.
///
/// # Errors
/// `Conflict` where somebody is putting files together.
pub fn own_files(lake: &Lake) -> Result<Lock> {
    hold_files(lake, Hold::Alone, "`optimize` is putting files together; run again when it is done")
}

fn hold_files(lake: &Lake, how: Hold, why: &str) -> Result<Lock> {
    let Some(folder) = lake.folder() else {
        return Ok(Lock { _file: None });
    };
    match try_hold(&folder.join(FILES), how)? {
        Some(file) => Ok(Lock { _file: Some(file) }),
        None => Err(Error::conflict(why)),
    }
}

#[derive(Debug, Clone, Copy)]
enum Hold {
    Alone,
    Together,
}

async fn hold(path: &Path, every: Duration) -> Result<File> {
    loop {
        if let Some(file) = try_hold(path, Hold::Alone)? {
            return Ok(file);
        }
        tokio::time::sleep(every).await;
    }
}

/// The lock, if it is free.
fn try_hold(path: &Path, how: Hold) -> Result<Option<File>> {
    let failed = |error: std::io::Error| {
        Error::unavailable(format!("can't open the lock `{}`", path.display())).because(error)
    };
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    let taken = match how {
        Hold::Alone => file.try_lock(),
        Hold::Together => file.try_lock_shared(),
    };
    match taken {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Whether somebody holds the lock.
fn is_held(path: &Path) -> Result<bool> {
    Ok(path.try_exists().unwrap_or(true) && try_hold(path, Hold::Together)?.is_none())
}
