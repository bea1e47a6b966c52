//! The run's events on their way to the journal: each is folded into the run first, which says whether it may follow what came
//! before, and loses the secrets that it quotes. Events that come together, from many agents, are written together.

use crate::runner::events::StepTime;
use backburn_experiments::journal::{Event, IllegalEvent, JournalEntry, Run};
use backburn_experiments::redact::Redactor;
use backburn_experiments::wire::{Effect, EndedInjection, PlanView, Refusal, UnrevertedInjection};
use serde_json::Value;

/// The longest text within an output that a journal keeps, in bytes.
const MAX_TEXT_BYTES: usize = 4096;
/// The most members of a list or an object within an output that a journal keeps.
const MAX_MEMBERS: usize = 256;

/// What has happened so far, and what of it is not in the journal yet.
pub(super) struct EventLog {
    pub(super) run: Run,
    redactor: Redactor,
    unwritten: Vec<JournalEntry>,
}

impl EventLog {
    pub(super) fn new(redactor: Redactor) -> Self {
        EventLog {
            run: Run::default(),
            redactor,
            unwritten: Vec::new(),
        }
    }

    /// Takes an event in, to be written with the next entries.
    ///
    /// # Errors
    /// The event cannot follow what came before. That is a bug of the state machine, or of an agent.
    pub(super) fn append(&mut self, mut event: Event, now: StepTime) -> Result<(), IllegalEvent> {
        clean(&mut event, &self.redactor);
        let entry = JournalEntry {
            at: now.wall,
            elapsed: now.elapsed.as_secs_f64(),
            event,
        };
        self.run.apply(&entry)?;
        self.unwritten.push(entry);
        Ok(())
    }

    /// What has to be written now; empty where nothing has.
    pub(super) fn take_unwritten(&mut self) -> Vec<JournalEntry> {
        std::mem::take(&mut self.unwritten)
    }
}

/// Takes secrets out of whatever an event quotes, then shortens it. Names and numbers that Backburn itself made
/// are left alone: a secret `1` must not make a journal unreadable.
fn clean(event: &mut Event, redactor: &Redactor) {
    match event {
        Event::AgentJoined {
            recovered, owed, ..
        } => {
            recovered
                .iter_mut()
                .for_each(|ended| clean_ended(ended, redactor));
            owed.iter_mut().for_each(|owed| clean_owed(owed, redactor));
        }
        Event::Planned { plan, .. } | Event::Injected { plan, .. } => clean_plan(plan, redactor),
        Event::NotStarted { reason, hint, .. } => {
            text(reason, redactor);
            maybe(hint, redactor);
        }
        Event::Sampled { output, why, .. } | Event::ActivityFinished { output, why, .. } => {
            *output = shortened(redactor.value(std::mem::take(output)));
            maybe(why, redactor);
            if let Some(why) = why {
                shorten(why);
            }
        }
        Event::InjectionRefused { refusal, .. } => clean_refusal(refusal, redactor),
        Event::EffectSeen { effect, .. } => clean_effect(effect, redactor),
        Event::InjectionEnded(ended) => clean_ended(ended, redactor),
        Event::Aborted(abort) => text(&mut abort.reason, redactor),
        Event::AgentLost { reason, .. } => text(reason, redactor),
        Event::RunStarted { .. }
        | Event::Interrupted { .. }
        | Event::TargetPicked { .. }
        | Event::PhaseStarted { .. }
        | Event::ActivityStarted { .. }
        | Event::InjectionRequested { .. }
        | Event::Recovered { .. }
        | Event::NotRecovered { .. }
        | Event::RunEnded => {}
    }
}

/// Takes secrets out of a plan.
pub(crate) fn clean_plan(plan: &mut PlanView, redactor: &Redactor) {
    plan.victims
        .iter_mut()
        .for_each(|victim| text(&mut victim.name, redactor));
    for change in &mut plan.changes {
        text(&mut change.apply, redactor);
        text(&mut change.undo, redactor);
        text(&mut change.if_agent_dies, redactor);
    }
    let notes = plan.notes.iter_mut().chain(&mut plan.warnings);
    notes.for_each(|note| text(note, redactor));
}

/// Takes secrets out of a refusal.
pub(crate) fn clean_refusal(refusal: &mut Refusal, redactor: &Redactor) {
    text(&mut refusal.what, redactor);
    maybe(&mut refusal.hint, redactor);
    for problem in &mut refusal.problems {
        text(&mut problem.what, redactor);
        maybe(&mut problem.hint, redactor);
    }
}

fn clean_ended(ended: &mut EndedInjection, redactor: &Redactor) {
    ended
        .residue
        .iter_mut()
        .for_each(|line| text(line, redactor));
    if let Some(effect) = &mut ended.effect {
        clean_effect(effect, redactor);
    }
}

fn clean_owed(owed: &mut UnrevertedInjection, redactor: &Redactor) {
    owed.residue
        .iter_mut()
        .for_each(|line| text(line, redactor));
}

fn clean_effect(effect: &mut Effect, redactor: &Redactor) {
    text(&mut effect.seen, redactor);
}

fn text(text: &mut String, redactor: &Redactor) {
    if let std::borrow::Cow::Owned(redacted) = redactor.text(text) {
        *text = redacted;
    }
}

fn maybe(found: &mut Option<String>, redactor: &Redactor) {
    if let Some(found) = found {
        text(found, redactor);
    }
}

/// Cuts a long text at a character boundary and appends its length.
fn shorten(text: &mut String) {
    if text.len() > MAX_TEXT_BYTES {
        let whole = text.len();
        let end = (0..=MAX_TEXT_BYTES)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
        text.push_str(&format!("… ({whole} bytes)"));
    }
}

fn shortened(value: Value) -> Value {
    match value {
        Value::String(mut text) => {
            shorten(&mut text);
            Value::String(text)
        }
        Value::Array(list) => {
            let whole = list.len();
            let mut kept: Vec<Value> = list.into_iter().take(MAX_MEMBERS).map(shortened).collect();
            if whole > MAX_MEMBERS {
                kept.push(format!("… ({whole} members)").into());
            }
            Value::Array(kept)
        }
        Value::Object(fields) => {
            let whole = fields.len();
            let mut kept: serde_json::Map<String, Value> = fields
                .into_iter()
                .take(MAX_MEMBERS)
                .map(|(key, value)| (key, shortened(value)))
                .collect();
            if whole > MAX_MEMBERS {
                kept.insert("…".into(), format!("({whole} members)").into());
            }
            Value::Object(kept)
        }
        other => other,
    }
}
