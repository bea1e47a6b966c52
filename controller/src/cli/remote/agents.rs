//! `backburn agents`: lists, examines and revokes a controller's agents.

use super::super::table::print_table;
use super::super::{CommandFailure, print, print_json, print_stderr};
use super::ControllerOptions;
use backburn::api::types::{AgentInfo, DoctorFinding, LabelsRequest};
use backburn_experiments::journal::revert_hint;
use backburn_experiments::labels::parse_labels;
use backburn_experiments::terminal_text::escape;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use std::collections::BTreeMap;

#[derive(Debug, Args)]
pub(in crate::cli) struct AgentsCommand {
    #[command(subcommand)]
    action: Option<AgentsAction>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum AgentsAction {
    /// Show what an agent's host can do and what it lacks
    Doctor {
        /// Name of the agent
        name: String,
    },
    /// Grant labels to an agent, or take them away, and confirm those that stay
    Label {
        /// Name of the agent
        name: String,
        /// `KEY=VALUE` sets a label, `KEY-` removes it; without any, the present labels are confirmed
        #[arg(value_name = "KEY=VALUE|KEY-")]
        changes: Vec<String>,
    },
    /// Revoke an agent: stop and revert its runs, then reject its certificate
    Revoke {
        /// Name of the agent
        name: String,
        /// Revoke at once, without waiting for the agent to revert its faults
        #[arg(long)]
        force: bool,
    },
}

/// Runs `backburn agents`.
pub(in crate::cli) fn main(command: &AgentsCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    match &command.action {
        None => {
            let agents: Vec<AgentInfo> =
                client.list("/api/v1/agents?limit=1000", |agent: &AgentInfo| &agent.name)?;
            if command.json {
                print_json(&agents);
            } else {
                print_agents(&agents);
            }
        }
        Some(AgentsAction::Doctor { name }) => {
            let findings: Vec<DoctorFinding> =
                client.get(&format!("/api/v1/agents/{name}/doctor"))?;
            match command.json {
                true => print_json(&findings),
                false => print(&format_findings(&findings)),
            }
        }
        Some(AgentsAction::Label { name, changes }) => {
            let request = label_changes(changes).map_err(CommandFailure::invalid)?;
            let path = format!("/api/v1/agents/{name}/labels");
            let agent: AgentInfo = client.patch(&path, &request)?;
            match command.json {
                true => print_json(&agent),
                false => print_stderr(&format!(
                    "agent {name} has the labels: {}\n",
                    match agent.labels.is_empty() {
                        true => "none".to_owned(),
                        false => pairs(&agent.labels),
                    }
                )),
            }
        }
        Some(AgentsAction::Revoke { name, force }) => {
            let agent: AgentInfo =
                client.delete(&format!("/api/v1/agents/{name}?force={force}"))?;
            match command.json {
                true => print_json(&agent),
                false => print_stderr(&format!("agent {name} is revoked\n")),
            }
        }
    }
    Ok(0)
}

/// How long ago the agent was last heard.
fn heard_ago(agent: &AgentInfo) -> String {
    let heard = agent
        .heard
        .as_deref()
        .and_then(|at| at.parse::<Timestamp>().ok());
    let Some(heard) = heard else {
        return "never".to_owned();
    };
    let seconds = Timestamp::now().duration_since(heard).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// The request that these words ask for.
fn label_changes(words: &[String]) -> Result<LabelsRequest, String> {
    let is_set = |word: &&String| word.contains('=') || !word.ends_with('-');
    let (set, remove): (Vec<&String>, Vec<&String>) = words.iter().partition(is_set);
    Ok(LabelsRequest {
        set: parse_labels(set)?,
        remove: (remove.into_iter())
            .filter_map(|word| word.strip_suffix('-'))
            .map(str::to_owned)
            .collect(),
    })
}

fn pairs(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| escape(&format!("{name}={value}")).into_owned())
        .collect();
    pairs.join(" ")
}

fn print_agents(agents: &[AgentInfo]) {
    print_table(
        ["NAME", "STATE", "OWES", "HEARD", "LABELS", "FACTS"],
        agents.iter().map(row),
        "no agents have joined",
    );
    if agents.is_empty() {
        return;
    }
    let connected = agents.iter().filter(|agent| agent.connected).count();
    let unresponsive = match agents.iter().filter(|agent| agent.unresponsive).count() {
        0 => String::new(),
        count => format!(", {count} of those unresponsive"),
    };
    print_stderr(&format!(
        "{} agents, {connected} of them connected{unresponsive}\n",
        agents.len()
    ));
    let owing = agents.iter().filter(|agent| !agent.owed.is_empty());
    let owing: Vec<String> = owing.map(|agent| agent.name.clone()).collect();
    if !owing.is_empty() {
        print_stderr(&format!("hint: {}\n", escape(&revert_hint(&owing))));
    }
}

fn format_findings(findings: &[DoctorFinding]) -> String {
    let mut out = String::new();
    for DoctorFinding {
        name,
        ok,
        seen,
        hint,
    } in findings
    {
        out.push_str(&format!(
            "{:<22} {:<7} {}\n",
            escape(name),
            escape(ok),
            escape(seen)
        ));
        if let Some(hint) = hint {
            out.push_str(&format!("{:30} hint: {}\n", "", escape(hint)));
        }
    }
    out
}

fn row(agent: &AgentInfo) -> [String; 6] {
    let state = match (&agent.revoked, agent.connected, &agent.runs[..]) {
        (Some(_), _, _) => "revoked".to_owned(),
        (None, true, []) => "connected".to_owned(),
        (None, true, runs) => format!("in run {}", runs.join(", ")),
        (None, false, _) => "gone".to_owned(),
    };
    let state = match (agent.unresponsive, &agent.runs[..]) {
        (false, _) => state,
        (true, []) => "unresponsive".to_owned(),
        (true, _) => format!("unresponsive, {state}"),
    };
    let state = match &agent.duplicate {
        Some(duplicate) => format!("{state}, DUPLICATE at {}", duplicate.address),
        None => state,
    };
    let owed = match agent.owed.len() {
        0 => String::new(),
        count => count.to_string(),
    };
    let labels = match (&agent.labels_by, agent.labels.is_empty()) {
        (None, false) => format!("{} (not confirmed)", pairs(&agent.labels)),
        _ => pairs(&agent.labels),
    };
    [
        agent.name.clone(),
        state,
        owed,
        heard_ago(agent),
        labels,
        pairs(&agent.facts),
    ]
}
