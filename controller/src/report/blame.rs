//! Words in notes that judge a person. A report is about systems and conditions; whoever edits a note gets to see these words,
//! with what to write instead. Nothing is changed by itself.

/// A text that blames, in lower case, and what to write instead.
const BLAMING: &[(&str, &str)] = &[
    ("fault of", "name the condition that made it possible"),
    ("his fault", "name the condition that made it possible"),
    ("her fault", "name the condition that made it possible"),
    ("their fault", "name the condition that made it possible"),
    ("your fault", "name the condition that made it possible"),
    ("to blame", "name the condition that made it possible"),
    ("blames", "name the condition that made it possible"),
    ("blamed", "name the condition that made it possible"),
    ("guilty", "name the condition that made it possible"),
    ("culprit", "name the condition that made it possible"),
    (
        "human error",
        "say what made the action look right at that time",
    ),
    (
        "operator error",
        "say what made the action look right at that time",
    ),
    (
        "user error",
        "say what made the action look right at that time",
    ),
    ("should have", "say what was known and what was done"),
    ("should've", "say what was known and what was done"),
    ("shouldn't have", "say what was known and what was done"),
    ("could have", "say what was known and what was done"),
    ("ought to have", "say what was known and what was done"),
    ("failed to", "say what happened and what was missing"),
    ("neglected", "say what happened and what was missing"),
    ("forgot", "say what made it easy to miss"),
    ("overlooked", "say what made it easy to miss"),
    ("did not bother", "say what made it easy to miss"),
    ("didn't bother", "say what made it easy to miss"),
    ("careless", "describe what happened without judging"),
    ("negligent", "describe what happened without judging"),
    ("reckless", "describe what happened without judging"),
    ("incompetent", "describe what happened without judging"),
    ("irresponsible", "describe what happened without judging"),
    ("stupid", "describe what happened without judging"),
    ("idiot", "describe what happened without judging"),
    ("dumb", "describe what happened without judging"),
    ("lazy", "describe what happened without judging"),
    ("sloppy", "describe what happened without judging"),
    ("clueless", "describe what happened without judging"),
    ("obviously", "say how it was seen"),
];

/// The words of a text that blame, each with what to write instead, in the order of the list.
pub fn blaming_words(text: &str) -> Vec<(&'static str, &'static str)> {
    let lower = text.to_lowercase().replace('\u{2019}', "'");
    let is_whole = |start: usize, length: usize| {
        let before = lower[..start].chars().next_back();
        let after = lower[start + length..].chars().next();
        let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !is_letter(before) && !is_letter(after)
    };
    let found = BLAMING.iter().filter(|(words, _)| {
        let mut places = lower.match_indices(words);
        places.any(|(start, found)| is_whole(start, found.len()))
    });
    found.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blaming_words_are_found_as_whole_words_in_any_case() {
        let words =
            |text| -> Vec<&str> { (blaming_words(text).iter()).map(|found| found.0).collect() };
        assert_eq!(
            words("Bob Should Have paged; HUMAN ERROR"),
            ["human error", "should have"]
        );
        assert_eq!(words("she shouldn\u{2019}t have"), ["shouldn't have"]);
        assert_eq!(
            words("the alert came late: the threshold is 5 minutes"),
            [""; 0]
        );
        // Parts of other words do not count, and a Backburn fault is not a person's.
        assert_eq!(
            words("the default office; a dumbbell; fault on web-1"),
            [""; 0]
        );
    }
}
