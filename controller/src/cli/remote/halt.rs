//! `backburn halt` and `backburn resume`.

use super::super::table::print_table;
use super::super::{CommandFailure, print_json, print_stderr};
use super::ControllerOptions;
use backburn::api::types::{AgentHaltResult, GuardianRevert, HaltRequest, HaltResult, HaltStatus};
use backburn_experiments::journal::{Outcome, revert_hint};
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::terminal_text::escape;
use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct HaltCommand {
    /// Reason for the halt, for people
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Halt only the agents of this team, and the runs that target one of them
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ResumeCommand {
    /// End the halt of this team, instead of that of the whole fleet
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn halt`.
pub(in crate::cli) fn halt(command: &HaltCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let request = HaltRequest {
        why: command.why.clone(),
        team: command.team.clone(),
    };
    let result: HaltResult = client.post("/api/v1/halt", &request)?;
    match command.json {
        true => print_json(&result),
        false => print_result(&result, command.team.as_deref()),
    }
    Ok(match result.clean {
        true => 0,
        false => Outcome::NotClean.exit_code(),
    })
}

fn print_result(result: &HaltResult, team: Option<&str>) {
    print_table(
        ["AGENT", "TOOK", "RESULT"],
        result.agents.iter().map(row),
        "no agents are connected",
    );
    let all = match result.clean {
        true => "everything is observed to be gone",
        false => "NOT everything is observed to be gone",
    };
    let until = match team {
        None => "nothing starts until `backburn resume`".to_owned(),
        Some(team) => format!(
            "no run may target team `{}` until `backburn resume --team {0}`",
            escape(team)
        ),
    };
    print_stderr(&format!(
        "halted: {} runs ended, {} agents, {all} after {:.1} ms; {until}\n",
        result.runs.len(),
        result.agents.len(),
        result.took_ms
    ));
    for run in &result.unknown {
        print_stderr(&format!(
            "error: not all faults of run {} are known to be over\n",
            escape(run)
        ));
    }
    let owing = result
        .agents
        .iter()
        .filter(|agent| !agent.owed.is_empty() || agent.guardian.iter().any(|ended| !ended.clean));
    let owing: Vec<String> = owing.map(|agent| agent.agent.clone()).collect();
    if !owing.is_empty() {
        print_stderr(&format!("hint: {}\n", escape(&revert_hint(&owing))));
    }
    if !result.remembered {
        print_stderr("error: the halt could not be stored: a restart of the controller ends it\n");
    }
}

fn row(agent: &AgentHaltResult) -> [String; 3] {
    let took = match agent.took_ms {
        Some(took) => format!("{took:.1} ms"),
        None if agent.unresponsive => "unresponsive".into(),
        None => "no answer".into(),
    };
    let owed: Vec<&str> = agent
        .owed
        .iter()
        .map(|owed| owed.injection.as_str())
        .collect();
    let result = match owed.is_empty() {
        true => guardian_result(agent),
        false => format!("NOT reverted: {}", owed.join(", ")),
    };
    [agent.agent.clone(), took, result]
}

/// What the guardian of an agent that does not answer has reported.
fn guardian_result(agent: &AgentHaltResult) -> String {
    let (clean, left): (Vec<_>, Vec<_>) = agent.guardian.iter().partition(|ended| ended.clean);
    let names = |ended: &[&GuardianRevert]| {
        let names = ended.iter().map(|ended| ended.injection.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    match (&clean[..], &left[..]) {
        ([], []) if agent.unresponsive => {
            "its guardian has reported nothing: its faults may still act".into()
        }
        ([], []) if agent.took_ms.is_some() => "clean".into(),
        ([], []) => String::new(),
        (clean, []) => format!("reverted by its guardian: {}", names(clean)),
        (_, left) => format!("NOT reverted by its guardian: {}", names(left)),
    }
}

/// Runs `backburn resume`.
pub(in crate::cli) fn resume(command: &ResumeCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let team = command.team.as_deref();
    let query = team.map(|team| format!("?team={}", percent_encoded(team)));
    let path = format!("/api/v1/halt{}", query.unwrap_or_default());
    let status: HaltStatus = client.delete(&path)?;
    print_stderr(&match team {
        None => "the halt is over: runs can start again; those that were stopped stay stopped\n"
            .to_owned(),
        Some(team) => format!("the halt of team `{}` is over\n", escape(team)),
    });
    if status.halted && team.is_some() {
        print_stderr("the whole fleet is still halted: `backburn resume`\n");
    }
    for halted in &status.teams {
        print_stderr(&format!(
            "team `{}` is still halted: `backburn resume --team {0}`\n",
            escape(&halted.team)
        ));
    }
    Ok(0)
}
