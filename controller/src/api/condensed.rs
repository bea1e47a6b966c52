//! A run's journal in brief, so that a long run is shown at once. The journals that were read last are kept, and only what follows is read
//! when they are asked for again.

use super::Api;
use super::auth::Viewer;
use super::blind::{hidden_entry, hides_run};
use super::blocking;
use super::extract::PathParam;
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::{CondensedProbeInfo, CondensedRunInfo, SamplePoints};
use crate::condensed::{CondensedJournal, CondensedProbe, KeptSample};
use crate::store::{Store, StoreError, StoreErrorKind};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use backburn_experiments::journal::Judgement;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

/// How many journals are kept. One of twenty probes takes some megabytes.
const MAX_JOURNALS: usize = 4;
/// The longest sample that is sent whole, in bytes. Of a longer one, the output is left out: a table of samples has no room for it.
const MAX_SAMPLE_BYTES: usize = 4096;

/// How many bytes of a journal are handed over at a time, and how many times ahead.
const BATCH_BYTES: usize = 256 << 10;
const MAX_BATCHES: usize = 8;

type SharedJournal = Arc<Mutex<CondensedJournal>>;

/// The journals that were asked for last, each as everybody may see it, or as a participant of a game day may.
#[derive(Default)]
pub(super) struct CondensedJournals {
    kept: Mutex<VecDeque<(String, bool, SharedJournal)>>,
}

impl CondensedJournals {
    fn of(&self, run: &str, is_hidden: bool) -> SharedJournal {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_this =
            |(of, hidden, _): &(String, bool, SharedJournal)| of == run && *hidden == is_hidden;
        let found = kept.iter().position(is_this);
        let (.., journal) = found
            .and_then(|place| kept.remove(place))
            .unwrap_or_else(|| (run.to_owned(), is_hidden, SharedJournal::default()));
        if kept.len() == MAX_JOURNALS {
            kept.pop_front();
        }
        kept.push_back((run.to_owned(), is_hidden, Arc::clone(&journal)));
        journal
    }

    /// The journal of a run in brief, as JSON. Several who ask for the same one wait for one read.
    ///
    /// # Errors
    /// The store failed, or its journal cannot be read.
    fn read(&self, store: &dyn Store, run: &str, is_hidden: bool) -> Result<Vec<u8>, StoreError> {
        let journal = self.of(run, is_hidden);
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        let corrupt = |why: String| {
            let what = format!("the journal of run `{run}` cannot be read: {why}");
            StoreError::new(StoreErrorKind::Corrupt, what)
        };
        read_on(&mut journal, store, run, is_hidden)?.map_err(corrupt)?;
        serde_json::to_vec(&CondensedRunInfo::from(&*journal))
            .map_err(|error| corrupt(error.to_string()))
    }
}

/// Takes in what follows of a journal. A long one is read on one processor and understood on another.
///
/// # Errors
/// The store failed, or a line is not an event. What was taken in before is whole.
fn read_on(
    journal: &mut CondensedJournal,
    store: &dyn Store,
    run: &str,
    is_hidden: bool,
) -> Result<Result<(), String>, StoreError> {
    let after = journal.count();
    let (batches, received) = sync_channel::<String>(MAX_BATCHES);
    std::thread::scope(|threads| {
        let take = move || {
            for batch in received {
                for line in batch.lines() {
                    match is_hidden {
                        true => take_hidden(journal, line)?,
                        false => journal.line(line)?,
                    }
                }
            }
            Ok::<_, String>(())
        };
        let taking = std::thread::Builder::new().spawn_scoped(threads, take);
        let taking = taking.map_err(|error| {
            StoreError::new(
                StoreErrorKind::Io,
                format!("no thread could be started: {error}"),
            )
        })?;
        let mut batch = String::new();
        let read = store.journal_lines(run, after, &mut |line| {
            batch.push_str(line);
            batch.push('\n');
            // Nobody receives any more once a line was not understood.
            batch.len() < BATCH_BYTES || batches.send(std::mem::take(&mut batch)).is_ok()
        });
        batches.send(batch).ok();
        drop(batches);
        let taken = taking.join();
        read?;
        Ok(taken.unwrap_or_else(|_| Err("it could not be understood".into())))
    })
}

/// Takes in what participants may see of a line.
fn take_hidden(journal: &mut CondensedJournal, line: &str) -> Result<(), String> {
    let entry = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match hidden_entry(entry) {
        Some(entry) => journal.entry(&entry),
        None => {
            journal.skip();
            Ok(())
        }
    }
}

fn raw(line: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(line.to_owned()).ok()
}

/// A sample for a table.
fn raw_sample(line: &str) -> Option<Box<RawValue>> {
    if line.len() <= MAX_SAMPLE_BYTES {
        return raw(line);
    }
    let mut sample: serde_json::Value = serde_json::from_str(line).ok()?;
    sample["output"] = "(long, and left out here)".into();
    serde_json::value::to_raw_value(&sample).ok()
}

/// A number with three digits after the point: milliseconds of seconds, and microseconds of milliseconds.
fn thousandths(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

impl From<&CondensedJournal> for CondensedRunInfo {
    fn from(journal: &CondensedJournal) -> Self {
        let probes = journal.probes().into_iter();
        CondensedRunInfo {
            after: journal.count(),
            elapsed: journal.elapsed(),
            events: journal.events().filter_map(raw).collect(),
            changes_left_out: journal.changes_left_out(),
            probes: probes
                .map(|(name, probe)| probe_info(name, probe))
                .collect(),
        }
    }
}

fn probe_info(name: &str, probe: &CondensedProbe) -> CondensedProbeInfo {
    CondensedProbeInfo {
        probe: name.to_owned(),
        hypothesis: probe.is_hypothesis,
        within: probe.within,
        outside: probe.outside,
        unknown: probe.unknown,
        failures_in_a_row: probe.failures_in_a_row,
        numeric: probe.has_only_numbers(),
        points: points(&probe.drawn()),
        latest: probe.latest().filter_map(raw_sample).collect(),
    }
}

fn points(samples: &[KeptSample]) -> SamplePoints {
    let places = |judgement: Judgement| {
        let samples = samples.iter().enumerate();
        let found = samples.filter(|(_, sample)| sample.judgement == judgement);
        found.map(|(place, _)| place).collect()
    };
    SamplePoints {
        at: samples
            .iter()
            .map(|sample| thousandths(sample.at))
            .collect(),
        value: samples.iter().map(|sample| sample.value).collect(),
        took_ms: samples
            .iter()
            .map(|sample| thousandths(sample.took))
            .collect(),
        outside: places(Judgement::Outside),
        unknown: places(Judgement::Unknown),
    }
}

/// Returns a run's journal in brief, for showing a long run at once: all events that are no samples, and of each probe the samples that
/// stand for all of them. No extreme and no failure is hidden by others. The journal itself stays whole.
#[utoipa::path(get, path = "/api/v1/runs/{run}/condensed", tag = "runs", params(("run" = String, Path, description = "The run's id")), security(("token" = ["viewer"])), responses((status = 200, body = CondensedRunInfo), ProblemStatus<404>))]
pub async fn condensed(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
) -> Result<Response, ApiProblem> {
    let (service, journals) = (Arc::clone(&api.service), Arc::clone(&api.condensed));
    let found = blocking(move || {
        let record = service.store().run(&run)?;
        let is_hidden = hides_run(&service, &who, &record)?;
        journals.read(service.store().as_ref(), &run, is_hidden)
    });
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], found.await?).into_response())
}
