//! The reference page of the controller's HTTP API, made from its own description (OpenAPI).

use crate::reference::{MADE, cell, keys, text, write};
use serde_json::Value;

/// The page, from `backburn openapi`.
pub fn page(description: &Value) -> String {
    let mut page = format!(
        "{MADE}# The HTTP API\n\n{} `backburn openapi` prints this as OpenAPI, and a controller serves it at `/api/v1/openapi.json`. A token goes into each request as `Authorization: Bearer TOKEN`; the certificate authority to trust is `authority/authority.crt` in the controller's data folder.\n",
        text(&description["info"]["description"])
    );
    let mut tags: Vec<&str> = Vec::new();
    let operations = operations(description);
    for (_, _, operation) in &operations {
        let tag = text(&operation["tags"][0]);
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    for tag in tags {
        write(&mut page, &format!("\n## {tag}\n"));
        let of_it = operations.iter();
        let of_it = of_it.filter(|(_, _, operation)| text(&operation["tags"][0]) == tag);
        for (method, path, operation) in of_it {
            write(
                &mut page,
                &format!("\n### `{} {path}`\n\n", method.to_uppercase()),
            );
            one(&mut page, operation);
        }
    }
    write(&mut page, "\n## Schemas\n");
    let schemas = description.pointer("/components/schemas");
    for (name, schema) in schemas.and_then(Value::as_object).into_iter().flatten() {
        if name == "Document" {
            let link = "[The experiment document](experiment.md)";
            write(&mut page, &format!("\n### Document\n\n{link}.\n"));
        } else if schema.get("oneOf").is_some() && schema.get("properties").is_none() {
            let why = text(&schema["description"]);
            write(&mut page, &format!("\n### {name}\n\n{why}\n"));
            for variant in schema["oneOf"].as_array().into_iter().flatten() {
                let why = text(&variant["description"]);
                write(&mut page, &format!("\n{why}\n\n"));
                keys(&mut page, variant);
            }
            let parts = schema["$defs"].as_object();
            for (part, schema) in parts.into_iter().flatten() {
                let why = text(&schema["description"]);
                write(&mut page, &format!("\n### {part}\n\n{why}\n\n"));
                keys(&mut page, schema);
            }
        } else if schema.get("properties").is_some() {
            let why = text(&schema["description"]);
            write(&mut page, &format!("\n### {name}\n\n{why}\n\n"));
            keys(&mut page, schema);
        }
    }
    page
}

fn operations(description: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = description["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            let item = item.as_object().into_iter().flatten();
            item.map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
        })
        .collect()
}

fn one(page: &mut String, operation: &Value) {
    let sentences = ["summary", "description"].map(|field| text(&operation[field]));
    let sentences = sentences.join(" ");
    write(page, &format!("{}\n\n", sentences.trim()));
    let parameters = operation["parameters"].as_array();
    for parameter in parameters.into_iter().flatten() {
        let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
        let why = cell(text(&parameter["description"]));
        write(page, &format!("- `{name}` (in the {place}): {why}\n"));
    }
    if let Some(body) = operation.pointer("/requestBody/content/application~1json/schema") {
        write(page, &format!("- the body: {}\n", shown(body)));
    }
    let responses = operation["responses"].as_object();
    let mut problems = Vec::new();
    for (status, response) in responses.into_iter().flatten() {
        if response
            .pointer("/content/application~1problem+json")
            .is_some()
        {
            problems.push(status.as_str());
            continue;
        }
        let content = response["content"].as_object().into_iter().flatten();
        let mut bodies = content.map(|(kind, content)| match shown(&content["schema"]).as_str() {
            "" => format!(": `{kind}`"),
            body if kind == "application/json" => format!(": {body}"),
            body => format!(": `{kind}`, {body}"),
        });
        let body = bodies.next().unwrap_or_default();
        let means = text(&response["description"]);
        write(page, &format!("- {status}: {means}{body}\n"));
    }
    if !problems.is_empty() {
        let link = "a [problem](#problemdetails)";
        write(page, &format!("- {}: {link}\n", problems.join(", ")));
    }
}

/// A schema in a few words, with a link to it.
fn shown(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    match text(&schema["type"]) {
        "array" => format!("a list of {}", shown(&schema["items"])),
        kind => kind.to_owned(),
    }
}
