//! Reading files whose paths a document or a person names. Such a path may lead to anything: a FIFO on which an open waits for
//! ever, a device that acts when it is opened, a folder, a file without end. Its type is checked before it is opened, and only
//! regular files are opened.

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

/// Reads a regular file of at most this many bytes. Links are followed.
///
/// # Errors
/// There is no such file, or it is not a regular one, is longer, or cannot be read. A file system that does not
/// answer makes this wait, so call it in a child process that may hang (see `children`).
#[expect(
    clippy::disallowed_methods,
    reason = "this is the way to read a file that somebody named"
)]
pub fn read_regular(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    // Opens nothing yet: no FIFO is waited for, no device is told.
    let handle = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    read_handle(&handle, max_bytes)
}

/// Reads the regular file that a handle (`O_PATH`) stands for.
///
/// # Errors
/// The same as those of [`read_regular`].
pub fn read_handle(handle: &OwnedFd, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = open_handle(handle)?;
    let mut content = Vec::new();
    // Its length is no promise: it may grow, and some files have none.
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut content)?;
    if content.len() as u64 > max_bytes {
        return Err(invalid(format!("it is longer than {max_bytes} bytes")));
    }
    Ok(content)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the way to read a file that somebody named"
)]
fn open_handle(handle: &OwnedFd) -> io::Result<File> {
    match FileType::from_raw_mode(fstat(handle)?.st_mode) {
        FileType::RegularFile => {}
        other => {
            return Err(invalid(format!(
                "it is {}, not a regular file",
                kind(other)
            )));
        }
    }
    let again = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(open(again, flags, Mode::empty())?))
}

fn kind(of: FileType) -> &'static str {
    match of {
        FileType::Directory => "a folder",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a link",
        FileType::RegularFile | FileType::Unknown => "something else",
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a folder of the test's own")]
mod tests {
    use super::*;

    #[track_caller]
    fn refuses(path: &Path, why: &str) {
        let error = read_regular(path, 100).expect_err("it is refused");
        assert!(
            error.to_string().contains(why),
            "{}: {error}",
            path.display()
        );
    }

    #[test]
    fn read_regular_reads_files_and_refuses_all_else() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "4711\n").expect("it can be written");
        std::os::unix::fs::symlink("file", path("link")).expect("it can be made");
        for good in ["file", "link"] {
            let content = read_regular(&path(good), 5).expect("it can be read");
            assert_eq!(content, b"4711\n");
        }
        assert!(read_regular(&path("file"), 4).is_err(), "too long");
        std::fs::write(path("long"), [b'1'; 101]).expect("it can be written");
        refuses(&path("long"), "longer than 100 bytes");
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("it can be made");
        refuses(&path("fifo"), "a FIFO");
        std::os::unix::fs::symlink("fifo", path("to-fifo")).expect("it can be made");
        refuses(&path("to-fifo"), "a FIFO");
        let _socket =
            std::os::unix::net::UnixListener::bind(path("socket")).expect("it can be made");
        refuses(&path("socket"), "a socket");
        refuses(folder.path(), "a folder");
        refuses(Path::new("/dev/zero"), "a device");
        std::os::unix::fs::symlink("nowhere", path("dangling")).expect("it can be made");
        refuses(&path("dangling"), "No such file");
        std::os::unix::fs::symlink("round", path("round")).expect("it can be made");
        assert!(read_regular(&path("round"), 100).is_err());
        // A file of the kernel's that has no length.
        assert!(read_regular(Path::new("/proc/self/stat"), 10_000).is_ok());
    }
}
