//! What the faults that fail requests share: their plan.

use super::proxy_endpoints::{ProxyAddresses, ProxyEndpoints};
use super::{Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{HelperSpec, RequestProxy, RequestRule};
use crate::units::range_hint;
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};

/// The longest delay of a request: what is longer would not be seen to end.
const MAX_DELAY: HumanDuration = HumanDuration::seconds(3600);

/// What is common to all requests that are chosen.
pub(super) struct RequestFailure {
    pub(super) delay: Option<HumanDuration>,
    pub(super) abort: bool,
    pub(super) percent: Option<f64>,
}

impl RequestFailure {
    /// What is wrong with it. `answers` names the keys that answer a request; `is_answered` says whether one is given.
    pub(super) fn problems(&self, answers: &[&str], is_answered: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(delay) = self.delay
            && (delay.0.is_zero() || delay > MAX_DELAY)
        {
            problems.push(
                Problem::new("$.delay", format!("a request cannot wait for {delay}"))
                    .hint(range_hint(delay, MAX_DELAY)),
            );
        }
        let keys = answers.join("`, `");
        if self.delay.is_none() && !self.abort && !is_answered {
            problems.push(
                Problem::new("$", "no effect is given")
                    .hint(format!("give at least one of `delay`, `abort`, `{keys}`")),
            );
        }
        if self.abort && is_answered {
            problems.push(
                Problem::new(
                    "$.abort",
                    "a request whose connection is reset has no answer",
                )
                .hint(format!("give `abort`, or of `{keys}`")),
            );
        }
        if self.percent.is_some_and(|percent| percent <= 0.0) {
            problems.push(
                Problem::new("$.percent", "no request would be affected").hint("give more than 0"),
            );
        }
        problems
    }

    /// Plans a proxy between these ends, by this rule. `limits` says what it does not do.
    pub(super) fn plan(
        &self,
        endpoints: &ProxyEndpoints<'_>,
        rule: RequestRule,
        limits: &str,
        context: &PlanContext<'_>,
    ) -> Result<Plan, Refusal> {
        let ProxyAddresses {
            listen,
            upstream,
            mut notes,
        } = endpoints.find(context)?;
        notes.push(limits.to_owned());
        Ok(Plan {
            victims: vec![Victim {
                kind: "connections".into(),
                id: listen.to_string(),
                name: format!("requests to {listen}, passed on to {}", endpoints.upstream),
            }],
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(RequestProxy {
                    listen,
                    upstream_name: endpoints.upstream.to_owned(),
                    upstream,
                    rule,
                    delay: self.delay,
                    abort: self.abort,
                    percent: self.percent.unwrap_or(100.0),
                    seed: context.seed,
                }),
            })],
            notes,
            ..Plan::default()
        })
    }
}
