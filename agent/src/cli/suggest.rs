//! `suggest`: experiments that suit this host, each planned before it is shown.

use super::{CommandError, output, plan_in_child};
use crate::engine::PlanTask;
use crate::exit_code;
use crate::host::Host;
use crate::policy::HostPolicy;
use crate::processes::{ProcessTable, seen_services};
use backburn_experiments::suggest::{MAX_SUGGESTIONS, Suggestion, suggestions};
use backburn_experiments::terminal_text::escape;
use backburn_experiments::text_table::format_table;
use backburn_experiments::wire::{InjectionRequest, Refusal};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// How long a reason is in the table, in characters.
const REASON_LENGTH: usize = 110;

/// The command.
pub(super) fn command() -> Command {
    Command::new("suggest")
        .about("Suggest experiments for what runs on this host: services, units, containers, and what they are connected to")
        .arg(
            Arg::new("write")
                .long("write")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Write each experiment to a new file in this folder"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print JSON: name, reason and experiment of each"),
        )
}

/// Suggests experiments that this host can plan and its policy allows.
pub(super) fn suggest(
    matches: &ArgMatches,
    host: &Host,
    state: &Path,
    policy: &HostPolicy,
    json: bool,
) -> Result<u8, CommandError> {
    let table = ProcessTable::default();
    let services = seen_services(&table, &policy.protect)
        .map_err(|error| Refusal::new("process-table", error.to_string()))?;
    let (mut ready, mut left_out) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for suggestion in suggestions(services).into_iter().take(MAX_SUGGESTIONS) {
        match plan_in_child(host, task(&suggestion, state, policy)) {
            Ok(_) => ready.push(suggestion),
            Err(CommandError::Refused(refusal)) => {
                let names = left_out.entry(refusal.what).or_default();
                names.push(suggestion.name);
            }
            Err(error) => return Err(error),
        }
    }
    for (why, names) in left_out {
        let names = names.join(", ");
        say!("left out: {names}: {why}");
    }
    if ready.is_empty() {
        say!("nothing can be suggested for this host");
        return Ok(exit_code::NOT_STARTED);
    }
    if let Some(folder) = matches.get_one::<PathBuf>("write") {
        for suggestion in &ready {
            write(folder, suggestion).map_err(CommandError::Invalid)?;
        }
    }
    if json {
        return output::json(&ready);
    }
    let rows: Vec<[String; 3]> = (ready.iter())
        .map(|one| {
            let why = shortened(&one.reason);
            [one.name.clone(), one.fault.to_owned(), why]
        })
        .collect();
    output::print(&format_table(["NAME", "FAULT", "WHY"], &rows));
    Ok(0)
}

fn task(suggestion: &Suggestion, state: &Path, policy: &HostPolicy) -> PlanTask {
    PlanTask {
        request: InjectionRequest {
            id: "suggested".into(),
            run: "suggest".into(),
            fault: suggestion.fault.to_owned(),
            arguments: suggestion.arguments.clone(),
            duration: Some(suggestion.duration),
            every: None,
            seed: 1,
            max_victims: None,
        },
        plugins: Vec::new(),
        protected_paths: policy.protected_paths(state),
        host_rules: policy.host_fault_rules(state, false),
        policy: policy.clone(),
        state: state.to_owned(),
        link: None,
        acting: 0,
    }
}

/// Writes a new file; one that is there stays as it is.
#[expect(
    clippy::disallowed_methods,
    reason = "a person names the folder, and only new files are made in it"
)]
fn write(folder: &Path, suggestion: &Suggestion) -> Result<(), String> {
    let path = folder.join(format!("{}.json", suggestion.name));
    let in_words = |error: std::io::Error| {
        let shown = path.display().to_string();
        let hint = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "\nhint: name an empty folder",
            std::io::ErrorKind::NotFound => "\nhint: make the folder first",
            _ => "",
        };
        format!("{} could not be written: {error}{hint}", escape(&shown))
    };
    let text = serde_json::to_string_pretty(&suggestion.experiment).unwrap_or_default() + "\n";
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&path)
        .map_err(in_words)?;
    file.write_all(text.as_bytes()).map_err(in_words)
}

fn shortened(reason: &str) -> String {
    match reason.chars().count() > REASON_LENGTH {
        true => reason
            .chars()
            .take(REASON_LENGTH - 1)
            .chain(['…'])
            .collect(),
        false => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backburn_experiments::suggest::SeenService;

    #[test]
    fn suggestions_have_arguments_that_their_faults_accept() {
        let service = SeenService {
            name: "shop".into(),
            processes: 1,
            unit: Some("shop.service".into()),
            container: None,
            is_in_own_network: true,
            listening: ["0.0.0.0:8080".parse().unwrap()].into(),
            peers: ["10.0.0.7:5432".parse().unwrap()].into(),
        };
        let mut of_container = service.clone();
        of_container.container = Some("abababababab".into());
        of_container.is_in_own_network = false;
        let all = suggestions(vec![service, of_container]);
        assert!(all.len() >= 20, "{}", all.len());
        for one in all {
            let fault = crate::faults::find(one.fault).unwrap();
            assert_eq!(fault.check(&one.arguments), [], "{}", one.name);
        }
    }
}
