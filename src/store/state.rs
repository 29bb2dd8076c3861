//! What a serving store says about a mart: what it holds, and which publications were begun and not finished.
//!
//! The state stands in the store itself, beside the rows that it speaks of, so a lost or restored store tells its own
//! truth. It changes by compare-and-set on [`State::at`] only, so of two publishers one always sees the other.

use serde::{Deserialize, Serialize};

/// Of more claims than that, the newest speaks for all: then everything is compared.
const MAX_CLAIMS: usize = 64;

/// One version of a mart in gold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldVersion {
    /// The id of the Delta table: another lake, or one that was rebuilt, has another.
    pub table: String,
    pub version: i64,
    /// The commit's time in the log, milliseconds since the epoch.
    pub committed: i64,
}

/// A publication that was begun: some of its rows may be in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub gold: GoldVersion,
    /// The time of its writes, microseconds.
    pub at: i64,
    /// Tells two publishers apart.
    pub owner: String,
    /// How it writes rows ([`crate::project::mart::Mart::fingerprint`]).
    pub fingerprint: String,
    /// Whether every partition is written, also those that gold says have not changed.
    pub is_whole: bool,
}

/// A publication that was finished: the store holds exactly this, but for what later claims have written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub gold: GoldVersion,
    pub at: i64,
    /// How rows were written ([`crate::project::mart::Mart::fingerprint`]).
    pub fingerprint: String,
    /// Since when every row has been written or written again, milliseconds since the epoch. Decides when rows that
    /// would expire are refreshed.
    pub refreshed: i64,
    pub rows: u64,
    /// Why the store held something else all the same when it was looked at last, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

/// Everything that a store says about a mart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The highest time that was ever claimed, microseconds.
    pub at: i64,
    pub published: Option<Published>,
    /// Unfinished, oldest first. All but the newest belong to publishers that ended early or are still on their way.
    pub claims: Vec<Claim>,
}

impl State {
    /// What is known to stand against what was published.
    pub fn obstacle(&self) -> Option<&str> {
        self.published.as_ref()?.obstacle.as_deref()
    }

    /// Whether `gold` is what the store holds, with nothing begun since.
    pub fn holds(&self, gold: &GoldVersion, fingerprint: &str) -> bool {
        self.claims.is_empty()
            && self
                .published
                .as_ref()
                .is_some_and(|published| published.gold == *gold && published.fingerprint == fingerprint)
    }

    /// The state with one more claim. It takes the place of those before it for the same version, whose partitions are
    /// among its own, so that a publication that fails again and again does not fill the state.
    pub fn with_claim(before: Option<&State>, mut claim: Claim) -> State {
        let mut claims = before.map(|state| state.claims.clone()).unwrap_or_default();
        let at = claim.at;
        let is_same = |known: &Claim| known.gold == claim.gold && known.fingerprint == claim.fingerprint;
        claim.is_whole |= claims.iter().any(|known| is_same(known) && known.is_whole);
        claims.retain(|known| !is_same(known));
        if claims.len() >= MAX_CLAIMS {
            claims.clear();
            claim.is_whole = true;
        }
        claims.push(claim);
        State { at, published: before.and_then(|state| state.published.clone()), claims }
    }

    /// The time for a new publication of `gold`: the commit's own, but later than every time before. Two apart, so that
    /// there is room for what is deleted just before.
    pub fn next_time(before: Option<&State>, gold: &GoldVersion) -> i64 {
        let committed = gold.committed.saturating_mul(1000);
        before.map_or(committed, |state| committed.max(state.at.saturating_add(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gold(version: i64, committed: i64) -> GoldVersion {
        GoldVersion { table: "t".to_owned(), version, committed }
    }

    #[test]
    fn times_only_grow() {
        assert_eq!(State::next_time(None, &gold(0, 5)), 5000);
        let claim = Claim {
            gold: gold(0, 5),
            at: 5000,
            owner: "a".to_owned(),
            fingerprint: String::new(),
            is_whole: true,
        };
        let state = State::with_claim(None, claim);
        assert_eq!(State::next_time(Some(&state), &gold(0, 5)), 5002);
        assert_eq!(State::next_time(Some(&state), &gold(1, 4)), 5002);
        assert_eq!(State::next_time(Some(&state), &gold(1, 6)), 6000);
        assert!(!state.holds(&gold(0, 5), ""));
    }

    #[test]
    fn claims_that_fail_again_and_again_do_not_fill_the_state() {
        let claim = |version: i64, at: i64, is_whole: bool| Claim {
            gold: gold(version, version),
            at,
            owner: at.to_string(),
            fingerprint: String::new(),
            is_whole,
        };
        let mut state = State::with_claim(None, claim(1, 1, true));
        for at in 2..10 {
            state = State::with_claim(Some(&state), claim(1, at, false));
        }
        // whoever is left may have written everything
        assert_eq!(state, State { at: 9, published: None, claims: vec![claim(1, 9, true)] });
        for version in 2..1000 {
            state = State::with_claim(Some(&state), claim(version, 100 + version, false));
            assert!(state.claims.len() <= MAX_CLAIMS);
            assert_eq!(state.claims.last().unwrap().gold.version, version);
            assert!(state.claims[0].is_whole, "what is no longer said is written");
        }
    }

    #[test]
    fn a_state_without_an_obstacle_is_read() {
        let text = r#"{"at": 5, "published": {"gold": {"table": "t", "version": 0, "committed": 5}, "at": 5,
                       "fingerprint": "", "refreshed": 0, "rows": 1}, "claims": []}"#;
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!(state.published.as_ref().unwrap().obstacle, None);
        assert!(!serde_json::to_string(&state).unwrap().contains("obstacle"));
    }
}
