//! A plan for people: what a run would hit, do and undo.

use super::print_stderr;
use backburn::api::types::RunPlan;
use backburn_experiments::terminal_text::escaped;
use backburn_experiments::wire::{PlanView, Refusal};
use std::fmt::Write;

/// Formats a plan; its warnings go to stderr.
pub(super) fn format_plan(plan: &RunPlan) -> String {
    let shown = escaped(plan);
    let plan = shown.as_ref().unwrap_or(plan);
    let mut out = format!("{}\n", plan.title);
    for warning in &plan.warnings {
        print_stderr(&format!("warning: {warning}\n"));
    }
    // Writing to a string cannot fail.
    for looks in plan.looks.iter().filter(|looks| looks.samples > 0) {
        writeln!(out, "  probe `{}`: {looks}", looks.probe).ok();
    }
    for problem in &plan.missing {
        writeln!(
            out,
            "  refused: {}: {} (rule: missing)",
            problem.at, problem.what
        )
        .ok();
        if let Some(hint) = &problem.hint {
            writeln!(out, "  hint: {hint}").ok();
        }
    }
    if plan.agents.is_empty() {
        return out + "  the method injects no faults: no agent takes part\n";
    }
    writeln!(out, "  on {}, seed {}", plan.agents.join(", "), plan.seed).ok();
    for injection in &plan.injections {
        let length = injection
            .duration
            .map(|duration| format!(" for {duration}"))
            .unwrap_or_default();
        let on = match plan.agents.len() {
            0 | 1 => String::new(),
            _ => format!(" on {}", injection.agent),
        };
        writeln!(
            out,
            "\n{}: {}{length}{on}",
            injection.activity, injection.fault
        )
        .ok();
        match (&injection.plan, &injection.refusal) {
            (Some(own), _) => out.push_str(&format_injection_plan(own)),
            (None, Some(refusal)) => out.push_str(&format_refusal(refusal)),
            (None, None) => {}
        }
    }
    out
}

/// Formats the plan of one injection.
fn format_injection_plan(plan: &PlanView) -> String {
    let mut out = String::new();
    for victim in &plan.victims {
        writeln!(out, "  hits {}: {}", victim.kind, victim.name).ok();
    }
    for change in &plan.changes {
        writeln!(out, "  does:              {}", change.apply).ok();
        writeln!(out, "  undo:              {}", change.undo).ok();
        writeln!(out, "  if the agent dies: {}", change.if_agent_dies).ok();
    }
    for warning in &plan.warnings {
        writeln!(out, "  WARNING: {warning}").ok();
    }
    for note in &plan.notes {
        writeln!(out, "  note: {note}").ok();
    }
    out
}

/// Formats the refusal of one injection.
fn format_refusal(refusal: &Refusal) -> String {
    let text = refusal.to_string();
    text.lines()
        .enumerate()
        .fold(String::new(), |mut out, (number, line)| {
            let lead = if number == 0 { "refused: " } else { "" };
            writeln!(out, "  {lead}{line}").ok();
            out
        })
}
