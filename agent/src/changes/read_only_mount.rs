//! A mount that is read-only for a while. Only this flag of this mount is touched: its other options, and other mounts of its file
//! system, stay as they are. The kernel ends it at a reboot and not before, so the ledger and the guardian do.

use super::{Observed, ReversibleChange};
use crate::host::{Host, HostError};
use crate::mounts::{Mount, MountIdentity};
use backburn_experiments::wire::{ChangeView, Effect};
use serde::{Deserialize, Serialize};
use std::io;

/// A mount that nobody may write through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReadOnlyMount {
    /// The name of the change, from the injection's id.
    pub mark: String,
    /// The mount, which was writable when this was planned.
    pub mount: MountIdentity,
}

impl ReadOnlyMount {
    fn failed(&self, source: io::Error) -> HostError {
        HostError {
            what: format!("make the mount at {} read-only", self.mount.path.display()),
            source,
        }
    }

    /// The mount where it is read-only by this change; none where it is gone or writable.
    fn find(&self, host: &Host) -> io::Result<Option<Mount>> {
        let found = self.mount.find()?.filter(Mount::is_read_only);
        Ok(found.filter(|_| !host.is_left_to_others(&self.mark)))
    }
}

impl ReversibleChange for ReadOnlyMount {
    fn view(&self) -> ChangeView {
        let path = self.mount.path.display();
        ChangeView {
            kind: "read-only-mount".into(),
            apply: format!("make the mount at {path} read-only (mount {})", self.mount.number),
            undo: "make it writable again; its other options are not touched".into(),
            if_agent_dies: "the guardian makes it writable again; without it, the next start or `revert --all`; a reboot mounts it as it is configured"
                .into(),
        }
    }

    fn holds(&self) -> Vec<String> {
        // With all files below: a fault that keeps an original there could not be reverted meanwhile.
        vec![format!("file:{}", self.mount.path.display())]
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        let found = self.mount.find().map_err(|error| self.failed(error))?;
        let Some(found) = found else {
            let why = io::Error::other("it was unmounted after this was planned; inject again");
            return Err(self.failed(why));
        };
        if found.is_read_only() {
            host.leave_to_others(&self.mark);
            let why = "somebody else has made it read-only after this was planned";
            return Err(self.failed(io::Error::other(why)));
        }
        let made = host.set_read_only(&self.mount, &found.path, true);
        made.map_err(|error| match error.source.kind() {
            io::ErrorKind::ResourceBusy => HostError {
                source: io::Error::other(format!(
                    "{}: somebody has a file of it open for writing since this was planned, or has mapped one; plan again to see who",
                    error.source
                )),
                ..error
            },
            _ => error,
        })
    }

    fn observe(&self, host: &Host) -> io::Result<Observed> {
        Ok(match self.find(host)? {
            Some(mount) => Observed::Present(format!(
                "the mount at {} is read-only",
                mount.path.display()
            )),
            None => Observed::Absent,
        })
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        match self.find(host).map_err(|error| self.failed(error))? {
            Some(mount) => host.set_read_only(&self.mount, &mount.path, false),
            None => Ok(()),
        }
    }

    fn effect(&self, host: &Host) -> Effect {
        let path = self.mount.path.display();
        let found = self.find(host);
        let acts = matches!(found, Ok(Some(_)));
        Effect {
            acts,
            seen: match found {
                Ok(Some(_)) => format!("the mount at {path} is read-only"),
                Ok(None) => format!("the mount at {path} is gone, or others made it writable"),
                Err(error) => format!("the mount at {path} cannot be observed: {error}"),
            },
            figures: [("read-only-mounts".to_owned(), f64::from(u8::from(acts)))].into(),
            unmet: None,
        }
    }

    fn is_done(&self, host: &Host) -> bool {
        self.find(host).is_ok_and(|found| found.is_none())
    }
}
