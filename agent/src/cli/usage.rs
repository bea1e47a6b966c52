//! Mistakes on the agent's command line: what is wrong, and a hint.

use backburn_experiments::problem::nearest;
use backburn_experiments::terminal_text::escape;
use backburn_experiments::usage_message::usage_message;
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The message for a mistake; none if the error is a request for help or for the version. `known` is the command that has it, `name` what
/// people type to run it.
pub(super) fn mistake(error: &clap::Error, known: &Command, name: &str) -> Option<String> {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return None;
    }
    let hint = hint(error, known, name);
    Some(usage_message(&error.render().to_string(), hint.as_deref()))
}

fn hint(error: &clap::Error, known: &Command, name: &str) -> Option<String> {
    // Two letters in the wrong order are one mistake, which clap counts as two.
    let given = texts(error, ContextKind::InvalidSubcommand);
    let commands = known.get_subcommands().filter(|known| !known.is_hide_set());
    let near = given
        .first()
        .and_then(|given| nearest(given, commands.map(Command::get_name)));
    if let Some(near) = near {
        return Some(format!("did you mean `{near}`?"));
    }
    let suggested = [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ];
    let names = suggested.into_iter().map(|kind| texts(error, kind));
    let names: Vec<String> = names.flatten().map(|name| format!("`{name}`")).collect();
    match names.is_empty() {
        false => Some(format!("did you mean {}?", names.join(" or "))),
        true => (error.kind() == ErrorKind::InvalidSubcommand)
            .then(|| format!("`{name} help` lists the commands")),
    }
}

/// The texts of this kind that an error has, escaped.
fn texts(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    let escaped = |text: &String| escape(text).into_owned();
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![escaped(text)],
        Some(ContextValue::Strings(texts)) => texts.iter().map(escaped).collect(),
        _ => Vec::new(),
    }
}
