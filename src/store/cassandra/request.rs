//! How requests are repeated, and how many are on their way at once.
//!
//! The driver never repeats a write that timed out (facts and hazards, H14). Every statement of ours may be repeated: it
//! carries its own time, so a second arrival changes nothing. What is refused because the cluster is in trouble is
//! repeated with growing, scattered pauses, up to a bound; every such refusal halves the number of requests on their way,
//! every success lets it grow again.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError, UseKeyspaceError};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::cause;
use crate::error::{Error, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How many requests may be on their way: grows by one with every round of successes, halves with every refusal.
#[derive(Debug)]
pub struct Throttle {
    permits: Semaphore,
    state: Mutex<State>,
    retry_for: Duration,
}

#[derive(Debug)]
struct State {
    limit: usize,
    max: usize,
    /// Permits that are still out and must not come back.
    owed: usize,
    successes: usize,
    /// Refusals of requests that were sent before the limit last fell say nothing new.
    fell: Option<Instant>,
}

impl Throttle {
    pub fn new(max: usize, retry_for: Duration) -> Self {
        let state = State { limit: max, max, owed: 0, successes: 0, fell: None };
        Self { permits: Semaphore::new(max), state: Mutex::new(state), retry_for }
    }

    /// How many requests may be on their way now.
    pub fn limit(&self) -> usize {
        self.lock().limit
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn succeeded(&self, permit: SemaphorePermit<'_>) {
        let mut state = self.lock();
        state.successes += 1;
        if state.limit < state.max && state.successes >= state.limit {
            state.successes = 0;
            state.limit += 1;
            match state.owed {
                0 => self.permits.add_permits(1),
                _ => state.owed -= 1,
            }
        }
        Self::give_back(&mut state, permit);
    }

    fn refused(&self, permit: SemaphorePermit<'_>, sent: Instant) {
        let mut state = self.lock();
        state.successes = 0;
        if state.fell.is_none_or(|fell| fell < sent) {
            let limit = (state.limit / 2).max(1);
            state.owed += state.limit - limit;
            state.limit = limit;
            state.fell = Some(Instant::now());
        }
        Self::give_back(&mut state, permit);
    }

    fn give_back(state: &mut State, permit: SemaphorePermit<'_>) {
        if state.owed > 0 {
            state.owed -= 1;
            permit.forget();
        }
    }

    /// Sends a request that may be repeated, until it succeeds, is refused for good, or time is up.
    ///
    /// # Errors
    /// `Unavailable` where the cluster did not recover in time; `Project` where it says that the statement is wrong.
    pub async fn send<T, F>(&self, what: &str, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, ExecutionError>>,
    {
        // waiting for one's turn is no trouble with the request
        let mut begun: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let permit = self
                .permits
                .acquire()
                .await
                .map_err(|error| Error::bug("the throttle was closed").because(error))?;
            let sent = Instant::now();
            let error = match attempt().await {
                Ok(result) => {
                    self.succeeded(permit);
                    return Ok(result);
                }
                Err(error) => error,
            };
            if !is_passing(&error) {
                drop(permit);
                return Err(refusal(what, error));
            }
            self.refused(permit, sent);
            if begun.get_or_insert(sent).elapsed() + pause > self.retry_for {
                return Err(Error::unavailable(format!(
                    "{what}: cassandra did not take the request in {} s",
                    self.retry_for.as_secs()
                ))
                .because(cause::of_request(&error)));
            }
            tracing::debug!(what, %error, ?pause, "repeating a request");
            tokio::time::sleep(scattered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Between half of the pause and all of it, so that requests that failed together do not return together.
fn scattered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(Instant::now()) % 1000;
    pause / 2 + pause / 2 * u32::try_from(random).unwrap_or(0) / 1000
}

/// Whether the same request can succeed later.
pub fn is_passing(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::ConnectionPoolError(_)
        | ExecutionError::RequestTimeout(_)
        | ExecutionError::EmptyPlan
        | ExecutionError::MetadataError(_)
        | ExecutionError::SchemaAgreementError(_) => true,
        ExecutionError::LastAttemptError(attempt) => is_passing_attempt(attempt),
        ExecutionError::PrepareError(error) => is_passing_prepare(error),
        _ => false,
    }
}

fn is_passing_prepare(error: &PrepareError) -> bool {
    match error {
        PrepareError::ConnectionPoolError(_) => true,
        PrepareError::AllAttemptsFailed { first_attempt } => is_passing_attempt(first_attempt),
        _ => false,
    }
}

fn is_passing_attempt(error: &RequestAttemptError) -> bool {
    match error {
        RequestAttemptError::BrokenConnectionError(_) | RequestAttemptError::UnableToAllocStreamId => true,
        RequestAttemptError::DbError(error, _) => matches!(
            error,
            DbError::Overloaded
                | DbError::IsBootstrapping
                | DbError::Unavailable { .. }
                | DbError::WriteTimeout { .. }
                | DbError::ReadTimeout { .. }
                | DbError::WriteFailure { .. }
                | DbError::ReadFailure { .. }
                | DbError::TruncateError
                | DbError::ServerError
                | DbError::RateLimitReached { .. }
                | DbError::Unprepared { .. }
        ),
        _ => false,
    }
}

/// Whether what was to be created exists.
pub fn is_there_already(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::AlreadyExists { .. }, _))
    )
}

/// Whether the nodes say that what is to be used does not exist.
pub fn is_invalid(error: &UseKeyspaceError) -> bool {
    matches!(error, UseKeyspaceError::RequestError(RequestAttemptError::DbError(DbError::Invalid, _)))
}

/// The error of a request that can't succeed as it is.
pub fn refusal(what: &str, error: ExecutionError) -> Error {
    let message = format!("{what}: cassandra refused the request");
    let refused = match &error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Unauthorized, _)) => {
            Error::usage(format!("{message}; grant the user what it needs"))
        }
        _ => Error::project(message),
    };
    refused.because(cause::of_request(&error))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn overloaded() -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Overloaded, String::new()))
    }

    fn invalid() -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, "no".to_owned()))
    }

    #[tokio::test]
    async fn falls_when_refused_and_recovers() {
        let throttle = Throttle::new(16, Duration::from_secs(60));
        let refusals = AtomicUsize::new(0);
        let attempt = || async {
            match refusals.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(overloaded()),
                _ => Ok(()),
            }
        };
        throttle.send("x", attempt).await.unwrap();
        assert_eq!(throttle.limit(), 2);
        for _ in 0..200 {
            throttle.send("x", || async { Ok(()) }).await.unwrap();
        }
        assert_eq!(throttle.limit(), 16);
        assert_eq!(throttle.permits.available_permits(), 16);
    }

    #[tokio::test]
    async fn what_is_wrong_is_not_repeated() {
        let throttle = Throttle::new(4, Duration::from_secs(60));
        let attempts = AtomicUsize::new(0);
        let attempt = || async {
            attempts.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(invalid())
        };
        let error = throttle.send("x", attempt).await.unwrap_err();
        assert_eq!((attempts.load(Ordering::Relaxed), error.kind().exit_code()), (1, 3));
        assert_eq!(throttle.limit(), 4);
    }

    #[tokio::test]
    async fn waiting_for_a_turn_is_not_held_against_a_request() {
        let throttle = Throttle::new(1, Duration::from_millis(300));
        let long = throttle.send("long", || async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            Ok(())
        });
        let refusals = AtomicUsize::new(0);
        let queued = throttle.send("queued", || async {
            match refusals.fetch_add(1, Ordering::Relaxed) {
                0 => Err(overloaded()),
                _ => Ok(()),
            }
        });
        let (long, queued) = tokio::join!(long, queued);
        long.unwrap();
        queued.unwrap();
    }

    #[tokio::test]
    async fn gives_up_in_time() {
        let throttle = Throttle::new(4, Duration::from_millis(200));
        let error = throttle.send("x", || async { Err::<(), _>(overloaded()) }).await.unwrap_err();
        assert_eq!(error.kind().exit_code(), 6);
    }
}
