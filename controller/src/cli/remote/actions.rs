//! `backburn actions`: what will be done about what runs have found.

use super::super::table::print_table;
use super::super::{CommandFailure, print, print_json, print_stderr};
use super::ControllerOptions;
use super::run_view;
use backburn::api::types::{ActionInfo, ChangeActionRequest, CloseActionRequest, NewActionRequest};
use backburn_experiments::terminal_text::escape;
use clap::{Args, Subcommand};

/// The columns of the CSV.
const CSV_HEAD: &str =
    "id,state,due,severity,owner,title,experiment,run,added,closed,proved-by,why";

#[derive(Debug, Args)]
pub(in crate::cli) struct ActionsCommand {
    #[command(subcommand)]
    action: Option<ActionsSubcommand>,
    /// List closed actions, too
    #[arg(long)]
    all: bool,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    /// Print the list as CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum ActionsSubcommand {
    /// Add an action to the list of actions
    Add {
        /// What will be done
        title: String,
        /// Name of the person who does it
        #[arg(long, value_name = "NAME")]
        owner: String,
        /// By when, as `2026-12-31`
        #[arg(long, value_name = "DATE")]
        by: Option<String>,
        /// How severe the finding is: low, medium, high or critical
        #[arg(long, value_name = "SEVERITY", default_value = "medium")]
        severity: String,
        /// Stored experiment that proves the fix; the action closes only by a held run of it
        #[arg(long, value_name = "NAME")]
        experiment: Option<String>,
        /// Run or game day that the action came of
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
    },
    /// Change an open action
    #[command(arg_required_else_help = true)]
    Change {
        /// Number of the action
        id: u64,
        /// What will be done
        #[arg(long, value_name = "TEXT")]
        title: Option<String>,
        /// Name of the person who does it
        #[arg(long, value_name = "NAME")]
        owner: Option<String>,
        /// By when, as `2026-12-31`
        #[arg(long, value_name = "DATE")]
        by: Option<String>,
        /// How severe the finding is: low, medium, high or critical
        #[arg(long, value_name = "SEVERITY")]
        severity: Option<String>,
    },
    /// Close an action; one that names an experiment requires a run of it that started after the action was added, and held
    Close {
        /// Number of the action
        id: u64,
        /// Run that proves the fix [default: the latest that does]
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
        /// Reason for the decision, shown to people
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
}

/// Runs `backburn actions` and prints what it answers.
pub(in crate::cli) fn main(command: &ActionsCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let resolved = |run: &Option<String>| match run {
        Some(run) => run_view::resolve(&client, run).map(Some),
        None => Ok(None),
    };
    match &command.action {
        None => list(command, client.get("/api/v1/actions")?),
        Some(ActionsSubcommand::Add {
            title,
            owner,
            by,
            severity,
            experiment,
            run,
        }) => {
            let request = NewActionRequest {
                title: title.clone(),
                owner: owner.clone(),
                due: by.clone(),
                severity: Some(severity.clone()),
                experiment: experiment.clone(),
                run: resolved(run)?,
            };
            let added: ActionInfo = client.post("/api/v1/actions", &request)?;
            print(&format!("{}\n", added.id));
        }
        Some(ActionsSubcommand::Change {
            id,
            title,
            owner,
            by,
            severity,
        }) => {
            let request = ChangeActionRequest {
                title: title.clone(),
                owner: owner.clone(),
                due: by.clone(),
                severity: severity.clone(),
            };
            let path = format!("/api/v1/actions/{id}");
            let _changed: ActionInfo = client.patch(&path, &request)?;
        }
        Some(ActionsSubcommand::Close { id, run, why }) => {
            let request = CloseActionRequest {
                run: resolved(run)?,
                why: why.clone(),
            };
            let path = format!("/api/v1/actions/{id}/close");
            let closed: ActionInfo = client.post(&path, &request)?;
            let proof = closed
                .proved_by
                .map(|run| format!(": its experiment held in run {}", escape(&run)));
            print_stderr(&format!(
                "action {id} is closed{}\n",
                proof.unwrap_or_default()
            ));
        }
    }
    Ok(0)
}

fn list(command: &ActionsCommand, mut actions: Vec<ActionInfo>) {
    actions.retain(|action| command.all || action.state != "closed");
    if command.json {
        return print_json(&actions);
    }
    if command.csv {
        return print(&csv(&actions));
    }
    let row = |action: &ActionInfo| {
        [
            action.id.to_string(),
            action.state.clone(),
            action.due.clone().unwrap_or_default(),
            action.severity.clone(),
            action.owner.clone(),
            action.experiment.clone().unwrap_or_default(),
            action.title.clone(),
        ]
    };
    print_table(
        [
            "ID",
            "STATE",
            "BY",
            "SEVERITY",
            "OWNER",
            "PROVED BY",
            "TITLE",
        ],
        actions.iter().map(row),
        "there are no open actions\nhint: `backburn actions add TITLE --owner NAME` adds one, `--all` lists closed ones",
    );
    for action in &actions {
        let (id, proof, proposed) = (action.id, &action.proof, &action.proposed);
        if let Some(run) = proof {
            let run = escape(run);
            print_stderr(&format!(
                "hint: run {run} proves the fix of action {id}: `backburn actions close {id}` closes it\n"
            ));
        }
        if let Some(experiment) = proposed {
            let experiment = escape(experiment);
            print_stderr(&format!(
                "hint: action {id} is past its date: `backburn run {experiment} --wait` shows whether it is mended\n"
            ));
        }
    }
}

/// The list as CSV (RFC 4180). A text that a spreadsheet would take for a formula begins with an apostrophe.
fn csv(actions: &[ActionInfo]) -> String {
    let mut out = format!("{CSV_HEAD}\r\n");
    for action in actions {
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        let cells = [
            action.id.to_string(),
            action.state.clone(),
            or_empty(&action.due),
            action.severity.clone(),
            action.owner.clone(),
            action.title.clone(),
            or_empty(&action.experiment),
            or_empty(&action.run),
            action.at.clone(),
            or_empty(&action.closed),
            or_empty(&action.proved_by),
            or_empty(&action.why),
        ];
        let cells: Vec<String> = cells.iter().map(|cell| csv_cell(cell)).collect();
        out.push_str(&cells.join(","));
        out.push_str("\r\n");
    }
    out
}

fn csv_cell(text: &str) -> String {
    let text = escape(text);
    let guard = match text.starts_with(['=', '+', '-', '@']) {
        true => "'",
        false => "",
    };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cell_is_quoted_and_never_a_formula() {
        for (text, cell) in [
            ("plain", "\"plain\""),
            ("a,\"b\"", "\"a,\"\"b\"\"\""),
            ("=HYPERLINK(1)", "\"'=HYPERLINK(1)\""),
            ("two\nlines", "\"two\\nlines\""),
        ] {
            assert_eq!(csv_cell(text), cell);
        }
    }
}
