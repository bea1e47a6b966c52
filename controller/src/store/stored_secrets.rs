//! Secrets that a document writes out. The store keeps them apart from the document, which has `{"type": "stored"}` in their places:
//! whoever reads documents, their versions, differences between them or an export does not read secrets.

use backburn_experiments::Problem;
use backburn_experiments::problem::{at_index, at_key};
use serde_json::{Map, Value, json};

/// The secrets of a document by the JSON paths of their places.
pub type StoredSecrets = Map<String, Value>;

/// The sources of secrets, which are no secrets themselves.
const SOURCES: [&str; 4] = ["env", "file", "vault", "probe"];

/// The `type` of what stands in the place of a secret.
const STORED: &str = "stored";

/// What stands in the place of a secret.
fn placeholder() -> Value {
    json!({"type": STORED})
}

fn is_placeholder(value: &Value) -> bool {
    *value == placeholder()
}

/// Takes the secrets that a document writes out from it, and leaves placeholders.
pub fn take_secrets(document: &mut Value) -> StoredSecrets {
    let mut secrets = StoredSecrets::new();
    each_secret(document, &mut |at, value| {
        if !is_placeholder(value) {
            secrets.insert(at, std::mem::replace(value, placeholder()));
        }
    });
    secrets
}

/// Puts secrets back into a document, in the places of their placeholders.
pub fn put_secrets_back(document: &mut Value, secrets: &StoredSecrets) {
    each_secret(document, &mut |at, value| {
        if let Some(secret) = secrets.get(&at).filter(|_| is_placeholder(value)) {
            *value = secret.clone();
        }
    });
}

/// A problem for each placeholder in a document whose secret is not known.
pub fn missing_secrets(document: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut document = document.clone();
    each_secret(&mut document, &mut |at, value| {
        if is_placeholder(value) {
            let what = "this secret is not in the store: only its place is known";
            problems.push(Problem::new(at, what).hint(
                "apply the document with the secret, or write where it is to be read: `{\"type\": \"file\", …}`",
            ));
        }
    });
    problems
}

/// Calls a function with each place of a document where a secret is written out, or a placeholder stands for one.
fn each_secret(document: &mut Value, visit: &mut dyn FnMut(String, &mut Value)) {
    if let Some(scopes) = document.get_mut("secrets") {
        each_within(scopes, "$.secrets", visit);
    }
    let lists = [
        (
            "$.steady-state-hypothesis.probes",
            "/steady-state-hypothesis/probes",
        ),
        ("$.method", "/method"),
        ("$.rollbacks", "/rollbacks"),
    ];
    for (at, pointer) in lists {
        let steps = document.pointer_mut(pointer).and_then(Value::as_array_mut);
        for (index, step) in steps.into_iter().flatten().enumerate() {
            of_activity(step, &at_index(at, index), visit);
        }
    }
    let rules = document.get_mut("abort").and_then(Value::as_array_mut);
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        if let Some(probe) = rule.get_mut("probe") {
            of_activity(probe, &format!("$.abort[{index}].probe"), visit);
        }
    }
    if let Some(guard) = document.pointer_mut("/schedule/guard") {
        of_activity(guard, "$.schedule.guard", visit);
    }
}

/// An activity names scopes in a list; in an object it has secrets of its own.
fn of_activity(activity: &mut Value, at: &str, visit: &mut dyn FnMut(String, &mut Value)) {
    if let Some(own) = activity.get_mut("secrets").filter(|own| own.is_object()) {
        each_within(own, &at_key(at, "secrets"), visit);
    }
}

fn each_within(value: &mut Value, at: &str, visit: &mut dyn FnMut(String, &mut Value)) {
    let kind = value.get("type").and_then(Value::as_str);
    let is_source = kind.is_some_and(|kind| SOURCES.contains(&kind));
    match value {
        Value::Object(source) if is_source => {
            if let Some(default) = source.get_mut("default") {
                visit(at_key(at, "default"), default);
            }
        }
        Value::Object(fields) if kind_of(fields) != Some(STORED) => {
            for (key, member) in fields {
                each_within(member, &at_key(at, key), visit);
            }
        }
        other => visit(at.to_owned(), other),
    }
}

fn kind_of(fields: &Map<String, Value>) -> Option<&str> {
    fields.get("type")?.as_str().filter(|_| fields.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_with_its_secrets_taken_has_none_and_gets_all_back() {
        let own = json!({"secrets": {"own": "s1", "deep": {"a b": ["s2"], "env": {"type": "env", "key": "K", "default": "s3"}}}});
        let written = json!({
            "title": "t", "secrets": {"scope": {"text": "s4", "number": 5, "file": {"type": "file", "path": "/f"}, "type": "s6"}},
            "steady-state-hypothesis": {"probes": [own]}, "method": [{"secrets": ["scope"]}, own],
            "rollbacks": [own], "abort": [{"probe": own}, {"probe": "name"}], "schedule": {"guard": own},
        });
        let mut document = written.clone();
        let secrets = take_secrets(&mut document);
        let text = document.to_string();
        for secret in ["s1", "s2", "s3", "s4", "5", "s6"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert!(text.contains("\"/f\"") && text.contains("\"K\""), "{text}");
        assert_eq!(secrets.len(), 3 + 5 * 3);
        assert_eq!(missing_secrets(&document).len(), secrets.len());
        // Taken again, it is as it was.
        assert_eq!(take_secrets(&mut document.clone()), StoredSecrets::new());
        put_secrets_back(&mut document, &secrets);
        assert_eq!(document, written);
        assert_eq!(missing_secrets(&document), []);
    }
}
