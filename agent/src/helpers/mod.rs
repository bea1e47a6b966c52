//! The bodies of the small processes that do harm as long as they live. Whatever one takes, the
//! kernel gives back when it dies; and it dies with the thread that started it, at its own
//! deadline, or by anybody's SIGKILL.
//!
//! ```text
//! backburn-agent helper MARK PARENT-PID DEADLINE-MS ROLE-JSON
//! ```
//!
//! It says one line on standard output, `{"ready": "what was seen"}` or `{"failed": "why"}`, and
//! closes it.

mod answers;
mod corrupt;
mod cpu;
mod delay;
mod disk;
mod evidence;
mod filter;
mod hold;
mod life;
mod memory;
mod proxy;
mod role;
mod terminate;
mod timely;

pub use evidence::evidence;
pub use hold::{NotHeld, may_hold};
pub(crate) use hold::{has_capability, yama_scope};
pub(crate) use proxy::bound;
pub use proxy::{Harm, Proxy, Slicer};
pub use role::Role;

use std::ffi::OsString;
use std::process::ExitCode;

/// Why a helper can't do its work, with what would do.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}", hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
pub struct Failed {
    /// What went wrong.
    pub what: String,
    /// What would do.
    pub hint: Option<String>,
}

impl Failed {
    fn new(what: impl Into<String>) -> Self {
        Failed {
            what: what.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A helper's whole life. `args` are what follows the word `helper`.
///
/// Returns at once, with nothing done, where the parent is another than the one expected: then
/// the agent has died since, and nobody would end this.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let life = match life::begin(&args) {
        Ok(life) => life,
        Err(life::NotBegun::Orphan) => return ExitCode::FAILURE,
        Err(life::NotBegun::Wrong(failed)) => return life::fail(&failed),
    };
    let ended = match &life.role {
        Role::Hold { victims } => hold::run(victims, &life),
        Role::Cpu {
            workers,
            load_percent,
            cpus,
            ramp,
        } => cpu::run(*workers, *load_percent, cpus.as_deref(), *ramp, &life),
        Role::Memory {
            bytes,
            reserve_bytes,
            ramp,
        } => memory::run(*bytes, *reserve_bytes, *ramp, &life),
        Role::Disk {
            directory,
            bytes,
            reserve_bytes,
            name,
        } => disk::run(directory, *bytes, *reserve_bytes, name, &life),
        Role::Terminate { victims, grace_ms } => terminate::run(victims, *grace_ms, &life),
        Role::Filter(filter) => filter::run(filter, &life),
        Role::Answers(answers) => answers::run(answers, &life),
        Role::Proxy(proxy) => proxy::run(proxy, &life),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => life::fail(&failed),
    }
}
