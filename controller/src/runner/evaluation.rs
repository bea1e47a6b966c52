//! What a measured value comes to: within, outside or unknown, with words for why.

use crate::providers::{ProbeContext, measure};
use backburn_experiments::wire::ProbeOutcome;
use backburn_experiments::document::{Activity, Provider};
use backburn_experiments::journal::Judgement;
use backburn_experiments::probes::within;
use backburn_experiments::tolerance::Judge;
use serde_json::Value;
use std::time::Duration;

/// How much longer than the probe itself an agent's answer may take. It ends probes by itself.
const AGENT_WITHIN: Duration = Duration::from_secs(15);

/// An activity with its tolerance compiled, which is done once and not for each look.
pub(super) struct Evaluator {
    pub(super) activity: Activity,
    judge: Option<Result<Judge, String>>,
}

impl Evaluator {
    pub(super) fn new(activity: Activity) -> Self {
        let judge = activity.tolerance.as_ref().map(Judge::compile);
        Evaluator { activity, judge }
    }

    /// Measures it, and judges where there is a tolerance.
    pub(super) async fn look(
        &self,
        context: &ProbeContext,
    ) -> (ProbeOutcome, Option<(Judgement, Option<String>)>) {
        // Where the only agent is this host's, we are where it is.
        if let Some(from) = self.activity.from.as_ref().filter(|_| context.is_fleet) {
            return self.look_from(from, context).await;
        }
        let measured = measure(&self.activity.provider, self.activity.timeout, context).await;
        let judged = match &self.judge {
            Some(Ok(judge)) => Some(self.judge(judge, &measured, context).await),
            Some(Err(why)) => Some((Judgement::Unknown, Some(why.clone()))),
            None => None,
        };
        (measured, judged)
    }

    /// Has each agent of a target measure it, and judges each.
    async fn look_from(
        &self,
        from: &str,
        context: &ProbeContext,
    ) -> (ProbeOutcome, Option<(Judgement, Option<String>)>) {
        let names = context.picks.get(from).map(Vec::as_slice);
        let names = names.unwrap_or_default();
        let mut asked = tokio::task::JoinSet::new();
        for name in names {
            let (name, agent) = (name.clone(), context.agents.get(name).cloned());
            let (provider, timeout) = (self.activity.provider.clone(), self.activity.timeout);
            asked.spawn(async move {
                let within = within(&provider, timeout).0 + AGENT_WITHIN;
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
                let measured = tokio::time::timeout(within, measured).await;
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
        judge: &Judge,
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
                    measured = measure(&provider, None, context).await;
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

/// A value in a few words.
pub(super) fn brief(value: &Value) -> String {
    match value.get("status") {
        Some(status) => format!("status {status}"),
        None => cut(value.to_string()),
    }
}

fn cut(text: String) -> String {
    const LONGEST: usize = 80;
    if text.chars().count() <= LONGEST {
        text
    } else {
        text.chars().take(LONGEST).chain(['…']).collect()
    }
}
