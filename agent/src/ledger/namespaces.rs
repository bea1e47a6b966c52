//! The namespaces in which an entry's names are valid. A process id, a network device or a path means something else, or nothing, in another
//! namespace, so an entry records the namespaces that it was written in.

use crate::changes::{Change, StoppedUnits};
use crate::helpers::AlteredPlace;
use crate::processes::ClockShift;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The namespaces that an entry was written in, each by its inode number, which is unique while the namespace exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Namespaces {
    /// The pid namespace of the entry's process ids.
    pub pid: u64,
    /// The network namespace of changes that name none.
    pub network: u64,
    /// The mount namespace of the entry's paths.
    pub mount: u64,
    /// The time namespace; only set if start times in it cannot be compared with those read elsewhere (see [`ClockShift`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
    /// The folders that the changes name, so that they can be recognized in another mount namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<PathBuf, FolderId>,
}

/// The identity of a folder, valid while its file system is mounted somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderId {
    /// The number of the file system's device.
    pub device: u64,
    /// The folder's inode number.
    pub inode: u64,
}

impl Namespaces {
    /// The namespaces of this process, with the folders that `changes` name.
    ///
    /// # Errors
    /// `/proc/self/ns` cannot be read.
    pub fn of(changes: &[Change]) -> io::Result<Self> {
        let time = match ClockShift::own() {
            ClockShift::Ticks(_) => None,
            ClockShift::Unknown => Some(own("time")?),
        };
        let folders = folders(changes);
        Ok(Namespaces {
            pid: own("pid")?,
            network: own("net")?,
            mount: own("mnt")?,
            time,
            folders: folders
                .filter_map(|path| Some((path.to_owned(), FolderId::at(path)?)))
                .collect(),
        })
    }
}

impl FolderId {
    /// The identity of the folder at this path; none if it cannot be reached.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let folder = rustix::fs::stat(path).ok()?;
        Some(FolderId {
            device: folder.st_dev,
            inode: folder.st_ino,
        })
    }
}

/// The inode number of this process's namespace of this kind.
pub(super) fn own(kind: &str) -> io::Result<u64> {
    let path = format!("/proc/self/ns/{kind}");
    rustix::fs::stat(&path)
        .map(|file| file.st_ino)
        .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("{path}: {error}")))
}

/// The folders that the changes name.
pub(super) fn folders(changes: &[Change]) -> impl Iterator<Item = &Path> {
    altered_places(changes).filter_map(|place| match place {
        AlteredPlace::Folder(folder) => Some(folder),
        AlteredPlace::Nowhere | AlteredPlace::Network(_) | AlteredPlace::Mounts => None,
    })
}

/// The places that the changes may alter, see [`AlteredPlace`].
pub(super) fn altered_places(changes: &[Change]) -> impl Iterator<Item = AlteredPlace<'_>> {
    changes.iter().filter_map(|change| match change {
        Change::Helper(helper) => Some(helper.spec.helper().altered_place()),
        Change::Replace(replace) => replace.path.parent().map(AlteredPlace::Folder),
        Change::ReadOnlyMount(_) => Some(AlteredPlace::Mounts),
        Change::StoppedUnits(_) => Some(AlteredPlace::Folder(StoppedUnits::place())),
        Change::Stop(_)
        | Change::Plugin(_)
        | Change::Kill(_)
        | Change::FileLimit(_)
        | Change::HostClock(_)
        | Change::ProcessClock(_)
        | Change::Unreadable(_) => None,
    })
}
