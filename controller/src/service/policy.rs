//! What the controller's owner allows: who may run which faults on which agents, how much of them, and when. The
//! agents' own policies have the last word after this one.

use backburn_experiments::check::Experiment;
use backburn_experiments::document::{LabelMatch, Window};
use backburn_experiments::timetable::Quiet;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{Problem, HumanDuration};
use backburn_experiments::{json, schema};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What the controller's owner allows. Without a file: everything that needs nothing of the controller's own host.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Policy")]
pub struct FleetPolicy {
    /// Whether experiments may run programs on the controller's host: `process` and `python` providers without `from`.
    #[serde(default)]
    pub allow_programs: bool,
    /// Variables of the controller's environment that experiments may read. A `*` at the end stands for anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// Folders of the controller's host whose files experiments may read as secrets or values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<PathBuf>,
    /// Limits, for some agents or for all. Every rule that concerns a run must allow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
}

/// A limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Rule")]
pub struct PolicyRule {
    /// What a refusal calls it.
    pub name: String,
    /// The agents that it is about: all that have these labels. Left out: every agent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, LabelMatch>,
    /// The only tokens, by name, that may run anything there. Left out: everybody whose role allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Vec<String>>,
    /// The only faults. A `*` at the end stands for anything. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Vec<String>>,
    /// The longest that a fault may last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<HumanDuration>,
    /// The most agents of one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_agents: Option<u32>,
    /// The most agents of one run, in percent of those connected that the rule is about; rounds down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_percent: Option<f64>,
    /// Hours of the week in which nothing runs there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quiet: Vec<Window>,
    /// Dates on which nothing runs there: `2026-12-24`, or from one to another, `2026-12-20/2027-01-02`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<String>,
    /// The zone of hours and dates. Left out: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Whether a second person has to approve.
    #[serde(default)]
    pub approval: bool,
}

/// A policy that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("policy {}: {}", path.display(), problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
pub struct FleetPolicyError {
    path: PathBuf,
    problems: Vec<Problem>,
}

/// A run that somebody wants.
#[derive(Debug)]
pub struct PolicyRequest<'a> {
    /// What.
    pub experiment: &'a Experiment,
    /// By whom: the token's name.
    pub who: &'a str,
    /// Who else has approved of it.
    pub approved_by: Option<&'a str>,
    /// On whom, with their labels.
    pub agents: &'a BTreeMap<String, BTreeMap<String, String>>,
    /// Everybody who is connected.
    pub inventory: &'a [(String, BTreeMap<String, String>)],
    /// When.
    pub at: Timestamp,
}

/// What a policy says to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyDecision {
    /// It may be.
    Allow,
    /// It may be, when somebody other than who wants it approves: the rule's name.
    RequireApproval(String),
    /// It may not be.
    Refuse(Refusal),
}

impl FleetPolicy {
    /// The policy in this file.
    ///
    /// # Errors
    /// It can't be read, or all that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, FleetPolicyError> {
        let wrong = |problems| FleetPolicyError {
            path: path.to_owned(),
            problems,
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| wrong(vec![Problem::new("$", error.to_string())]))?;
        FleetPolicy::of(&text).map_err(wrong)
    }

    /// The policy in this text.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn of(text: &str) -> Result<Self, Vec<Problem>> {
        let unread = |error: serde_json::Error| vec![Problem::new("$", error.to_string())];
        let value = json::read(text)?;
        let problems = schema::check(&schema::of::<FleetPolicy>(), &value, "$");
        if !problems.is_empty() {
            return Err(problems);
        }
        let policy: FleetPolicy = serde_json::from_value(value).map_err(unread)?;
        let mut problems = Vec::new();
        for (index, rule) in policy.rules.iter().enumerate() {
            let found = rule.quiet().err().unwrap_or_default();
            problems.extend(found.into_iter().map(|mut problem| {
                problem.at = format!("$.rules[{index}]{}", problem.at.trim_start_matches('$'));
                problem
            }));
        }
        match problems.is_empty() {
            true => Ok(policy),
            false => Err(problems),
        }
    }

    /// Whether an experiment may read this variable of the controller's environment.
    pub fn may_read_variable(&self, name: &str) -> bool {
        any(&self.environment, name)
    }

    /// Whether an experiment may read this file of the controller's host: no way out of the folders, by `..` or by a link.
    pub fn may_read_file(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else {
            return false;
        };
        let folders = self.folders.iter();
        folders
            .filter_map(|folder| folder.canonicalize().ok())
            .any(|folder| path.starts_with(folder))
    }

    /// What every rule together says to this run.
    pub fn judge(&self, wanted: &PolicyRequest<'_>) -> PolicyDecision {
        let mut approval = None;
        for rule in &self.rules {
            match rule.judge(wanted) {
                PolicyDecision::Allow => {}
                PolicyDecision::RequireApproval(rule) => approval = approval.or(Some(rule)),
                refused @ PolicyDecision::Refuse(_) => return refused,
            }
        }
        approval.map_or(PolicyDecision::Allow, PolicyDecision::RequireApproval)
    }
}

/// Whether one of these patterns is meant.
fn any(patterns: &[String], name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => pattern == name,
        })
}

impl PolicyRule {
    fn quiet(&self) -> Result<Quiet, Vec<Problem>> {
        Quiet::of(&self.quiet, &self.blackouts, self.time_zone.as_deref())
    }

    fn is_about(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(name, wanted)| {
            labels.get(name).is_some_and(|value| match wanted {
                LabelMatch::Is(wanted) => value == wanted,
                LabelMatch::AnyOf(wanted) => wanted.contains(value),
            })
        })
    }

    fn judge(&self, wanted: &PolicyRequest<'_>) -> PolicyDecision {
        let hit: BTreeSet<&str> = (wanted.agents.iter())
            .filter(|(_, labels)| self.is_about(labels))
            .map(|(name, _)| name.as_str())
            .collect();
        if hit.is_empty() {
            return PolicyDecision::Allow;
        }
        let refused = |what: String, hint: String| {
            let what = format!("{what}, by the controller's rule `{}`", self.name);
            PolicyDecision::Refuse(Refusal::new("policy", what).hint(hint))
        };
        if let Some(allowed) = &self.who
            && !allowed.iter().any(|name| name == wanted.who)
        {
            return refused(
                format!("`{}` may run nothing there", wanted.who),
                format!("ask one of: {}", allowed.join(", ")),
            );
        }
        for (_, action, fault) in wanted.experiment.faults() {
            let name = &fault.fault;
            if let Some(allowed) = &self.faults
                && !any(allowed, name)
            {
                return refused(
                    format!("action `{}`: `{name}` is not allowed there", action.name),
                    format!("allowed are: {}", allowed.join(", ")),
                );
            }
            if let (Some(most), Some(duration)) = (self.max_duration, fault.duration)
                && duration > most
            {
                return refused(
                    format!("action `{}` would last {duration}", action.name),
                    format!("at the most {most}"),
                );
            }
        }
        let most = self.most(wanted);
        if let Some(most) = most.filter(|most| hit.len() > *most) {
            return refused(
                format!("{} agents would be hit", hit.len()),
                format!("at the most {most}; lower `select`"),
            );
        }
        // A file that can't be understood was refused when it was read.
        if self.quiet().is_ok_and(|quiet| quiet.at(wanted.at)) {
            return refused(
                "nothing runs there at this time".into(),
                "quiet hours and blackout dates are in the controller's policy".into(),
            );
        }
        match (self.approval, wanted.approved_by) {
            (true, None) => PolicyDecision::RequireApproval(self.name.clone()),
            (true, Some(other)) if other == wanted.who => {
                PolicyDecision::RequireApproval(self.name.clone())
            }
            _ => PolicyDecision::Allow,
        }
    }

    fn most(&self, wanted: &PolicyRequest<'_>) -> Option<usize> {
        let share = self.max_percent.map(|percent| {
            let all = wanted.inventory.iter();
            let all = all.filter(|(_, labels)| self.is_about(labels)).count();
            (all as f64 * percent / 100.0 + 1e-9).floor() as usize
        });
        let count = self.max_agents.map(|count| count as usize);
        share.into_iter().chain(count).min()
    }
}
