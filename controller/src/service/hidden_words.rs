//! The words that would tell participants of a game day what its steps do, as long as these are not revealed.

use super::{HeldGameDay, Service};
use backburn_experiments::journal::Event;
use serde_json::Value;
use std::collections::BTreeSet;

/// What stands in the place of something that is not revealed.
pub const HIDDEN: &str = "[hidden]";

/// How many events of a run are searched for the agents that it targets. They are picked at its start.
const SEARCHED_EVENTS: u32 = 500;

/// What is not revealed of a game day.
#[derive(Debug, Clone, Default)]
pub struct HiddenWords {
    /// Words that would tell what a step does, longest first.
    words: Vec<String>,
    /// The numbers of steps that are not revealed.
    pub steps: BTreeSet<u32>,
}

impl HiddenWords {
    /// A text without the words that are not revealed.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for word in &self.words {
            text = without(&text, word);
        }
        text
    }
}

impl Service {
    /// What is not revealed of a game day now.
    pub fn hidden_words(&self, held: &HeldGameDay) -> HiddenWords {
        let mut words = BTreeSet::new();
        let mut steps = BTreeSet::new();
        for number in 1..=held.day.last_step() {
            let Some(step) = held.day.step(number) else {
                continue;
            };
            if held.progress.is_revealed(&held.day, number) {
                continue;
            }
            steps.insert(number);
            words.extend(step.title.clone());
            if let Some(name) = &step.experiment {
                words.insert(name.clone());
                if let Ok(kept) = self.store.experiment(name, step.version) {
                    words.extend(kept.document["title"].as_str().map(str::to_owned));
                    faults_in(&kept.document, &mut words);
                }
            }
            if let Some(run) = held.progress.runs.get(&number) {
                let events = self.store.events(run, 0, SEARCHED_EVENTS);
                for event in events.unwrap_or_default() {
                    match event.entry.event {
                        Event::TargetPicked { picked, .. } => words.extend(picked),
                        Event::InjectionRequested { agent, fault, .. } => {
                            words.extend([agent, fault]);
                        }
                        _ => {}
                    }
                }
            }
        }
        let mut words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        HiddenWords { words, steps }
    }
}

/// The names of the faults in a document, wherever they stand.
fn faults_in(document: &Value, words: &mut BTreeSet<String>) {
    match document {
        Value::Object(fields) => {
            if fields.get("type").and_then(Value::as_str) == Some("fault") {
                words.extend(
                    fields
                        .get("fault")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                );
            }
            fields.values().for_each(|field| faults_in(field, words));
        }
        Value::Array(items) => items.iter().for_each(|item| faults_in(item, words)),
        _ => {}
    }
}

/// A text in which a word is hidden, in whatever case, where no letter or digit is beside it.
fn without(text: &str, word: &str) -> String {
    let (lower, word) = (text.to_ascii_lowercase(), word.to_ascii_lowercase());
    let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut out = String::new();
    let mut rest = 0;
    while let Some(found) = lower.get(rest..).and_then(|left| left.find(&word)) {
        let (start, end) = (rest + found, rest + found + word.len());
        let before = text
            .get(..start)
            .and_then(|before| before.chars().next_back());
        let after = text.get(end..).and_then(|after| after.chars().next());
        out.push_str(text.get(rest..start).unwrap_or_default());
        match is_part(before) || is_part(after) {
            true => out.push_str(text.get(start..end).unwrap_or_default()),
            false => out.push_str(HIDDEN),
        }
        rest = end;
    }
    out.push_str(text.get(rest..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_is_hidden_in_any_case_and_not_within_others() {
        assert_eq!(
            without("DB-Latency, db-latency!", "db-latency"),
            "[hidden], [hidden]!"
        );
        assert_eq!(
            without("adb-latency db-latency2", "db-latency"),
            "adb-latency db-latency2"
        );
        assert_eq!(without("é db é", "db"), "é [hidden] é");
    }
}
