//! `backburn completions` and `backburn man`: generated from the same definition as the command line itself.

use super::{Cli, CommandFailure, print};
use backburn_experiments::terminal_text::escape;
use clap::CommandFactory;
use clap_complete::Shell;

/// Prints the completion script of the program for a shell.
pub(super) fn print_completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "backburn", &mut script);
    print(&String::from_utf8_lossy(&script));
}

/// Prints the manual page of the program, or of the command that these words name, in roff.
///
/// # Errors
/// There is no such command.
pub(super) fn print_page(words: &[String]) -> Result<u8, CommandFailure> {
    let mut command = Cli::command();
    command.build();
    let mut name = "backburn".to_owned();
    for word in words {
        command = command.find_subcommand(word).cloned().ok_or_else(|| {
            CommandFailure::invalid(format!(
                "there is no command `{name} {}`\nhint: `{name} --help` lists the commands",
                escape(word)
            ))
        })?;
        name = format!("{name} {word}");
    }
    // The page is called like the file that is looked for: `man backburn-run`.
    let command = command.display_name(name.replace(' ', "-"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| CommandFailure::invalid(error.to_string()))?;
    print(&String::from_utf8_lossy(&page));
    Ok(0)
}
