//! Measures an activity and judges its value: within, outside or unknown, and why.

use super::events::ActivityResult;
use crate::providers::{ProbeContext, measure};
use backburn_experiments::document::{Activity, Provider};
use backburn_experiments::journal::{ActivityStatus, Judgement};
use backburn_experiments::tolerance::CompiledTolerance;
use backburn_experiments::wire::ProbeOutcome;
use serde_json::Value;
use std::time::Duration;

/// How much longer than the probe itself an agent's answer may take. The agent ends probes by itself.
const AGENT_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// An activity with its tolerance compiled, which is done once and not for each sample.
pub(super) struct Evaluator {
    activity: Activity,
    judge: Option<Result<CompiledTolerance, String>>,
}

impl Evaluator {
    pub(super) fn new(activity: Activity) -> Self {
        let judge = activity.tolerance.as_ref().map(CompiledTolerance::compile);
        Evaluator { activity, judge }
    }

    /// Measures and judges it as a probe: what has no tolerance is unknown.
    pub(super) async fn sample(
        &self,
        context: &ProbeContext,
    ) -> (Judgement, Value, Option<String>) {
        let (measured, judged) = self.measure(context).await;
        let (judgement, why) =
            judged.unwrap_or((Judgement::Unknown, Some("it has no tolerance".into())));
        let output = match measured {
            ProbeOutcome::Output(output) => output,
            ProbeOutcome::NoAnswer(_) | ProbeOutcome::Broken(_) => Value::Null,
        };
        (judgement, output, why)
    }

    /// Runs it as an activity of the method or the rollbacks.
    pub(super) async fn run(&self, context: &ProbeContext) -> ActivityResult {
        let (measured, judged) = self.measure(context).await;
        let (judgement, why_judged) =
            judged.map_or((None, None), |(judgement, why)| (Some(judgement), why));
        let (status, output, why) = match measured {
            ProbeOutcome::Output(output) => (ActivityStatus::Succeeded, output, why_judged),
            ProbeOutcome::NoAnswer(why) | ProbeOutcome::Broken(why) => {
                (ActivityStatus::Failed, Value::Null, Some(why))
            }
        };
        ActivityResult {
            status,
            output,
            why,
            judgement,
        }
    }

    /// Measures it, and judges it where it has a tolerance.
    async fn measure(
        &self,
        context: &ProbeContext,
    ) -> (ProbeOutcome, Option<(Judgement, Option<String>)>) {
        // A local run's only agent is on this host, too.
        if let Some(from) = self.activity.from.as_ref().filter(|_| context.is_fleet) {
            return self.measure_from(from, context).await;
        }
        let measured = measure(&self.activity.provider, self.activity.time_limit(), context).await;
        let judged = match &self.judge {
            Some(Ok(judge)) => Some(self.judge(judge, &measured, context).await),
            Some(Err(why)) => Some((Judgement::Unknown, Some(why.clone()))),
            None => None,
        };
        (measured, judged)
    }

    /// Has each agent of a target measure it, and judges each.
    async fn measure_from(
        &self,
        from: &str,
        context: &ProbeContext,
    ) -> (ProbeOutcome, Option<(Judgement, Option<String>)>) {
        let names = context.picks.get(from).map(Vec::as_slice);
        let names = names.unwrap_or_default();
        let mut asked = tokio::task::JoinSet::new();
        for name in names {
            let (name, agent) = (name.clone(), context.agents.get(name).cloned());
            let (provider, timeout) = (self.activity.provider.clone(), self.activity.time_limit());
            asked.spawn(async move {
                let limit = provider
                    .probe()
                    .map(|probe| probe.time_limit_on_agent(timeout).0);
                let limit = limit.unwrap_or_default() + AGENT_ANSWER_TIMEOUT;
                let measured = async {
                    match (agent, provider) {
                        (None, _) => ProbeOutcome::Broken("it does not take part any more".into()),
                        (Some(agent), Provider::Host(host)) => match agent.measure(host).await {
                            Ok(figure) => ProbeOutcome::Output(figure.into()),
                            Err(why) => ProbeOutcome::Broken(why),
                        },
                        (Some(agent), provider) => agent.probe(provider, timeout).await,
                    }
                };
                let measured = tokio::time::timeout(limit, measured).await;
                let hangs = |_| ProbeOutcome::Broken("the agent does not answer".into());
                (name, measured.unwrap_or_else(hangs))
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut outputs = serde_json::Map::new();
        let (mut within, mut unknown, mut outside) = (0, Vec::new(), Vec::new());
        for (name, measured) in answers {
            let said = |why: Option<String>| format!("on `{name}`: {}", why.unwrap_or_default());
            let judged = match &self.judge {
                Some(Ok(judge)) => self.judge(judge, &measured, context).await,
                Some(Err(why)) => (Judgement::Unknown, Some(why.clone())),
                None => match &measured {
                    ProbeOutcome::Output(_) => (Judgement::Within, None),
                    ProbeOutcome::NoAnswer(why) => (Judgement::Outside, Some(why.clone())),
                    ProbeOutcome::Broken(why) => (Judgement::Unknown, Some(why.clone())),
                },
            };
            match judged {
                (Judgement::Within, _) => within += 1,
                (Judgement::Outside, why) => outside.push(said(why)),
                (Judgement::Unknown, why) => unknown.push(said(why)),
            }
            let output = match measured {
                ProbeOutcome::Output(output) => output,
                ProbeOutcome::NoAnswer(_) | ProbeOutcome::Broken(_) => Value::Null,
            };
            outputs.insert(name, output);
        }
        let wanted = self
            .activity
            .quorum
            .map_or(names.len(), |quorum| quorum as usize);
        let outputs = ProbeOutcome::Output(outputs.into());
        if within >= wanted.max(1) {
            return (outputs, Some((Judgement::Within, None)));
        }
        let of = format!(
            "{within} of {} in tolerance, and {wanted} must be",
            names.len()
        );
        let first = outside.first().or(unknown.first());
        let why = first.map_or(of.clone(), |first| format!("{of}; {first}"));
        // What could still be within is not known to be outside.
        let judgement = match within + unknown.len() >= wanted.max(1) {
            true => Judgement::Unknown,
            false => Judgement::Outside,
        };
        (outputs, Some((judgement, Some(why))))
    }

    async fn judge(
        &self,
        judge: &CompiledTolerance,
        measured: &ProbeOutcome,
        context: &ProbeContext,
    ) -> (Judgement, Option<String>) {
        let mut judge = judge;
        let mut measured = measured.clone();
        // A tolerance that is a probe is asked about the value, and its own answer judged; so may that be, in turn.
        loop {
            let value = match measured {
                ProbeOutcome::Output(value) => value,
                ProbeOutcome::NoAnswer(why) => return (Judgement::Outside, Some(why)),
                ProbeOutcome::Broken(why) => return (Judgement::Unknown, Some(why)),
            };
            match judge.probe(&value) {
                Some(Ok((provider, inner))) => {
                    measured = measure(&provider, provider.usual_time_limit(), context).await;
                    judge = inner;
                }
                Some(Err(why)) => return (Judgement::Unknown, Some(why)),
                None => {
                    let outcome = judge.accepts(&value);
                    let why = judge.reason(&value, &outcome, &context.redactor);
                    let judgement = match outcome {
                        Ok(true) => Judgement::Within,
                        Ok(false) => Judgement::Outside,
                        Err(_) => Judgement::Unknown,
                    };
                    return (judgement, why);
                }
            }
        }
    }
}
