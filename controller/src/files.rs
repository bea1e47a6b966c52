//! Reading files that a document names, and making files that only their owner may read. A path in a document may lead to anything: its
//! type is checked before it is opened, and only regular files are opened.

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The most that is read of a file that a document names, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads the text of a regular file of at most [`MAX_FILE_BYTES`]. Links are followed.
///
/// # Errors
/// There is no such file, or it is not a regular file, too long, not text, or not readable. The message says which.
pub fn read_text(path: &Path) -> io::Result<String> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    // O_PATH does not open the file yet: it neither waits for a FIFO nor affects a device.
    let handle = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let kind = SFlag::from_bits_truncate(fstat(&handle)?.st_mode & SFlag::S_IFMT.bits());
    if kind != SFlag::S_IFREG {
        return Err(invalid("it is not a regular file".into()));
    }
    let again = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = File::from(open(Path::new(&again), flags, Mode::empty())?);
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MAX_FILE_BYTES {
        true => Err(invalid(format!("it is longer than {MAX_FILE_BYTES} bytes"))),
        false => Ok(text),
    }
}

/// Creates a file that only its owner may read and write, in place of any that is there: that one may be readable by others.
///
/// # Errors
/// The old file could not be removed, or the new one not be created.
pub fn create_private(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Syncs the directory that a path is in, so that the path's name survives a crash of the host.
///
/// # Errors
/// The directory could not be opened or synced.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_text_reads_files_and_refuses_all_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "hush").unwrap();
        assert_eq!(read_text(&path).unwrap(), "hush");
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        for odd in [fifo.as_path(), folder.path(), Path::new("/dev/zero")] {
            let error = read_text(odd).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
        std::fs::write(&path, vec![b'x'; 1 + (1 << 20)]).unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("longer"));
    }
}
