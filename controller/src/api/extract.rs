//! Extractors of bodies, queries and path parameters. A request that they reject is answered with a problem document.

use super::problem::ApiProblem;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use backburn_experiments::json;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// Longest name of an experiment or a token, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The body of a request, which must be a JSON object without duplicate keys.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiProblem;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiProblem> {
        let axum::Json(text) = axum::Json::<Box<RawValue>>::from_request(request, state).await?;
        let wrong = |what: String| ApiProblem::new(StatusCode::BAD_REQUEST, "body", what);
        let value = json::read(text.get()).map_err(|problems| {
            wrong(format!("the body: {}", json::in_one_line(&problems)))
                .with_document_problems(problems)
        })?;
        // Serde reads a struct from a list of its fields, too, which nobody intends.
        if !value.is_object() {
            return Err(wrong("the body is not a JSON object".into()));
        }
        let read = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        Ok(JsonBody(read))
    }
}

/// The parameters in the query of a request's URL.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiProblem))]
pub struct QueryParams<T>(pub T);

/// The parameters in the path of a request's URL.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiProblem))]
pub struct PathParam<T>(pub T);

impl From<JsonRejection> for ApiProblem {
    fn from(rejection: JsonRejection) -> Self {
        let status = match rejection.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            other => other,
        };
        ApiProblem::new(status, "body", rejection.body_text())
    }
}

impl From<QueryRejection> for ApiProblem {
    fn from(rejection: QueryRejection) -> Self {
        ApiProblem::new(StatusCode::BAD_REQUEST, "query", rejection.body_text())
    }
}

impl From<PathRejection> for ApiProblem {
    fn from(rejection: PathRejection) -> Self {
        ApiProblem::new(StatusCode::BAD_REQUEST, "path", rejection.body_text())
    }
}

/// Refuses a name that is not safe in a path, in a file's name and in a log. `kind` says what is named, e.g. `an experiment`.
pub(super) fn check_name(name: &str, kind: &str) -> Result<(), ApiProblem> {
    let is_valid = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match is_valid {
        true => Ok(()),
        false => Err(ApiProblem::new(
            StatusCode::BAD_REQUEST,
            "name",
            format!("`{}` is not a valid name for {kind}", name.escape_debug()),
        )
        .hint(format!(
            "use at most {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`, and begin with a letter or a digit"
        ))),
    }
}

/// Longest name of a person, in bytes: an address of e-mail is one.
const MAX_PERSON_BYTES: usize = 128;

/// Refuses a name of a person that could not be written in a command or a policy.
pub(super) fn check_person(person: &str) -> Result<(), ApiProblem> {
    let is_valid = person.len() <= MAX_PERSON_BYTES
        && person.starts_with(|c: char| c.is_ascii_alphanumeric())
        && person
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
    match is_valid {
        true => Ok(()),
        false => Err(ApiProblem::new(
            StatusCode::BAD_REQUEST,
            "name",
            format!("`{}` is not a valid name for a person", person.escape_debug()),
        )
        .hint(format!(
            "use at most {MAX_PERSON_BYTES} letters, digits, `-`, `_`, `.` and `@`, and begin with a letter or a digit"
        ))),
    }
}
