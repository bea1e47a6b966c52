//! What the description (OpenAPI) says of every operation alike: a name of its own, what it answers to who may not, to
//! a body that is none, and while the store can't be used; and the experiment document, which has a schema already.

use serde_json::{Map, Value, json};

/// Where the experiment document's schema is within the description.
const DOCUMENT_SCHEMA: &str = "#/components/schemas/Document";

/// Puts in what all operations have in common.
pub(super) fn complete(description: &mut Value) {
    if let Some(schemas) = description
        .pointer_mut("/components/schemas")
        .and_then(Value::as_object_mut)
    {
        let mut document = json!(backburn_experiments::schema::document_schema());
        if let Some(document) = document.as_object_mut() {
            document.remove("$schema");
            document.remove("$id");
        }
        rebase_references(&mut document);
        schemas.insert("Document".into(), document);
    }
    let paths = description.get_mut("paths").and_then(Value::as_object_mut);
    let paths = paths.into_iter().flatten();
    let operations = paths.filter_map(|(_, item)| item.as_object_mut());
    for (_, operation) in operations.flatten() {
        if let Some(operation) = operation.as_object_mut() {
            complete_operation(operation);
        }
    }
}

fn complete_operation(operation: &mut Map<String, Value>) {
    let word = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let (tag, name) = (
        word(operation.get("tags").and_then(|tags| tags.get(0))),
        word(operation.get("operationId")),
    );
    // Handlers are called `list` in several files; who makes a client of this needs one name for each.
    operation.insert("operationId".into(), json!(format!("{tag}_{name}")));
    let role = operation.get("security").map(|security| {
        let role = security.pointer("/0/token/0");
        role.and_then(Value::as_str).unwrap_or_default().to_owned()
    });
    let body = operation
        .get_mut("requestBody")
        .and_then(Value::as_object_mut);
    let has_body = body.is_some();
    if let Some(body) = body {
        body.insert("required".into(), json!(true));
    }
    let has_parameters = operation.contains_key("parameters");
    let Some(responses) = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let mut also = |status: &str, is_so: bool| {
        if is_so && !responses.contains_key(status) {
            let schema = json!({"$ref": "#/components/schemas/Problem"});
            let content = json!({"application/problem+json": {"schema": schema}});
            responses.insert(status.into(), json!({"content": content}));
        }
    };
    also("400", has_body || has_parameters);
    also("401", role.is_some());
    also("403", role.as_deref().is_some_and(|role| role != "viewer"));
    also("408", role.is_some());
    also("413", has_body);
    also("415", has_body);
    also("503", role.is_some());
    for (status, response) in responses.iter_mut() {
        if let Some(response) = response.as_object_mut() {
            response
                .entry("description")
                .or_insert(json!(means(status)));
        }
    }
    responses.sort_keys();
}

/// What an answer of this status means, where its handler does not say.
fn means(status: &str) -> &'static str {
    match status {
        "200" => "Here it is",
        "201" => "It is made",
        "202" => "It is begun",
        "204" => "It is done",
        "400" => "The request can't be understood",
        "401" => "There is no good token",
        "403" => "The token's role, or a rule, does not allow it",
        "404" => "There is no such thing",
        "408" => "The request was not whole, or not answered, in time",
        "409" => "It can't be done as things are",
        "413" => "The body is too long",
        "415" => "The body is not said to be JSON",
        "422" => "The experiment is wrong: `problems` says all of it",
        "503" => "The store, or an agent, does not answer",
        _ => "A problem",
    }
}

/// The document's schema has its parts within itself; here it is a part of something else.
fn rebase_references(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(to) if key == "$ref" => {
                        if let Some(part) = to.strip_prefix('#') {
                            *to = format!("{DOCUMENT_SCHEMA}{part}");
                        }
                    }
                    _ => rebase_references(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(rebase_references),
        _ => {}
    }
}
