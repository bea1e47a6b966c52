//! `backburn plan`: shows what an experiment would affect now, without changing anything.

use super::experiment_source::document_value;
use super::experiment_source::{self, Variables};
use super::plan_view::format_plan;
use super::remote::{self, ControllerOptions, RemoteExperiment};
use super::shell_words::run_command;
use super::{CommandFailure, HostOptions, print, print_json, runtime};
use backburn::api::types::RunPlan;
use backburn::runner;
use backburn_experiments::HumanDuration;
use backburn_experiments::check::DEFAULT_SAMPLING_INTERVAL;
use backburn_experiments::document::HypothesisStrategy;
use backburn_experiments::journal::Outcome;
use clap::Args;
use serde_json::json;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct PlanCommand {
    /// Experiment file; `-` reads standard input. With a controller, the file is planned on the fleet without being stored, and a
    /// NAME that is not a file is a stored experiment
    #[arg(value_name = "FILE|NAME")]
    file: PathBuf,
    /// Plan for this host even if a controller is given
    #[arg(long)]
    local: bool,
    /// Seed for random selection [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// When the hypothesis would be checked, as for `run`
    #[arg(long, value_name = "STRATEGY", value_parser = document_value::<HypothesisStrategy>)]
    hypothesis_strategy: Option<HypothesisStrategy>,
    /// How often the hypothesis would be checked during the method [default: 1s]
    #[arg(long, value_name = "DURATION")]
    hypothesis_frequency: Option<HumanDuration>,
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Asks a controller what a run on its fleet would affect.
fn on_fleet(command: &PlanCommand) -> Result<u8, CommandFailure> {
    if command.hypothesis_strategy.is_some() || command.hypothesis_frequency.is_some() {
        return Err(CommandFailure::invalid(
            "`--hypothesis-strategy` and `--hypothesis-frequency` require a run on this host\nhint: write the strategy into the experiment, or plan on this host with `--local`",
        ));
    }
    let controller = &command.controller;
    let experiment = RemoteExperiment::resolve(controller, &command.file, &command.variables)?;
    let variables = command.variables.configuration()?;
    let plan = remote::runs::plan(controller, &experiment, command.seed, variables)?;
    match command.json {
        true => print_json(&plan),
        false => print(&with_run_command(command, &plan)),
    }
    Ok(exit_code(&plan))
}

/// The plan for people, and the command that hits exactly what it shows.
fn with_run_command(command: &PlanCommand, plan: &RunPlan) -> String {
    let mut out = format_plan(plan);
    if plan.injections.is_empty() || exit_code(plan) != 0 {
        return out;
    }
    // The first two words are the program and `plan`.
    let words: Vec<OsString> = std::env::args_os().skip(2).collect();
    let from = match command.file == Path::new("-") {
        true => ", with the same standard input",
        false => "",
    };
    // Writing to a string cannot fail.
    let sudo = match std::env::var_os("SUDO_UID") {
        Some(_) => "sudo ",
        None => "",
    };
    writeln!(
        out,
        "\nto hit exactly these: {sudo}{}{from}",
        run_command(&words, plan.seed)
    )
    .ok();
    out
}

/// Runs `backburn plan`.
pub(super) fn main(command: &PlanCommand) -> Result<u8, CommandFailure> {
    if command.controller.is_given() && !command.local {
        return on_fleet(command);
    }
    let mut experiment =
        experiment_source::experiment(&command.file, &command.variables, &command.host)?;
    if let Some(strategy) = command.hypothesis_strategy {
        experiment.hypothesis_timing = experiment.hypothesis_timing_by(Some(strategy));
    }
    let frequency = command
        .hypothesis_frequency
        .unwrap_or(DEFAULT_SAMPLING_INTERVAL);
    let seed = command.seed.unwrap_or_else(runner::random);
    let start = command.host.start()?;
    let access = command.host.access()?;
    let preview = runtime()?
        .block_on(runner::preview(
            &experiment,
            seed,
            frequency,
            &access,
            start.into(),
        ))
        .map_err(|refusal| CommandFailure {
            code: Outcome::NotStarted.exit_code(),
            message: refusal.to_string(),
        })?;
    let title = experiment.document.title;
    if command.json {
        print_json(&json!({"title": title, "seed": seed, "plan": preview}));
    }
    let plan = RunPlan::new(title, seed, preview);
    if !command.json {
        print(&with_run_command(command, &plan));
    }
    Ok(exit_code(&plan))
}

/// The exit code of a plan: 0, or that of a run that would not start.
fn exit_code(plan: &RunPlan) -> u8 {
    let is_refused = plan
        .injections
        .iter()
        .any(|injection| injection.refusal.is_some());
    match is_refused || !plan.missing.is_empty() {
        true => Outcome::NotStarted.exit_code(),
        false => 0,
    }
}
