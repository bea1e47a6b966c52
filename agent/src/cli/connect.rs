//! The words that bring an agent to a controller: `join` once, `connect` ever after.

use super::{CommandError, given_labels, host_name, labels};
use crate::controller_link::{self, ConnectorConfig, join};
use crate::host::{Host, Invocation, HostRole};
use backburn_experiments::join::{JoinToken, problem_with_name};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::path::Path;

/// `join` and `connect`.
pub(super) fn commands() -> [Command; 2] {
    let text = |name: &'static str, shown: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(shown).help(help)
    };
    let join = Command::new("join")
        .about("Join a controller with a token, once; joining again replaces what was before")
        .arg(text("controller", "HOST[:PORT]", "Where the controller is").required(true))
        .arg(
            text(
                "token",
                "TOKEN",
                "Leave to join, once, from an operator of the controller",
            )
            .env("BACKBURN_JOIN_TOKEN")
            .hide_env_values(true)
            .required(true),
        )
        .arg(text(
            "name",
            "NAME",
            "What the agent would be called; the host's name where left out",
        ))
        .arg(text("label", "KEY=VALUE", "A label of this agent").action(ArgAction::Append));
    let connect = Command::new("connect")
        .about("Serve the controller that was joined, over the network, until told to end; connects again by itself");
    [join, connect]
}

/// Joins, and says as what.
pub(super) fn join(
    matches: &ArgMatches,
    state: &Path,
    invocation: Invocation,
) -> Result<u8, CommandError> {
    let wrong = |what: String| CommandError::Invalid(what);
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let token: JoinToken = text("token")
        .parse()
        .map_err(|error: backburn_experiments::join::InvalidToken| wrong(error.to_string()))?;
    let name = matches
        .get_one::<String>("name")
        .cloned()
        .unwrap_or_else(host_name);
    if let Some(problem) = problem_with_name(&name) {
        return Err(wrong(format!(
            "{problem}\nhint: `--name` gives it another one"
        )));
    }
    let host = Host::new(HostRole::Hand, invocation);
    let (given, all) = (given_labels(matches)?, labels(matches)?);
    let controller = text("controller");
    let member = match join::join(&host, state, &controller, &token, &name, &given, &all) {
        Ok(member) => member,
        Err(join::JoinError::Refused(refusal)) => return Err(refusal.into()),
        Err(error) => return Err(wrong(error.to_string())),
    };
    println!(
        "joined {controller} as {}; `connect` serves it",
        member.name
    );
    Ok(0)
}

/// Serves until told to end.
pub(super) fn connect(
    state: &Path,
    policy: Option<&Path>,
    invocation: &Invocation,
) -> Result<u8, CommandError> {
    let mut serve_arguments = vec!["--state".to_owned(), state.display().to_string()];
    if let Some(policy) = policy {
        serve_arguments.extend(["--policy".to_owned(), policy.display().to_string()]);
    }
    let settings = ConnectorConfig {
        state: state.to_owned(),
        serve_arguments,
    };
    controller_link::run(&settings, invocation)
        .map_err(|error| CommandError::Invalid(error.to_string()))
}
