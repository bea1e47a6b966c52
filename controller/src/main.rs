//! The program `backburn`: command line, controller and local agent in one file, so that installing it means copying one file.

mod cli;

use std::process::ExitCode;

backburn_agent::mark_program!();

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // The agent comes before everything else: its guardian must be small, and its helpers must start fast.
    if arguments
        .first()
        .is_some_and(|argument| argument == "agent")
    {
        return backburn_agent::main(&["agent"], arguments.into_iter().skip(1).collect());
    }
    cli::main(arguments)
}
