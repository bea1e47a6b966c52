//! A program that is run to measure something, never through a shell.

use super::{ProbeError, ProbeProvider, Transport, put_value};
use crate::problem::at_key;
use crate::{HumanDuration, Problem, argv};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How long the program of a probe may run where neither the provider nor the activity has a time-out; on an agent, of an action too.
pub(crate) const DEFAULT_PROGRAM_TIMEOUT: HumanDuration = HumanDuration::seconds(60);

/// A program that is run. Never through a shell.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ProcessProvider {
    /// The program: a path, or a name found along `PATH`.
    #[schemars(length(min = 1))]
    pub path: String,
    /// A list is argv; an object is its keys and values in turn; a string is split into words, never given to a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// The longest it may take; then it is killed with its children. A probe's default is 60 s; a program that is an action may run until it
    /// ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Environment variables of the program. On an agent or a controller, its policy names those that may be set, and the program has no
    /// others; in a run on your own host it has yours as well, without Backburn's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, Value>>,
}

impl ProcessProvider {
    /// The program and its arguments.
    ///
    /// # Errors
    /// The arguments are a line that only a shell would understand; says what would do.
    pub fn argv(&self) -> Result<Vec<String>, String> {
        argv::argv(&self.path, self.arguments.as_ref())
    }
}

/// The value of a program that has ended: `{status, stdout, stderr}`. The status of one that a signal ended is that signal, negative.
pub fn exit_value(code: Option<i32>, signal: Option<i32>, stdout: &[u8], stderr: &[u8]) -> Value {
    json!({
        "status": code.unwrap_or_else(|| -signal.unwrap_or(0)),
        "stdout": String::from_utf8_lossy(stdout),
        "stderr": String::from_utf8_lossy(stderr),
    })
}

/// The program wrote more than this many bytes.
pub fn output_too_long(limit: usize) -> ProbeError {
    ProbeError::Broken(format!("it wrote more than {} MiB", limit >> 20))
}

impl ProbeProvider for ProcessProvider {
    fn transport(&self, _: Option<HumanDuration>) -> Transport<'_> {
        Transport::Process(self)
    }

    fn time_limit(&self, timeout: Option<HumanDuration>) -> Option<HumanDuration> {
        self.timeout.or(timeout)
    }

    fn time_limit_on_agent(&self, timeout: Option<HumanDuration>) -> HumanDuration {
        self.time_limit(timeout).unwrap_or(DEFAULT_PROGRAM_TIMEOUT)
    }

    fn runs_program(&self) -> bool {
        true
    }

    fn problems(&self, at: &str) -> Vec<Problem> {
        let names = self.env.iter().flatten();
        let names = names.filter_map(|(name, _)| variable_name_problem(name));
        let at_env = at_key(at, "env");
        let mut problems: Vec<Problem> = names.map(|what| Problem::new(&at_env, what)).collect();
        let Some(Value::String(line)) = &self.arguments else {
            return problems;
        };
        let wrong = argv::words(line).err().map(|what| {
            Problem::new(at_key(at, "arguments"), what).hint(argv::shell_hint(&self.path, line))
        });
        problems.extend(wrong);
        problems
    }

    fn take_value(&mut self, value: &Value) -> Option<Result<(), String>> {
        Some(put_value(&mut self.arguments, value))
    }
}

/// Why this cannot be the name of an environment variable.
pub fn variable_name_problem(name: &str) -> Option<String> {
    let is_name = !name.is_empty() && !name.contains(['=', '\0']);
    (!is_name).then(|| {
        format!(
            "`{}` is not the name of an environment variable",
            name.escape_debug()
        )
    })
}
