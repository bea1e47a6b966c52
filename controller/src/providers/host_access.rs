//! What probes may use of the host that measures them: the environment of programs, and the network.

use backburn_experiments::destination::DestinationRules;
use backburn_experiments::probes::{ProcessProvider, value_text, variable_name_problem};
use backburn_experiments::program_environment::{self, ProgramEnvironment};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

/// What probes may use of the host that measures them. The default is what a policy allows that says nothing.
#[derive(Debug, Clone, Default)]
pub struct HostAccess {
    /// The environment of programs and Python functions.
    pub environment: EnvironmentAccess,
    /// What may be connected to.
    pub destinations: Arc<DestinationRules>,
}

/// The environment of programs and Python functions.
#[derive(Debug, Clone)]
pub enum EnvironmentAccess {
    /// What a policy names, and nothing else.
    Policy(Arc<ProgramEnvironment>),
    /// That of this process without Backburn's own variables: the user runs programs of the user's own experiment.
    User,
}

impl Default for EnvironmentAccess {
    fn default() -> Self {
        EnvironmentAccess::Policy(Arc::default())
    }
}

impl EnvironmentAccess {
    /// The whole environment of a program.
    ///
    /// # Errors
    /// The probe sets a variable that it may not; the text says which.
    pub(super) fn of_program(
        &self,
        provider: &ProcessProvider,
    ) -> Result<BTreeMap<String, OsString>, String> {
        match self {
            EnvironmentAccess::Policy(policy) => {
                policy.variables(provider, |name| std::env::var_os(name))
            }
            EnvironmentAccess::User => {
                let mut variables = self.of_python();
                for (name, value) in provider.env.iter().flatten() {
                    if let Some(what) = variable_name_problem(name) {
                        return Err(what);
                    }
                    variables.insert(name.clone(), value_text(value).into());
                }
                Ok(variables)
            }
        }
    }

    /// The whole environment of the interpreter of Python functions.
    pub(super) fn of_python(&self) -> BTreeMap<String, OsString> {
        match self {
            EnvironmentAccess::Policy(policy) => policy.fixed(|name| std::env::var_os(name)),
            EnvironmentAccess::User => std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .filter(|(name, _)| !program_environment::is_own(name))
                .collect(),
        }
    }
}
