//! A unit as systemd describes it.

use crate::dbus::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

/// A unit as systemd describes it. What this version of systemd does not tell is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundUnit {
    /// Its name; where another name was asked for, that is an alias.
    pub name: String,
    /// All of its names.
    pub names: Vec<String>,
    /// Whether its configuration is loaded: `loaded`, `not-found`, `masked`, …
    pub load_state: String,
    /// Whether it runs: `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`, …
    pub active_state: String,
    /// The same in the words of its kind of unit: `running`, `exited`, `dead`, …
    pub sub_state: String,
    /// The id of its latest start, in hexadecimal digits; empty if it was not started since it is loaded.
    pub invocation: String,
    /// Whether somebody waits for it to be started, stopped or reloaded.
    pub has_job: bool,
    /// Whether it exists only while it runs.
    pub is_transient: bool,
    /// Whether it may be started, and stopped, by hand.
    pub may_start: bool,
    /// Whether it may be stopped by hand.
    pub may_stop: bool,
    /// The units that systemd stops together with it, whether they run or not.
    pub stops_with: Vec<String>,
    /// The units that start it when something happens: sockets, paths and timers.
    pub triggered_by: Vec<String>,
    /// The units that start it whenever it has stopped.
    pub upheld_by: Vec<String>,
    /// The units that are started when it has stopped.
    pub starts_after: Vec<String>,
    /// Since when it has not been active or was last so, in microseconds of the monotonic clock.
    pub left_us: u64,
    /// When it was last started, in microseconds of the monotonic clock.
    pub entered_us: u64,
    /// The path of its control group, of a service alone; empty where it has none.
    pub control_group: String,
    /// The ids of all of its processes; empty where they were not asked for.
    pub processes: Vec<i32>,
    /// The name on the message bus by which others can have it started; empty where it has none.
    pub bus_name: String,
    /// What its `Restart=` says, of a service alone.
    pub restart: String,
    /// The outcome of its latest run, of a service alone: `success`, `exit-code`, `timeout`, …
    pub result: String,
    /// How long it may take to stop; none where there is no limit.
    pub stop_limit: Option<Duration>,
}

impl FoundUnit {
    /// Reads the properties of a unit, and those of the service where it is one.
    ///
    /// # Errors
    /// They do not tell what is needed to go by them.
    pub(super) fn read(
        unit: &BTreeMap<String, Value>,
        service: &BTreeMap<String, Value>,
    ) -> io::Result<Self> {
        let text = |name: &str| {
            let text = unit.get(name).and_then(Value::text);
            text.map(str::to_owned)
                .ok_or_else(|| io::Error::other(format!("systemd did not tell `{name}` of a unit")))
        };
        let texts = |names: &[&str]| {
            let mut found = Vec::new();
            for value in names.iter().filter_map(|name| unit.get(*name)) {
                for text in value.values().iter().filter_map(Value::text) {
                    if !found.iter().any(|known| known == text) {
                        found.push(text.to_owned());
                    }
                }
            }
            found
        };
        let number = |name: &str| unit.get(name).and_then(Value::number).unwrap_or_default();
        let boolean = |name: &str| unit.get(name).and_then(Value::boolean);
        let of_service = |name: &str| {
            let text = service.get(name).and_then(Value::text);
            text.unwrap_or_default().to_owned()
        };
        let invocation: Vec<u64> = unit
            .get("InvocationID")
            .map(Value::values)
            .unwrap_or_default()
            .iter()
            .filter_map(Value::number)
            .collect();
        let digits = |bytes: &[u64]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let job = unit.get("Job").map(Value::values).unwrap_or_default();
        let job = job.first().and_then(Value::number);
        let stop_limit = service.get("TimeoutStopUSec").and_then(Value::number);
        Ok(FoundUnit {
            name: text("Id")?,
            names: texts(&["Names"]),
            load_state: text("LoadState")?,
            active_state: text("ActiveState")?,
            sub_state: text("SubState")?,
            invocation: match invocation.iter().all(|byte| *byte == 0) {
                true => String::new(),
                false => digits(&invocation),
            },
            has_job: job.is_some_and(|job| job != 0),
            is_transient: boolean("Transient").unwrap_or(false),
            may_start: boolean("CanStart").unwrap_or(true),
            may_stop: boolean("CanStop").unwrap_or(true),
            stops_with: texts(&["RequiredBy", "BoundBy", "ConsistsOf", "PropagatesStopTo"]),
            triggered_by: texts(&["TriggeredBy"]),
            upheld_by: texts(&["UpheldBy"]),
            starts_after: texts(&["OnSuccess"]),
            left_us: number("ActiveExitTimestampMonotonic"),
            entered_us: number("ActiveEnterTimestampMonotonic"),
            control_group: of_service("ControlGroup"),
            processes: Vec::new(),
            bus_name: of_service("BusName"),
            restart: of_service("Restart"),
            result: of_service("Result"),
            stop_limit: stop_limit
                .filter(|limit| *limit != u64::MAX)
                .map(Duration::from_micros),
        })
    }

    /// Whether it runs, or is loading its configuration again while it does.
    pub fn is_active(&self) -> bool {
        matches!(
            self.active_state.as_str(),
            "active" | "reloading" | "refreshing"
        )
    }

    /// Whether it does not run, and systemd is not about to change that.
    pub fn is_stopped(&self) -> bool {
        matches!(self.active_state.as_str(), "inactive" | "failed")
    }

    /// Whether systemd is about to change its state.
    pub fn is_changing(&self) -> bool {
        self.has_job || !(self.is_active() || self.is_stopped())
    }

    /// What comes after the last dot of its name: `service`, `socket`, …
    pub fn kind(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }
}

impl fmt::Display for FoundUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {} ({})",
            self.name, self.active_state, self.sub_state
        )
    }
}
