//! The command line: one file for each command. Data goes to stdout, everything else to stderr, and the exit code of a run
//! is that of its outcome.

mod backup;
mod comparison;
mod completed_run;
mod controller;
mod data_directory;
mod demo;
mod experiment_source;
mod export_import;
mod history;
mod job;
mod manual;
mod output;
mod palette;
mod plan;
mod plan_view;
mod progress;
mod progress_lines;
mod progress_tty;
mod remote;
mod report;
mod rotate_authority;
mod run;
mod run_report;
mod schedules;
mod shell_words;
mod signals;
mod status;
mod suite;
mod suite_options;
mod table;
mod usage;
mod validate;

use output::{print, print_stderr};

use backburn::agent_connection::{self, LOCAL_LEASE};
use backburn::providers::{EnvironmentAccess, HostAccess};
use backburn_agent::policy::HostPolicy;
use backburn_experiments::journal::exit_codes;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// The exit code of an invalid command line or experiment.
pub(crate) const EXIT_INVALID: u8 = 2;

/// Chaos experiments on Linux hosts that revert every fault
#[derive(Debug, Parser)]
#[command(
    name = "backburn",
    version,
    arg_required_else_help = true,
    after_help = exit_codes_help()
)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run an experiment on this host or on a controller's fleet, and report its verdict
    Run(Box<run::RunCommand>),
    /// Show what an experiment would affect and how that would be undone, without changing anything
    Plan(plan::PlanCommand),
    /// Run two experiments against a small web service that comes with the program; requires no root and leaves nothing behind
    Demo(demo::DemoCommand),
    /// Check experiments and game days, and report all of their problems
    Validate(validate::ValidateCommand),
    /// Show whether a halt is in force, what acts now, what is owed, and which agents do not answer
    Status(status::StatusCommand),
    /// List upcoming scheduled runs
    Schedules(schedules::SchedulesCommand),
    /// List the faults, or describe one
    #[command(disable_help_flag = true)]
    Faults(AgentArguments),
    /// Suggest experiments for what runs on this host, or on the hosts of a controller's agents
    Suggest(remote::suggest::SuggestCommand),
    /// Print the JSON Schema of experiments, of game days or of the controller's policy
    Schema(SchemaCommand),
    /// Print the OpenAPI description of the controller's HTTP API
    Openapi,
    /// Revert injections that are left on this host
    #[command(disable_help_flag = true)]
    Revert(AgentArguments),
    /// Use this host's agent without an experiment: plan, inject, status, revert, doctor
    #[command(disable_help_flag = true)]
    Agent(AgentArguments),
    /// Run the controller daemon
    Controller(controller::ControllerCommand),
    /// Store experiments and game days on the controller
    Apply(remote::experiments::ApplyCommand),
    /// List, show or remove the experiments that the controller stores
    Experiments(remote::experiments::ExperimentsCommand),
    /// List runs of this host or of a controller, or show or follow one
    Runs(remote::runs::RunsCommand),
    /// Write the report of a run that is over, or verify one that was written
    Report(run_report::ReportCommand),
    /// List, add, change or close actions: what will be done about what runs have found
    Actions(remote::actions::ActionsCommand),
    /// Show which faults each service has been shown to survive, when last, and what was never tried
    Coverage(remote::coverage::CoverageCommand),
    /// Stop a run; its faults are reverted first
    Stop(remote::runs::StopCommand),
    /// Hold game days: prepare one, go through its steps, and list those that were held
    Gameday(remote::game_days::GamedayCommand),
    /// Add a note to a run or a game day
    Note(remote::notes::NoteCommand),
    /// Mark a moment of a run or a game day: detected, mitigated, recovered, wrong-runbook or question
    Mark(remote::notes::MarkCommand),
    /// Record a decision at a run or a game day
    Decide(remote::notes::DecideCommand),
    /// Stop all runs, revert all faults, and let no run start until `resume`
    Halt(remote::halt::HaltCommand),
    /// End a halt, so that runs can start again
    Resume(remote::halt::ResumeCommand),
    /// List the runs that wait for an approval, or show what one would do
    Approvals(remote::approvals::ApprovalsCommand),
    /// Approve a run that another person requested, and start it
    Approve(remote::approvals::ApproveCommand),
    /// Reject a run that waits for an approval
    Reject(remote::approvals::RejectCommand),
    /// Withdraw a run that you requested and that waits for an approval
    Withdraw(remote::approvals::WithdrawCommand),
    /// List, examine or revoke the controller's agents
    Agents(remote::agents::AgentsCommand),
    /// Make a token with which one agent can join the fleet, once
    JoinToken(remote::tokens::JoinTokenCommand),
    /// Log in with the controller's identity provider, and keep the token on this host for a few hours
    Login(remote::login::LoginCommand),
    /// End a log-in
    Logout(remote::login::LogoutCommand),
    /// List, make or revoke the tokens of people and jobs
    Tokens(remote::tokens::TokensCommand),
    /// Print or verify the audit log: who did what
    Audit(remote::audit::AuditCommand),
    /// Back up a controller's data and keys to one file, on its host, while it runs
    Backup(backup::BackupCommand),
    /// Export a controller's data as JSON lines (stop it first)
    Export(export_import::ExportCommand),
    /// Import exported data into a controller that has no data yet (stop it first)
    Import(export_import::ImportCommand),
    /// Print a completion script for a shell
    Completions(CompletionsCommand),
    /// Print the manual page of the program or of one command
    Man(ManCommand),
    #[command(hide = true)]
    DemoService(demo::DemoServiceCommand),
}

#[derive(Debug, Args)]
struct CompletionsCommand {
    /// Shell to complete commands in
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
struct ManCommand {
    /// Command to describe, e.g. `run` or `agents label`; without it, the whole program
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct SchemaCommand {
    /// What the schema describes
    #[arg(value_enum, default_value_t = SchemaKind::Experiment)]
    of: SchemaKind,
}

/// A document that has a schema.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SchemaKind {
    /// The experiment document
    Experiment,
    /// The game day document
    GameDay,
    /// The policy file of `backburn controller --policy`
    ControllerPolicy,
    /// The file of `backburn controller --oidc`
    Oidc,
}

/// Arguments that are passed to the agent's own command line.
#[derive(Debug, Args)]
struct AgentArguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<OsString>,
}

/// The state directory, the policy and the labels of this host.
#[derive(Debug, Args)]
pub(crate) struct HostOptions {
    /// Directory of the journals and of the agent's ledger [default: /var/lib/backburn for root, else ~/.local/state/backburn]
    #[arg(
        long,
        value_name = "DIR",
        env = "BACKBURN_STATE",
        help_heading = "Host"
    )]
    state: Option<PathBuf>,
    /// Policy file: what this host allows
    #[arg(
        long,
        value_name = "FILE",
        env = "BACKBURN_POLICY",
        help_heading = "Host"
    )]
    policy: Option<PathBuf>,
    /// Label of this host, in addition to the detected ones
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, help_heading = "Host")]
    labels: Vec<String>,
}

impl HostOptions {
    /// What the environment says, for commands without these options.
    fn from_environment() -> Self {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        HostOptions {
            state: path("BACKBURN_STATE"),
            policy: path("BACKBURN_POLICY"),
            labels: Vec::new(),
        }
    }
}

fn label(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("expected KEY=VALUE, e.g. `role=checkout`".into()),
    }
}

/// The failure of a command: its exit code and a message for people.
#[derive(Debug)]
pub(crate) struct CommandFailure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl CommandFailure {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        CommandFailure {
            code: EXIT_INVALID,
            message: message.into(),
        }
    }
}

/// Runs the command with these arguments, without the program's name.
pub(crate) fn main(words: Vec<OsString>) -> ExitCode {
    if let Some(code) = agent_help(&words) {
        return code;
    }
    let parsed = match parse_frequent(&words) {
        Some(command) => Ok(Cli { command }),
        None => Cli::try_parse_from(std::iter::once("backburn".into()).chain(words)),
    };
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(EXIT_INVALID);
            // Help goes to stdout, and output that is lost must not look like a success.
            match usage::mistake::<Cli>(&error) {
                Some(message) => print_stderr(&message),
                None => output::print_clap_error(&error),
            }
            return ExitCode::from(output::exit_code(code));
        }
    };
    let done = match cli.command {
        CliCommand::Controller(command) => controller::main(&command),
        CliCommand::Apply(command) => remote::experiments::apply(&command),
        CliCommand::Experiments(command) => remote::experiments::main(&command),
        CliCommand::Runs(command) if command.is_for_host() => history::runs(&command),
        CliCommand::Runs(command) => remote::runs::runs(&command),
        CliCommand::Report(command) => run_report::report(&command),
        CliCommand::Actions(command) => remote::actions::main(&command),
        CliCommand::Coverage(command) => remote::coverage::coverage(&command),
        CliCommand::Stop(command) => remote::runs::stop(&command),
        CliCommand::Login(command) => remote::login::login(&command),
        CliCommand::Logout(command) => remote::login::logout(&command),
        CliCommand::Gameday(command) => remote::game_days::main(&command),
        CliCommand::Note(command) => remote::notes::note(&command),
        CliCommand::Mark(command) => remote::notes::mark(&command),
        CliCommand::Decide(command) => remote::notes::decide(&command),
        CliCommand::Halt(command) => remote::halt::halt(&command),
        CliCommand::Resume(command) => remote::halt::resume(&command),
        CliCommand::Approvals(command) => remote::approvals::approvals(&command),
        CliCommand::Approve(command) => remote::approvals::approve(&command),
        CliCommand::Reject(command) => remote::approvals::reject(&command),
        CliCommand::Withdraw(command) => remote::approvals::withdraw(&command),
        CliCommand::Agents(command) => remote::agents::main(&command),
        CliCommand::JoinToken(command) => remote::tokens::join(&command),
        CliCommand::Tokens(command) => remote::tokens::main(&command),
        CliCommand::Audit(command) => remote::audit::audit(&command),
        CliCommand::Backup(command) => backup::backup(&command),
        CliCommand::Export(command) => export_import::export(&command),
        CliCommand::Import(command) => export_import::import(&command),
        CliCommand::Run(command) if command.is_suite() => suite::main(&command),
        CliCommand::Run(command) => run::main(*command),
        CliCommand::Plan(command) => plan::main(&command),
        CliCommand::Validate(command) => Ok(validate::main(&command)),
        CliCommand::Status(command) => match status::main(&command) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        CliCommand::Schedules(command) => schedules::main(&command),
        CliCommand::Demo(command) => demo::main(&command),
        CliCommand::Schema(SchemaCommand { of }) => {
            match of {
                SchemaKind::Experiment => {
                    print_json(&backburn_experiments::schema::document_schema());
                }
                SchemaKind::GameDay => {
                    print_json(&backburn_experiments::game_day::game_day_schema());
                }
                SchemaKind::ControllerPolicy => {
                    print_json(&backburn_experiments::schema::of::<
                        backburn::service::FleetPolicy,
                    >());
                }
                SchemaKind::Oidc => {
                    print_json(&backburn_experiments::schema::of::<
                        backburn::oidc::OidcConfig,
                    >());
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
        CliCommand::Suggest(command) => match command.local_words() {
            Some(words) => return backburn_agent::main(&["agent"], words),
            None => remote::suggest::on_fleet(&command),
        },
        CliCommand::Agent(passed) => return backburn_agent::main(&["agent"], passed.words),
        CliCommand::Completions(command) => {
            manual::print_completions(command.shell);
            Ok(0)
        }
        CliCommand::Man(command) => manual::print_page(&command.command),
        CliCommand::DemoService(service) => return demo::serve(&service),
    };
    let code = done.unwrap_or_else(|CommandFailure { code, message }| {
        print_stderr(&format!("error: {message}\n"));
        code
    });
    ExitCode::from(output::exit_code(code))
}

/// Parses the commands that scripts start often, each with its own definition alone: defining all commands takes longer than parsing one.
/// None for other commands, and for whatever is not valid: the whole definition explains what is wrong.
fn parse_frequent(words: &[OsString]) -> Option<CliCommand> {
    match words.first()?.to_str()? {
        "run" => parse_alone(words).map(|command| CliCommand::Run(Box::new(command))),
        "validate" => parse_alone(words).map(CliCommand::Validate),
        "plan" => parse_alone(words).map(CliCommand::Plan),
        "status" => parse_alone(words).map(CliCommand::Status),
        _ => None,
    }
}

/// Parses the words of one command, of which the first is its name.
fn parse_alone<C: Args>(words: &[OsString]) -> Option<C> {
    let command = C::augment_args(clap::Command::new("backburn"));
    let matches = command.try_get_matches_from(words).ok()?;
    C::from_arg_matches(&matches).ok()
}

/// Answers `help` about a command that is the agent's own. None if the words ask for something else.
fn agent_help(words: &[OsString]) -> Option<ExitCode> {
    let [help, command, rest @ ..] = words else {
        return None;
    };
    if help != "help" {
        return None;
    }
    let passed = match command.to_str()? {
        "agent" => std::iter::once("help".into())
            .chain(rest.iter().cloned())
            .collect(),
        "faults" | "revert" => vec!["help".into(), command.clone()],
        _ => return None,
    };
    Some(backburn_agent::main(&["agent"], passed))
}

/// The list of exit codes at the end of the help.
fn exit_codes_help() -> String {
    let mut out = "Exit codes:".to_owned();
    for exit in exit_codes() {
        out.push_str(&format!(
            "\n  {}  {}: {}",
            exit.code, exit.name, exit.meaning
        ));
    }
    out
}

/// Runs a command of the agent's own command line.
fn agent(command: &str, passed: AgentArguments) -> ExitCode {
    backburn_agent::main(
        &["agent"],
        std::iter::once(command.into())
            .chain(passed.words)
            .collect(),
    )
}

impl HostOptions {
    /// Keeps all state in this directory, without a policy.
    pub(crate) fn below(state: &Path) -> Self {
        HostOptions {
            state: Some(state.to_owned()),
            policy: None,
            labels: Vec::new(),
        }
    }

    /// The directory of the journals and of the agent's ledger.
    ///
    /// # Errors
    /// None is given, and the environment names none.
    fn state(&self) -> Result<PathBuf, CommandFailure> {
        match &self.state {
            Some(state) => Ok(state.clone()),
            None => default_state(),
        }
    }

    /// What probes of a local run may use of this host: the user's own environment, and the network as this host's policy says.
    ///
    /// # Errors
    /// The policy cannot be used.
    fn access(&self) -> Result<HostAccess, CommandFailure> {
        let policy = HostPolicy::load(self.policy.as_deref())
            .map_err(|error| CommandFailure::invalid(error.to_string()))?;
        Ok(HostAccess {
            environment: EnvironmentAccess::User,
            destinations: Arc::new(policy.destinations()),
        })
    }

    /// How to start the local agent: from this very program, even if its file has been replaced since.
    fn start(&self) -> Result<agent_connection::AgentStarter, CommandFailure> {
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

fn default_state() -> Result<PathBuf, CommandFailure> {
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/backburn".into());
    }
    let below = |variable: &str, path: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(|folder| PathBuf::from(folder).join(path))
    };
    below("XDG_STATE_HOME", "backburn").or_else(|| below("HOME", ".local/state/backburn")).ok_or_else(|| {
        CommandFailure::invalid(
            "no directory for journals: neither XDG_STATE_HOME nor HOME is set\nhint: give a directory with `--state`",
        )
    })
}

/// A single-threaded runtime: a command mostly waits.
fn runtime() -> Result<tokio::runtime::Runtime, CommandFailure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CommandFailure::invalid(format!("could not start the asynchronous runtime: {error}"))
        })
}

/// Prints a value as indented JSON.
fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => print_stderr(&format!("error: {error}\n")),
    }
}

/// Prints a value as one line of JSON.
fn print_json_line(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => print_stderr(&format!("error: {error}\n")),
    }
}

#[cfg(test)]
mod tests;
