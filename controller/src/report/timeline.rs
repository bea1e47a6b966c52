//! One timeline of the machine and of people.

use super::model::{TimelineItem, TimelineSource};
use crate::journal_line::SampleLine;
use crate::store::{CLEANED, RunNoteEntry};
use backburn_experiments::game_day::happened_times;
use backburn_experiments::journal::{Event, JournalEntry, Judgement, Tone};
use jiff::Timestamp;
use serde_json::Value;

/// The kind of a note that corrects the time of another one.
const CORRECTION: &str = "correction";

fn tone_name(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "plain",
        Tone::Dim => "dim",
        Tone::Success => "success",
        Tone::Warning => "warning",
        Tone::Failure => "failure",
    }
}

/// The line of an event; none where there is nothing to say. An effect that acts as before is not repeated.
pub(super) fn of_machine(entry: &JournalEntry) -> Option<TimelineItem> {
    if matches!(
        &entry.event,
        Event::EffectSeen { .. } | Event::Sampled { .. }
    ) {
        return None;
    }
    let pieces = entry.event.describe();
    // The tone of the worst piece is that of the line.
    let rank = |tone: &Tone| match tone {
        Tone::Failure => 4,
        Tone::Warning => 3,
        Tone::Success => 2,
        Tone::Plain => 1,
        Tone::Dim => 0,
    };
    let tone = pieces.iter().map(|piece| piece.0).max_by_key(rank)?;
    let text: String = pieces.iter().map(|piece| piece.1.as_str()).collect();
    let text = text.trim_start_matches(['─', ' ']).replace('\n', "; ");
    Some(TimelineItem::of_machine(entry, tone_name(tone), text))
}

/// The line of a sample that was judged differently from the one before.
pub(super) fn probe_change(entry: &JournalEntry, sample: &SampleLine<'_>) -> TimelineItem {
    let (tone, is) = match sample.judgement {
        Judgement::Within => (Tone::Success, "is in tolerance again"),
        Judgement::Outside => (Tone::Failure, "is out of tolerance"),
        Judgement::Unknown => (Tone::Warning, "cannot be judged"),
    };
    let why = sample.why.as_deref().map(|why| format!(": {why}"));
    let text = format!("probe {} {is}{}", sample.probe, why.unwrap_or_default());
    TimelineItem::of_machine(entry, tone_name(tone), text)
}

/// The lines of notes. A correction moves the note that it names, and both times are kept.
pub(super) fn of_notes(notes: &[RunNoteEntry], started: Option<Timestamp>) -> Vec<TimelineItem> {
    let times = happened_times(notes.iter().map(|entry| {
        let note = &entry.note;
        (entry.number, note.at, note.kind.as_str(), &note.body)
    }));
    let shown = notes.iter().filter(|entry| {
        let note = &entry.note;
        // A report is sent round, also to those who took part.
        note.kind != CORRECTION && note.body["facilitators"] != true
    });
    shown
        .map(|entry| {
            let note = &entry.note;
            let at = times.get(&entry.number).map_or(note.at, |(at, _)| *at);
            TimelineItem {
                at,
                seconds: started.map_or(0.0, |started| at.duration_since(started).as_secs_f64()),
                source: TimelineSource::Note,
                who: Some(note.who.clone()),
                tone: if note.kind == CLEANED {
                    "success"
                } else {
                    "plain"
                },
                text: words(&note.kind, &note.body),
                written: (at != note.at).then_some(note.at),
            }
        })
        .collect()
}

/// A note in words: its kind, and what its content says.
fn words(kind: &str, body: &Value) -> String {
    if kind == CLEANED {
        return "cleaned: the agents have observed that nothing is left".into();
    }
    if let Some(said) = of_game_day(kind, body) {
        return said;
    }
    let texts = [
        "state",
        "step",
        "run",
        "name",
        "mark",
        "duty",
        "to",
        "title",
        "text",
        "impact",
        "workaround",
        "by",
        "why",
        "url",
        "due",
    ];
    let mut said: Vec<String> = Vec::new();
    for key in texts {
        match &body[key] {
            Value::String(text) if !text.is_empty() => said.push(text.clone()),
            Value::Null | Value::String(_) => {}
            other => said.push(other.to_string()),
        }
    }
    match said.is_empty() {
        true => kind.to_owned(),
        false => format!("{kind}: {}", said.join("; ")),
    }
}

/// What only a game day notes, in words; none for other notes.
fn of_game_day(kind: &str, body: &Value) -> Option<String> {
    let text = |key: &str| body[key].as_str();
    let step = || body["step"].to_string();
    let because = || text("why").map_or(String::new(), |why| format!(": {why}"));
    Some(match (kind, text("state")) {
        ("state", Some("starting")) => format!("step {} starts", step()),
        ("state", Some("running")) => match text("run") {
            Some(run) => format!("step {} goes on; its run is {run}", step()),
            None => format!("step {} goes on", step()),
        },
        ("state", Some("discussion")) => format!("step {} is discussed{}", step(), because()),
        ("state", Some(state)) => format!("the game day is {state}{}", because()),
        ("prompt", _) => format!(
            "prompt for {}: {}",
            text("to").unwrap_or("everybody"),
            text("text").unwrap_or_default()
        ),
        ("prerequisite", _) => format!(
            "prerequisite {} is {}met",
            body["number"],
            if body["met"] == true { "" } else { "not " }
        ),
        ("duty", _) => format!(
            "{} has duty {} from now on{}",
            text("to").unwrap_or_default(),
            text("duty").unwrap_or_default(),
            because()
        ),
        ("update", _) => format!(
            "{} update: {}",
            text("audience").unwrap_or("status"),
            text("text")?
        ),
        ("reminder", _) => format!("a status update was due at {}", text("due")?),
        ("reveal", _) if body["step"].is_null() => "everything is revealed".into(),
        ("reveal", _) => format!("step {} is revealed", step()),
        _ => return None,
    })
}

/// When people marked something with this name first at or after this time, in seconds since the run started.
pub(super) fn marked(items: &[TimelineItem], name: &str, after: f64) -> Option<f64> {
    first_mark(items, name, after).map(|item| item.seconds)
}

/// The first mark with this name at or after this time, in seconds.
pub(super) fn first_mark<'a>(
    items: &'a [TimelineItem],
    name: &str,
    after: f64,
) -> Option<&'a TimelineItem> {
    let begins = format!("mark: {name}");
    let marks = items.iter().filter(|item| {
        item.source == TimelineSource::Note
            && item.seconds >= after
            && item.text.starts_with(&begins)
    });
    marks.min_by(|one, other| one.seconds.total_cmp(&other.seconds))
}
