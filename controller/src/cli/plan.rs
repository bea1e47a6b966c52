//! `backburn plan`: what an experiment would hit on this host now. Nothing is touched.

use super::remote::{self, Remote};
use super::run::named_at_controller;
use super::source::{self, Variables};
use super::{Failure, Place, print, print_json, runtime};
use backburn::runner::{self, Preview};
use backburn_experiments::journal::Outcome;
use backburn_experiments::wire::{PlanView, Refusal};
use clap::Args;
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct PlanCommand {
    /// The experiment's file; `-` is standard input. With a controller, the name of one that it keeps
    #[arg(value_name = "FILE|NAME")]
    file: PathBuf,
    /// What every pick comes from [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    remote: Remote,
}

/// What a controller says that a run on its fleet would hit.
fn on_fleet(command: &PlanCommand, name: &str) -> Result<u8, Failure> {
    let variables = command.variables.configuration()?;
    let plan = remote::runs::plan(&command.remote, name, command.seed, variables)?;
    let preview: Preview = serde_json::from_value(plan.clone()).map_err(|error| {
        Failure::invalid(format!(
            "the controller's plan can't be understood: {error}"
        ))
    })?;
    let refused = preview.injections.iter().any(|own| own.refusal.is_some());
    if command.json {
        print_json(&plan);
    } else {
        let title = plan["title"].as_str().unwrap_or_default();
        print(&shown(
            title,
            plan["seed"].as_u64().unwrap_or_default(),
            &preview,
        ));
    }
    Ok(match refused {
        true => Outcome::NotStarted.exit_code(),
        false => 0,
    })
}

pub(super) fn main(command: &PlanCommand) -> Result<u8, Failure> {
    if let Some(name) = named_at_controller(&command.remote, &command.file) {
        return on_fleet(command, &name);
    }
    let experiment = source::experiment(&command.file, &command.variables)?;
    let seed = command.seed.unwrap_or_else(runner::random);
    let start = command.place.start()?;
    let preview = runtime()?
        .block_on(runner::preview(&experiment, seed, start.into()))
        .map_err(|refusal| Failure {
            code: Outcome::NotStarted.exit_code(),
            what: refusal.to_string(),
        })?;
    let refused = preview
        .injections
        .iter()
        .any(|injection| injection.refusal.is_some());
    if command.json {
        print_json(&json!({"title": experiment.document.title, "seed": seed, "plan": preview}));
    } else {
        print(&shown(&experiment.document.title, seed, &preview));
    }
    Ok(if refused {
        Outcome::NotStarted.exit_code()
    } else {
        0
    })
}

fn shown(title: &str, seed: u64, preview: &Preview) -> String {
    let mut out = format!("{title}\n");
    if preview.agents.is_empty() {
        return out + "  the method injects no fault: no agent takes part\n";
    }
    // Writing to a string cannot fail.
    writeln!(out, "  on {}, seed {seed}", preview.agents.join(", ")).ok();
    for injection in &preview.injections {
        let length = injection
            .duration
            .map(|duration| format!(" for {duration}"))
            .unwrap_or_default();
        let on = match preview.agents.len() {
            0 | 1 => String::new(),
            _ => format!(" on {}", injection.agent),
        };
        writeln!(
            out,
            "\n{}: {}{length}{on}",
            injection.activity, injection.fault
        )
        .ok();
        match (&injection.plan, &injection.refusal) {
            (Some(plan), _) => out.push_str(&plan_shown(plan)),
            (None, Some(refusal)) => out.push_str(&refusal_shown(refusal)),
            (None, None) => {}
        }
    }
    out
}

fn plan_shown(plan: &PlanView) -> String {
    let mut out = String::new();
    for victim in &plan.victims {
        writeln!(out, "  hits {}: {}", victim.kind, victim.name).ok();
    }
    for change in &plan.changes {
        writeln!(out, "  does:      {}", change.apply).ok();
        writeln!(out, "  undo:      {}", change.undo).ok();
        writeln!(out, "  if we die: {}", change.if_we_die).ok();
    }
    for warning in &plan.warnings {
        writeln!(out, "  WARNING: {warning}").ok();
    }
    for note in &plan.notes {
        writeln!(out, "  note: {note}").ok();
    }
    out
}

fn refusal_shown(refusal: &Refusal) -> String {
    let text = refusal.to_string();
    text.lines()
        .enumerate()
        .fold(String::new(), |mut out, (number, line)| {
            let lead = if number == 0 { "refused: " } else { "" };
            writeln!(out, "  {lead}{line}").ok();
            out
        })
}
