//! The agent's command line: `serve` for a controller, and commands for a person, without any daemon or controller.

/// Writes a line to standard error, formatted like `eprintln!`; what a terminal would obey is escaped.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::output::print_stderr(&format!($($text)*)) };
}

mod connect;
mod fault_flags;
mod inject;
mod log;
mod output;
mod plugin_commands;
mod plugin_faults;
mod shell;
mod status;
mod suggest;
mod usage;

pub use log::{LOG_FORMAT_VARIABLE, LogFormat, LogLevelSwitch, log_to_stderr};

use crate::child_task::ChildTask;
use crate::children::Children;
use crate::engine::{self, EngineTask, PLAN_TIMEOUT, PlanTask, revert_matching};
use crate::exit_code;
use crate::guardian;
use crate::host::{Host, HostRole, Invocation, wait_readable};
use crate::ledger::Ledger;
use crate::plugins::{InstalledPlugin, PluginRegistry};
use crate::policy::HostPolicy;
use crate::processes::ProcessTable;
use crate::{child_task, doctor, helpers, worker};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Cause, EndedInjection, Refusal, UnrevertedInjection};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// The duration that `plan` assumes if none is given.
const DEFAULT_PLAN_DURATION: HumanDuration = HumanDuration::seconds(60);

/// Why a command failed.
enum CommandError {
    Refused(Refusal),
    Invalid(String),
    Owed(Vec<UnrevertedInjection>),
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        CommandError::Refused(refusal)
    }
}

/// Runs the agent with these arguments, without the program's name. `prefix` is what precedes them when this program starts itself again:
/// `["agent"]` within `backburn`.
pub fn main(prefix: &[&str], arguments: Vec<OsString>) -> ExitCode {
    // A helper and a child are processes of their own that must be small and start fast, so they come before anything else.
    if arguments.first().is_some_and(|word| word == "helper") {
        return helpers::run(arguments.into_iter().skip(1).collect());
    }
    if arguments.first().is_some_and(|word| word == "probe") {
        return child_task::run(arguments.get(1..).unwrap_or_default());
    }
    let invocation = Invocation {
        prefix: prefix.iter().map(|word| (*word).to_owned()).collect(),
    };
    let name = program_name(&invocation);
    let serves = arguments.first().is_some_and(|word| {
        ["serve", "worker", "connect"]
            .iter()
            .any(|known| word == known)
    });
    let plugins = match serves {
        true => Vec::new(),
        false => match plugin_faults::load(&arguments, &invocation) {
            Ok(plugins) => plugins,
            Err(refusal) => {
                print_error(LogFormat::from_environment(), &refusal.to_string());
                return ExitCode::from(exit_code::NOT_STARTED);
            }
        },
    };
    let known = if serves {
        serve_command(name.clone())
    } else {
        full_command(name.clone(), &plugins)
    };
    let words = std::iter::once(name.clone().into()).chain(arguments);
    let matches = match known.clone().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            // Help goes to stdout with exit code 0, an invalid argument to stderr with 2; a closed pipe is no error.
            match usage::mistake(&error, &known, &name) {
                Some(message) => output::print_stderr(message.trim_end()),
                None => output::print_clap_error(&error),
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit_code::INVALID));
        }
    };
    let format = matches.subcommand().and_then(|(_, matches)| {
        let given = matches.try_get_one::<LogFormat>("log-format");
        given.ok().flatten().copied()
    });
    let format = format.unwrap_or_else(LogFormat::from_environment);
    drop(log_to_stderr(tracing::Level::WARN, format));
    let revert = revert_command(&matches, &invocation);
    match dispatch(&matches, invocation, &revert, &plugins) {
        Ok(code) => ExitCode::from(output::final_exit_code(code)),
        Err(CommandError::Refused(refusal)) => {
            print_error(format, &refusal.to_string());
            ExitCode::from(if refusal.rule == "arguments" {
                exit_code::INVALID
            } else {
                exit_code::NOT_STARTED
            })
        }
        Err(CommandError::Invalid(what)) => {
            print_error(format, &what);
            ExitCode::from(exit_code::INVALID)
        }
        Err(CommandError::Owed(owed)) => {
            output::owed(&owed, &revert);
            ExitCode::from(exit_code::NOT_CLEAN)
        }
    }
}

/// The command that reverts everything that is owed in the state folder of these arguments. A folder other than the default one
/// is named, since `sudo` passes no variables on.
fn revert_command(matches: &ArgMatches, invocation: &Invocation) -> String {
    let sudo = match rustix::process::geteuid().is_root() {
        true => "sudo ",
        false => "",
    };
    let arguments = matches.subcommand().map(|(_, arguments)| arguments);
    let given = arguments.and_then(|arguments| arguments.try_get_one::<PathBuf>("state").ok()?);
    let state = given
        .filter(|given| default_state().is_ok_and(|usual| usual != **given))
        .map(|given| std::path::absolute(given).unwrap_or_else(|_| given.clone()))
        .map(|given| format!(" --state {}", quoted(&given.display().to_string())));
    let program = program_name(invocation);
    format!("{sudo}{program} revert --all{}", state.unwrap_or_default())
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Prints why a command failed; as an entry of the log where that is for programs.
fn print_error(format: LogFormat, what: &str) {
    match format {
        LogFormat::Text => say!("error: {what}"),
        LogFormat::Json => tracing::error!("{what}"),
    }
}

/// What a person types to run the agent: `backburn-agent`, or `backburn agent` within `backburn`.
fn program_name(invocation: &Invocation) -> String {
    match invocation.prefix.is_empty() {
        true => "backburn-agent".to_owned(),
        false => format!("backburn {}", invocation.prefix.join(" ")),
    }
}

/// The commands of an agent that serves a controller. They are apart from the others because they must start fast: no flags are derived
/// from schemas here.
fn serve_command(name: String) -> Command {
    let serve = |name: &'static str| {
        Command::new(name)
            .arg(
                Arg::new("name")
                    .long("name")
                    .value_name("NAME")
                    .help("Name of the agent [default: the host name]"),
            )
            .arg(
                Arg::new("label")
                    .long("label")
                    .value_name("KEY=VALUE")
                    .action(ArgAction::Append)
                    .help("Label of the agent; may be given several times"),
            )
            .arg(
                // Both ends of the controller's connection, if a connector holds it: no fault may cut it.
                Arg::new("spare")
                    .long("spare")
                    .value_parser(value_parser!(crate::packet_filter::ControlConnection))
                    .hide(true),
            )
            .arg(
                // Whether a proxy is at the other end of that connection.
                Arg::new("through-proxy")
                    .long("through-proxy")
                    .action(ArgAction::SetTrue)
                    .hide(true),
            )
    };
    Command::new(name)
        .about("Inject faults into this host and revert them")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("state")
                .long("state")
                .value_name("DIR")
                .env("BACKBURN_STATE")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .help(
                    "Folder for the ledger and the credentials [default: /var/lib/backburn for root, else the user's state folder]",
                ),
        )
        .arg(
            Arg::new("policy")
                .long("policy")
                .value_name("FILE")
                .env("BACKBURN_POLICY")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .help(format!(
                    "Policy file: what this host allows [default: {}, if it exists]",
                    crate::policy::POLICY_PATH
                )),
        )
        .subcommand(serve("serve").about("Serve a controller on standard input, which must be a socket"))
        .subcommand(
            serve("worker").hide(true).arg(
                Arg::new("ledger-copy")
                    .long("ledger-copy")
                    .value_parser(value_parser!(i32))
                    .hide(true),
            ),
        )
        .subcommands(connect::commands())
}

/// All commands of the agent.
fn full_command(name: String, plugins: &[InstalledPlugin]) -> Command {
    let json = || {
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Print JSON")
    };
    let shell_commands = shell::commands(&name);
    serve_command(name)
        .subcommand(
            Command::new("faults")
                .about("List the faults, or describe one")
                .arg(Arg::new("fault").value_name("FAULT"))
                .arg(json()),
        )
        .subcommand(fault_flags::per_fault(
            Command::new("plan").about(
                "Show what a fault would do and how it would be undone, without changing anything",
            ),
            plugins,
        ))
        .subcommand(fault_flags::per_fault(
            Command::new("inject")
                .about("Inject a fault, wait for its end, and revert it; Ctrl-C ends it early"),
            plugins,
        ))
        .subcommand(
            Command::new("status")
                .about("Show what is owed, and whether it is still active")
                .arg(json()),
        )
        .subcommand(
            Command::new("revert")
                .about("Revert what is owed, without a controller")
                .arg(
                    Arg::new("injection")
                        .value_name("ID")
                        .action(ArgAction::Append)
                        .help("Injections to revert"),
                )
                .arg(
                    Arg::new("all")
                        .long("all")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("injection")
                        .required_unless_present("injection")
                        .help("Revert every injection in the ledger"),
                )
                .arg(json()),
        )
        .subcommands(plugin_commands::commands())
        .subcommand(
            Command::new("doctor")
                .about("Report which faults this host supports, and what is missing")
                .arg(json()),
        )
        .subcommand(suggest::command())
        .subcommand(Command::new("schema").about("Print the JSON Schema of the policy file"))
        .subcommands(shell_commands)
}

fn dispatch(
    matches: &ArgMatches,
    invocation: Invocation,
    revert_by: &str,
    plugins: &[InstalledPlugin],
) -> Result<u8, CommandError> {
    let Some((name, matches)) = matches.subcommand() else {
        return Ok(exit_code::INVALID);
    };
    let state = matches
        .get_one::<PathBuf>("state")
        .cloned()
        .map_or_else(default_state, Ok)?;
    let policy_path = matches.get_one::<PathBuf>("policy").cloned();
    let json = matches
        .try_get_one::<bool>("json")
        .ok()
        .flatten()
        .copied()
        .unwrap_or_default();
    let policy = || {
        HostPolicy::load(policy_path.as_deref())
            .map_err(|error| CommandError::Invalid(error.to_string()))
    };
    if ["plan", "inject", "suggest"].contains(&name) {
        // A process table that hides processes, or shows those of another namespace, would lead to the wrong victims.
        let seen = ProcessTable::default().check_visibility();
        seen.map_err(|error| Refusal::new("process-table", error.to_string()))?;
    }
    if ["status", "revert"].contains(&name)
        && let Some(owed) = Ledger::at(&state).vanished(&ProcessTable::default())
    {
        return Err(CommandError::Owed(vec![owed]));
    }
    match name {
        "serve" => {
            if !is_socket(rustix::stdio::stdin()) {
                return Err(worker::no_controller_socket().into());
            }
            let passed = serve_arguments(matches, &state, policy_path.as_deref());
            guardian::run(&state, &passed, &invocation).map_err(|error| {
                CommandError::Invalid(format!("the agent could not be started: {error}"))
            })
        }
        "worker" => {
            let config = worker::WorkerConfig {
                state,
                policy: policy_path,
                name: matches
                    .get_one::<String>("name")
                    .cloned()
                    .unwrap_or_else(host_name),
                labels: labels(matches)?,
                spare: matches
                    .get_one::<crate::packet_filter::ControlConnection>("spare")
                    .copied(),
                through_proxy: matches.get_flag("through-proxy"),
                ledger_copy: matches.get_one::<i32>("ledger-copy").copied(),
            };
            let clean = worker::run(&config, invocation)
                .map_err(|error| CommandError::Invalid(error.to_string()))?;
            Ok(if clean { 0 } else { exit_code::NOT_CLEAN })
        }
        "join" => connect::join(matches, &state, invocation),
        "move" => connect::change_address(matches, &state, invocation),
        "connect" => {
            policy()?;
            let format = matches.get_one::<LogFormat>("log-format");
            let format = format.copied().unwrap_or_default();
            connect::connect(matches, &state, policy_path.as_deref(), format, &invocation)
        }
        "faults" => {
            let fault = matches.get_one::<String>("fault").map(String::as_str);
            output::faults(fault, plugins, json)
        }
        "plan" => {
            let policy = policy()?;
            let request = fault_flags::read(matches, Some(DEFAULT_PLAN_DURATION), plugins)?;
            // Reports what is wrong with the state folder, if anything is.
            let (host, _) = open_host_and_ledger(&state, invocation)?;
            let plugins = PluginRegistry::load(&host, &state, &policy);
            let task = PlanTask {
                plugins: plugins.usable().cloned().collect(),
                request: request.injection,
                protected_paths: policy.protected_paths(&state),
                host_rules: policy.host_fault_rules(&state, false),
                policy,
                state,
                link: None,
                acting: 0,
            };
            output::plan(&plan_in_child(&host, task)?.view(), request.json)
        }
        "plugins" => {
            let (host, _) = open_host_and_ledger(&state, invocation)?;
            plugin_commands::list(&host, &state, &policy()?, json)
        }
        "conform" => {
            let (host, _) = open_host_and_ledger(&state, invocation)?;
            plugin_commands::conform(matches, &host, state, policy()?, json)
        }
        "inject" => {
            // An invalid policy file is reported before anything is started.
            policy()?;
            let request = fault_flags::read(matches, None, plugins)?;
            let passed = serve_arguments(matches, &state, policy_path.as_deref());
            inject::run(&request, &state, &invocation, &passed, revert_by)
        }
        "status" => status::status(&open_host_and_ledger(&state, invocation)?, json, revert_by),
        "revert" => {
            let (host, ledger) = open_host_and_ledger(&state, invocation)?;
            let named: Option<Vec<&String>> = matches
                .get_many::<String>("injection")
                .map(Iterator::collect);
            revert(&host, &ledger, named.as_deref(), json)
        }
        "doctor" => {
            policy()?;
            let findings = doctor::examine(&state);
            output::doctor(&findings, json)
        }
        "suggest" => {
            let (host, _) = open_host_and_ledger(&state, invocation)?;
            suggest::suggest(matches, &host, &state, &policy()?, json)
        }
        "completions" => shell::completions(matches, full_command(program_name(&invocation), &[])),
        "man" => shell::man(matches, full_command(program_name(&invocation), &[])),
        "schema" => output::json(&backburn_experiments::schema::of::<HostPolicy>()),
        _ => Ok(exit_code::INVALID),
    }
}

fn revert(
    host: &Host,
    ledger: &Ledger,
    named: Option<&[&String]>,
    json: bool,
) -> Result<u8, CommandError> {
    if let Some(named) = named
        && let Some(unknown) = named.iter().find(|id| !ledger.owes(id))
    {
        let refusal = Refusal::new("no-match", format!("no injection `{unknown}` is owed"));
        return Err(refusal.hint("`status` lists what is owed").into());
    }
    let is_selected = |entry: &crate::ledger::LedgerEntry| {
        named.is_none_or(|named| named.contains(&&entry.injection))
    };
    let (ended, owed): (Vec<EndedInjection>, Vec<UnrevertedInjection>) =
        revert_matching(host, ledger, is_selected, Cause::Manual);
    output::reverted(&ended, &owed, json)?;
    if owed.is_empty() {
        Ok(0)
    } else {
        Err(CommandError::Owed(owed))
    }
}

/// The host and the ledger, for a command that works without an agent.
fn open_host_and_ledger(
    state: &Path,
    invocation: Invocation,
) -> Result<(Host, Ledger), CommandError> {
    let host = Host::new(HostRole::Command, invocation);
    let ledger = Ledger::open(&host, state).map_err(|error| {
        CommandError::Invalid(format!(
            "{error}\nhint: name a writable folder with `--state`"
        ))
    })?;
    Ok((host, ledger))
}

/// Has a child plan, as a worker does, since a path in the arguments may hang.
fn plan_in_child(host: &Host, task: PlanTask) -> Result<crate::faults::Plan, CommandError> {
    let failed = |why: String| CommandError::from(engine::inspection_failed(why));
    let mut children = Children::default();
    let started = children.start(
        host,
        &ChildTask::Engine(EngineTask::Plan(Box::new(task))),
        PLAN_TIMEOUT,
        (),
    );
    started.map_err(|((), why)| failed(why))?;
    loop {
        let now = Instant::now();
        let due = children.next_due().unwrap_or(now);
        let output = children.outputs().next();
        let left = due.saturating_duration_since(now);
        let is_ready = match output {
            Some(output) => {
                wait_readable(output, left).map_err(|error| failed(error.to_string()))?
            }
            None => false,
        };
        let ready: &[usize] = if is_ready { &[0] } else { &[] };
        let mut answers = children.read_ready(host, ready);
        answers.extend(children.kill_overdue(host, Instant::now()));
        if let Some(((), answer)) = answers.pop() {
            return Ok(engine::read_plan_answer(answer.into_output())?);
        }
    }
}

/// The arguments of the worker that `serve` or `inject` starts.
fn serve_arguments(matches: &ArgMatches, state: &Path, policy: Option<&Path>) -> Vec<String> {
    let mut passed = vec!["--state".to_owned(), state.display().to_string()];
    if let Some(policy) = policy {
        passed.extend(["--policy".to_owned(), policy.display().to_string()]);
    }
    if let Ok(Some(name)) = matches.try_get_one::<String>("name") {
        passed.extend(["--name".to_owned(), name.clone()]);
    }
    if let Ok(Some(labels)) = matches.try_get_many::<String>("label") {
        passed.extend(labels.flat_map(|label| ["--label".to_owned(), label.clone()]));
    }
    if let Ok(Some(spare)) = matches.try_get_one::<crate::packet_filter::ControlConnection>("spare")
    {
        let ends = format!("{},{}", spare.here, spare.there);
        passed.extend(["--spare".to_owned(), ends]);
    }
    if let Ok(Some(true)) = matches.try_get_one::<bool>("through-proxy") {
        passed.push("--through-proxy".to_owned());
    }
    passed
}

/// The labels of this host: those detected, overridden by those given.
fn labels(matches: &ArgMatches) -> Result<BTreeMap<String, String>, CommandError> {
    let mut labels = crate::labels::found(Path::new("/"), |name| std::env::var(name).ok());
    labels.extend(given_labels(matches)?);
    Ok(labels)
}

fn given_labels(matches: &ArgMatches) -> Result<BTreeMap<String, String>, CommandError> {
    let given = matches.get_many::<String>("label").into_iter().flatten();
    backburn_experiments::labels::parse_labels(given).map_err(CommandError::Invalid)
}

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "localhost".into(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn default_state() -> Result<PathBuf, CommandError> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/backburn".into());
    }
    let below = |variable: &str, path: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(|folder| PathBuf::from(folder).join(path))
    };
    below("XDG_STATE_HOME", "backburn")
        .or_else(|| below("HOME", ".local/state/backburn"))
        .ok_or_else(|| CommandError::Invalid("no folder for the ledger: neither XDG_STATE_HOME nor HOME is set\nhint: name a folder with `--state`".into()))
}

fn is_socket(fd: impl std::os::fd::AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|status| {
        rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Socket
    })
}
