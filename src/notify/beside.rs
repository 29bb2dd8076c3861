//! Work beside the work: a task that takes what it is handed. Whoever hands something over never waits, and what waits is
//! bounded: what comes when that much waits already is dropped, with a warning.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// So much waits at most.
const WAITING: usize = 256;

/// The way to a task.
pub struct Beside<T> {
    /// For messages: `alerts`.
    what: &'static str,
    waiting: mpsc::Sender<T>,
    done: oneshot::Receiver<()>,
    has_dropped: AtomicBool,
}

impl<T: Send + 'static> Beside<T> {
    /// Starts the task; it ends when nothing can be handed over any more.
    pub fn start<F>(what: &'static str, work: impl FnOnce(mpsc::Receiver<T>) -> F) -> Beside<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (waiting, handed_over) = mpsc::channel(WAITING);
        let (finished, done) = oneshot::channel();
        let working = work(handed_over);
        tokio::spawn(async move {
            working.await;
            let _ = finished.send(());
        });
        Beside { what, waiting, done, has_dropped: AtomicBool::new(false) }
    }

    pub fn hand_over(&self, item: T) {
        // the task ends after the channel, so it is there
        if let Err(TrySendError::Full(_)) = self.waiting.try_send(item)
            && !self.has_dropped.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{} are dropped: the receiver is too slow", self.what);
        }
    }

    /// Waits until the task is done, but no longer than `wait`; whether it is.
    pub async fn close(self, wait: Duration) -> bool {
        drop(self.waiting);
        tokio::time::timeout(wait, self.done).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_and_nobody_waits_for_it() {
        let (taken, mut counts) = mpsc::unbounded_channel();
        let beside = Beside::start("numbers", move |mut waiting: mpsc::Receiver<usize>| async move {
            while let Some(number) = waiting.recv().await {
                let _ = taken.send(number);
            }
        });
        // the test has one thread, so the task begins when somebody awaits
        for number in 0..WAITING + 10 {
            beside.hand_over(number);
        }
        assert!(beside.has_dropped.load(Ordering::Relaxed));
        assert!(beside.close(Duration::from_secs(30)).await);
        let mut last = None;
        while let Ok(number) = counts.try_recv() {
            last = Some(number);
        }
        assert_eq!(last, Some(WAITING - 1));
    }
}
