//! A file system that does not answer: FUSE, with a server that takes each request and says nothing, as a network's file system
//! whose server is gone. Whoever looks at a path in it waits, and cannot even be killed.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The server, in Python: no library is needed for one that never answers but once, to begin with.
const SERVER: &str = r#"
import ctypes, os, struct, sys
place = sys.argv[1].encode()
fuse = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fuse
if libc.mount(b"hung", place, b"fuse", 0, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
# FUSE_INIT is answered, as linux/fuse.h has it; nothing after that is.
request = os.read(fuse, 1 << 20)
unique, = struct.unpack_from("=Q", request, 8)
body = struct.pack("=IIIIHHIIHHIIHH6I", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0, 0, 0, 0, *([0] * 6))
body = body[:64].ljust(64, b"\0")
os.write(fuse, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)
print("ready", flush=True)
while True:
    os.read(fuse, 1 << 20)
"#;

/// A folder of which every look hangs. Whoever hangs there is let go when this is dropped.
pub struct HungFiles {
    folder: tempfile::TempDir,
    server: Child,
}

impl HungFiles {
    /// Mounts one. Needs root, `python3`, `/dev/fuse`, and a mount namespace of the test's own.
    ///
    /// # Panics
    /// It can't be mounted.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut server = Command::new("python3")
            .args(["-c", SERVER])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`python3` starts");
        let stdout = server.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it can be read");
        assert_eq!(line, "ready\n", "the file system could not be mounted");
        HungFiles { folder, server }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for HungFiles {
    fn drop(&mut self) {
        // The kernel lets go of everybody when nobody serves any more.
        self.server.kill().ok();
        self.server.wait().ok();
        Command::new("umount")
            .args(["--lazy"])
            .arg(self.folder.path())
            .status()
            .ok();
    }
}
