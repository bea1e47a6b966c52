//! Keeps the retired words of `docs/style.md` out of what users read: the pages, and the reference, which `docs.rs` holds equal to the
//! help texts and the description of the API. Needs no privileges.

use backburn_tests::pages::{pages, short, text};
use regex::Regex;

/// What is retired, as a regular expression, and what stands in its place.
const RETIRED: [(&str, &str); 27] = [
    (r"\b(the|a) lever\b", "halt"),
    (r"\b(crew|muster)(s|ed)?\b", "agent pool, discover"),
    (r"\bmodesty\b", "limits"),
    (
        r"\b(is|are|was|were|be|been|being|has|have|gets|got) put (everything )?back\b",
        "reverted",
    ),
    (
        r"\bputs? (it|them|everything|that|this) back\b",
        "reverts it",
    ),
    (
        r"\b(is|are|be|was|were) looked (at|into|whether)\b",
        "checked, observed, read",
    ),
    (r"\b(this|that|it) wants? the role\b", "requires role"),
    (
        r"\bwants? (root|no rights|a lock|one of)\b",
        "requires, expects",
    ),
    (r"\bcan(no|')t be had\b", "is not available"),
    (
        r"\bwhat (every|random) picks? comes? from\b",
        "seed for random selection",
    ),
    (r"\bif we die\b", "if the agent dies"),
    (
        r"\b(of|by) ours\b",
        "the injection's, Backburn's, the agent's",
    ),
    (r"\bgood for nothing\b", "revoked"),
    (r"\bwithout a word\b", "silently"),
    (r"\bsays? nothing\b", "is empty, does not answer"),
    (
        r"\b(is|are) told (all|at once|of|by|to people)\b",
        "is reported",
    ),
    (r"\bwhere that is one\b", "if there is one"),
    (r"\bthat is none\b", "that is not one"),
    (r"\bstands? where\b", "expected …, got …"),
    (r"\bwhat it comes to\b", "its verdict"),
    (r"\bcomes? by (itself|themselves)\b", "is scheduled"),
    (
        r"\bfor as long as it is told\b",
        "as long as it is configured to",
    ),
    (r"\bmade anew\b", "regenerated, recreated"),
    (
        r"\bgo(es)? before (it|the|that)\b",
        "overrides it, takes precedence",
    ),
    (r"\bhas none of (it|them)\b", "does not have any"),
    (
        r"\bnobody of (ours|us)\b",
        "no Backburn process, no process of the agent",
    ),
    (r"\b(e|E)lse it\b", "otherwise it"),
];

/// Pages that quote the retired words, or tell what happened when they were in use.
fn is_exempt(page: &str) -> bool {
    page == "docs/style.md" || page == "docs/CHANGELOG.md" || page.starts_with("docs/decisions/")
}

#[test]
fn public_text_has_no_retired_words() {
    let retired: Vec<(Regex, &str)> = (RETIRED.iter())
        .map(|(pattern, instead)| {
            let pattern = Regex::new(&format!("(?i){pattern}")).expect("the pattern is valid");
            (pattern, *instead)
        })
        .collect();
    let mut found = Vec::new();
    let mut lines = 0;
    for page in pages().iter().filter(|page| !is_exempt(&short(page))) {
        for (number, line) in text(page).lines().enumerate() {
            lines += 1;
            for (pattern, instead) in &retired {
                if let Some(word) = pattern.find(line) {
                    let (page, word) = (short(page), word.as_str());
                    found.push(format!("{page}:{}: `{word}`; say: {instead}", number + 1));
                }
            }
        }
    }
    assert!(lines > 3_000, "only {lines} lines were read");
    assert!(
        found.is_empty(),
        "{} retired words:\n{}",
        found.len(),
        found.join("\n")
    );
}
