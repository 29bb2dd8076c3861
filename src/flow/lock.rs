//! One run at a time per lake.
//!
//! On a local disk the operating system holds the lock and lets it go however the process ends. On an object store there
//! is none: there two runs meet at the write-ahead commit, which only one can win.

use std::fs::{File, TryLockError};

use crate::error::{Error, Result};
use crate::lake::Lake;

/// In the lake's folder.
pub const NAME: &str = "_medallion.lock";

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

/// Takes the lake for this run.
///
/// # Errors
/// `Conflict` where another run has it.
pub fn acquire(lake: &Lake) -> Result<Lock> {
    let Some(folder) = lake.folder() else {
        return Ok(Lock { _file: None });
    };
    let path = folder.join(NAME);
    let failed = |error: std::io::Error| {
        Error::unavailable(format!("can't open the lock `{}`", path.display())).because(error)
    };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: Some(file) }),
        Err(TryLockError::WouldBlock) => Err(Error::conflict(format!(
            "another run holds the lake `{}`; wait until it ends, then run again",
            lake.url()
        ))),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
