//! Words that the descriptions of several helpers share.

use crate::processes::ProcessId;
use backburn_experiments::HumanDuration;

/// Names processes by their ids, for people.
pub(super) fn listed(victims: &[ProcessId]) -> String {
    let pids: Vec<String> = victims.iter().map(|id| id.pid.to_string()).collect();
    match pids.as_slice() {
        [pid] => format!("process {pid}"),
        pids => format!("processes {}", pids.join(", ")),
    }
}

/// The time over which something grows, as the end of a description; empty if it is there at once.
pub(super) fn growing(ramp: Option<HumanDuration>) -> String {
    ramp.map(|ramp| format!(", growing over {ramp}"))
        .unwrap_or_default()
}

/// A number of bytes in the largest binary unit that is not larger, with at most one decimal.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let places = usize::from(unit > 0 && amount.fract() > 0.049);
    format!("{amount:.places$} {}", UNITS[unit])
}
