//! Mistakes on the command line, in the same form as all other messages: what is wrong, and a hint.

use backburn_experiments::problem::nearest;
use backburn_experiments::terminal_text::escape;
use backburn_experiments::usage_message::usage_message;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

/// Commands of the agent that people look for among those of the program.
const AGENT_COMMANDS: [&str; 5] = ["inject", "doctor", "join", "connect", "serve"];

/// The message for a mistake; none if the error is a request for help or for the version.
pub(super) fn mistake<Cli: CommandFactory>(error: &clap::Error) -> Option<String> {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return None;
    }
    let hint = hint::<Cli>(error);
    Some(usage_message(&error.render().to_string(), hint.as_deref()))
}

fn hint<Cli: CommandFactory>(error: &clap::Error) -> Option<String> {
    let suggested = [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ];
    let names = suggested.into_iter().find_map(|kind| texts(error, kind));
    let program = Cli::command();
    let is_of_program = |name: &String| program.find_subcommand(name).is_some();
    let given = texts(error, ContextKind::InvalidSubcommand)
        .and_then(|given| given.into_iter().next())
        .filter(|_| names.iter().flatten().all(is_of_program));
    if let Some(given) = given {
        if AGENT_COMMANDS.contains(&given.as_str()) {
            return Some(format!("did you mean `backburn agent {given}`?"));
        }
        // Two letters in the wrong order are one mistake, which clap counts as two.
        let shown = program
            .get_subcommands()
            .filter(|command| !command.is_hide_set());
        if let Some(near) = nearest(&given, shown.map(Command::get_name)) {
            return Some(format!("did you mean `{near}`?"));
        }
    }
    if let Some(names) = names {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        return Some(format!("did you mean {}?", names.join(" or ")));
    }
    (error.kind() == ErrorKind::InvalidSubcommand)
        .then(|| "`backburn help` lists the commands".to_owned())
}

fn texts(error: &clap::Error, kind: ContextKind) -> Option<Vec<String>> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(vec![escape(text).into_owned()]),
        ContextValue::Strings(texts) if !texts.is_empty() => {
            Some(texts.iter().map(|text| escape(text).into_owned()).collect())
        }
        _ => None,
    }
}
