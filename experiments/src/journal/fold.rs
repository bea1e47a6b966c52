//! A run, as its journal tells it. `Run::apply` is the one transition function: the runner calls
//! it before it acts on an event, and whoever reads an old journal calls it again. An event that
//! cannot follow what came before is an error, so that a journal never says what cannot be.

use super::{
    Abort, AbortBy, ActivityStatus, Event, HypothesisTiming, JournalEntry, Judgement, Phase,
};
use crate::HumanDuration;
use crate::wire::{Effect, EndedInjection, InjectionId, PlanView, UnrevertedInjection};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// An event that cannot follow what came before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {number} of the journal cannot stand there: {why}")]
pub struct IllegalEvent {
    /// Which event, from 1.
    pub number: usize,
    /// Why the event cannot follow.
    pub why: String,
}

/// What is known of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Run {
    /// Its id; empty before the first event.
    pub id: String,
    /// Title of the experiment.
    pub title: String,
    /// What every pick comes from.
    pub seed: u64,
    /// When the hypothesis is looked at.
    #[serde(rename = "looks")]
    pub hypothesis_timing: Option<HypothesisTiming>,
    /// How soon the hypothesis must hold again.
    pub recovery_within: Option<HumanDuration>,
    /// The name of the token that approved the run, where an approval was required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// The phase it is in.
    pub phase: Option<Phase>,
    /// The hypothesis' probes and how they fared.
    pub probes: BTreeMap<String, ProbeRecord>,
    /// Every injection that was asked for.
    pub injections: BTreeMap<InjectionId, InjectionRecord>,
    /// Rule, reason and hint, where nothing was started.
    pub not_started: Option<(String, String, Option<String>)>,
    /// Why it was ended; the first is what ended it.
    pub aborts: Vec<Abort>,
    /// Activities that failed or were judged, with what is to be said of them.
    pub activities: Vec<ActivityRecord>,
    /// Agents that were lost, and how we know.
    pub lost: Vec<(String, String)>,
    /// What agents could not put back of others that died before.
    pub owed: Vec<UnrevertedInjection>,
    /// The agent that reported each of these, by the id of the injection.
    pub owed_by: BTreeMap<InjectionId, String>,
    /// How long after the last revert the hypothesis held again; or that it did not.
    pub recovery: Option<Result<HumanDuration, HumanDuration>>,
    /// Why it could not go on, where whoever drove it died.
    pub interrupted: Option<String>,
    /// Whether the last event has come.
    pub ended: bool,
    /// The number of events.
    pub events: usize,
    /// Seconds from the first event to the last.
    pub elapsed: f64,
}

/// How a hypothesis probe fared.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ProbeRecord {
    /// Judgements in each phase where it was looked at.
    pub before: SampleCounts,
    /// While the method went on.
    pub during: SampleCounts,
    /// Checks after the method.
    pub after: SampleCounts,
    /// How the last check was judged, if there was one.
    pub last: Option<Judgement>,
    /// Why it was outside or unknown, the first time.
    pub why: Option<String>,
    /// When it was out of tolerance, from the first such sample's start to the next good one's.
    pub outages: Vec<Outage>,
}

/// How many samples were judged what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct SampleCounts {
    pub within: usize,
    pub outside: usize,
    pub unknown: usize,
}

impl SampleCounts {
    /// How many samples say something about the system: a broken check does not.
    pub fn judged(self) -> usize {
        self.within + self.outside
    }
}

/// A time out of tolerance, in seconds since the run started.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, serde::Deserialize)]
pub struct Outage {
    /// The start of the first sample outside.
    pub from: f64,
    /// The start of the next sample within, or the end of the last one outside.
    pub until: f64,
    /// Whether it was over.
    pub over: bool,
}

/// What the journal says of one injection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InjectionRecord {
    /// Name of the action that injects.
    pub activity: String,
    /// Name of the fault.
    pub fault: String,
    /// Name of the agent that injects.
    pub agent: String,
    /// How long the fault acts; none for a one-shot fault, and in journals of earlier versions.
    pub duration: Option<HumanDuration>,
    /// Whether the fault is over once it is done.
    pub one_shot: bool,
    /// When the agent had injected it, in seconds since the run started; none before that.
    pub since: Option<f64>,
    /// How far the injection has come.
    pub state: InjectionState,
    /// Whether it was ever seen to act.
    pub acted: bool,
    /// What was seen last.
    pub effect: Option<Effect>,
    /// What was done, once the agent has said so.
    pub plan: Option<PlanView>,
    /// Why it could not be injected, where the agent tried and failed; what it had done of it is in the state.
    pub failure: Option<String>,
}

/// Where an injection stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InjectionState {
    /// Asked for: it may be owed.
    Requested,
    /// The fault acts on the host.
    Acting,
    /// Not done, and nothing is left of it.
    Refused,
    /// The fault has ended, with what is left of it.
    Ended(EndedInjection),
}

/// An activity that ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActivityRecord {
    /// The phase in which the activity runs.
    pub phase: Phase,
    /// Name of the activity.
    pub name: String,
    /// How the activity went.
    pub status: ActivityStatus,
    /// The judgement, where it has a tolerance.
    pub judgement: Option<Judgement>,
    /// Why the activity failed, if it did.
    pub why: Option<String>,
}

impl Run {
    /// The run that these entries tell.
    ///
    /// # Errors
    /// The first event that cannot stand where it does.
    pub fn fold<'a>(
        entries: impl IntoIterator<Item = &'a JournalEntry>,
    ) -> Result<Run, IllegalEvent> {
        let mut run = Run::default();
        for entry in entries {
            run.apply(entry)?;
        }
        Ok(run)
    }

    /// Whether this injection was asked for and is not known to be over.
    pub fn is_open(&self, injection: &str) -> bool {
        self.injections
            .get(injection)
            .is_some_and(|i| matches!(i.state, InjectionState::Requested | InjectionState::Acting))
    }

    /// The injections that were asked for and are not known to be over.
    pub fn open(&self) -> impl Iterator<Item = (&InjectionId, &InjectionRecord)> {
        self.injections.iter().filter(|(id, _)| self.is_open(id))
    }

    /// Goes one event on.
    ///
    /// # Errors
    /// The event cannot follow what came before; the run is as it was.
    pub fn apply(&mut self, entry: &JournalEntry) -> Result<(), IllegalEvent> {
        self.permits(&entry.event).map_err(|why| IllegalEvent {
            number: self.events + 1,
            why,
        })?;
        self.events += 1;
        self.elapsed = entry.elapsed;
        match &entry.event {
            Event::RunStarted {
                run,
                title,
                seed,
                hypothesis,
                hypothesis_timing,
                recovery_within,
                approved_by,
                ..
            } => {
                self.approved_by.clone_from(approved_by);
                self.id.clone_from(run);
                self.title.clone_from(title);
                self.seed = *seed;
                self.hypothesis_timing = Some(*hypothesis_timing);
                self.recovery_within = *recovery_within;
                self.probes = hypothesis
                    .iter()
                    .map(|name| (name.clone(), ProbeRecord::default()))
                    .collect();
            }
            Event::AgentJoined {
                agent,
                owed,
                recovered,
            } => {
                // A second start of a lost agent settles what the first one owed.
                for ended in recovered {
                    self.end(ended);
                }
                self.owed.extend(owed.iter().cloned());
                let owing = owed.iter().map(|owed| owed.injection.clone());
                self.owed_by.extend(owing.map(|id| (id, agent.clone())));
            }
            Event::TargetPicked { .. } | Event::Planned { .. } | Event::ActivityStarted { .. } => {}
            Event::PhaseStarted { phase } => self.phase = Some(*phase),
            Event::NotStarted { rule, reason, hint } => {
                self.not_started = Some((rule.clone(), reason.clone(), hint.clone()));
            }
            Event::Sampled {
                phase,
                probe,
                hypothesis: true,
                judgement,
                why,
                took,
                ..
            } => {
                if let Some(record) = self.probes.get_mut(probe) {
                    record.sample(*phase, *judgement, why.as_deref(), entry.elapsed, took.0);
                }
            }
            Event::Sampled { .. } => {}
            Event::ActivityFinished {
                phase,
                activity,
                status,
                judgement,
                why,
                ..
            } => {
                self.activities.push(ActivityRecord {
                    phase: *phase,
                    name: activity.clone(),
                    status: *status,
                    judgement: *judgement,
                    why: why.clone(),
                });
            }
            Event::InjectionRequested {
                injection,
                activity,
                fault,
                agent,
                duration,
                one_shot,
            } => {
                self.injections.insert(
                    injection.clone(),
                    InjectionRecord {
                        activity: activity.clone(),
                        fault: fault.clone(),
                        agent: agent.clone(),
                        duration: *duration,
                        one_shot: *one_shot,
                        since: None,
                        state: InjectionState::Requested,
                        acted: false,
                        effect: None,
                        plan: None,
                        failure: None,
                    },
                );
            }
            Event::InjectionRefused { injection, refusal } => {
                self.change(injection, |i| match i.state {
                    InjectionState::Requested => i.state = InjectionState::Refused,
                    // What failed while it was being injected has ended before it is refused.
                    _ => {
                        let hint = refusal.hint.as_ref().map(|hint| format!("\nhint: {hint}"));
                        i.failure = Some(refusal.what.clone() + &hint.unwrap_or_default());
                    }
                });
            }
            Event::Injected { injection, plan } => self.change(injection, |i| {
                i.plan = Some(plan.clone());
                i.since = Some(entry.elapsed);
                if i.state == InjectionState::Requested {
                    i.state = InjectionState::Acting;
                }
            }),
            Event::EffectSeen { injection, effect } => self.change(injection, |i| {
                i.acted |= effect.acts;
                i.effect = Some(effect.clone());
            }),
            Event::InjectionEnded(ended) => self.end(ended),
            Event::Aborted(abort) => self.aborts.push(abort.clone()),
            Event::AgentLost { agent, reason } => self.lost.push((agent.clone(), reason.clone())),
            Event::Recovered { after } => self.recovery = Some(Ok(*after)),
            Event::NotRecovered { within } => self.recovery = Some(Err(*within)),
            Event::Interrupted { reason } => self.interrupted = Some(reason.clone()),
            Event::RunEnded => self.ended = true,
        }
        Ok(())
    }

    /// The agent on whose host this injection is or was.
    pub fn agent_of(&self, injection: &str) -> Option<&str> {
        let own = self.injections.get(injection).map(|found| &found.agent);
        own.or_else(|| self.owed_by.get(injection))
            .map(String::as_str)
    }

    fn change(&mut self, injection: &str, with: impl FnOnce(&mut InjectionRecord)) {
        if let Some(found) = self.injections.get_mut(injection) {
            with(found);
        }
    }

    fn end(&mut self, ended: &EndedInjection) {
        self.change(&ended.injection, |i| {
            if let Some(effect) = &ended.effect {
                i.acted |= effect.acts;
                i.effect = Some(effect.clone());
            }
            i.state = InjectionState::Ended(ended.clone());
        });
    }

    /// Whether an event may follow.
    fn permits(&self, event: &Event) -> Result<(), String> {
        if self.ended {
            return Err("the run was over".into());
        }
        if matches!(event, Event::RunStarted { .. }) != (self.events == 0) {
            return Err("a run starts once, with its first event".into());
        }
        let known = |injection: &str| {
            self.injections
                .get(injection)
                .ok_or_else(|| format!("injection `{injection}` was never asked for"))
        };
        match event {
            Event::PhaseStarted { phase } => self.permits_phase(*phase),
            Event::NotStarted { .. } if !self.injections.is_empty() => {
                Err("something was injected already".into())
            }
            Event::Sampled {
                probe,
                hypothesis: true,
                ..
            } if !self.probes.contains_key(probe) => {
                Err(format!("`{probe}` is no probe of the hypothesis"))
            }
            Event::InjectionRequested { injection, .. } => {
                if self.phase != Some(Phase::Method) {
                    Err("faults are injected in the method only".into())
                } else if !self.aborts.is_empty() || self.not_started.is_some() {
                    Err("nothing new starts in a run that was ended".into())
                } else if self.injections.contains_key(injection) {
                    Err(format!(
                        "injection `{injection}` was asked for before: nothing is ever re-injected"
                    ))
                } else {
                    Ok(())
                }
            }
            Event::Injected { injection, .. } => match known(injection)?.state {
                InjectionState::Requested => Ok(()),
                _ => Err(format!("injection `{injection}` was answered before")),
            },
            Event::InjectionRefused { injection, .. } => match known(injection)?.state {
                // A failed inject is reverted first, and its end told first.
                InjectionState::Requested | InjectionState::Ended(_) => Ok(()),
                _ => Err(format!("injection `{injection}` was answered before")),
            },
            Event::EffectSeen { injection, .. } => known(injection).map(|_| ()),
            Event::InjectionEnded(ended) => match &known(&ended.injection)?.state {
                InjectionState::Ended(before) if before.clean => {
                    Err(format!("injection `{}` had ended", ended.injection))
                }
                InjectionState::Refused => {
                    Err(format!("injection `{}` never began", ended.injection))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn permits_phase(&self, next: Phase) -> Result<(), String> {
        use Phase::{After, Gate, Method, Revert, Rollbacks};
        let allowed = match self.phase {
            None => matches!(next, Gate | Method),
            Some(Gate) => next == Method,
            Some(Method) => next == Revert,
            // After a fault, rollbacks come before the last look; without one, as in the Chaos
            // Toolkit, after it.
            Some(Revert) => matches!(next, Rollbacks | After),
            Some(Rollbacks) => next == After,
            Some(After) => next == Rollbacks,
        };
        if allowed {
            Ok(())
        } else {
            Err(format!("phase {next:?} does not follow {:?}", self.phase))
        }
    }
}

impl ProbeRecord {
    fn sample(
        &mut self,
        phase: Phase,
        judgement: Judgement,
        why: Option<&str>,
        at: f64,
        took: Duration,
    ) {
        let tally = match phase {
            Phase::Gate => &mut self.before,
            Phase::Method | Phase::Revert => &mut self.during,
            Phase::Rollbacks | Phase::After => &mut self.after,
        };
        match judgement {
            Judgement::Within => tally.within += 1,
            Judgement::Outside => tally.outside += 1,
            Judgement::Unknown => tally.unknown += 1,
        }
        if judgement != Judgement::Within && self.why.is_none() {
            self.why = why.map(str::to_owned);
        }
        let start = (at - took.as_secs_f64()).max(0.0);
        let going_on = self.outages.last_mut().filter(|outage| !outage.over);
        match (judgement, going_on) {
            (Judgement::Outside, Some(outage)) => outage.until = at,
            (Judgement::Outside, None) => self.outages.push(Outage {
                from: start,
                until: at,
                over: false,
            }),
            (Judgement::Within, Some(outage)) => {
                outage.until = start.max(outage.from);
                outage.over = true;
            }
            // What is unknown neither ends an outage nor lengthens it.
            (Judgement::Unknown, _) | (Judgement::Within, None) => {}
        }
        self.last = Some(judgement);
    }
}

impl AbortBy {
    /// Whether the run was ended by what it set out to find.
    pub fn is_finding(self) -> bool {
        self == AbortBy::Hypothesis
    }
}
