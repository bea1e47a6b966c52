//! A load over HTTP: how long answers take, and how many requests fail, when they come at a given rate.

use super::LoadSchedule;
use crate::probes::http::web_address_problems;
use crate::probes::{
    HttpProvider, HttpRequest, ProbeProvider, Transport, address, network_limit, written_address,
};
use crate::problem::at_key;
use crate::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How long requests are due where nothing is said: as long as a probe of the hypothesis has until the next.
const DEFAULT_DURATION: HumanDuration = HumanDuration::seconds(1);
/// The longest load of a probe.
const MAX_DURATION: HumanDuration = HumanDuration::seconds(1800);
/// How many connections may be open at a time where nothing is said.
const DEFAULT_CONNECTIONS: u32 = 100;
/// What finding the addresses of a name may take besides.
const LOOKUP_TIMEOUT: HumanDuration = HumanDuration::seconds(5);

/// Requests at a rate, whether or not earlier ones were answered. Latency counts from when a request was due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LoadProvider {
    /// The address, `http://` or `https://`. Redirects are not followed.
    #[schemars(length(min = 1))]
    pub url: String,
    /// How many requests per second.
    #[schemars(range(min = 0.01, max = 100_000.0))]
    pub rate: f64,
    /// How long requests are sent at that rate. 1 s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// The time at the beginning over which the rate rises evenly from 0. None where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<HumanDuration>,
    /// How many requests are due at the same moment; there is then a longer pause, and the rate stays the same. 1 where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<u32>,
    /// How long after it was due a request is given up, sent or not. 5 s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// The most connections at a time. Where all are busy, requests wait, and their latency counts. 100 where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub connections: Option<u32>,
    /// The method. `GET` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Header fields of each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, Value>>,
    /// The query of a GET; the body of anything else, as with `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// Whether the server's certificate is checked. True where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_tls: Option<bool>,
}

impl LoadProvider {
    /// The request that is sent each time.
    pub(crate) fn http(&self) -> HttpProvider {
        HttpProvider {
            url: self.url.clone(),
            method: self.method.clone(),
            headers: self.headers.clone(),
            arguments: self.arguments.clone(),
            timeout: None,
            verify_tls: self.verify_tls,
            max_retries: None,
            refuses_redirects: true,
        }
    }

    /// When requests are due.
    pub fn schedule(&self) -> LoadSchedule {
        LoadSchedule {
            rate: self.rate,
            burst: self.burst.unwrap_or(1),
            ramp: self.ramp.unwrap_or_default(),
            duration: Some(self.duration.unwrap_or(DEFAULT_DURATION)),
        }
    }

    /// How long after it was due a request is given up. `timeout` is the activity's.
    pub fn request_timeout(&self, timeout: Option<HumanDuration>) -> HumanDuration {
        network_limit(self.timeout, timeout)
    }

    /// The most connections at a time.
    pub fn connections(&self) -> u32 {
        self.connections.unwrap_or(DEFAULT_CONNECTIONS)
    }

    /// What is wrong with the request and its times, whatever they are for. `at` is the JSON path of what has the keys.
    pub fn request_problems(&self, at: &str) -> Vec<Problem> {
        let mut problems = web_address_problems(&self.url, at);
        if problems.is_empty()
            && !self.url.is_empty()
            && let Err(what) = HttpRequest::new(&self.http())
        {
            problems.push(Problem::new(at, what));
        }
        if self.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            let what = "no request can be answered in no time";
            problems.push(Problem::new(at_key(at, "timeout"), what).hint("such as `1s`"));
        }
        problems
    }
}

impl ProbeProvider for LoadProvider {
    fn transport(&self, _: Option<HumanDuration>) -> Transport<'_> {
        Transport::Load(self)
    }

    fn time_limit(&self, timeout: Option<HumanDuration>) -> Option<HumanDuration> {
        let parts = [
            self.duration.unwrap_or(DEFAULT_DURATION),
            self.request_timeout(timeout),
            LOOKUP_TIMEOUT,
        ];
        let whole = parts.iter().fold(HumanDuration::default().0, |sum, part| {
            sum.saturating_add(part.0)
        });
        Some(HumanDuration(whole))
    }

    fn problems(&self, at: &str) -> Vec<Problem> {
        let mut problems = self.request_problems(at);
        let duration = self.duration.unwrap_or(DEFAULT_DURATION);
        if duration.0.is_zero() || duration > MAX_DURATION {
            let what = format!("a load cannot last {duration}");
            let hint = format!("more than 0 and at most {MAX_DURATION}");
            problems.push(Problem::new(at_key(at, "duration"), what).hint(hint));
        }
        if self.ramp.is_some_and(|ramp| ramp > duration) {
            let what = format!("the load ends after {duration}, before the ramp does");
            problems.push(Problem::new(at_key(at, "ramp"), what).hint("raise `duration`"));
        }
        problems
    }

    fn written_address_problem(written: &Map<String, Value>) -> Option<(&'static str, String)> {
        let url = written_address(written, "url").filter(|url| address::is_of_web(url))?;
        Some(("url", address::of_web(url).err()?))
    }
}
