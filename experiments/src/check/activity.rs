//! What no schema can say about activities: names, references, tolerances, faults and their arguments.

use super::KnownFault;
use crate::document::{
    Activity, ActivityKind, FaultProvider, LocatedStep, Provider, Section, Step, Target, TargetRef,
    Tolerance, ToleranceRule,
};
use crate::problem::{at_key, meant};
use crate::tolerance::{CompiledTolerance, TAKES_NO_VALUE, takes_value};
use crate::{HumanDuration, Problem};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// Problems that are given a hint by comparing a name with all others, which takes its time.
const MAX_HINTED_PROBLEMS: usize = 20;

/// What activities are checked against.
struct References<'d> {
    faults: &'d [KnownFault<'d>],
    targets: Vec<&'d str>,
    /// The activities of a name.
    named: BTreeMap<&'d str, Vec<&'d Value>>,
    /// The longest that the blast radius lets a run last.
    longest: Option<HumanDuration>,
}

pub(super) fn check(
    document: &Value,
    steps: &[LocatedStep],
    faults: &[KnownFault],
    problems: &mut Vec<Problem>,
) {
    let mut named: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for step in steps
        .iter()
        .filter(|step| !matches!(step.section, Section::AbortRule | Section::Guard))
    {
        if let Some(name) = step.value.get("name").and_then(Value::as_str) {
            named.entry(name).or_default().push(step.value);
        }
    }
    let known = References {
        faults,
        targets: document
            .get("targets")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect(),
        named,
        longest: document.pointer("/blast-radius/duration").and_then(part),
    };
    for step in steps {
        match part::<Step>(step.value) {
            Some(Step::Activity(activity)) => {
                known.activity(&activity, step.section, &step.at, problems)
            }
            Some(Step::Ref(reference)) => known.reference(&reference.name, step, problems),
            None => {}
        }
    }
    duplicates(steps, problems);
}

/// A part of the document as its type, where it has that shape.
pub(super) fn part<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

/// The journal knows probes and injections by their activities' names. Other activities may share
/// one, as they may in the Chaos Toolkit; a reference to such a name is refused where they differ.
fn duplicates(steps: &[LocatedStep], problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<(bool, &str), &str> = BTreeMap::new();
    for step in steps {
        let named = ["name", "ref"]
            .iter()
            .find_map(|key| Some((*key, step.value.get(*key)?.as_str()?)));
        let fault = step.value.pointer("/provider/type").and_then(Value::as_str) == Some("fault");
        let (Some((key, name)), true) = (named, step.section == Section::Hypothesis || fault)
        else {
            continue;
        };
        match seen.get(&(fault, name)) {
            Some(first) => {
                let what = if fault {
                    "injects a fault"
                } else {
                    "is a probe of the hypothesis"
                };
                problems.push(
                    Problem::new(
                        at_key(&step.at, key),
                        format!("`{name}` {what} at {first} already"),
                    )
                    .hint("give each a name of its own: the journal tells them apart by it"),
                );
            }
            None => {
                seen.insert((fault, name), &step.at);
            }
        }
    }
}

impl References<'_> {
    fn reference(&self, name: &str, step: &LocatedStep, problems: &mut Vec<Problem>) {
        let at = at_key(&step.at, "ref");
        let Some(found) = self.named.get(name) else {
            let names: Vec<&str> = self.named.keys().copied().collect();
            let problem = Problem::new(at, format!("there is no activity `{name}`"));
            return problems.push(match hinted(problems, name, &names) {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
        };
        if found.iter().any(|other| *other != found[0]) {
            problems.push(
                Problem::new(
                    &at,
                    format!(
                        "there are {} activities `{name}`, and they differ",
                        found.len()
                    ),
                )
                .hint("give each a name of its own"),
            );
        }
        if let (Section::Hypothesis, Some(activity)) = (step.section, part::<Activity>(found[0]))
            && activity.tolerance.is_none()
        {
            problems.push(no_tolerance(
                &at,
                &format!("`{name}`, a probe of the hypothesis,"),
            ));
        }
        if step.section != Section::Method
            && found[0].pointer("/provider/type").and_then(Value::as_str) == Some("fault")
        {
            problems.push(fault_out_of_place(&at));
        }
    }

    fn activity(
        &self,
        activity: &Activity,
        section: Section,
        at: &str,
        problems: &mut Vec<Problem>,
    ) {
        let what = match section {
            Section::Hypothesis => Some("a probe of the hypothesis"),
            Section::AbortRule => Some("the probe of an abort rule"),
            Section::Guard => Some("a guard"),
            Section::Method | Section::Rollbacks => None,
        };
        match (&activity.tolerance, what) {
            (None, Some(what)) => problems.push(no_tolerance(at, what)),
            (Some(tolerance), _) => check_tolerance(tolerance, &at_key(at, "tolerance"), problems),
            (None, None) => {}
        }
        if activity.kind == ActivityKind::Action
            && matches!(section, Section::AbortRule | Section::Guard)
        {
            problems.push(Problem::new(
                at_key(at, "type"),
                "an action stands where a probe is wanted",
            ));
        }
        if let Some(from) = &activity.from {
            self.target_name(from, &at_key(at, "from"), problems);
            if activity.kind == ActivityKind::Action {
                problems.push(
                    Problem::new(at_key(at, "from"), "only a probe is measured from a target")
                        .hint("a fault has `targets` in its provider"),
                );
            }
        } else if activity.quorum.is_some() {
            problems.push(
                Problem::new(
                    at_key(at, "quorum"),
                    "a quorum is of the agents in `from`, and there is no `from`",
                )
                .hint("name a target in `from`, or leave `quorum` out"),
            );
        }
        let at_provider = at_key(at, "provider");
        check_provider(&activity.provider, &at_provider, problems);
        if let Provider::Fault(fault) = &activity.provider {
            if section != Section::Method {
                problems.push(fault_out_of_place(&at_provider));
            } else if activity.kind == ActivityKind::Probe {
                problems.push(
                    Problem::new(at_key(at, "type"), "a fault is an action, not a probe")
                        .hint("write `\"type\": \"action\"`"),
                );
            }
            self.fault(fault, &at_provider, problems);
        }
    }

    fn target_name(&self, name: &str, at: &str, problems: &mut Vec<Problem>) {
        if self.targets.contains(&name) {
            return;
        }
        let problem = Problem::new(at, format!("there is no target `{name}`"));
        problems.push(match hinted(problems, name, &self.targets) {
            Some(hint) => problem.hint(hint),
            None => problem.hint("name it in `targets`, with the labels of its agents"),
        });
    }

    fn fault(&self, fault: &FaultProvider, at: &str, problems: &mut Vec<Problem>) {
        match &fault.targets {
            Some(TargetRef::Name(name)) => self.target_name(name, &at_key(at, "targets"), problems),
            Some(TargetRef::Target(target)) => {
                check_target(target, &at_key(at, "targets"), problems)
            }
            None => {}
        }
        for (key, span) in [("duration", fault.duration), ("every", fault.every)] {
            if span == Some(HumanDuration::default()) {
                problems.push(
                    Problem::new(at_key(at, key), format!("`{key}` is nothing"))
                        .hint("at the least a millisecond, `1ms`"),
                );
            }
        }
        for (key, span) in [("duration", fault.duration), ("every", fault.every)] {
            if let Some(span) = span.filter(|span| *span > HumanDuration::MAX_FAULT_DURATION) {
                let what = format!("`{key}` is {span}, and no fault lasts longer than a year");
                problems.push(
                    Problem::new(at_key(at, key), what)
                        .hint(format!("{} at the most", HumanDuration::MAX_FAULT_DURATION)),
                );
            }
        }
        if let (Some(duration), Some(longest)) = (fault.duration, self.longest)
            && duration > longest
        {
            problems.push(
                Problem::new(
                    at_key(at, "duration"),
                    format!("{duration} is longer than the blast radius allows, {longest}"),
                )
                .hint("shorten it, or raise `blast-radius.duration`"),
            );
        }
        let Some(known) = self.faults.iter().find(|known| known.name == fault.fault) else {
            let names: Vec<&str> = self.faults.iter().map(|known| known.name).collect();
            let problem = Problem::new(
                at_key(at, "fault"),
                format!("there is no fault `{}`", fault.fault),
            );
            return problems.push(match meant(&fault.fault, &names) {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
        };
        match (known.one_shot, fault.duration, fault.every) {
            (false, None, _) => problems.push(
                Problem::new(
                    at,
                    format!(
                        "`duration` is missing: `{}` lasts, and every fault ends by itself",
                        known.name
                    ),
                )
                .hint("e.g. `\"duration\": \"30s\"`"),
            ),
            (true, None, Some(_)) => problems.push(
                Problem::new(
                    at,
                    "`duration` is missing: with `every`, the fault is repeated for that long",
                )
                .hint("e.g. `\"duration\": \"30s\"`"),
            ),
            _ => {}
        }
        if let (false, Some(_)) = (known.one_shot, fault.every) {
            problems.push(
                Problem::new(
                    at_key(at, "every"),
                    format!("`{}` lasts, so that there is nothing to repeat", known.name),
                )
                .hint("leave `every` out; it is for one-shot faults"),
            );
        }
        let root = at_key(at, "arguments");
        problems.extend(
            (known.check)(&fault.arguments)
                .into_iter()
                .map(|problem| Problem {
                    at: format!(
                        "{root}{}",
                        problem.at.strip_prefix('$').unwrap_or(&problem.at)
                    ),
                    ..problem
                }),
        );
    }
}

/// What was probably meant, unless so many problems have been found that looking for it would take long.
fn hinted(found: &[Problem], name: &str, known: &[&str]) -> Option<String> {
    (found.len() < MAX_HINTED_PROBLEMS).then(|| meant(name, known))?
}

fn no_tolerance(at: &str, what: &str) -> Problem {
    Problem::new(
        at,
        format!("`tolerance` is missing: {what} has to have one"),
    )
    .hint("e.g. `\"tolerance\": 200`")
}

fn fault_out_of_place(at: &str) -> Problem {
    Problem::new(at, "a fault is injected by the method and nowhere else")
        .hint("move it to `method`")
}

fn check_provider(provider: &Provider, at: &str, problems: &mut Vec<Problem>) {
    problems.extend(
        provider
            .probe()
            .into_iter()
            .flat_map(|probe| probe.problems(at)),
    );
}

/// Checks the addresses that the document itself writes. An address that a variable has a part in may be another at the next run, and is
/// judged when it is used: the sample is unknown then.
pub(super) fn check_addresses(raw: &[LocatedStep], problems: &mut Vec<Problem>) {
    for step in raw {
        let mut at = step.at.clone();
        let mut holder = Some(step.value);
        // A tolerance may be a probe with a provider of its own.
        while let Some(value) = holder {
            let provider = value.get("provider").and_then(Value::as_object);
            if let Some((key, what)) = provider.and_then(Provider::written_address_problem) {
                problems.push(Problem::new(at_key(&at_key(&at, "provider"), key), what));
            }
            holder = value.get("tolerance");
            at = at_key(&at, "tolerance");
        }
    }
}

fn check_tolerance(tolerance: &Tolerance, at: &str, problems: &mut Vec<Problem>) {
    if let Tolerance::Rule(rule) = tolerance {
        if let ToleranceRule::Probe(probe) = rule.as_ref() {
            let at_provider = at_key(at, "provider");
            check_provider(&probe.provider, &at_provider, problems);
            if !takes_value(&probe.provider) {
                problems.push(Problem::new(at_provider, TAKES_NO_VALUE));
            }
            if let Some(inner) = &probe.tolerance {
                check_tolerance(inner, &at_key(at, "tolerance"), problems);
            }
            return;
        }
        if let Err(what) = CompiledTolerance::compile(tolerance) {
            let key = match rule.as_ref() {
                ToleranceRule::Regex(_) => "pattern",
                ToleranceRule::Range(_) => "range",
                ToleranceRule::Jsonpath(_) | ToleranceRule::Compare(_) => "path",
                ToleranceRule::Probe(_) => "provider",
            };
            problems.push(Problem::new(at_key(at, key), what));
        }
    }
}

pub(super) fn check_target(target: &Target, at: &str, problems: &mut Vec<Problem>) {
    use crate::document::Select;
    if target.labels.is_empty() {
        problems.push(
            Problem::new(
                at_key(at, "labels"),
                "no label is named, and a target is never everything by default",
            )
            .hint("name a label that all of them have"),
        );
    }
    let percent = match target.select {
        Some(Select::Percent(percent)) => Some(("percent", percent)),
        Some(Select::RandomMaxPercent(percent)) => Some(("random-max-percent", percent)),
        _ => None,
    };
    if let Some((key, percent)) = percent.filter(|(_, percent)| *percent <= 0.0) {
        problems.push(
            Problem::new(
                at_key(&at_key(at, "select"), key),
                format!("`{percent}` percent picks none"),
            )
            .hint("more than 0, up to 100"),
        );
    }
}
