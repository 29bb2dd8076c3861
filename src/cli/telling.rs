//! Who is told of a command, and how it waits for its last messages.

use super::{Command, Places};
use crate::flow::Run;
use crate::flow::report::Report;
use crate::lake::parse_location;
use crate::notify::{self, Ended, Telling};
use crate::project::alerts::Declared;
use crate::telemetry::otlp::Otlp;
use crate::trigger::anomalies::Anomalies;
use crate::trigger::export;
use crate::trigger::stop::Stop;

impl Command {
    /// The command's name, where others are told how it ended.
    pub(super) fn moves_data(&self) -> Option<&'static str> {
        match self {
            Command::Run(_) => Some("run"),
            Command::Stream(_) => Some("stream"),
            Command::Rerun(args) => args.moves_data(),
            Command::Publish(_) => Some("publish"),
            Command::Reconcile(_) => Some("reconcile"),
            Command::Quarantine(args) => args.moves_data(),
            Command::Restore(_) => Some("restore"),
            Command::Optimize(_) => Some("optimize"),
            Command::Vacuum(args) => args.moves_data(),
            Command::Gc(_) => Some("gc"),
            // it tells how fresh the tables are
            Command::Status(args) => args.monitors().then_some("status"),
            _ => None,
        }
    }
}

impl Places {
    /// Whom the project wants told of a command, also where the rest of the project is broken.
    pub(super) fn telling(&self, command: &'static str) -> Telling {
        let declared = Declared::read(&self.project);
        let places = self.told(declared.lake.as_deref(), declared.landing.as_deref());
        Telling::open(&declared, places, command)
    }

    /// The places, for who is told.
    pub(super) fn told(&self, lake: Option<&str>, landing: Option<&str>) -> notify::Places {
        let (base, text) = self.place(self.landing.as_deref(), landing, "landing");
        notify::Places {
            project: self.project.clone(),
            lake: self.lake_url(lake).ok(),
            landing: parse_location(text, &base).ok(),
        }
    }

    /// A command has closed its books: whoever wants to be told is.
    pub(super) async fn settled(&self, run: &Run, report: &Report, anomalies: &mut Anomalies) {
        anomalies.look(run).await;
        // what is wrong with it the run has told
        let serving = self.telling.wants_store().then(|| self.serving(&run.project).ok().flatten());
        let target = serving.flatten().map(|(_, target)| target);
        self.telling.settled(run, report, anomalies.take(true), target.as_ref()).await;
        if let Some(to) = self.otlp.meter()
            && let Err(error) = export::report(run, report, &to)
        {
            tracing::warn!(%error, "no metrics of this run");
        }
    }
}

/// Tells how the command ended, and waits until everything is told, or for a bounded time. A stream has taken signals away
/// from the system: a further one ends the waiting.
pub(super) async fn last_messages(telling: Telling, otlp: Otlp, ended: Ended<'_>, is_stream: bool) {
    let is_stopped = matches!(ended, Ended::Stopped);
    let last = async { tokio::join!(telling.ended(ended), otlp.close(is_stopped)) };
    tokio::select! {
        _ = last => {}
        () = signalled(), if is_stream => tracing::warn!("ended without waiting for its last messages"),
    }
}

async fn signalled() {
    match Stop::on_signals() {
        Ok(stop) => stop.asked().await,
        // who can't be told waits
        Err(_) => std::future::pending().await,
    }
}
