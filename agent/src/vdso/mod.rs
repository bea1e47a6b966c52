//! The vDSO of a process, by which it reads clocks without a system call, and the machine code that has those clocks report another time.
//! There is only data here; what is read and written is up to the caller.
//!
//! The pages of a vDSO are private to a process: what is written there concerns that process, and those that it forks. Each clock function
//! gets a jump at its entry to code in the unused end of the vDSO, which asks the kernel, adds the offset and returns.

mod code;
mod image;

pub use code::{
    CLOCK_GETTIME, ClockCode, ClockOffset, ENTRY_BYTES, GETTIMEOFDAY, jump, jump_target,
};
pub use image::{NotSkewable, VdsoImage};

use serde::{Deserialize, Serialize};

/// Whether the machine code of this room is known for this kind of machine.
pub const IS_KNOWN: bool = cfg!(all(target_arch = "x86_64", target_env = "gnu"));

/// The clocks that a process reads by the vDSO, and so without a system call: those of real time, monotonic and boot time
/// (clock_gettime(2)).
pub const CLOCKS: [u64; 7] = [0, 1, 4, 5, 6, 7, 11];

/// What stands before a mark in altered code, so that no other bytes are taken for one.
pub const MARK_PREFIX: &[u8] = b"backburn:";

/// The longest mark, in bytes; a longer one might not fit into the unused end of a vDSO.
pub const MAX_MARK_BYTES: usize = 48;

/// A mark as it stands at the beginning of the altered code.
pub fn mark_bytes(mark: &str) -> Vec<u8> {
    [MARK_PREFIX, mark.as_bytes(), b"\0"].concat()
}

/// A function of the vDSO that reports the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockFunction {
    /// `clock_gettime(2)`, of which only the clocks of real time are altered.
    ClockGettime,
    /// The time in microseconds: `gettimeofday(2)`.
    Gettimeofday,
    /// The time in seconds: `time(2)`.
    Time,
}

impl ClockFunction {
    /// All of them, in the order in which their code is laid out.
    pub const ALL: [ClockFunction; 3] = [
        ClockFunction::ClockGettime,
        ClockFunction::Gettimeofday,
        ClockFunction::Time,
    ];

    /// Its name in the vDSO's table of symbols (vdso(7)).
    pub fn symbol(self) -> &'static str {
        match self {
            ClockFunction::ClockGettime => "__vdso_clock_gettime",
            ClockFunction::Gettimeofday => "__vdso_gettimeofday",
            ClockFunction::Time => "__vdso_time",
        }
    }
}
