//! The zones of the lake, in flow order. This is the only place with their names.

use std::fmt;
use std::str::FromStr;

/// Where data lives on its way from a landed file to a served answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Zone {
    /// Raw files as they came.
    Landing,
    /// Every record that can be typed, append-only.
    Bronze,
    /// One row per key, clean and enriched.
    Silver,
    /// Marts.
    Gold,
    /// Records that were refused, with the reason and the raw bytes.
    Quarantine,
    /// Marts as a server answers them.
    Serving,
}

impl Zone {
    pub const ALL: [Zone; 6] =
        [Zone::Landing, Zone::Bronze, Zone::Silver, Zone::Gold, Zone::Quarantine, Zone::Serving];

    pub fn name(self) -> &'static str {
        match self {
            Zone::Landing => "landing",
            Zone::Bronze => "bronze",
            Zone::Silver => "silver",
            Zone::Gold => "gold",
            Zone::Quarantine => "quarantine",
            Zone::Serving => "serving",
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Zone::ALL.into_iter().find(|zone| zone.name() == text).ok_or_else(|| {
            let known: Vec<_> = Zone::ALL.iter().map(|zone| zone.name()).collect();
            format!("unknown zone `{text}`, known: {}", known.join(", "))
        })
    }
}
