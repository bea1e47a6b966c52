//! Our check of a document against its JSON Schema gives the verdict of the `jsonschema` package.

use backburn_experiments::schema;
use backburn_tests::toolkit::oracle;
use backburn_tests::values::ask;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Numbers from a seed (xorshift64*), for mutations.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }
}

fn mutate(value: &mut Value, numbers: &mut Numbers) {
    // No float without a fraction among them: 1.0 is an integer to JSON Schema, and to no type of ours.
    let odd = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(5_000_000_000_u64),
        json!(""),
        json!("all"),
        json!("probe"),
        json!([]),
        json!([1, 2]),
        json!({}),
        json!({"ref": "a"}),
        json!({"type": "tcp"}),
        json!({"count": 1}),
        json!({"percent": 200}),
        json!("x"),
    ];
    let keys = [
        "type",
        "name",
        "ref",
        "x-a",
        "tolerance",
        "timeout",
        "every",
        "unknown",
    ];
    match value {
        Value::Object(fields) if !fields.is_empty() && numbers.below(4) > 0 => {
            let place = numbers.below(fields.len());
            if let Some((_, inner)) = fields.iter_mut().nth(place) {
                mutate(inner, numbers);
            }
        }
        Value::Array(list) if !list.is_empty() && numbers.below(4) > 0 => {
            let place = numbers.below(list.len());
            mutate(&mut list[place], numbers);
        }
        Value::Object(fields) if numbers.below(3) > 0 => {
            let place = numbers.below(fields.len());
            match (numbers.below(2), fields.keys().nth(place).cloned()) {
                (0, Some(key)) => drop(fields.shift_remove(&key)),
                _ => drop(fields.insert(
                    keys[numbers.below(keys.len())].into(),
                    odd[numbers.below(odd.len())].clone(),
                )),
            }
        }
        other => *other = odd[numbers.below(odd.len())].clone(),
    }
}

/// A document with most of the format in it.
fn document() -> Value {
    json!({
        "title": "t", "description": "d", "tags": ["a"], "configuration": {"a": 1, "b": {"type": "env", "key": "K"}}, "secrets": {"s": {"k": "v"}},
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "a", "tolerance": [1, 2], "provider": {"type": "http", "url": "http://x", "timeout": [1, 2], "headers": {"h": 1}}},
            {"type": "probe", "name": "b", "tolerance": {"type": "range", "range": [1, 2]}, "provider": {"type": "host", "metric": "load1"}},
            {"type": "probe", "name": "c", "tolerance": {"type": "probe", "name": "i", "provider": {"type": "python", "module": "m", "func": "f"}},
             "provider": {"type": "process", "path": "p", "arguments": ["x"]}}
        ]},
        "targets": {"t": {"labels": {"l": ["v"]}, "select": {"percent": 5}}}, "blast-radius": {"agents": {"max": 1, "percent": 5}},
        "abort": [{"name": "n", "probe": "a", "failures": 2}, {"name": "m", "host": {"metric": "load1", "above": 1}}],
        "method": [
            {"type": "action", "name": "f", "pauses": {"after": 1}, "provider": {"type": "fault", "fault": "process-pause", "targets": "t", "duration": 5, "arguments": {"x": {}}}},
            {"ref": "a"},
            {"type": "action", "name": "g", "provider": {"type": "fault", "fault": "k", "targets": {"labels": {"l": "v"}, "select": "all"}}}
        ],
        "recovery": {"within": 5}, "runtime": {"rollbacks": {"strategy": "always"}},
        "schedule": {"cron": "* * * * *", "overlap": "skip", "window": {"days": ["MON"]}}
    })
}

/// The schema without the format of durations: to the `jsonschema` package a format is but a remark.
fn without_formats(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.shift_remove("format");
            fields.values_mut().for_each(without_formats);
        }
        Value::Array(list) => list.iter_mut().for_each(without_formats),
        _ => {}
    }
}

#[test]
fn schema_check_agrees_with_jsonschema() {
    let Some(python) = oracle() else {
        return;
    };
    let mut schema = schema::document_schema();
    without_formats(&mut schema);
    let mut numbers = Numbers(42);
    let mut documents = vec![document()];
    while documents.len() < 2_000 {
        let mut mutated = document();
        for _ in 0..=numbers.below(2) {
            mutate(&mut mutated, &mut numbers);
        }
        documents.push(mutated);
    }
    let mut questions = vec![json!({"ask": "schema", "schema": schema})];
    questions.extend(
        documents
            .iter()
            .map(|document| json!({"ask": "document", "document": document})),
    );
    let answers = ask(python, &questions);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let (mut valid, mut invalid) = (0, 0);
    for (document, there) in documents.iter().zip(&answers[1..]) {
        let problems = schema::check(&schema, document, "$");
        let here = problems.is_empty();
        seen.extend(problems.iter().map(|problem| problem.at.clone()));
        *(if here { &mut valid } else { &mut invalid }) += 1;
        if there["answer"] != json!(here) {
            wrong.push(format!("there {there}, here {problems:?}: {document}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        documents.len(),
        wrong.join("\n")
    );
    assert!(
        valid > 200 && invalid > 200 && seen.len() > 100,
        "{valid} valid, {invalid} invalid, {} places",
        seen.len()
    );
    println!(
        "{} documents: {valid} valid and {invalid} invalid, as with jsonschema; problems at {} places",
        documents.len(),
        seen.len()
    );
}
