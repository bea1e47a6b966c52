//! Network namespaces: named so that a later one at the same path is not taken for it, looked
//! into on a thread of its own, entered for good by a helper.

use rustix::fs::{FileType, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where `ip netns` keeps its names.
pub const NAMED_NAMESPACES: &str = "/run/netns";

/// A network namespace, recognized by its inode number.
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
        let file = open(path)?;
        let inode = file.metadata()?.ino();
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
        // A path that somebody has named may lie where a look never ends by now, e.g. on a network's file system whose server is
        // gone. Those of the kernel's own do not.
        let is_safe = ["/proc", NAMED_NAMESPACES]
            .iter()
            .any(|own| self.path.starts_with(own));
        match is_safe {
            true => match self.open_path()? {
                Some(file) => Ok(Some(file)),
                None => self.open_by_process(),
            },
            false => match self.open_by_process()? {
                Some(file) => Ok(Some(file)),
                None => self.open_path(),
            },
        }
    }

    fn open_path(&self) -> io::Result<Option<File>> {
        match open(&self.path) {
            Ok(file) => Ok((file.metadata()?.ino() == self.inode).then_some(file)),
            // Something else is there by now, or nothing; or a process that has just died.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                Ok(None)
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn open_by_process(&self) -> io::Result<Option<File>> {
        for process in std::fs::read_dir("/proc")? {
            let process = process?;
            let is_process = process
                .file_name()
                .to_str()
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
            if !is_process {
                continue;
            }
            if let Ok(file) = open(&process.path().join("ns/net"))
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
        move_into(&file)
    }
}

/// Opens a file that stands for a namespace. Whatever else a path leads to is not opened: a FIFO without a writer would be waited for,
/// and a device does something when it is opened.
#[expect(
    clippy::disallowed_methods,
    reason = "a handle by which a path is looked at (`O_PATH`)"
)]
fn open(path: &Path) -> io::Result<File> {
    /// The type of the file system of namespaces: `NSFS_MAGIC` of include/uapi/linux/magic.h.
    const NAMESPACES: u64 = 0x6e73_6673;
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatfs(&place)?.f_type as u64 != NAMESPACES {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
        let what = match kind {
            FileType::Fifo => "it is a FIFO, and does not stand for a namespace",
            FileType::Directory => "it is a folder, and does not stand for a namespace",
            FileType::CharacterDevice | FileType::BlockDevice => {
                "it is a device, and does not stand for a namespace"
            }
            FileType::Socket => "it is a socket, and does not stand for a namespace",
            _ => "it does not stand for a namespace",
        };
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    // The same file, whatever is at the path by now.
    File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// Has the calling thread live in the namespace that a file stands for.
fn move_into(file: &File) -> io::Result<()> {
    let moved = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
    moved.map_err(|error| match error {
        rustix::io::Errno::INVAL => io::Error::new(
            io::ErrorKind::InvalidInput,
            "it stands for a namespace of another kind, and no network",
        ),
        error => error.into(),
    })
}

/// Runs a function in a namespace, or in the agent's own if none is given, on a thread that ends with it.
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
            move_into(&file)?;
            look()
        });
        match looking.join() {
            Ok(seen) => seen.map(Some),
            Err(_) => Err(io::Error::other("the thread that looked ended early")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "made-up files")]
    fn namespace_path_of_something_else_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("it can be made");
        std::fs::write(at("file"), "text").expect("it can be made");
        std::os::unix::fs::symlink(at("fifo"), at("link")).expect("it can be made");
        std::os::unix::fs::symlink(at("nothing"), at("dangling")).expect("it can be made");
        std::os::unix::fs::symlink("/proc/self/ns/net", at("own")).expect("it can be made");
        for (path, said) in [
            (at("fifo"), "FIFO"),
            (at("link"), "FIFO"),
            (at("file"), "does not stand for a namespace"),
            (at("dangling"), "No such file"),
            (folder.path().to_owned(), "folder"),
            ("/dev/zero".into(), "device"),
            ("/proc/self/status".into(), "does not stand for a namespace"),
        ] {
            let error = Namespace::at(&path).expect_err("it is none").to_string();
            assert!(error.contains(said), "{}: {error}", path.display());
        }
        let own = Namespace::own().expect("a process is in one");
        let by_link = Namespace::at(&at("own")).expect("it leads to one");
        assert_eq!(by_link.inode, own.inode);
        // It is found by a process where a path leads elsewhere by now.
        for path in [at("fifo"), at("nothing"), "/proc/self/nothing".into()] {
            let moved = Namespace {
                path,
                inode: own.inode,
            };
            let found = moved.open().expect("it can be looked for").is_some();
            assert!(found, "{}", moved.path.display());
        }
        let gone = Namespace {
            path: at("fifo"),
            inode: 1,
        };
        assert!(gone.open().expect("it can be looked for").is_none());
    }

    #[test]
    fn namespace_of_another_kind_is_not_entered() {
        let other = Namespace::at(Path::new("/proc/self/ns/uts")).expect("it is one");
        let error = within(Some(&other), || Ok(())).expect_err("it is no network");
        let text = error.to_string();
        // Nobody but root may enter one at all.
        assert!(
            !nix::unistd::geteuid().is_root() || text.contains("another kind"),
            "{text}"
        );
    }
}
