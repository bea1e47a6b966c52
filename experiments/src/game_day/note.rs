//! What people add to the stream of a run or of a game day: notes, marks, decisions, corrections of times.

use super::check::wrong_link;
use super::duties::Duty;
use crate::{Problem, schema};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The longest text of a note, in bytes.
const MAX_NOTE_BYTES: usize = 16 << 10;

/// How far ahead of the controller's clock the clock of a person may be.
const MAX_CLOCK_LEAD: SignedDuration = SignedDuration::from_secs(60);

static SCHEMA: LazyLock<Value> = LazyLock::new(super::note_schema);

/// What somebody adds to a run or to a game day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub enum NoteContent {
    /// A note in words, for people.
    Note {
        /// The text of the note.
        #[schemars(length(min = 1))]
        text: String,
        /// Whether participants with a blind token never see it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        facilitators: bool,
        /// When it happened (RFC 3339). Default: now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        happened: Option<String>,
    },
    /// A moment that counts.
    Mark {
        /// What happened at that moment.
        mark: MarkKind,
        /// A text that goes with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// When it happened (RFC 3339). Default: now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        happened: Option<String>,
    },
    /// A correction of the time of an earlier entry. Both times are kept.
    Correction {
        /// The number of the entry.
        #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
        of: u64,
        /// When it really happened (RFC 3339).
        happened: String,
        /// The reason, in words for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A decision, with who made it and why.
    Decision {
        /// What was decided, in words for people.
        #[schemars(length(min = 1))]
        text: String,
        /// Who decided. Default: whoever adds it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// The reason, in words for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// When it was decided (RFC 3339). Default: now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        happened: Option<String>,
    },
    /// An attachment, by its address.
    Link {
        /// What the attachment is, in words for people.
        #[schemars(length(min = 1))]
        title: String,
        /// Its address, which begins with `https://` or `http://`.
        url: String,
    },
    /// A duty is handed over. Only for game days.
    Duty {
        /// The duty that is handed over.
        duty: Duty,
        /// The person who has it from now on.
        #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$"))]
        to: String,
        /// The person who had it. It must be one of its holders.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// The reason, in words for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A status update, written from a template.
    Update(StatusUpdate),
    /// A prerequisite is met, or is not any more. Only for game days.
    Prerequisite {
        /// The number of the prerequisite in the document, from 1.
        #[schemars(range(min = 1))]
        number: u32,
        /// Whether it is met.
        met: bool,
    },
}

/// A status update, written from a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusUpdate {
    /// For whom it is.
    pub audience: UpdateAudience,
    /// What users notice of the problem.
    #[schemars(length(min = 1))]
    pub impact: String,
    /// What users can do meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workaround: Option<String>,
    /// When the next update is due (RFC 3339). Default: after the time that the game day gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// For whom a status update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateAudience {
    /// For the team and its company.
    Internal,
    /// For customers and everybody else.
    Outward,
}

/// A moment that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MarkKind {
    /// Somebody noticed that something is wrong.
    Detected,
    /// Users do not suffer any more.
    Mitigated,
    /// Everything is as it was.
    Recovered,
    /// A runbook was wrong or missing.
    WrongRunbook,
    /// Somebody has a question for the discussion.
    Question,
}

/// Why something cannot be added.
pub type NewNoteError = Vec<Problem>;

impl NoteContent {
    /// The word of its kind, as it is stored.
    pub fn kind(&self) -> &'static str {
        match self {
            NoteContent::Note { .. } => "note",
            NoteContent::Mark { .. } => "mark",
            NoteContent::Correction { .. } => "correction",
            NoteContent::Decision { .. } => "decision",
            NoteContent::Link { .. } => "link",
            NoteContent::Duty { .. } => "duty",
            NoteContent::Update(_) => "update",
            NoteContent::Prerequisite { .. } => "prerequisite",
        }
    }

    /// Its content without its kind, as it is stored.
    pub fn body(&self) -> Value {
        let mut body = serde_json::to_value(self).unwrap_or_default();
        if let Some(body) = body.as_object_mut() {
            body.remove("kind");
        }
        body
    }
}

/// Reads what somebody wants to add at this time.
///
/// # Errors
/// All problems, each with its JSON path.
pub fn read_note(value: &Value, now: Timestamp) -> Result<NoteContent, NewNoteError> {
    let known = [
        "note",
        "mark",
        "correction",
        "decision",
        "link",
        "duty",
        "update",
        "prerequisite",
    ];
    let kind = value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !known.contains(&kind) {
        let what = match kind {
            "" => "`kind` is missing".to_owned(),
            kind => format!("there is no kind `{kind}`"),
        };
        let hint = crate::problem::meant(kind, &known);
        return Err(vec![Problem {
            at: "$.kind".into(),
            what,
            hint,
        }]);
    }
    let mut problems = schema::check(of_kind(kind), value, "$");
    let size = value.to_string().len();
    if size > MAX_NOTE_BYTES {
        let what = format!("it is longer than {} KiB", MAX_NOTE_BYTES >> 10);
        problems.push(Problem::new("$", what).hint("add a link to a long text instead"));
    }
    let read = match problems.is_empty() {
        true => serde_json::from_value::<NoteContent>(value.clone())
            .map_err(|error| problems.push(Problem::new("$", error.to_string())))
            .ok(),
        false => None,
    };
    let Some(mut read) = read else {
        return Err(problems);
    };
    dates(&mut read, now, &mut problems);
    match problems.is_empty() {
        true => Ok(read),
        false => Err(problems),
    }
}

/// The part of the schema that is about this kind, so that problems are those of this kind alone.
fn of_kind(kind: &str) -> &'static Value {
    static OF_KINDS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
        let variants = SCHEMA.get("oneOf").and_then(Value::as_array);
        let definitions = SCHEMA.get("$defs").cloned().unwrap_or_default();
        let variants = variants.into_iter().flatten().filter_map(|variant| {
            let mut variant = variant.clone();
            let kind = variant
                .pointer("/properties/kind/const")?
                .as_str()?
                .to_owned();
            // A variant that is a struct of its own is a reference beside its kind.
            if let Some(target) = variant
                .get("$ref")
                .and_then(Value::as_str)
                .map(str::to_owned)
            {
                let target = SCHEMA.pointer(target.trim_start_matches('#'))?.clone();
                let (own, other) = (variant.as_object_mut()?, target);
                own.remove("$ref");
                for (name, property) in other.get("properties")?.as_object()? {
                    own.get_mut("properties")?
                        .as_object_mut()?
                        .insert(name.clone(), property.clone());
                }
                let required = other.get("required").and_then(Value::as_array).cloned();
                if let Some(list) = own.get_mut("required").and_then(Value::as_array_mut) {
                    list.extend(required.unwrap_or_default());
                }
            }
            let own = variant.as_object_mut()?;
            own.insert("additionalProperties".into(), false.into());
            own.insert("$defs".into(), definitions.clone());
            Some((kind, variant))
        });
        variants.collect()
    });
    OF_KINDS.get(kind).unwrap_or(&SCHEMA)
}

/// Brings times into one form. A time of something that happened is not in the future, and one of the next update is.
fn dates(note: &mut NoteContent, now: Timestamp, problems: &mut Vec<Problem>) {
    let mut time =
        |at: &str, text: &mut String, is_future: bool| match text.parse::<Timestamp>() {
            Err(_) => problems.push(Problem::new(at, format!("`{text}` is not a time")).hint(
                format!("for example `{}`", now.strftime("%Y-%m-%dT%H:%M:%SZ")),
            )),
            Ok(when) if is_future && when <= now => problems.push(
                Problem::new(at, format!("`{text}` is in the past"))
                    .hint("give the time at which the next update will come"),
            ),
            Ok(when) if !is_future && when.duration_since(now) > MAX_CLOCK_LEAD => problems.push(
                Problem::new(at, format!("`{text}` is in the future"))
                    .hint("give the time at which it happened"),
            ),
            Ok(when) => *text = when.to_string(),
        };
    match note {
        NoteContent::Note { happened, .. }
        | NoteContent::Mark { happened, .. }
        | NoteContent::Decision { happened, .. } => {
            if let Some(happened) = happened {
                time("$.happened", happened, false);
            }
        }
        NoteContent::Correction { happened, .. } => time("$.happened", happened, false),
        NoteContent::Update(StatusUpdate {
            next: Some(next), ..
        }) => time("$.next", next, true),
        NoteContent::Link { url, .. } => problems.extend(wrong_link("$.url", url)),
        NoteContent::Duty { .. } | NoteContent::Update(_) | NoteContent::Prerequisite { .. } => {}
    }
}

/// When each entry of a stream happened: the time that its last correction gives, else the time that its author gave, else when it
/// was added; with the number of the correction. Entries are given as number, time, kind and body, oldest first.
pub fn happened_times<'a>(
    entries: impl IntoIterator<Item = (u64, Timestamp, &'a str, &'a Value)>,
) -> BTreeMap<u64, (Timestamp, Option<u64>)> {
    let mut times = BTreeMap::new();
    for (number, at, kind, body) in entries {
        let given = body.get("happened").and_then(Value::as_str);
        let given: Option<Timestamp> = given.and_then(|text| text.parse().ok());
        match (kind, body.get("of").and_then(Value::as_u64), given) {
            ("correction", Some(of), Some(given)) => {
                if times.contains_key(&of) {
                    times.insert(of, (given, Some(number)));
                }
                times.insert(number, (at, None));
            }
            (_, _, given) => drop(times.insert(number, (given.unwrap_or(at), None))),
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn places(value: Value) -> Vec<String> {
        let problems = read_note(&value, now()).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.at).collect()
    }

    #[test]
    fn note_of_each_kind_is_read_and_stored_without_its_kind() {
        let notes = [
            json!({"kind": "note", "text": "It begins"}),
            json!({"kind": "note", "text": "Psst", "facilitators": true}),
            json!({"kind": "mark", "mark": "wrong-runbook", "happened": "2026-03-01T11:58:00Z"}),
            json!({"kind": "correction", "of": 1, "happened": "2026-03-01T11:57:00Z", "why": "late"}),
            json!({"kind": "decision", "text": "Fail over", "by": "ada", "why": "It is down"}),
            json!({"kind": "link", "title": "Dashboard", "url": "https://grafana.example.org/d/1"}),
            json!({"kind": "duty", "duty": "incident-commander", "to": "bob", "from": "ada"}),
            json!({"kind": "update", "audience": "outward", "impact": "Slow", "next": "2026-03-01T12:30:00Z"}),
            json!({"kind": "prerequisite", "number": 1, "met": true}),
        ];
        for mut note in notes {
            let read = read_note(&note, now()).unwrap_or_else(|wrong| panic!("{note}: {wrong:?}"));
            assert_eq!(note["kind"], read.kind());
            note.as_object_mut().unwrap().remove("kind");
            assert_eq!(read.body(), note);
        }
    }

    #[test]
    fn note_with_mistakes_names_their_places() {
        assert_eq!(places(json!({"text": "x"})), ["$.kind"]);
        assert_eq!(places(json!({"kind": "nte", "text": "x"})), ["$.kind"]);
        assert_eq!(places(json!({"kind": "note", "text": ""})), ["$.text"]);
        assert_eq!(
            places(json!({"kind": "note", "text": "x", "to": "y"})),
            ["$.to"]
        );
        assert_eq!(
            places(json!({"kind": "note", "text": "x".repeat(20_000)})),
            ["$"]
        );
        assert_eq!(places(json!({"kind": "mark", "mark": "seen"})), ["$.mark"]);
        let later = json!({"kind": "mark", "mark": "detected", "happened": "2026-03-01T12:02:00Z"});
        assert_eq!(places(later), ["$.happened"]);
        let soon = json!({"kind": "mark", "mark": "detected", "happened": "2026-03-01T12:00:30Z"});
        assert!(places(soon).is_empty(), "clocks differ");
        let past = json!({"kind": "update", "audience": "internal", "impact": "x", "next": "2026-03-01T11:00:00Z"});
        assert_eq!(places(past), ["$.next"]);
        let link = json!({"kind": "link", "title": "x", "url": "javascript:alert(1)"});
        assert_eq!(places(link), ["$.url"]);
    }

    #[test]
    fn time_is_that_of_the_last_correction_and_both_are_kept() {
        let at =
            |minute: i8| -> Timestamp { format!("2026-03-01T12:{minute:02}:00Z").parse().unwrap() };
        let none = json!({});
        let given = json!({"happened": "2026-03-01T12:01:00Z"});
        let first = json!({"of": 1, "happened": "2026-03-01T11:59:00Z"});
        let last = json!({"of": 1, "happened": "2026-03-01T11:58:00Z"});
        let nowhere = json!({"of": 9, "happened": "2026-03-01T11:58:00Z"});
        let times = happened_times([
            (1, at(0), "mark", &none),
            (2, at(5), "mark", &given),
            (3, at(6), "correction", &first),
            (4, at(7), "correction", &last),
            (5, at(8), "correction", &nowhere),
        ]);
        assert_eq!(
            times[&1],
            ("2026-03-01T11:58:00Z".parse().unwrap(), Some(4))
        );
        assert_eq!(times[&2], (at(1), None));
        assert_eq!(times[&4], (at(7), None));
        assert_eq!(times.len(), 5);
    }
}
