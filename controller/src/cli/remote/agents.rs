//! `backburn agents`: who is there; and keeping somebody out.

use super::super::{CommandError, print, print_json, print_stderr};
use super::{ControllerOptions, columns, text};
use clap::{Args, Subcommand};
use serde_json::Value;

#[derive(Debug, Args)]
pub(in crate::cli) struct AgentsCommand {
    #[command(subcommand)]
    what: Option<AgentsAction>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    remote: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum AgentsAction {
    /// Say what an agent's host can do, and what is missing
    Doctor {
        /// Its name
        name: String,
    },
    /// Keep an agent out: its runs are stopped and put back, then its certificate is good for nothing any more
    Revoke {
        /// Its name
        name: String,
        /// At once, and whatever it has to put back is left to itself
        #[arg(long)]
        force: bool,
    },
}

pub(in crate::cli) fn main(command: &AgentsCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    if let Some(AgentsAction::Doctor { name }) = &command.what {
        let (_, findings) = client.call("GET", &format!("/api/v1/agents/{name}/doctor"), None)?;
        match command.json {
            true => print_json(&findings),
            false => print(&shown(&findings)),
        }
        return Ok(0);
    }
    if let Some(AgentsAction::Revoke { name, force }) = &command.what {
        let path = format!("/api/v1/agents/{name}?force={force}");
        let (_, agent) = client.call("DELETE", &path, None)?;
        match command.json {
            true => print_json(&agent),
            false => print_stderr(&format!("agent {name} is kept out\n")),
        }
        return Ok(0);
    }
    let mut agents: Vec<Value> = Vec::new();
    loop {
        let after = match agents.last() {
            Some(last) => format!("&after={}", text(last, "name")),
            None => String::new(),
        };
        let (_, page) = client.call("GET", &format!("/api/v1/agents?limit=1000{after}"), None)?;
        match page {
            Value::Array(page) if !page.is_empty() => agents.extend(page),
            _ => break,
        }
    }
    if command.json {
        print_json(&agents);
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = agents.iter().map(row).collect();
    print(&columns(&rows));
    let are = |state: &str| agents.iter().filter(|agent| agent[state] == true).count();
    let silent = match are("unresponsive") {
        0 => String::new(),
        silent => format!(", {silent} of those unresponsive"),
    };
    print_stderr(&format!(
        "{} agents, {} of them connected{silent}\n",
        agents.len(),
        are("connected")
    ));
    Ok(0)
}

fn shown(findings: &Value) -> String {
    let mut out = String::new();
    for finding in findings.as_array().into_iter().flatten() {
        let [name, ok, seen] = ["name", "ok", "seen"].map(|field| text(finding, field));
        out.push_str(&format!("{name:<22} {ok:<7} {seen}\n"));
        if let Some(hint) = finding["hint"].as_str() {
            out.push_str(&format!("{:30} hint: {hint}\n", ""));
        }
    }
    out
}

fn row(agent: &Value) -> Vec<String> {
    let runs = agent["runs"].as_array().into_iter().flatten();
    let runs: Vec<&str> = runs.filter_map(Value::as_str).collect();
    let state = match (&agent["revoked"], &agent["connected"], &runs[..]) {
        (Value::String(_), _, _) => "revoked".to_owned(),
        (_, Value::Bool(true), []) => "connected".to_owned(),
        (_, Value::Bool(true), runs) => format!("in run {}", runs.join(", ")),
        _ => "gone".to_owned(),
    };
    let state = match (agent["unresponsive"] == true, &runs[..]) {
        (false, _) => state,
        (true, []) => "unresponsive".to_owned(),
        (true, _) => format!("unresponsive, {state}"),
    };
    let owed = agent["owed"].as_array().map_or(0, Vec::len);
    let owes = match owed {
        0 => String::new(),
        owed => format!("OWES {owed}"),
    };
    let labels = agent["labels"].as_object().into_iter().flatten();
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    vec![
        text(agent, "name").to_owned(),
        state,
        owes,
        labels.join(" "),
    ]
}
