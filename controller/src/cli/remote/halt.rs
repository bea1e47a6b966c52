//! `backburn halt` and `backburn resume`.

use super::super::{CommandError, print, print_json, print_stderr};
use super::{ControllerOptions, columns, text};
use backburn_experiments::journal::Outcome;
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(in crate::cli) struct HaltCommand {
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: ControllerOptions,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ResumeCommand {
    #[command(flatten)]
    remote: ControllerOptions,
}

pub(in crate::cli) fn halt(command: &HaltCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    let (_, report) = client.call("POST", "/api/v1/halt", Some(&json!({"why": command.why})))?;
    let clean = report["clean"] == true;
    let code = if clean {
        0
    } else {
        Outcome::NotClean.exit_code()
    };
    if command.json {
        print_json(&report);
        return Ok(code);
    }
    let none = Vec::new();
    let agents = report["agents"].as_array().unwrap_or(&none);
    let took = report["took-ms"].as_f64().unwrap_or_default();
    let mut rows = Vec::new();
    for agent in agents {
        let owed: Vec<&str> = agent["owed"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|owed| text(owed, "injection"))
            .collect();
        let took = match agent["took-ms"].as_f64() {
            Some(took) => format!("{took:.1} ms"),
            None if agent["unresponsive"] == true => "unresponsive".into(),
            None => "no answer".into(),
        };
        let owes = match owed.is_empty() {
            true => by_guardian(agent),
            false => format!("NOT put back: {}", owed.join(", ")),
        };
        rows.push(vec![text(agent, "agent").to_owned(), took, owes]);
    }
    print(&columns(&rows));
    let runs = report["runs"].as_array().map_or(0, Vec::len);
    let all = if clean {
        "everything is observed gone"
    } else {
        "NOT everything is observed gone"
    };
    print_stderr(&format!(
        "halted: {runs} runs ended, {} agents, {all} after {took:.1} ms; nothing starts until `backburn resume`\n",
        agents.len()
    ));
    for run in report["unknown"].as_array().into_iter().flatten() {
        let run = run.as_str().unwrap_or_default();
        print_stderr(&format!(
            "error: not all faults of run {run} are known to be over\n"
        ));
    }
    if report["remembered"] == Value::Bool(false) {
        print_stderr(
            "error: the store does not remember it: a restart of the controller lets go of the lever\n",
        );
    }
    Ok(code)
}

/// What the guardian of an agent that does not answer has said.
fn by_guardian(agent: &Value) -> String {
    let said = agent["guardian"].as_array().into_iter().flatten();
    let (gone, left): (Vec<&Value>, Vec<&Value>) = said.partition(|end| end["clean"] == true);
    let names = |ends: &[&Value]| {
        let names = ends.iter().map(|end| text(end, "injection"));
        names.collect::<Vec<_>>().join(", ")
    };
    match (&gone[..], &left[..]) {
        ([], []) if agent["unresponsive"] == true => {
            "its guardian has said nothing: what it was asked for may still act".into()
        }
        ([], []) => String::new(),
        (gone, []) => format!("its guardian put back: {}", names(gone)),
        (_, left) => format!("its guardian could NOT put back: {}", names(left)),
    }
}

pub(in crate::cli) fn resume(command: &ResumeCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    client.call("DELETE", "/api/v1/halt", None)?;
    print_stderr("runs may start again; what was stopped stays stopped\n");
    Ok(0)
}
