//! A run's journal in the Chaos Toolkit's shape, so that its reporting tools read it. The shape was
//! taken from what `chaos run --journal-path` of its 1.19 (lib 1.44) writes.

use crate::journal::{
    AbortBy, ActivityStatus, Event, JournalEntry, Judgement, Outcome, Phase, Verdict,
};
use serde_json::{Value, json};
use std::time::Duration;

/// The version of the toolkit's library whose journal this is the shape of.
const SHAPE: &str = "1.44.0";

/// Where a run went on, for the toolkit's journal.
#[derive(Debug, Clone)]
pub struct ToolkitHost {
    /// The operating system, e.g. `Linux-6.1.0-x86_64`.
    pub platform: String,
    /// The host's name.
    pub node: String,
}

/// The toolkit's journal of a run. Activities are as the document has them, so that no value that
/// was put in place shows; ours besides is under `x-backburn`.
///
/// Its `after` is the last look at the hypothesis: those before it, while it was waited for to hold
/// again, are not in this shape.
pub fn toolkit_journal(
    document: &Value,
    entries: &[JournalEntry],
    verdict: &Verdict,
    host: &ToolkitHost,
) -> Value {
    let rounds = |phases: &[Phase]| rounds(document, entries, phases);
    let last = |mut rounds: Vec<Value>| rounds.pop().unwrap_or(Value::Null);
    let (start, end) = (entries.first(), entries.last());
    let (run, seed, version) = entries
        .iter()
        .find_map(|entry| match &entry.event {
            Event::RunStarted {
                run, seed, version, ..
            } => Some((run.as_str(), *seed, version.as_str())),
            _ => None,
        })
        .unwrap_or_default();
    json!({
        "chaoslib-version": SHAPE,
        "platform": host.platform,
        "node": host.node,
        "experiment": document,
        "start": start.map(|entry| written(entry.at)),
        "status": status(entries, verdict),
        "deviated": match verdict.outcome {
            Outcome::Deviated => true,
            Outcome::NotClean => !verdict.outages.is_empty(),
            _ => false,
        },
        "steady_states": {
            "before": last(rounds(&[Phase::Gate])),
            "after": last(rounds(&[Phase::After])),
            "during": rounds(&[Phase::Method, Phase::Revert, Phase::Rollbacks]),
        },
        "run": activities(document, entries, Phase::Method, "/method"),
        "rollbacks": activities(document, entries, Phase::Rollbacks, "/rollbacks"),
        "end": end.map(|entry| written(entry.at)),
        "duration": end.zip(start).map_or(0.0, |(end, start)| end.elapsed - start.elapsed),
        "x-backburn": {"version": version, "run": run, "seed": seed, "verdict": verdict},
    })
}

/// The toolkit's word for how a run went.
fn status(entries: &[JournalEntry], verdict: &Verdict) -> &'static str {
    let by = entries.iter().find_map(|entry| match &entry.event {
        Event::Aborted(abort) => Some(abort.by),
        _ => None,
    });
    match (by, verdict.outcome) {
        (Some(AbortBy::Operator), _) => "interrupted",
        (Some(_), _) | (_, Outcome::Aborted | Outcome::NotInjected) => "aborted",
        // An activity that failed is no reason for it to call the run failed.
        (None, Outcome::Held | Outcome::Deviated | Outcome::Inconclusive | Outcome::NotClean) => {
            "completed"
        }
        (None, Outcome::NotStarted | Outcome::Invalid) => "failed",
    }
}

/// The looks at the hypothesis in these phases, each with its probes. A new one begins when a probe
/// comes again.
fn rounds(document: &Value, entries: &[JournalEntry], phases: &[Phase]) -> Vec<Value> {
    let mut rounds: Vec<Vec<(&str, Judgement, Value)>> = Vec::new();
    for entry in entries {
        let Event::Sampled {
            phase,
            probe,
            hypothesis: true,
            judgement,
            output,
            why,
            took,
        } = &entry.event
        else {
            continue;
        };
        if !phases.contains(phase) {
            continue;
        }
        let fits = rounds
            .last()
            .is_some_and(|round| round.iter().all(|(name, ..)| name != probe));
        if !fits {
            rounds.push(Vec::new());
        }
        let answered = *judgement != Judgement::Unknown && (why.is_none() || !output.is_null());
        let mut run = json!({
            "activity": activity_named(document, probe),
            "output": output,
            "start": started(entry, took.0),
            "status": if answered { "succeeded" } else { "failed" },
            "end": written(entry.at),
            "duration": took.0.as_secs_f64(),
            "tolerance_met": *judgement == Judgement::Within,
        });
        if let (false, Some(why)) = (answered, why) {
            run["exception"] = json!([why]);
        }
        if let Some(round) = rounds.last_mut() {
            round.push((probe, *judgement, run));
        }
    }
    // Probes are looked at side by side; the toolkit has them in the document's order.
    let order = entries.iter().find_map(|entry| match &entry.event {
        Event::RunStarted { hypothesis, .. } => Some(hypothesis.as_slice()),
        _ => None,
    });
    let place = |probe: &str| {
        order
            .unwrap_or_default()
            .iter()
            .position(|name| name == probe)
    };
    let rounds = rounds.into_iter().map(|mut round| {
        round.sort_by_key(|(probe, ..)| place(probe));
        let met = round
            .iter()
            .all(|(_, judgement, _)| *judgement == Judgement::Within);
        let probes: Vec<Value> = round.into_iter().map(|(_, _, run)| run).collect();
        json!({"steady_state_met": met, "probes": probes})
    });
    rounds.collect()
}

/// The activities of the method or the rollbacks, in the order in which they began.
fn activities(document: &Value, entries: &[JournalEntry], of: Phase, list: &str) -> Vec<Value> {
    let mut runs: Vec<(usize, Value)> = Vec::new();
    for entry in entries {
        match &entry.event {
            Event::ActivityStarted {
                phase,
                index,
                activity,
                ..
            } if *phase == of => {
                let raw = document
                    .pointer(&format!("{list}/{index}"))
                    .filter(|step| step.get("ref").is_none());
                runs.push((
                    *index,
                    json!({
                        "activity": raw.cloned().unwrap_or_else(|| activity_named(document, activity)),
                        "output": null,
                        "start": written(entry.at),
                        "status": "aborted",
                    }),
                ));
            }
            Event::ActivityFinished {
                phase,
                index,
                status,
                output,
                why,
                judgement,
                took,
                ..
            } if *phase == of => {
                let Some((_, run)) = runs.iter_mut().rev().find(|(started, _)| started == index)
                else {
                    continue;
                };
                run["output"] = output.clone();
                run["status"] = json!(match status {
                    ActivityStatus::Succeeded => "succeeded",
                    ActivityStatus::Failed => "failed",
                    ActivityStatus::Aborted => "aborted",
                });
                run["end"] = json!(written(entry.at));
                run["duration"] = json!(took.0.as_secs_f64());
                if let Some(why) = why {
                    run["exception"] = json!([why]);
                }
                if let Some(judgement) = judgement {
                    run["tolerance_met"] = json!(*judgement == Judgement::Within);
                }
            }
            _ => {}
        }
    }
    runs.into_iter().map(|(_, run)| run).collect()
}

/// The activity of a name, as it was written.
fn activity_named(raw: &Value, name: &str) -> Value {
    let lists = ["/steady-state-hypothesis/probes", "/method", "/rollbacks"];
    let mut steps = lists
        .iter()
        .filter_map(|list| raw.pointer(list)?.as_array())
        .flatten();
    let found = steps.find(|step| step.get("name").and_then(Value::as_str) == Some(name));
    found.cloned().unwrap_or_else(|| json!({"name": name}))
}

fn started(entry: &JournalEntry, took: Duration) -> String {
    written(entry.at.saturating_sub(took).unwrap_or(entry.at))
}

/// As Python writes a time: with an offset, not with `Z`, which older ones cannot read.
fn written(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HumanDuration;
    use crate::check::{Sources, load};
    use crate::journal::{Abort, HypothesisTiming, Run, verdict};
    use serde_json::Map;

    fn document() -> Value {
        let document = json!({
            "title": "t", "description": "d",
            "secrets": {"s": {"token": "hunter2"}},
            "steady-state-hypothesis": {"title": "h", "probes": [
                {"type": "probe", "name": "p", "tolerance": 0, "provider": {"type": "process", "path": "x", "arguments": ["${token}"]}},
                {"ref": "m"}
            ]},
            "method": [{"type": "probe", "name": "m", "tolerance": 0, "provider": {"type": "process", "path": "y"}}]
        });
        let empty = Map::new();
        let sources = Sources {
            environment: &|_| None,
            file: &|_| Err(String::new()),
            variables: &empty,
            secrets: &empty,
        };
        load(&document.to_string(), &sources, &[])
            .unwrap_or_else(|problems| panic!("{problems:?}"))
            .raw
    }

    fn sampled(phase: Phase, probe: &str, judgement: Judgement) -> Event {
        let why = (judgement != Judgement::Within).then(|| "why".to_owned());
        Event::Sampled {
            phase,
            probe: probe.into(),
            hypothesis: true,
            judgement,
            output: json!({"status": 0}),
            why,
            took: HumanDuration::millis(5),
        }
    }

    fn entries(events: Vec<Event>) -> Vec<JournalEntry> {
        let started = Event::RunStarted {
            run: "r1".into(),
            title: "t".into(),
            seed: 7,
            version: "0.1.0".into(),
            hypothesis: vec!["p".into(), "m".into()],
            hypothesis_timing: HypothesisTiming {
                before: true,
                during: true,
                after: true,
            },
            sha256: None,
            recovery_within: None,
            approved_by: None,
            question: None,
            tolerances: Default::default(),
        };
        let second =
            |seconds: usize| jiff::Timestamp::from_second(1_000_000 + seconds as i64).unwrap();
        std::iter::once(started)
            .chain(events)
            .enumerate()
            .map(|(index, event)| JournalEntry {
                at: second(index),
                elapsed: index as f64,
                event,
            })
            .collect()
    }

    #[test]
    fn it_has_the_toolkits_keys_and_no_secret() {
        use Judgement::{Outside, Within};
        let method = |status| Event::ActivityFinished {
            phase: Phase::Method,
            index: 0,
            activity: "m".into(),
            status,
            output: json!({"status": 0}),
            why: None,
            judgement: Some(Within),
            took: HumanDuration::seconds(1),
        };
        let entries = entries(vec![
            Event::PhaseStarted { phase: Phase::Gate },
            sampled(Phase::Gate, "p", Within),
            sampled(Phase::Gate, "m", Within),
            Event::PhaseStarted {
                phase: Phase::Method,
            },
            Event::ActivityStarted {
                phase: Phase::Method,
                index: 0,
                activity: "m".into(),
                background: false,
            },
            sampled(Phase::Method, "p", Outside),
            sampled(Phase::Method, "m", Within),
            sampled(Phase::Method, "p", Within),
            method(ActivityStatus::Succeeded),
            Event::PhaseStarted {
                phase: Phase::Revert,
            },
            Event::PhaseStarted {
                phase: Phase::After,
            },
            sampled(Phase::After, "p", Within),
            sampled(Phase::After, "m", Within),
            Event::RunEnded,
        ]);
        let verdict = verdict(&Run::fold(&entries).unwrap());
        let host = ToolkitHost {
            platform: "Linux".into(),
            node: "n".into(),
        };
        let journal = toolkit_journal(&document(), &entries, &verdict, &host);
        let keys: Vec<&str> = journal
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            keys,
            [
                "chaoslib-version",
                "platform",
                "node",
                "experiment",
                "start",
                "status",
                "deviated",
                "steady_states",
                "run",
                "rollbacks",
                "end",
                "duration",
                "x-backburn"
            ]
        );
        let states = &journal["steady_states"];
        let keys: Vec<&str> = states
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, ["before", "after", "during"]);
        assert_eq!(states["before"]["steady_state_met"], json!(true));
        assert_eq!(states["during"].as_array().unwrap().len(), 2);
        assert_eq!(states["during"][0]["steady_state_met"], json!(false));
        assert_eq!(
            states["before"]["probes"][1]["activity"]["name"],
            json!("m")
        );
        let keys: Vec<&str> = states["before"]["probes"][0]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            keys,
            [
                "activity",
                "output",
                "start",
                "status",
                "end",
                "duration",
                "tolerance_met"
            ]
        );
        assert_eq!(
            states["before"]["probes"][0]["start"],
            json!("1970-01-12T13:46:41.995000+00:00")
        );
        assert_eq!(journal["run"][0]["status"], json!("succeeded"));
        assert_eq!(journal["status"], json!("completed"));
        assert_eq!(journal["deviated"], json!(true));
        assert_eq!(journal["duration"], json!(14.0));
        assert!(!journal.to_string().contains("hunter2"));
    }

    #[test]
    fn an_interrupted_run_says_so() {
        let entries = entries(vec![Event::Aborted(Abort {
            by: AbortBy::Operator,
            rule: "operator".into(),
            reason: "SIGINT".into(),
        })]);
        let verdict = verdict(&Run::fold(&entries).unwrap());
        let host = ToolkitHost {
            platform: "Linux".into(),
            node: "n".into(),
        };
        let journal = toolkit_journal(&document(), &entries, &verdict, &host);
        assert_eq!(journal["status"], json!("interrupted"));
        assert_eq!(
            journal["steady_states"],
            json!({"before": null, "after": null, "during": []})
        );
    }
}
