//! A Prometheus instant query whose answer is one number. Prometheus is the instrument, not what
//! is measured: when it does not answer, the check is broken and nothing is known.

use super::{
    HttpProvider, HttpTimeout, ProbeError, ProbeProvider, ProbeResult, Transport, address,
    network_limit, written_address,
};
use crate::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// A Prometheus query with one number as its answer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PrometheusProvider {
    /// The server, e.g. `http://127.0.0.1:9090`.
    pub url: String,
    /// The query, in PromQL.
    pub query: String,
    /// The longest it may take. 5 s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

impl ProbeProvider for PrometheusProvider {
    /// Source: Prometheus' HTTP API, "Instant queries".
    fn transport(&self, timeout: Option<HumanDuration>) -> Transport<'_> {
        Transport::Http(Cow::Owned(HttpProvider {
            refuses_redirects: false,
            url: format!("{}/api/v1/query", self.url.trim_end_matches('/')),
            method: None,
            headers: None,
            arguments: Some(json!({"query": self.query})),
            timeout: Some(HttpTimeout::Whole(network_limit(self.timeout, timeout))),
            verify_tls: None,
            max_retries: None,
        }))
    }

    fn judge(&self, answer: ProbeResult) -> ProbeResult {
        let answer = answer.map_err(|error| match error {
            ProbeError::NoAnswer(why) | ProbeError::Broken(why) => {
                ProbeError::Broken(format!("Prometheus: {why}"))
            }
        })?;
        number(&answer["body"])
            .map(Value::from)
            .map_err(ProbeError::Broken)
    }

    fn time_limit(&self, timeout: Option<HumanDuration>) -> Option<HumanDuration> {
        Some(network_limit(self.timeout, timeout))
    }

    fn written_address_problem(written: &Map<String, Value>) -> Option<(&'static str, String)> {
        let url = written_address(written, "url")?;
        Some(("url", address::of_web(url).err()?))
    }
}

fn number(body: &Value) -> Result<f64, String> {
    if body["status"] != "success" {
        return Err(match body["error"].as_str() {
            Some(error) => format!("Prometheus refused the query: {error}"),
            None => "what answered is not Prometheus".into(),
        });
    }
    let data = &body["data"];
    let sample = match data["resultType"].as_str() {
        Some("scalar") => &data["result"],
        Some("vector") => match data["result"].as_array().map(Vec::as_slice) {
            Some([one]) => &one["value"],
            Some([]) => return Err("the query found no series".into()),
            Some(many) => {
                return Err(format!(
                    "the query found {} series, expected one: `sum` or `avg` them",
                    many.len()
                ));
            }
            None => return Err("what answered is not Prometheus".into()),
        },
        other => {
            return Err(format!(
                "the query gives a {}, not a number",
                other.unwrap_or("result without a type")
            ));
        }
    };
    let number = sample[1].as_str().and_then(|text| text.parse::<f64>().ok());
    number
        .filter(|n| n.is_finite())
        .ok_or_else(|| format!("the query gives {}, which is not a number", sample[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_taken_and_anything_else_is_said_in_words() {
        let body = |data: Value| json!({"status": "success", "data": data});
        let one =
            json!({"resultType": "vector", "result": [{"metric": {}, "value": [1.0, "42.5"]}]});
        assert_eq!(number(&body(one)), Ok(42.5));
        assert_eq!(
            number(&body(json!({"resultType": "scalar", "result": [1.0, "3"]}))),
            Ok(3.0)
        );
        let none = json!({"resultType": "vector", "result": []});
        assert!(number(&body(none)).unwrap_err().contains("no series"));
        let two =
            json!({"resultType": "vector", "result": [{"value": [1, "1"]}, {"value": [1, "2"]}]});
        assert!(number(&body(two)).unwrap_err().contains("2 series"));
        let nan = json!({"resultType": "scalar", "result": [1.0, "NaN"]});
        assert!(number(&body(nan)).unwrap_err().contains("NaN"));
        assert!(
            number(&json!({"status": "error", "error": "parse error"}))
                .unwrap_err()
                .contains("parse error")
        );
        assert!(number(&Value::Null).is_err());
    }
}
