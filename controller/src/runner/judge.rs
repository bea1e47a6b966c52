//! What a measured value comes to: within, outside or unknown, with words for why.

use crate::providers::{Around, Measured, measure};
use backburn_experiments::document::Activity;
use backburn_experiments::journal::Judgement;
use backburn_experiments::tolerance::Judge;
use serde_json::Value;

/// An activity with its tolerance compiled, which is done once and not for each look.
pub(super) struct Judged {
    pub(super) activity: Activity,
    judge: Option<Result<Judge, String>>,
}

impl Judged {
    pub(super) fn new(activity: Activity) -> Self {
        let judge = activity.tolerance.as_ref().map(Judge::compile);
        Judged { activity, judge }
    }

    /// Measures it, and judges where there is a tolerance.
    pub(super) async fn look(
        &self,
        around: &Around,
    ) -> (Measured, Option<(Judgement, Option<String>)>) {
        let measured = measure(&self.activity.provider, self.activity.timeout, around).await;
        let judged = match &self.judge {
            Some(Ok(judge)) => Some(self.judge(judge, &measured, around).await),
            Some(Err(why)) => Some((Judgement::Unknown, Some(why.clone()))),
            None => None,
        };
        (measured, judged)
    }

    async fn judge(
        &self,
        judge: &Judge,
        measured: &Measured,
        around: &Around,
    ) -> (Judgement, Option<String>) {
        let mut judge = judge;
        let mut measured = measured.clone();
        // A tolerance that is a probe is asked about the value, and its own answer judged; so may that be, in turn.
        loop {
            let value = match measured {
                Measured::Output(value) => value,
                Measured::NoAnswer(why) => return (Judgement::Outside, Some(why)),
                Measured::Broken(why) => return (Judgement::Unknown, Some(why)),
            };
            match judge.probe(&value) {
                Some(Ok((provider, inner))) => {
                    measured = measure(&provider, None, around).await;
                    judge = inner;
                }
                Some(Err(why)) => return (Judgement::Unknown, Some(why)),
                None => return self.accepted(judge, &value),
            }
        }
    }

    fn accepted(&self, judge: &Judge, value: &Value) -> (Judgement, Option<String>) {
        match judge.accepts(value) {
            Ok(true) => (Judgement::Within, None),
            Ok(false) => {
                let tolerance = serde_json::to_string(&self.activity.tolerance).unwrap_or_default();
                let why = format!("{} is out of tolerance {}", brief(value), cut(tolerance));
                (Judgement::Outside, Some(why))
            }
            Err(why) => (Judgement::Unknown, Some(why)),
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
