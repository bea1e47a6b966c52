//! `cpu-stress`: keeps processors busy, as a runaway job or a noisy neighbour would.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{CpuLoad, HelperSpec};
use backburn_experiments::HumanDuration;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::{Refusal, Victim};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Keeps processors busy by threads that compute nothing of use.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CpuStress {
    /// Number of threads. Default: one for each processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    workers: Option<u32>,
    /// How busy each thread is, in percent. Default: 100.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>", range(min = 1, max = 100))]
    load_percent: Option<f64>,
    /// Numbers of the processors to use, a list. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("title" = "list of processor numbers", "examples" = [[0], [0, 1]]))]
    cpus: Option<Vec<usize>>,
    /// Time over which the load grows evenly from zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp: Option<HumanDuration>,
}

impl FaultKind for CpuStress {
    const NAME: &'static str = "cpu-stress";
    const SUMMARY: &'static str = "Keep processors busy";

    fn example() -> Value {
        json!({"workers": 2, "load-percent": 80})
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let processors = context.host.processors();
        if let Some(cpus) = &self.cpus
            && let Some(missing) = cpus.iter().find(|cpu| **cpu >= processors)
        {
            return Err(
                Refusal::new("no-match", format!("there is no processor {missing}")).hint(format!(
                    "this host has {processors} processors, numbered 0 to {}",
                    processors - 1
                )),
            );
        }
        let on = self.cpus.as_ref().map_or(processors, Vec::len);
        let workers = self.workers.map_or(on, |workers| workers as usize);
        let load_percent = self.load_percent.unwrap_or(100.0);
        let mut notes = Vec::new();
        if workers as f64 * load_percent > on as f64 * 100.0 {
            notes.push(format!(
                "{workers} threads at {load_percent} % are more than {on} processors can give: they take all of its time"
            ));
        }
        let name =
            format!("{workers} threads at {load_percent} % on {on} of {processors} processors");
        Ok(Plan {
            victims: vec![Victim {
                kind: "processors".into(),
                id: "cpu".into(),
                name,
            }],
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(CpuLoad {
                    workers,
                    load_percent,
                    cpus: self.cpus.clone(),
                    ramp: self.ramp,
                }),
            })],
            notes,
            ..Plan::default()
        })
    }
}
