//! Taking memory: written to, so that the kernel must find it, and never so much that less than
//! the reserve stays available to others.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::spec::size;
use crate::metrics::memory_available;
use backburn_experiments::HumanDuration;
use std::time::{Duration, Instant};

/// Taken between two looks at what is available.
const STEP_BYTES: usize = 4 << 20;
/// What it is filled with: not zeroes, which some kernels share or keep for nothing.
static FILLING: [u8; STEP_BYTES] = [0xb5; STEP_BYTES];
/// How long filling may go on before it is called ready; it goes on after.
const READY_AFTER: Duration = Duration::from_millis(200);
/// How often is looked at what others need, once filled.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

pub(super) fn run(bytes: u64, reserve: u64, ramp: Option<HumanDuration>, life: &HelperProcess) -> Result<(), HelperError> {
    life.first_to_be_killed()?;
    let available = || memory_available().map_err(|error| HelperError::new(error.to_string()));
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
            life.ready(format!(
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
