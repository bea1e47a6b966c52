//! `memory-fill`: takes memory, as a leak would. The process that takes it is the kernel's first victim when
//! memory runs out, so that no other process is killed for it.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{HelperSpec, MemoryBallast};
use crate::units::{Size, bytes_of, check_size_or_percent};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Takes memory. Give exactly one of `size` and `percent`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MemoryFill {
    /// How much to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<Size>,
    /// How much to take, in percent of all memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    percent: Option<f64>,
    /// Available memory that is always left to others. Default: 5 % of all memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserve: Option<Size>,
    /// Time over which the amount grows evenly from zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp: Option<HumanDuration>,
}

impl FaultKind for MemoryFill {
    const NAME: &'static str = "memory-fill";
    const SUMMARY: &'static str = "Take memory, down to a reserve";

    fn example() -> Value {
        json!({"size": "256MiB", "reserve": "512MiB", "ramp": "10s"})
    }

    fn problems(&self) -> Vec<Problem> {
        check_size_or_percent(self.size, self.percent, false)
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let memory = context
            .host
            .memory()
            .map_err(|error| Refusal::new("failed", error.to_string()))?;
        let wanted = bytes_of(self.size, self.percent, memory.total, 0);
        let reserve = self.reserve.map_or(memory.total / 20, |size| size.0);
        let possible = memory.available.saturating_sub(reserve);
        if possible == 0 {
            return Err(Refusal::new(
                "reserve",
                format!(
                    "{} of memory is available, but the reserve is {}",
                    Size(memory.available),
                    Size(reserve)
                ),
            )
            .hint("lower `reserve`, or free some memory"));
        }
        let mut notes = Vec::new();
        if possible < wanted {
            notes.push(format!(
                "{} would go below the reserve: taking {} instead",
                Size(wanted),
                Size(possible)
            ));
        }
        let bytes = wanted.min(possible);
        let name = format!(
            "{} of {} available memory, {} kept back",
            Size(bytes),
            Size(memory.available),
            Size(reserve)
        );
        Ok(Plan {
            victims: vec![Victim {
                kind: "memory".into(),
                id: "memory".into(),
                name,
            }],
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(MemoryBallast {
                    bytes,
                    reserve_bytes: reserve,
                    ramp: self.ramp,
                }),
            })],
            notes,
            ..Plan::default()
        })
    }
}
