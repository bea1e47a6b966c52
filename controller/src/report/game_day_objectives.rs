//! What a game day wanted, beside what was measured: the times by people's marks, and the figures of each run.

use super::game_day_model::GameDayStepReport;
use super::model::{Objective, RunReport, TimelineItem, outage_seconds};
use super::summary::{DETECTED_BY_PEOPLE, MITIGATED, length};
use super::timeline::first_mark;
use backburn_experiments::HumanDuration;
use backburn_experiments::confidence::percent;
use backburn_experiments::game_day::{GameDay, GameDayMode, GameDayObjectives};
use jiff::Timestamp;

/// What nobody marked.
const UNMARKED: &str = "nobody marked it";

/// The time of a step that its marks belong to, in seconds since the game day began.
#[derive(Clone, Copy)]
struct StepSpan {
    /// When the fault had been injected, or the step began where nothing is injected.
    from: f64,
    /// When the next step began; marks from then on are about that one.
    until: f64,
}

/// All objectives, by step.
pub(super) fn objectives(
    day: &GameDay,
    mode: GameDayMode,
    steps: &[GameDayStepReport],
    timeline: &[TimelineItem],
    begun: Option<Timestamp>,
) -> Vec<Objective> {
    let wanted = day.objectives.clone().unwrap_or_default();
    let (mut all, mut hurt, mut runs) = (Vec::new(), 0.0, 0);
    for (index, step) in steps.iter().enumerate() {
        let Some(started) = step.from else { continue };
        let later = steps.get(index + 1..).unwrap_or_default();
        let until = later.iter().find_map(|step| step.from);
        let until = until.unwrap_or(f64::INFINITY);
        match &step.report {
            Some(report) => {
                hurt += outage_seconds(&report.verdict);
                runs += 1;
                // The journal's clock starts with the run.
                let run = begun.zip(report.started);
                let run = run.map_or(started, |(begun, at)| {
                    at.duration_since(begun).as_secs_f64()
                });
                let fault = first_fault(report).map(|after| run + after);
                let span = fault.map(|from| StepSpan { from, until });
                all.extend(of_run(&wanted, step.number, report, span, timeline));
            }
            None => {
                let span = StepSpan {
                    from: started,
                    until,
                };
                let is_asked = mode == GameDayMode::Tabletop && step.experiment.is_some();
                all.extend(of_talk(&wanted, step.number, span, is_asked, timeline));
            }
        }
    }
    if runs > 1 {
        all.push(Objective {
            name: "time out of tolerance, all steps".into(),
            wanted: None,
            measured: length(hurt),
            seconds: Some(hurt),
            met: None,
        });
    }
    all
}

/// When the first fault of a run had been injected, in seconds since the run started.
fn first_fault(report: &RunReport) -> Option<f64> {
    let hits = report.hits.iter();
    hits.filter_map(|hit| hit.from).min_by(f64::total_cmp)
}

/// The objectives of a step with a run. Without a span no fault was injected, and there was nothing to notice.
fn of_run(
    wanted: &GameDayObjectives,
    number: u32,
    report: &RunReport,
    span: Option<StepSpan>,
    timeline: &[TimelineItem],
) -> Vec<Objective> {
    let mut all = Vec::new();
    for (name, mark, within) in [
        (DETECTED_BY_PEOPLE, "detected", wanted.detect_within),
        (MITIGATED, "mitigated", wanted.mitigate_within),
    ] {
        all.push(match span {
            Some(span) => by_mark(name, mark, within, span, timeline),
            None => unmeasured(name, within, "no fault was injected"),
        });
    }
    all.push(recovery(wanted.recover_within, report, span, timeline));
    all.push(budget(wanted.error_budget.as_deref(), report));
    // The figures of the run by itself; its marks are those above.
    let own = report.objectives.iter();
    let own = own.filter(|own| ![DETECTED_BY_PEOPLE, MITIGATED].contains(&own.name.as_str()));
    all.extend(own.cloned());
    for objective in &mut all {
        objective.name = format!("step {number}: {}", objective.name);
    }
    all
}

/// The objectives of a step in which nothing was injected, from its start. What is not asked is listed if it was marked.
fn of_talk(
    wanted: &GameDayObjectives,
    number: u32,
    span: StepSpan,
    is_asked: bool,
    timeline: &[TimelineItem],
) -> Vec<Objective> {
    let marks = [
        (
            "time to detect, in the exercise",
            "detected",
            wanted.detect_within,
        ),
        (
            "time to mitigate, in the exercise",
            "mitigated",
            wanted.mitigate_within,
        ),
        (
            "time to recover, in the exercise",
            "recovered",
            wanted.recover_within,
        ),
    ];
    let all = marks.map(|(name, mark, within)| {
        let name = format!("step {number}: {name}");
        by_mark(&name, mark, within.filter(|_| is_asked), span, timeline)
    });
    let mut all = all.to_vec();
    all.retain(|objective| objective.wanted.is_some() || objective.seconds.is_some());
    all
}

fn within_text(within: Option<HumanDuration>) -> Option<String> {
    within.map(|within| format!("within {within}"))
}

fn unmeasured(name: &str, within: Option<HumanDuration>, why: &str) -> Objective {
    Objective {
        name: name.to_owned(),
        wanted: within_text(within),
        measured: why.to_owned(),
        seconds: None,
        met: None,
    }
}

/// The time to the first mark of this name, and who set it. What was wanted and not marked is missed.
fn by_mark(
    name: &str,
    mark: &str,
    within: Option<HumanDuration>,
    span: StepSpan,
    timeline: &[TimelineItem],
) -> Objective {
    let found = first_mark(timeline, mark, span.from).filter(|item| item.seconds < span.until);
    let seconds = found.map(|item| item.seconds - span.from);
    let who = found.and_then(|item| item.who.as_deref());
    let who = who.map_or(String::new(), |who| format!(", marked by {who}"));
    Objective {
        name: name.to_owned(),
        wanted: within_text(within),
        measured: match seconds {
            Some(seconds) => format!("{}{who}", length(seconds)),
            None => UNMARKED.to_owned(),
        },
        seconds,
        met: within.map(|within| seconds.is_some_and(|took| took <= within.0.as_secs_f64())),
    }
}

/// The time from the fault until the hypothesis held again: by the probes, or by a mark where nothing was measured.
fn recovery(
    within: Option<HumanDuration>,
    report: &RunReport,
    span: Option<StepSpan>,
    timeline: &[TimelineItem],
) -> Objective {
    let name = "time to recover, from the fault";
    let (Some(span), Some(fault)) = (span, first_fault(report)) else {
        return unmeasured(name, within, "no fault was injected");
    };
    if report.plots.iter().all(|plot| !plot.hypothesis) {
        return by_mark(name, "recovered", within, span, timeline);
    }
    let outages = report.verdict.outages.iter().map(|(_, outage)| outage);
    let outages: Vec<_> = outages.filter(|outage| outage.until >= fault).collect();
    let last = outages
        .iter()
        .map(|outage| outage.until)
        .max_by(f64::total_cmp);
    let (seconds, measured) = match last {
        None => (Some(0.0), "nothing was out of tolerance".to_owned()),
        Some(_) if outages.iter().any(|outage| !outage.over) => {
            (None, "not seen to recover".to_owned())
        }
        Some(last) => (Some(last - fault), length(last - fault)),
    };
    Objective {
        name: name.to_owned(),
        wanted: within_text(within),
        measured,
        seconds,
        met: within.map(|within| seconds.is_some_and(|took| took <= within.0.as_secs_f64())),
    }
}

/// The part of the checks that failed, beside the error budget.
fn budget(wanted: Option<&str>, report: &RunReport) -> Objective {
    let probes = report.plots.iter().filter(|plot| plot.hypothesis);
    let (checks, failed) = probes.fold((0, 0), |(checks, failed), plot| {
        (checks + plot.samples - plot.unknown, failed + plot.outside)
    });
    let share = (checks > 0).then(|| failed as f64 / checks as f64);
    let budget = wanted.and_then(|text| text.trim_end_matches('%').parse::<f64>().ok());
    Objective {
        name: "error budget spent".into(),
        wanted: wanted.map(|text| format!("at most {text} of the checks")),
        measured: match share {
            Some(share) => format!("{failed} of {checks} checks failed ({})", percent(share)),
            None => "no check counts".into(),
        },
        seconds: None,
        met: budget
            .zip(share)
            .map(|(budget, share)| share * 100.0 <= budget),
    }
}
