//! Network namespaces: named so that a later one at the same path is not taken for it, looked
//! into on a thread of its own, entered for good by a helper.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where `ip netns` keeps its names.
pub const NAMED: &str = "/run/netns";

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Namespace {
    /// A file that stands for it, e.g. `/run/netns/blue` or `/proc/4711/ns/net`.
    pub path: PathBuf,
    /// The number of its inode, which no other has as long as it lives.
    pub inode: u64,
}

impl Namespace {
    /// The one that a path stands for.
    ///
    /// # Errors
    /// There is no such path, or it does not stand for a namespace.
    pub fn at(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        // `NSFS_MAGIC` of include/uapi/linux/magic.h.
        if rustix::fs::fstatfs(&file)?.f_type != 0x6e73_6673 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it does not stand for a namespace",
            ));
        }
        Ok(Namespace {
            path: path.to_owned(),
            inode,
        })
    }

    /// Our own.
    ///
    /// # Errors
    /// `/proc` can't be read.
    pub fn own() -> io::Result<Self> {
        Self::at(Path::new("/proc/self/ns/net"))
    }

    /// Opens it: at its path, or by any process that is in it. None where it is out of reach of everybody.
    ///
    /// # Errors
    /// It may be there, but can't be opened.
    pub fn open(&self) -> io::Result<Option<File>> {
        match File::open(&self.path) {
            Ok(file) if file.metadata()?.ino() == self.inode => return Ok(Some(file)),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => {}
            // A process that has just died.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        for process in std::fs::read_dir("/proc")? {
            let path = process?.path().join("ns/net");
            if let Ok(file) = File::open(path)
                && file.metadata().is_ok_and(|file| file.ino() == self.inode)
            {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Has the calling thread live in it from now on.
    ///
    /// # Errors
    /// It is gone, or this process may not enter it.
    pub fn enter(&self) -> io::Result<()> {
        let Some(file) = self.open()? else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the namespace is gone",
            ));
        };
        Ok(move_into_link_name_space(
            file.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?)
    }
}

/// Looks at something in a namespace, or in ours where none is given. The thread that looks ends with the look.
/// None where the namespace is gone.
///
/// # Errors
/// It can't be entered, or what `look` said.
pub fn within<T: Send>(
    namespace: Option<&Namespace>,
    look: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<Option<T>> {
    let Some(namespace) = namespace else {
        return look().map(Some);
    };
    let Some(file) = namespace.open()? else {
        return Ok(None);
    };
    std::thread::scope(|threads| {
        let looking = threads.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            look()
        });
        match looking.join() {
            Ok(seen) => seen.map(Some),
            Err(_) => Err(io::Error::other("the thread that looked ended early")),
        }
    })
}
