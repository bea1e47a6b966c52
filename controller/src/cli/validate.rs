//! `backburn validate`: everything that is wrong with experiments, all at once.

use super::source::{self, NoExperiment, Variables};
use super::{INVALID, print, print_json, say};
use backburn_experiments::forecast::warnings;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct ValidateCommand {
    /// Experiments; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    variables: Variables,
}

pub(super) fn main(command: &ValidateCommand) -> u8 {
    let mut code = 0;
    let mut found = Vec::new();
    for file in &command.files {
        let name = file.display().to_string();
        let outcome = source::load(file, &command.variables);
        if outcome.is_err() {
            code = INVALID;
        }
        match (outcome, command.json) {
            (Ok(experiment), true) => found.push(json!({
                "file": name, "valid": true, "problems": [], "warnings": warnings(&experiment),
            })),
            (Ok(experiment), false) => {
                for warning in warnings(&experiment) {
                    say(&format!("warning: {name}: {warning}\n"));
                }
                print(&format!("{name}: valid\n"));
            }
            (Err(NoExperiment::Unreadable(what)), true) => {
                found.push(
                    json!({"file": name, "valid": false, "problems": [{"at": "$", "what": what}]}),
                );
            }
            (Err(NoExperiment::Wrong(problems)), true) => {
                found.push(json!({"file": name, "valid": false, "problems": problems}));
            }
            (Err(wrong), false) => say(&format!("error: {}\n", source::shown(file, &wrong))),
        }
    }
    if command.json {
        print_json(&found);
    }
    code
}
