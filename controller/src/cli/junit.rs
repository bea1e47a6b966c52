//! A run as a JUnit report: a test for each probe of the hypothesis, for each activity, for the revert and for the verdict.

use backburn::runner::FinishedRun;
use backburn_experiments::journal::{ActivityStatus, Event, JournalEntry, Judgement, Outcome};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

/// The report as XML.
pub(super) fn report(title: &str, finished: &FinishedRun, entries: &[JournalEntry]) -> String {
    let (run, verdict) = (&finished.run, &finished.verdict);
    let mut suite = TestSuite::new(title);
    suite.add_property(("run", run.id.as_str()));
    suite.add_property(("seed", run.seed.to_string().as_str()));
    suite.add_property(("outcome", verdict.outcome.to_string().as_str()));
    for (name, probe) in &run.probes {
        let why = probe.why.as_deref().unwrap_or("out of tolerance");
        let outside = probe.before.outside + probe.during.outside + probe.after.outside;
        let unknown = probe.before.unknown + probe.during.unknown + probe.after.unknown;
        let within = probe.before.within + probe.during.within + probe.after.within;
        let status = if outside > 0 {
            failed(
                NonSuccessKind::Failure,
                &format!("{outside} of {} samples: {why}", outside + unknown + within),
            )
        } else if unknown > 0 {
            failed(NonSuccessKind::Error, why)
        } else if within == 0 {
            TestCaseStatus::skipped()
        } else {
            TestCaseStatus::success()
        };
        let mut case = case("hypothesis", name, status);
        if let Some(looks) = verdict.probes.iter().find(|looks| looks.probe == *name) {
            case.set_system_out(looks.to_string());
        }
        suite.add_test_case(case);
    }
    for entry in entries {
        let Event::ActivityFinished {
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
        let status = match (status, judgement) {
            (ActivityStatus::Succeeded, None | Some(Judgement::Within)) => {
                TestCaseStatus::success()
            }
            (_, Some(Judgement::Outside)) => failed(NonSuccessKind::Failure, why),
            (ActivityStatus::Aborted, _) => TestCaseStatus::skipped(),
            _ => failed(NonSuccessKind::Error, why),
        };
        let mut case = case("method", activity, status);
        case.set_time(took.0);
        suite.add_test_case(case);
    }
    let clean = if verdict.owed.is_empty() {
        TestCaseStatus::success()
    } else {
        let residue: Vec<String> = verdict
            .owed
            .iter()
            .map(|owed| format!("{}: {}", owed.injection, owed.residue.join("; ")))
            .chain(verdict.hint.as_ref().map(|hint| format!("hint: {hint}")))
            .collect();
        failed(NonSuccessKind::Failure, &residue.join("\n"))
    };
    suite.add_test_case(case("revert", "every injection is reverted", clean));
    let reasons = verdict.reasons.join("\n");
    let outcome = match verdict.outcome {
        Outcome::Held => TestCaseStatus::success(),
        Outcome::Deviated | Outcome::NotClean => failed(NonSuccessKind::Failure, &reasons),
        _ => failed(NonSuccessKind::Error, &reasons),
    };
    let mut case = case("verdict", &verdict.outcome.to_string(), outcome);
    if !verdict.notes.is_empty() {
        case.set_system_out(verdict.notes.join("\n"));
    }
    suite.add_test_case(case);
    let mut report = Report::new("backburn");
    report.add_test_suite(suite);
    report.to_string().unwrap_or_default()
}

fn case(class: &str, name: &str, status: TestCaseStatus) -> TestCase {
    let mut case = TestCase::new(name, status);
    case.set_classname(class);
    case
}

fn failed(kind: NonSuccessKind, why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(why);
    status
}
