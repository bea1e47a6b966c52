//! The notes of a run or of a game day, as lines for people.

use backburn::api::types::RunNoteInfo;
use backburn_experiments::terminal_text::escape;
use serde_json::Value;

/// A note as one line: its number, when it happened, who added it, and what it says.
pub(super) fn line(note: &RunNoteInfo) -> String {
    let time = match note.happened.is_empty() {
        true => &note.at,
        false => &note.happened,
    };
    let time: Result<jiff::Timestamp, _> = time.parse();
    let time = time.map_or_else(
        |_| note.at.clone(),
        |time| time.strftime("%H:%M:%S").to_string(),
    );
    let corrected = note.corrected_by.map(|by| format!(" (corrected by {by})"));
    format!(
        "{:>4}  {time}  {}: {}{}\n",
        note.number,
        escape(&note.who),
        escape(&said(&note.kind, &note.body)),
        corrected.unwrap_or_default()
    )
}

/// What a note says.
fn said(kind: &str, body: &Value) -> String {
    let text = |key: &str| match body.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let because = |key: &str| match text(key) {
        why if why.is_empty() => String::new(),
        why => format!(": {why}"),
    };
    match kind {
        "note" => text("text"),
        "mark" => format!("{}{}", text("mark"), because("text")),
        "correction" => format!(
            "entry {} happened at {}{}",
            text("of"),
            text("happened"),
            because("why")
        ),
        "decision" => format!(
            "{} decided: {}{}",
            text("by"),
            text("text"),
            match text("why") {
                why if why.is_empty() => String::new(),
                why => format!(" (because {why})"),
            }
        ),
        "link" => format!("{}: {}", text("title"), text("url")),
        "duty" => format!(
            "{} has duty {} from now on{}",
            text("to"),
            text("duty"),
            because("why")
        ),
        "update" => format!("{} update: {}", text("audience"), text("text")),
        "prerequisite" => match body.get("met") {
            Some(Value::Bool(true)) => format!("prerequisite {} is met", text("number")),
            _ => format!("prerequisite {} is not met", text("number")),
        },
        "prompt" => format!(
            "prompt for {}: {}",
            match text("to") {
                to if to.is_empty() => "everybody".to_owned(),
                to => to,
            },
            text("text")
        ),
        "reminder" => format!("a status update was due at {}", text("due")),
        "reveal" => match text("step") {
            step if step.is_empty() => "everything is revealed".into(),
            step => format!("step {step} is revealed"),
        },
        "state" => {
            let step = text("step");
            match (text("state").as_str(), text("run")) {
                ("starting", _) => format!("step {step} starts"),
                ("running", run) if run.is_empty() => format!("step {step} goes on"),
                ("running", run) => format!("step {step} goes on; its run is {run}"),
                ("discussion", _) => format!("step {step} is discussed{}", because("why")),
                (state, _) => format!("the game day is {state}{}", because("why")),
            }
        }
        kind => format!("{kind} {body}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn note_line_is_escaped_and_has_the_corrected_time() {
        let note = |kind: &str, body: Value| RunNoteInfo {
            number: 3,
            at: "2026-01-01T10:00:00Z".into(),
            happened: "2026-01-01T09:58:07Z".into(),
            corrected_by: Some(4),
            who: "ada".into(),
            kind: kind.into(),
            body,
            previous: String::new(),
            hash: String::new(),
        };
        let hostile = note("mark", json!({"mark": "detected", "text": "\u{1b}[31mred"}));
        let shown = line(&hostile);
        assert!(
            shown.starts_with("   3  09:58:07  ada: detected: "),
            "{shown}"
        );
        assert!(
            !shown.contains('\u{1b}') && shown.ends_with("(corrected by 4)\n"),
            "{shown}"
        );
        let decision = json!({"text": "Fail over", "by": "bob", "why": "It is down"});
        assert!(
            line(&note("decision", decision))
                .contains("bob decided: Fail over (because It is down)")
        );
        let ended = json!({"state": "ended", "why": "stopped"});
        assert!(line(&note("state", ended)).contains("the game day is ended: stopped"));
    }
}
