//! What the owner of this host allows. The agent's own policy has the last word: whatever a
//! controller, an experiment or a person at the command line asks for, is held against it.

use crate::processes::Protection;
use backburn_experiments::problem::nearest;
use backburn_experiments::wire::{InjectionRequest, PlanView, Refusal};
use backburn_experiments::{Problem, HumanDuration, json, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the policy is, where nothing else is said.
pub const POLICY_PATH: &str = "/etc/backburn/agent.json";

/// What the owner of this host allows.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HostPolicy {
    /// The only faults that may be injected here. Every fault where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_faults: Option<Vec<String>>,
    /// Faults that may not be injected here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_faults: Vec<String>,
    /// The only programs that a controller may have run here, by `process` probes with a `from`: absolute paths, or names that are
    /// found along the agent's `PATH`. They run as the agent's user, with whatever arguments the probe says. None where left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_programs: Vec<String>,
    /// The longest that a fault may last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<HumanDuration>,
    /// The most victims of one fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_victims: Option<u32>,
    /// The most faults at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_faults: Option<u32>,
    /// Who is never a victim, besides process 1, kernel threads and Backburn itself.
    #[serde(default)]
    pub protect: Protection,
    /// Ports whose packets no network fault touches, at either end. Left out: 22.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect_ports: Option<Vec<u16>>,
}

/// A policy that can't be used. Nothing is injected without one that can.
#[derive(Debug, thiserror::Error)]
pub enum HostPolicyError {
    /// The file can't be read.
    #[error(
        "policy {path} can't be read: {source}\nhint: without `--policy`, {POLICY_PATH} is read where it exists"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error("policy {path} is wrong:{}", listed(problems))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        problems: Vec<Problem>,
    },
}

fn listed(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect()
}

impl HostPolicy {
    /// The ports whose packets no network fault touches.
    pub fn protected_ports(&self) -> &[u16] {
        self.protect_ports.as_deref().unwrap_or(&[22])
    }

    /// The policy at `path`; else at its usual place, if there is one; else the default.
    ///
    /// # Errors
    /// It is there and can't be used.
    pub fn load(path: Option<&Path>) -> Result<Self, HostPolicyError> {
        let at = path.unwrap_or(Path::new(POLICY_PATH));
        let text = match std::fs::read_to_string(at) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(HostPolicy::default());
            }
            Err(source) => {
                return Err(HostPolicyError::Unreadable {
                    path: at.to_owned(),
                    source,
                });
            }
        };
        let wrong = |problems| HostPolicyError::Wrong {
            path: at.to_owned(),
            problems,
        };
        let value = json::read(&text).map_err(wrong)?;
        let problems = schema::check(&schema::of::<HostPolicy>(), &value, "$");
        if !problems.is_empty() {
            return Err(wrong(problems));
        }
        let policy: HostPolicy = serde_json::from_value(value)
            .map_err(|error| wrong(vec![Problem::new("$", error.to_string())]))?;
        let problems = policy.problems();
        if problems.is_empty() {
            Ok(policy)
        } else {
            Err(wrong(problems))
        }
    }

    /// What its schema does not see: names that mean nothing here would protect nobody.
    fn problems(&self) -> Vec<Problem> {
        let lists = [
            ("allow-faults", self.allow_faults.as_deref()),
            ("deny-faults", Some(&self.deny_faults[..])),
        ];
        let named = lists.into_iter().flat_map(|(key, names)| {
            names
                .into_iter()
                .flatten()
                .enumerate()
                .map(move |(index, name)| (format!("$.{key}[{index}]"), name))
        });
        let unknown = named
            .filter(|(_, name)| crate::faults::find(name).is_none())
            .map(|(at, name)| {
                let known = crate::faults::FAULTS.iter().map(|fault| fault.name);
                let problem = Problem::new(at, format!("there is no fault `{name}`"));
                match nearest(name, known) {
                    Some(near) => problem.hint(format!("`{near}`?")),
                    None => problem.hint("`faults` lists them"),
                }
            });
        let programs = self.allow_programs.iter().enumerate();
        let relative = programs
            .filter(|(_, program)| {
                program.is_empty() || program.contains('/') && !program.starts_with('/')
            })
            .map(|(index, program)| {
                Problem::new(
                    format!("$.allow-programs[{index}]"),
                    format!("`{program}` is neither an absolute path nor a name"),
                )
                .hint("e.g. `/usr/bin/curl`, or `curl` to have it found along `PATH`")
            });
        unknown
            .chain(relative)
            .chain(self.protect.problems("$.protect"))
            .collect()
    }

    /// The file of a program that a controller may have run here; `found` tells where a name or a path leads.
    ///
    /// # Errors
    /// It may not.
    pub fn permits_program(
        &self,
        wanted: &str,
        found: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<PathBuf, Refusal> {
        // Files are not followed further: where many programs are one file, allowing one must not allow them all.
        let file = found(wanted).filter(|file| {
            let mut allowed = self.allow_programs.iter();
            allowed.any(|allowed| found(allowed).as_ref() == Some(file))
        });
        file.ok_or_else(|| {
            refusal(
                "allow-programs",
                format!("the policy of this host does not allow a controller to run `{wanted}`"),
            )
        })
    }

    /// Whether a plan may be carried out here, beside the faults that act already.
    ///
    /// # Errors
    /// The rule that is against it, and what would do.
    pub fn permits(
        &self,
        request: &InjectionRequest,
        plan: &PlanView,
        acting: usize,
    ) -> Result<(), Refusal> {
        let fault = &request.fault;
        let allowed = self
            .allow_faults
            .as_ref()
            .is_none_or(|only| only.contains(fault));
        if !allowed || self.deny_faults.contains(fault) {
            return Err(refusal(
                if allowed {
                    "deny-faults"
                } else {
                    "allow-faults"
                },
                format!("the policy of this host does not allow `{fault}`"),
            ));
        }
        if let (Some(longest), Some(wanted)) = (self.max_duration, request.duration)
            && wanted > longest
        {
            return Err(refusal(
                "max-duration",
                format!("{wanted} is longer than the {longest} that this host allows"),
            ));
        }
        let victims = plan.victims.len();
        if self.max_victims.is_some_and(|most| victims > most as usize) {
            let most = self.max_victims.unwrap_or_default();
            return Err(refusal(
                "max-victims",
                format!("{victims} victims are more than the {most} that this host allows"),
            ));
        }
        if self.max_faults.is_some_and(|most| acting >= most as usize) {
            let most = self.max_faults.unwrap_or_default();
            return Err(refusal(
                "max-faults",
                format!("{acting} faults act already, and this host allows {most} at a time"),
            ));
        }
        if let Some(most) = request.max_victims
            && victims > most as usize
        {
            return Err(Refusal::new(
                "blast-radius",
                format!("{victims} victims are more than the {most} of the blast radius"),
            )
            .hint(
                "narrow the selector, lower `select`, or raise `blast-radius.victims-per-agent`",
            ));
        }
        Ok(())
    }
}

fn refusal(key: &str, what: String) -> Refusal {
    Refusal::new("policy", what).hint(format!(
        "the owner of this host may change `{key}` in {POLICY_PATH}"
    ))
}
