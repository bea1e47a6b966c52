//! `backburn validate`: checks experiments and game days, and reports all of their problems.

use super::experiment_source::{self, LoadError, Variables};
use super::{EXIT_INVALID, HostOptions, print, print_json, print_stderr};
use backburn_experiments::Problem;
use backburn_experiments::forecast::warnings;
use backburn_experiments::game_day::{GAME_DAY_KEY, check_dates, load_game_day};
use backburn_experiments::terminal_text::escape;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct ValidateCommand {
    /// Files of experiments or game days; `-` reads an experiment from standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    variables: Variables,
}

/// Checks a file as a game day. None if it is none, cannot be read, or is standard input.
fn game_day(file: &Path) -> Option<Result<(), Vec<Problem>>> {
    let text = (file != Path::new("-")).then(|| std::fs::read_to_string(file).ok())??;
    let document = backburn_experiments::json::read(&text).ok()?;
    document.get(GAME_DAY_KEY)?;
    let checked = load_game_day(&text).and_then(|day| {
        let late = check_dates(&day, jiff::Timestamp::now());
        match late.is_empty() {
            true => Ok(()),
            false => Err(late),
        }
    });
    Some(checked)
}

/// Runs `backburn validate`. Returns its exit code.
pub(super) fn main(command: &ValidateCommand) -> u8 {
    let mut code = 0;
    let mut found = Vec::new();
    for file in &command.files {
        let name = file.display().to_string();
        if let Some(outcome) = game_day(file) {
            let problems = outcome.err().unwrap_or_default();
            let is_valid = problems.is_empty();
            if !is_valid {
                code = EXIT_INVALID;
            }
            match (command.json, is_valid) {
                (true, _) => found.push(json!({
                    "file": name, "valid": is_valid, "problems": problems, "warnings": [],
                })),
                (false, true) => print(&format!("{}: valid\n", escape(&name))),
                (false, false) => print_stderr(&format!(
                    "error: {}\n",
                    experiment_source::format_load_error(file, &LoadError::Invalid(problems))
                )),
            }
            continue;
        }
        let outcome =
            experiment_source::load(file, &command.variables, &HostOptions::from_environment());
        if outcome.is_err() {
            code = EXIT_INVALID;
        }
        match (outcome, command.json) {
            (Ok(experiment), true) => found.push(json!({
                "file": name, "valid": true, "problems": [], "warnings": warnings(&experiment),
            })),
            (Ok(experiment), false) => {
                for warning in warnings(&experiment) {
                    print_stderr(&format!(
                        "warning: {}: {}\n",
                        escape(&name),
                        escape(&warning)
                    ));
                }
                print(&format!("{}: valid\n", escape(&name)));
            }
            (Err(LoadError::Unreadable(what)), true) => {
                found.push(
                    json!({"file": name, "valid": false, "problems": [{"at": "$", "what": what}]}),
                );
            }
            (Err(LoadError::Invalid(problems)), true) => {
                found.push(json!({"file": name, "valid": false, "problems": problems}));
            }
            (Err(wrong), false) => print_stderr(&format!(
                "error: {}\n",
                experiment_source::format_load_error(file, &wrong)
            )),
        }
    }
    if command.json {
        print_json(&found);
    }
    code
}
