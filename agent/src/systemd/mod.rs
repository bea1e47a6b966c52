//! The service manager of the host, systemd, at the socket that it keeps for root: no bus and no program is needed. What is read here
//! changes nothing but that a unit may be loaded; what changes the host is called by the host door alone.

mod unit;

pub use unit::FoundUnit;

use crate::dbus::{BusConnection, BusWriter, Call, CallError, Value};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Where systemd listens for root.
const SOCKET: &str = "/run/systemd/private";
/// How long connecting and each answer may take: process 1 answers in a millisecond, unless it hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// How exactly a timer has to keep its time, in microseconds.
const TIMER_ACCURACY_US: u64 = 1000;

/// Why there is no service manager that could be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoServiceManager {
    /// Nobody listens: the host has another init system, or the agent is in a container.
    #[error("systemd does not run here: nobody listens at {SOCKET}")]
    Absent,
    /// The agent is not root.
    #[error("systemd lets only root ask it at {SOCKET}")]
    NotPermitted,
    /// Somebody answers who is not the first process that the agent sees.
    #[error(
        "the systemd at {SOCKET} is not process 1 here: it is that of another container or host"
    )]
    NotFirst,
    /// It does not answer as it should.
    #[error("systemd at {SOCKET}: {0}")]
    Failed(String),
}

impl NoServiceManager {
    /// What would help against it.
    pub fn hint(&self) -> &'static str {
        match self {
            NoServiceManager::Absent => {
                "run the agent on a host whose process 1 is systemd; `process-kill` and `process-pause` need none"
            }
            NoServiceManager::NotPermitted => "run the agent as root",
            NoServiceManager::NotFirst => {
                "run the agent on the host itself, in its first pid namespace"
            }
            NoServiceManager::Failed(_) => "see whether `systemctl status` answers",
        }
    }

    fn of(error: &io::Error) -> Self {
        use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        match error.kind() {
            NotFound | ConnectionRefused => NoServiceManager::Absent,
            PermissionDenied => NoServiceManager::NotPermitted,
            _ => NoServiceManager::Failed(error.to_string()),
        }
    }
}

impl From<NoServiceManager> for io::Error {
    fn from(none: NoServiceManager) -> Self {
        io::Error::other(none.to_string())
    }
}

/// A timer of systemd's that starts units, and is gone after that. It is a unit of its own, and needs nobody but process 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartTimer {
    /// The name of the timer without `.timer`; with `.service` it is that of the service by which the units are started.
    pub name: String,
    /// The units that it starts, in one transaction, so that their own order counts.
    pub units: Vec<String>,
    /// How long after it was set.
    pub after: Duration,
}

impl RestartTimer {
    /// The name of the timer's unit.
    pub fn unit(&self) -> String {
        format!("{}.timer", self.name)
    }
}

/// A connection to the service manager.
#[derive(Debug)]
pub struct ServiceManager(BusConnection);

impl ServiceManager {
    /// Connects to the systemd of this host.
    ///
    /// # Errors
    /// There is none, it is not process 1, or it does not answer.
    pub fn connect() -> Result<Self, NoServiceManager> {
        let failed = |error: io::Error| NoServiceManager::of(&error);
        let connection = BusConnection::to(Path::new(SOCKET), ANSWER_TIMEOUT).map_err(failed)?;
        match connection.peer().map_err(failed)? {
            (1, 0) => Ok(ServiceManager(connection)),
            _ => Err(NoServiceManager::NotFirst),
        }
    }

    fn call(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        signature: &str,
        arguments: BusWriter,
    ) -> Result<Vec<Value>, CallError> {
        self.0.call(&Call {
            destination: DESTINATION,
            path,
            interface,
            member,
            signature,
            arguments,
        })
    }

    /// Calls a method of the manager whose arguments are texts.
    fn manage(&mut self, member: &str, texts: &[&str]) -> Result<Vec<Value>, CallError> {
        let mut arguments = BusWriter::default();
        for text in texts {
            arguments.text(text);
        }
        let signature = "s".repeat(texts.len());
        self.call(MANAGER, MANAGER_INTERFACE, member, &signature, arguments)
    }

    /// All properties of an interface of an object.
    fn properties(&mut self, path: &str, interface: &str) -> io::Result<BTreeMap<String, Value>> {
        let mut arguments = BusWriter::default();
        arguments.text(interface);
        let values = self.call(path, PROPERTIES, "GetAll", "s", arguments)?;
        let entries = values.first().map(Value::values).unwrap_or_default();
        let entry = |entry: &Value| match entry.values() {
            [name, value] => Some((name.text()?.to_owned(), value.clone())),
            _ => None,
        };
        Ok(entries.iter().filter_map(entry).collect())
    }

    /// The version, as systemd writes it.
    ///
    /// # Errors
    /// It does not answer as it should.
    pub fn version(&mut self) -> io::Result<String> {
        let properties = self.properties(MANAGER, MANAGER_INTERFACE)?;
        let version = properties.get("Version").and_then(Value::text);
        Ok(version.unwrap_or("unknown").to_owned())
    }

    /// The unit of this name, which is loaded for that where it is not yet. One that does not exist is found as not loaded.
    ///
    /// # Errors
    /// It is not a unit's name, or systemd does not answer as it should.
    pub fn unit(&mut self, name: &str) -> io::Result<FoundUnit> {
        let path = self.manage("LoadUnit", &[name])?;
        self.found(&path)
    }

    /// Like [`ServiceManager::unit`], with the unit's processes.
    ///
    /// # Errors
    /// It is not a unit's name, or systemd does not answer as it should.
    pub fn unit_with_processes(&mut self, name: &str) -> io::Result<FoundUnit> {
        let mut found = self.unit(name)?;
        // Units of the other kinds have none, and systemd refuses to list them.
        if found.is_active() && found.name.ends_with(".service") {
            let values = self.manage("GetUnitProcesses", &[&found.name])?;
            let listed = values.first().map(Value::values).unwrap_or_default();
            // Each with the path of its control group before its id.
            let id = |process: &Value| process.values().get(1).and_then(Value::number);
            found.processes = listed
                .iter()
                .filter_map(|process| i32::try_from(id(process)?).ok())
                .collect();
        }
        Ok(found)
    }

    /// The unit of this name if it is loaded.
    ///
    /// # Errors
    /// It is not a unit's name, or systemd does not answer as it should.
    pub fn loaded_unit(&mut self, name: &str) -> io::Result<Option<FoundUnit>> {
        const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
        // Between the two calls it may be unloaded.
        const UNKNOWN_OBJECT: &str = "org.freedesktop.DBus.Error.UnknownObject";
        let path = match self.manage("GetUnit", &[name]) {
            Err(CallError::Refused { name, .. }) if name == NO_SUCH_UNIT => return Ok(None),
            path => path?,
        };
        match self.found(&path) {
            Err(error) if error.to_string().contains(UNKNOWN_OBJECT) => Ok(None),
            found => found.map(Some),
        }
    }

    fn found(&mut self, path: &[Value]) -> io::Result<FoundUnit> {
        let path = path.first().and_then(Value::text);
        let path = path.ok_or_else(|| io::Error::other("systemd did not tell the unit's path"))?;
        let unit = self.properties(path, UNIT_INTERFACE)?;
        let id = unit.get("Id").and_then(Value::text).unwrap_or_default();
        let service = match id.ends_with(".service") {
            true => self.properties(path, "org.freedesktop.systemd1.Service")?,
            false => BTreeMap::new(),
        };
        FoundUnit::read(&unit, &service)
    }

    /// Has systemd stop a unit, with all that depend on it. Other people's jobs are not replaced.
    ///
    /// # Errors
    /// It refused, or does not answer as it should.
    pub(crate) fn stop(&mut self, unit: &str) -> io::Result<()> {
        self.manage("StopUnit", &[unit, "fail"])?;
        Ok(())
    }

    /// Has systemd start a unit, also where it is being stopped: it is then started once it has stopped.
    ///
    /// # Errors
    /// It refused, or does not answer as it should.
    pub(crate) fn start(&mut self, unit: &str) -> io::Result<()> {
        // One that was started too often, or has failed, would be refused otherwise.
        self.manage("ResetFailedUnit", &[unit]).ok();
        self.manage("StartUnit", &[unit, "replace"])?;
        Ok(())
    }

    /// Ends a timer of the agent's: systemd forgets it with that.
    ///
    /// # Errors
    /// It refused, or does not answer as it should.
    pub(crate) fn end_timer(&mut self, timer: &str) -> io::Result<()> {
        self.manage("StopUnit", &[timer, "replace"])?;
        Ok(())
    }

    /// Sets a timer that starts units.
    ///
    /// # Errors
    /// There is one of this name, or systemd refused or does not answer as it should.
    pub(crate) fn set_timer(&mut self, timer: &RestartTimer) -> io::Result<()> {
        let mut arguments = BusWriter::default();
        arguments.text(&timer.unit());
        arguments.text("fail");
        let after_us = u64::try_from(timer.after.as_micros()).unwrap_or(u64::MAX);
        arguments.array(8, |properties| {
            let property = |properties: &mut BusWriter, name: &str| {
                properties.structure();
                properties.text(name);
            };
            property(properties, "Description");
            properties.variant("s", |value| {
                value.text("Backburn: the end of a fault, if the agent should not be there")
            });
            property(properties, "TimersMonotonic");
            properties.variant("a(st)", |value| {
                value.array(8, |timers| {
                    timers.structure();
                    timers.text("OnActiveSec");
                    timers.number64(after_us);
                });
            });
            property(properties, "AccuracyUSec");
            properties.variant("t", |value| value.number64(TIMER_ACCURACY_US));
            // So that nothing is left of it.
            property(properties, "RemainAfterElapse");
            properties.variant("b", |value| value.boolean(false));
            property(properties, "CollectMode");
            properties.variant("s", |value| value.text("inactive-or-failed"));
        });
        // A timer of this kind starts the service of its own name and no other, so that one has to pull in the units.
        arguments.array(8, |units| {
            units.structure();
            units.text(&format!("{}.service", timer.name));
            units.array(8, |properties| {
                let property = |properties: &mut BusWriter, name: &str| {
                    properties.structure();
                    properties.text(name);
                };
                property(properties, "Description");
                properties.variant("s", |value| {
                    value.text("Backburn: start what a fault has stopped")
                });
                property(properties, "Wants");
                properties.variant("as", |value| {
                    value.texts(timer.units.iter().map(String::as_str));
                });
                property(properties, "Type");
                properties.variant("s", |value| value.text("oneshot"));
                // It has to run something. Whether that is there makes no difference: its failure is ignored.
                property(properties, "ExecStart");
                properties.variant("a(sasb)", |value| {
                    value.array(8, |programs| {
                        programs.structure();
                        programs.text("/bin/true");
                        programs.texts(["true"]);
                        programs.boolean(true);
                    });
                });
                property(properties, "CollectMode");
                properties.variant("s", |value| value.text("inactive-or-failed"));
            });
        });
        self.call(
            MANAGER,
            MANAGER_INTERFACE,
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            arguments,
        )?;
        Ok(())
    }
}
