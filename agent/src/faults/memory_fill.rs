//! `memory-fill`: takes memory, as a leak would. The process that takes it is the kernel's first victim when
//! memory runs out, so that no other process is killed for it.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{HelperSpec, MemoryBallast};
use crate::units::{Amount, Fill, Size};
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Takes memory. Give exactly one of `size`, `percent` and `until`. All memory is the limit of the agent's control group, where that is
/// lower than the host's memory, as in a container.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MemoryFill {
    /// How much to take: a size, or a percentage of all memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<Amount>,
    /// How much to take, in percent of all memory.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
    /// Level to fill to: as much is taken as is missing until so much of all memory is in use, that is, not available
    /// (`MemAvailable`): `"80%"`, or a size. A level that is reached already is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Amount>,
    /// Available memory that is always left to others: a size, or a percentage of all memory. Default: 5 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserve: Option<Amount>,
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
        self.fill().problems(false)
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let memory = context
            .host
            .memory()
            .map_err(|error| Refusal::new("failed", error.to_string()))?;
        let used = memory.total.saturating_sub(memory.available);
        let wanted = self
            .fill()
            .bytes(used, memory.total, 0)
            .map_err(|reached| {
                Refusal::new("no-match", format!("memory: {reached}"))
                    .hint("raise `until`, or give a `size`")
            })?;
        let reserve = self
            .reserve
            .map_or(memory.total / 20, |reserve| reserve.of(memory.total));
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
        if memory.is_limited {
            notes.push(format!(
                "this agent's control group may use {}: percentages are of that",
                Size(memory.total)
            ));
        }
        if let Some(until) = self.until {
            notes.push(format!(
                "{} are in use: {} are missing until {until}",
                Size(used),
                Size(wanted)
            ));
        }
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

impl MemoryFill {
    fn fill(&self) -> Fill {
        Fill {
            size: self.size,
            percent: self.percent,
            until: self.until,
        }
    }
}
