//! The faults of plug-ins on the command line. Their options come of their schemas, which only the plug-ins know, so they are loaded before
//! the command line is parsed, where it may mean one of them.

use crate::host::{Host, HostRole, Invocation};
use crate::plugins::{InstalledPlugin, PluginRegistry};
use crate::policy::HostPolicy;
use backburn_experiments::wire::Refusal;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the words of a command line say before they are parsed.
#[derive(Debug, Default, PartialEq)]
struct RoughWords {
    command: Option<String>,
    fault: Option<String>,
    policy: Option<PathBuf>,
    state: Option<PathBuf>,
}

impl RoughWords {
    fn read(words: &[OsString]) -> Self {
        let mut read = RoughWords::default();
        let mut words = words.iter().map(|word| word.to_string_lossy());
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (&*word, None),
            };
            match option {
                "--policy" => read.policy = value.or_else(|| next(&mut words)).map(PathBuf::from),
                "--state" => read.state = value.or_else(|| next(&mut words)).map(PathBuf::from),
                _ if option.starts_with('-') => {}
                _ if read.command.is_none() => read.command = Some(word.into_owned()),
                // What follows the first two may be the value of an option.
                _ if read.fault.is_none() => read.fault = Some(word.into_owned()),
                _ => {}
            }
        }
        read
    }
}

fn next<'w>(words: &mut impl Iterator<Item = std::borrow::Cow<'w, str>>) -> Option<String> {
    words.next().map(std::borrow::Cow::into_owned)
}

/// The plug-ins that this command line may mean; none where it names a built-in fault, or a command that has nothing to do with them. A
/// policy that cannot be read has none here: the command itself says what is wrong with it.
///
/// # Errors
/// It names a plug-in that the policy allows and that cannot be used: says why.
pub(super) fn load(
    words: &[OsString],
    invocation: &Invocation,
) -> Result<Vec<InstalledPlugin>, Refusal> {
    let given = RoughWords::read(words);
    let about_faults = ["plan", "inject", "faults"];
    let is_about_faults = |word: &Option<String>| {
        word.as_deref()
            .is_some_and(|word| about_faults.contains(&word))
    };
    let is_help = given.command.as_deref() == Some("help") && is_about_faults(&given.fault);
    let named = given.fault.as_deref().filter(|_| !is_help);
    let is_built_in = named.is_some_and(|name| crate::faults::find(name).is_some());
    if !(is_about_faults(&given.command) || is_help) || is_built_in {
        return Ok(Vec::new());
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let policy = given
        .policy
        .or_else(|| variable("BACKBURN_POLICY").map(PathBuf::from));
    let state = given
        .state
        .or_else(|| variable("BACKBURN_STATE").map(PathBuf::from));
    let (Ok(policy), Ok(state)) = (
        HostPolicy::load(policy.as_deref()),
        state.map_or_else(super::default_state, Ok),
    ) else {
        return Ok(Vec::new());
    };
    if policy.plugins.is_empty() {
        return Ok(Vec::new());
    }
    let host = Host::new(HostRole::Command, invocation.clone());
    let registry = PluginRegistry::load(&host, &state, &policy);
    match named.and_then(|name| registry.find(name)) {
        Some(plugin) => match plugin.refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(registry.installed().to_vec()),
        },
        None => Ok(registry.installed().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_anywhere_on_the_command_line_is_seen() {
        for line in [
            "--policy /p plan swap --state=/s --link x",
            "plan --policy=/p --state /s swap",
            "plan swap --arguments {} --policy /p --state /s",
        ] {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let expected = RoughWords {
                command: Some("plan".into()),
                fault: Some("swap".into()),
                policy: Some("/p".into()),
                state: Some("/s".into()),
            };
            assert_eq!(RoughWords::read(&words), expected, "{line}");
        }
    }
}
