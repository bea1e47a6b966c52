//! Runs that wait for approval: listing, showing, approving, rejecting and withdrawing them.

use super::super::plan_view::format_plan;
use super::super::table::{print_table, to_the_second};
use super::super::{CommandFailure, print, print_json, print_stderr, runtime};
use super::ControllerOptions;
use backburn::api::types::{ApprovalInfo, ApprovedRun, RejectRequest};
use backburn_experiments::terminal_text::escaped;
use clap::Args;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;

/// The most agents that a line of the list names.
const MAX_LISTED_AGENTS: usize = 3;
/// How many digits of a plan's fingerprint are shown.
const SHOWN_FINGERPRINT_DIGITS: usize = 16;

#[derive(Debug, Args)]
pub(in crate::cli) struct ApprovalsCommand {
    /// Show only this run, with everything that it would do
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn approvals`.
pub(in crate::cli) fn approvals(command: &ApprovalsCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    if let Some(id) = &command.id {
        let approval: ApprovalInfo = client.get(&format!("/api/v1/approvals/{id}"))?;
        match command.json {
            true => print_json(&approval),
            false => print(&format_approval(&approval)),
        }
        return Ok(0);
    }
    let approvals: Vec<ApprovalInfo> = client.get("/api/v1/approvals")?;
    if command.json {
        print_json(&approvals);
        return Ok(0);
    }
    let row = |approval: ApprovalInfo| {
        let does = summary(&approval);
        [
            approval.id,
            format!("{} version {}", approval.experiment, approval.version),
            approval.who,
            approval.rule,
            does,
            to_the_second(&approval.at),
            to_the_second(&approval.expires),
        ]
    };
    print_table(
        [
            "RUN",
            "EXPERIMENT",
            "WHO",
            "RULE",
            "PLAN",
            "REQUESTED",
            "EXPIRES",
        ],
        approvals.into_iter().map(row),
        "no runs wait for approval",
    );
    Ok(0)
}

/// What a waiting run would do, in a few words.
fn summary(approval: &ApprovalInfo) -> String {
    let Some(plan) = &approval.plan else {
        return "unknown".into();
    };
    let faults: BTreeSet<&str> = (plan.injections.iter())
        .map(|injection| injection.fault.as_str())
        .collect();
    let faults: Vec<&str> = faults.into_iter().collect();
    let agents = match plan.agents.len() {
        count if count > MAX_LISTED_AGENTS => format!("{count} agents"),
        _ => plan.agents.join(", "),
    };
    format!("{} on {agents}", faults.join(", "))
}

/// Everything about a waiting run.
fn format_approval(approval: &ApprovalInfo) -> String {
    let shown = escaped(approval);
    let approval = shown.as_ref().unwrap_or(approval);
    let ApprovalInfo {
        id,
        experiment,
        version,
        who,
        person,
        at,
        expires,
        rule,
        ..
    } = approval;
    let person = match person == who {
        true => String::new(),
        false => format!(" ({person})"),
    };
    let mut out = format!(
        "run {id} waits for approval\n  experiment {experiment}, version {version}\n  requested by {who}{person} at {at}, expires at {expires}\n  rule {rule}\n"
    );
    // Writing to a string cannot fail.
    for (name, value) in &approval.variables {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        writeln!(out, "  variable {name} = {value}").ok();
    }
    out.push('\n');
    match &approval.plan {
        Some(plan) => out.push_str(&format_plan(plan)),
        None => out.push_str(
            "its plan is not known: it was requested before the controller was upgraded\n",
        ),
    }
    if let Some(fingerprint) = &approval.fingerprint {
        let digits = fingerprint
            .get(..SHOWN_FINGERPRINT_DIGITS)
            .unwrap_or(fingerprint);
        writeln!(
            out,
            "\nto approve exactly this: backburn approve {id} --plan {digits}"
        )
        .ok();
    }
    out
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ApproveCommand {
    /// Id of the run, as `backburn approvals` shows it
    #[arg(value_name = "ID")]
    id: String,
    /// Fingerprint of the plan that is approved, as `backburn approvals ID` shows it; a run with another plan is not started
    #[arg(long, value_name = "DIGITS", value_parser = fingerprint)]
    plan: Option<String>,
    #[command(flatten)]
    controller: ControllerOptions,
}

fn fingerprint(text: &str) -> Result<String, String> {
    let is_hash =
        (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_hash {
        true => Ok(text.to_ascii_lowercase()),
        false => {
            Err("expected 8 to 64 hexadecimal digits, as `backburn approvals ID` shows them".into())
        }
    }
}

/// Runs `backburn approve`.
pub(in crate::cli) fn approve(command: &ApproveCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let query = command.plan.as_ref().map(|plan| format!("?plan={plan}"));
    let path = format!(
        "/api/v1/approvals/{}{}",
        command.id,
        query.unwrap_or_default()
    );
    let started: ApprovedRun = runtime()?.block_on(client.request("POST", &path, None))?;
    print(&format!("{}\n", started.run));
    Ok(0)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RejectCommand {
    /// Id of the run, as `backburn approvals` shows it
    #[arg(value_name = "ID")]
    id: String,
    /// Reason for the rejection; it becomes part of the verdict
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn reject`.
pub(in crate::cli) fn reject(command: &RejectCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let path = format!("/api/v1/approvals/{}/reject", command.id);
    let request = RejectRequest {
        why: command.why.clone(),
    };
    let () = client.post(&path, &request)?;
    print_stderr("the run is rejected: it ends as not started\n");
    Ok(0)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WithdrawCommand {
    /// Id of the run, as `backburn approvals` shows it
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn withdraw`.
pub(in crate::cli) fn withdraw(command: &WithdrawCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let path = format!("/api/v1/approvals/{}/withdraw", command.id);
    let () = runtime()?.block_on(client.request("POST", &path, None))?;
    print_stderr("the run is withdrawn: it ends as not started\n");
    Ok(0)
}
