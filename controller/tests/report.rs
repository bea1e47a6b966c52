//! Reports of runs: what they say, that the same journal gives the same bytes, and that text from outside is never markup.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::report::{ReportBuilder, ReportContext, ReportEvidence, ReportFormat, RunReport};
use backburn::store::{Hash, RunNote, RunNoteEntry};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Text that would be markup, a link, a list or an instruction to a terminal.
const HOSTILE: &str =
    "<script>alert(1)</script>\"'`|]](javascript:x) \u{1b}[31m\u{202e}\n# x & @all";

/// A journal's lines, each event a second after the one before.
fn lines(events: &[Value]) -> Vec<String> {
    let line = |(number, event): (usize, &Value)| {
        let at = jiff::Timestamp::from_second(1_790_000_000 + number as i64).unwrap();
        let mut entry = json!({"at": at.to_string(), "elapsed": number as f64});
        for (key, value) in event.as_object().unwrap() {
            entry[key] = value.clone();
        }
        entry.to_string()
    };
    events.iter().enumerate().map(line).collect()
}

fn sample(phase: &str, judgement: &str, output: Value) -> Value {
    json!({"event": "sampled", "phase": phase, "probe": "p99", "hypothesis": true, "judgement": judgement,
        "output": output, "took": "5ms", "why": (judgement == "outside").then_some("340 is more than 250")})
}

/// A run in which a fault makes the shop slow for three seconds. `text` is wherever text comes from outside.
fn journal(text: &str) -> Vec<String> {
    let plan = json!({"victims": [{"kind": "process", "id": "1@2", "name": format!("postgres (1) {text}")}],
        "changes": [{"kind": "signal", "apply": format!("SIGSTOP {text}"), "undo": "SIGCONT", "if_we_die": "guardian"}],
        "warnings": [format!("warned {text}")]});
    let mut events = vec![
        json!({"event": "run-started", "run": "20260921T133320-abcd", "title": format!("Shop {text}"), "seed": 7,
            "version": "0.1.0", "hypothesis": ["p99"], "looks": {"before": true, "during": true, "after": true},
            "recovery_within": "30s", "sha256": "ab".repeat(32), "question": format!("orders arrive {text}"),
            "tolerances": {"p99": {"type": "range", "range": [0.0, 250.0]}}}),
        json!({"event": "agent-joined", "agent": "db-1", "recovered": [], "owed": []}),
        json!({"event": "target-picked", "target": "database", "matched": ["db-1", "db-2"], "picked": ["db-1"]}),
        json!({"event": "planned", "activity": "pause it", "agent": "db-1", "plan": plan}),
        json!({"event": "phase-started", "phase": "gate"}),
        sample("gate", "within", json!(120.0)),
        json!({"event": "phase-started", "phase": "method"}),
        json!({"event": "activity-started", "phase": "method", "index": 0, "activity": "pause it", "background": false}),
        json!({"event": "injection-requested", "injection": "r-0-0", "activity": "pause it", "fault": "process-pause",
            "agent": "db-1", "duration": "10s"}),
        json!({"event": "injected", "injection": "r-0-0", "plan": plan}),
        json!({"event": "effect-seen", "injection": "r-0-0", "effect": {"acts": true, "seen": format!("1 of 1 stopped {text}")}}),
    ];
    events.extend((0..3).map(|_| sample("method", "within", json!(130.0))));
    events.extend((0..3).map(|_| sample("method", "outside", json!(340.0))));
    events.push(sample("method", "within", json!(150.0)));
    events.extend([
        json!({"event": "injection-ended", "injection": "r-0-0", "cause": "done", "clean": true, "took": "4ms"}),
        json!({"event": "phase-started", "phase": "revert"}),
        json!({"event": "phase-started", "phase": "after"}),
        sample("after", "within", json!(125.0)),
        json!({"event": "recovered", "after": "2s"}),
        json!({"event": "run-ended"}),
    ]);
    lines(&events)
}

fn report(lines: &[String], context: ReportContext) -> RunReport {
    let mut read = ReportBuilder::default();
    for line in lines {
        read.line(line).unwrap();
    }
    read.finish(context)
}

fn note(number: u64, second: i64, kind: &str, body: Value) -> RunNoteEntry {
    RunNoteEntry {
        number,
        note: RunNote {
            at: jiff::Timestamp::from_second(1_790_000_000 + second).unwrap(),
            who: "ada".into(),
            kind: kind.into(),
            body,
        },
        previous: Hash([0; 32]),
        hash: Hash::of(&number.to_be_bytes()),
    }
}

const SECTIONS: [&str; 13] = [
    "Question and answer",
    "Verdict and what it is worth",
    "Objectives and measurements",
    "What was to be hit, and what was",
    "Timeline",
    "Measurements",
    "What held, what surprised",
    "Proof that everything is reverted",
    "Actions",
    "Compared with earlier runs",
    "How to run it again",
    "What was not tested",
    "Evidence",
];

#[test]
fn report_of_a_run_answers_what_a_reader_asks() {
    let found = report(&journal("now"), ReportContext::default());
    assert_eq!(
        found.question,
        "Shop now: does it hold that “orders arrive now” while process-pause acts on db-1?"
    );
    assert!(
        found
            .answer
            .starts_with("No: probe `p99` was out of tolerance"),
        "{}",
        found.answer
    );
    let objective = |name: &str| {
        let found = found
            .objectives
            .iter()
            .find(|objective| objective.name == name);
        let found = found.unwrap();
        (found.wanted.as_deref(), found.seconds, found.met)
    };
    // The fault acted from second 9; the first failed check began 5 ms before second 14, the next good one before 17. Nobody
    // could know of the failure before its answer was in.
    let (_, detected, _) = objective("time to detect, by the probes");
    assert!((detected.unwrap() - 5.0).abs() < 1e-6, "{detected:?}");
    let markdown = found.render(ReportFormat::Markdown);
    assert!(
        markdown.contains("The fault was observed to be gone."),
        "{markdown}"
    );
    let (_, spent, _) = objective("time out of tolerance (error budget spent)");
    assert!((spent.unwrap() - 3.0).abs() < 1e-6, "{spent:?}");
    assert_eq!(
        objective("time to recover after the last revert"),
        (Some("within 30s"), Some(2.0), Some(true))
    );
    assert_eq!(
        objective("time to clean, of the slowest fault").2,
        Some(true)
    );
    assert_eq!(objective("hypothesis during the method").2, Some(false));
    let hit = &found.hits[0];
    assert_eq!(
        (hit.planned.len(), hit.victims.len(), hit.clean),
        (1, 1, Some(true))
    );
    assert_eq!((hit.from, hit.until), (Some(9.0), Some(18.0)));
    let plot = &found.plots[0];
    assert_eq!(
        (plot.figure, plot.low, plot.high),
        ("value", Some(0.0), Some(250.0))
    );
    assert_eq!((plot.samples, plot.outside), (9, 3));
    assert!(
        found.untested[0].contains("db-2 matched and were not picked"),
        "{:?}",
        found.untested
    );
    assert_eq!(found.rerun.command, "backburn run FILE --seed 7");
    for format in [ReportFormat::Html, ReportFormat::Markdown] {
        let text = found.render(format);
        for (number, title) in SECTIONS.iter().enumerate() {
            assert!(
                text.contains(&format!("{}. {title}", number + 1)),
                "{title}: {text}"
            );
        }
        assert_eq!(ReportFormat::of(&text), format);
    }
    let json: Value = serde_json::from_str(&found.render(ReportFormat::Json)).unwrap();
    assert_eq!(json["verdict"]["outcome"], "deviated");
}

#[test]
fn report_of_the_same_journal_and_notes_has_the_same_bytes() {
    let context = || ReportContext {
        notes: vec![note(1, 15, "mark", json!({"mark": "detected"}))],
        ..ReportContext::default()
    };
    for format in [
        ReportFormat::Html,
        ReportFormat::Markdown,
        ReportFormat::Json,
    ] {
        let first = report(&journal("now"), context()).render(format);
        assert_eq!(first, report(&journal("now"), context()).render(format));
        let evidence = ReportEvidence::find(&first).unwrap();
        assert_eq!((evidence.events, evidence.notes), (24, 1));
        // What `sha256sum` says of the file of a local run.
        let file = journal("now").join("\n") + "\n";
        assert_eq!(evidence.journal, Hash::of(file.as_bytes()).to_string());
        let other = report(&journal("then"), context()).render(format);
        assert_ne!(
            ReportEvidence::find(&other).unwrap().journal,
            evidence.journal
        );
    }
}

#[test]
fn report_text_from_outside_is_never_markup() {
    let context = || ReportContext {
        who: Some(HOSTILE.into()),
        notes: vec![note(1, 15, HOSTILE, json!({"text": HOSTILE}))],
        ..ReportContext::default()
    };
    let hostile = report(&journal(HOSTILE), context()).render(ReportFormat::Html);
    let mut plain = context();
    (plain.who, plain.notes) = (
        Some("ada".into()),
        vec![note(1, 15, "note", json!({"text": "x"}))],
    );
    let plain = report(&journal("x"), plain).render(ReportFormat::Html);
    // The same elements, with other text.
    let tags = |page: &str| -> Vec<String> {
        let parts = page
            .split('<')
            .skip(1)
            .map(|part| part.split([' ', '>']).next().unwrap_or_default().to_owned());
        parts.collect()
    };
    assert_eq!(tags(&hostile), tags(&plain));
    assert!(
        !hostile.contains("<script") && !hostile.contains("alert(1)</"),
        "{hostile}"
    );
    for format in [ReportFormat::Html, ReportFormat::Markdown] {
        let text = report(&journal(HOSTILE), context()).render(format);
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{format:?}");
        assert!(!text.contains("<script"), "{format:?}");
        assert!(!text.contains("\n# x"), "{format:?}");
    }
    assert!(
        hostile.contains("default-src &#39;none&#39;") || hostile.contains("default-src 'none'")
    );
}

#[test]
fn report_note_whose_time_was_corrected_has_both_times() {
    let at = jiff::Timestamp::from_second(1_790_000_013)
        .unwrap()
        .to_string();
    let notes = vec![
        note(1, 16, "mark", json!({"mark": "detected"})),
        note(2, 20, "correction", json!({"of": 1, "happened": at})),
        note(
            3,
            17,
            "mark",
            json!({"mark": "mitigated", "text": "failed over"}),
        ),
    ];
    let found = report(
        &journal("now"),
        ReportContext {
            notes,
            ..ReportContext::default()
        },
    );
    let people: Vec<_> = found
        .timeline
        .iter()
        .filter(|item| item.who.is_some())
        .collect();
    assert_eq!(people.len(), 2);
    assert_eq!(
        (
            people[0].seconds,
            people[0].written.map(|at| at.as_second())
        ),
        (13.0, Some(1_790_000_016))
    );
    let seconds = |name: &str| {
        found
            .objectives
            .iter()
            .find(|one| one.name == name)
            .unwrap()
            .seconds
    };
    assert_eq!(seconds("time to detect, by people"), Some(4.0));
    assert_eq!(seconds("time to mitigate"), Some(8.0));
    let page = found.render(ReportFormat::Html);
    assert!(
        page.contains("mark: detected (time corrected; written at 14:13:36)"),
        "{page}"
    );
}

#[test]
fn report_of_a_long_run_with_twenty_probes_is_small() {
    let mut lines = journal("now");
    let end = lines.split_off(lines.len() - 6);
    let mut text = String::new();
    for second in 0..2000 {
        for probe in 0..20 {
            text.clear();
            let judgement = if second % 50 == 0 {
                "outside"
            } else {
                "within"
            };
            write!(
                text,
                r#"{{"at":"2026-09-21T15:00:00Z","elapsed":{}.0,"event":"sampled","phase":"method","probe":"probe {probe}","hypothesis":false,"judgement":"{judgement}","output":{}.{},"took":"{}ms"}}"#,
                20 + second,
                (second * 7919 + probe * 31) % 997,
                second % 10,
                3 + second % 90,
            )
            .unwrap();
            lines.push(text.clone());
        }
    }
    let end = end.iter().map(|line| {
        let mut entry: Value = serde_json::from_str(line).unwrap();
        entry["elapsed"] = json!(2021.0);
        entry.to_string()
    });
    lines.extend(end);
    let notes = (1..=1000).map(|number| {
        note(
            number,
            10 + number as i64,
            "note",
            json!({"text": "p99 is back below 250 ms"}),
        )
    });
    let found = report(
        &lines,
        ReportContext {
            notes: notes.collect(),
            ..ReportContext::default()
        },
    );
    assert_eq!(found.plots.len(), 21);
    assert_eq!(found.timeline_left_out, (2000 / 50 * 2 - 12) * 20);
    for format in [
        ReportFormat::Html,
        ReportFormat::Markdown,
        ReportFormat::Json,
    ] {
        let length = found.render(format).len();
        assert!(length < 300 << 10, "{format:?}: {length} bytes");
    }
}

#[test]
fn report_of_a_journal_that_was_cut_short_says_so() {
    let lines = journal("now");
    let found = report(&lines[..12], ReportContext::default());
    assert!(!found.verdict.owed.is_empty());
    let text = found.render(ReportFormat::Markdown);
    assert!(text.contains("NOT observed"), "{text}");
    let mut read = ReportBuilder::default();
    read.line(&lines[0]).unwrap();
    assert!(read.line("{\"cut").is_err() && read.line(&lines[0]).is_err());
    // What could not be read changes nothing.
    assert_eq!(read.finish(ReportContext::default()).evidence.events, 1);
}
