//! Gold → serving: what a store holds is brought to what gold says.
//!
//! Which partitions of a serving table changed follows from the mart's log: the files that came and went since the version
//! that the store says it holds. Of their rows the ones that differ name the partitions to be replaced, each whole and as of
//! one time. A publication is claimed first and reported last ([`crate::store::state`]), so one that was killed is known by
//! its claim, and what it may have written is written again by the next.

mod compare;
mod decide;
mod rows;
mod tables;

use std::collections::{BTreeMap, HashSet};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use serde::Serialize;

pub use self::compare::{Difference, Kind, Reconciled, reconcile};
pub use self::decide::{Standing, standing};
use self::decide::{Work, decide, gold_version, known_versions};
use self::rows::{History, RANGE_ROWS, load, ranges};
pub use self::tables::GoldTables;
use crate::error::{During, Error, ErrorKind, Result};
use crate::lake::table::Table;
use crate::project::mart::Mart;
use crate::store::encode::IsWanted;
use crate::store::rows::{Partition, TokenRange};
use crate::store::state::{Claim, Published, State};
use crate::store::{Census, ServingStore};

/// Marts that are published at the same time: one is read while the other is written.
const CONCURRENT_MARTS: usize = 2;

/// Partitions of a mart that are under way; how many requests really are is for the store to say.
const CONCURRENT_PARTITIONS: usize = 128;

/// Rows that a store counts at once.
const CENSUS_ROWS: u64 = 50_000;

/// Why everything is written where no row is left.
const EMPTIED: &str = "the table was emptied";

/// Another publisher can be faster this often.
const MAX_ATTEMPTS: usize = 20;

/// What was written of a mart.
#[derive(Debug, Clone, Serialize)]
pub struct Publication {
    pub mart: String,
    pub rows: u64,
    /// Partitions that were replaced.
    pub partitions: u64,
    /// Those of them that have no rows any more.
    pub removed: u64,
    /// Why, for people.
    pub what: String,
    pub seconds: f64,
    /// Why the store holds something else all the same, and what to do. It is looked for when everything was asked for or was
    /// gone, and from then on until nothing is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

/// How much is published.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Everything is written, and what gold does not have is removed, whatever the store says that it holds.
    pub is_full: bool,
    /// Tables that were created just now: nobody has written to them.
    pub created: Vec<String>,
    /// Tables that were altered just now: rows that are there lack something.
    pub altered: Vec<String>,
    /// When one of a mart's columns was last dropped in the store, milliseconds since the epoch.
    pub dropped: BTreeMap<String, i64>,
}

impl Scope {
    /// Whether the store has let go of a column that was written before `at`, in microseconds.
    fn has_dropped_since(&self, mart: &Mart, at: i64) -> bool {
        self.dropped.get(&mart.name).is_some_and(|dropped| dropped.saturating_mul(1000) >= at)
    }
}

/// Publishes the marts that gold has. Those that the store already holds are left alone.
///
/// # Errors
/// The stores'; `Conflict` where the store holds what another lake, or a later state of this one, has published.
#[tracing::instrument(target = "hop", name = "publish", skip_all)]
pub async fn publish(
    tables: &GoldTables,
    store: &dyn ServingStore,
    marts: &[Mart],
    scope: &Scope,
) -> Result<Vec<Publication>> {
    tables.progress.stage("gold → serving");
    crate::failpoint::hit("ready to publish");
    // futures in a box: a task can be made of them
    let looks: Vec<_> = marts.iter().map(|mart| look_at(tables, store, mart, scope).boxed()).collect();
    let looks: Vec<Result<Outlook>> =
        futures::stream::iter(looks).buffered(CONCURRENT_PARTITIONS).collect().await;
    let outlooks = all_of(looks)?;
    let waiting: Vec<&Mart> =
        marts.iter().zip(&outlooks).filter(|(_, outlook)| outlook.waits).map(|(mart, _)| mart).collect();
    // whatever the store would refuse is known before anything is written
    store.ready(&waiting).await?;
    let publish = |(mart, outlook): (_, Outlook)| {
        async move {
            match outlook {
                Outlook { waits: true, .. } => publish_mart(tables, store, mart, scope).await,
                Outlook { known: Some(state), .. } => look_again(tables, store, mart, state)
                    .await
                    .during(|| format!("counting `{}`", mart.name)),
                Outlook { .. } => Ok(None),
            }
        }
        .boxed()
    };
    let publications: Vec<_> = marts.iter().zip(outlooks).map(publish).collect();
    let mut publications = futures::stream::iter(publications).buffered(CONCURRENT_MARTS);
    let (mut published, mut failures) = (Vec::new(), Vec::new());
    while let Some(publication) = publications.next().await {
        match publication {
            Ok(publication) => published.extend(publication),
            Err(error) => {
                let is_away = error.kind() == ErrorKind::Unavailable;
                failures.push(error);
                // what is wrong with one mart is no reason to leave the others behind
                if is_away {
                    break;
                }
            }
        }
    }
    match Error::together(failures) {
        None => Ok(published),
        Some(error) => {
            for publication in &published {
                tracing::info!("{} rows of `{}` were published", publication.rows, publication.mart);
            }
            Err(error)
        }
    }
}

/// All, or everything that stands against it.
fn all_of<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(one) => found.push(one),
            Err(error) => failures.push(error),
        }
    }
    Error::together(failures).map_or(Ok(found), Err)
}

/// What is to be done about a mart.
struct Outlook {
    /// The store does not hold what gold has.
    waits: bool,
    /// It does, and yet held something else when it was looked at last: what it says.
    known: Option<State>,
}

async fn look_at(
    tables: &GoldTables,
    store: &dyn ServingStore,
    mart: &Mart,
    scope: &Scope,
) -> Result<Outlook> {
    let table = tables.of_mart(mart)?;
    if scope.is_full {
        return Ok(Outlook { waits: table.snapshot().is_some(), known: None });
    }
    let look = async {
        let Some(gold) = gold_version(table).await? else {
            return Result::Ok(Outlook { waits: false, known: None });
        };
        let state = store.state(mart).await?;
        let waits = decide(table, store, mart, &gold, state.as_ref(), scope).await? != Work::Nothing;
        let is_obstructed =
            |state: &State| state.holds(&gold, &mart.fingerprint()) && state.obstacle().is_some();
        Ok(Outlook { waits, known: state.filter(is_obstructed) })
    };
    look.await.during(|| format!("publishing `{}`", mart.name))
}

/// Whether what is known to stand against a mart, of which there is nothing to publish, still does.
async fn look_again(
    tables: &GoldTables,
    store: &dyn ServingStore,
    mart: &Mart,
    state: State,
) -> Result<Option<Publication>> {
    let begun = std::time::Instant::now();
    let obstacle = remember_obstacle(tables, store, mart, &state).await?;
    Ok(obstacle.map(|obstacle| Publication {
        mart: mart.name.clone(),
        rows: 0,
        partitions: 0,
        removed: 0,
        what: "nothing: what stands against it still does".to_owned(),
        seconds: begun.elapsed().as_secs_f64(),
        obstacle: Some(obstacle),
    }))
}

#[tracing::instrument(
    target = "hop",
    name = "publish mart",
    skip_all,
    fields(otel.name = %format!("publish {}", mart.name), mart = mart.name)
)]
async fn publish_mart(
    tables: &GoldTables,
    store: &dyn ServingStore,
    mart: &Mart,
    scope: &Scope,
) -> Result<Option<Publication>> {
    publish_changes(tables, store, mart, scope).await.during(|| format!("publishing `{}`", mart.name))
}

async fn publish_changes(
    tables: &GoldTables,
    store: &dyn ServingStore,
    mart: &Mart,
    scope: &Scope,
) -> Result<Option<Publication>> {
    let begun = std::time::Instant::now();
    let table = tables.of_mart(mart)?;
    let Some(gold) = gold_version(table).await? else {
        return Ok(None);
    };
    for _ in 0..MAX_ATTEMPTS {
        let state = match store.state(mart).await {
            Err(error) if scope.is_full && error.kind() == ErrorKind::Data => {
                tracing::warn!("{error}");
                store.forget(mart).await?;
                None
            }
            state => state?,
        };
        let work = decide(table, store, mart, &gold, state.as_ref(), scope).await?;
        let (chain, mut why) = match &work {
            Work::Nothing => return Ok(None),
            Work::Superseded(version) => {
                tracing::info!("a newer run has published version {version} of `{}`", mart.name);
                return Ok(None);
            }
            Work::Changes(chain) => (chain.clone(), "what changed".to_owned()),
            Work::Whole(why) => (known_versions(&gold, state.as_ref()), format!("everything: {why}")),
        };
        let mut is_whole = matches!(work, Work::Whole(_));
        let history = match History::open(tables, mart, &chain).await? {
            Some(history) => history,
            None if is_whole => History::of(tables, mart)?,
            None => {
                is_whole = true;
                why = "everything: the log no longer tells what changed".to_owned();
                History::of(tables, mart)?
            }
        };
        let is_new = state.is_none() && scope.created.contains(&mart.name);
        let mut at = State::next_time(state.as_ref(), &gold);
        let is_altered = scope.altered.contains(&mart.name)
            || scope.has_dropped_since(mart, state.as_ref().map_or(i64::MIN, |state| state.at));
        let is_emptied = work == Work::Whole(EMPTIED);
        if scope.is_full || is_altered || is_emptied || (state.is_none() && !is_new) {
            // nobody says with which times the rows that are there were written, or those that are gone deleted: later
            // than now is none. Of a column that was dropped and comes back, Cassandra ignores what is older than the drop
            at = at.max(chrono::Utc::now().timestamp_micros());
        }
        let claim = Claim {
            at,
            gold: gold.clone(),
            owner: tables.unique_name(),
            fingerprint: mart.fingerprint(),
            is_whole,
        };
        let claimed = State::with_claim(state.as_ref(), claim);
        if !store.advance(mart, state.as_ref().map(|state| state.at), &claimed).await? {
            continue;
        }
        crate::failpoint::hit(&format!("publish {}", mart.name));
        let refreshed = chrono::Utc::now().timestamp_millis();
        let mut written = Publication {
            mart: mart.name.clone(),
            rows: 0,
            partitions: 0,
            removed: 0,
            what: why,
            seconds: 0.0,
            obstacle: None,
        };
        for range in ranges(table, RANGE_ROWS) {
            let partitions =
                changed_partitions(tables, store, mart, &history, range, is_whole, is_new).await?;
            replace_all(tables, store, mart, &partitions, at, is_new, &mut written).await?;
        }
        crate::failpoint::hit(&format!("written {}", mart.name));
        let before = state.as_ref().and_then(|state| state.published.as_ref());
        let published = Published {
            gold: gold.clone(),
            at,
            fingerprint: mart.fingerprint(),
            refreshed: before.filter(|_| !is_whole).map_or(refreshed, |before| before.refreshed),
            rows: table.num_records(),
            obstacle: state.as_ref().and_then(State::obstacle).map(str::to_owned),
        };
        let finished = State { at, published: Some(published), claims: Vec::new() };
        let is_newest = store.advance(mart, Some(at), &finished).await?;
        if !is_newest {
            tracing::info!("a newer run is publishing `{}`", mart.name);
        }
        crate::failpoint::hit(&format!("published {}", mart.name));
        if is_newest && (scope.is_full || is_emptied || finished.obstacle().is_some()) {
            written.obstacle = remember_obstacle(tables, store, mart, &finished).await?;
        }
        written.seconds = begun.elapsed().as_secs_f64();
        // a compaction is a new version with the same rows
        return Ok((written.partitions > 0 || written.obstacle.is_some()).then_some(written));
    }
    Err(Error::conflict("other publishers were faster again and again; publish again later"))
}

/// Looks whether anything stands against what was published, and keeps it in the mart's state, which is `state`, for those
/// who come later.
async fn remember_obstacle(
    tables: &GoldTables,
    store: &dyn ServingStore,
    mart: &Mart,
    state: &State,
) -> Result<Option<String>> {
    let found = obstacle(tables, store, mart, state.at).await?;
    if state.obstacle() != found.as_deref() {
        let published = state.published.clone();
        let published = published.map(|published| Published { obstacle: found.clone(), ..published });
        // who has claimed since will look, too
        store.advance(mart, Some(state.at), &State { published, ..state.clone() }).await?;
    }
    Ok(found)
}

/// Why the store holds something else than what was written as of `at` or before, if it does.
async fn obstacle(
    tables: &GoldTables,
    store: &dyn ServingStore,
    mart: &Mart,
    at: i64,
) -> Result<Option<String>> {
    let table = tables.of_mart(mart)?;
    let held = census(store, mart, table).await?;
    let obstacle = match held.latest {
        Some(latest) if latest > at => later_writes(mart, Some(latest)),
        _ if held.rows == table.num_records() => return Ok(None),
        _ => format!(
            "`{name}` has {} rows and gold has {}; `medallion reconcile {name}` names those that differ, and where there are \
             none, rows of gold share a key",
            held.rows,
            table.num_records(),
            name = mart.name
        ),
    };
    // unless it is what another publisher has written since
    let state = store.state(mart).await?;
    Ok(state.is_some_and(|state| state.at == at).then_some(obstacle))
}

async fn census(store: &dyn ServingStore, mart: &Mart, table: &Table) -> Result<Census> {
    let mut held = Census::default();
    for range in ranges(table, CENSUS_ROWS) {
        held += store.census(mart, range).await?;
    }
    Ok(held)
}

/// What to do about rows that no write of ours prevails over; `latest` is their time, where it is known.
fn later_writes(mart: &Mart, latest: Option<i64>) -> String {
    let time = latest.and_then(chrono::DateTime::from_timestamp_micros);
    let time = time.map(|time| format!(" ({})", time.format("%FT%TZ"))).unwrap_or_default();
    format!(
        "`{name}` has rows that somebody wrote or deleted as of a later time than now{time}, and the later time wins; `truncate {name}` in cassandra, then `medallion publish --full {name}`",
        name = mart.name
    )
}

/// The partitions of a range that must be replaced, with all their rows; those that gold no longer has are empty.
async fn changed_partitions(
    tables: &GoldTables,
    store: &dyn ServingStore,
    mart: &Mart,
    history: &History,
    range: TokenRange,
    is_whole: bool,
    is_new: bool,
) -> Result<Vec<Partition>> {
    let mut touched: HashSet<Box<[u8]>, ahash::RandomState> = HashSet::default();
    let mut is_whole = is_whole;
    if !is_new {
        // what could not be published before, or whose files were vacuumed since, is no measure of what has changed. Where
        // files can't be read at all, gold's can't be either, which is told then
        if let Err(error) = history.touched(tables, mart, range, &mut touched).await {
            tracing::debug!(%error, "what changed of `{}` can't be told, all of it is written", mart.name);
            is_whole = true;
        }
    }
    if !is_whole && touched.is_empty() {
        return Ok(Vec::new());
    }
    let is_touched = |key: &[u8]| touched.contains(key);
    let wanted: Option<&IsWanted<'_>> = if is_whole { None } else { Some(&is_touched) };
    let mut partitions = load(tables, mart, tables.scan(mart)?, range, wanted).await?;
    if is_whole && !is_new {
        touched.extend(store.keys(mart, range).await?);
    }
    for key in touched {
        partitions.by_key.entry(key).or_insert_with_key(|key| Partition::empty(key));
    }
    Ok(partitions.by_key.into_values().collect())
}

async fn replace_all(
    tables: &GoldTables,
    store: &dyn ServingStore,
    mart: &Mart,
    partitions: &[Partition],
    at: i64,
    is_new: bool,
    written: &mut Publication,
) -> Result<()> {
    let place = format!("replace {}", mart.name);
    let replace = async |partition: &Partition| {
        crate::failpoint::hit(&place);
        store.replace(mart, partition, at, is_new).await?;
        Result::Ok(partition.num_rows() as u64)
    };
    let mut waiting = partitions.iter();
    let mut replacing = FuturesUnordered::new();
    replacing.extend(waiting.by_ref().take(CONCURRENT_PARTITIONS).map(&replace));
    while let Some(rows) = replacing.next().await {
        replacing.extend(waiting.next().map(&replace));
        let rows = rows?;
        tables.progress.inc(rows);
        written.rows += rows;
        written.partitions += 1;
        written.removed += u64::from(rows == 0);
    }
    Ok(())
}
