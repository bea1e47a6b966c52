//! `backburn completions` and `backburn man`: generated from the same definition as the command line itself.

use super::{Cli, CommandFailure, print};
use clap::CommandFactory;
use clap_complete::Shell;

/// Prints the completion script of the program for a shell.
pub(super) fn print_completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "backburn", &mut script);
    print(&String::from_utf8_lossy(&script));
}

/// Prints the manual page of the program, or of one of its commands, in roff.
///
/// # Errors
/// There is no command of this name.
pub(super) fn print_page(name: Option<&str>) -> Result<u8, CommandFailure> {
    let mut program = Cli::command();
    program.build();
    let command = match name {
        None => program,
        Some(name) => match program.find_subcommand(name) {
            // The page is called like the file that is looked for: `man backburn-run`.
            Some(command) => command.clone().name(format!("backburn-{name}")),
            None => {
                return Err(CommandFailure::invalid(format!(
                    "no command `{name}`\nhint: `backburn --help` lists the commands"
                )));
            }
        },
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| CommandFailure::invalid(error.to_string()))?;
    print(&String::from_utf8_lossy(&page));
    Ok(0)
}
