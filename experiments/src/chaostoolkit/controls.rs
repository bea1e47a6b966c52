//! The Chaos Toolkit's controls. Nothing plays them, and they may be what keeps an experiment safe: a
//! document that has some is refused until somebody says in the open that they are left out.

use crate::Problem;
use crate::document::located_steps;
use crate::problem::{at_key, pointer_of};
use serde_json::Value;

/// Refuses each place that has controls.
pub(crate) fn check(raw: &Value, problems: &mut Vec<Problem>) {
    problems.extend(places(raw).into_iter().map(|(at, _)| {
        Problem::new(at, "controls are not played: whatever these watch or end would not be")
            .hint("an abort rule can end a run; `--ignore-controls`, or `ignore-controls=true` over the API, leaves them out")
    }));
}

/// Takes the controls out of a document, and says where they were.
pub fn without_controls(document: &mut Value) -> Vec<String> {
    let mut left_out = Vec::new();
    for (at, holder) in places(document) {
        let holder = document.pointer_mut(&holder).and_then(Value::as_object_mut);
        if holder.is_some_and(|holder| holder.shift_remove("controls").is_some()) {
            left_out.push(at);
        }
    }
    left_out
}

/// Where controls are: their JSON path, and the JSON pointer of what holds them. Empty ones are none.
fn places(document: &Value) -> Vec<(String, String)> {
    let tops = [
        ("$", ""),
        ("$.steady-state-hypothesis", "/steady-state-hypothesis"),
    ];
    let tops = tops.map(|(at, pointer)| (at.to_owned(), pointer.to_owned()));
    let steps = located_steps(document).into_iter().filter_map(|step| {
        let pointer = pointer_of(&step.at)?;
        Some((step.at, pointer))
    });
    let holders = tops.into_iter().chain(steps);
    let with_controls = holders.filter(|(_, pointer)| {
        let controls = document
            .pointer(pointer)
            .and_then(|holder| holder.get("controls"));
        match controls {
            None | Some(Value::Null) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(fields)) => !fields.is_empty(),
            Some(_) => true,
        }
    });
    with_controls
        .map(|(at, pointer)| (at_key(&at, "controls"), pointer))
        .collect()
}
