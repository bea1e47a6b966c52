//! A run as a JUnit report: a test for each probe of the hypothesis, for each activity, for the revert and for the verdict, each
//! with the time when it began and how long it took. What XML cannot hold is replaced.

use super::super::completed_run::CompletedRun;
use super::junit_xml::{TestCase, TestStatus, TestSuite};
use super::{ExperimentEnding, ExperimentResult};
use backburn_experiments::journal::{
    Abort, ActivityStatus, Event, JournalEntry, Judgement, Outcome, Phase, Run,
};
use jiff::Timestamp;
use std::time::Duration;

/// The suite of tests that an experiment is in a report.
pub(super) fn suite(result: &ExperimentResult) -> TestSuite {
    let status = match &result.ending {
        ExperimentEnding::Finished(completed) => return of_run(completed),
        ExperimentEnding::Failed(failure) => TestStatus::Error(failure.message.clone()),
        ExperimentEnding::Skipped(_) => TestStatus::Skipped,
    };
    let mut verdict = case("verdict", &result.word(), status, None, Duration::ZERO);
    if let ExperimentEnding::Skipped(why) = &result.ending {
        verdict.output.clone_from(why);
    }
    TestSuite {
        name: result.title(),
        properties: vec![("file", result.file.display().to_string())],
        cases: vec![verdict],
        ..TestSuite::default()
    }
}

/// The suite of a run that is over.
fn of_run(completed: &CompletedRun) -> TestSuite {
    let CompletedRun {
        title,
        finished,
        entries,
        ..
    } = completed;
    let (run, verdict) = (&finished.run, &finished.verdict);
    let mut suite = TestSuite {
        name: title.clone(),
        properties: vec![
            ("run", run.id.clone()),
            ("seed", run.seed.to_string()),
            ("outcome", verdict.outcome.to_string()),
        ],
        ..TestSuite::default()
    };
    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
        suite.timestamp = Some(timestamp(first.at));
        suite.time = Some(Duration::try_from_secs_f64(last.elapsed).unwrap_or_default());
    }
    for (name, probe) in &run.probes {
        let why = probe.why.as_deref().unwrap_or("out of tolerance");
        let outside = probe.before.outside + probe.during.outside + probe.after.outside;
        let unknown = probe.before.unknown + probe.during.unknown + probe.after.unknown;
        let within = probe.before.within + probe.during.within + probe.after.within;
        let status = if outside > 0 {
            failed(format!(
                "{outside} of {} samples: {why}",
                outside + unknown + within
            ))
        } else if unknown > 0 {
            TestStatus::Error(why.to_owned())
        } else if within == 0 {
            TestStatus::Skipped
        } else {
            TestStatus::Passed
        };
        let samples = entries.iter().filter_map(|entry| match &entry.event {
            Event::Sampled { probe, took, .. } if probe == name => Some((entry.at, took.0)),
            _ => None,
        });
        let took = samples.clone().map(|(_, took)| took).sum();
        let began = samples.map(|(at, _)| at).next();
        let mut case = case("hypothesis", name, status, began, took);
        if let Some(looks) = verdict.probes.iter().find(|looks| looks.probe == *name) {
            case.output = looks.to_string();
        }
        suite.cases.push(case);
    }
    for entry in entries {
        let Event::ActivityFinished {
            phase,
            index,
            activity,
            status,
            why,
            judgement,
            took,
            ..
        } = &entry.event
        else {
            continue;
        };
        let why = why.as_deref().unwrap_or("it ended with the run");
        let abort = aborted_by(run, *status);
        let status = match (status, judgement) {
            (ActivityStatus::Succeeded, None | Some(Judgement::Within)) => TestStatus::Passed,
            (_, Some(Judgement::Outside)) => failed(why.to_owned()),
            (ActivityStatus::Aborted, _) => match abort {
                Some(Abort { rule, reason, .. }) => TestStatus::Failed {
                    why: format!("ended by abort rule `{rule}`: {reason}"),
                    rule: Some(rule.clone()),
                },
                // It ran in the background, and the method was over before it.
                None => TestStatus::Skipped,
            },
            _ => TestStatus::Error(why.to_owned()),
        };
        let began = entries.iter().find_map(|entry| match &entry.event {
            Event::ActivityStarted {
                phase: in_phase,
                index: at,
                ..
            } if (in_phase, at) == (phase, index) => Some(entry.at),
            _ => None,
        });
        suite
            .cases
            .push(case("method", activity, status, began, took.0));
    }
    let clean = if verdict.owed.is_empty() {
        TestStatus::Passed
    } else {
        let residue: Vec<String> = verdict
            .owed
            .iter()
            .map(|owed| format!("{}: {}", owed.injection, owed.residue.join("; ")))
            .chain(verdict.hint.as_ref().map(|hint| format!("hint: {hint}")))
            .collect();
        failed(residue.join("\n"))
    };
    let (began, took) = revert_time(entries);
    suite.cases.push(case(
        "revert",
        "every injection is reverted",
        clean,
        began,
        took,
    ));
    let reasons = verdict.reasons.join("\n");
    let outcome = match verdict.outcome {
        Outcome::Held => TestStatus::Passed,
        Outcome::Deviated | Outcome::NotClean => failed(reasons),
        _ => TestStatus::Error(reasons),
    };
    let ended = entries.last().map(|entry| entry.at);
    let name = verdict.outcome.to_string();
    let mut case = case("verdict", &name, outcome, ended, Duration::ZERO);
    if !verdict.notes.is_empty() {
        case.output = verdict.notes.join("\n");
    }
    suite.cases.push(case);
    suite
}

fn case(
    class: &'static str,
    name: &str,
    status: TestStatus,
    began: Option<Timestamp>,
    took: Duration,
) -> TestCase {
    TestCase {
        class,
        name: name.to_owned(),
        status,
        time: took,
        timestamp: began.map(timestamp),
        output: String::new(),
    }
}

/// The abort that ended an activity, if one did.
fn aborted_by(run: &Run, status: ActivityStatus) -> Option<&Abort> {
    match status {
        ActivityStatus::Aborted => run.aborts.first(),
        ActivityStatus::Succeeded | ActivityStatus::Failed => None,
    }
}

/// When the revert phase began, and how long it took.
fn revert_time(entries: &[JournalEntry]) -> (Option<Timestamp>, Duration) {
    let is_revert = |entry: &&JournalEntry| {
        let phase = Phase::Revert;
        entry.event == Event::PhaseStarted { phase }
    };
    let Some(began) = entries.iter().find(is_revert) else {
        return (None, Duration::ZERO);
    };
    let ends = |entry: &&JournalEntry| {
        let is_over = matches!(entry.event, Event::PhaseStarted { .. } | Event::RunEnded);
        is_over && entry.elapsed >= began.elapsed && entry.event != began.event
    };
    let took = entries
        .iter()
        .find(ends)
        .map_or(0.0, |end| end.elapsed - began.elapsed);
    let took = Duration::try_from_secs_f64(took).unwrap_or_default();
    (Some(began.at), took)
}

/// A time as the JUnit schema has it (ISO 8601), to the millisecond.
fn timestamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn failed(why: String) -> TestStatus {
    TestStatus::Failed { why, rule: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::super::junit_xml::document;
    use super::*;
    use backburn::runner::FinishedRun;
    use backburn_experiments::journal::verdict;
    use serde_json::{Value, json};

    fn report(title: &str, finished: &FinishedRun, entries: &[JournalEntry]) -> String {
        let completed = CompletedRun {
            title: title.to_owned(),
            finished: finished.clone(),
            entries: entries.to_vec(),
            journal: None,
        };
        document("backburn", &[of_run(&completed)])
    }

    /// A journal of these events, a second apart.
    fn journal(events: &[Value]) -> (FinishedRun, Vec<JournalEntry>) {
        let mut run = Run::default();
        let mut entries: Vec<JournalEntry> = Vec::new();
        for (number, event) in events.iter().enumerate() {
            let mut line =
                json!({"at": format!("2026-11-26T08:00:{number:02}.5Z"), "elapsed": number});
            line.as_object_mut()
                .unwrap()
                .extend(event.as_object().unwrap().clone());
            let entry: JournalEntry = serde_json::from_value(line).unwrap();
            run.apply(&entry).unwrap();
            entries.push(entry);
        }
        let verdict = verdict(&run);
        (
            FinishedRun {
                run,
                verdict,
                illegal: None,
            },
            entries,
        )
    }

    fn aborted_run() -> (FinishedRun, Vec<JournalEntry>) {
        journal(&[
            json!({"event": "run-started", "run": "r1", "title": "t", "seed": 1, "version": "1", "hypothesis": ["answers"],
                   "looks": {"before": true, "during": true, "after": true}}),
            json!({"event": "phase-started", "phase": "gate"}),
            json!({"event": "sampled", "phase": "gate", "probe": "answers", "hypothesis": true, "judgement": "within",
                   "output": "x\u{0}\u{1b}[2J", "took": "250ms"}),
            json!({"event": "phase-started", "phase": "method"}),
            json!({"event": "activity-started", "activity": "slow\u{1b} down", "phase": "method", "index": 0, "background": false}),
            json!({"event": "aborted", "by": "probe", "rule": "errors", "reason": "5 % > 1 %\u{0}"}),
            json!({"event": "activity-finished", "activity": "slow\u{1b} down", "phase": "method", "index": 0, "status": "aborted", "took": "2s"}),
            json!({"event": "phase-started", "phase": "revert"}),
            json!({"event": "run-ended"}),
        ])
    }

    #[test]
    fn junit_times_of_suite_and_cases_are_given() {
        let (finished, entries) = aborted_run();
        let xml = report("t", &finished, &entries);
        for wanted in [
            r#"timestamp="2026-11-26T08:00:00.500Z""#,
            r#"name="answers" classname="hypothesis" time="0.250" timestamp="2026-11-26T08:00:02.500Z""#,
            r#"classname="method" time="2.000" timestamp="2026-11-26T08:00:04.500Z""#,
            r#"classname="revert" time="1.000" timestamp="2026-11-26T08:00:07.500Z""#,
            r#"classname="verdict" time="0.000" timestamp="2026-11-26T08:00:08.500Z""#,
        ] {
            assert!(xml.contains(wanted), "{wanted}\n{xml}");
        }
        assert!(xml.contains(r#"time="8.000""#), "{xml}");
    }

    #[test]
    fn junit_action_ended_by_abort_is_failure_with_the_rule() {
        let (finished, entries) = aborted_run();
        let xml = report("t", &finished, &entries);
        let wanted = "<failure message=\"ended by abort rule `errors`: 5 % &gt; 1 %\u{fffd}\" type=\"errors\"";
        assert!(xml.contains(wanted), "{xml}");
        assert!(!xml.contains("<skipped"), "{xml}");
    }

    #[test]
    fn junit_forbidden_characters_are_replaced() {
        let (finished, entries) = aborted_run();
        let xml = report(
            "a\u{0}b\u{1b}[31m ]]> \u{ffff}\u{202e}",
            &finished,
            &entries,
        );
        let wanted = "name=\"a\u{fffd}b\u{fffd}[31m ]]&gt; \u{fffd}\\u202e\"";
        assert!(xml.contains(wanted), "{xml}");
        assert!(xml.contains("slow\u{fffd} down"), "{xml}");
        let is_forbidden = |c: char| c < ' ' && !matches!(c, '\n' | '\t');
        assert!(!xml.chars().any(is_forbidden), "{xml}");
    }
}
