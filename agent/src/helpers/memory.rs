//! Taking memory: written to, so that the kernel must find it, and never so much that less than
//! the reserve stays available to others.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::display::{growing, size};
use super::evidence::{Taken, age, effect, effect_of_living};
use super::helper::{AlteredPlace, Helper};
use crate::memory_limits::MemoryLimits;
use crate::processes::ProcessTable;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::time::{Duration, Instant};

/// Taken between two looks at what is available.
const STEP_BYTES: usize = 4 << 20;
/// What it is filled with: not zeroes, which some kernels share or keep for nothing.
static FILLING: [u8; STEP_BYTES] = [0xb5; STEP_BYTES];
/// How long filling may go on before it is called ready; it goes on after.
const READY_AFTER: Duration = Duration::from_millis(200);
/// How often is looked at what others need, once filled.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Takes memory as long as the helper lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MemoryBallast {
    /// The amount, in bytes.
    pub bytes: u64,
    /// What must stay available to others, on the host and within the agent's control group, in bytes: never taken, and given back when others need it.
    pub reserve_bytes: u64,
    /// The time over which taking it is spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<HumanDuration>,
}

impl MemoryBallast {
    /// Takes no memory and leaves nothing behind.
    pub(super) const NONE: Self = MemoryBallast {
        bytes: 0,
        reserve_bytes: 0,
        ramp: None,
    };
}

impl Helper for MemoryBallast {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self.bytes, self.reserve_bytes, self.ramp, process)
    }

    fn describe(&self) -> String {
        format!(
            "take {} of memory{}, with {} always left available",
            size(self.bytes),
            growing(self.ramp),
            size(self.reserve_bytes)
        )
    }

    fn describe_end(&self) -> &'static str {
        "the kernel frees the memory"
    }

    fn holds(&self) -> Vec<String> {
        vec!["memory".into()]
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Nowhere
    }

    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect {
        effect_of_living(helper, table, |id, table| {
            let resident = table.resident_bytes(id)?;
            let grown = self.ramp.map_or(1.0, |ramp| {
                (age(id, table).unwrap_or_default() / ramp.0.as_secs_f64()).min(1.0)
            });
            let limits = MemoryLimits::of_this_process();
            let available = || Some(limits.usable().ok()?.available);
            let taken = Taken {
                bytes: table.taken_bytes(id).unwrap_or(resident),
                asked: (self.bytes as f64 * grown) as u64,
                reserve: self.reserve_bytes,
            };
            let seen = format!(
                "{} of {} of memory taken{}",
                // What the helper itself needs comes on top.
                size(taken.bytes.min(self.bytes)),
                size(self.bytes),
                taken.shortfall(available)
            );
            let figures = [("resident-bytes", resident as f64)];
            Some(effect(taken.acts(available), seen, &figures))
        })
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    fn residue(&self, _: &ProcessTable) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }

    type Substitute = Self;

    fn substitute(_: &Value) -> Option<Self> {
        Some(Self::NONE)
    }
}

fn run(
    bytes: u64,
    reserve: u64,
    ramp: Option<HumanDuration>,
    process: &HelperProcess,
) -> Result<(), HelperError> {
    process.first_to_be_killed()?;
    let limits = MemoryLimits::of_this_process();
    let available = || match limits.usable() {
        Ok(memory) => Ok(memory.available),
        Err(error) => Err(HelperError::new(error.to_string())),
    };
    let before = available()?;
    if before <= reserve.saturating_add(STEP_BYTES as u64) {
        return Err(HelperError::new(format!(
            "no memory taken: {} available, of which {} are to stay",
            size(before),
            size(reserve)
        ))
        .hint("lower `reserve`, or free memory first"));
    }
    let too_much = || {
        HelperError::new(format!(
            "the kernel does not give out {} to one process",
            size(bytes)
        ))
        .hint("ask for less; see `vm.overcommit_memory` and `ulimit -v`")
    };
    let wanted = usize::try_from(bytes).map_err(|_| too_much())?;
    // One region, so that its end can be given back without copying the rest.
    let mut taken: Vec<u8> = Vec::new();
    taken.try_reserve_exact(wanted).map_err(|_| too_much())?;
    let ramp = ramp.map_or(Duration::ZERO, Duration::from);
    let start = Instant::now();
    let (mut filling, mut said) = (true, false);
    loop {
        let target = match ramp.is_zero() || start.elapsed() >= ramp {
            true => wanted,
            false => (wanted as f64 * start.elapsed().as_secs_f64() / ramp.as_secs_f64()) as usize,
        };
        let now = available()?;
        if now < reserve {
            filling = false;
            let back = usize::try_from(reserve - now).unwrap_or(usize::MAX);
            taken.truncate(taken.len().saturating_sub(back.saturating_add(STEP_BYTES)));
            taken.shrink_to_fit();
        } else if filling && now < reserve + STEP_BYTES as u64 {
            filling = false;
        } else if filling && taken.len() < target {
            let step = STEP_BYTES.min(target - taken.len());
            taken.extend_from_slice(&FILLING[..step]);
        }
        filling &= taken.len() < wanted;
        if !said && (!filling || start.elapsed() >= READY_AFTER) {
            said = true;
            process.ready(format!(
                "{} of {} taken, {} available",
                size(taken.len() as u64),
                size(bytes),
                size(now)
            ))?;
        }
        if !filling || taken.len() >= target {
            std::thread::sleep(CHECK_INTERVAL);
        }
    }
}
