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

mod bootstrap;
mod cpu;
mod disk;
mod disk_load;
mod display;
mod dns_answers;
mod event_counts;
mod evidence;
mod file_tamper;
mod freeze;
mod frozen_mount;
mod helper;
mod host_power;
mod load;
mod memory;
mod packet_filter;
mod plugin;
mod proxy;
mod requests;
mod spec;
mod tamper;
mod terminate;
mod threads;
mod written;

pub use crate::packet_filter::PacketFilter;
pub use bootstrap::HelperProcess;
pub use cpu::CpuLoad;
pub use disk::DiskBallast;
pub use disk_load::DiskLoad;
pub use dns_answers::AnswerFilter;
pub(crate) use evidence::effect;
pub use file_tamper::{FileOperation, FileTamper, FileVerdict};
pub(crate) use freeze::yama_scope;
pub use freeze::{Freeze, NotTraceable, check_traceable};
pub use frozen_mount::FrozenMount;
pub use helper::{AlteredPlace, Helper};
pub use host_power::{HostPower, PowerDeed, WHOLE_HOST};
pub use load::RequestLoad;
pub use memory::MemoryBallast;
pub use plugin::PluginHolder;
pub(crate) use proxy::bound;
pub use proxy::{Proxy, Slicer, StreamEffects};
pub use requests::{GrpcRule, HttpRule, PostgresRule, RedisRule, RequestProxy, RequestRule};
pub use spec::HelperSpec;
pub use tamper::{CallAlteration, Tamper};
pub use terminate::Terminate;
pub use threads::ThreadBallast;
pub(crate) use written::field;

use std::ffi::OsString;
use std::process::ExitCode;

/// Why a helper can't do its work, with what would do.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}", hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
pub struct HelperError {
    /// What went wrong, for people.
    pub what: String,
    /// What makes it work, if that is known.
    pub hint: Option<String>,
    /// Whether others have made what the helper was about to make, so that it is not to be undone.
    pub is_foreign: bool,
}

impl HelperError {
    fn new(what: impl Into<String>) -> Self {
        HelperError {
            what: what.into(),
            hint: None,
            is_foreign: false,
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
    let (life, spec): (HelperProcess, HelperSpec) = match bootstrap::begin(&args) {
        Ok(begun) => begun,
        Err(bootstrap::StartError::Orphan) => return ExitCode::FAILURE,
        Err(bootstrap::StartError::Wrong(failed)) => return bootstrap::fail(&failed),
    };
    let ended = spec.helper().run(&life);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => bootstrap::fail(&failed),
    }
}
