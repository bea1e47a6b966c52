//! The slim binary: the agent alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    backburn_agent::main(&[], std::env::args_os().skip(1).collect())
}
