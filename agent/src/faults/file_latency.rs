//! `file-latency`: operations on chosen files take longer, as on a slow or overloaded disk.

use super::file_operations::Operations;
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::{FileOperation, FileVerdict};
use crate::processes::OneOrMany;
use crate::units::range_hint;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Makes operations on files wait, whoever does them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileLatency {
    /// Files, and folders that stand for the files directly in them: absolute paths, one or a list.
    path: OneOrMany<PathBuf>,
    /// How long an operation waits.
    delay: HumanDuration,
    /// The delay is this much more or less, evenly spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jitter: Option<HumanDuration>,
    /// Which operations wait: `open`; `read`; `access` for reads, writes, truncations and mappings, which requires Linux 6.14. Default: `open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on: Option<OneOrMany<FileOperation>>,
    /// Chance of each operation to wait, in percent, drawn from the seed. Default: all operations.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
}

/// The longest delay: whoever waits cannot be killed meanwhile.
const MAX_DELAY: HumanDuration = HumanDuration::seconds(60);

impl FileLatency {
    fn operations(&self) -> Operations<'_> {
        Operations {
            path: &self.path,
            on: self.on.as_ref(),
            percent: self.percent,
        }
    }
}

impl FaultKind for FileLatency {
    const NAME: &'static str = "file-latency";
    const SUMMARY: &'static str = "Make operations on chosen files take longer";

    fn example() -> Value {
        json!({"path": "/var/lib/app/index", "delay": "20ms", "jitter": "5ms"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.operations().problems();
        if self.delay.0.is_zero() || self.delay > MAX_DELAY {
            problems.push(
                Problem::new(
                    "$.delay",
                    format!("an operation cannot wait for {}", self.delay),
                )
                .hint(range_hint(self.delay, MAX_DELAY)),
            );
        }
        if self.jitter.is_some_and(|jitter| jitter > self.delay) {
            problems.push(
                Problem::new("$.jitter", "`jitter` is more than `delay`")
                    .hint("give at most the delay"),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let verdict = FileVerdict::Delay {
            delay: self.delay,
            jitter: self.jitter.unwrap_or_default(),
        };
        self.operations().plan(verdict, context)
    }
}
