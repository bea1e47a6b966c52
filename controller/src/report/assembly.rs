//! Makes a report of a journal that was read: what was hit, in which order things happened, and how to run it again.

use super::builder::ReportBuilder;
use super::model::{FaultHit, ReportContext, Rerun, RunReport};
use super::{ReportEvidence, summary, timeline};
use crate::store::Hash;
use backburn_experiments::journal::{InjectionRecord, InjectionState, verdict};
use ring::digest::Context;

/// The most columns of all plots together: more would not be seen, and make the file large.
const MAX_COLUMNS: usize = 4800;
/// The most columns of one plot.
const MAX_COLUMNS_PER_PLOT: usize = 240;
/// The fewest columns of one plot.
const MIN_COLUMNS_PER_PLOT: usize = 60;
/// The fewest columns of one plot where several runs are reported together.
const MIN_COLUMNS_PER_SMALL_PLOT: usize = 24;

impl ReportBuilder {
    /// The report of what was read.
    pub fn finish(self, context: ReportContext) -> RunReport {
        let verdict = verdict(&self.run);
        let parts = context.parts.max(1);
        let fewest = match parts {
            1 => MIN_COLUMNS_PER_PLOT,
            _ => MIN_COLUMNS_PER_SMALL_PLOT,
        };
        let columns =
            (MAX_COLUMNS / parts / self.series.len().max(1)).clamp(fewest, MAX_COLUMNS_PER_PLOT);
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
            run_notes: Vec::new(),
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

fn digest(hash: Context) -> Hash {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Hash(bytes)
}
