//! The status of a fleet: the halt, the runs and faults that act, what is owed, and the agents that do not answer.

use super::super::report::{seconds_since, time_of};
use super::super::table::{print_table, to_the_second};
use super::super::{CommandFailure, print, print_json, print_stderr};
use super::ControllerOptions;
use super::client::Client;
use super::run_view;
use backburn::api::types::{AgentInfo, HaltStatus, OwedInjection, RunInfo};
use backburn_experiments::journal::{InjectionRecord, InjectionState, Outcome, Run, revert_hint};
use backburn_experiments::terminal_text::escape;
use serde::Serialize;
use std::collections::BTreeSet;

/// What a fleet does now.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct FleetStatus {
    halt: HaltStatus,
    runs: Vec<OpenRun>,
    /// What agents could not revert, by agent.
    owed: Vec<Owing>,
    /// Agents that are connected and do not answer.
    unresponsive: Vec<String>,
    /// Agents that are neither connected nor revoked.
    disconnected: Vec<String>,
    /// How many agents are connected.
    connected: usize,
}

/// A run that is not over.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct OpenRun {
    run: String,
    title: String,
    who: String,
    started: String,
    faults: Vec<ActingFault>,
}

/// An injection that was requested and is not known to be over.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ActingFault {
    injection: String,
    action: String,
    fault: String,
    agent: String,
    /// Whether the agent has confirmed that it injected the fault.
    injected: bool,
    /// Seconds until the fault ends by itself; null if that is not known.
    left_seconds: Option<f64>,
    #[serde(skip)]
    time: String,
}

/// An agent with an injection that it could not revert.
#[derive(Serialize)]
struct Owing {
    agent: String,
    #[serde(flatten)]
    injection: OwedInjection,
}

/// Prints the status of a controller's fleet. The exit code is 6 if something is owed or an agent is unresponsive, else 0.
///
/// # Errors
/// The controller does not answer.
pub(in crate::cli) fn print_status(
    controller: &ControllerOptions,
    as_json: bool,
) -> Result<u8, CommandFailure> {
    let client = controller.client()?;
    let status = FleetStatus::ask(&client)?;
    match as_json {
        true => print_json(&status),
        false => status.print(),
    }
    let needs_a_person = !status.owed.is_empty() || !status.unresponsive.is_empty();
    Ok(match needs_a_person {
        true => Outcome::NotClean.exit_code(),
        false => 0,
    })
}

impl FleetStatus {
    fn ask(client: &Client) -> Result<Self, CommandFailure> {
        let halt: HaltStatus = client.get("/api/v1/halt")?;
        let open: Vec<RunInfo> = client.get("/api/v1/runs?open=true&limit=1000")?;
        let mut runs = Vec::new();
        for info in open {
            let run = run_view::journal(client, &info.id)?;
            let started = info.started.parse().ok();
            let now = started.map_or(run.elapsed, seconds_since);
            runs.push(OpenRun {
                faults: acting(&run, now),
                run: info.id,
                title: info.title,
                who: info.who,
                started: info.started,
            });
        }
        let agents: Vec<AgentInfo> =
            client.list("/api/v1/agents?limit=1000", |agent: &AgentInfo| &agent.name)?;
        let mut status = FleetStatus {
            halt,
            runs,
            owed: Vec::new(),
            unresponsive: Vec::new(),
            disconnected: Vec::new(),
            connected: agents.iter().filter(|agent| agent.connected).count(),
        };
        for agent in agents {
            if agent.unresponsive {
                status.unresponsive.push(agent.name.clone());
            } else if !agent.connected && agent.revoked.is_none() {
                status.disconnected.push(agent.name.clone());
            }
            status
                .owed
                .extend(agent.owed.into_iter().map(|injection| Owing {
                    agent: agent.name.clone(),
                    injection,
                }));
        }
        Ok(status)
    }

    fn print(&self) {
        print(&format!("{}\n", halt_line(&self.halt)));
        for halt in &self.halt.teams {
            let why = halt.why.as_ref().map(|why| format!(": {}", escape(why)));
            let team = escape(&halt.team);
            print(&format!(
                "HALTED for team {team} by {} since {}{}; nothing starts on its agents until `backburn resume --team {team}`\n",
                escape(&halt.who),
                to_the_second(&halt.at),
                why.unwrap_or_default()
            ));
        }
        match self.runs.is_empty() {
            true => print("runs: none\n"),
            false => print_runs(&self.runs),
        }
        match self.owed.is_empty() {
            true => print("owed: nothing\n"),
            false => {
                print("\n");
                let row = |owing: &Owing| {
                    [
                        owing.agent.clone(),
                        owing.injection.injection.clone(),
                        owing.injection.fault.clone(),
                        owing.injection.residue.join("; "),
                    ]
                };
                print_table(
                    ["OWED BY", "INJECTION", "FAULT", "LEFT BEHIND"],
                    self.owed.iter().map(row),
                    "",
                );
                print("\n");
                let agents: BTreeSet<&String> =
                    self.owed.iter().map(|owing| &owing.agent).collect();
                let agents: Vec<String> = agents.into_iter().cloned().collect();
                print_stderr(&format!("hint: {}\n", escape(&revert_hint(&agents))));
            }
        }
        let list = |what: &str, names: &[String]| match names.is_empty() {
            true => String::new(),
            false => format!("; {what}: {}", escape(&names.join(", "))),
        };
        print(&format!(
            "agents: {} connected{}{}\n",
            self.connected,
            list("unresponsive", &self.unresponsive),
            list("not connected", &self.disconnected)
        ));
    }
}

fn halt_line(halt: &HaltStatus) -> String {
    if !halt.halted {
        return "halt: none, runs can start".into();
    }
    let part = |lead: &str, value: &Option<String>| {
        let part = value
            .as_ref()
            .map(|value| format!("{lead}{}", escape(value)));
        part.unwrap_or_default()
    };
    format!(
        "HALTED{}{}{}; nothing starts until `backburn resume`",
        part(" by ", &halt.who),
        part(" since ", &halt.at.as_deref().map(to_the_second)),
        part(": ", &halt.why)
    )
}

fn print_runs(runs: &[OpenRun]) {
    let row = |run: &OpenRun| {
        [
            run.run.clone(),
            to_the_second(&run.started),
            run.who.clone(),
            run.faults.len().to_string(),
            run.title.clone(),
        ]
    };
    print("\n");
    print_table(
        ["RUN", "STARTED", "WHO", "FAULTS", "TITLE"],
        runs.iter().map(row),
        "",
    );
    print("\n");
    let faults: Vec<[String; 5]> = runs
        .iter()
        .flat_map(|run| {
            run.faults.iter().map(|fault| {
                [
                    run.run.clone(),
                    fault.action.clone(),
                    fault.fault.clone(),
                    fault.agent.clone(),
                    fault.time.clone(),
                ]
            })
        })
        .collect();
    if !faults.is_empty() {
        print_table(["RUN", "ACTION", "FAULT", "AGENT", "TIME"], faults, "");
        print("\n");
    }
}

fn acting(run: &Run, now: f64) -> Vec<ActingFault> {
    let fault = |(id, record): (&String, &InjectionRecord)| ActingFault {
        injection: id.clone(),
        action: record.activity.clone(),
        fault: record.fault.clone(),
        agent: record.agent.clone(),
        injected: record.state == InjectionState::Acting,
        left_seconds: left_seconds(record, now),
        time: time_of(record, now),
    };
    run.open().map(fault).collect()
}

fn left_seconds(record: &InjectionRecord, now: f64) -> Option<f64> {
    let (since, duration) = (record.since?, record.duration?);
    Some((since + duration.0.as_secs_f64() - now).max(0.0))
}
