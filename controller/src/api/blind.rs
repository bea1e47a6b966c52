//! What participants with a blind token see of game days: nothing that tells what a step does, until it is revealed. A blind token
//! may use the routes that are listed here, and their handlers hide what is not revealed; every other route is closed for it.

use super::problem::ApiProblem;
use super::types::{RunInfo, RunNoteInfo};
use crate::service::{Actor, HIDDEN, HeldGameDay, HiddenWords, Service};
use crate::store::{NoteStream, RunNoteEntry, RunRecord, StoreError};
use axum::extract::MatchedPath;
use axum::http::StatusCode;
use axum::http::request::Parts;
use backburn_experiments::game_day::Duty;
use backburn_experiments::journal::{Event, JournalEntry};
use serde_json::Value;
use std::collections::BTreeSet;

/// The operations that a blind token may use.
const OPEN_OPERATIONS: [(&str, &str); 25] = [
    ("GET", "/metrics"),
    ("GET", "/api/v1/faults"),
    ("GET", "/api/v1/runs"),
    ("GET", "/api/v1/runs/{run}"),
    ("GET", "/api/v1/runs/{run}/events"),
    ("GET", "/api/v1/runs/{run}/condensed"),
    ("GET", "/api/v1/runs/{run}/stream"),
    ("GET", "/api/v1/runs/{run}/notes"),
    ("POST", "/api/v1/runs/{run}/notes"),
    ("GET", "/api/v1/runs/{run}/notes/stream"),
    ("POST", "/api/v1/runs/{run}/stop"),
    ("GET", "/api/v1/game-days"),
    ("GET", "/api/v1/game-days/{id}"),
    ("GET", "/api/v1/game-days/{id}/notes"),
    ("POST", "/api/v1/game-days/{id}/notes"),
    ("GET", "/api/v1/game-days/{id}/notes/stream"),
    ("POST", "/api/v1/game-days/{id}/stop"),
    ("GET", "/api/v1/halt"),
    ("POST", "/api/v1/halt"),
    ("DELETE", "/api/v1/login"),
    ("GET", "/api/v1/session"),
    ("POST", "/api/v1/session"),
    ("DELETE", "/api/v1/session"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
];

/// The beginning of the names of all metrics.
const METRIC_PREFIX: &str = "backburn_";

/// The metrics that tell nothing about runs, without that beginning.
const OPEN_METRICS: [&str; 6] = [
    "agents_known",
    "agents_connected",
    "halted",
    "certificate_days_left",
    "store_bytes",
    "store_errors",
];

/// Refuses a blind token where it could read what is not revealed.
pub(super) fn guard(parts: &Parts, who: &Actor) -> Result<(), ApiProblem> {
    if !who.is_blind {
        return Ok(());
    }
    let route = parts.extensions.get::<MatchedPath>();
    let route = route.map_or("", |route| route.as_str());
    match OPEN_OPERATIONS.contains(&(parts.method.as_str(), route)) {
        true => Ok(()),
        false => {
            let what = format!(
                "token `{}` is blind: it is for participants of game days",
                who.name
            );
            Err(closed(what).hint("use the token of somebody who may know what a game day does"))
        }
    }
}

fn closed(what: impl Into<String>) -> ApiProblem {
    ApiProblem::new(StatusCode::FORBIDDEN, "blind", what)
}

/// Metrics without those that tell something about runs.
pub(super) fn open_metrics(text: &str) -> String {
    let is_open = |line: &str| {
        let line = line
            .strip_prefix("# HELP ")
            .or_else(|| line.strip_prefix("# TYPE "))
            .or_else(|| line.strip_prefix("# UNIT "))
            .unwrap_or(line);
        let name = line.strip_prefix(METRIC_PREFIX).unwrap_or_default();
        line == "# EOF"
            || OPEN_METRICS.iter().any(|open| {
                name.strip_prefix(open)
                    .is_some_and(|rest| rest.starts_with([' ', '{']) || rest.starts_with("_total"))
            })
    };
    let lines = text.lines().filter(|line| is_open(line));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Whether this run is to be hidden from the caller.
pub(super) fn hides_run(
    service: &Service,
    who: &Actor,
    run: &RunRecord,
) -> Result<bool, StoreError> {
    Ok(who.is_blind && !service.is_run_revealed(run)?)
}

/// A run of which nothing is revealed.
pub(super) fn hidden_run(run: RunInfo) -> RunInfo {
    RunInfo {
        experiment: None,
        version: None,
        title: HIDDEN.into(),
        seed: 0,
        outcome: None,
        exit_code: None,
        verdict: None,
        cleaned: None,
        ..run
    }
}

/// What participants may see of an event of a run that is not revealed: that it goes on, and what probes measure. None for the rest.
pub(super) fn hidden_entry(mut entry: JournalEntry) -> Option<JournalEntry> {
    match &mut entry.event {
        Event::RunStarted {
            title,
            seed,
            sha256,
            ..
        } => {
            *title = HIDDEN.into();
            *seed = 0;
            *sha256 = None;
        }
        Event::Sampled {
            output,
            why,
            hypothesis: true,
            ..
        } => {
            // Texts may tell what is hit.
            if !matches!(output, Value::Number(_) | Value::Bool(_)) {
                *output = Value::Null;
            }
            *why = None;
        }
        Event::PhaseStarted { .. } | Event::Recovered { .. } | Event::RunEnded => {}
        _ => return None,
    }
    Some(entry)
}

/// What a participant may see of the notes of a run or of a game day.
pub(super) struct BlindView {
    hidden: HiddenWords,
    /// The duties that the reader holds.
    duties: BTreeSet<Duty>,
}

impl BlindView {
    /// The view of somebody; none for those who may see everything.
    ///
    /// # Errors
    /// The store failed.
    pub(super) fn of(
        service: &Service,
        who: &Actor,
        stream: NoteStream,
        id: &str,
    ) -> Result<Option<Self>, StoreError> {
        if !who.is_blind {
            return Ok(None);
        }
        let game_day = match stream {
            NoteStream::GameDay => Some(id.to_owned()),
            NoteStream::Run => service
                .store()
                .game_day_of_run(id)?
                .map(|link| link.game_day),
        };
        Ok(Some(match game_day {
            Some(game_day) => {
                BlindView::of_game_day(service, who, &service.held_game_day(&game_day)?)
            }
            None => BlindView {
                hidden: HiddenWords::default(),
                duties: BTreeSet::new(),
            },
        }))
    }

    /// The view of a participant on a game day.
    pub(super) fn of_game_day(service: &Service, who: &Actor, held: &HeldGameDay) -> Self {
        let duties = held.progress.duties.iter();
        let duties = duties.filter(|(_, names)| names.contains(&who.person));
        BlindView {
            hidden: service.hidden_words(held),
            duties: duties.map(|(duty, _)| *duty).collect(),
        }
    }

    /// Whether the step of this number is revealed.
    pub(super) fn is_revealed(&self, step: u32) -> bool {
        !self.hidden.steps.contains(&step)
    }

    /// Whether everything is revealed.
    pub(super) fn is_open(&self) -> bool {
        self.hidden.steps.is_empty()
    }

    /// Whether the reader gets a prompt for the holders of this duty.
    pub(super) fn gets_prompt(&self, to: Option<Duty>) -> bool {
        to.is_none_or(|duty| self.duties.contains(&duty))
    }

    /// A text without the words that are not revealed.
    pub(super) fn text(&self, text: &str) -> String {
        self.hidden.text(text)
    }

    fn hide_in(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_in(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.hide_in(field)),
            _ => {}
        }
    }

    /// What the reader sees of an entry; none if nothing.
    pub(super) fn note(&self, entry: &RunNoteEntry, mut shown: RunNoteInfo) -> Option<RunNoteInfo> {
        let body = &entry.note.body;
        let step = body["step"]
            .as_u64()
            .and_then(|step| u32::try_from(step).ok());
        match entry.note.kind.as_str() {
            "note" if body["facilitators"] == true => return None,
            // It names the agents that were hit.
            "cleaned" if !self.is_open() => return None,
            "prompt" => {
                let to = body["to"].as_str().and_then(Duty::from_word);
                if !self.gets_prompt(to) {
                    return None;
                }
            }
            "state" if step.is_some_and(|step| !self.is_revealed(step)) => {
                if let Some(fields) = shown.body.as_object_mut() {
                    fields.retain(|key, _| ["state", "step", "run"].contains(&key.as_str()));
                }
            }
            _ => {}
        }
        self.hide_in(&mut shown.body);
        // A hash of what is hidden would let the reader try out guesses.
        shown.previous.clear();
        shown.hash.clear();
        Some(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_open_operation_exists_and_metrics_of_runs_are_closed() {
        let description = crate::api::description();
        for (method, path) in OPEN_OPERATIONS {
            let operation = &description["paths"][path][method.to_lowercase()];
            assert!(operation.is_object(), "{method} {path}");
        }
        let text = "# TYPE backburn_halted gauge\nbackburn_halted 0\nbackburn_runs_open 1\nbackburn_store_errors_total{kind=\"io\"} 0\nbackburn_halted_x 1\n# EOF\n";
        let open = "# TYPE backburn_halted gauge\nbackburn_halted 0\nbackburn_store_errors_total{kind=\"io\"} 0\n# EOF\n";
        assert_eq!(open_metrics(text), open);
    }
}
