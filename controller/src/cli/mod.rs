//! The command line: one file for each command. Data goes to stdout, talk to stderr, and the exit
//! code is the verdict's.

mod controller;
mod experiment_source;
mod junit;
mod output;
mod plan;
mod progress;
mod progress_tty;
mod remote;
mod report;
mod run;
mod schedules;
mod validate;

pub(crate) use experiment_source::check;
pub(crate) use output::{print, print_stderr};
pub(crate) use progress::OutputStyle;
pub(crate) use report::shown;
pub(crate) use run::execute;

use crate::demo;
use backburn::agent_connection::{self, LOCAL_LEASE};
use backburn_experiments::journal::{REPORT_NOT_WRITTEN, exit_codes};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit code of a command line or a definition that is wrong.
pub(crate) const EXIT_INVALID: u8 = 2;

/// Chaos experiments on Linux hosts: what is broken is put back
#[derive(Debug, Parser)]
#[command(
    name = "backburn",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = exit_codes_shown()
)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run an experiment on this host, or on a controller's fleet, and say what it comes to
    Run(run::RunCommand),
    /// Say what an experiment would hit now, exactly, with its undo; touch nothing
    Plan(plan::PlanCommand),
    /// Break a small web service of its own, and show it; needs no root and leaves nothing
    Demo,
    /// Say everything that is wrong with experiments
    Validate(validate::ValidateCommand),
    /// Say when experiments come by themselves: the next times of each schedule
    Schedules(schedules::SchedulesCommand),
    /// List the faults, or tell all about one
    #[command(disable_help_flag = true)]
    Faults(AgentArguments),
    /// Print the JSON Schema of the experiment document, or of the controller's policy
    Schema(SchemaCommand),
    /// Print the description of the controller's HTTP API, as OpenAPI
    Openapi,
    /// Put back what this host owes, without a run
    #[command(disable_help_flag = true)]
    Revert(AgentArguments),
    /// Use the agent by hand: plan, inject, status, revert, doctor
    #[command(disable_help_flag = true)]
    Agent(AgentArguments),
    /// Be the controller of a fleet, until told to end
    Controller(controller::ControllerCommand),
    /// Keep experiments at the controller, under their files' names; the same again changes nothing
    Apply(remote::experiments::ApplyCommand),
    /// List the experiments that the controller keeps; show one, its versions, or remove it
    Experiments(remote::experiments::ExperimentsCommand),
    /// List the controller's runs, or show or follow one
    Runs(remote::runs::RunsCommand),
    /// End a run; everything is put back first
    Stop(remote::runs::StopCommand),
    /// Stop every run, put everything back, and let nothing start until `resume`
    Halt(remote::halt::HaltCommand),
    /// Let runs start again
    Resume(remote::halt::ResumeCommand),
    /// List what waits for a second person
    Approvals(remote::runs::ApprovalsCommand),
    /// Approve of a run that somebody else asked for, and start it
    Approve(remote::runs::ApproveCommand),
    /// List the controller's agents, or keep one out
    Agents(remote::agents::AgentsCommand),
    /// Make a token with which one agent may join, once
    JoinToken(remote::tokens::JoinTokenCommand),
    /// List the tokens of people and jobs; make or revoke one
    Tokens(remote::tokens::TokensCommand),
    /// Print who did what, or look whether that log is whole
    Audit(remote::tokens::AuditCommand),
    /// Write all that a controller remembers, which must not be running, as lines of JSON
    Export(controller::ExportCommand),
    /// Take in what `export` wrote, into a controller that remembers nothing yet
    Import(controller::ImportCommand),
    #[command(hide = true)]
    DemoService(demo::DemoServiceCommand),
}

#[derive(Debug, Args)]
struct SchemaCommand {
    /// Of what
    #[arg(value_enum, default_value_t = SchemaKind::Experiment)]
    of: SchemaKind,
}

/// What has a schema.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SchemaKind {
    /// The experiment document
    Experiment,
    /// The file of `backburn controller --policy`
    ControllerPolicy,
}

/// Words for the agent's own command line.
#[derive(Debug, Args)]
struct AgentArguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<OsString>,
}

/// Where things are kept, and what this host allows.
#[derive(Debug, Args)]
pub(crate) struct HostOptions {
    /// Where journals and the agent's ledger are [default: /var/lib/backburn, or the user's state folder]
    #[arg(
        long,
        value_name = "DIR",
        env = "BACKBURN_STATE",
        help_heading = "Host"
    )]
    state: Option<PathBuf>,
    /// What this host allows
    #[arg(
        long,
        value_name = "FILE",
        env = "BACKBURN_POLICY",
        help_heading = "Host"
    )]
    policy: Option<PathBuf>,
    /// A label of this host besides those found
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, help_heading = "Host")]
    labels: Vec<String>,
}

fn label(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("it is not of the form KEY=VALUE, e.g. `role=checkout`".into()),
    }
}

/// A command that could not do what it was to do, for people.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) code: u8,
    pub(crate) what: String,
}

impl CommandError {
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        CommandError {
            code: EXIT_INVALID,
            what: what.into(),
        }
    }
}

/// Runs the command that these words mean, the program's name left out.
pub(crate) fn main(words: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(std::iter::once("backburn".into()).chain(words)) {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(EXIT_INVALID);
            // Help is data; what is wrong is talk.
            let code = match error.print() {
                Err(_) if code == 0 => REPORT_NOT_WRITTEN,
                _ => code,
            };
            return ExitCode::from(code);
        }
    };
    let done = match cli.command {
        CliCommand::Controller(command) => controller::main(&command),
        CliCommand::Apply(command) => remote::experiments::apply(&command),
        CliCommand::Experiments(command) => remote::experiments::main(&command),
        CliCommand::Runs(command) => remote::runs::runs(&command),
        CliCommand::Stop(command) => remote::runs::stop(&command),
        CliCommand::Halt(command) => remote::halt::halt(&command),
        CliCommand::Resume(command) => remote::halt::resume(&command),
        CliCommand::Approvals(command) => remote::runs::approvals(&command),
        CliCommand::Approve(command) => remote::runs::approve(&command),
        CliCommand::Agents(command) => remote::agents::main(&command),
        CliCommand::JoinToken(command) => remote::tokens::join(&command),
        CliCommand::Tokens(command) => remote::tokens::main(&command),
        CliCommand::Audit(command) => remote::tokens::audit(&command),
        CliCommand::Export(command) => controller::export(&command),
        CliCommand::Import(command) => controller::import(&command),
        CliCommand::Run(command) => run::main(command),
        CliCommand::Plan(command) => plan::main(&command),
        CliCommand::Validate(command) => Ok(validate::main(&command)),
        CliCommand::Schedules(command) => schedules::main(&command),
        CliCommand::Demo => demo::main(),
        CliCommand::Schema(SchemaCommand { of }) => {
            match of {
                SchemaKind::Experiment => {
                    print_json(&backburn_experiments::schema::document_schema());
                }
                SchemaKind::ControllerPolicy => {
                    print_json(&backburn_experiments::schema::of::<backburn::service::FleetPolicy>());
                }
            }
            Ok(0)
        }
        CliCommand::Openapi => {
            print_json(&backburn::api::description());
            Ok(0)
        }
        CliCommand::Faults(passed) => return agent("faults", passed),
        CliCommand::Revert(passed) => return agent("revert", passed),
        CliCommand::Agent(passed) => return backburn_agent::main(&["agent"], passed.words),
        CliCommand::DemoService(service) => return demo::serve(&service),
    };
    let code = done.unwrap_or_else(|CommandError { code, what }| {
        print_stderr(&format!("error: {what}\n"));
        code
    });
    ExitCode::from(output::exit_code(code))
}

/// The exit codes as they stand at the end of the help.
fn exit_codes_shown() -> String {
    let mut out = "Exit codes:".to_owned();
    for exit in exit_codes() {
        out.push_str(&format!(
            "\n  {}  {}: {}",
            exit.code, exit.name, exit.meaning
        ));
    }
    out
}

fn agent(command: &str, passed: AgentArguments) -> ExitCode {
    backburn_agent::main(
        &["agent"],
        std::iter::once(command.into())
            .chain(passed.words)
            .collect(),
    )
}

impl HostOptions {
    /// Everything in this folder.
    pub(crate) fn below(state: &Path) -> Self {
        HostOptions {
            state: Some(state.to_owned()),
            policy: None,
            labels: Vec::new(),
        }
    }

    fn state(&self) -> Result<PathBuf, CommandError> {
        match &self.state {
            Some(state) => Ok(state.clone()),
            None => default_state(),
        }
    }

    /// How the local agent is started: this very program, even where its file has been replaced since.
    fn start(&self) -> Result<agent_connection::AgentStarter, CommandError> {
        let mut command: Vec<OsString> = ["/proc/self/exe", "agent", "serve", "--state"]
            .map(OsString::from)
            .into();
        command.push(self.state()?.into());
        if let Some(policy) = &self.policy {
            command.extend(["--policy".into(), policy.into()]);
        }
        for label in &self.labels {
            command.extend(["--label".into(), label.into()]);
        }
        Ok(agent_connection::local(command, LOCAL_LEASE))
    }
}

fn default_state() -> Result<PathBuf, CommandError> {
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/backburn".into());
    }
    let below = |variable: &str, path: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(|folder| PathBuf::from(folder).join(path))
    };
    below("XDG_STATE_HOME", "backburn").or_else(|| below("HOME", ".local/state/backburn")).ok_or_else(|| {
        CommandError::invalid(
            "there is no place for journals: neither XDG_STATE_HOME nor HOME is set\nhint: name a folder with `--state`",
        )
    })
}

/// The runtime of a command: one thread, since waiting is all it does.
fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CommandError::invalid(format!("the runtime could not be started: {error}"))
        })
}

fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => print_stderr(&format!("error: {error}\n")),
    }
}
