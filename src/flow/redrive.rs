//! Refused records, let in again or discarded: choose, judge by today's contract and rules, write ahead, apply.
//!
//! What bronze had refused is typed again from its raw bytes; what silver had refused is decided again. Whatever is accepted
//! now leaves quarantine in the same run that computes what depends on it, and the balance at its end proves it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::interventions::{self, Action, Intervention, Retyper};
use super::quarantine::{self, Refused, Stage};
use super::report::Report;
use super::{Run, decide, refresh, settle};
use crate::error::{Error, Result};
use crate::project::source::Source;

/// Records of one source.
pub type Chosen = Vec<(Source, Vec<Refused>)>;

/// Who decides, and what they say about it.
#[derive(Debug, Clone, Default)]
pub struct Signed {
    pub operator: String,
    pub note: String,
}

/// What became of the chosen records.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    pub chosen: usize,
    /// Left quarantine.
    pub accepted: usize,
    /// Are in quarantine as before, or for another reason.
    pub refused: usize,
    pub discarded: usize,
    /// Records that no redrive can help, and what to do.
    pub skipped: Vec<Skipped>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    pub source_file: String,
    pub source_line: i64,
    pub why: String,
}

impl Outcome {
    fn skip(&mut self, record: &Refused, why: impl Into<String>) {
        self.skipped.push(Skipped {
            source_file: record.source_file.clone(),
            source_line: record.source_line,
            why: why.into(),
        });
    }
}

/// Lets the chosen records in as far as today's contract and rules accept them; `edited` stands in for the only one.
/// With `is_dry` nothing is done: `accepted` counts what bronze would type, and silver's part is not judged.
///
/// # Errors
/// `Usage` where `edited` is given for other than one record, `Data` where it is refused itself, and the stores'.
pub async fn redrive(
    run: &mut Run,
    chosen: Chosen,
    edited: Option<Vec<u8>>,
    signed: &Signed,
    is_dry: bool,
) -> Result<(Outcome, Option<Report>)> {
    let mut outcome = Outcome { chosen: count(&chosen), ..Outcome::default() };
    if edited.is_some() && outcome.chosen != 1 {
        return Err(Error::usage(format!(
            "an edited record stands in for exactly one, {} are chosen; add `--file` and `--line`",
            outcome.chosen
        )));
    }
    let mut decisions = Vec::new();
    let mut decide: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    let places = places(&chosen);
    for (source, records) in chosen {
        let retyper = Retyper::new(run, &source, records.iter()).await?;
        for mut record in records {
            if record.error_type == decide::DISCARDED {
                outcome.skip(&record, "it was discarded for ever");
                continue;
            }
            if record.source_line == quarantine::NO_LINE {
                outcome.skip(
                    &record,
                    "it stands for a damaged file: land the file again, whole, under a new name",
                );
                continue;
            }
            if record.stage == Stage::Silver && edited.is_none() {
                decide.entry(source.name.clone()).or_default().insert(record.date);
                continue;
            }
            if edited.is_none() && record.raw_bytes > i64::try_from(record.raw.len()).unwrap_or(i64::MAX) {
                let (file, line) = (record.source_file.clone(), record.source_line);
                match quarantine::raw_bytes(run, &source.name, &file, line).await? {
                    Some(whole) => record.raw = whole,
                    None => {
                        outcome.skip(
                            &record,
                            "quarantine keeps its beginning only, and its landing file is gone",
                        );
                        continue;
                    }
                }
            }
            let bytes = edited.as_deref().unwrap_or(&record.raw);
            let decoded = match retyper.decode(&record, bytes) {
                Ok(decoded) => decoded,
                Err(error) if edited.is_some() => return Err(error),
                Err(error) => {
                    outcome.skip(&record, error.to_string());
                    continue;
                }
            };
            if let Some(reject) = decoded.rejects.first() {
                if edited.is_some() {
                    return Err(Error::data(format!(
                        "the edited record is refused itself, as `{}`: {}; nothing was changed",
                        reject.error_type, reject.reason
                    )));
                }
                continue;
            }
            decisions.push(Intervention {
                id: 0,
                action: if edited.is_some() { Action::Edit } else { Action::Admit },
                source: source.name.clone(),
                record,
                edited: edited.clone(),
                note: signed.note.clone(),
                operator: signed.operator.clone(),
                at: run.started_at,
            });
        }
    }
    if is_dry {
        outcome.accepted = decisions.len();
        outcome.refused = outcome.chosen - outcome.accepted - outcome.skipped.len();
        return Ok((outcome, None));
    }
    let mut report = Report::begin(run);
    if !decisions.is_empty() {
        interventions::record(run, &decisions).await?;
        interventions::resume(run).await?;
    }
    run.wanted.decide = decide;
    refresh(run, &mut report).await?;
    settle(run, &mut report).await?;
    let skipped: BTreeSet<(&str, i64)> =
        outcome.skipped.iter().map(|record| (record.source_file.as_str(), record.source_line)).collect();
    let mut refused = 0;
    for (name, places) in &places {
        let Some(source) = run.project.source(name).cloned() else {
            continue;
        };
        let left = quarantine::read(run, &source, None, "true").await?;
        refused += left
            .iter()
            .filter(|record| places.contains(&(record.source_file.clone(), record.source_line)))
            .filter(|record| !skipped.contains(&(record.source_file.as_str(), record.source_line)))
            .count();
    }
    outcome.refused = refused;
    outcome.accepted = outcome.chosen.saturating_sub(refused + outcome.skipped.len());
    Ok((outcome, Some(report)))
}

/// Discards the chosen records for ever: they stay in quarantine as `discarded`, with the reason, and the balance goes on
/// counting them there.
///
/// # Errors
/// The stores'.
pub async fn discard(
    run: &mut Run,
    chosen: Chosen,
    signed: &Signed,
    is_dry: bool,
) -> Result<(Outcome, Option<Report>)> {
    let mut outcome = Outcome { chosen: count(&chosen), ..Outcome::default() };
    let mut decisions = Vec::new();
    let known: BTreeSet<(String, String, i64)> = interventions::read(&run.ledger)
        .await?
        .into_iter()
        .filter(|decision| decision.action == Action::Discard)
        .map(|decision| (decision.source, decision.record.source_file, decision.record.source_line))
        .collect();
    for (source, records) in chosen {
        for record in records {
            let place = (source.name.clone(), record.source_file.clone(), record.source_line);
            // quarantine still shows what the ledger may have lost
            if record.error_type == decide::DISCARDED && known.contains(&place) {
                outcome.skip(&record, "it is discarded already");
                continue;
            }
            decisions.push(Intervention {
                id: 0,
                action: Action::Discard,
                source: source.name.clone(),
                record,
                edited: None,
                note: signed.note.clone(),
                operator: signed.operator.clone(),
                at: run.started_at,
            });
        }
    }
    outcome.discarded = decisions.len();
    if is_dry {
        return Ok((outcome, None));
    }
    let mut report = Report::begin(run);
    if !decisions.is_empty() {
        interventions::record(run, &decisions).await?;
        interventions::resume(run).await?;
    }
    refresh(run, &mut report).await?;
    settle(run, &mut report).await?;
    Ok((outcome, Some(report)))
}

fn count(chosen: &Chosen) -> usize {
    chosen.iter().map(|(_, records)| records.len()).sum()
}

fn places(chosen: &Chosen) -> BTreeMap<String, BTreeSet<(String, i64)>> {
    let of = |records: &[Refused]| {
        records.iter().map(|record| (record.source_file.clone(), record.source_line)).collect()
    };
    chosen.iter().map(|(source, records)| (source.name.clone(), of(records))).collect()
}
