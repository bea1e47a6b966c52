//! `backburn coverage`: which faults services have been shown to survive.

use super::super::table::{print_table, to_the_second};
use super::super::{CommandFailure, print, print_json, print_stderr};
use super::ControllerOptions;
use backburn::api::types::CoverageInfo;
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::terminal_text::escape;
use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct CoverageCommand {
    /// Show only this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// Key of the label whose values are services
    #[arg(long, value_name = "KEY", default_value = "service")]
    label: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Print a badge of the service in SVG
    #[arg(long, requires = "service", conflicts_with = "json")]
    badge: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn coverage` and prints what it answers.
pub(in crate::cli) fn coverage(command: &CoverageCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let label = percent_encoded(&command.label);
    if let Some(service) = command.service.as_ref().filter(|_| command.badge) {
        let service = percent_encoded(service);
        let path = format!("/api/v1/coverage/badge?label={label}&service={service}");
        print(&client.get_text(&path)?);
        return Ok(0);
    }
    let mut known: Vec<CoverageInfo> = client.get(&format!("/api/v1/coverage?label={label}"))?;
    if let Some(service) = &command.service {
        known.retain(|one| one.service == *service);
    }
    if command.json {
        print_json(&known);
        return Ok(0);
    }
    let rows = known.iter().flat_map(|one| {
        one.tried.iter().map(|fault| {
            let (shown, run, at) = match (fault.survived, &fault.deviated_in) {
                (true, _) => ("survived", &fault.held_in, &fault.held_at),
                (false, Some(_)) => ("deviated", &fault.deviated_in, &fault.deviated_at),
                (false, None) => ("not known", &None, &None),
            };
            let trust = match fault.survived {
                true => format!("{:.0} %", fault.trust * 100.0),
                false => String::new(),
            };
            [
                one.service.clone(),
                fault.fault.clone(),
                shown.to_owned(),
                trust,
                at.as_deref().map(to_the_second).unwrap_or_default(),
                run.clone().unwrap_or_default(),
            ]
        })
    });
    let empty = format!(
        "no fault was seen to act on an agent with the label `{0}`\nhint: an admin grants labels with `backburn agents label NAME {0}=VALUE`; `--label KEY` uses another label",
        escape(&command.label)
    );
    print_table(
        ["SERVICE", "FAULT", "SHOWN", "TRUST", "LAST", "RUN"],
        rows,
        &empty,
    );
    for one in known.iter().filter(|one| !one.never.is_empty()) {
        print_stderr(&format!(
            "never tried on {}: {}\n",
            escape(&one.service),
            escape(&one.never.join(", "))
        ));
    }
    Ok(0)
}
