//! `plugins` lists the plug-ins of this host, and `conform` tries whether a fault or a plug-in keeps its promises.

use super::{CommandError, output};
use crate::conform::{self, ConformSubject};
use crate::exit_code;
use crate::host::Host;
use crate::plugins::{PluginRegistry, PluginState};
use crate::policy::HostPolicy;
use backburn_experiments::terminal_text::escape;
use backburn_experiments::text_table::format_table;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{Problem, json};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::Value;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The commands for plug-ins.
pub(super) fn commands() -> [Command; 2] {
    let json = || {
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Print JSON")
    };
    [
        Command::new("plugins")
            .about("List the plug-ins that the policy allows, and whether they can be used")
            .arg(json()),
        Command::new("conform")
            .about("Try whether a fault or a plug-in reverts what it does, and print a report. It is really injected: use a host that may break")
            .arg(
                Arg::new("subject")
                    .value_name("FAULT|EXECUTABLE")
                    .required(true)
                    .help("A built-in fault, or the file of a plug-in"),
            )
            .arg(
                Arg::new("arguments")
                    .long("arguments")
                    .value_name("JSON")
                    .help("Arguments of the fault [default: its example]"),
            )
            .arg(
                Arg::new("watch")
                    .long("watch")
                    .value_name("PATH")
                    .action(ArgAction::Append)
                    .value_parser(value_parser!(PathBuf))
                    .help("File or folder that must stay as it is; may be given several times [default: the folders of the files that it holds]"),
            )
            .arg(json()),
    ]
}

/// Lists the plug-ins with their state.
pub(super) fn list(
    host: &Host,
    state: &Path,
    policy: &HostPolicy,
    as_json: bool,
) -> Result<u8, CommandError> {
    let registry = PluginRegistry::load(host, state, policy);
    let is_any_refused = registry
        .installed()
        .iter()
        .any(|plugin| plugin.refusal().is_some());
    let code = match is_any_refused {
        true => exit_code::NOT_STARTED,
        false => 0,
    };
    if as_json {
        let plugins: Vec<Value> = (registry.installed().iter())
            .map(|plugin| match &plugin.state {
                PluginState::Usable(usable) => serde_json::json!({
                    "name": plugin.name,
                    "path": plugin.path,
                    "state": "usable",
                    "kind": usable.declaration.kind,
                    "summary": usable.declaration.summary,
                    "schema": usable.declaration.schema,
                    "example": usable.declaration.example,
                    "selectors": usable.declaration.selectors,
                    "capabilities": usable.declaration.capabilities,
                    "survives-reboot": usable.declaration.survives_reboot,
                    "timeout": usable.declaration.timeout,
                    "sha256": usable.program.sha256,
                    "pinned": usable.program.file,
                }),
                PluginState::Refused(why) => serde_json::json!({
                    "name": plugin.name,
                    "path": plugin.path,
                    "state": "refused",
                    "why": why,
                }),
            })
            .collect();
        return output::json(&plugins).map(|_| code);
    }
    let rows: Vec<[String; 4]> = (registry.installed().iter())
        .map(|plugin| {
            let (kind, what) = match &plugin.state {
                PluginState::Usable(usable) => (
                    format!("{:?}", usable.declaration.kind).to_lowercase(),
                    usable.declaration.summary.clone(),
                ),
                PluginState::Refused(why) => ("refused".to_owned(), why.clone()),
            };
            let path = plugin.path.display().to_string();
            [&plugin.name, &kind, &path, &what].map(|text| escape(text).into_owned())
        })
        .collect();
    if rows.is_empty() {
        say!("no plug-ins: the policy of this host names none (`plugins`)");
    } else {
        output::print(&format_table(
            ["PLUG-IN", "KIND", "FILE", "WHAT IT DOES"],
            &rows,
        ));
    }
    Ok(code)
}

/// Tries a fault or a plug-in, and prints the report.
pub(super) fn conform(
    matches: &ArgMatches,
    host: &Host,
    state: PathBuf,
    policy: HostPolicy,
    as_json: bool,
) -> Result<u8, CommandError> {
    let arguments = match matches.get_one::<String>("arguments") {
        None => None,
        Some(text) => match json::read(text) {
            Ok(Value::Object(map)) => Some(map),
            Ok(_) => return Err(wrong(vec![Problem::new("$", "expected an object")]).into()),
            Err(problems) => return Err(wrong(problems).into()),
        },
    };
    let asked = ConformSubject {
        subject: matches
            .get_one::<String>("subject")
            .cloned()
            .unwrap_or_default(),
        arguments,
        watched: matches
            .get_many::<PathBuf>("watch")
            .into_iter()
            .flatten()
            .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
            .collect(),
        state,
        policy,
    };
    let started = Instant::now();
    let is_terminal = std::io::stderr().is_terminal();
    let mut said = String::new();
    let mut progress = |what: &str| {
        // In a log, the places of one check are one line.
        let heading = what.split(": killed").next().unwrap_or_default();
        if is_terminal || heading != said {
            said = heading.to_owned();
            say!("{:>5.1} s  {what}", started.elapsed().as_secs_f64());
        }
    };
    let report = conform::conform(host, &asked, &mut progress)?;
    if as_json {
        output::json(&report)?;
    } else {
        output::print(&report.to_markdown());
    }
    Ok(match report.passed {
        true => 0,
        false => exit_code::NOT_CLEAN,
    })
}

fn wrong(problems: Vec<Problem>) -> Refusal {
    Refusal {
        problems,
        ..Refusal::new("arguments", "`--arguments` is invalid")
    }
}
