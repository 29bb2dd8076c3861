//! The zones of the lake in flow order, and the schemas that a query sees beside them: the only place with their names.

/// Every record that can be typed, as often as it landed.
pub const BRONZE: &str = "bronze";

/// One row per key, clean and enriched.
pub const SILVER: &str = "silver";

/// Marts.
pub const GOLD: &str = "gold";

/// Records that were refused, with the reason and the raw bytes.
pub const QUARANTINE: &str = "quarantine";

/// What runs keep of themselves: files, decisions, balances, reports.
pub const LEDGER: &str = "ledger";

/// Computed, never stored: one bronze record per key, those that the rules let in.
pub const ACCEPTED: &str = "accepted";

/// Computed, never stored: every version of a key that the rules let in.
pub const VERSIONS: &str = "versions";

/// Tables that the project brings along as files.
pub const REFERENCE: &str = "reference";
