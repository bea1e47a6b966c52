//! `backburn suggest`: experiments that suit this host, or the agents of a controller's fleet.

use super::super::output::shown_path;
use super::super::table::print_table;
use super::super::{CommandFailure, HostOptions, print_json, print_stderr};
use super::ControllerOptions;
use backburn::api::types::{AgentInfo, SuggestionInfo, SuggestionsInfo};
use backburn_experiments::journal::Outcome;
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::terminal_text::escape;
use clap::Args;
use serde_json::json;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The most agents that are asked if none is named. Each examines its host and plans dozens of experiments.
const MAX_AGENTS: usize = 20;
/// How long a reason is in the table, in characters.
const REASON_LENGTH: usize = 90;

#[derive(Debug, Args)]
pub(in crate::cli) struct SuggestCommand {
    /// Ask this agent of the controller; repeat it for several [default: all that are connected, at most 20]
    #[arg(long = "agent", value_name = "NAME")]
    agents: Vec<String>,
    /// Write each experiment to a new file in this folder
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Print JSON: name, reason and experiment of each
    #[arg(long)]
    json: bool,
    /// Suggest for this host even if a controller is given
    #[arg(long, conflicts_with = "agents")]
    local: bool,
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    controller: ControllerOptions,
}

impl SuggestCommand {
    /// The words of the agent's own command, for this host. None if a controller is asked.
    pub(in crate::cli) fn local_words(&self) -> Option<Vec<OsString>> {
        if !self.agents.is_empty() || (self.controller.is_given() && !self.local) {
            return None;
        }
        let mut words: Vec<OsString> = vec!["suggest".into()];
        if self.json {
            words.push("--json".into());
        }
        let folders = [
            ("--write", self.write.as_ref()),
            ("--state", self.host.state.as_ref()),
            ("--policy", self.host.policy.as_ref()),
        ];
        for (flag, path) in folders {
            if let Some(path) = path {
                words.extend([flag.into(), path.clone().into_os_string()]);
            }
        }
        Some(words)
    }
}

/// Asks a controller what suits the agents of its fleet.
pub(in crate::cli) fn on_fleet(command: &SuggestCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let names = match command.agents.is_empty() {
        false => command.agents.clone(),
        true => {
            let agents: Vec<AgentInfo> =
                client.list("/api/v1/agents?limit=1000", |agent: &AgentInfo| &agent.name)?;
            let connected = agents.into_iter().filter(|agent| agent.connected);
            connected.map(|agent| agent.name).collect()
        }
    };
    let (asked, rest) = names.split_at(names.len().min(match command.agents.is_empty() {
        true => MAX_AGENTS,
        false => names.len(),
    }));
    if !rest.is_empty() {
        print_stderr(&format!(
            "{} of {} connected agents are asked\nhint: `--agent NAME` names one\n",
            asked.len(),
            names.len()
        ));
    }
    let (mut found, mut failure) = (Vec::new(), None);
    for name in asked {
        let path = format!("/api/v1/agents/{}/suggestions", percent_encoded(name));
        match client.get::<SuggestionsInfo>(&path) {
            Ok(suggestions) => found.push(suggestions),
            // An agent that fails hides nothing of the others.
            Err(failed) if asked.len() > 1 => {
                print_stderr(&format!("{}: {}\n", escape(name), failed.message));
                failure = Some(failed);
            }
            Err(failed) => return Err(failed),
        }
    }
    if found.is_empty()
        && let Some(failure) = failure
    {
        return Err(failure);
    }
    show(command, &found)
}

fn show(command: &SuggestCommand, found: &[SuggestionsInfo]) -> Result<u8, CommandFailure> {
    for one in found {
        for left_out in &one.left_out {
            print_stderr(&format!(
                "{}: left out: {}: {}\n",
                escape(&one.agent),
                escape(&left_out.names.join(", ")),
                escape(&left_out.why)
            ));
        }
    }
    let all = || {
        let each = found.iter();
        each.flat_map(|of| of.suggestions.iter().map(|one| (of.agent.as_str(), one)))
    };
    if all().next().is_none() {
        print_stderr("nothing can be suggested for these agents\n");
        return Ok(Outcome::NotStarted.exit_code());
    }
    if let Some(folder) = &command.write {
        for (agent, suggestion) in all() {
            write(folder, agent, suggestion)?;
        }
    }
    if command.json {
        let shown = all().map(|(agent, one)| {
            json!({"agent": agent, "name": one.name, "reason": one.reason, "experiment": one.experiment})
        });
        print_json(&shown.collect::<Vec<_>>());
        return Ok(0);
    }
    let rows = all().map(|(agent, one)| {
        let mut why: String = one.reason.chars().take(REASON_LENGTH).collect();
        if why.len() < one.reason.len() {
            why.push('…');
        }
        [agent.to_owned(), one.name.clone(), one.fault.clone(), why]
    });
    print_table(["AGENT", "NAME", "FAULT", "WHY"], rows, "");
    Ok(0)
}

/// Writes a new file; one that is there stays as it is.
fn write(folder: &Path, agent: &str, suggestion: &SuggestionInfo) -> Result<(), CommandFailure> {
    let part = |text: &str| -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        text.chars()
            .map(|c| if is_plain(c) { c } else { '-' })
            .collect()
    };
    let name = format!("{}-{}.json", part(agent), part(&suggestion.name));
    let path = folder.join(name);
    let failed = |error: std::io::Error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "\nhint: name an empty folder",
            std::io::ErrorKind::NotFound => "\nhint: make the folder first",
            _ => "",
        };
        let shown = shown_path(&path);
        CommandFailure::invalid(format!("{shown} could not be written: {error}{hint}"))
    };
    let text = serde_json::to_string_pretty(&suggestion.experiment).unwrap_or_default() + "\n";
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
