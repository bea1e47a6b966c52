//! A Prometheus instant query whose answer is one number.

use super::{NoValue, http};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::PrometheusProvider;
use backburn_experiments::probes::prometheus;
use serde_json::Value;

/// The number.
pub(super) async fn measure(
    provider: &PrometheusProvider,
    longest: Option<HumanDuration>,
) -> Result<Value, NoValue> {
    let request = prometheus::request(provider, longest);
    prometheus::value(http::measure(&request, longest).await)
}
