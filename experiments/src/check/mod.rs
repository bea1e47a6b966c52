//! From an experiment's text to something that can be run, or to everything that is wrong with it:
//! the shape (against the JSON Schema), the variables, and what no schema can say.

mod activity;
mod rules;

use crate::chaostoolkit::check_controls;
use crate::document::{
    AbortRule, Activity, ActivityKind, Document, Dry, FaultProvider, HostRule, HypothesisStrategy,
    MAX_DOCUMENT_BYTES, ProbeRef, Provider, RollbackStrategy, Step, Target, TargetRef,
    check_expanded, check_sizes, located_steps,
};
use crate::journal::HypothesisTiming;
use crate::problem::{MAX_PROBLEMS, pointer_of};
use crate::redact::{REDACTED, Redactor};
use crate::wire::FaultDescription;
use crate::{HumanDuration, Problem, json, schema, substitute};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

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
                let arguments = Value::Object(arguments.clone());
                schema::accept(&description.schema, &arguments, "$")
                    .err()
                    .unwrap_or_default()
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

/// Reads an experiment. The error is everything that is wrong with it, in the order of the
/// document as far as that goes; without secrets.
pub fn load(
    text: &str,
    sources: &Sources,
    faults: &[KnownFault],
) -> Result<Experiment, Vec<Problem>> {
    if text.len() > MAX_DOCUMENT_BYTES {
        let most = MAX_DOCUMENT_BYTES >> 20;
        let what = format!("the document is longer than {most} MiB");
        return Err(vec![
            Problem::new("$", what)
                .hint("move large texts into files that probes and actions read"),
        ]);
    }
    let (raw, mut problems) = json::parse(text).map_err(|problem| vec![problem])?;
    let too_large = check_sizes(&raw);
    if !too_large.is_empty() {
        return Err(too_large);
    }
    let values = substitute::resolve(&raw, sources, &mut problems);
    let (mut filled, of_activities) = substitute::document(&raw, &values, sources, &mut problems);
    let confidential_values = (values.confidential.values.iter()).chain(&of_activities.values);
    let redactor = Redactor::new(values.secrets.values().chain(own_secrets(&filled)))
        .hiding_in_errors(confidential_values);
    let confidential = ConfidentialParts {
        raw: &raw,
        names: (values.confidential.names.iter())
            .chain(&of_activities.names)
            .cloned()
            .collect(),
        redactor: &redactor,
    };
    // A part that is too large is not looked into: that would take the time and the memory that the limit is about.
    let too_large = check_sizes(&filled);
    let too_large = too_large.into_iter().chain(check_expanded(&filled));
    let too_large: Vec<Problem> = too_large.collect();
    if !too_large.is_empty() {
        problems.extend(too_large);
        return Err(confidential.removed(problems));
    }
    // Of what has no value yet, its shape says nothing.
    let unfilled: BTreeSet<String> = problems.iter().map(|problem| problem.at.clone()).collect();
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
    if !problems.is_empty() {
        return Err(confidential.removed(problems));
    }
    // The schema and the types come from the same place, so an error is the schema's fault, not the author's.
    let document = serde_json::from_value::<Document>(filled).map_err(|error| {
        let what = format!("the document cannot be read: {error}");
        confidential.removed(vec![Problem::new("$", what)])
    })?;
    let raw = redactor.value(raw);
    Ok(assemble(document, raw, values, redactor))
}

/// What is wrong with a document once its values are in place.
fn problems_of_filled(filled: &Value, faults: &[KnownFault]) -> Vec<Problem> {
    let mut problems = schema::check_document(filled);
    problems.extend(check_references(filled, faults));
    problems
}

/// What problems of a document must not quote.
struct ConfidentialParts<'a> {
    /// The document as it is written.
    raw: &'a Value,
    /// Variables whose value came from the environment, from a file or from a secret.
    names: BTreeSet<String>,
    redactor: &'a Redactor,
}

impl ConfidentialParts<'_> {
    /// The problems without what must not be quoted, each once, and no more than [`MAX_PROBLEMS`].
    fn removed(&self, problems: Vec<Problem>) -> Vec<Problem> {
        let count = problems.len();
        let mut seen = BTreeSet::new();
        let problems = problems.into_iter().take(MAX_PROBLEMS);
        let mut kept: Vec<Problem> = problems
            .map(|problem| self.without_value(problem))
            .filter(|problem| seen.insert(problem.clone()))
            .collect();
        if count > MAX_PROBLEMS {
            let what =
                format!("there are more than {MAX_PROBLEMS} problems, and these are the first");
            kept.push(Problem::new("$", what));
        }
        kept
    }

    /// The problem without the value that stands at its place, where a variable put it there that must not be shown: whatever a
    /// message makes of such a value, a part of it may be in the words.
    fn without_value(&self, mut problem: Problem) -> Problem {
        let text = self.written_text(&problem.at);
        let named = text.and_then(|text| substitute::first_name_in(text, &self.names));
        if let Some(name) = named
            && !self.raw_has(&problem)
        {
            // What is expected may be said; the rest of the words may be the value.
            let expected = problem.what.split_once(", got ");
            let expected = expected.filter(|(expected, _)| expected.starts_with("expected "));
            let stands = problem.what.rsplit_once(" stands where ");
            problem.what = match (expected, stands) {
                (Some((expected, _)), _) => {
                    format!("{expected}, got `{REDACTED}`, the value of `{name}`")
                }
                (None, Some((_, wanted))) => {
                    format!("`{REDACTED}`, the value of `{name}`, stands where {wanted}")
                }
                (None, None) => format!("`{REDACTED}`, the value of `{name}`, does not fit here"),
            };
            problem.hint = Some(format!(
                "`{name}` is a secret, or comes from the environment or a file, so that its value is not shown"
            ));
        }
        let errors = self.redactor.errors();
        problem.what = errors.text(&problem.what).into_owned();
        problem.hint = (problem.hint).map(|hint| errors.text(&hint).into_owned());
        problem
    }

    /// The text that the document has at this place, or at the nearest place above it.
    fn written_text(&self, at: &str) -> Option<&str> {
        let mut pointer = pointer_of(at)?;
        loop {
            if let Some(found) = self.raw.pointer(&pointer) {
                return found.as_str();
            }
            pointer.truncate(pointer.rfind('/')?);
        }
    }

    /// Whether the problem is of the variables themselves, before any value was put in place.
    fn raw_has(&self, problem: &Problem) -> bool {
        problem.what.starts_with("there is no variable ")
    }
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
