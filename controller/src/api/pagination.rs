//! Pages of long lists.

use super::extract::safe_integer;
use super::problem::ApiProblem;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

/// A page of numbered things.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageByNumber {
    /// Those after this number.
    #[serde(default, deserialize_with = "safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    pub after: u64,
    /// At the most so many, 1 to 1000; 100 where left out.
    #[serde(default = "default_page_size")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: u32,
}

pub(super) fn default_page_size() -> u32 {
    100
}

/// A page's length that makes sense.
pub(super) fn page(limit: u32) -> Result<u32, ApiProblem> {
    match limit {
        1..=1000 => Ok(limit),
        _ => Err(ApiProblem::new(
            StatusCode::BAD_REQUEST,
            "query",
            format!("a `limit` of {limit} is none"),
        )
        .hint("1 to 1000")),
    }
}

/// A page of named things.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageByName {
    /// Those after this name.
    pub after: Option<String>,
    /// At the most so many, 1 to 1000; 100 where left out.
    #[serde(default = "default_page_size")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: u32,
}
