//! `backburn validate`: checks experiments and reports all of their problems.

use super::experiment_source::{self, LoadError, Variables};
use super::{EXIT_INVALID, print, print_json, print_stderr};
use backburn_experiments::forecast::warnings;
use backburn_experiments::terminal_text::escape;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct ValidateCommand {
    /// Experiment files; `-` reads standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    variables: Variables,
}

/// Runs `backburn validate`. Returns its exit code.
pub(super) fn main(command: &ValidateCommand) -> u8 {
    let mut code = 0;
    let mut found = Vec::new();
    for file in &command.files {
        let name = file.display().to_string();
        let outcome = experiment_source::load(file, &command.variables);
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
