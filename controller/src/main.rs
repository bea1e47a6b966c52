//! The one binary: controller, command line and local agent in one file, so that copying it to a
//! machine is all there is to installing it.

mod cli;
mod demo;

use std::process::ExitCode;

backburn_agent::mark_program!();

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    words.next();
    let words: Vec<_> = words.collect();
    // The agent goes first, before anything of the controller's is built: its guardian has to be
    // small, and its helpers have to be fast.
    if words.first().is_some_and(|word| word == "agent") {
        return backburn_agent::main(&["agent"], words.into_iter().skip(1).collect());
    }
    cli::main(words)
}
