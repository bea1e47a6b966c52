//! A rule of the controller's policy: its limits for some agents or for all, and what it decides about a run.

use super::RunLoad;
use backburn_experiments::HumanDuration;
use backburn_experiments::Problem;
use backburn_experiments::check::Experiment;
use backburn_experiments::document::{LabelMatch, Window};
use backburn_experiments::timetable::QuietHours;
use backburn_experiments::wire::Refusal;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A limit on runs that target certain agents.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Rule")]
pub struct PolicyRule {
    /// The name of the rule, which refusals mention.
    pub name: String,
    /// The agents that the rule applies to: those that are granted all of these labels. What agents say of their hosts does not count. Left out: every agent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, LabelMatch>,
    /// The names of the tokens that may target these agents. Left out: every token whose role allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Vec<String>>,
    /// The teams whose tokens may target these agents. Tokens that are not limited to teams may, too. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teams: Option<Vec<String>>,
    /// The faults that may be injected there. A `*` at the end matches anything. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Vec<String>>,
    /// The longest duration of a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<HumanDuration>,
    /// The most of these agents that all open runs together may target at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_agents: Option<u32>,
    /// The most of these agents that all open runs together may target at a time, in percent of the connected agents that the rule applies to, rounded down.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "backburn_experiments::percent::optional"
    )]
    #[schemars(with = "Option<backburn_experiments::percent::Percent>")]
    pub max_percent: Option<f64>,
    /// The most faults that may act on these agents at a time. A run counts with every injection of its method on these agents, but with no more than the `concurrent-faults` of its `blast-radius`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_faults: Option<u32>,
    /// The most runs that may target these agents at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_runs: Option<u32>,
    /// Which runs count together for the rule's `max-agents`, `max-percent`, `max-faults` and `max-runs`. The default is `fleet`.
    #[serde(default, skip_serializing_if = "CeilingScope::is_fleet")]
    pub per: CeilingScope,
    /// The hours of the week in which no run may target these agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quiet: Vec<Window>,
    /// The dates on which no run may target these agents: `2026-12-24`, or from one to another, `2026-12-20/2027-01-02`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<String>,
    /// The time zone of these hours and dates. Left out: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Whether quiet hours and blackout dates end runs on these agents when they begin. If it is `false`, they only keep runs from starting. The default is `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_ends: Option<bool>,
    /// Whether a run requires the approval of somebody who did not ask for it.
    #[serde(default)]
    pub approval: bool,
}

/// Which runs count together for the ceilings of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CeilingScope {
    /// All open runs.
    #[default]
    Fleet,
    /// The open runs of the same token.
    Token,
    /// The open runs of the same person, with whatever tokens.
    Person,
}

impl CeilingScope {
    fn is_fleet(&self) -> bool {
        *self == CeilingScope::Fleet
    }

    /// Whether two runs count together.
    fn joins(self, one: &RunLoad, other: &RunLoad) -> bool {
        match self {
            CeilingScope::Fleet => true,
            CeilingScope::Token => one.who == other.who,
            CeilingScope::Person => one.person == other.person,
        }
    }
}

/// A run that the policy is asked about.
#[derive(Debug)]
pub struct PolicyRequest<'a> {
    /// The experiment that would run.
    pub experiment: &'a Experiment,
    /// Who asks for the run, and what it would take of the ceilings.
    pub run: &'a RunLoad,
    /// The person who approved it.
    pub approved_by: Option<&'a str>,
    /// What the other open runs take.
    pub others: &'a [&'a RunLoad],
    /// The names of all connected agents, with the labels that are granted to them.
    pub inventory: &'a [(String, BTreeMap<String, String>)],
    /// When it would start.
    pub at: Timestamp,
}

/// What a policy decides about a run.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyDecision {
    /// The run may start.
    Allow,
    /// The run may start once somebody else approves it. Has the rule's name.
    RequireApproval(String),
    /// The run may not start.
    Refuse(Refusal),
}

/// Whether one of these patterns matches.
pub(super) fn any(patterns: &[String], name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => pattern == name,
        })
}

impl PolicyRule {
    pub(super) fn quiet(&self) -> Result<QuietHours, Vec<Problem>> {
        QuietHours::of(&self.quiet, &self.blackouts, self.time_zone.as_deref())
    }

    pub(super) fn applies_to(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(name, wanted)| {
            labels.get(name).is_some_and(|value| match wanted {
                LabelMatch::Is(wanted) => value == wanted,
                LabelMatch::AnyOf(wanted) => wanted.contains(value),
            })
        })
    }

    pub(super) fn judge(&self, request: &PolicyRequest<'_>) -> PolicyDecision {
        let run = request.run;
        if self.agents_of(run).next().is_none() {
            return PolicyDecision::Allow;
        }
        let refused = |what: String, hint: String| {
            let what = format!("{what} by the controller's rule `{}`", self.name);
            PolicyDecision::Refuse(Refusal::new("policy", what).hint(hint))
        };
        if let Some(allowed) = &self.who
            && !allowed.contains(&run.who)
        {
            return refused(
                format!("token `{}` may not target these agents", run.who),
                format!("allowed are the tokens: {}", allowed.join(", ")),
            );
        }
        if let Some(allowed) = &self.teams
            && !run.teams.is_empty()
            && !allowed.iter().any(|team| run.teams.contains(team))
        {
            return refused(
                format!("token `{}` may not target these agents", run.who),
                format!("allowed are the teams: {}", allowed.join(", ")),
            );
        }
        for (_, action, fault) in request.experiment.faults() {
            let name = &fault.fault;
            if let Some(allowed) = &self.faults
                && !any(allowed, name)
            {
                return refused(
                    format!(
                        "action `{}`: fault `{name}` is not allowed on these agents",
                        action.name
                    ),
                    format!("allowed are: {}", allowed.join(", ")),
                );
            }
            if let (Some(most), Some(duration)) = (self.max_duration, fault.duration)
                && duration > most
            {
                return refused(
                    format!(
                        "action `{}`: a duration of {duration} is too long for these agents",
                        action.name
                    ),
                    format!("at most {most} is allowed"),
                );
            }
        }
        if let Some((what, hint)) = self.passed_ceiling(request) {
            return refused(what, hint);
        }
        // A policy with invalid hours or dates was refused when it was loaded.
        if self.quiet().is_ok_and(|quiet| quiet.at(request.at)) {
            return refused(
                "no run may target these agents at this time".into(),
                "the controller's policy has the quiet hours and blackout dates".into(),
            );
        }
        match (self.approval, request.approved_by) {
            (true, None) => PolicyDecision::RequireApproval(self.name.clone()),
            (true, Some(other)) if other == run.person => {
                PolicyDecision::RequireApproval(self.name.clone())
            }
            _ => PolicyDecision::Allow,
        }
    }

    /// The agents of a run that the rule applies to.
    fn agents_of<'a>(&'a self, run: &'a RunLoad) -> impl Iterator<Item = &'a str> {
        let agents = run.agents.iter();
        let of_rule = agents.filter(|(_, labels)| self.applies_to(labels));
        of_rule.map(|(name, _)| name.as_str())
    }

    /// What would be too much with this run, and what would help.
    fn passed_ceiling(&self, request: &PolicyRequest<'_>) -> Option<(String, String)> {
        let run = request.run;
        let others: Vec<&RunLoad> = (request.others.iter().copied())
            .filter(|other| self.per.joins(run, other) && self.agents_of(other).next().is_some())
            .collect();
        let beside = match others.as_slice() {
            [] => String::new(),
            [one] => format!(" beside run `{}` of `{}`", one.run, one.who),
            [one, rest @ ..] => format!(
                " beside run `{}` of `{}` and {} more",
                one.run,
                one.who,
                rest.len()
            ),
        };
        let wait = |most: usize, what: &str, alone: &str| match others.is_empty() {
            true => format!("at most {most} {what} allowed; {alone}"),
            false => {
                format!("at most {most} {what} allowed at a time; wait until another run is over")
            }
        };
        if let Some(most) = self.max_runs.map(|most| most as usize)
            && others.len() >= most
        {
            let count = others.len() + 1;
            let what = match count {
                1 => "a run on these agents is not allowed".to_owned(),
                count => format!("{count} runs at a time on these agents{beside} are not allowed"),
            };
            return Some((
                what,
                wait(
                    most,
                    if most == 1 { "run is" } else { "runs are" },
                    "nothing may run",
                ),
            ));
        }
        let own = self.agents_of(run).count();
        let all: BTreeSet<&str> = (others.iter().copied())
            .chain([run])
            .flat_map(|run| self.agents_of(run))
            .collect();
        if let Some(most) = self.max_agents(request)
            && all.len() > most
        {
            // What alone would be too much is so without the others.
            return Some(match own > most {
                true => (
                    format!("targeting {own} of these agents is not allowed"),
                    format!("at most {most} are allowed; lower `select`"),
                ),
                false => (
                    format!(
                        "targeting {} of these agents at a time{beside} is not allowed",
                        all.len()
                    ),
                    wait(most, "are", "lower `select`"),
                ),
            });
        }
        let most = self.max_faults? as usize;
        let faults = |run: &RunLoad| run.faults_on(|labels| self.applies_to(labels)) as usize;
        let all: usize = others.iter().copied().chain([run]).map(faults).sum();
        (all > most).then(|| {
            (
                format!("{all} faults at a time on these agents{beside} are not allowed"),
                wait(
                    most,
                    "are",
                    "lower `select`, or the `concurrent-faults` of the `blast-radius`",
                ),
            )
        })
    }

    fn max_agents(&self, request: &PolicyRequest<'_>) -> Option<usize> {
        let share = self.max_percent.map(|percent| {
            let all = request.inventory.iter();
            let all = all.filter(|(_, labels)| self.applies_to(labels)).count();
            (all as f64 * percent / 100.0 + 1e-9).floor() as usize
        });
        let count = self.max_agents.map(|count| count as usize);
        share.into_iter().chain(count).min()
    }
}
