//! Cassandra, and what speaks its protocol.
//!
//! A partition is replaced by one batch over one partition, which Cassandra applies as a whole: `DELETE … USING TIMESTAMP
//! at − 1`, then the rows `USING TIMESTAMP at`. A partition of more than `ATOMIC_BYTES` takes several requests: first the
//! rows, then the delete, so that a reader sees old and new rows together for a moment, but never misses one. Why so:
//! `docs/decisions/0003-publishing.md`.

pub mod astra;
mod cause;
pub mod connect;
mod handshake;
mod options;
mod question;
mod raw;
pub mod request;
mod schema;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, Statement};

pub use self::connect::{Target, connect};
use self::raw::{Bound, RawRow};
use self::request::{Throttle, is_invalid, is_there_already};
pub use self::schema::{Plan, STATE_TABLE};
use super::rows::{Partition, Partitions, TokenRange, key_of, push_cell};
use super::state::State;
use super::{Census, ServingStore};
use crate::error::{During, Error, ErrorKind, Result};
use crate::project::Project;
use crate::project::cql::in_keyspace;
use crate::project::manifest::ServingManifest;
use crate::project::mart::Mart;

/// What one batch may hold: up to here a partition is replaced at once. Cassandra refuses 16 MiB.
const ATOMIC_BYTES: usize = 256 * 1024;

/// What one of several batches for a larger partition holds.
const CHUNK_BYTES: usize = 128 * 1024;

/// Statements of a batch that Cassandra can count.
const MAX_STATEMENTS: usize = 60_000;

/// Rows of one page of an answer.
const PAGE_ROWS: i32 = 2000;

/// What is published of a mart.
const SELECT_STATE: &str = "select at, state from medallion_published where mart = ?";

/// A cluster that marts are published to.
pub struct Cassandra {
    session: Session,
    target: Target,
    throttle: Throttle,
    prepared: Mutex<HashMap<String, PreparedStatement>>,
    writes: Mutex<HashMap<String, Writes>>,
}

/// The statements that write a mart.
#[derive(Clone)]
struct Writes {
    insert: BatchStatement,
    delete: BatchStatement,
}

impl Cassandra {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// As [`connect()`].
    pub async fn open(target: Target, serving: &ServingManifest) -> Result<Self> {
        let session = connect(&target).await?;
        let throttle = Throttle::new(serving.max_requests, Duration::from_secs(serving.retry_seconds));
        Ok(Self { session, target, throttle, prepared: Mutex::default(), writes: Mutex::default() })
    }

    pub fn keyspace(&self) -> &str {
        &self.target.keyspace
    }

    /// Makes the keyspace ready for the marts: compares, creates what is missing, adds columns with `migrate`. Says which
    /// tables were created or altered.
    ///
    /// # Errors
    /// `Project`, column by column, where a table is not what the project declares; then nothing was changed.
    pub async fn prepare(&self, serving: &ServingManifest, marts: &[Mart], migrate: bool) -> Result<Plan> {
        let (has_keyspace, live) = tokio::try_join!(schema::has_keyspace(self), schema::live_tables(self))?;
        if !has_keyspace {
            self.may_create_keyspace()?;
            schema::create_keyspace(self, serving).await?;
        }
        self.use_keyspace().await?;
        schema::prepare(self, &live, marts, migrate).await
    }

    /// Compares the project with the live cluster without changing it: tables, publishing statements, questions.
    ///
    /// # Errors
    /// `Project` where something does not fit.
    pub async fn check(&self, project: &Project) -> Result<Plan> {
        if !schema::has_keyspace(self).await? {
            self.may_create_keyspace()?;
            let keyspace = project.serving.as_ref().map(schema::replication);
            let missing = project.marts.iter().map(|mart| mart.name.clone()).collect();
            return Ok(Plan { keyspace, missing, ..Plan::default() });
        }
        self.use_keyspace().await?;
        let mut plan = schema::compare(self, &project.marts).await?;
        // they stop no run, but who asks wants to know
        plan.alterations.append(&mut plan.options);
        schema::refuse(self, &plan, false)?;
        let is_there = |table: &String| !plan.missing.contains(table);
        let there: Vec<&Mart> = project.marts.iter().filter(|mart| is_there(&mart.name)).collect();
        let mut found: Vec<Error> = self.ready(&there).await.err().into_iter().collect();
        let is_away = |found: &[Error]| found.iter().any(|error| error.kind() == ErrorKind::Unavailable);
        let published = |table: &String| project.marts.iter().any(|mart| mart.name == *table);
        for question in &project.questions {
            if published(&question.table) && is_there(&question.table) && !is_away(&found) {
                let prepared = self.prepared(&question.cql).await;
                found.extend(prepared.during(|| format!("`{}`", question.file.display())).err());
            }
        }
        Error::together(found).map_or(Ok(plan), Err)
    }

    /// Whether anybody has ever published here; from then on statements are of the keyspace.
    ///
    /// # Errors
    /// The cluster's.
    pub async fn has_state(&self) -> Result<bool> {
        if !schema::has_keyspace(self).await? {
            return Ok(false);
        }
        self.use_keyspace().await?;
        Ok(schema::live_tables(self).await?.contains_key(STATE_TABLE))
    }

    /// Makes sure that the marts' tables are there and as declared, for who is going to read them.
    ///
    /// # Errors
    /// `Project`, column by column, where they are not.
    pub async fn expect_tables(&self, marts: &[Mart]) -> Result<()> {
        let plan = schema::compare(self, marts).await?;
        if !plan.missing.is_empty() {
            return Err(Error::project(format!(
                "the keyspace `{}` lacks {}; `medallion publish` creates and fills what is missing",
                self.keyspace(),
                plan.missing.join(", ")
            )));
        }
        schema::refuse(self, &plan, false)
    }

    fn is_astra(&self) -> bool {
        self.target.bundle.is_some()
    }

    fn may_create_keyspace(&self) -> Result<()> {
        match self.is_astra() {
            true => Err(astra::no_keyspace(self.keyspace(), &self.target.place())),
            false => Ok(()),
        }
    }

    /// Uses the keyspace for every statement that names none.
    ///
    /// # Errors
    /// `Project` where there is no such keyspace.
    pub async fn use_keyspace(&self) -> Result<()> {
        self.session.use_keyspace(self.keyspace(), false).await.map_err(|error| match is_invalid(&error) {
            true if self.is_astra() => astra::no_keyspace(self.keyspace(), &self.target.place()),
            true => Error::project(format!(
                "there is no keyspace `{}`; `medallion publish` creates it",
                self.keyspace()
            )),
            false => Error::unavailable(format!("can't use the keyspace `{}`", self.keyspace()))
                .because(cause::of_using(&error)),
        })
    }

    /// Changes the schema, and waits until the nodes agree.
    async fn define(&self, statement: &str) -> Result<()> {
        let mut statement = Statement::new(statement.trim().trim_end_matches(';'));
        statement.set_is_idempotent(true);
        statement.set_request_timeout(Some(Duration::from_secs(60)));
        let attempt = || async {
            match self.session.query_unpaged(statement.clone(), ()).await {
                // an earlier attempt, or another publisher, has done it
                Err(error) if is_there_already(&error) => Ok(()),
                other => other.map(|_| ()),
            }
        };
        self.throttle.send("changing the schema", attempt).await
    }

    /// Learns where the rows of new tables live. Without it requests take a detour, so a failure is no error.
    async fn look_again(&self) {
        if let Err(error) = self.session.refresh_metadata().await {
            tracing::debug!(%error, "the new tables' places are not known yet");
        }
    }

    /// A statement, prepared once. After a restart of a node the driver prepares it again by itself.
    async fn prepared(&self, text: &str) -> Result<PreparedStatement> {
        let text = in_keyspace(text.trim().trim_end_matches(';').trim_end(), self.keyspace());
        let lock = || self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&text) {
            return Ok(known.clone());
        }
        let attempt =
            || async { self.session.prepare(text.as_str()).await.map_err(ExecutionError::PrepareError) };
        let mut prepared = self.throttle.send("preparing a statement", attempt).await?;
        prepared.set_is_idempotent(true);
        prepared.set_page_size(PAGE_ROWS);
        lock().insert(text, prepared.clone());
        Ok(prepared)
    }

    /// The statements that write the mart, prepared once.
    async fn writes(&self, mart: &Mart) -> Result<Writes> {
        let lock = || self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&mart.name) {
            return Ok(known.clone());
        }
        let insert = self.prepared(&mart.insert.text).await?;
        let num_values = insert.get_variable_col_specs().len();
        if num_values != mart.insert.values.len() + 1 {
            return Err(Error::project(format!(
                "the statement binds {num_values} values, not one per column and the time"
            )));
        }
        let delete = self.prepared(&schema::delete_partition(mart)).await?;
        let writes = Writes { insert: insert.into(), delete: delete.into() };
        lock().insert(mart.name.clone(), writes.clone());
        Ok(writes)
    }

    /// Every row of a statement's answer, page by page.
    async fn rows(&self, what: &str, prepared: &PreparedStatement, values: Bound<'_>) -> Result<Vec<RawRow>> {
        let mut rows = Vec::new();
        self.each_row(what, prepared, values, |row| {
            rows.push(row);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    async fn each_row(
        &self,
        what: &str,
        prepared: &PreparedStatement,
        values: Bound<'_>,
        mut each: impl FnMut(RawRow) -> Result<()>,
    ) -> Result<()> {
        use scylla::response::{PagingState, PagingStateResponse};
        let mut paging = PagingState::start();
        loop {
            let attempt = || self.session.execute_single_page(prepared, values, paging.clone());
            let (answer, next) = self.throttle.send(what, attempt).await?;
            let damaged = |error: &dyn std::fmt::Display| {
                Error::bug(format!("{what}: cassandra's answer can't be read: {error}"))
            };
            let answer = answer.into_rows_result().map_err(|error| damaged(&error))?;
            for row in answer.rows::<RawRow>().map_err(|error| damaged(&error))? {
                each(row.map_err(|error| damaged(&error))?)?;
            }
            match next {
                PagingStateResponse::HasMorePages { state } => paging = state,
                PagingStateResponse::NoMorePages => return Ok(()),
            }
        }
    }

    async fn state_at(&self, mart: &Mart, consistency: Consistency) -> Result<Option<State>> {
        let mut prepared = self.prepared(SELECT_STATE).await?;
        prepared.set_consistency(consistency);
        let mut values = Vec::new();
        push_cell(&mut values, Some(mart.name.as_bytes()));
        let rows = self.rows("reading what is published", &prepared, Bound::Values(&values)).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let damaged = |why: String| {
            Error::data(format!(
                "the state of `{mart}` in `{}.{STATE_TABLE}` is damaged; `medallion publish --full {mart}` replaces it",
                self.keyspace(),
                mart = mart.name
            ))
            .because(why)
        };
        let state: State = serde_json::from_slice(row.bytes(1).unwrap_or_default())
            .map_err(|error| damaged(error.to_string()))?;
        match row.bytes(0) == Some(&state.at.to_be_bytes()) {
            true => Ok(Some(state)),
            false => Err(damaged("its columns `at` and `state` tell different times".to_owned())),
        }
    }

    async fn compare_and_set(&self, mart: &Mart, expected: Option<i64>, next: &State) -> Result<bool> {
        let version = next.published.as_ref().map(|published| published.gold.version.to_be_bytes());
        let committed = next.published.as_ref().map(|published| published.gold.committed.to_be_bytes());
        let text = serde_json::to_vec(next)?;
        let at = next.at.to_be_bytes();
        let mut values = Vec::new();
        let new: [Option<&[u8]>; 4] =
            [Some(&at), version.as_ref().map(|v| &v[..]), committed.as_ref().map(|c| &c[..]), Some(&text)];
        let query = match expected {
            None => {
                push_cell(&mut values, Some(mart.name.as_bytes()));
                new.iter().for_each(|value| push_cell(&mut values, *value));
                format!(
                    "insert into {STATE_TABLE} (mart, at, version, committed_at, state) values (?, ?, ?, ?, ?) if not exists"
                )
            }
            Some(expected) => {
                new.iter().for_each(|value| push_cell(&mut values, *value));
                push_cell(&mut values, Some(mart.name.as_bytes()));
                push_cell(&mut values, Some(&expected.to_be_bytes()));
                format!(
                    "update {STATE_TABLE} set at = ?, version = ?, committed_at = ?, state = ? where mart = ? if at = ?"
                )
            }
        };
        let prepared = self.prepared(&query).await?;
        let rows = self.rows("saying what is published", &prepared, Bound::Values(&values)).await?;
        if rows.first().and_then(|row| row.bytes(0)) == Some(&[1]) {
            return Ok(true);
        }
        // the answer to an attempt before this one may have been lost; a serial read completes what is half done
        Ok(self.state_at(mart, Consistency::LocalSerial).await?.as_ref() == Some(next))
    }

    async fn batch(&self, what: &str, statements: Vec<BatchStatement>, values: &[Bound<'_>]) -> Result<()> {
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        self.throttle.send(what, || async { self.session.batch(&batch, values).await.map(|_| ()) }).await
    }
}

#[async_trait]
impl ServingStore for Cassandra {
    fn name(&self) -> String {
        format!("{}, keyspace `{}`", self.target.place(), self.keyspace())
    }

    async fn ready(&self, marts: &[&Mart]) -> Result<()> {
        let preparing = marts.iter().map(|mart| async move {
            self.writes(mart).await.during(|| format!("`cql/publish/{}.cql`", mart.name))
        });
        let prepared = futures::future::join_all(preparing).await;
        Error::together(prepared.into_iter().filter_map(Result::err).collect()).map_or(Ok(()), Err)
    }

    async fn state(&self, mart: &Mart) -> Result<Option<State>> {
        self.state_at(mart, Consistency::LocalQuorum).await
    }

    async fn advance(&self, mart: &Mart, expected: Option<i64>, next: &State) -> Result<bool> {
        self.compare_and_set(mart, expected, next).await
    }

    async fn forget(&self, mart: &Mart) -> Result<()> {
        let prepared = self.prepared("delete from medallion_published where mart = ? if exists").await?;
        let mut values = Vec::new();
        push_cell(&mut values, Some(mart.name.as_bytes()));
        self.rows("removing what is published", &prepared, Bound::Values(&values)).await.map(|_| ())
    }

    async fn has_rows(&self, mart: &Mart) -> Result<bool> {
        let prepared = self.prepared(&schema::select_any(mart)).await?;
        Ok(!self.rows(&mart.name, &prepared, Bound::Values(&[])).await?.is_empty())
    }

    async fn replace(&self, mart: &Mart, partition: &Partition, at: i64, is_new: bool) -> Result<()> {
        let Writes { insert, delete } = self.writes(mart).await?;
        let inserted = |row| Bound::Insert { row, at };
        let deleted = Bound::Delete { key: &partition.key, at: at - 1 };
        let is_atomic = partition.num_bytes() <= ATOMIC_BYTES && partition.num_rows() < MAX_STATEMENTS;
        if is_atomic {
            let mut values: Vec<Bound<'_>> = partition.rows().map(inserted).collect();
            let mut statements = vec![insert; values.len()];
            if !is_new {
                values.push(deleted);
                statements.push(delete);
            }
            return self.batch(&mart.name, statements, &values).await;
        }
        let mut chunk = Vec::new();
        let mut num_bytes = 0;
        for (number, row) in partition.rows().enumerate() {
            chunk.push(inserted(row));
            num_bytes += row.len();
            let is_last = number + 1 == partition.num_rows();
            if num_bytes >= CHUNK_BYTES || chunk.len() >= MAX_STATEMENTS || is_last {
                self.batch(&mart.name, vec![insert.clone(); chunk.len()], &chunk).await?;
                chunk.clear();
                num_bytes = 0;
            }
        }
        match is_new {
            true => Ok(()),
            false => self.batch(&mart.name, vec![delete], &[deleted]).await,
        }
    }

    async fn read(&self, mart: &Mart, range: TokenRange) -> Result<Partitions> {
        let prepared = self.prepared(&schema::select_range(mart)).await?;
        let mut found = Partitions::default();
        let (mut row_bytes, mut key) = (Vec::new(), Vec::new());
        let each = |row: RawRow| {
            row_bytes.clear();
            row.0.iter().for_each(|value| push_cell(&mut row_bytes, value.as_deref()));
            key_of(mart, &row_bytes, &mut key);
            found.push(&key, &row_bytes);
            Ok(())
        };
        self.each_row(&mart.name, &prepared, Bound::Values(&bounds(range)), each).await?;
        Ok(found)
    }

    async fn census(&self, mart: &Mart, range: TokenRange) -> Result<Census> {
        let prepared = self.prepared(&schema::select_census(mart)).await?;
        let mut found = Census::default();
        let each = |row: RawRow| {
            let mut numbers = row.0.iter().map(|value| {
                value.as_ref().and_then(|bytes| bytes.as_slice().try_into().ok()).map(i64::from_be_bytes)
            });
            let rows = numbers.next().flatten().unwrap_or(0);
            found += Census { rows: rows.unsigned_abs(), latest: numbers.flatten().max() };
            Ok(())
        };
        self.each_row(&mart.name, &prepared, Bound::Values(&bounds(range)), each).await?;
        Ok(found)
    }

    async fn keys(&self, mart: &Mart, range: TokenRange) -> Result<Vec<Box<[u8]>>> {
        let prepared = self.prepared(&schema::select_keys(mart)).await?;
        let mut keys = Vec::new();
        let each = |row: RawRow| {
            let mut key = Vec::new();
            row.0.iter().for_each(|value| push_cell(&mut key, value.as_deref()));
            keys.push(key.into_boxed_slice());
            Ok(())
        };
        self.each_row(&mart.name, &prepared, Bound::Values(&bounds(range)), each).await?;
        Ok(keys)
    }
}

fn bounds(range: TokenRange) -> Vec<u8> {
    let mut values = Vec::new();
    push_cell(&mut values, Some(&range.after.to_be_bytes()));
    push_cell(&mut values, Some(&range.to.to_be_bytes()));
    values
}
