//! From an experiment's text to something that can be run, or to everything that is wrong with it:
//! the shape (against the JSON Schema), the variables, and what no schema can say.

mod activity;
mod rules;

use crate::chaostoolkit::check_controls;
use crate::document::{
    AbortRule, Activity, ActivityKind, Document, Dry, FaultProvider, HostRule, HypothesisStrategy,
    ProbeRef, Provider, RollbackStrategy, Step, Target, TargetRef, located_steps,
};
use crate::journal::HypothesisTiming;
use crate::problem::pointer_of;
use crate::redact::Redactor;
use crate::wire::FaultDescription;
use crate::{HumanDuration, Problem, json, schema, substitute};
use serde_json::{Map, Value};
use std::sync::LazyLock;

pub use crate::substitute::Sources;

/// A fault, as far as a document is checked against it.
pub struct KnownFault<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is over once done; else it needs a duration.
    pub one_shot: bool,
    /// What is wrong with its arguments.
    pub check: CheckArguments<'a>,
}

/// Says what is wrong with a fault's arguments; places start at their own root `$`.
pub type CheckArguments<'a> = Box<dyn Fn(&Map<String, Value>) -> Vec<Problem> + 'a>;

impl<'a> KnownFault<'a> {
    /// A fault of which there is only the description, as an agent sends it: its arguments are
    /// held against their JSON Schema.
    pub fn described(description: &'a FaultDescription) -> Self {
        KnownFault {
            name: &description.name,
            one_shot: description.one_shot,
            check: Box::new(|arguments| {
                schema::check(&description.schema, &Value::Object(arguments.clone()), "$")
            }),
        }
    }
}

/// An experiment that can be run: every value in place, every reference looked up.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// The document, with its values in place. It may hold secrets.
    pub document: Document,
    /// The document as it was written, without its secrets' values; for journals.
    pub raw: Value,
    /// The configuration, resolved.
    pub configuration: Map<String, Value>,
    /// The secrets, resolved: scope, key, value.
    pub secrets: Map<String, Value>,
    /// The hypothesis' probes; each has a tolerance.
    pub hypothesis: Vec<Activity>,
    /// The method.
    pub method: Vec<Activity>,
    /// The author's own steps after everything is reverted.
    pub rollbacks: Vec<Activity>,
    /// What ends the run at once.
    pub abort: Vec<EffectiveAbortRule>,
    /// When the hypothesis is looked at, by the document's strategy.
    pub hypothesis_timing: HypothesisTiming,
    /// When the rollbacks are played, by the document's strategy.
    pub rollback_strategy: RollbackStrategy,
    /// Takes the secrets out of whatever people see.
    pub redactor: Redactor,
}

/// An abort rule, with what the document left out.
#[derive(Debug, Clone)]
pub struct EffectiveAbortRule {
    /// What it means when it strikes.
    pub name: String,
    /// What it watches.
    pub watch: AbortCondition,
    /// How often.
    pub every: HumanDuration,
    /// How many failures in a row strike.
    pub failures: u32,
}

/// What an abort rule watches.
#[derive(Debug, Clone)]
pub enum AbortCondition {
    /// The hypothesis probe of this place in [`Experiment::hypothesis`].
    Hypothesis(usize),
    /// A probe of its own, with a tolerance.
    Probe(Box<Activity>),
    /// A figure of the host; the agent watches it by itself.
    Host(HostRule),
}

/// How often the hypothesis and the abort rules are looked at where nothing else is said.
pub const DEFAULT_SAMPLING_INTERVAL: HumanDuration = HumanDuration::seconds(1);

impl Experiment {
    /// The actions of the method that inject a fault, with their place in it.
    pub fn faults(&self) -> impl Iterator<Item = (usize, &Activity, &FaultProvider)> {
        self.method
            .iter()
            .enumerate()
            .filter_map(|(index, activity)| match &activity.provider {
                Provider::Fault(fault) => Some((index, activity, fault)),
                _ => None,
            })
    }

    /// Whether the method has a fault; a run of one that has none needs no agent.
    pub fn has_fault(&self) -> bool {
        self.faults().next().is_some()
    }

    /// When the hypothesis is looked at by this strategy; by none, before, after and, where the
    /// method has a fault, during. Never where there is no hypothesis.
    pub fn hypothesis_timing_by(&self, strategy: Option<HypothesisStrategy>) -> HypothesisTiming {
        let (before, during, after) = match strategy {
            _ if self.hypothesis.is_empty() => (false, false, false),
            None => (true, self.has_fault(), true),
            Some(HypothesisStrategy::Default) => (true, false, true),
            Some(HypothesisStrategy::BeforeMethodOnly) => (true, false, false),
            Some(HypothesisStrategy::AfterMethodOnly) => (false, false, true),
            Some(HypothesisStrategy::DuringMethodOnly) => (false, true, false),
            Some(HypothesisStrategy::Continuously) => (true, true, true),
        };
        HypothesisTiming {
            before,
            during,
            after,
        }
    }

    /// The target of a fault, with the name it goes by: the action's own where it stands in place.
    /// None where the fault names no target.
    pub fn target_of<'a>(&'a self, activity: &'a Activity) -> Option<(&'a str, &'a Target)> {
        let Provider::Fault(fault) = &activity.provider else {
            return None;
        };
        match fault.targets.as_ref()? {
            TargetRef::Name(name) => self
                .document
                .targets
                .get(name)
                .map(|target| (name.as_str(), target)),
            TargetRef::Target(target) => Some((&activity.name, target)),
        }
    }

    /// The names of the targets that measure: whatever probe says `from`.
    pub fn measured_from(&self) -> impl Iterator<Item = &str> {
        let rules = self.abort.iter().filter_map(|rule| match &rule.watch {
            AbortCondition::Probe(probe) => Some(probe.as_ref()),
            AbortCondition::Hypothesis(_) | AbortCondition::Host(_) => None,
        });
        (self.hypothesis.iter().chain(&self.method))
            .chain(&self.rollbacks)
            .chain(rules)
            .filter_map(|activity| activity.from.as_deref())
    }

    /// Whether an activity is only said and not done, in the Chaos Toolkit's dry mode.
    pub fn is_dry(&self, activity: &Activity) -> bool {
        match (activity.dry.or(self.document.dry), activity.kind) {
            (Some(Dry::Activities), _) => true,
            (Some(Dry::Probes), kind) => kind == ActivityKind::Probe,
            (Some(Dry::Actions), kind) => kind == ActivityKind::Action,
            (Some(Dry::Pause) | None, _) => false,
        }
    }

    /// Whether an activity's pauses are waited for: not in dry mode.
    pub fn pauses(&self, activity: &Activity) -> bool {
        activity.dry.or(self.document.dry) != Some(Dry::Pause) && !self.is_dry(activity)
    }

    /// The configuration as an activity sees it: its own over the experiment's.
    pub fn configuration_of(&self, activity: &Activity) -> Map<String, Value> {
        let mut configuration = self.configuration.clone();
        if let Some(Ok(Value::Object(own))) =
            activity.configuration.as_ref().map(serde_json::to_value)
        {
            configuration.extend(own);
        }
        configuration
    }
}

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::document_schema);

/// Reads an experiment. The error is everything that is wrong with it, in the order of the
/// document as far as that goes; without secrets.
pub fn load(
    text: &str,
    sources: &Sources,
    faults: &[KnownFault],
) -> Result<Experiment, Vec<Problem>> {
    let (raw, mut problems) = json::parse(text).map_err(|problem| vec![problem])?;
    let values = substitute::resolve(&raw, sources, &mut problems);
    let mut filled = substitute::document(&raw, &values, sources, &mut problems);
    // Of what has no value yet, its shape says nothing.
    let unfilled: Vec<String> = problems.iter().map(|problem| problem.at.clone()).collect();
    let mut more = problems_of_filled(&filled, faults);
    // A fault's arguments are looked at once all around them fits.
    for _ in 0..2 {
        let wrong = more.iter().filter_map(|problem| pointer_of(&problem.at));
        if !substitute::texts_instead(&raw, &mut filled, &values, wrong) {
            break;
        }
        more = problems_of_filled(&filled, faults);
    }
    activity::check_addresses(&located_steps(&raw), &mut more);
    check_controls(&raw, &mut more);
    more.retain(|problem| !unfilled.contains(&problem.at));
    problems.extend(more);

    let redactor = Redactor::new(values.secrets.values().chain(own_secrets(&filled)));
    let document = match serde_json::from_value::<Document>(filled) {
        Ok(document) if problems.is_empty() => document,
        Ok(_) => return Err(redacted(problems, &redactor)),
        // The schema and the types come from the same place, so this is the schema's fault, not the author's.
        Err(error) if problems.is_empty() => problems_of(error, &redactor)?,
        Err(_) => return Err(redacted(problems, &redactor)),
    };
    let raw = redactor.value(raw);
    Ok(assemble(document, raw, values, redactor))
}

/// What is wrong with a document once its values are in place.
fn problems_of_filled(filled: &Value, faults: &[KnownFault]) -> Vec<Problem> {
    let mut problems = schema::check(&SCHEMA, filled, "$");
    problems.extend(check_references(filled, faults));
    problems
}

fn problems_of(error: serde_json::Error, redactor: &Redactor) -> Result<Document, Vec<Problem>> {
    Err(redacted(
        vec![Problem::new(
            "$",
            format!("the document cannot be read: {error}"),
        )],
        redactor,
    ))
}

fn redacted(mut problems: Vec<Problem>, redactor: &Redactor) -> Vec<Problem> {
    for problem in &mut problems {
        problem.what = redactor.text(&problem.what).into_owned();
        problem.hint = problem
            .hint
            .take()
            .map(|hint| redactor.text(&hint).into_owned());
    }
    let mut seen = std::collections::BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.clone()));
    problems
}

/// Literal secrets that activities carry themselves.
fn own_secrets(filled: &Value) -> impl Iterator<Item = &Value> {
    located_steps(filled).into_iter().filter_map(|step| {
        step.value
            .get("secrets")
            .filter(|secrets| secrets.is_object())
    })
}

/// What no schema can say. A part that has not its own shape is passed over: that is reported already.
fn check_references(document: &Value, faults: &[KnownFault]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let steps = located_steps(document);
    activity::check(document, &steps, faults, &mut problems);
    rules::check(document, &mut problems);
    problems
}

fn assemble(
    document: Document,
    raw: Value,
    values: substitute::Values,
    redactor: Redactor,
) -> Experiment {
    let hypothesis = document
        .steady_state_hypothesis
        .as_ref()
        .map(|hypothesis| hypothesis.probes.as_slice());
    let lists = [
        hypothesis.unwrap_or_default(),
        &document.method,
        &document.rollbacks,
    ];
    let named = |name: &str| {
        lists.iter().copied().flatten().find_map(|step| match step {
            Step::Activity(activity) if activity.name == name => Some(activity.as_ref().clone()),
            _ => None,
        })
    };
    let resolve = |steps: &[Step]| -> Vec<Activity> {
        let resolved = steps.iter().filter_map(|step| match step {
            Step::Activity(activity) => Some(activity.as_ref().clone()),
            // `check_references` has refused the names that nobody has.
            Step::Ref(reference) => named(&reference.name),
        });
        resolved.collect()
    };
    let [hypothesis, method, rollbacks] = lists.map(resolve);
    let strategies = document.runtime.clone().unwrap_or_default();
    let mut experiment = Experiment {
        raw,
        configuration: values.configuration,
        secrets: values.secrets,
        hypothesis,
        method,
        rollbacks,
        abort: Vec::new(),
        hypothesis_timing: HypothesisTiming {
            before: false,
            during: false,
            after: false,
        },
        rollback_strategy: strategies
            .rollbacks
            .map_or(RollbackStrategy::Default, |rollbacks| rollbacks.strategy),
        redactor,
        document,
    };
    experiment.hypothesis_timing = experiment
        .hypothesis_timing_by(strategies.hypothesis.map(|hypothesis| hypothesis.strategy));
    experiment.abort = abort_rules(&experiment);
    experiment
}

fn abort_rules(experiment: &Experiment) -> Vec<EffectiveAbortRule> {
    let Some(written) = &experiment.document.abort else {
        let probes = experiment
            .hypothesis
            .iter()
            .enumerate()
            .filter(|_| experiment.has_fault());
        let rules = probes.map(|(index, probe)| EffectiveAbortRule {
            name: probe.name.clone(),
            watch: AbortCondition::Hypothesis(index),
            every: DEFAULT_SAMPLING_INTERVAL,
            failures: 3,
        });
        return rules.collect();
    };
    let watch = |rule: &AbortRule| match (&rule.probe, &rule.host) {
        (Some(ProbeRef::Name(name)), _) => experiment
            .hypothesis
            .iter()
            .position(|probe| probe.name == *name)
            .map(AbortCondition::Hypothesis),
        (Some(ProbeRef::Probe(probe)), _) => Some(AbortCondition::Probe(probe.clone())),
        (None, Some(host)) => Some(AbortCondition::Host(host.clone())),
        (None, None) => None,
    };
    let rules = written.iter().filter_map(|rule| {
        Some(EffectiveAbortRule {
            name: rule.name.clone(),
            watch: watch(rule)?,
            every: rule.every.unwrap_or(DEFAULT_SAMPLING_INTERVAL),
            failures: rule.failures.unwrap_or(1),
        })
    });
    rules.collect()
}

#[cfg(test)]
mod tests;
