//! The commands that connect an agent to a controller: `join` once, then `connect`.

use super::{CommandError, LOG_FORMAT_VARIABLE, LogFormat, given_labels, host_name, labels};
use crate::controller_link::{self, ConnectorConfig, join};
use crate::host::{Host, HostRole, Invocation};
use backburn_experiments::join::{JoinToken, problem_with_name};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::path::Path;

/// The commands `join` and `connect`.
pub(super) fn commands() -> [Command; 2] {
    let text = |name: &'static str, shown: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(shown).help(help)
    };
    let join = Command::new("join")
        .about("Join a controller with a token; joining again replaces the previous controller")
        .arg(text("controller", "HOST[:PORT]", "Address of the controller").required(true))
        .arg(
            text(
                "token",
                "TOKEN",
                "Join token, which an operator of the controller creates; it works once",
            )
            .env("BACKBURN_JOIN_TOKEN")
            .hide_env_values(true)
            .required(true),
        )
        .arg(text(
            "name",
            "NAME",
            "Name that the agent asks for [default: the host name]",
        ))
        .arg(
            text(
                "label",
                "KEY=VALUE",
                "Label of the agent; may be given several times",
            )
            .action(ArgAction::Append),
        );
    let connect = Command::new("connect")
        .about("Connect to the controller that was joined, and serve it; reconnects automatically")
        .arg(
            text(
                "log-format",
                "FORMAT",
                "How the log is written: `text` or `json`",
            )
            .env(LOG_FORMAT_VARIABLE)
            .default_value(LogFormat::default().word())
            .value_parser(clap::builder::ValueParser::new(str::parse::<LogFormat>)),
        );
    [join, connect]
}

/// Joins a controller, and prints the name under which the agent has joined.
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
            "{problem}\nhint: choose another name with `--name`"
        )));
    }
    let host = Host::new(HostRole::Command, invocation);
    let (given, all) = (given_labels(matches)?, labels(matches)?);
    let controller = text("controller");
    let member = match join::join(&host, state, &controller, &token, &name, &given, &all) {
        Ok(member) => member,
        Err(join::JoinError::Refused(refusal)) => return Err(refusal.into()),
        Err(error) => return Err(wrong(error.to_string())),
    };
    println!(
        "joined {controller} as {}; run `connect` to serve it",
        member.name
    );
    Ok(0)
}

/// Serves the controller until a signal ends it.
pub(super) fn connect(
    state: &Path,
    policy: Option<&Path>,
    log_format: LogFormat,
    invocation: &Invocation,
) -> Result<u8, CommandError> {
    let mut serve_arguments = vec!["--state".to_owned(), state.display().to_string()];
    if let Some(policy) = policy {
        serve_arguments.extend(["--policy".to_owned(), policy.display().to_string()]);
    }
    let settings = ConnectorConfig {
        state: state.to_owned(),
        serve_arguments,
        environment: vec![(LOG_FORMAT_VARIABLE.to_owned(), log_format.word().to_owned())],
    };
    controller_link::run(&settings, invocation)
        .map_err(|error| CommandError::Invalid(error.to_string()))
}
