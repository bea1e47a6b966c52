//! Reads a journal line by line and makes a report of it.

use super::model::{TargetReach, TimelineItem, TimelineSource};
use super::series::{ProbeSeries, ToleranceBand};
use super::timeline;
use crate::journal_line::{JournalLine, SampleLine};
use backburn_experiments::journal::{Event, JournalEntry, Judgement, Run};
use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use std::collections::BTreeMap;

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
    pub(super) planned: BTreeMap<(String, String), Vec<String>>,
    /// When the end of each injection was reported, in seconds.
    pub(super) ends: BTreeMap<String, f64>,
    /// When the first failed check of the hypothesis was answered after a fault had been injected, in seconds.
    pub(super) first_failure: Option<f64>,
    pub(super) timeline: Vec<TimelineItem>,
    pub(super) changes_left_out: usize,
    pub(super) sha256: Option<String>,
    pub(super) program: String,
    pub(super) hash: Context,
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
            first_failure: None,
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
        // Nobody can know of a failure before its answer is in.
        if self.first_failure.is_none()
            && sample.hypothesis
            && sample.judgement == Judgement::Outside
            && (self.run.injections.values()).any(|injection| injection.since.is_some())
        {
            self.first_failure = Some(sample.elapsed);
        }
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
