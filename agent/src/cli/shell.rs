//! `completions` and `man`: what a shell and a pager know about the commands, generated from the same definitions as the help.

use super::{CommandError, output};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use clap_mangen::Man;

/// The commands `man` and, for a program whose name is one word, `completions`: `backburn` has its own for all of its commands.
pub(super) fn commands(program: &str) -> Vec<Command> {
    let completions = Command::new("completions")
        .about("Print the completion script for a shell")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .value_parser(value_parser!(Shell))
                .required(true)
                .help("Shell that reads the script"),
        );
    let man = Command::new("man")
        .about("Print the manual page, or that of a command")
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .action(ArgAction::Append)
                .help("Command to describe, for example `inject` or `inject process-kill`"),
        );
    match program.contains(' ') {
        true => vec![man],
        false => vec![completions, man],
    }
}

/// Prints the completion script of `program`.
pub(super) fn completions(matches: &ArgMatches, mut program: Command) -> Result<u8, CommandError> {
    let Some(shell) = matches.get_one::<Shell>("shell") else {
        return Err(CommandError::Invalid("no shell is named".into()));
    };
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut program, name, &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Ok(0)
}

/// Prints the manual page of `program`, or of the command that `matches` name.
pub(super) fn man(matches: &ArgMatches, mut program: Command) -> Result<u8, CommandError> {
    program.build();
    let mut name = program.get_name().to_owned();
    let mut command = program;
    for word in matches.get_many::<String>("command").into_iter().flatten() {
        command = command.find_subcommand(word).cloned().ok_or_else(|| {
            CommandError::Invalid(format!(
                "there is no command `{name} {word}`\nhint: `{name} --help` lists the commands"
            ))
        })?;
        name = format!("{name} {word}");
    }
    let mut page = Vec::new();
    Man::new(command.display_name(name.replace(' ', "-")))
        .render(&mut page)
        .map_err(|error| CommandError::Invalid(error.to_string()))?;
    output::print(&String::from_utf8_lossy(&page));
    Ok(0)
}
