//! What is done to what goes one way through a proxy, as people write it.

use crate::units::{Rate, Size, range_hint};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done to what goes one way. What is left out is not done; nothing at all: it goes on as it comes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StreamEffects {
    /// All of it arrives this much later, its end too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<HumanDuration>,
    /// The latency of each piece is this much more or less, evenly spread. Nothing overtakes: this is TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<HumanDuration>,
    /// The most that passes in a second, for each connection: `"100KB"`, or in bits `"1Mbit/s"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Rate>,
    /// It is cut into small pieces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slicer: Option<Slicer>,
    /// The connection is closed, both ways, when so much has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_data: Option<Size>,
    /// That one end has closed its side is told to the other this much later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_close: Option<HumanDuration>,
    /// Nothing passes, and the connection is closed, both ways, after this time. Longer than the fault: it is never closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// How something is cut into pieces. Each is sent by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Slicer {
    /// How large a piece is, on average.
    pub size: Size,
    /// A piece is at the most this much larger or smaller than that, evenly spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variation: Option<Size>,
    /// How long is waited after each piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<HumanDuration>,
}

/// What is longer would not be seen to end.
const MAX_DELAY: HumanDuration = HumanDuration::seconds(3600);

impl StreamEffects {
    /// Whether nothing is done.
    pub fn is_none(&self) -> bool {
        *self == StreamEffects::default()
    }

    /// What is wrong with it beyond what its schema says; `at` is its place.
    pub fn problems(&self, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, what: String, hint: &str| {
            problems.push(Problem::new(format!("{at}{key}"), what).hint(hint));
        };
        if self.is_none() {
            wrong(
                "",
                "no harm is chosen".into(),
                "one of `latency`, `bandwidth`, `slicer`, `limit-data`, `slow-close` and `timeout`, or leave it out",
            );
        }
        for (key, span) in [
            (".latency", self.latency),
            (".jitter", self.jitter),
            (".slow-close", self.slow_close),
            (".timeout", self.timeout),
            (
                ".slicer.delay",
                self.slicer.as_ref().and_then(|slicer| slicer.delay),
            ),
        ] {
            if let Some(span) = span
                && (span.0.is_zero() || span > MAX_DELAY)
            {
                let what = format!("{span} is no time for this");
                wrong(key, what, &range_hint(span, MAX_DELAY));
            }
        }
        for (key, size) in [
            (".bandwidth", self.bandwidth.map(|Rate(bytes)| Size(bytes))),
            (".limit-data", self.limit_data),
            (
                ".slicer.size",
                self.slicer.as_ref().map(|slicer| slicer.size),
            ),
        ] {
            if size == Some(Size(0)) {
                wrong(
                    key,
                    "nothing would pass".into(),
                    "a size above zero; `timeout` lets nothing pass",
                );
            }
        }
        if let Some(jitter) = self.jitter
            && jitter > self.latency.unwrap_or_default()
        {
            wrong(
                ".jitter",
                "`jitter` is more than `latency`".into(),
                "nothing arrives before it was sent: give a latency that is as long",
            );
        }
        if let Some(slicer) = &self.slicer
            && slicer
                .variation
                .is_some_and(|variation| variation >= slicer.size)
            && slicer.size.0 > 0
        {
            wrong(
                ".slicer.variation",
                "some pieces would have nothing in them".into(),
                "less than `size`",
            );
        }
        if self.timeout.is_some()
            && *self
                != (StreamEffects {
                    timeout: self.timeout,
                    ..StreamEffects::default()
                })
        {
            wrong(
                ".timeout",
                "nothing passes, so nothing else can be done to it".into(),
                "give `timeout` alone, or leave it out",
            );
        }
        problems
    }

    /// What it does, for people; empty where it does nothing.
    pub(super) fn describe(&self) -> String {
        let mut parts = Vec::new();
        match (self.latency, self.jitter) {
            (Some(latency), Some(jitter)) => parts.push(format!("{latency} ± {jitter} later")),
            (Some(latency), None) => parts.push(format!("{latency} later")),
            _ => {}
        }
        if let Some(bandwidth) = self.bandwidth {
            parts.push(format!("{} a second at the most", Size(bandwidth.0)));
        }
        if let Some(slicer) = &self.slicer {
            let mut part = format!("in pieces of {}", slicer.size);
            if let Some(variation) = slicer.variation {
                part += &format!(" ± {variation}");
            }
            if let Some(delay) = slicer.delay {
                part += &format!(" with {delay} between them");
            }
            parts.push(part);
        }
        if let Some(limit) = self.limit_data {
            parts.push(format!("closed after {limit}"));
        }
        if let Some(delay) = self.slow_close {
            parts.push(format!("its end {delay} later"));
        }
        if let Some(timeout) = self.timeout {
            parts.push(format!("nothing, and closed after {timeout}"));
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn stream_effects_invalid_are_refused_with_their_path() {
        for (harm, places) in [
            (json!({}), vec!["$.x"]),
            (json!({"latency": "0s"}), vec!["$.x.latency"]),
            (json!({"latency": "2h"}), vec!["$.x.latency"]),
            (
                json!({"latency": "1ms", "jitter": "2ms"}),
                vec!["$.x.jitter"],
            ),
            (json!({"jitter": "2ms"}), vec!["$.x.jitter"]),
            (
                json!({"bandwidth": 0, "limit-data": "0B", "slicer": {"size": 0}}),
                vec!["$.x.bandwidth", "$.x.limit-data", "$.x.slicer.size"],
            ),
            (
                json!({"slicer": {"size": 10, "variation": 10}}),
                vec!["$.x.slicer.variation"],
            ),
            (
                json!({"timeout": "1s", "latency": "1s"}),
                vec!["$.x.timeout"],
            ),
            (
                json!({"latency": "5ms", "jitter": "5ms", "bandwidth": "1KB", "slow-close": "1s",
                       "slicer": {"size": 10, "variation": 9, "delay": "1ms"}, "limit-data": 1}),
                vec![],
            ),
        ] {
            let read: StreamEffects =
                serde_json::from_value(harm.clone()).expect("it has the form");
            let problems = read.problems("$.x");
            let found: Vec<&str> = problems.iter().map(|problem| problem.at.as_str()).collect();
            assert_eq!(found, places, "{harm}");
        }
    }
}
