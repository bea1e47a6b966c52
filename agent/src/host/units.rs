//! The doors for changes of systemd's units.

use super::{Host, HostError};
use crate::systemd::{RestartTimer, ServiceManager};

impl Host {
    /// Sets a timer of systemd's that starts units.
    ///
    /// # Errors
    /// systemd is not there, refused, or does not answer.
    pub fn set_restart_timer(&self, timer: &RestartTimer) -> Result<(), HostError> {
        self.effect(&format!("set {} of systemd", timer.unit()), || {
            ServiceManager::connect()?.set_timer(timer)
        })
    }

    /// Ends a timer that was set so.
    ///
    /// # Errors
    /// systemd is not there, refused, or does not answer.
    pub fn end_restart_timer(&self, timer: &RestartTimer) -> Result<(), HostError> {
        self.effect(&format!("end {} of systemd", timer.unit()), || {
            ServiceManager::connect()?.end_timer(&timer.unit())
        })
    }

    /// Has systemd stop a unit, and does not wait for it.
    ///
    /// # Errors
    /// systemd is not there, refused, or does not answer.
    pub fn stop_unit(&self, unit: &str) -> Result<(), HostError> {
        self.effect(&format!("stop {unit}"), || {
            ServiceManager::connect()?.stop(unit)
        })
    }

    /// Has systemd start a unit, and does not wait for it.
    ///
    /// # Errors
    /// systemd is not there, refused, or does not answer.
    pub fn start_unit(&self, unit: &str) -> Result<(), HostError> {
        self.effect(&format!("start {unit}"), || {
            ServiceManager::connect()?.start(unit)
        })
    }
}
