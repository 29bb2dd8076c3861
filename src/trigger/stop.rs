//! How a stream is asked to end: the first SIGINT or SIGTERM finishes what was begun, the second one does not wait.

use tokio::sync::watch;

use crate::error::{Error, Result};

/// How often the process was asked to end.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: watch::Receiver<u32>,
}

impl Stop {
    /// Counts signals from now on.
    ///
    /// # Errors
    /// `Unavailable` where the system refuses to pass signals on.
    pub fn on_signals() -> Result<Stop> {
        let failed = |error| Error::unavailable("can't listen to signals").because(error);
        let (sender, asked) = watch::channel(0);
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
            let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    sender.send_modify(|count| *count += 1);
                }
            });
        }
        #[cfg(not(unix))]
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.map_err(failed).is_ok() {
                sender.send_modify(|count| *count += 1);
            }
        });
        Ok(Stop { asked })
    }

    /// Whether to begin nothing new.
    pub fn is_asked(&self) -> bool {
        *self.asked.borrow() > 0
    }

    /// Returns when the process is asked to end.
    pub async fn asked(&self) {
        self.times(1).await;
    }

    /// Returns when the process is asked a second time.
    pub async fn forced(&self) {
        self.times(2).await;
    }

    async fn times(&self, count: u32) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|times| *times >= count).await.is_err() {
            // nobody can ask any more
            std::future::pending::<()>().await;
        }
    }
}
