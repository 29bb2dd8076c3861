//! Places where a test can end the process as `kill -9` would. Only in builds with debug assertions.

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
}

#[cfg(not(debug_assertions))]
pub fn hit(_place: &str) {}
