//! `backburn apply` and `backburn experiments`: the experiments that a controller stores.

use super::super::experiment_source::ControlsOption;
use super::super::output::shown_path;
use super::super::table::{print_table, to_the_second};
use super::super::{CommandFailure, EXIT_INVALID, print, print_json, print_stderr};
use super::ControllerOptions;
use backburn::api::types::{ApplyResult, ExperimentInfo, VersionInfo};
use backburn::store::take_secrets;
use backburn_experiments::game_day::GAME_DAY_KEY;
use backburn_experiments::json;
use clap::{Args, Subcommand};
use imara_diff::{Algorithm, Diff, InternedInput};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(in crate::cli) struct ApplyCommand {
    /// Files of experiments or game days, or directories of them; each is stored under the name of its file without `.json`
    #[arg(required = true, value_name = "FILE|FOLDER")]
    files: Vec<PathBuf>,
    /// Show what would change, without changing anything
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    controls: ControlsOption,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExperimentsCommand {
    #[command(subcommand)]
    action: Option<ExperimentsAction>,
    /// Print lists as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum ExperimentsAction {
    /// Print the document of a stored experiment
    Show {
        /// Name of the experiment
        name: String,
        /// Version of the experiment [default: the latest]
        #[arg(long)]
        version: Option<u64>,
    },
    /// List the versions of a stored experiment
    Versions {
        /// Name of the experiment
        name: String,
    },
    /// Remove a stored experiment; its history is kept
    Remove {
        /// Name of the experiment
        name: String,
    },
}

/// The experiment files at these paths, by the names of their experiments.
fn files(paths: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>, CommandFailure> {
    let unread = |path: &Path, error: std::io::Error| {
        CommandFailure::invalid(format!("{}: {error}", shown_path(path)))
    };
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut take = |path: PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str());
        let Some(name) = name else {
            let what = format!("{}: the name is not valid UTF-8", shown_path(&path));
            return Err(CommandFailure::invalid(what));
        };
        match found.insert(name.to_owned(), path.clone()) {
            Some(other) => Err(CommandFailure::invalid(format!(
                "{} and {} have the same name, `{name}`",
                shown_path(&other),
                shown_path(&path)
            ))),
            None => Ok(()),
        }
    };
    for path in paths {
        if !path.is_dir() {
            take(path.clone())?;
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| unread(path, error))?;
        for entry in entries {
            let file = entry.map_err(|error| unread(path, error))?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                take(file)?;
            }
        }
    }
    Ok(found)
}

pub(in crate::cli) fn apply(command: &ApplyCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let files = files(&command.files)?;
    if files.is_empty() {
        return Err(CommandFailure::invalid(
            "no experiments found\nhint: in a directory, only files that end in `.json` are experiments",
        ));
    }
    let mut code = 0;
    // Game days name experiments, which may be among the files: those are stored first.
    let (game_days, experiments): (Vec<_>, Vec<_>) =
        (files.iter()).partition(|(_, path)| is_game_day(path));
    for (name, path) in experiments.into_iter().chain(game_days) {
        let read = || -> Result<String, CommandFailure> {
            let text = std::fs::read_to_string(path)
                .map_err(|error| CommandFailure::invalid(error.to_string()))?;
            let mut document = json::read(&text)
                .map_err(|problems| CommandFailure::invalid(json::in_one_line(&problems)))?;
            command.controls.leave_out(path, &mut document);
            let room = match document.get(GAME_DAY_KEY) {
                Some(_) => "game-day-documents",
                None => "experiments",
            };
            let at = format!("/api/v1/{room}/{name}");
            if command.dry_run {
                // A document that is not stored yet compares as empty.
                let stored = client
                    .get(&at)
                    .map(|stored: StoredDocument| stored.document);
                let before = stored.unwrap_or_default();
                // Nobody is shown what the controller stores of a secret, so there is nothing to compare it with.
                let secrets = take_secrets(&mut document);
                return Ok(match (before == document, secrets.is_empty()) {
                    (true, true) => format!("{name}: unchanged\n"),
                    (true, false) => {
                        format!("{name}: unchanged, as far as secrets are not compared\n")
                    }
                    (false, _) => {
                        format!("{name}: would change\n{}", diff(&before, &document))
                    }
                });
            }
            let applied: ApplyResult = client.put(&at, &document)?;
            let version = applied.version;
            take_secrets(&mut document);
            Ok(match (applied.changed, &applied.before) {
                (false, _) => format!("{name}: version {version}, unchanged\n"),
                (true, None) => format!("{name}: version {version}, new\n"),
                (true, Some(before)) if *before == document => {
                    format!("{name}: version {version}, which differs in secrets only\n")
                }
                (true, Some(before)) => {
                    format!("{name}: version {version}\n{}", diff(before, &document))
                }
            })
        };
        match read() {
            Ok(said) => print(&said),
            // An invalid experiment does not keep the others from being stored.
            Err(failure) => {
                print_stderr(&format!(
                    "error: {}: {}\n",
                    shown_path(path),
                    failure.message
                ));
                code = if code == 0 {
                    failure.code.max(EXIT_INVALID)
                } else {
                    code
                };
            }
        }
    }
    Ok(code)
}

/// Whether a file is that of a game day. One that cannot be read is reported when it is applied.
fn is_game_day(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    json::read(&text).is_ok_and(|document| document.get(GAME_DAY_KEY).is_some())
}

/// What an experiment and a game day have in common when they are read.
#[derive(Deserialize)]
struct StoredDocument {
    document: Value,
}

/// The differences line by line, with three lines of context.
fn diff(before: &Value, after: &Value) -> String {
    const CONTEXT_LINES: u32 = 3;
    let (before, after) = (pretty(before), pretty(after));
    let input = InternedInput::new(before.as_str(), after.as_str());
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    let mut out = String::new();
    let mut show = |sign, lines: &[imara_diff::Token]| {
        for line in lines {
            out.push_str(&format!("  {sign} {}\n", input.interner[*line].trim_end()));
        }
    };
    let lines = |range: std::ops::Range<u32>| range.start as usize..range.end as usize;
    let total = u32::try_from(input.before.len()).unwrap_or(u32::MAX);
    let mut hunks = diff.hunks().peekable();
    let mut shown = 0;
    while let Some(hunk) = hunks.next() {
        let (start, end) = (hunk.before.start, hunk.before.end);
        let next = hunks.peek().map_or(total, |next| next.before.start);
        let lead = start.saturating_sub(CONTEXT_LINES).max(shown);
        shown = end.saturating_add(CONTEXT_LINES).min(next);
        show(' ', &input.before[lines(lead..start)]);
        show('-', &input.before[lines(hunk.before)]);
        show('+', &input.after[lines(hunk.after)]);
        show(' ', &input.before[lines(end..shown)]);
    }
    out
}

fn pretty(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        value => format!("{value:#}\n"),
    }
}

/// Runs `backburn experiments`.
pub(in crate::cli) fn main(command: &ExperimentsCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    match &command.action {
        None => {
            let path = "/api/v1/experiments?limit=1000";
            let experiments = client.list(path, |experiment: &ExperimentInfo| &experiment.name)?;
            match command.json {
                true => print_json(&experiments),
                false => print_table(
                    ["NAME", "VERSION", "SCHEDULED", "TITLE"],
                    experiments.into_iter().map(row),
                    "no experiments are stored",
                ),
            }
        }
        Some(ExperimentsAction::Show { name, version }) => {
            let version = version.map(|version| format!("?version={version}"));
            let path = format!("/api/v1/experiments/{name}{}", version.unwrap_or_default());
            let experiment: ExperimentInfo = client.get(&path)?;
            print_json(&experiment.document);
        }
        Some(ExperimentsAction::Versions { name }) => {
            let versions: Vec<VersionInfo> =
                client.get(&format!("/api/v1/experiments/{name}/versions"))?;
            let row = |version: VersionInfo| {
                let change = match version.removed {
                    true => "removed",
                    false => "applied",
                };
                [
                    version.version.to_string(),
                    to_the_second(&version.at),
                    version.who,
                    change.into(),
                ]
            };
            match command.json {
                true => print_json(&versions),
                false => print_table(
                    ["VERSION", "AT", "WHO", "CHANGE"],
                    versions.into_iter().map(row),
                    "the experiment has no versions",
                ),
            }
        }
        Some(ExperimentsAction::Remove { name }) => {
            let _removed: VersionInfo = client.delete(&format!("/api/v1/experiments/{name}"))?;
            print_stderr(&format!("{name} is removed; its history is kept\n"));
        }
    }
    Ok(0)
}

fn row(experiment: ExperimentInfo) -> [String; 4] {
    // The document is the author's: what is listed of it are its title and whether it has a schedule.
    let document: DocumentSummary = serde_json::from_value(experiment.document).unwrap_or_default();
    let scheduled = match document.schedule {
        Some(_) => "yes",
        None => "no",
    };
    [
        experiment.name,
        experiment.version.to_string(),
        scheduled.into(),
        document.title,
    ]
}

/// The keys of an experiment document that the list shows.
#[derive(Default, Deserialize)]
#[serde(default)]
struct DocumentSummary {
    title: String,
    schedule: Option<serde::de::IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::diff;
    use serde_json::json;

    #[test]
    fn diff_changed_lines_have_three_lines_around_each() {
        let before = json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let after = json!([1, 20, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        let wanted = "    [\n      1,\n  -   2,\n  +   20,\n      3,\n      4,\n      5,\n      9,\n      10,\n      11,\n  -   12\n  +   12,\n  +   13\n    ]\n";
        assert_eq!(diff(&before, &after), wanted);
        assert_eq!(diff(&before, &before), "");
        assert_eq!(diff(&json!(null), &json!([1])), "  + [\n  +   1\n  + ]\n");
        assert_eq!(
            diff(&json!([1, 2, 3]), &json!([7, 2, 9])),
            "    [\n  -   1,\n  +   7,\n      2,\n  -   3\n  +   9\n    ]\n"
        );
    }
}
