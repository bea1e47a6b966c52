//! The run as a state machine: events go in, commands come out, and nothing is waited for. It has no clock, no channel and no
//! task, so that a whole run can be simulated ([`super::simulation`]).
//!
//! Events have one order, which is the journal's: an event is recorded before the command that follows from it, so that the
//! journal is never behind what was done. Whatever ends a fault comes before everything else in a step.
//!
//! Its parts own their state: [`Sampling`] measures probes, [`Activities`] plays the method, [`Agents`] and [`Injections`] know
//! who owes what. The order of a run's stages is in [`stages`]; what agents report is dealt with in [`reports`].

mod absence;
mod activities;
mod agents;
mod ending;
mod event_log;
mod injections;
mod reports;
mod run_stage;
mod sampling;
mod stages;

use absence::Absences;
pub(super) use activities::activities_of;
pub(super) use sampling::sampled_probes;

use super::approval::{PlanFingerprint, RunApproval};
use super::events::{ActivityResult, RunnerCommand, RunnerEvent, Sample, StepTime};
use super::selection::has_fault;
use activities::{Activities, RunningActivity};
use agents::Agents;
use backburn_experiments::HumanDuration;
use backburn_experiments::check::Experiment;
use backburn_experiments::document::Provider;
use backburn_experiments::journal::{Abort, AbortBy, Event, IllegalEvent, Judgement, Phase, Run};
use backburn_experiments::wire::Refusal;
use event_log::EventLog;
use injections::{InjectionDeadline, Injections};
use run_stage::RunStage;
use sampling::Sampling;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long an agent that lives may take to inject: it waits for its turn, looks, and starts helpers.
const INJECT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an injection whose time is over may take to be reverted and reported.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a one-shot fault, which has no duration, may take to end: it may wait for a supervisor to restart its victim, for
/// as long as its author allows.
const ONE_SHOT_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The most characters of a value that an abort's reason quotes.
const MAX_QUOTED_CHARACTERS: usize = 80;

/// What a run is given besides its experiment.
#[derive(Debug, Clone)]
pub(super) struct RunParameters {
    /// The run's id.
    pub(super) run: String,
    /// The seed for random selection.
    pub(super) seed: u64,
    /// The hypothesis' interval while the method runs.
    pub(super) frequency: Duration,
    /// The SHA-256 of the document's text, in hexadecimal, where no name and version identify it.
    pub(super) sha256: Option<String>,
    /// The approval that the run was started with, where one is required.
    pub(super) approval: Option<RunApproval>,
    /// Whether the agents are a fleet's, which have to be selected, and stay when the run is over.
    pub(super) is_fleet: bool,
}

/// One run, from its first event to its last.
pub(super) struct Machine {
    experiment: Arc<Experiment>,
    parameters: RunParameters,
    now: StepTime,
    stage: RunStage,
    log: EventLog,
    /// What the run would do, where it needs an approval.
    fingerprint: PlanFingerprint,
    illegal: Option<IllegalEvent>,
    /// What the current step has come to so far.
    commands: Vec<RunnerCommand>,
    sampling: Sampling,
    activities: Activities,
    agents: Agents,
    injections: Injections,
    /// Agents that are away since the run has their hosts restarted.
    absences: Absences,
    /// How often an operator has asked to end the run.
    stops: usize,
    /// When the last revert was done.
    reverted_at: Option<Duration>,
}

impl Machine {
    pub(super) fn new(mut experiment: Experiment, parameters: RunParameters) -> Self {
        redact_names(&mut experiment);
        Machine {
            now: StepTime {
                elapsed: Duration::ZERO,
                wall: jiff::Timestamp::UNIX_EPOCH,
            },
            stage: RunStage::Created,
            log: EventLog::new(experiment.redactor.clone()),
            fingerprint: PlanFingerprint::default(),
            illegal: None,
            commands: Vec::new(),
            sampling: Sampling::new(&experiment, parameters.frequency),
            activities: Activities::none(),
            agents: Agents::default(),
            injections: Injections::default(),
            absences: Absences::default(),
            stops: 0,
            reverted_at: None,
            experiment: Arc::new(experiment),
            parameters,
        }
    }

    /// The experiment, with the secrets taken out of its activities' names.
    pub(super) fn experiment(&self) -> &Arc<Experiment> {
        &self.experiment
    }

    /// Takes in these events and whatever is due by now. What is to be done about it, in this order.
    ///
    /// Events that are given together share one write to the journal, and the run moves to its next stage only after the last.
    pub(super) fn step(
        &mut self,
        events: impl IntoIterator<Item = RunnerEvent>,
        now: StepTime,
    ) -> Vec<RunnerCommand> {
        self.now = now;
        for event in events {
            self.handle(event);
        }
        loop {
            self.handle_due();
            if !self.advance() {
                break;
            }
        }
        self.flush();
        std::mem::take(&mut self.commands)
    }

    /// When the next step is due even if nothing happens.
    pub(super) fn next_due(&self) -> Option<Duration> {
        [
            self.stage.deadline(),
            self.injections.next_due(),
            self.sampling.next_due(),
            self.activities.next_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether the run is over: its last event is recorded.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, RunStage::Ended)
    }

    /// What is known of the run, and the event that could not be recorded, if there was one.
    pub(super) fn into_run(self) -> (Run, Option<IllegalEvent>) {
        (self.log.run, self.illegal)
    }

    fn handle(&mut self, event: RunnerEvent) {
        if self.has_ended() {
            // The journal lacks the run's last entries.
            if let RunnerEvent::JournalFailed(why) = event {
                let number = self.log.run.events;
                self.illegal.get_or_insert(IllegalEvent { number, why });
            }
            return;
        }
        match event {
            RunnerEvent::Started => self.start(),
            RunnerEvent::StopRequested(by) => {
                self.stops += 1;
                if self.stops == 1 {
                    self.abort(AbortBy::Operator, "operator", by);
                }
            }
            RunnerEvent::ProgramsChecked(missing) => self.programs_checked(&missing),
            RunnerEvent::Discovered(found) => self.discovered(found),
            RunnerEvent::Reserved(joined) => self.reserved(joined),
            RunnerEvent::Planned { index, outcome } => self.planned(index, outcome),
            RunnerEvent::Sampled(sample) => self.sampled(sample),
            RunnerEvent::ActivityFinished {
                phase,
                index,
                result,
            } => {
                if phase == self.activities.phase() {
                    self.finish_activity(index, result);
                }
            }
            RunnerEvent::Agent {
                agent,
                connection,
                report,
            } => {
                // An agent that was lost may still have had something to say: its successor's ledger has the last word.
                if self.agents.reports_over(&agent, connection) {
                    self.reported(&agent, report);
                }
            }
            RunnerEvent::Reconnected { agent, outcome } => self.reconnected(&agent, outcome),
            RunnerEvent::JournalFailed(why) => self.abort(AbortBy::Journal, "journal", why),
            RunnerEvent::InjectionLeftOut { agent, injection } => {
                let what = "it was not sent: the journal could not be written";
                self.refused(&agent, &injection, Refusal::new("journal", what));
            }
        }
    }

    /// Deals with whatever is due by now.
    fn handle_due(&mut self) {
        while let Some(deadline) = self.injections.take_passed(self.now.elapsed) {
            self.deadline_passed(deadline);
        }
        // Nothing new is begun in a method that is being ended.
        if matches!(self.stage, RunStage::Method) && self.is_over() {
            return;
        }
        for probe in self.sampling.take_due(self.now.elapsed) {
            let epoch = self.sampling.epoch();
            self.commands.push(RunnerCommand::Sample { epoch, probe });
        }
        while let Some(index) = self.activities.take_ready(self.now.elapsed) {
            self.begin_activity(index);
        }
    }

    /// Records an event, and has it written before anything else is done. False where it may not follow what came before.
    fn record(&mut self, event: Event) -> bool {
        let is_legal = self.record_buffered(event);
        self.flush();
        is_legal
    }

    /// Records an event that is written with the next one, at the end of the step at the latest. For events that come in
    /// crowds. False where it may not follow what came before.
    fn record_buffered(&mut self, event: Event) -> bool {
        match self.log.append(event, self.now) {
            Ok(()) => true,
            Err(illegal) => {
                let is_first = self.illegal.is_none();
                let why = illegal.to_string();
                self.illegal.get_or_insert(illegal);
                if is_first {
                    self.abort(AbortBy::Journal, "journal", why);
                }
                false
            }
        }
    }

    /// Has everything written that was recorded.
    fn flush(&mut self) {
        let entries = self.log.take_unwritten();
        if !entries.is_empty() {
            self.commands.push(RunnerCommand::Append(entries));
        }
    }

    /// Gives a command that may not be done before what was recorded is written.
    fn command_after_journal(&mut self, command: RunnerCommand) {
        self.flush();
        self.commands.push(command);
    }

    /// Whether nothing new may be started.
    fn is_over(&self) -> bool {
        self.log.run.not_started.is_some() || !self.log.run.aborts.is_empty()
    }

    fn not_started(&mut self, rule: &str, reason: impl Into<String>, hint: Option<String>) {
        if self.log.run.not_started.is_none() {
            self.record(Event::NotStarted {
                rule: rule.into(),
                reason: reason.into(),
                hint,
            });
        }
    }

    /// Ends the run at once: whatever acts is told to end before anything else is done.
    fn abort(&mut self, by: AbortBy, rule: &str, reason: impl Into<String>) {
        let is_first = self.log.run.aborts.is_empty();
        let aborted = Event::Aborted(Abort {
            by,
            rule: rule.into(),
            reason: reason.into(),
        });
        match is_first {
            true => self.record(aborted),
            // The end of a fleet's run may have very many reasons.
            false => self.record_buffered(aborted),
        };
        self.revert_all();
        if is_first {
            self.stop_activities();
        }
    }

    /// Tells every agent that was asked to inject to revert everything, once.
    fn revert_all(&mut self) {
        let told = self.agents.take_to_revert();
        let commands = told
            .into_iter()
            .map(|agent| RunnerCommand::RevertAll { agent });
        self.commands.extend(commands);
    }

    fn begin_activity(&mut self, index: usize) {
        let phase = self.activities.phase();
        let experiment = Arc::clone(&self.experiment);
        let Some(activity) = activities_of(&experiment, phase).get(index) else {
            return;
        };
        let began = self.record_buffered(Event::ActivityStarted {
            phase,
            index,
            activity: activity.name.clone(),
            background: activity.background,
        });
        if !began {
            return;
        }
        (self.activities).begin(index, activity.name.clone(), self.now.elapsed);
        if experiment.is_dry(activity) {
            self.finish_activity(index, ActivityResult::succeeded(Value::Null));
        } else if let Provider::Fault(_) = activity.provider {
            self.inject(index);
        } else {
            self.command_after_journal(RunnerCommand::StartActivity { phase, index });
        }
    }

    fn finish_activity(&mut self, index: usize, result: ActivityResult) {
        if let Some(running) = self.activities.finish(index, self.now.elapsed) {
            self.activity_finished(index, &running, result);
        }
    }

    /// Ends the activities that run; nothing more begins.
    fn stop_activities(&mut self) {
        for (index, running) in self.activities.stop() {
            (self.commands).push(RunnerCommand::CancelActivity { index });
            self.activity_finished(index, &running, ActivityResult::aborted());
        }
    }

    fn activity_finished(
        &mut self,
        index: usize,
        running: &RunningActivity,
        result: ActivityResult,
    ) {
        let took = self.now.elapsed.saturating_sub(running.began).as_micros();
        self.record_buffered(Event::ActivityFinished {
            phase: self.activities.phase(),
            index,
            activity: running.name.clone(),
            status: result.status,
            output: result.output,
            why: result.why,
            judgement: result.judgement,
            took: HumanDuration(Duration::from_micros(
                u64::try_from(took).unwrap_or(u64::MAX),
            )),
        });
    }

    /// Asks for every injection of this activity, as it was planned.
    fn inject(&mut self, activity: usize) {
        let requests = self.injections.of_activity(activity);
        let experiment = Arc::clone(&self.experiment);
        let radius = experiment.document.blast_radius.as_ref();
        let open = self.log.run.open().count();
        if let Some(most) = radius
            .and_then(|radius| radius.concurrent_faults)
            .filter(|most| open + requests.len() > *most as usize)
        {
            let reason = format!(
                "{} faults at a time, where the blast radius allows {most}",
                open + requests.len()
            );
            return self.abort(AbortBy::BlastRadius, "blast-radius", reason);
        }
        if requests
            .iter()
            .any(|(agent, _)| self.agents.get(agent).is_none())
        {
            let result = ActivityResult::failed("no agent takes part");
            return self.finish_activity(activity, result);
        }
        let name = experiment.method.get(activity);
        let name = name.map(|activity| activity.name.clone());
        // All of them are recorded, by one write, before the first is asked for.
        for (agent, request) in &requests {
            let is_legal = self.record_buffered(Event::InjectionRequested {
                injection: request.id.clone(),
                activity: name.clone().unwrap_or_default(),
                fault: request.fault.clone(),
                agent: agent.clone(),
                duration: request.duration,
                one_shot: request.duration.is_none(),
            });
            if !is_legal {
                return;
            }
        }
        let longest = radius.and_then(|radius| radius.duration);
        if let (true, Some(longest)) = (self.injections.is_empty(), longest) {
            let at = self.now.elapsed.saturating_add(longest.0);
            (self.injections).add_deadline(at, InjectionDeadline::BlastRadius(longest));
        }
        let answer_by = self.now.elapsed + INJECT_TIMEOUT;
        for (agent, request) in requests {
            self.agents.ask(&agent, request.id.clone());
            (self.injections).ask(activity, agent.clone(), &request, answer_by);
            self.command_after_journal(RunnerCommand::Inject { agent, request });
        }
    }

    fn deadline_passed(&mut self, deadline: InjectionDeadline) {
        let (injection, is_end) = match &deadline {
            InjectionDeadline::BlastRadius(longest) => {
                if !self.is_over() && self.log.run.phase == Some(Phase::Method) {
                    let reason = format!("the run's {longest} were over");
                    self.abort(AbortBy::BlastRadius, "blast-radius", reason);
                }
                return;
            }
            InjectionDeadline::Answer(injection) => (injection, false),
            InjectionDeadline::End(injection) => (injection, true),
        };
        let found = self.log.run.injections.get(injection);
        let is_acting = found.is_some_and(|found| found.plan.is_some());
        // Only what nothing was heard of, or what should be over, is late.
        if !self.log.run.is_open(injection) || self.is_over() || is_end != is_acting {
            return;
        }
        let why = match is_end {
            false => format!("no answer within {}", HumanDuration(INJECT_TIMEOUT)),
            true => {
                let lasts = HumanDuration(self.longest(injection));
                let within = HumanDuration(lasts.0 + END_TIMEOUT);
                format!("it should have ended after {lasts}, and has not after {within}")
            }
        };
        let reason = format!("injection `{injection}`: {why}");
        self.abort(AbortBy::Agent, "agent", reason);
    }

    /// How long an injection may act at the most.
    fn longest(&self, injection: &str) -> Duration {
        let active = self.injections.get(injection);
        let duration = active.and_then(|active| active.duration);
        duration.map_or(ONE_SHOT_TIMEOUT, |HumanDuration(duration)| duration)
    }

    fn sampled(&mut self, sample: Sample) {
        let Sample {
            epoch,
            probe,
            judgement,
            output,
            why,
            took,
        } = sample;
        let Some(began) = self.sampling.finish(epoch, probe, judgement) else {
            return;
        };
        let (Some((name, hypothesis)), Some(phase)) =
            (self.sampling.probe(probe), self.stage.sampled_phase())
        else {
            return;
        };
        let name = name.to_owned();
        let seen = why.clone().unwrap_or_else(|| brief(&output));
        self.record(Event::Sampled {
            phase,
            probe: name.clone(),
            hypothesis,
            judgement,
            output,
            why,
            took: HumanDuration(took),
        });
        if !matches!(self.stage, RunStage::Method) || self.is_over() {
            return;
        }
        if let Some(rule) = self.sampling.triggered(probe, judgement, began) {
            let by = match hypothesis {
                true => AbortBy::Hypothesis,
                false => AbortBy::Probe,
            };
            let often = match rule.in_a_row {
                1 => String::new(),
                times => format!("{times} times in a row, "),
            };
            self.abort(by, &rule.name, format!("probe `{name}`: {often}{seen}"));
        }
    }

    /// A probe without a time-out of its own whose last sample does not end: it did not answer.
    fn give_up_sampling(&mut self, waited: Duration) {
        let hung = self.sampling.under_way();
        self.cancel_sampling();
        for (probe, hypothesis) in hung {
            self.record(Event::Sampled {
                phase: Phase::Method,
                probe,
                hypothesis,
                judgement: Judgement::Outside,
                output: Value::Null,
                why: Some(format!(
                    "no answer within {} after everything was reverted",
                    HumanDuration(waited)
                )),
                took: HumanDuration(waited),
            });
        }
    }

    fn cancel_sampling(&mut self) {
        self.sampling.cancel();
        self.commands.push(RunnerCommand::CancelSamples);
    }

    /// Whether the method injects anything.
    fn has_fault(&self) -> bool {
        has_fault(&self.experiment)
    }
}

/// The journal tells activities apart by their names, so secrets in names are taken out before the run begins.
fn redact_names(experiment: &mut Experiment) {
    let Experiment {
        hypothesis,
        method,
        rollbacks,
        abort,
        redactor,
        ..
    } = experiment;
    let activities = hypothesis
        .iter_mut()
        .chain(method)
        .chain(rollbacks)
        .map(|activity| &mut activity.name);
    for name in activities.chain(abort.iter_mut().map(|rule| &mut rule.name)) {
        *name = redactor.text(name).into_owned();
    }
}

/// A value in a few words.
fn brief(value: &Value) -> String {
    match value.get("status") {
        Some(status) => format!("status {status}"),
        None => cut(value.to_string()),
    }
}

fn cut(text: String) -> String {
    if text.chars().count() <= MAX_QUOTED_CHARACTERS {
        text
    } else {
        let start = text.chars().take(MAX_QUOTED_CHARACTERS);
        start.chain(['…']).collect()
    }
}
