//! The commands that connect an agent to a controller: `join` once, then `connect`.

use super::{
    CommandError, LOG_FORMAT_VARIABLE, LogFormat, given_labels, host_name, labels, output,
};
use crate::controller_link::{self, ConnectorConfig, Credentials, HttpProxy, NO_PROXY, join};
use crate::host::{Host, HostRole, Invocation};
use backburn_experiments::join::{JoinToken, problem_with_name};
use backburn_experiments::labels::Labels;
use backburn_experiments::terminal_text::escape;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::path::Path;

/// The commands `join`, `connect` and `move`.
pub(super) fn commands() -> [Command; 3] {
    let text = |name: &'static str, shown: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(shown).help(help)
    };
    let proxy = |help: &'static str| text("proxy", "URL", help);
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
        .arg(proxy(
            "HTTP proxy to the controller, `http://[USER:PASSWORD@]HOST[:PORT]`, or `none`; kept for `connect` [default: HTTPS_PROXY, unless NO_PROXY names the controller]",
        ))
        .arg(
            text(
                "label",
                "KEY=VALUE",
                "Label to expect: labels are granted by the join token or by an admin, and joining warns about one that is not; may be given several times",
            )
            .action(ArgAction::Append),
        );
    let connect = Command::new("connect")
        .about("Connect to the controller that was joined, and serve it; reconnects automatically")
        .arg(proxy(
            "HTTP proxy to use instead of the one that was given to `join`, or `none`; not kept",
        ))
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
    let change_address = Command::new("move")
        .about("Use another address of the controller that was joined; a running `connect` uses it for its next connection")
        .arg(text("controller", "HOST[:PORT]", "New address of the controller").required(true))
        .arg(proxy(
            "HTTP proxy to the new address, or `none`; kept for `connect` [default: as before]",
        ));
    [join, connect, change_address]
}

/// Has the agent use another address of its controller, which must be the same one: it proves that by its authority.
pub(super) fn change_address(
    matches: &ArgMatches,
    state: &Path,
    invocation: Invocation,
) -> Result<u8, CommandError> {
    let wrong = |what: String| CommandError::Invalid(what);
    let controller = matches.get_one::<String>("controller");
    let controller = controller.cloned().unwrap_or_default();
    let mut credentials = Credentials::load(state).map_err(|error| wrong(error.to_string()))?;
    if let Some(proxy) = given_proxy(matches)? {
        credentials.proxy = Some(proxy);
    }
    let host = Host::new(HostRole::Command, invocation);
    match join::renew_at(&host, state, &credentials, &controller) {
        Ok(_) => {}
        Err(join::JoinError::Refused(refusal)) => return Err(refusal.into()),
        Err(error) => return Err(wrong(error.to_string())),
    }
    output::print(&format!(
        "{} uses {} from its next connection on\n",
        escape(&credentials.name),
        escape(&controller)
    ));
    Ok(0)
}

/// The proxy that was given, if it is named as it should be.
fn given_proxy(matches: &ArgMatches) -> Result<Option<String>, CommandError> {
    let Some(given) = matches.get_one::<String>("proxy") else {
        return Ok(None);
    };
    if given != NO_PROXY {
        let read: Result<HttpProxy, String> = given.parse();
        read.map_err(CommandError::Invalid)?;
    }
    Ok(Some(given.clone()))
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
    let proxy = given_proxy(matches)?;
    let options = join::JoinOptions {
        controller: &controller,
        proxy: proxy.as_deref(),
        token: &token,
        name: &name,
        given: &given,
        labels: &all,
    };
    let (member, granted) = match join::join(&host, state, &options) {
        Ok(joined) => joined,
        Err(join::JoinError::Refused(refusal)) => return Err(refusal.into()),
        Err(error) => return Err(wrong(error.to_string())),
    };
    if let Some(granted) = granted {
        say!(
            "{}",
            granted_text(&member.name, &given, &granted).trim_end()
        );
    }
    output::print(&format!(
        "joined {} as {}; run `connect` to serve it\n",
        escape(&controller),
        escape(&member.name)
    ));
    Ok(0)
}

/// Says which labels the agent was granted, and warns about those that were asked for and not granted.
fn granted_text(name: &str, given: &Labels, granted: &Labels) -> String {
    let list = |labels: &mut dyn Iterator<Item = (&String, &String)>| {
        let labels: Vec<String> = labels
            .map(|(key, value)| escape(&format!("{key}={value}")).into_owned())
            .collect();
        labels.join(" ")
    };
    let missing = |(key, value): &(&String, &String)| granted.get(*key) != Some(*value);
    let missing = list(&mut given.iter().filter(missing));
    let mut text = match granted.is_empty() {
        true => "labels: none\n".to_owned(),
        false => format!("labels: {}\n", list(&mut granted.iter())),
    };
    if !missing.is_empty() {
        text.push_str(&format!(
            "warning: not granted, and ignored: {missing}\nhint: an agent cannot give itself labels; an admin says `backburn agents label {name} {missing}`, or makes a join token with them: `backburn join-token --label KEY=VALUE`\n"
        ));
    }
    text
}

/// Serves the controller until a signal ends it.
pub(super) fn connect(
    matches: &ArgMatches,
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
        proxy: given_proxy(matches)?,
    };
    controller_link::run(&settings, invocation)
        .map_err(|error| CommandError::Invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_that_was_asked_for_and_not_granted_is_warned_about() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let given = labels(&[("role", "db"), ("team", "payments")]);
        let text = granted_text("db-1", &given, &labels(&[("role", "db"), ("zone", "a")]));
        assert!(text.starts_with("labels: role=db zone=a\n"), "{text}");
        assert!(text.contains("ignored: team=payments\n"), "{text}");
        assert!(text.contains("agents label db-1 team=payments"), "{text}");
        let text = granted_text("db-1", &given, &given);
        assert!(!text.contains("warning"), "{text}");
    }
}
