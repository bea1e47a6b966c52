//! The journal of a long run, written into a store without waiting for it: many probes, some of which fail or are slow now and then.

use backburn::store::{NewRun, RunEnd, RunNote, SqliteStore, Store, Trigger};
use backburn_experiments::journal::{JournalEntry, Outcome};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// How many entries are written at once.
const BATCH: usize = 20_000;
/// The time between two answers of a probe, in milliseconds.
const EVERY: u64 = 200;
/// The value that each probe shows once, in the middle of the run.
pub const SPIKE: f64 = 4321.0;

/// A run that lasts for hours, or as long as is wanted.
pub struct LongRun {
    /// The id that it has in the store.
    pub id: String,
    /// How many probes it has.
    pub probes: usize,
    /// How long it lasts, in seconds.
    pub seconds: u64,
}

impl LongRun {
    /// How many answers it has.
    pub fn answers(&self) -> usize {
        self.probes * self.of_each()
    }

    fn of_each(&self) -> usize {
        (self.seconds * 1000 / EVERY) as usize
    }

    /// Writes it into the store, closed. Each probe has one spike and ten failures one after the other; those with an odd number measure no
    /// number.
    ///
    /// # Panics
    /// The store refuses it.
    pub fn write(&self, store: &SqliteStore) {
        let started: Timestamp = "2026-11-01T10:00:00Z".parse().expect("a time");
        let run = NewRun {
            id: self.id.clone(),
            experiment: None,
            title: "A long run".into(),
            seed: 1,
            who: "test".into(),
            because: Trigger::Asked,
            started,
        };
        store.open_run(&run).expect("it is open");
        let mut entries = Vec::with_capacity(BATCH);
        let mut add = |millis: u64, event: Value| {
            entries.push(entry(started, millis, event));
            if entries.len() == BATCH {
                store.append_all(&self.id, &entries).expect("it is durable");
                entries.clear();
            }
        };
        let names: Vec<String> = (0..self.probes).map(probe_name).collect();
        let injection = json!({"injection": "i1", "activity": "rest", "fault": "process-pause", "agent": "web-1"});
        let with = |more: Value| {
            let mut event = injection.clone();
            let (Some(event_fields), Value::Object(more)) = (event.as_object_mut(), more) else {
                return event;
            };
            event_fields.extend(more);
            event
        };
        add(
            0,
            json!({"event": "run-started", "run": self.id, "title": "A long run", "seed": 1, "version": "0",
                "hypothesis": names, "looks": {"before": true, "during": true, "after": true}}),
        );
        add(
            1,
            json!({"event": "agent-joined", "agent": "web-1", "recovered": [], "owed": []}),
        );
        add(2, json!({"event": "phase-started", "phase": "method"}));
        add(
            3,
            with(json!({"event": "injection-requested", "duration": "1h"})),
        );
        let plan = json!({"victims": [{"kind": "process", "id": "7@1", "name": "web (7)"}], "changes": []});
        add(
            9,
            json!({"event": "injected", "injection": "i1", "plan": plan}),
        );
        let middle = self.of_each() / 2;
        for number in 0..self.of_each() {
            let at = 10 + number as u64 * EVERY;
            for (place, name) in names.iter().enumerate() {
                let number = number + place;
                let is_failure = (middle + 10..middle + 20).contains(&number);
                let is_spike = number == middle;
                let value = match is_spike {
                    true => SPIKE,
                    false => 100.0 + (number * 7_919 % 1_009) as f64 / 10.0,
                };
                let output = match place % 2 {
                    0 => json!(value),
                    _ => json!({"status": if is_failure { 503 } else { 200 }, "body": "ok"}),
                };
                let took = if is_spike {
                    "4s321ms".to_owned()
                } else {
                    format!("{}ms", 2 + number % 9)
                };
                let mut event = json!({"event": "sampled", "phase": "method", "probe": name, "hypothesis": true,
                    "judgement": if is_failure { "outside" } else { "within" }, "output": output, "took": took});
                if is_failure {
                    event["why"] = "503 is not 200".into();
                }
                add(at, event);
            }
        }
        let end = self.seconds * 1000 + 20;
        add(
            end,
            json!({"event": "injection-ended", "injection": "i1", "cause": "done", "clean": true, "residue": [], "took": "5ms"}),
        );
        add(end + 1, json!({"event": "run-ended"}));
        store.append_all(&self.id, &entries).expect("it is durable");
        let end = RunEnd {
            ended: started + SignedDuration::from_secs(self.seconds as i64),
            outcome: Outcome::Deviated,
            verdict: json!({"outcome": "deviated", "exit_code": 1, "reasons": ["each probe failed ten times"]}),
        };
        store.close_run(&self.id, &end).expect("it is closed");
    }

    /// Adds so many notes to it.
    ///
    /// # Panics
    /// The store refuses one.
    pub fn note(&self, store: &SqliteStore, count: usize) {
        for number in 1..=count {
            let note = RunNote {
                at: Timestamp::now(),
                who: "ada".into(),
                kind: "note".into(),
                body: json!({"text": format!("observation {number}: the checkout takes longer than a minute ago")}),
            };
            store.append_note(&self.id, &note).expect("it is durable");
        }
    }
}

/// The name of a probe, by its place.
pub fn probe_name(place: usize) -> String {
    format!("shop {place} answers in time")
}

fn entry(started: Timestamp, millis: u64, mut event: Value) -> JournalEntry {
    let at = started + SignedDuration::from_millis(millis as i64);
    event["at"] = at.to_string().into();
    event["elapsed"] = (millis as f64 / 1e3).into();
    serde_json::from_value(event).expect("an entry")
}
