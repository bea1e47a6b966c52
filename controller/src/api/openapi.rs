//! What the OpenAPI description says of every operation alike: a unique id, the required role, the problems that any
//! operation of its kind can answer with, and the schema of the experiment document.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use utoipa::IntoResponses;
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};

/// Where the schema of the experiment document stands in the description.
const DOCUMENT_SCHEMA: &str = "#/components/schemas/Document";

/// Adds what all operations have in common.
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
        rebase_references(&mut document, DOCUMENT_SCHEMA);
        schemas.insert("Document".into(), document);
        for (name, mut schema) in [
            (
                "GameDayFile",
                backburn_experiments::game_day::game_day_schema(),
            ),
            ("NoteContent", backburn_experiments::game_day::note_schema()),
        ] {
            if let Some(schema) = schema.as_object_mut() {
                schema.remove("$schema");
                schema.remove("$id");
            }
            rebase_references(&mut schema, &format!("#/components/schemas/{name}"));
            schemas.insert(name.into(), schema);
        }
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
    // Several handlers are called `list`, but generators of clients need a unique id for each operation.
    operation.insert("operationId".into(), json!(format!("{tag}_{name}")));
    let role = operation.get("security").map(|security| {
        let role = security.pointer("/0/token/0");
        role.and_then(Value::as_str).unwrap_or_default().to_owned()
    });
    if let Some(role) = &role {
        append(operation, &format!("Requires role `{role}`."));
    }
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
    let mut also = |status: &str, applies: bool| {
        if applies && !responses.contains_key(status) {
            responses.insert(status.into(), json!(problem_response()));
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

/// Appends a sentence to the summary of an operation.
fn append(operation: &mut Map<String, Value>, sentence: &str) {
    let summary = operation.get("summary").and_then(Value::as_str);
    let summary = format!("{} {sentence}", summary.unwrap_or_default());
    operation.insert("summary".into(), json!(summary.trim_start()));
}

/// A problem that an operation answers with this HTTP status besides those that [`complete`] adds to every operation of its kind.
pub(super) struct ProblemStatus<const STATUS: u16>;

impl<const STATUS: u16> IntoResponses for ProblemStatus<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        BTreeMap::from([(STATUS.to_string(), problem_response().into())])
    }
}

/// An answer with a problem document.
fn problem_response() -> Response {
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new()
        .content("application/problem+json", content)
        .build()
}

/// The description of an answer with this status, unless its handler gives one.
fn means(status: &str) -> &'static str {
    match status {
        "200" => "Success",
        "201" => "Created",
        "202" => "Accepted",
        "204" => "Success, without content",
        "400" => "The request is malformed",
        "401" => "The token is missing or not valid",
        "403" => "The role of the token or a rule does not allow it",
        "404" => "It does not exist",
        "408" => "The request was not complete or not answered in time",
        "409" => "The current state does not allow it",
        "413" => "The body is too large",
        "415" => "The content type of the body is not JSON",
        "422" => "The document is not valid; `problems` lists all of its problems",
        "423" => "Another open run holds the lock",
        "503" => "The store or an agent does not answer",
        _ => "A problem",
    }
}

/// Rewrites references within the document's schema, which is now a part of a larger document.
fn rebase_references(schema: &mut Value, root: &str) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(to) if key == "$ref" => {
                        if let Some(part) = to.strip_prefix('#') {
                            *to = format!("{root}{part}");
                        }
                    }
                    _ => rebase_references(value, root),
                }
            }
        }
        Value::Array(values) => {
            values
                .iter_mut()
                .for_each(|value| rebase_references(value, root));
        }
        _ => {}
    }
}
