//! What commands print: data on standard output, everything else on standard error.

use super::CommandError;
use super::fault_flags::unknown_fault;
use crate::doctor::HostFinding;
use crate::exit_code;
use crate::faults::FAULTS;
use crate::plugin_call::PluginDeclaration;
use crate::plugins::InstalledPlugin;
use backburn_experiments::terminal_text::{escape, escaped, guard};
use backburn_experiments::text_table::format_table;
use backburn_experiments::wire::{
    EndedInjection, FaultDescription, PlanView, Report, UnrevertedInjection,
};
use serde::Serialize;
use serde_json::Value;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether something could not be printed.
static IS_OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// Prints text; what a terminal would obey is escaped, see [`guard`]. A closed pipe is no error; any other failure is reported once and changes the exit code.
pub(super) fn print(text: &str) {
    let mut stdout = std::io::stdout();
    let printed = stdout.write_all(guard(text).as_bytes());
    if let Err(error) = printed.and_then(|()| stdout.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
        && !IS_OUTPUT_LOST.swap(true, Ordering::Relaxed)
    {
        say!("error: standard output could not be written: {error}");
    }
}

/// Writes a line to standard error; what a terminal would obey is escaped, see [`guard`]. A failure to do so is ignored.
pub(super) fn print_stderr(text: &str) {
    let line = format!("{}\n", guard(text));
    std::io::stderr().lock().write_all(line.as_bytes()).ok();
}

/// Prints the help or the error of an invalid command line: help to standard output, an error to standard error.
pub(super) fn print_clap_error(error: &clap::Error) {
    let is_terminal = match error.use_stderr() {
        true => std::io::stderr().is_terminal(),
        false => std::io::stdout().is_terminal(),
    };
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let text = match is_terminal && !no_colour {
        true => error.render().ansi().to_string(),
        false => error.render().to_string(),
    };
    match error.use_stderr() {
        true => print_stderr(text.trim_end_matches('\n')),
        false => print(&text),
    }
}

/// The exit code of a command that ends with `code`: lost output is reported only if nothing worse happened.
pub(super) fn final_exit_code(code: u8) -> u8 {
    match code == 0 && IS_OUTPUT_LOST.load(Ordering::Relaxed) {
        true => exit_code::OUTPUT_LOST,
        false => code,
    }
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<u8, CommandError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CommandError::Invalid(error.to_string()))?;
    print(&(text + "\n"));
    Ok(0)
}

/// Lists the faults with those of plug-ins, or describes one.
pub(super) fn faults(
    name: Option<&str>,
    plugins: &[InstalledPlugin],
    as_json: bool,
) -> Result<u8, CommandError> {
    let built_in = FAULTS.iter().map(crate::faults::Fault::describe);
    let of_plugins = plugins.iter().filter_map(InstalledPlugin::declaration);
    let mut all = built_in.chain(of_plugins.map(PluginDeclaration::describe));
    let Some(name) = name else {
        let all: Vec<FaultDescription> = all.collect();
        for refusal in plugins.iter().filter_map(InstalledPlugin::refusal) {
            say!("{}", refusal.what);
        }
        if as_json {
            return json(&all);
        }
        let rows: Vec<[String; 2]> = all
            .iter()
            .map(|fault| [&fault.name, &fault.summary].map(|text| escape(text).into_owned()))
            .collect();
        print(&format_table(["FAULT", "WHAT IT DOES"], &rows));
        return Ok(0);
    };
    let Some(description) = all.find(|fault| fault.name == name) else {
        return Err(unknown_fault(name, plugins).into());
    };
    if as_json {
        return json(&description);
    }
    let ends = if description.one_shot {
        "one-shot"
    } else {
        "has a duration"
    };
    print(&format!(
        "{}: {} ({ends})\n\nArguments:\n",
        description.name,
        escape(&description.summary)
    ));
    schema_arguments(&description.schema, 1);
    print(&format!("\nExample:\n  {}\n", description.example));
    Ok(0)
}

fn schema_arguments(schema: &Value, depth: usize) {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (key, property) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let must = if required.contains(&key.as_str()) {
            " (required)"
        } else {
            ""
        };
        let text = property
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let indent = "  ".repeat(depth);
        let (key, text) = (escape(key), escape(text));
        print(&format!("{indent}{key}{must}: {text}\n"));
        schema_arguments(property, depth + 1);
    }
}

/// Prints a plan: victims, changes with their undo, warnings and notes.
pub(super) fn plan(plan: &PlanView, as_json: bool) -> Result<u8, CommandError> {
    if as_json {
        return json(plan);
    }
    print(&plan_text(plan));
    say!("nothing was changed");
    Ok(0)
}

fn plan_text(plan: &PlanView) -> String {
    let shown = escaped(plan);
    let plan = shown.as_ref().unwrap_or(plan);
    let mut text = String::new();
    for victim in &plan.victims {
        // What a plug-in holds is named with its kind.
        let prefix = format!("{}:", victim.kind);
        let name = victim.name.strip_prefix(&prefix).unwrap_or(&victim.name);
        text.push_str(&format!("victim  {} {name}\n", victim.kind));
    }
    for change in &plan.changes {
        text.push_str(&format!(
            "change  {}\n  undo           {}\n  if agent dies  {}\n",
            change.apply, change.undo, change.if_agent_dies
        ));
    }
    for warning in &plan.warnings {
        text.push_str(&format!("WARNING {warning}\n"));
    }
    for note in &plan.notes {
        text.push_str(&format!("note    {note}\n"));
    }
    text
}

/// Prints a report of an agent when it arrives. `revert` is the command that reverts what is owed.
pub(super) fn report(report: &Report, revert: &str) {
    let shown = escaped(report);
    let report = shown.as_ref().unwrap_or(report);
    match report {
        Report::Hello(hello) => {
            for ended in &hello.recovered {
                say!(
                    "reverted first, for an agent that died: {}",
                    ended.injection
                );
            }
            owed(&hello.owed, revert);
        }
        Report::Injected {
            injection, plan, ..
        } => {
            say!("injected {injection}");
            for warning in &plan.warnings {
                say!("WARNING {warning}");
            }
            say!("{}", plan_text(plan).trim_end());
        }
        Report::Refused { refusal, .. } => say!("error: {refusal}"),
        Report::Effect { effect, .. } => say!("{}", effect.seen),
        Report::Ended(ended) => print(&ended_text(ended)),
        Report::AbortRuleTriggered { rule, seen, .. } => {
            say!("ended by rule `{rule}`: {seen}")
        }
        Report::HeartbeatAnswer
        | Report::AllReverted { .. }
        | Report::Planned { .. }
        | Report::Measured { .. }
        | Report::Probed { .. }
        | Report::Described { .. } => {}
    }
}

fn ended_text(ended: &EndedInjection) -> String {
    let shown = escaped(ended);
    let ended = shown.as_ref().unwrap_or(ended);
    let seen = ended
        .effect
        .as_ref()
        .map(|effect| match effect.acts {
            true => format!(" ({})", effect.seen),
            false => format!(" (no effect at its end: {})", effect.seen),
        })
        .unwrap_or_default();
    if ended.clean {
        format!("{} reverted in {}{seen}\n", ended.injection, ended.took)
    } else {
        format!(
            "{} is NOT reverted: {}{seen}\n",
            ended.injection,
            ended.residue.join("; ")
        )
    }
}

/// Prints how reverting by hand ended.
pub(super) fn reverted(
    ended: &[EndedInjection],
    owed: &[UnrevertedInjection],
    as_json: bool,
) -> Result<u8, CommandError> {
    if as_json {
        return json(&ended);
    }
    if ended.is_empty() && owed.is_empty() {
        say!("nothing was owed");
    }
    for end in ended {
        print(&ended_text(end));
    }
    Ok(0)
}

/// Prints what could not be reverted. `revert` is the command that tries again.
pub(super) fn owed(owed: &[UnrevertedInjection], revert: &str) {
    for owed in owed {
        say!(
            "error: {} ({}) is not reverted: {}",
            escape(&owed.injection),
            escape(&owed.fault),
            escape(&owed.residue.join("; "))
        );
    }
    if !owed.is_empty() {
        say!("hint: fix what the message names, then run `{revert}` on this host");
    }
}

/// Prints what this host supports.
pub(super) fn doctor(findings: &[HostFinding], as_json: bool) -> Result<u8, CommandError> {
    if as_json {
        return json(&findings);
    }
    for finding in findings {
        print(&format!("{finding}\n"));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOSTILE: &str = "\u{1b}[2J\nheld\u{202e}\u{9b}";

    #[test]
    fn plan_and_end_with_hostile_text_are_shown_line_by_line() {
        let plan: PlanView = serde_json::from_value(json!({
            "victims": [{"kind": "process", "id": "1@1", "name": HOSTILE}],
            "changes": [{"kind": "k", "apply": HOSTILE, "undo": HOSTILE, "if_we_die": HOSTILE}],
            "warnings": [HOSTILE], "notes": [HOSTILE]}))
        .unwrap();
        let ended: EndedInjection = serde_json::from_value(json!({
            "injection": "i", "cause": "done", "clean": false, "took": "1s", "residue": [HOSTILE]}))
        .unwrap();
        let shown = plan_text(&plan) + &ended_text(&ended);
        let escaped = "\\u001b[2J\\nheld\\u202e\\u009b";
        assert_eq!(shown.matches(escaped).count(), 7, "{shown}");
        assert_eq!(shown.lines().count(), 7, "{shown}");
        assert!(!shown.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{shown}");
    }
}
