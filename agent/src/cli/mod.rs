//! The agent's command line: for a controller (`serve`), and by hand, with no daemon and no
//! controller. `main` is a straight line from words to an exit code.

mod arguments;
mod connect;
mod inject;
mod show;
mod status;

use crate::children::Children;
use crate::engine::{self, PLAN_TIMEOUT, PlanTask, revert_dead};
use crate::guardian::{self, NOT_CLEAN};
use crate::host::{Host, Invocation, Role, wait_readable};
use crate::ledger::Ledger;
use crate::policy::Policy;
use crate::probes::Task;
use crate::processes::ProcessTable;
use crate::{doctor, helpers, probes, worker};
use backburn_experiments::Span;
use backburn_experiments::wire::{Cause, Ended, Owed, Refusal};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// The exit code of a command line or a definition that is wrong.
const INVALID: u8 = 2;
/// The exit code of a refusal: nothing was injected.
const NOT_STARTED: u8 = 3;
/// The exit code of a fault that was made, and failed or no longer acted before its end.
const FAULT_FAILED: u8 = 9;

/// The duration that a plan is made for where none is given.
const ASSUMED: Span = Span::seconds(60);

/// Why a command ended without doing what it was to do.
enum Failure {
    Refused(Refusal),
    Wrong(String),
    Owed(Vec<Owed>),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

/// Runs the agent with these words, the program's name and `prefix` left out. `prefix` is what
/// stands before them when this program is started again: `["agent"]` within `backburn`.
pub fn main(prefix: &[&str], words: Vec<OsString>) -> ExitCode {
    // A helper is a process of its own that must be small and start fast: before anything else.
    if words.first().is_some_and(|word| word == "helper") {
        return helpers::run(words.into_iter().skip(1).collect());
    }
    if words.first().is_some_and(|word| word == "probe") {
        return probes::run(words.get(1..).unwrap_or_default());
    }
    let name = std::iter::once("backburn")
        .chain(prefix.iter().copied())
        .collect::<Vec<_>>()
        .join(" ");
    let name = if prefix.is_empty() {
        "backburn-agent".to_owned()
    } else {
        name
    };
    let serves = words.first().is_some_and(|word| {
        ["serve", "worker", "connect"]
            .iter()
            .any(|known| word == known)
    });
    let known = if serves {
        serving(name.clone())
    } else {
        command(name.clone())
    };
    let matches = match known.try_get_matches_from(std::iter::once(name.into()).chain(words)) {
        Ok(matches) => matches,
        Err(error) => {
            // Help goes to stdout with 0, a wrong word to stderr with 2; a closed pipe is nobody's fault.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(INVALID));
        }
    };
    log_to_stderr(tracing::Level::WARN);
    let invocation = Invocation {
        prefix: prefix.iter().map(|word| (*word).to_owned()).collect(),
    };
    match dispatch(&matches, invocation) {
        Ok(code) => ExitCode::from(show::exit_code(code)),
        Err(Failure::Refused(refusal)) => {
            eprintln!("error: {refusal}");
            ExitCode::from(if refusal.rule == "arguments" {
                INVALID
            } else {
                NOT_STARTED
            })
        }
        Err(Failure::Wrong(what)) => {
            eprintln!("error: {what}");
            ExitCode::from(INVALID)
        }
        Err(Failure::Owed(owed)) => {
            show::owed(&owed);
            ExitCode::from(NOT_CLEAN)
        }
    }
}

/// Has the log written to standard error from this level on, or from the one that `BACKBURN_LOG` names.
pub fn log_to_stderr(usual: tracing::Level) {
    let level = std::env::var("BACKBURN_LOG")
        .ok()
        .and_then(|level| level.parse().ok());
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // Somebody else's subscriber, in a test, is as good.
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(usual))
        .with_writer(|| Unwaiting)
        .with_ansi(colours)
        .try_init()
        .ok();
}

/// Standard error, for whoever must not wait: what nobody takes is lost. Whoever ends faults writes its log there.
struct Unwaiting;

impl std::io::Write for Unwaiting {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        // What a pipe that can be written to at all surely takes (`PIPE_BUF`, pipe(7)).
        const TAKEN_AT_ONCE: usize = 4096;
        let mut stderr = std::io::stderr().lock();
        let at_once = Timespec::default();
        let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
        if matches!(poll(&mut fds, Some(&at_once)), Ok(1..)) {
            let taken = text.get(..TAKEN_AT_ONCE).unwrap_or(text);
            stderr.write_all(taken)?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The words of an agent that serves. Apart from those of a person, since it must be small and
/// start fast: no flags are derived from schemas here.
fn serving(name: String) -> Command {
    let serve = |name: &'static str| {
        Command::new(name)
            .arg(
                Arg::new("name")
                    .long("name")
                    .help("The agent's name; the host's where left out"),
            )
            .arg(
                Arg::new("label")
                    .long("label")
                    .value_name("KEY=VALUE")
                    .action(ArgAction::Append)
                    .help("A label of this agent"),
            )
            .arg(
                // The link's two ends, where a connector holds it: no fault may cut it.
                Arg::new("spare")
                    .long("spare")
                    .value_parser(value_parser!(crate::packet_filter::ControlConnection))
                    .hide(true),
            )
    };
    Command::new(name)
        .about("Injects faults into this host and puts them back")
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
                    "Where the ledger is [default: /var/lib/backburn, or the user's state folder]",
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
                    "What this host allows [default: {} where it exists]",
                    crate::policy::POLICY_PATH
                )),
        )
        .subcommand(serve("serve").about("Serve a controller over the socket on standard input"))
        .subcommand(
            serve("worker").hide(true).arg(
                Arg::new("ledger-copy")
                    .long("ledger-copy")
                    .value_parser(value_parser!(i32))
                    .hide(true),
            ),
        )
        .subcommands(connect::words())
}

/// All the agent's words.
fn command(name: String) -> Command {
    let json = || {
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Print JSON")
    };
    serving(name)
        .subcommand(
            Command::new("faults")
                .about("List the faults, or tell all about one")
                .arg(Arg::new("fault").value_name("FAULT"))
                .arg(json()),
        )
        .subcommand(arguments::per_fault(
            Command::new("plan")
                .about("Say what a fault would do, exactly, with its undo; touch nothing"),
            arguments::to_plan,
        ))
        .subcommand(arguments::per_fault(
            Command::new("inject")
                .about("Inject a fault by hand, wait for its end, and put it back; Ctrl-C ends it"),
            arguments::to_inject,
        ))
        .subcommand(
            Command::new("status")
                .about("Say what is owed, and whether it is still there")
                .arg(json()),
        )
        .subcommand(
            Command::new("revert")
                .about("Put back what is owed, without a controller")
                .arg(
                    Arg::new("injection")
                        .value_name("ID")
                        .action(ArgAction::Append)
                        .help("These injections"),
                )
                .arg(
                    Arg::new("all")
                        .long("all")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("injection")
                        .required_unless_present("injection")
                        .help("Every injection in the ledger"),
                )
                .arg(json()),
        )
        .subcommand(
            Command::new("doctor")
                .about("Say what this host can do, and what is missing")
                .arg(json()),
        )
        .subcommand(Command::new("schema").about("Print the JSON Schema of the policy file"))
}

fn dispatch(matches: &ArgMatches, invocation: Invocation) -> Result<u8, Failure> {
    let Some((name, words)) = matches.subcommand() else {
        return Ok(INVALID);
    };
    let state = words
        .get_one::<PathBuf>("state")
        .cloned()
        .map_or_else(default_state, Ok)?;
    let policy_path = words.get_one::<PathBuf>("policy").cloned();
    let json = words
        .try_get_one::<bool>("json")
        .ok()
        .flatten()
        .copied()
        .unwrap_or_default();
    let policy =
        || Policy::load(policy_path.as_deref()).map_err(|error| Failure::Wrong(error.to_string()));
    if ["plan", "inject"].contains(&name) {
        // By a table that shows others, or not all, the wrong ones would be hit.
        let seen = ProcessTable::default().check_visibility();
        seen.map_err(|error| Refusal::new("process-table", error.to_string()))?;
    }
    if ["status", "revert"].contains(&name)
        && let Some(owed) = Ledger::at(&state).vanished(&ProcessTable::default())
    {
        return Err(Failure::Owed(vec![owed]));
    }
    match name {
        "serve" => {
            if !is_socket(rustix::stdio::stdin()) {
                return Err(worker::not_a_link().into());
            }
            let passed = pass_on(words, &state, policy_path.as_deref());
            guardian::run(&state, &passed, &invocation)
                .map_err(|error| Failure::Wrong(format!("the agent could not be started: {error}")))
        }
        "worker" => {
            let settings = worker::Settings {
                state,
                policy: policy_path,
                name: words
                    .get_one::<String>("name")
                    .cloned()
                    .unwrap_or_else(host_name),
                labels: labels(words)?,
                spare: words.get_one::<crate::packet_filter::ControlConnection>("spare").copied(),
                ledger_copy: words.get_one::<i32>("ledger-copy").copied(),
            };
            let clean = worker::run(&settings, invocation)
                .map_err(|error| Failure::Wrong(error.to_string()))?;
            Ok(if clean { 0 } else { NOT_CLEAN })
        }
        "join" => connect::join(words, &state, invocation),
        "connect" => {
            policy()?;
            connect::connect(&state, policy_path.as_deref(), &invocation)
        }
        "faults" => show::faults(words.get_one::<String>("fault").map(String::as_str), json),
        "plan" => {
            let wanted = arguments::read(words, Some(ASSUMED))?;
            // Says what is wrong with the state folder, if anything is.
            let (host, _) = hand(&state, invocation)?;
            let task = PlanTask {
                request: wanted.request,
                policy: policy()?,
                state,
                link: None,
                acting: 0,
            };
            show::plan(&plan_in_child(&host, task)?.view(), wanted.json)
        }
        "inject" => {
            // What the policy file has wrong is said before anything is started.
            policy()?;
            let wanted = arguments::read(words, None)?;
            let passed = pass_on(words, &state, policy_path.as_deref());
            inject::run(&wanted, &state, &invocation, &passed)
        }
        "status" => status::status(&hand(&state, invocation)?, json),
        "revert" => {
            let (host, ledger) = hand(&state, invocation)?;
            let named: Option<Vec<&String>> =
                words.get_many::<String>("injection").map(Iterator::collect);
            revert(&host, &ledger, named.as_deref(), json)
        }
        "doctor" => {
            policy()?;
            let findings = doctor::examine(&state);
            show::doctor(&findings, json)
        }
        "schema" => show::json(&backburn_experiments::schema::of::<Policy>()),
        _ => Ok(INVALID),
    }
}

fn revert(
    host: &Host,
    ledger: &Ledger,
    named: Option<&[&String]>,
    json: bool,
) -> Result<u8, Failure> {
    if let Some(named) = named
        && let Some(unknown) = named.iter().find(|id| !ledger.owes(id))
    {
        let refusal = Refusal::new("no-match", format!("nothing is owed under `{unknown}`"));
        return Err(refusal.hint("`status` lists what is owed").into());
    }
    let meant = |entry: &crate::ledger::LedgerEntry| {
        named.is_none_or(|named| named.contains(&&entry.injection))
    };
    let (ended, owed): (Vec<Ended>, Vec<Owed>) = revert_dead(host, ledger, meant, Cause::ByHand);
    show::reverted(&ended, &owed, json)?;
    if owed.is_empty() {
        Ok(0)
    } else {
        Err(Failure::Owed(owed))
    }
}

/// The host and the ledger, for a person at a terminal.
fn hand(state: &Path, invocation: Invocation) -> Result<(Host, Ledger), Failure> {
    let host = Host::new(Role::Hand, invocation);
    let ledger = Ledger::open(&host, state).map_err(|error| {
        Failure::Wrong(format!(
            "{error}\nhint: name a folder that you may write to with `--state`"
        ))
    })?;
    Ok((host, ledger))
}

/// Has a child look at the host and plan, as a worker does: what the arguments name may hang.
fn plan_in_child(host: &Host, task: PlanTask) -> Result<crate::faults::Plan, Failure> {
    let failed = |why: String| Failure::from(engine::not_looked_at(why));
    let mut children = Children::default();
    let started = children.start(host, &Task::Plan(Box::new(task)), PLAN_TIMEOUT, ());
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
        let mut answers = children.take(host, ready);
        answers.extend(children.end_overdue(host, Instant::now()));
        if let Some(((), answer)) = answers.pop() {
            return Ok(engine::planned(answer.said())?);
        }
    }
}

/// The words that a worker is started with.
fn pass_on(words: &ArgMatches, state: &Path, policy: Option<&Path>) -> Vec<String> {
    let mut passed = vec!["--state".to_owned(), state.display().to_string()];
    if let Some(policy) = policy {
        passed.extend(["--policy".to_owned(), policy.display().to_string()]);
    }
    if let Ok(Some(name)) = words.try_get_one::<String>("name") {
        passed.extend(["--name".to_owned(), name.clone()]);
    }
    if let Ok(Some(labels)) = words.try_get_many::<String>("label") {
        passed.extend(labels.flat_map(|label| ["--label".to_owned(), label.clone()]));
    }
    if let Ok(Some(spare)) = words.try_get_one::<crate::packet_filter::ControlConnection>("spare") {
        let ends = format!("{},{}", spare.here, spare.there);
        passed.extend(["--spare".to_owned(), ends]);
    }
    passed
}

/// Labels that were found, and those given before them.
fn labels(words: &ArgMatches) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = crate::labels::found(Path::new("/"), |name| std::env::var(name).ok());
    labels.extend(given_labels(words)?);
    Ok(labels)
}

fn given_labels(words: &ArgMatches) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for label in words.get_many::<String>("label").into_iter().flatten() {
        let (key, value) = label.split_once('=').ok_or_else(|| {
            Failure::Wrong(format!(
                "label `{label}` is not of the form KEY=VALUE\nhint: e.g. `--label role=checkout`"
            ))
        })?;
        labels.insert(key.into(), value.into());
    }
    Ok(labels)
}

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "localhost".into(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn default_state() -> Result<PathBuf, Failure> {
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
        .ok_or_else(|| Failure::Wrong("there is no place for the ledger: neither XDG_STATE_HOME nor HOME is set\nhint: name a folder with `--state`".into()))
}

fn is_socket(fd: impl std::os::fd::AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|status| {
        rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Socket
    })
}
