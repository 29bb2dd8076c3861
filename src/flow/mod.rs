//! The way of the data, one file per hop: landing → bronze → decide → silver → gold, and the balance at the end.
//!
//! Every hop is: read a version → compute → check → commit once. A hop's commit carries the version of the input that
//! it consumed, so running it again changes nothing, and a run that was killed is continued by the next one.

pub mod anomaly;
pub mod balance;
pub mod bronze;
pub mod check_history;
pub mod checks;
pub mod compact;
pub mod decide;
pub mod decisions;
pub mod dirty;
pub mod doctor;
pub mod explain;
pub mod freshness;
pub mod gate;
pub mod ids;
pub mod inputs;
pub mod interventions;
pub mod landed;
pub mod landing;
pub mod late;
pub mod lock;
pub mod lost;
pub mod maintain;
pub mod model;
pub mod partial;
pub mod plan;
pub mod quarantine;
pub mod recent;
pub mod redrive;
pub mod report;
pub mod rerun;
pub mod row_wise;
mod run;
pub mod runs;
pub mod serving;
pub mod travel;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};

use self::dirty::Work;
use self::landing::Pending;
use self::recent::Scope;
use self::report::{Books, Report, Step};
pub use self::run::Run;
use crate::error::{Error, Result};
use crate::lake::commit::{Change, Commit, Outcome};
use crate::ledger;
use crate::project::source::Mode;
use crate::project::sql::TableName;

/// Moves everything that waits in landing to gold, and proves that nothing was lost. This is the whole way; the stream
/// goes it part by part.
///
/// # Errors
/// What stops a run. What a person must look at without stopping it (changed landing files, failed checks, a balance that
/// does not hold) is in the report.
pub async fn advance(run: &mut Run) -> Result<Report> {
    let mut report = Report::begin(run);
    interventions::resume(run).await?;
    let pending = landing::discover(run).await?;
    report.landing(&pending);
    take_in(run, &pending, &mut report).await?;
    refresh(run, &mut report).await?;
    settle(run, &mut report).await?;
    Ok(report)
}

/// What was written ahead and not finished: an operator's decisions, batches of landing. Usually nothing; but whoever
/// goes on from the tables as they are would find rejects of a batch without its data.
///
/// # Errors
/// As [`take_in`].
pub async fn finish_begun(run: &mut Run, report: &mut Report) -> Result<()> {
    interventions::resume(run).await?;
    let known = ledger::files(&run.ledger.files).await?;
    let pending = landing::unfinished(run, &known);
    take_in(run, &pending, report).await
}

/// Landing → bronze and quarantine: the batches that were written ahead.
///
/// # Errors
/// The stores'; `Conflict` where another run has taken one of them in.
pub async fn take_in(run: &mut Run, pending: &Pending, report: &mut Report) -> Result<()> {
    for (batch_id, batch) in &pending.batches {
        let steps = ingest(run, *batch_id, batch).await?;
        report.steps.extend(steps);
    }
    Ok(())
}

/// Bronze → silver → gold: whatever has changed since they were computed.
///
/// # Errors
/// The stores' and those of the models.
pub async fn refresh(run: &mut Run, report: &mut Report) -> Result<()> {
    landed::report(run).await?;
    decisions::decide_changed(run).await?;
    report.steps.extend(compute_models(run, Scope::Everything).await?);
    if let Some(recent) = &mut run.recent {
        recent.settle();
    }
    Ok(())
}

/// Bronze → silver → gold, of the recent dates only; what else has changed waits for [`refresh`]. Where a source has no
/// watermark, everything is recent.
///
/// # Errors
/// As [`refresh`].
pub async fn refresh_recent(run: &mut Run, report: &mut Report) -> Result<()> {
    let Scope::Recent(from) = recent::scope(run)? else {
        return refresh(run, report).await;
    };
    recent::decide_fresh(run, from).await?;
    report.steps.extend(compute_models(run, Scope::Recent(from)).await?);
    if let Some(recent) = &mut run.recent {
        recent.end_refresh();
    }
    Ok(())
}

/// Whether every model reflects its inputs as they are.
///
/// # Errors
/// Those of the logs.
pub async fn is_up_to_date(run: &Run) -> Result<bool> {
    for model in run.project.stored_models() {
        if dirty::work(run, model).await? != dirty::Work::Nothing {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Checks and balance, and the report in the ledger; then everything is on the disk.
///
/// # Errors
/// The stores' and those of the checks.
pub async fn settle(run: &mut Run, report: &mut Report) -> Result<()> {
    report.warn_of_stale(run).await?;
    report.warn_of_lost(run);
    report.withheld = gate::tell(run)?;
    if run.wanted.is_only && waits_for_accounts(run).await? {
        // what was asked for is done, and what a balance counts is left to the next run: it has the last word
        report.balance = balance::stored(run).await?;
        report.note(run).await?;
        return run.lake.sync().await;
    }
    let books = match run.num_commits {
        0 => report::books(run).await?,
        _ => Books::Open,
    };
    if books == Books::Closed {
        report.balance = balance::stored(run).await?;
        // the tables are as they were, the clock is not
        report.checks = checks::run_those_by_the_clock(run).await?;
    }
    let is_to_close = match books {
        Books::Open => true,
        Books::Closed => report.has_other_checks(run).await?,
        Books::Unsettled => {
            look(run, report).await?;
            report.has_other_checks(run).await? || report.has_other_balance(run).await?
        }
    };
    if is_to_close {
        if books != Books::Unsettled {
            look(run, report).await?;
        }
        report.close(run).await?;
    } else {
        // nothing was done that would be a run
        report.run_id = None;
        report.balance.retain(|row| row.scope == "lake");
    }
    run.lake.sync().await?;
    if report.commits == 0 {
        report.commits = run.num_commits;
    }
    Ok(())
}

async fn look(run: &Run, report: &mut Report) -> Result<()> {
    report.checks = checks::run(run).await?;
    report.balance = balance::compute(run).await?;
    Ok(())
}

/// Whether a table that stands for the accepted records of a source waits to be computed.
async fn waits_for_accounts(run: &Run) -> Result<bool> {
    for model in run.project.stored_models().filter(|model| model.accounts_for.is_some()) {
        if dirty::work(run, model).await? != dirty::Work::Nothing {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Landing → bronze, all sources of a batch at once.
#[tracing::instrument(target = "hop", name = "landing to bronze", skip_all, fields(batch = batch_id))]
async fn ingest(
    run: &mut Run,
    batch_id: i64,
    batch: &BTreeMap<String, Vec<ledger::FileRecord>>,
) -> Result<Vec<Step>> {
    run.progress.stage("landing → bronze");
    let started = chrono::Utc::now().timestamp_micros();
    let mut work = FuturesUnordered::new();
    for (name, files) in batch {
        if let Some(source) = run.project.source(name) {
            let run = &*run;
            let source = source.clone();
            work.push(async move {
                let ingested = bronze::ingest(run, &source, batch_id, files).await?;
                Result::Ok((source, ingested))
            });
        }
    }
    let mut done = Vec::new();
    while let Some(ingested) = work.next().await {
        done.push(ingested?);
    }
    drop(work);
    // quarantine before bronze, also on the disk: bronze's entry says that the batch is done
    run.lake.sync().await?;
    let mut has_refused = false;
    for (_, ingested) in &mut done {
        if let Some(commit) = &ingested.quarantine_commit {
            ingested.quarantine.commit(commit).await?;
            run.num_commits += 1;
            has_refused = true;
        }
    }
    if has_refused {
        run.lake.sync().await?;
    }
    let mut steps = Vec::new();
    for (source, mut ingested) in done {
        if ingested.bronze.commit(&ingested.bronze_commit).await? == Outcome::AlreadyThere {
            return Err(Error::conflict(format!(
                "`{}` has batch {batch_id} already, another run took it in at the same time; run again",
                ingested.bronze.name()
            )));
        }
        run.num_commits += 1;
        steps.push(Step::ingested(&source, &ingested, started));
        if let Some(batches) = ingested.cache {
            run.cache(&ingested.bronze, batches);
        }
        if let Some(recent) = &mut run.recent
            && source.mode == Mode::Events
        {
            recent.keep(&source, batch_id, ingested.bronze.version(), ingested.fresh);
        }
        run.forget_decided(&source, &ingested.bronze_commit).await;
        run.bronze.insert(source.name.clone(), ingested.bronze);
        run.quarantine.insert(source.name, ingested.quarantine);
    }
    steps.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(steps)
}

/// Tells a table's log that the newest versions of its inputs did not concern it, where many have not.
async fn say_positions(run: &mut Run, model: &crate::project::model::Model) -> Result<()> {
    let Some(positions) = dirty::unmentioned(run, model)? else {
        return Ok(());
    };
    let mut table = run.table(&model.table)?.clone();
    let (Some(schema), Some(snapshot)) = (table.schema()?, table.snapshot()) else {
        return Ok(());
    };
    let commit = Commit {
        change: Change::Append,
        schema,
        partition: snapshot.metadata.partition_columns.clone(),
        adds: Vec::new(),
        positions,
        once: None,
        info: serde_json::json!({"run": run.id}),
        description: model.description.clone(),
    };
    table.commit(&commit).await?;
    run.models.insert(model.table.clone(), table);
    run.num_commits += 1;
    Ok(())
}

/// Silver and gold: every model whose inputs have changed, inputs before outputs.
async fn compute_models(run: &mut Run, scope: Scope) -> Result<Vec<Step>> {
    let project = Arc::clone(&run.project);
    let mut waiting: Vec<&crate::project::model::Model> = project.stored_models().collect();
    let mut unfinished: BTreeSet<TableName> = waiting.iter().map(|model| model.table.clone()).collect();
    let mut steps = Vec::new();
    while !waiting.is_empty() {
        let is_ready = |model: &&crate::project::model::Model| {
            let mut reads = model.inputs.keys().map(dirty::stored_table).collect::<BTreeSet<_>>();
            // a check is asked before the commit of what it guards
            reads.extend(gate::read_by_guards(run, model));
            reads.is_disjoint(&unfinished)
        };
        let (ready, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_ready);
        if ready.is_empty() {
            return Err(Error::bug("models wait for each other"));
        }
        waiting = later;
        let mut todo = Vec::new();
        loop {
            todo.clear();
            for model in &ready {
                let part = match scope {
                    Scope::Everything => rerun::part(run, model).await?,
                    Scope::Recent(from) => recent::part(run, model, from).await?,
                };
                if !part.is_nothing() {
                    todo.push((*model, part));
                }
            }
            if scope != Scope::Everything {
                // what is decided again stands for all of a source's changes, which only a settle computes
                break;
            }
            // rows and decisions of a date are of the same rules, or the balance would not hold
            let again = rerun::to_decide(run, &todo).await?;
            if again.is_empty() {
                break;
            }
            decisions::decide_and_record(run, again).await?;
        }
        for model in &ready {
            unfinished.remove(&model.table);
            let is_nothing = todo.iter().all(|(busy, _)| busy.table != model.table);
            if is_nothing && scope == Scope::Everything && !run.wanted.is_only {
                say_positions(run, model).await?;
            }
        }
        run.progress.stage(&format!("{} models", todo.len()));
        let shared = &*run;
        let mut computing = futures::stream::iter(todo)
            .map(|(model, part)| async move {
                let begun = std::time::Instant::now();
                let computed = model::compute(shared, model, &part).await?;
                let (work, mut computed) = gate::hold_back(shared, model, &part.work, computed).await?;
                if shared.wanted.compares && work != Work::Nothing {
                    computed = rerun::leave_out_unchanged(model, &work, computed).await?;
                }
                Result::Ok((model, part, computed, begun.elapsed()))
            })
            .buffer_unordered(run.concurrency);
        let mut done = Vec::new();
        while let Some(computed) = computing.next().await {
            done.push(computed?);
        }
        drop(computing);
        // one sync for the files of all, then one log entry each
        run.lake.sync().await?;
        for (model, part, mut computed, elapsed) in done {
            let mut version = None;
            if !rerun::is_empty(&computed) {
                computed.table.commit(&computed.commit).await?;
                run.num_commits += 1;
                version = Some(computed.table.version());
            }
            if let Some(batches) = computed.cache.take() {
                run.cache(&computed.table, batches);
            }
            if let Some(recent) = &mut run.recent {
                recent.partials.keep(&model.table, std::mem::take(&mut computed.partials));
                if let Some(rows) = computed.appended.take() {
                    recent.appended.insert((model.table.clone(), computed.table.version()), rows);
                }
            }
            tracing::debug!(
                table = %model.table,
                rows = computed.rows,
                ms = elapsed.as_millis(),
                "computed {}{}",
                model::describe(&part.work),
                if part.append.is_some() { ", appended" } else { "" }
            );
            steps.push(Step::computed(model, &part, &computed, version, elapsed));
            run.models.insert(model.table.clone(), computed.table);
        }
        run.progress.tell();
        run.forget_all_but_inputs_of(&waiting)?;
    }
    Ok(steps)
}
