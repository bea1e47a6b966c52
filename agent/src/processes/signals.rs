//! How a process handles a signal, as far as the kernel tells: proc_pid_status(5), `SigPnd` to
//! `SigCgt`.

use super::{ProcessId, ProcessTable};
use rustix::process::Signal;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;

/// The number of the signal that nobody can catch.
pub const SIGKILL: i32 = 9;

/// The number of a signal, by its name without `SIG`; none where there is no such signal.
pub fn signal_number(name: &str) -> Option<i32> {
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    Some(signal as i32)
}

/// A signal by its name without `SIG`, in capitals. It is read from `TERM`, `SIGTERM`, `sigterm`, `15` and `"15"`; a number without a name
/// stays a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignalName(pub String);

impl From<i32> for SignalName {
    fn from(number: i32) -> Self {
        let name = nix::sys::signal::Signal::try_from(number).map(nix::sys::signal::Signal::as_str);
        let name = name.map(|name| name.trim_start_matches("SIG").to_owned());
        SignalName(name.unwrap_or_else(|_| number.to_string()))
    }
}

impl<'de> Deserialize<'de> for SignalName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum NumberOrName {
            Number(i32),
            Name(String),
        }
        Ok(match NumberOrName::deserialize(deserializer)? {
            NumberOrName::Number(number) => number.into(),
            NumberOrName::Name(name) => match name.trim().parse::<i32>() {
                Ok(number) => number.into(),
                Err(_) => {
                    let name = name.trim().to_uppercase();
                    SignalName(name.strip_prefix("SIG").unwrap_or(&name).to_owned())
                }
            },
        })
    }
}

impl JsonSchema for SignalName {
    fn schema_name() -> Cow<'static, str> {
        "Signal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "signal",
            "description": "A signal, by its name or number",
            "type": ["string", "integer"],
            "pattern": r"^\s*[A-Za-z]*[0-9]*\s*$",
            "minLength": 1,
            "minimum": 1,
            "maximum": 64,
            "examples": ["TERM", "SIGTERM", 15]
        })
    }
}

/// How one process handles one signal, at the moment of the look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalState {
    /// It was sent and not taken yet, by the process (`ShdPnd`) or its first thread (`SigPnd`).
    pub is_pending: bool,
    /// The process ignores it (`SigIgn`): the kernel drops it.
    pub is_ignored: bool,
    /// The process has a handler for it (`SigCgt`).
    pub is_caught: bool,
    /// Every thread blocks it (`SigBlk`): it is taken when one asks for it or blocks it no longer.
    pub is_blocked: bool,
    /// The process is the first of a pid namespace other than the one that is looked from, to which
    /// the kernel delivers nothing but SIGKILL and SIGSTOP that it has no handler for
    /// (pid_namespaces(7)).
    pub is_first_of_namespace: bool,
}

impl SignalState {
    /// Whether the kernel drops a signal other than SIGKILL and SIGSTOP that is sent to it.
    pub fn is_dropped(&self) -> bool {
        self.is_ignored || (self.is_first_of_namespace && !self.is_caught && !self.is_blocked)
    }
}

impl ProcessTable {
    /// How exactly this process handles a signal; none where it has ended or the kernel does not tell.
    pub fn signal_state(&self, id: ProcessId, signal: i32) -> Option<SignalState> {
        let bit = u32::try_from(signal - 1)
            .ok()
            .and_then(|shift| 1_u64.checked_shl(shift))?;
        let state = self.read(id.pid, "status", |text| {
            let text = String::from_utf8_lossy(text);
            let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
            let has = |key| Some(u64::from_str_radix(value(key)?.trim(), 16).ok()? & bit != 0);
            let own_ids = value("NSpid:").unwrap_or_default();
            let own_ids: Vec<&str> = own_ids.split_ascii_whitespace().collect();
            Some(SignalState {
                is_pending: has("ShdPnd:")? || has("SigPnd:")?,
                is_ignored: has("SigIgn:")?,
                is_caught: has("SigCgt:")?,
                is_blocked: has("SigBlk:")?,
                is_first_of_namespace: own_ids.len() > 1 && own_ids.last() == Some(&"1"),
            })
        })??;
        let blocked_everywhere = state.is_blocked
            && self.threads(id.pid).into_iter().all(|thread| {
                let file = format!("task/{thread}/status");
                let set = self.line(id.pid, &file, "SigBlk:", |value| {
                    u64::from_str_radix(value.trim(), 16).ok()
                });
                set.is_none_or(|set| set & bit != 0)
            });
        self.alive(id).then_some(SignalState {
            is_blocked: blocked_everywhere,
            ..state
        })
    }

    /// Whether this signal waits to be taken by the process or its first thread.
    pub fn has_pending(&self, id: ProcessId, signal: Signal) -> bool {
        self.signal_state(id, signal.as_raw())
            .is_some_and(|state| state.is_pending)
    }
}
