//! The reference pages of the docs, made from what the programs say of themselves: schemas as
//! tables of keys, help as it is printed.

use backburn_experiments::document::SIZE_LIMITS;
use serde_json::{Map, Value};
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// How wide the help is printed, wherever it is made.
const WIDTH: &str = "100";

/// What stands at the head of each page.
pub(crate) const MADE: &str = "<!-- Made from the programs by tests/tests/quick/docs.rs; BACKBURN_BLESS=1 makes it anew. -->\n";

/// The page of faults, from `backburn faults --json`.
pub fn faults(faults: &[Value]) -> String {
    let mut page = format!(
        "{MADE}# Faults\n\nEach is given under `arguments` of a `fault` action, or as flags to `backburn agent inject`.\n"
    );
    let mut selector = None;
    for fault in faults {
        let ends = if fault["one_shot"] == true {
            "One-shot: it has no duration, unless it is repeated with `every`."
        } else {
            "It has a `duration`, and ends by itself."
        };
        write(
            &mut page,
            &format!(
                "\n## `{}`\n\n{}. {ends}\n\n",
                text(&fault["name"]),
                text(&fault["summary"])
            ),
        );
        let mut schema = fault["schema"].clone();
        if let Some(process) = schema.pointer_mut("/properties/process") {
            let why = process["description"].clone();
            let itself = std::mem::replace(
                process,
                serde_json::json!({"$ref": "#/$defs/ProcessSelector", "description": why}),
            );
            // An optional one is wrapped.
            if selector.is_none() && itself.get("properties").is_some() {
                selector = Some(itself);
            }
        }
        keys(&mut page, &schema);
        write(
            &mut page,
            &format!("\n```json\n{:#}\n```\n", fault["example"]),
        );
    }
    if let Some(selector) = selector {
        write(
            &mut page,
            "\n## ProcessSelector\n\nSelects processes. All criteria that are given must match, and at least one must be given. Process 1, kernel threads, Backburn's own processes, those that it was started from, and those that the [policy](policy.md) protects are never hit.\n\n",
        );
        keys(&mut page, &selector);
    }
    page
}

/// The page of the experiment document, from `backburn schema`.
pub fn experiment(schema: &Value) -> String {
    let mut page = format!(
        "{MADE}# The experiment document\n\n{} Keys that begin with `x-` may stand anywhere and are not looked into; any other key that is not here is an error.\n\n",
        text(&schema["description"])
    );
    keys(&mut page, schema);
    parts(&mut page, schema);
    page.push_str("\n## Limits\n\nA document that exceeds one of these is refused, with the place and the number.\n\n| at most | |\n|--:|---|\n");
    for limit in SIZE_LIMITS {
        write(&mut page, &format!("| {} | {} |\n", limit.most, limit.what));
    }
    page
}

/// The page of the policy file, from `backburn-agent schema`.
pub fn policy(schema: &Value) -> String {
    let mut page = format!(
        "{MADE}# The policy file\n\n{} How it is used: [operations](../operations.md#the-policy).\n\n",
        text(&schema["description"])
    );
    keys(&mut page, schema);
    page
}

/// The page of the controller's policy file, from `backburn schema controller-policy`.
pub fn controller_policy(schema: &Value) -> String {
    let mut page = format!(
        "{MADE}# The controller's policy file\n\n{} It is named with `backburn controller --policy`. The agents' own [policies](policy.md) have the last word.\n\n",
        text(&schema["description"])
    );
    keys(&mut page, schema);
    let rule = &schema["properties"]["rules"]["items"];
    let why = text(&rule["description"]);
    write(&mut page, &format!("\n## A rule\n\n{why}\n\n"));
    keys(&mut page, rule);
    page
}

/// The page of the file for log-ins, from `backburn schema oidc`.
pub fn oidc(schema: &Value) -> String {
    let mut page = format!(
        "{MADE}# The file for log-ins\n\n{} It is named with `backburn controller --oidc`: [how it is used](../fleet.md).\n\n",
        text(&schema["description"])
    );
    keys(&mut page, schema);
    let grant = &schema["properties"]["groups"]["additionalProperties"];
    let why = text(&grant["description"]);
    write(&mut page, &format!("\n## A group\n\n{why}\n\n"));
    keys(&mut page, grant);
    page
}

fn parts(page: &mut String, schema: &Value) {
    for (name, part) in schema["$defs"].as_object().into_iter().flatten() {
        let why = text(&part["description"]);
        write(page, &format!("\n## {name}\n\n{why}\n\n"));
        shape(page, part);
    }
}

/// The page of the command line: the help of each program and of all of its commands.
pub fn command_line(backburn: &Path, agent: &Path) -> String {
    let mut page = format!(
        "{MADE}# The command line\n\n`backburn agent …` takes the same words as `backburn-agent …`.\n"
    );
    help(&mut page, backburn, &["backburn"]);
    help(&mut page, agent, &["backburn-agent"]);
    page
}

fn help(page: &mut String, program: &Path, words: &[&str]) {
    let output = Command::new(program)
        .args(&words[1..])
        .arg("--help")
        .env("COLUMNS", WIDTH)
        .env_remove("BACKBURN_STATE")
        .env_remove("BACKBURN_POLICY")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(output.status.success(), "{words:?}: {}", output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    write(
        page,
        &format!(
            "\n## `{}`\n\n```text\n{}\n```\n",
            words.join(" "),
            lines.join("\n")
        ),
    );
    // The agent's own commands stand under its own name, and `plan` takes the words of `inject`.
    if matches!(
        words,
        ["backburn", "agent" | "faults" | "revert"] | ["backburn-agent", "plan"]
    ) {
        return;
    }
    let headings = ["Commands:", "Faults:"];
    let listed = lines
        .iter()
        .skip_while(|line| !headings.contains(line))
        .skip(1);
    for line in listed.take_while(|line| !line.is_empty()) {
        // A command stands two spaces in; what follows it may go on in the next line.
        let name = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '));
        if let Some(name) = name
            .and_then(|rest| rest.split_whitespace().next())
            .filter(|name| *name != "help")
        {
            let inner: Vec<&str> = words.iter().copied().chain([name]).collect();
            help(page, program, &inner);
        }
    }
}

/// A definition: an object's keys, or what it may be instead.
pub(crate) fn shape(page: &mut String, part: &Value) {
    if part.get("properties").is_some() {
        return keys(page, part);
    }
    let ways = ["oneOf", "anyOf"]
        .iter()
        .find_map(|key| part.get(*key)?.as_array());
    match ways {
        Some(ways) => {
            for way in ways {
                let kind = way
                    .pointer("/properties/type/const")
                    .map_or_else(|| kind(way), |kind| format!("`\"type\": {kind}`"));
                let why = way
                    .get("description")
                    .map(|why| format!(": {}", cell(text(why))))
                    .unwrap_or_default();
                write(page, &format!("- {kind}{why}\n"));
            }
            let objects = ways
                .iter()
                .filter(|way| way.pointer("/properties/type/const").is_some());
            for way in objects {
                write(
                    page,
                    &format!(
                        "\n### {} `{}`\n\n",
                        heading(part),
                        text(&way["properties"]["type"]["const"])
                    ),
                );
                keys(page, way);
            }
        }
        None => write(page, &format!("{}\n", kind(part))),
    }
}

fn heading(part: &Value) -> &'static str {
    // A provider and a tolerance rule have types of the same name.
    if text(&part["description"]).contains("judged") {
        "Tolerance"
    } else {
        "Type"
    }
}

pub(crate) fn keys(page: &mut String, schema: &Value) {
    write(page, "| key | type | meaning |\n|---|---|---|\n");
    rows(page, schema, "");
}

fn rows(page: &mut String, schema: &Value, within: &str) {
    let none = Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&none);
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (key, property) in properties {
        let must = if required.contains(&key.as_str()) {
            ", required"
        } else {
            ""
        };
        let mut meaning = cell(text(&property["description"]));
        if let Some(default) = property.get("default").filter(|default| !is_plain(default)) {
            write(
                &mut meaning,
                &format!(" Default: `{}`.", cell(&default.to_string())),
            );
        }
        write(
            page,
            &format!(
                "| `{within}{key}` | {}{must} | {} |\n",
                kind(property),
                meaning.trim()
            ),
        );
        for object in objects(property) {
            rows(page, object, &format!("{within}{key}."));
        }
    }
}

/// The objects that a key's value may be, where they are written in place.
fn objects(property: &Value) -> Vec<&Value> {
    let ways = property
        .get("anyOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    std::iter::once(property)
        .chain(ways)
        .filter(|way| way.get("properties").is_some())
        .collect()
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        // Its keys stand in rows of their own, with their defaults.
        Value::Object(_) => true,
        _ => false,
    }
}

/// A value's type in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
    {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(only) = schema.get("const") {
        return format!("`{only}`");
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .filter(|value| !value.is_null())
            .map(|value| format!("`{value}`"))
            .collect();
        return values.join(", ");
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(ways) = schema[key].as_array() {
            let mut kinds: Vec<String> = ways
                .iter()
                .filter(|way| way["type"] != "null")
                .map(kind)
                .collect();
            kinds.dedup();
            return kinds.join(" or ");
        }
    }
    if schema["format"] == "duration" {
        return "duration".into();
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many
            .iter()
            .filter_map(Value::as_str)
            .filter(|kind| *kind != "null")
            .collect(),
        _ => return "anything".into(),
    };
    let kinds: Vec<String> = types.iter().map(|kind| typed(kind, schema)).collect();
    kinds.join(" or ") + &bounds(schema)
}

fn typed(name: &str, schema: &Value) -> String {
    match (name, &schema["items"], &schema["additionalProperties"]) {
        ("array", items @ Value::Object(_), _) => format!("list of {}", kind(items)),
        ("array", ..) => "list".into(),
        ("object", _, inner @ Value::Object(_)) => format!("object of {}", kind(inner)),
        ("object", ..) => match schema["required"].as_array().map(Vec::as_slice) {
            // `{"count": 1}` and its like: one key is the whole of it.
            Some([key])
                if schema["properties"]
                    .as_object()
                    .is_some_and(|keys| keys.len() == 1) =>
            {
                format!("`{{{key}: …}}`")
            }
            _ => "object".into(),
        },
        ("integer", ..) => "whole number".into(),
        (other, ..) => other.into(),
    }
}

/// The least and the most, where they say more than the number's type does.
fn bounds(schema: &Value) -> String {
    let figure = |key: &str| schema[key].as_f64().filter(|figure| figure.abs() < 1e9);
    match (
        figure("minimum").filter(|least| *least != 0.0 || schema["maximum"] == 100),
        figure("maximum"),
    ) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) => format!(", {least} or more"),
        (None, Some(most)) => format!(", up to {most}"),
        (None, None) => String::new(),
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text that may stand in a table.
pub(crate) fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

pub(crate) fn write(page: &mut String, text: &str) {
    // Writing to a string cannot fail.
    page.write_str(text).expect("a string takes text");
}
