//! What the serving store says that it holds of each mart, beside what gold has: a column of `medallion status`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Places;
use crate::error::Result;
use crate::flow::Run;
use crate::flow::serving::{self, Standing};
use crate::store::ServingStore;
use crate::store::cassandra::Cassandra;

/// A status does not wait longer than this for the store.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a mart stands in the serving store.
#[derive(Debug, Clone, Serialize)]
pub struct Published {
    /// `current`, `behind`, `unfinished`, `never`, `foreign` (another lake's, or of a later state of this one), `obstructed`
    /// (published, and the store holds something else all the same) or `unknown` (the store did not answer).
    pub state: &'static str,
    /// Gold's version that the store holds.
    pub version: Option<i64>,
    /// How many versions of gold it does not hold yet.
    pub behind: Option<i64>,
}

impl Published {
    const UNKNOWN: Published = Published { state: "unknown", version: None, behind: None };

    /// `v12`, `v10, 2 behind`.
    pub fn text(&self) -> String {
        match (self.state, self.version, self.behind) {
            ("current", Some(version), _) => format!("v{version}"),
            ("behind", Some(version), Some(behind)) => format!("v{version}, {behind} behind"),
            (state, ..) => state.to_owned(),
        }
    }

    /// Why a person has to look at a mart that stands like this.
    pub fn problem(&self, gold: &str) -> Option<String> {
        match self.state {
            "foreign" => Some(format!(
                "the serving store holds `{gold}` of another lake, or of a later state of this one; see \"Cassandra or the \
                 lake was restored\" in docs/operations.md"
            )),
            "obstructed" => Some(format!(
                "`{gold}` is published, and the serving store holds something else all the same; `medallion reconcile` names \
                 the rows"
            )),
            _ => None,
        }
    }
}

/// By gold table; empty where no store is configured.
pub async fn look(places: &Places, run: &Run) -> Result<BTreeMap<String, Published>> {
    let Some((manifest, target)) = places.serving(&run.project)? else {
        return Ok(BTreeMap::new());
    };
    let names = run.project.marts.iter().map(|mart| mart.gold().to_string());
    let mut found: BTreeMap<String, Published> = names.map(|name| (name, Published::UNKNOWN)).collect();
    let asked = async {
        let store = Cassandra::open(target, manifest).await?;
        if !store.has_state().await? {
            return Ok(run.project.marts.iter().map(|mart| (mart.gold().to_string(), None)).collect());
        }
        let mut states = BTreeMap::new();
        for mart in &run.project.marts {
            states.insert(mart.gold().to_string(), store.state(mart).await?);
        }
        Result::Ok(states)
    };
    let states = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(states)) => states,
        Ok(Err(error)) => {
            tracing::warn!("{error}; what is published is unknown");
            return Ok(found);
        }
        Err(_) => {
            tracing::warn!(
                "the serving store did not answer in {} s; what is published is unknown",
                PATIENCE.as_secs()
            );
            return Ok(found);
        }
    };
    for mart in &run.project.marts {
        let gold = run.table(&mart.gold())?;
        let state = states.get(gold.name()).and_then(Option::as_ref);
        let version = state.and_then(|state| state.published.as_ref()).map(|known| known.gold.version);
        let behind = version.map(|version| gold.version() - version).filter(|behind| *behind >= 0);
        let state = match serving::standing(gold, mart, state).await? {
            Standing::Current => "current",
            Standing::Behind => "behind",
            Standing::Unfinished => "unfinished",
            Standing::Never => "never",
            Standing::Foreign => "foreign",
            Standing::Obstructed => "obstructed",
        };
        found.insert(gold.name().to_owned(), Published { state, version, behind });
    }
    Ok(found)
}
