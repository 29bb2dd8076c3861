//! Places where a test can end the process as `kill -9` would, or hold it. Only in builds with debug assertions.

/// Ends the process here when `MEDALLION_KILL_AT` names this place. `commit silver.users` is just before that commit's log
/// entry, `committed silver.users` just after it.
#[cfg(debug_assertions)]
pub fn hit(place: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    if let Ok(wanted) = std::env::var("MEDALLION_KILL_AT")
        && (wanted == place || wanted == count.to_string())
    {
        std::process::abort();
    }
    // held until the test removes the file
    if let (Ok(wanted), Ok(file)) = (std::env::var("MEDALLION_HOLD_AT"), std::env::var("MEDALLION_HOLD_FILE"))
        && wanted == place
    {
        // the executor's thread is to stand still, as that of a process which is not scheduled
        while std::path::Path::new(&file).try_exists().unwrap_or(false) {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }
}

#[cfg(not(debug_assertions))]
pub fn hit(_place: &str) {}
