//! `backburn status`: whether a halt is in force, what acts now, what is owed, and which agents do not answer.

use super::output::exit_code;
use super::remote::{self, ControllerOptions};
use super::report::{format_open_run, seconds_since};
use super::{CommandFailure, HostOptions, history, print};
use clap::Args;
use std::ffi::OsString;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct StatusCommand {
    /// Show this host even if a controller is given
    #[arg(long)]
    local: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn status`.
///
/// # Errors
/// The controller does not answer, or the journals of this host cannot be read.
pub(super) fn main(command: &StatusCommand) -> Result<ExitCode, CommandFailure> {
    if command.controller.is_given() && !command.local {
        return remote::status::print_status(&command.controller, command.json)
            .map(|code| ExitCode::from(exit_code(code)));
    }
    let state = command.host.state()?;
    if !command.json {
        for (run, started) in history::running(&state)? {
            print(&format_open_run(&run, started.map_or(0.0, seconds_since)));
        }
    }
    // What is owed is in the agent's ledger, and the agent knows how to observe it.
    let mut words: Vec<OsString> = vec!["status".into(), "--state".into(), state.into()];
    if command.json {
        words.push("--json".into());
    }
    Ok(backburn_agent::main(&["agent"], words))
}
