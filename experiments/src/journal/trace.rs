//! A run as a trace: spans for the run, its phases, activities and injections, in OpenTelemetry's own JSON (OTLP 1.x, protobuf's
//! JSON mapping: ids in hexadecimal digits, times as texts of nanoseconds). A pure function of the journal, and the same journal gives the same ids.

use super::{ActivityStatus, Event, JournalEntry, Judgement, Outcome, Phase, Run, verdict};
use crate::select::seeded_number;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One span that has begun.
struct TraceSpan {
    id: String,
    parent: String,
    name: String,
    from: f64,
    until: Option<f64>,
    attributes: Vec<Value>,
    events: Vec<Value>,
    /// Why it went wrong, where it did.
    failed: Option<String>,
}

/// The spans of one run.
struct Trace<'a> {
    run: &'a str,
    /// By what they are, e.g. `injection 20261122-101112-abcd-1`.
    spans: BTreeMap<String, TraceSpan>,
    order: Vec<String>,
    start: i128,
    last: BTreeMap<String, Judgement>,
}

const ROOT: &str = "run";

/// The trace of a run, as the body of an OTLP request. None where nothing was written yet.
pub fn trace(entries: &[JournalEntry]) -> Option<Value> {
    let first = entries.first()?;
    let run = Run::fold(entries).unwrap_or_default();
    let mut trace = Trace {
        run: &run.id,
        spans: BTreeMap::new(),
        order: Vec::new(),
        start: first.at.as_nanosecond(),
        last: BTreeMap::new(),
    };
    trace.begin(ROOT, "", format!("run {}", run.title), 0.0);
    trace.tell(ROOT, "backburn.run", run.id.as_str());
    trace.tell(ROOT, "backburn.seed", run.seed.to_string());
    let mut phase: Option<&'static str> = None;
    for entry in entries {
        trace.take(entry, &mut phase);
    }
    if run.ended {
        let verdict = verdict(&run);
        trace.tell(ROOT, "backburn.outcome", verdict.outcome.to_string());
        if verdict.outcome != Outcome::Held {
            let why = verdict.reasons.first().cloned();
            trace.fail(ROOT, why.unwrap_or_else(|| verdict.outcome.to_string()));
        }
    }
    let end = entries.last().map_or(0.0, |last| last.elapsed);
    Some(trace.shown(end))
}

fn attribute(key: &str, value: impl Into<Value>) -> Value {
    let value = match value.into() {
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(value) if value.is_f64() => json!({"doubleValue": value}),
        // 64-bit numbers are texts in protobuf's JSON.
        Value::Number(value) => json!({"intValue": value.to_string()}),
        Value::String(value) => json!({"stringValue": value}),
        other => json!({"stringValue": other.to_string()}),
    };
    json!({"key": key, "value": value})
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Gate => "gate",
        Phase::Method => "method",
        Phase::Revert => "revert",
        Phase::Rollbacks => "rollbacks",
        Phase::After => "after",
    }
}

impl Trace<'_> {
    fn id(&self, what: &str) -> String {
        // Eight bytes, and never all zero, which means none.
        format!(
            "{:016x}",
            seeded_number(0, &format!("{}/{what}", self.run)).max(1)
        )
    }

    fn time(&self, elapsed: f64) -> String {
        (self.start + (elapsed * 1e9) as i128).to_string()
    }

    fn begin(&mut self, what: &str, parent: &str, name: impl Into<String>, at: f64) {
        let parent = match parent {
            "" => String::new(),
            parent => self.id(parent),
        };
        let span = TraceSpan {
            id: self.id(what),
            parent,
            name: name.into(),
            from: at,
            until: None,
            attributes: Vec::new(),
            events: Vec::new(),
            failed: None,
        };
        self.order.push(what.to_owned());
        self.spans.insert(what.to_owned(), span);
    }

    fn end(&mut self, what: &str, at: f64) {
        if let Some(span) = self.spans.get_mut(what) {
            span.until.get_or_insert(at);
        }
    }

    fn tell(&mut self, what: &str, key: &str, value: impl Into<Value>) {
        if let Some(span) = self.spans.get_mut(what) {
            span.attributes.push(attribute(key, value));
        }
    }

    fn fail(&mut self, what: &str, why: impl Into<String>) {
        if let Some(span) = self.spans.get_mut(what) {
            span.failed.get_or_insert(why.into());
        }
    }

    fn happens(&mut self, what: &str, name: impl Into<String>, at: f64) {
        let (time, name) = (self.time(at), name.into());
        if let Some(span) = self.spans.get_mut(what) {
            span.events
                .push(json!({"timeUnixNano": time, "name": name}));
        }
    }

    fn take(&mut self, entry: &JournalEntry, phase: &mut Option<&'static str>) {
        let at = entry.elapsed;
        match &entry.event {
            Event::PhaseStarted { phase: next } => {
                if let Some(before) = phase.replace(phase_name(*next)) {
                    self.end(before, at);
                }
                self.begin(phase_name(*next), ROOT, phase_name(*next), at);
            }
            Event::ActivityStarted {
                phase,
                index,
                activity,
                ..
            } => {
                let phase = phase_name(*phase);
                self.begin(&format!("{phase} {index}"), phase, activity.as_str(), at);
            }
            Event::ActivityFinished {
                phase,
                index,
                status,
                why,
                judgement,
                ..
            } => {
                let what = format!("{} {index}", phase_name(*phase));
                self.end(&what, at);
                if *status != ActivityStatus::Succeeded || *judgement == Some(Judgement::Outside) {
                    self.fail(&what, why.clone().unwrap_or_default());
                }
            }
            Event::InjectionRequested {
                injection,
                fault,
                agent,
                activity,
                ..
            } => {
                let what = format!("injection {injection}");
                self.begin(&what, phase.unwrap_or(ROOT), fault.as_str(), at);
                for (key, value) in [
                    ("backburn.injection", injection),
                    ("backburn.fault", fault),
                    ("backburn.agent", agent),
                    ("backburn.activity", activity),
                ] {
                    self.tell(&what, key, value.as_str());
                }
            }
            Event::Injected { injection, .. } => {
                self.happens(&format!("injection {injection}"), "injected", at);
            }
            Event::EffectSeen { injection, effect } => {
                let what = format!("injection {injection}");
                self.happens(&what, effect.seen.as_str(), at);
            }
            Event::InjectionRefused { injection, refusal } => {
                let what = format!("injection {injection}");
                self.end(&what, at);
                self.fail(&what, refusal.to_string());
            }
            Event::InjectionEnded(ended) => {
                let what = format!("injection {}", ended.injection);
                self.end(&what, at);
                self.tell(&what, "backburn.clean", ended.clean);
                let took = ended.took.0.as_secs_f64() * 1000.0;
                self.tell(&what, "backburn.revert.milliseconds", took);
                if !ended.clean {
                    self.fail(&what, ended.residue.join("; "));
                }
            }
            Event::Sampled {
                probe, judgement, ..
            } => {
                // Each change, and not each sample.
                let previous = self.last.insert(probe.clone(), *judgement);
                if previous != Some(*judgement) {
                    let word = json!(judgement).as_str().unwrap_or_default().to_owned();
                    self.happens(phase.unwrap_or(ROOT), format!("{probe}: {word}"), at);
                }
            }
            Event::Aborted(abort) => {
                self.happens(
                    ROOT,
                    format!("aborted by {}: {}", abort.rule, abort.reason),
                    at,
                );
            }
            Event::AgentLost { agent, reason } => {
                self.happens(ROOT, format!("agent {agent} is lost: {reason}"), at);
            }
            Event::Interrupted { reason } => {
                self.happens(ROOT, format!("interrupted: {reason}"), at);
            }
            Event::Recovered { .. } | Event::NotRecovered { .. } => {
                let word = match entry.event {
                    Event::Recovered { .. } => "recovered",
                    _ => "not recovered in time",
                };
                self.happens(phase.unwrap_or(ROOT), word, at);
            }
            Event::NotStarted { rule, reason, .. } => {
                self.happens(ROOT, format!("not started by {rule}: {reason}"), at);
            }
            // The other events are told by the attributes of these.
            _ => {}
        }
    }

    fn shown(&self, end: f64) -> Value {
        let trace = format!("{}{}", self.id("trace"), self.id("trace, more"));
        let spans: Vec<Value> = (self.order.iter())
            .filter_map(|what| self.spans.get(what))
            .map(|span| {
                let mut shown = json!({
                    "traceId": trace,
                    "spanId": span.id,
                    "name": span.name,
                    // SPAN_KIND_INTERNAL
                    "kind": 1,
                    "startTimeUnixNano": self.time(span.from),
                    "endTimeUnixNano": self.time(span.until.unwrap_or(end)),
                    "attributes": span.attributes,
                    "events": span.events,
                    // STATUS_CODE_ERROR, STATUS_CODE_OK
                    "status": match &span.failed {
                        Some(why) => json!({"code": 2, "message": why}),
                        None => json!({"code": 1}),
                    },
                });
                if !span.parent.is_empty() {
                    shown["parentSpanId"] = span.parent.as_str().into();
                }
                shown
            })
            .collect();
        json!({"resourceSpans": [{
            "resource": {"attributes": [attribute("service.name", "backburn")]},
            "scopeSpans": [{
                "scope": {"name": "backburn", "version": env!("CARGO_PKG_VERSION")},
                "spans": spans,
            }],
        }]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(lines: &[(f64, Value)]) -> Vec<JournalEntry> {
        let entry = |(elapsed, event): &(f64, Value)| {
            let mut entry = event.clone();
            entry["at"] = "2026-11-22T10:00:00Z".into();
            entry["elapsed"] = json!(elapsed);
            serde_json::from_value(entry).unwrap()
        };
        lines.iter().map(entry).collect()
    }

    #[test]
    fn a_run_is_a_tree_of_spans() {
        let journal = entries(&[
            (
                0.0,
                json!({"event": "run-started", "run": "r", "title": "t", "seed": 1, "version": "0",
                "hypothesis": ["p"], "looks": {"before": true, "during": true, "after": true}}),
            ),
            (0.1, json!({"event": "phase-started", "phase": "gate"})),
            (
                0.2,
                json!({"event": "sampled", "phase": "gate", "probe": "p", "hypothesis": true, "judgement": "within", "took": "1ms"}),
            ),
            (0.5, json!({"event": "phase-started", "phase": "method"})),
            (
                0.6,
                json!({"event": "activity-started", "phase": "method", "index": 0, "activity": "a", "background": false}),
            ),
            (
                0.7,
                json!({"event": "injection-requested", "injection": "r-1", "activity": "a", "fault": "f", "agent": "x"}),
            ),
            (
                0.8,
                json!({"event": "injected", "injection": "r-1", "plan": {"victims": [], "changes": []}}),
            ),
            (
                1.8,
                json!({"event": "injection-ended", "injection": "r-1", "cause": "done", "clean": true, "took": "2ms"}),
            ),
            (
                1.9,
                json!({"event": "activity-finished", "phase": "method", "index": 0, "activity": "a", "status": "succeeded", "took": "1s"}),
            ),
            (2.0, json!({"event": "phase-started", "phase": "revert"})),
            (2.5, json!({"event": "run-ended"})),
        ]);
        let traced = trace(&journal).unwrap();
        assert_eq!(
            traced,
            trace(&journal).unwrap(),
            "the same journal, the same ids"
        );
        let spans = traced["resourceSpans"][0]["scopeSpans"][0]["spans"]
            .as_array()
            .unwrap();
        let named = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap();
        let [root, gate, method, activity, injection] =
            ["run t", "gate", "method", "a", "f"].map(named);
        assert_eq!(spans.len(), 6);
        assert!(root.get("parentSpanId").is_none());
        assert_eq!(gate["parentSpanId"], root["spanId"]);
        assert_eq!(activity["parentSpanId"], method["spanId"]);
        assert_eq!(injection["parentSpanId"], method["spanId"]);
        assert!(spans.iter().all(|span| span["traceId"] == root["traceId"]));
        assert_eq!(root["traceId"].as_str().unwrap().len(), 32);
        let nanoseconds =
            |span: &Value, key: &str| span[key].as_str().unwrap().parse::<i128>().unwrap();
        let length =
            |span| nanoseconds(span, "endTimeUnixNano") - nanoseconds(span, "startTimeUnixNano");
        assert_eq!(length(root), 2_500_000_000);
        assert_eq!(length(injection), 1_100_000_000);
        assert_eq!(gate["events"][0]["name"], "p: within");
        // It never was seen to act.
        assert_eq!(root["status"]["code"], 2);
        assert_eq!(injection["status"]["code"], 1);
    }

    #[test]
    fn nothing_is_no_trace() {
        assert_eq!(trace(&[]), None);
    }
}
