//! Reads a journal line by line and makes a report of it.

use super::journal_line::{JournalLine, SampleLine};
use super::model::{
    FaultHit, ReportContext, Rerun, RunReport, TargetReach, TimelineItem, TimelineSource,
};
use super::series::{ProbeSeries, ToleranceBand};
use super::{ReportEvidence, summary, timeline};
use crate::store::Hash;
use backburn_experiments::journal::{
    Event, InjectionRecord, InjectionState, JournalEntry, Judgement, Run, verdict,
};
use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use std::collections::BTreeMap;

/// The most columns of all plots together: more would not be seen, and make the file large.
const MAX_COLUMNS: usize = 4800;
/// The most columns of one plot.
const MAX_COLUMNS_PER_PLOT: usize = 240;
/// The fewest columns of one plot.
const MIN_COLUMNS_PER_PLOT: usize = 60;
/// The most changes of one probe in the timeline: those of a probe that flaps would hide all else.
const MAX_CHANGES_PER_PROBE: usize = 12;

/// What a journal says, as far as it was read.
pub struct ReportBuilder {
    pub(super) run: Run,
    pub(super) started: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
    pub(super) question: Option<String>,
    pub(super) targets: Vec<TargetReach>,
    pub(super) series: BTreeMap<String, ProbeSeries>,
    /// The names of the activities that began, in their order.
    pub(super) activities: Vec<String>,
    /// What each action was to hit on each agent, by the plans before the run.
    planned: BTreeMap<(String, String), Vec<String>>,
    /// When the end of each injection was reported, in seconds.
    ends: BTreeMap<String, f64>,
    timeline: Vec<TimelineItem>,
    changes_left_out: usize,
    sha256: Option<String>,
    program: String,
    hash: Context,
}

impl Default for ReportBuilder {
    fn default() -> Self {
        ReportBuilder {
            run: Run::default(),
            started: None,
            ended: None,
            question: None,
            targets: Vec::new(),
            series: BTreeMap::new(),
            activities: Vec::new(),
            planned: BTreeMap::new(),
            ends: BTreeMap::new(),
            timeline: Vec::new(),
            changes_left_out: 0,
            sha256: None,
            program: String::new(),
            hash: Context::new(&SHA256),
        }
    }
}

impl ReportBuilder {
    /// Takes in the next line of the journal, without its line break.
    ///
    /// # Errors
    /// It is not an event, or cannot follow what came before. What came before can still be reported.
    pub fn line(&mut self, text: &str) -> Result<(), String> {
        let number = self.run.events + 1;
        match JournalLine::read(text).map_err(|why| format!("line {number} is {why}"))? {
            JournalLine::Sample(sample) => self.sample(&sample)?,
            JournalLine::Other(entry) => self.entry(&entry)?,
        }
        self.hash.update(text.as_bytes());
        self.hash.update(b"\n");
        Ok(())
    }

    /// Whether the run's last event was read.
    pub fn is_over(&self) -> bool {
        self.run.ended
    }

    fn sample(&mut self, sample: &SampleLine<'_>) -> Result<(), String> {
        let last = self
            .series
            .get(&*sample.probe)
            .and_then(|series| series.last);
        let is_change = last != Some(sample.judgement)
            && (last.is_some() || sample.judgement != Judgement::Within);
        // Only the times of changes are shown.
        let at = match is_change {
            true => sample.at.parse().map_err(|error| format!("{error}"))?,
            false => Timestamp::UNIX_EPOCH,
        };
        let entry = sample.entry(at);
        self.run.apply(&entry).map_err(|error| error.to_string())?;
        let series = match self.series.get_mut(&*sample.probe) {
            Some(series) => series,
            None => (self.series)
                .entry(sample.probe.clone().into_owned())
                .or_default(),
        };
        series.is_hypothesis = sample.hypothesis;
        series.last = Some(sample.judgement);
        series.push(sample);
        if is_change {
            series.changes += 1;
            match series.changes <= MAX_CHANGES_PER_PROBE {
                true => self.timeline.push(timeline::probe_change(&entry, sample)),
                false => self.changes_left_out += 1,
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &JournalEntry) -> Result<(), String> {
        self.run.apply(entry).map_err(|error| error.to_string())?;
        self.started.get_or_insert(entry.at);
        self.ended = Some(entry.at);
        match &entry.event {
            Event::RunStarted {
                version,
                sha256,
                question,
                tolerances,
                ..
            } => {
                self.program.clone_from(version);
                self.sha256.clone_from(sha256);
                self.question.clone_from(question);
                for (probe, tolerance) in tolerances {
                    let series = self.series.entry(probe.clone()).or_default();
                    series.band = ToleranceBand::of(tolerance);
                }
            }
            Event::TargetPicked {
                target,
                matched,
                picked,
            } => self.targets.push(TargetReach {
                target: target.clone(),
                matched: matched.clone(),
                picked: picked.clone(),
            }),
            Event::Planned {
                activity,
                agent,
                plan,
            } => {
                let names = plan.victims.iter().map(|victim| victim.name.clone());
                (self.planned).insert((activity.clone(), agent.clone()), names.collect());
            }
            Event::ActivityStarted { activity, .. } => self.activities.push(activity.clone()),
            Event::InjectionEnded(ended) => {
                (self.ends).insert(ended.injection.clone(), entry.elapsed);
            }
            _ => {}
        }
        self.timeline.extend(timeline::of_machine(entry));
        Ok(())
    }

    /// The report of what was read.
    pub fn finish(self, context: ReportContext) -> RunReport {
        let verdict = verdict(&self.run);
        let columns = (MAX_COLUMNS / self.series.len().max(1))
            .clamp(MIN_COLUMNS_PER_PLOT, MAX_COLUMNS_PER_PLOT);
        let plots = (self.series.iter())
            .filter(|(_, series)| series.last.is_some())
            .map(|(probe, series)| series.plot(probe, self.run.elapsed, columns))
            .collect();
        let hits: Vec<FaultHit> = (self.run.injections.iter())
            .map(|(id, record)| self.hit(id, record))
            .collect();
        let mut items = self.timeline.clone();
        items.extend(timeline::of_notes(&context.notes, self.started));
        // Stable: what happened at one time stays in the order in which it was written.
        items.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        let evidence = ReportEvidence {
            run: self.run.id.clone(),
            events: self.run.events as u64,
            journal: digest(self.hash.clone()).to_string(),
            notes: context.notes.len() as u64,
            head: (context.notes.last()).map_or(String::new(), |note| note.hash.to_string()),
            actions: context.actions_change,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        RunReport {
            evidence,
            title: self.run.title.clone(),
            question: summary::question(&self, &hits),
            answer: summary::answer(&self.run, &verdict),
            started: self.started,
            ended: self.ended,
            seconds: self.run.elapsed,
            objectives: summary::objectives(&self, &verdict, &hits, &items),
            timeline_left_out: self.changes_left_out,
            timeline: items,
            plots,
            held: summary::held(&self.run, &verdict),
            surprises: summary::surprises(&self.run, &verdict),
            untested: summary::untested(&self, &verdict, &hits),
            rerun: self.rerun(&context),
            targets: self.targets,
            hits,
            verdict,
            actions: context.actions,
            earlier: context.earlier,
        }
    }

    fn hit(&self, id: &str, record: &InjectionRecord) -> FaultHit {
        let key = (record.activity.clone(), record.agent.clone());
        let victims = record.plan.iter().flat_map(|plan| &plan.victims);
        let ended = match &record.state {
            InjectionState::Ended(ended) => Some(ended),
            _ => None,
        };
        let residue = match (&record.state, ended) {
            (_, Some(ended)) => ended.residue.clone(),
            (InjectionState::Refused, _) => vec!["it was refused, and nothing was injected".into()],
            _ => vec!["its end is not known".into()],
        };
        let failure = record.failure.iter().cloned();
        FaultHit {
            injection: id.to_owned(),
            activity: record.activity.clone(),
            fault: record.fault.clone(),
            agent: record.agent.clone(),
            planned: self.planned.get(&key).cloned().unwrap_or_default(),
            victims: victims.map(|victim| victim.name.clone()).collect(),
            from: record.since,
            until: self.ends.get(id).copied(),
            acted: record.acted,
            seen: record.effect.as_ref().map(|effect| effect.seen.clone()),
            cause: ended.map(|ended| summary::cause(ended.cause).to_owned()),
            clean: match record.state {
                InjectionState::Refused => None,
                _ => Some(ended.is_some_and(|ended| ended.clean)),
            },
            revert_seconds: ended.map(|ended| ended.took.0.as_secs_f64()),
            residue: residue.into_iter().chain(failure).collect(),
        }
    }

    fn rerun(&self, context: &ReportContext) -> Rerun {
        let seed = self.run.seed;
        let (experiment, version) = match &context.experiment {
            Some(stored) => (Some(stored.name.clone()), Some(stored.version)),
            None => (None, None),
        };
        let command = match (&experiment, &context.who) {
            (Some(name), _) => format!("backburn run {name} --controller HOST --seed {seed}"),
            (None, Some(_)) => format!("backburn run FILE --controller HOST --seed {seed}"),
            (None, None) => format!("backburn run FILE --seed {seed}"),
        };
        Rerun {
            experiment,
            version,
            sha256: self.sha256.clone(),
            seed,
            program: self.program.clone(),
            command,
        }
    }
}

impl TimelineItem {
    /// A line of the machine.
    pub(super) fn of_machine(entry: &JournalEntry, tone: &'static str, text: String) -> Self {
        TimelineItem {
            at: entry.at,
            seconds: entry.elapsed,
            source: TimelineSource::Machine,
            who: None,
            tone,
            text,
            written: None,
        }
    }
}

fn digest(hash: Context) -> Hash {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Hash(bytes)
}
