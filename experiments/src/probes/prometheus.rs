//! A Prometheus instant query whose answer is one number. Prometheus is the instrument, not what
//! is measured: when it does not answer, the check is broken and nothing is known.

use super::{NoValue, limit};
use crate::HumanDuration;
use crate::document::{HttpProvider, HttpTimeout, PrometheusProvider};
use serde_json::{Value, json};

/// The HTTP request that asks. Source: Prometheus' HTTP API, "Instant queries".
pub fn request(provider: &PrometheusProvider, longest: Option<HumanDuration>) -> HttpProvider {
    HttpProvider {
        url: format!("{}/api/v1/query", provider.url.trim_end_matches('/')),
        method: None,
        headers: None,
        arguments: Some(json!({"query": provider.query})),
        timeout: Some(HttpTimeout::Whole(limit(provider.timeout, longest))),
        verify_tls: None,
        max_retries: None,
    }
}

/// The number in what came back.
///
/// # Errors
/// Always that the check is broken.
pub fn value(answer: Result<Value, NoValue>) -> Result<Value, NoValue> {
    let answer = answer.map_err(|error| match error {
        NoValue::NoAnswer(why) | NoValue::Broken(why) => {
            NoValue::Broken(format!("Prometheus: {why}"))
        }
    })?;
    number(&answer["body"])
        .map(Value::from)
        .map_err(NoValue::Broken)
}

fn number(body: &Value) -> Result<f64, String> {
    if body["status"] != "success" {
        return Err(match body["error"].as_str() {
            Some(error) => format!("Prometheus refused the query: {error}"),
            None => "what answered is no Prometheus".into(),
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
                    "the query found {} series where one is wanted: `sum` or `avg` them",
                    many.len()
                ));
            }
            None => return Err("what answered is no Prometheus".into()),
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
        .ok_or_else(|| format!("the query gives {}, which is no number", sample[1]))
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
