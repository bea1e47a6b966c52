//! What became of the requests of a load.

use super::LatencyHistogram;
use crate::probes::{ProbeError, ProbeResult};
use core::time::Duration;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestEnd {
    /// It was answered in full, with this status.
    Answered(u16),
    /// It was given up before it was sent in full, for this kind of reason.
    NotSent(&'static str),
    /// It was sent and not answered in full, for this kind of reason.
    Unanswered(&'static str),
}

/// What became of the requests of a load that were due so far.
#[derive(Debug, Clone, Default)]
pub struct LoadTally {
    /// Requests that were due and of which the end is known.
    pub requests: u64,
    /// Those that were sent in full.
    pub sent: u64,
    /// Those that were answered in full, with whatever status.
    pub answered: u64,
    /// Those that failed: not answered, or with a status of 400 or more.
    pub failed: u64,
    /// Failures by kind, such as `timeout` or `status-503`.
    pub errors: BTreeMap<String, u64>,
    /// How many answers had each status.
    pub statuses: BTreeMap<u16, u64>,
    /// How long answers took from when their requests were due. A request that timed out or was never sent for want of a free connection
    /// counts with the time for which it had waited; one that failed otherwise does not count.
    pub latency: LatencyHistogram,
}

/// The request waited for a free connection until its time was over.
pub(super) const UNSENT: &str = "unsent";
/// No answer, or no connection, in time.
pub(super) const TIMEOUT: &str = "timeout";
/// What came is no HTTP/1.
pub(super) const PROTOCOL: &str = "protocol";

/// The kind of failure that an error of a connection is.
pub(super) fn failure_kind(error: &io::Error) -> &'static str {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused",
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            "reset"
        }
        ErrorKind::UnexpectedEof => "closed",
        ErrorKind::TimedOut | ErrorKind::WouldBlock => TIMEOUT,
        ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::PermissionDenied => "unreachable",
        ErrorKind::InvalidData => "tls",
        // This host has no port or no descriptor left.
        _ => "connection",
    }
}

impl LoadTally {
    /// Counts a request's end, this long after it was due.
    pub(super) fn record(&mut self, end: RequestEnd, after: Duration) {
        self.requests += 1;
        let kind = match end {
            RequestEnd::Answered(status) => {
                self.sent += 1;
                self.answered += 1;
                *self.statuses.entry(status).or_default() += 1;
                self.latency.record(after);
                if status < 400 {
                    return;
                }
                format!("status-{status}")
            }
            RequestEnd::Unanswered(kind) => {
                self.sent += 1;
                kind.to_owned()
            }
            RequestEnd::NotSent(kind) => kind.to_owned(),
        };
        if [TIMEOUT, UNSENT].contains(&kind.as_str()) {
            self.latency.record(after);
        }
        self.failed += 1;
        *self.errors.entry(kind).or_default() += 1;
    }

    /// Requests that were never sent, since no connection was free in time.
    pub fn unsent(&self) -> u64 {
        self.errors.get(UNSENT).copied().unwrap_or(0)
    }

    /// A latency in milliseconds.
    fn milliseconds(latency: Option<Duration>) -> Value {
        latency.map_or(Value::Null, |latency| {
            json!(latency.as_micros() as f64 / 1000.0)
        })
    }

    /// The value of a probe that took this long: latencies in milliseconds, rates per second, and shares from 0 to 1.
    ///
    /// # Errors
    /// No request was answered.
    pub fn value(&self, took: Duration) -> ProbeResult {
        if self.answered == 0 {
            let kinds = self.errors.iter();
            let kinds: Vec<String> = kinds
                .map(|(kind, count)| format!("{kind}: {count}"))
                .collect();
            return Err(ProbeError::NoAnswer(format!(
                "none of {} requests was answered ({})",
                self.requests,
                kinds.join(", ")
            )));
        }
        let seconds = took.as_secs_f64().max(1e-3);
        let rounded = |number: f64| (number * 1e6).round() / 1e6;
        let mut value = Map::new();
        let counts = [
            ("requests", json!(self.requests)),
            ("sent", json!(self.sent)),
            ("answered", json!(self.answered)),
            ("failed", json!(self.failed)),
            ("unsent", json!(self.unsent())),
            (
                "error_rate",
                json!(rounded(self.failed as f64 / self.requests as f64)),
            ),
            (
                "rate",
                json!((self.answered as f64 / seconds * 10.0).round() / 10.0),
            ),
        ];
        value.extend(counts.map(|(key, count)| (key.to_owned(), count)));
        let shares = [
            ("p50", 0.5),
            ("p90", 0.9),
            ("p95", 0.95),
            ("p99", 0.99),
            ("p999", 0.999),
        ];
        for (key, share) in shares {
            value.insert(key.into(), Self::milliseconds(self.latency.quantile(share)));
        }
        value.insert("mean".into(), Self::milliseconds(self.latency.mean()));
        value.insert("max".into(), Self::milliseconds(self.latency.longest()));
        value.insert("errors".into(), json!(self.errors));
        value.insert("statuses".into(), json!(self.statuses));
        Ok(Value::Object(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tally_what_waited_counts_as_latency_and_what_was_refused_does_not() {
        let mut tally = LoadTally::default();
        let second = Duration::from_secs(1);
        tally.record(RequestEnd::NotSent("refused"), Duration::from_micros(10));
        let nothing = tally.value(second);
        assert!(
            matches!(&nothing, Err(ProbeError::NoAnswer(why)) if why.contains("refused: 1")),
            "{nothing:?}"
        );
        tally.record(RequestEnd::Answered(200), Duration::from_millis(2));
        tally.record(RequestEnd::Answered(503), Duration::from_millis(2));
        tally.record(RequestEnd::Unanswered(TIMEOUT), second);
        tally.record(RequestEnd::NotSent(UNSENT), second);
        let value = tally.value(second).unwrap();
        assert_eq!(value["requests"], 5);
        assert_eq!((&value["sent"], &value["answered"]), (&json!(3), &json!(2)));
        assert_eq!((&value["unsent"], &value["failed"]), (&json!(1), &json!(4)));
        assert_eq!(value["error_rate"], 0.8);
        assert_eq!(value["statuses"], json!({"200": 1, "503": 1}));
        assert_eq!(
            value["errors"],
            json!({"refused": 1, "status-503": 1, "timeout": 1, "unsent": 1})
        );
        let p50 = value["p50"].as_f64().unwrap();
        assert!((p50 - 2.0).abs() < 0.01, "{value}");
        assert_eq!(value["max"], 1000.0);
    }
}
