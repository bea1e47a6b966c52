//! What comes in: bodies, queries and path parts. What is wrong with them is said as a problem document.

use super::problem::ApiProblem;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use backburn_experiments::json;
use serde::de::{DeserializeOwned, Deserializer, Error, Unexpected, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The largest number that every client can write: JSON's numbers are doubles for many of them.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// The longest name.
const MAX_NAME_BYTES: usize = 64;

/// A body: a JSON object.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiProblem;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiProblem> {
        let axum::Json(text) = axum::Json::<Box<RawValue>>::from_request(request, state).await?;
        let wrong = |what: String| ApiProblem::new(StatusCode::BAD_REQUEST, "body", what);
        let value = json::read(text.get()).map_err(|problems| {
            wrong(format!("the body: {}", json::in_one_line(&problems))).places(problems)
        })?;
        // A struct would be read from a list of its fields, too, which nobody means.
        if !value.is_object() {
            return Err(wrong("the body is no JSON object".into()));
        }
        let read = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        Ok(JsonBody(read))
    }
}

struct SafeInteger;

impl Visitor<'_> for SafeInteger {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {MAX_SAFE_INTEGER}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        match number <= MAX_SAFE_INTEGER {
            true => Ok(number),
            false => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        // JSON has one kind of number: 1.0 is 1.
        if number.fract() == 0.0 && (0.0..=MAX_SAFE_INTEGER as f64).contains(&number) {
            return Ok(number as u64);
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }
}

/// Reads a number that every client can write and the store can keep.
pub(super) fn safe_integer<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_u64(SafeInteger)
}

/// The same, where there may be none.
pub(super) fn optional_safe_integer<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<u64>, D::Error> {
    struct IfAny;
    impl<'de> Visitor<'de> for IfAny {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            SafeInteger.expecting(f)
        }

        fn visit_none<E: Error>(self) -> Result<Option<u64>, E> {
            Ok(None)
        }

        fn visit_unit<E: Error>(self) -> Result<Option<u64>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Option<u64>, D::Error> {
            safe_integer(from).map(Some)
        }
    }
    from.deserialize_option(IfAny)
}

/// A query.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiProblem))]
pub struct QueryParams<T>(pub T);

/// Parts of the path.
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

/// A name that can stand in a path, in a file's name, and in a log.
pub(super) fn check_name(name: &str, of: &str) -> Result<(), ApiProblem> {
    let fine = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match fine {
        true => Ok(()),
        false => Err(ApiProblem::new(
            StatusCode::BAD_REQUEST,
            "name",
            format!("`{}` is no name for {of}", name.escape_debug()),
        )
        .hint(format!(
            "letters, digits, `-`, `_` and `.`, {MAX_NAME_BYTES} at the most, the first a letter or a digit"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_number_is_one_that_every_client_can_write() {
        let read = |value: Value| optional_safe_integer(value).ok();
        assert_eq!(read(json!(7)), Some(Some(7)));
        assert_eq!(read(json!(7.0)), Some(Some(7)));
        assert_eq!(read(json!(MAX_SAFE_INTEGER)), Some(Some(MAX_SAFE_INTEGER)));
        assert_eq!(read(json!(null)), Some(None));
        for wrong in [
            json!(-1),
            json!(7.5),
            json!(MAX_SAFE_INTEGER + 1),
            json!(u64::MAX),
            json!(1e300),
            json!("7"),
            json!([]),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
