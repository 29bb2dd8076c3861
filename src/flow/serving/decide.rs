//! What a publication has to write, by what the store says of a mart and by the mart's log.

use super::{EMPTIED, Scope};
use crate::error::{Error, Result};
use crate::lake::table::Table;
use crate::project::mart::Mart;
use crate::store::ServingStore;
use crate::store::state::{GoldVersion, State};

/// What has to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    Nothing,
    /// A newer run is ahead of us.
    Superseded(i64),
    /// What changed along these versions.
    Changes(Vec<GoldVersion>),
    /// Everything; says why.
    Whole(&'static str),
}

/// The mart's version in the lake; `None` before its first.
pub(super) async fn gold_version(table: &Table) -> Result<Option<GoldVersion>> {
    let Some(snapshot) = table.snapshot() else {
        return Ok(None);
    };
    Ok(Some(GoldVersion {
        table: snapshot.metadata.id.clone(),
        version: snapshot.version,
        committed: table.committed_at(snapshot.version).await?,
    }))
}

/// The versions of this lake's table that may be in the store, in order; the last is gold's own.
pub(super) fn known_versions(gold: &GoldVersion, state: Option<&State>) -> Vec<GoldVersion> {
    let published = state.and_then(|state| state.published.as_ref()).map(|published| &published.gold);
    let claims = state.into_iter().flat_map(|state| &state.claims).map(|claim| &claim.gold);
    let of_ours = published.into_iter().chain(claims).filter(|known| known.table == gold.table);
    of_ours.chain([gold]).cloned().collect()
}

pub(super) async fn decide(
    table: &Table,
    store: &dyn ServingStore,
    mart: &Mart,
    gold: &GoldVersion,
    state: Option<&State>,
    scope: &Scope,
) -> Result<Work> {
    let Some(state) = state else {
        return Ok(Work::Whole(if scope.is_full { "asked for" } else { "never published" }));
    };
    let is_created = scope.created.contains(&mart.name);
    let mut foreign = Vec::new();
    let known = state.published.iter().map(|published| &published.gold);
    for known in known.chain(state.claims.iter().map(|claim| &claim.gold)) {
        match is_history(table, gold, known).await? {
            Relation::Earlier => {}
            // whatever was asked for, and whatever else is there: who is older does not write over who is newer
            Relation::Ahead => return Ok(Work::Superseded(known.version)),
            Relation::Foreign => foreign.push(known),
        }
    }
    if scope.is_full {
        return Ok(Work::Whole("asked for"));
    }
    if is_created {
        return Ok(Work::Whole("the table was gone"));
    }
    if foreign.iter().any(|known| known.committed >= gold.committed) {
        return Err(Error::conflict(
            "the store holds what another lake has published later, or this one before it was restored; \
             `medallion publish --full` publishes what this lake has",
        ));
    }
    if !foreign.is_empty() {
        return Ok(Work::Whole("the lake is another one"));
    }
    let Some(published) = &state.published else {
        return Ok(Work::Whole("a first publication did not finish"));
    };
    if scope.has_dropped_since(mart, published.at) {
        return Ok(Work::Whole("a column was dropped and has come back"));
    }
    let fingerprint = mart.fingerprint();
    if published.fingerprint != fingerprint
        || state.claims.iter().any(|claim| claim.fingerprint != fingerprint)
    {
        return Ok(Work::Whole("the table or the statement has changed"));
    }
    if state.claims.iter().any(|claim| claim.is_whole) {
        return Ok(Work::Whole("a publication of everything did not finish"));
    }
    if scope.altered.contains(&mart.name) {
        return Ok(Work::Whole("the table was altered"));
    }
    let age = chrono::Utc::now().timestamp_millis() - published.refreshed;
    if mart.table.ttl.is_some_and(|ttl| age > i64::from(ttl) * 1000 / 2) {
        return Ok(Work::Whole("rows would expire"));
    }
    if published.rows > 0 && !store.has_rows(mart).await? {
        return Ok(Work::Whole(EMPTIED));
    }
    if state.holds(gold, &fingerprint) {
        return Ok(Work::Nothing);
    }
    Ok(Work::Changes(known_versions(gold, Some(state))))
}

/// How what the store holds of a mart stands to gold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is gold's newest version.
    Current,
    /// It is an earlier one, or was written by another form of the mart.
    Behind,
    /// A publication was begun and is not finished.
    Unfinished,
    Never,
    /// Another lake's, or a later state of this one.
    Foreign,
    /// Gold's newest version was published, and something stands against it.
    Obstructed,
}

/// Judges what the store says of a mart, without asking it anything more.
///
/// # Errors
/// The lake's.
pub async fn standing(table: &Table, mart: &Mart, state: Option<&State>) -> Result<Standing> {
    let (Some(state), Some(gold)) = (state, gold_version(table).await?) else {
        return Ok(Standing::Never);
    };
    let known = state.published.iter().map(|published| &published.gold);
    for known in known.chain(state.claims.iter().map(|claim| &claim.gold)) {
        if matches!(is_history(table, &gold, known).await?, Relation::Foreign) {
            return Ok(Standing::Foreign);
        }
    }
    Ok(match (&state.published, state.claims.is_empty()) {
        _ if state.holds(&gold, &mart.fingerprint()) && state.obstacle().is_some() => Standing::Obstructed,
        _ if state.holds(&gold, &mart.fingerprint()) => Standing::Current,
        (Some(_), true) => Standing::Behind,
        _ => Standing::Unfinished,
    })
}

/// How a version that the store knows stands to ours.
enum Relation {
    /// It is ours, or one before it.
    Earlier,
    /// The lake has moved on since we looked at it.
    Ahead,
    /// It is not in the lake's log.
    Foreign,
}

async fn is_history(table: &Table, gold: &GoldVersion, known: &GoldVersion) -> Result<Relation> {
    if known == gold {
        return Ok(Relation::Earlier);
    }
    if known.table != gold.table {
        return Ok(Relation::Foreign);
    }
    // an entry that was cleaned up can't be held against it
    let committed = table.committed_at(known.version).await.unwrap_or(known.committed);
    let is_there = known.version < gold.version || table.committed_at(known.version).await.is_ok();
    Ok(match (is_there && committed == known.committed, known.version <= gold.version) {
        (false, _) => Relation::Foreign,
        (true, true) => Relation::Earlier,
        (true, false) => Relation::Ahead,
    })
}
