//! `backburn plan`: what an experiment would hit on this host now. Nothing is touched.

use super::experiment_source::{self, Variables};
use super::remote::{self, ControllerOptions};
use super::run::named;
use super::{CommandError, HostOptions, print, print_json, print_stderr, runtime};
use backburn::runner::{self, Preview};
use backburn_experiments::HumanDuration;
use backburn_experiments::check::DEFAULT_SAMPLING_INTERVAL;
use backburn_experiments::document::HypothesisStrategy;
use backburn_experiments::journal::Outcome;
use backburn_experiments::wire::{PlanView, Refusal};
use clap::Args;
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct PlanCommand {
    /// The experiment's file; `-` is standard input. With a controller it is planned on the fleet and is not kept; a NAME that is
    /// no file is an experiment that the controller keeps
    #[arg(value_name = "FILE|NAME")]
    file: PathBuf,
    /// Plan the file on this host, although a controller is named
    #[arg(long)]
    local: bool,
    /// What every pick comes from [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// When the hypothesis would be looked at, as for `run`
    #[arg(long, value_name = "STRATEGY", value_parser = named::<HypothesisStrategy>)]
    hypothesis_strategy: Option<HypothesisStrategy>,
    /// How often it would be looked at while the method goes on [default: 1s]
    #[arg(long, value_name = "DURATION")]
    hypothesis_frequency: Option<HumanDuration>,
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    place: HostOptions,
    #[command(flatten)]
    remote: ControllerOptions,
}

/// What a controller says that a run on its fleet would hit.
fn on_fleet(command: &PlanCommand) -> Result<u8, CommandError> {
    if command.hypothesis_strategy.is_some() || command.hypothesis_frequency.is_some() {
        return Err(CommandError::invalid(
            "`--hypothesis-strategy` and `--hypothesis-frequency` are for a run on this host\nhint: write it into the experiment, or plan the file here with `--local`",
        ));
    }
    let experiment =
        remote::RemoteExperiment::of(&command.remote, &command.file, &command.variables)?;
    let variables = command.variables.configuration()?;
    let plan = remote::runs::plan(&command.remote, &experiment, command.seed, variables)?;
    let preview: Preview = serde_json::from_value(plan.clone()).map_err(|error| {
        CommandError::invalid(format!(
            "the controller's plan can't be understood: {error}"
        ))
    })?;
    let refused = is_refused(&preview);
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

pub(super) fn main(command: &PlanCommand) -> Result<u8, CommandError> {
    if command.remote.is_named() && !command.local {
        return on_fleet(command);
    }
    let mut experiment = experiment_source::experiment(&command.file, &command.variables)?;
    if let Some(strategy) = command.hypothesis_strategy {
        experiment.hypothesis_timing = experiment.hypothesis_timing_by(Some(strategy));
    }
    let frequency = command.hypothesis_frequency.unwrap_or(DEFAULT_SAMPLING_INTERVAL);
    let seed = command.seed.unwrap_or_else(runner::random);
    let start = command.place.start()?;
    let preview = runtime()?
        .block_on(runner::preview(&experiment, seed, frequency, start.into()))
        .map_err(|refusal| CommandError {
            code: Outcome::NotStarted.exit_code(),
            what: refusal.to_string(),
        })?;
    let refused = is_refused(&preview);
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

/// Whether a run would not be started.
fn is_refused(preview: &Preview) -> bool {
    let mut injections = preview.injections.iter();
    !preview.missing.is_empty() || injections.any(|own| own.refusal.is_some())
}

fn shown(title: &str, seed: u64, preview: &Preview) -> String {
    let mut out = format!("{title}\n");
    for warning in &preview.warnings {
        print_stderr(&format!("warning: {warning}\n"));
    }
    // Writing to a string cannot fail.
    for looks in preview.looks.iter().filter(|looks| looks.samples > 0) {
        writeln!(out, "  probe `{}`: {looks}", looks.probe).ok();
    }
    for problem in &preview.missing {
        writeln!(
            out,
            "  refused: {}: {} (rule: missing)",
            problem.at, problem.what
        )
        .ok();
        if let Some(hint) = &problem.hint {
            writeln!(out, "  hint: {hint}").ok();
        }
    }
    if preview.agents.is_empty() {
        return out + "  the method injects no fault: no agent takes part\n";
    }
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
        writeln!(out, "  if we die: {}", change.if_agent_dies).ok();
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
