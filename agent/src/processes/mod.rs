//! Reading the process table: which processes there are, which of them a selector finds, which are
//! protected, and whether a process is still the same. Nothing here changes a process.
//!
//! A process is always identified by its id *and* its start time, since the kernel reuses ids.

mod cgroup;
mod clock_shift;
mod descriptors;
mod matcher;
mod memory;
mod own_processes;
mod owner;
mod pidfd;
mod program_note;
mod progress;
mod protection;
mod scan;
mod search;
mod selector;
mod services;
mod signals;
mod sockets;
mod survey;
mod thread_room;
mod users;
mod visibility;

pub use cgroup::Cgroup;
pub(crate) use clock_shift::ClockShift;
pub use descriptors::Descriptors;
pub use memory::SeccompMode;
pub(crate) use own_processes::is_own_process;
pub use owner::OwnerState;
pub use program_note::ProgramNote;
pub use protection::Protection;
pub(crate) use scan::HELPER_NAME;
pub use scan::{ProcessTable, Stat};
pub use search::Found;
pub use selector::{OneOrMany, Order, ProcessSelector, Relative, UserOf};
pub use services::seen_services;
pub use signals::{SIGKILL, SignalName, SignalState, signal_number};
pub use thread_room::ThreadRoom;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr};

/// A process that cannot be mistaken for a later one with the same id. Written `4711@123456`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// The process id (pid).
    pub pid: i32,
    /// When it started, in clock ticks since the machine's boot (`/proc/PID/stat`, field 22, less what the reader's time namespace
    /// adds to it).
    pub start: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start)
    }
}

impl FromStr for ProcessId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('@')
            .and_then(|(pid, start)| {
                let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
                Some(ProcessId { pid, start: start.parse().ok()? })
            })
            .ok_or_else(|| {
                format!("`{text}` is not a process: expected its id and start time, such as `4711@123456`")
            })
    }
}

impl Serialize for ProcessId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProcessId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for ProcessId {
    fn schema_name() -> Cow<'static, str> {
        "ProcessId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A process's id and its start time in ticks since boot, such as `4711@123456`",
            "type": "string",
            "pattern": "^[0-9]+@[0-9]+$"
        })
    }
}

/// A process, as it was when the process table was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The id and start time of the process.
    pub id: ProcessId,
    /// Its name: `comm`, or the program's base name where the kernel cut that short at 15 bytes.
    pub name: String,
    /// Its state: `R`, `S`, `D`, `T` stopped, `t` held by a tracer, `Z` dead and not yet waited for.
    pub state: char,
    /// The process id of its parent.
    pub parent: i32,
    /// The effective user id of the process.
    pub uid: u32,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id.pid)
    }
}

#[cfg(test)]
mod tests;
