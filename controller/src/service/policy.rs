//! The controller's policy: who may run which faults on which agents, on how many of them, and when. Each agent's own policy
//! applies as well, and has the last word.

use super::policy_rule::{PolicyDecision, PolicyRequest, PolicyRule, any};
use super::{NotificationTarget, RunLoad, StatusPage};
use crate::providers::{EnvironmentAccess, HostAccess};
use backburn_experiments::Problem;
use backburn_experiments::destination::{Destination, DestinationRules};
use backburn_experiments::problem::nearest;
use backburn_experiments::program_environment::{AllowedProgram, ProgramEnvironment};
use backburn_experiments::{json, schema};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the controller's owner allows. Without a policy file, everything is allowed that uses nothing of the controller's own host.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Policy")]
pub struct FleetPolicy {
    /// Whether experiments may run programs on the controller's host, by `process` and `python` providers without `from`: `true`, or a list of
    /// the only programs, which excludes `python`. An entry of the list is an absolute path, or has the arguments as well:
    /// `{"program": "/usr/lib/postgresql/15/bin/pg_isready", "arguments": ["-p", "5432"]}`. Default: false.
    #[serde(default)]
    pub allow_programs: ProgramPermission,
    /// The environment of these programs: `PATH`, and what stands here. Nothing else of the controller's own environment is passed on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub program_environment: ProgramEnvironment,
    /// The only destinations that `http`, `tcp`, `dns` and `prometheus` providers on the controller's host may connect to: hosts,
    /// `*.example.com`, addresses and networks such as `10.0.0.0/8`, with `:PORT` or without; `*` is every host. Default: all but
    /// link-local and metadata addresses, which must stand here as addresses or networks of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_http: Option<Vec<Destination>>,
    /// Destinations that these providers may not connect to, whatever `allow-http` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_http: Vec<Destination>,
    /// The variables of the controller's environment that experiments may read. A `*` at the end matches anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// The folders of the controller's host whose files experiments may read as secrets or values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<PathBuf>,
    /// Where the controller tells that a run started, deviated, or is not clean, that an approval is wanted, and the like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notifications: Vec<NotificationTarget>,
    /// A page for the public with the outward status updates, which the controller writes as one HTML file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_page: Option<StatusPage>,
    /// From which level on the controller writes its log. Left out: what the variable `BACKBURN_LOG` says, else `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
    /// Limits for some agents or for all. Every rule that applies to a run must allow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
}

/// Which programs experiments may run on the controller's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ProgramPermission {
    /// All of them, or none.
    All(bool),
    /// Only the programs of this list.
    Only(Vec<AllowedProgram>),
}

/// From which level on entries are written to the log; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// What failed and needs somebody.
    Error,
    /// What may need somebody.
    Warn,
    /// What the controller did.
    Info,
    /// Details, to find out why something fails.
    Debug,
    /// Everything.
    Trace,
}

impl Default for ProgramPermission {
    fn default() -> Self {
        ProgramPermission::All(false)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A policy file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("policy {}: {}", path.display(), problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
pub struct FleetPolicyError {
    path: PathBuf,
    problems: Vec<Problem>,
}

impl FleetPolicy {
    /// Loads the policy in this file, for a program that knows these faults.
    ///
    /// # Errors
    /// The file cannot be read, or all problems of the policy.
    pub fn load(path: &Path, known_faults: &[&str]) -> Result<Self, FleetPolicyError> {
        let wrong = |problems| FleetPolicyError {
            path: path.to_owned(),
            problems,
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| wrong(vec![Problem::new("$", error.to_string())]))?;
        let policy = FleetPolicy::of(&text).map_err(wrong)?;
        match policy.unknown_faults(known_faults) {
            problems if problems.is_empty() => Ok(policy),
            problems => Err(wrong(problems)),
        }
    }

    /// Parses a policy.
    ///
    /// # Errors
    /// All problems of the policy.
    pub fn of(text: &str) -> Result<Self, Vec<Problem>> {
        let unread = |error: serde_json::Error| vec![Problem::new("$", error.to_string())];
        let value = json::read(text)?;
        let problems = schema::check(&schema::of::<FleetPolicy>(), &value, "$");
        if !problems.is_empty() {
            return Err(problems);
        }
        let policy: FleetPolicy = serde_json::from_value(value).map_err(unread)?;
        let mut problems = policy.program_environment.problems("$.program-environment");
        problems.extend(NotificationTarget::problems(&policy.notifications));
        problems.extend(policy.status_page.iter().flat_map(StatusPage::problems));
        if let ProgramPermission::Only(programs) = &policy.allow_programs {
            for (index, program) in programs.iter().enumerate() {
                let at = format!("$.allow-programs[{index}]");
                problems.extend(match program.program().starts_with('/') {
                    true => None,
                    false => Some(
                        Problem::new(
                            at,
                            format!("`{}` is not an absolute path", program.program()),
                        )
                        .hint("give e.g. `/usr/lib/postgresql/15/bin/pg_isready`"),
                    ),
                });
            }
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let mut found = rule.quiet().err().unwrap_or_default();
            if let Some(percent) = rule
                .max_percent
                .filter(|percent| !(0.0..=100.0).contains(percent))
            {
                let what = format!("expected a percentage from 0 to 100, got `{percent}`");
                found.push(Problem::new("$.max-percent", what));
            }
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

    /// What probes may use of the controller's host.
    pub fn host_access(&self) -> HostAccess {
        HostAccess {
            environment: EnvironmentAccess::Policy(Arc::new(self.program_environment.clone())),
            destinations: Arc::new(DestinationRules {
                allow: self.allow_http.clone(),
                deny: self.deny_http.clone(),
            }),
        }
    }

    /// A problem for each fault that a rule allows and that is not known: what is misspelt would never be allowed.
    fn unknown_faults(&self, known: &[&str]) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            for (position, pattern) in rule.faults.iter().flatten().enumerate() {
                let one = std::slice::from_ref(pattern);
                if known.iter().any(|fault| any(one, fault)) {
                    continue;
                }
                let at = format!("$.rules[{index}].faults[{position}]");
                let what = match pattern.ends_with('*') {
                    true => format!("no fault begins like `{pattern}`"),
                    false => format!("there is no fault `{pattern}`"),
                };
                let word = pattern.trim_end_matches('*');
                problems.push(Problem::new(at, what).hint(
                    match nearest(word, known.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "`backburn faults` lists the faults".into(),
                    },
                ));
            }
        }
        problems
    }

    /// The rule whose quiet hours or blackout dates end a run on these agents at this time, if any.
    pub fn quiet_rule(&self, run: &RunLoad, at: Timestamp) -> Option<&str> {
        let ends = |rule: &&PolicyRule| {
            rule.quiet_ends != Some(false)
                && run.agents.values().any(|labels| rule.applies_to(labels))
                && rule.quiet().is_ok_and(|quiet| quiet.at(at))
        };
        self.rules.iter().find(ends).map(|rule| rule.name.as_str())
    }

    /// Whether an experiment may read this variable of the controller's environment.
    pub fn may_read_variable(&self, name: &str) -> bool {
        any(&self.environment, name)
    }

    /// Whether an experiment may read this file of the controller's host. Neither `..` nor a link leads out of the folders.
    pub fn may_read_file(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else {
            return false;
        };
        let folders = self.folders.iter();
        folders
            .filter_map(|folder| folder.canonicalize().ok())
            .any(|folder| path.starts_with(folder))
    }

    /// What all rules together decide about this run.
    pub fn judge(&self, request: &PolicyRequest<'_>) -> PolicyDecision {
        let mut approval = None;
        for rule in &self.rules {
            match rule.judge(request) {
                PolicyDecision::Allow => {}
                PolicyDecision::RequireApproval(rule) => approval = approval.or(Some(rule)),
                refused @ PolicyDecision::Refuse(_) => return refused,
            }
        }
        approval.map_or(PolicyDecision::Allow, PolicyDecision::RequireApproval)
    }
}
