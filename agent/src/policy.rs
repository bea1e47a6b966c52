//! The policy of a host: what its owner allows. It has the last word: whatever a controller, an
//! experiment or a person at the command line asks for is checked against it.

use crate::faults::HOST_FAULTS;
use crate::packet_filter::Port;
use crate::plan::{HostFaultRules, ProtectedPaths, RequestLimits};
use crate::plugin_call::AllowedPlugin;
use crate::processes::Protection;
use backburn_experiments::destination::{Destination, DestinationRules};
use backburn_experiments::problem::nearest;
use backburn_experiments::program_environment::{AllowedProgram, ProgramEnvironment};
use backburn_experiments::wire::{InjectionRequest, PlanView, Refusal};
use backburn_experiments::{HumanDuration, Problem, json, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::path::{Path, PathBuf};

/// Default path of the policy.
pub const POLICY_PATH: &str = "/etc/backburn/agent.json";

/// The policy of a host: what its owner allows.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HostPolicy {
    /// The file that this was read from; none for the default policy.
    #[serde(skip)]
    pub path: Option<PathBuf>,
    /// The only faults that may be injected on this host. Default: all faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_faults: Option<Vec<String>>,
    /// Faults that hit the host as a whole and are allowed: `clock-skew` (with `host`), `host-reboot`, `host-shutdown`. The other rules apply to them as well.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_host_faults: Vec<String>,
    /// Faults that may not be injected on this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_faults: Vec<String>,
    /// The only programs that a controller may run on this host, by `process` probes with a `from`: absolute paths, or names that are
    /// found in the programs' `PATH`. They run as the agent's user, with any arguments that the probe gives unless they stand here
    /// as well: `{"program": "/usr/lib/postgresql/15/bin/pg_isready", "arguments": ["-p", "5432"]}`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_programs: Vec<AllowedProgram>,
    /// The plug-ins that are faults of this host, each by its name and the hash of its file. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<AllowedPlugin>,
    /// The environment of these programs: `PATH`, and what stands here.
    #[serde(default)]
    pub program_environment: ProgramEnvironment,
    /// The only destinations that `http`, `load`, `tcp` and `prometheus` probes and `http-load` on this host may connect to: hosts, `*.example.com`, addresses and
    /// networks such as `10.0.0.0/8`, with `:PORT` or without; `*` is every host. Default: all but link-local and metadata addresses,
    /// which must stand here as addresses or networks of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_http: Option<Vec<Destination>>,
    /// Destinations that these probes may not connect to, whatever `allow-http` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_http: Vec<Destination>,
    /// Longest duration of a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<HumanDuration>,
    /// Most victims of one fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_victims: Option<u32>,
    /// Most requests per second of one `http-load` or of one `load` probe. Default: 100,000, the most that they can be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_request_rate: Option<u32>,
    /// Most faults that may act at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_faults: Option<u32>,
    /// Processes that are never victims, besides process 1, kernel threads and Backburn itself.
    #[serde(default)]
    pub protect: Protection,
    /// Ports whose packets no network fault affects, at either end: numbers, or ranges such as `"8000-8010"`. Default: 22.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "every_port"
    )]
    #[schemars(with = "Option<Vec<Port>>")]
    pub protect_ports: Option<Vec<u16>>,
}

/// A policy that cannot be used. Without a usable policy, nothing is injected.
#[derive(Debug, thiserror::Error)]
pub enum HostPolicyError {
    /// The file cannot be read.
    #[error(
        "cannot read policy {path}: {source}\nhint: without `--policy`, {POLICY_PATH} is read where it exists"
    )]
    Unreadable {
        /// The path of the policy file.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The content of the file is wrong.
    #[error("policy {path} is wrong:{}", listed(problems))]
    Wrong {
        /// The path of the policy file.
        path: PathBuf,
        /// All problems of the file.
        problems: Vec<Problem>,
    },
}

fn listed(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect()
}

/// Reads ports and ranges of ports as each port of them.
fn every_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u16>>, D::Error> {
    let Some(written) = Option::<Vec<Port>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let mut ports = Vec::new();
    for port in written {
        let range = port.range().map_err(de::Error::custom)?;
        ports.extend(range.first..=range.last);
    }
    Ok(Some(ports))
}

impl HostPolicy {
    /// The paths that no fault alters, with those of an agent that has this state folder.
    pub fn protected_paths(&self, state: &Path) -> ProtectedPaths {
        let file = self.file();
        ProtectedPaths::new(state, file, &self.protect.paths)
    }

    /// The rules for faults that hit the host as a whole, for an agent that has this state folder. `is_local_run` says whether the run is
    /// conducted from this host.
    pub fn host_fault_rules(&self, state: &Path, is_local_run: bool) -> HostFaultRules {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        HostFaultRules {
            allowed: self.allow_host_faults.clone(),
            policy: absolute(self.file()),
            state: absolute(state),
            is_local_run,
        }
    }

    /// The file that this policy was read from, or would be.
    pub fn file(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(POLICY_PATH))
    }

    fn refusal(&self, key: &str, what: String) -> Refusal {
        Refusal::new("policy", what).hint(format!(
            "the owner of this host may change `{key}` in {}",
            self.file().display()
        ))
    }

    /// The ports whose packets no network fault affects.
    pub fn protected_ports(&self) -> &[u16] {
        self.protect_ports.as_deref().unwrap_or(&[22])
    }

    /// Loads the policy from `path`; without a path, from its default path; where nothing is there, the default policy.
    ///
    /// # Errors
    /// The file cannot be read, or is wrong.
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
        let policy = HostPolicy {
            path: Some(at.to_owned()),
            ..policy
        };
        let problems = policy.problems();
        if problems.is_empty() {
            Ok(policy)
        } else {
            Err(wrong(problems))
        }
    }

    /// Problems that the schema does not show: unknown names would protect nothing.
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
            .filter(|(_, name)| self.plugins.iter().all(|plugin| plugin.name != **name))
            .map(|(at, name)| {
                let known = crate::faults::FAULTS.iter().map(|fault| fault.name);
                let problem = Problem::new(at, format!("there is no fault `{name}`"));
                match nearest(name, known) {
                    Some(near) => problem.hint(format!("did you mean `{near}`?")),
                    None => problem.hint("the subcommand `faults` lists them"),
                }
            });
        let host_faults = (self.allow_host_faults.iter().enumerate())
            .filter(|(_, name)| !HOST_FAULTS.contains(&name.as_str()))
            .map(|(index, name)| {
                Problem::new(
                    format!("$.allow-host-faults[{index}]"),
                    format!("`{name}` is not a fault that hits a whole host"),
                )
                .hint(format!("these are: {}", HOST_FAULTS.join(", ")))
            });
        let programs = self.allow_programs.iter().enumerate();
        let relative = programs
            .filter_map(|(index, program)| program.problem(&format!("$.allow-programs[{index}]")));
        let plugins = self.plugins.iter().enumerate();
        let plugins =
            plugins.flat_map(|(index, plugin)| plugin.problems(&format!("$.plugins[{index}]")));
        let built_in = self
            .plugins
            .iter()
            .enumerate()
            .filter_map(|(index, plugin)| {
                crate::faults::find(&plugin.name)?;
                let what = format!("`{}` is a built-in fault", plugin.name);
                let problem = Problem::new(format!("$.plugins[{index}].name"), what);
                Some(problem.hint("give the plug-in another name"))
            });
        let repeated = self
            .plugins
            .iter()
            .enumerate()
            .filter_map(|(index, plugin)| {
                let first = self
                    .plugins
                    .iter()
                    .position(|other| other.name == plugin.name);
                (first != Some(index)).then(|| {
                    let what = format!("there are two plug-ins `{}`", plugin.name);
                    Problem::new(format!("$.plugins[{index}].name"), what)
                        .hint("remove one of them")
                })
            });
        unknown
            .chain(host_faults)
            .chain(relative)
            .chain(plugins)
            .chain(built_in)
            .chain(repeated)
            .chain(self.program_environment.problems("$.program-environment"))
            .chain(self.protect.problems("$.protect"))
            .collect()
    }

    /// What probes on this host may connect to.
    pub fn destinations(&self) -> DestinationRules {
        DestinationRules {
            allow: self.allow_http.clone(),
            deny: self.deny_http.clone(),
        }
    }

    /// What requests from this host may be.
    pub fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            destinations: self.destinations(),
            max_rate: self.max_request_rate,
        }
    }

    /// The file of a program that a controller may run on this host with these arguments; `found` finds the file of a name or a path.
    ///
    /// # Errors
    /// The policy does not allow it.
    pub fn permits_program(
        &self,
        wanted: &str,
        arguments: &[String],
        found: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<PathBuf, Refusal> {
        // Links are not followed: where many programs are one file, allowing one must not allow them all.
        let allowed: Vec<&AllowedProgram> = match found(wanted) {
            Some(file) => (self.allow_programs.iter())
                .filter(|allowed| found(allowed.program()).as_ref() == Some(&file))
                .collect(),
            None => Vec::new(),
        };
        let with = match allowed.as_slice() {
            [] => "",
            _ => " with these arguments",
        };
        let is_permitted = allowed
            .iter()
            .any(|allowed| allowed.permits_arguments(arguments));
        found(wanted).filter(|_| is_permitted).ok_or_else(|| {
            self.refusal(
                "allow-programs",
                format!(
                    "the policy of this host does not allow a controller to run `{wanted}`{with}"
                ),
            )
        })
    }

    /// Whether a fault may be injected on this host at all.
    ///
    /// # Errors
    /// The policy does not allow it: the refusal names the rule.
    pub fn permits_fault(&self, fault: &str) -> Result<(), Refusal> {
        let allowed = self
            .allow_faults
            .as_ref()
            .is_none_or(|only| only.iter().any(|name| name == fault));
        let denied = self.deny_faults.iter().any(|name| name == fault);
        if allowed && !denied {
            return Ok(());
        }
        Err(self.refusal(
            if allowed {
                "deny-faults"
            } else {
                "allow-faults"
            },
            format!("the policy of this host does not allow `{fault}`"),
        ))
    }

    /// Whether a plan may be carried out on this host. `acting` is the number of faults that act already.
    ///
    /// # Errors
    /// The policy, or the blast radius of the run, does not allow it: the refusal names the rule.
    pub fn permits(
        &self,
        request: &InjectionRequest,
        plan: &PlanView,
        acting: usize,
    ) -> Result<(), Refusal> {
        self.permits_fault(&request.fault)?;
        if let (Some(longest), Some(wanted)) = (self.max_duration, request.duration)
            && wanted > longest
        {
            return Err(self.refusal(
                "max-duration",
                format!("{wanted} is longer than the {longest} that this host allows"),
            ));
        }
        let victims = plan.victims.len();
        if self.max_victims.is_some_and(|most| victims > most as usize) {
            let most = self.max_victims.unwrap_or_default();
            return Err(self.refusal(
                "max-victims",
                format!("{victims} victims are more than the {most} that this host allows"),
            ));
        }
        if self.max_faults.is_some_and(|most| acting >= most as usize) {
            let most = self.max_faults.unwrap_or_default();
            return Err(self.refusal(
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

/// A policy as one process of the agent hands it to another: with the file that it was read from, which refusals name.
pub(crate) mod with_its_file {
    use super::HostPolicy;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use std::path::PathBuf;

    pub(crate) fn serialize<S: Serializer>(policy: &HostPolicy, to: S) -> Result<S::Ok, S::Error> {
        (policy, &policy.path).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<HostPolicy, D::Error> {
        let (policy, path) = <(HostPolicy, Option<PathBuf>)>::deserialize(from)?;
        Ok(HostPolicy { path, ..policy })
    }
}
