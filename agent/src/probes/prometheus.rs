//! A Prometheus instant query whose answer is one number.

use super::http;
use backburn_experiments::HumanDuration;
use backburn_experiments::document::PrometheusProvider;
use backburn_experiments::probes::{NoValue, prometheus};
use serde_json::Value;

/// The number.
pub(super) fn measure(
    provider: &PrometheusProvider,
    timeout: Option<HumanDuration>,
) -> Result<Value, NoValue> {
    let request = prometheus::request(provider, timeout);
    prometheus::value(http::measure(&request, timeout))
}
