//! The exit codes of the agent's commands. Scripts depend on them, so they never change.

/// The command line, the fault's arguments or the policy file are invalid.
pub const INVALID: u8 = 2;
/// The injection was refused; nothing was injected.
pub const NOT_STARTED: u8 = 3;
/// The agent died or hung while a fault was active, and everything that it had done was reverted.
pub const ABORTED: u8 = 4;
/// Something is still owed: a change is not proved to be reverted.
pub const NOT_CLEAN: u8 = 6;
/// Everything else succeeded, but standard output could not be written.
pub const OUTPUT_LOST: u8 = 7;
/// The fault was injected, and then failed or stopped acting before its time was over.
pub const FAULT_FAILED: u8 = 9;
