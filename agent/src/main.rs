//! The slim program `backburn-agent`: the agent without the controller.

use std::process::ExitCode;

backburn_agent::mark_program!();

fn main() -> ExitCode {
    backburn_agent::main(&[], std::env::args_os().skip(1).collect())
}
