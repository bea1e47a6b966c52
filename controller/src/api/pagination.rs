//! Long lists are returned page by page.

use super::problem::ApiProblem;
use super::types::safe_integer::safe_integer;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

/// A page of a list that is ordered by number.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageByNumber {
    /// Return items after this number.
    #[serde(default, deserialize_with = "safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    pub after: u64,
    /// The greatest number of items to return, from 1 to 1000. The default is 100.
    #[serde(default = "default_page_size")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: u32,
}

pub(super) fn default_page_size() -> u32 {
    100
}

/// Refuses a page size that is out of range.
pub(super) fn page(limit: u32) -> Result<u32, ApiProblem> {
    match limit {
        1..=1000 => Ok(limit),
        _ => Err(ApiProblem::new(
            StatusCode::BAD_REQUEST,
            "query",
            format!("`limit` is out of range: {limit}"),
        )
        .hint("use 1 to 1000")),
    }
}

/// A page of a list that is ordered by name.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageByName {
    /// Return items after this name.
    pub after: Option<String>,
    /// The greatest number of items to return, from 1 to 1000. The default is 100.
    #[serde(default = "default_page_size")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: u32,
}
