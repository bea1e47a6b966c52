//! Connections through the fault `tcp-proxy`, injected by a program of its own, as a person would.
//! Over the loopback, and without any rights.

use crate::{processes, programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What is waited for comes within this time, on whatever machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server on the loopback: each connection gets a thread and is served as told.
///
/// # Panics
/// No port can be listened on.
pub fn serve(service: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be listened on");
    let address = listener.local_addr().expect("it listens");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let service = service.clone();
            std::thread::spawn(move || {
                stream.set_nodelay(true).ok();
                service(stream);
            });
        }
    });
    address
}

/// Sends back what comes, until its end.
pub fn echo(mut stream: TcpStream) {
    let mut room = vec![0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut room) {
        if stream.write_all(&room[..count]).is_err() {
            return;
        }
    }
}

/// An address of the loopback on which nobody listens, of a port that no outgoing connection takes.
///
/// # Panics
/// There is none.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Below those that Linux gives out by itself, from 32768 on; each test program begins elsewhere.
    const PORTS: u32 = 20_000;
    let begin = std::process::id().wrapping_mul(97);
    let mut ports = (0..PORTS).map(|_| {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        (12_000 + number % PORTS) as u16
    });
    let listener = ports.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let listener = listener.expect("a port is free");
    listener.local_addr().expect("it listens")
}

/// A proxy that acts.
pub struct Proxied {
    /// Where it listens.
    pub address: SocketAddr,
    inject: Child,
    state: tempfile::TempDir,
    /// What the injecting program says. Not a pipe: nobody would listen.
    said: tempfile::NamedTempFile,
    ended: bool,
}

impl Proxied {
    /// Injects with these arguments besides `listen` and `upstream`, and returns when it acts.
    ///
    /// # Panics
    /// It is not injected.
    #[track_caller]
    pub fn new(upstream: SocketAddr, harm: Value) -> Self {
        Self::by(
            Command::new(programs::backburn_agent()),
            upstream,
            harm,
            "60s",
        )
    }

    /// As [`Proxied::new`], with a command that starts the agent's program, for this duration.
    ///
    /// # Panics
    /// It is not injected.
    #[track_caller]
    pub fn by(mut agent: Command, upstream: SocketAddr, harm: Value, duration: &str) -> Self {
        let address = free();
        let mut arguments = harm;
        arguments["listen"] = json!(address.to_string());
        arguments["upstream"] = json!(upstream.to_string());
        let state = tempfile::tempdir().expect("a temporary folder can be made");
        // Also where the agent is another user's.
        use std::os::unix::fs::PermissionsExt as _;
        let open = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(state.path(), open).expect("it is ours");
        let said = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        let output = said.reopen().expect("it is there");
        let mut inject = agent
            .args(["inject", "--state"])
            .arg(state.path().join("state"))
            .args(["tcp-proxy", "--json", "--seed", "5"])
            .args(["--duration", duration, "--arguments"])
            .arg(arguments.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::from(output))
            .stderr(Stdio::null())
            .spawn()
            .expect("the agent starts");
        let until = Instant::now() + PATIENCE;
        while reports(&said, "injected").is_none() {
            let over = inject.try_wait().expect("a child can be waited for");
            assert!(
                over.is_none() && Instant::now() < until,
                "{arguments}: not injected: {over:?}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Proxied {
            address,
            inject,
            state,
            said,
            ended: false,
        }
    }

    /// A connection through it, which waits for no more than [`PATIENCE`].
    ///
    /// # Panics
    /// There is none to be had.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the proxy listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket waits so long");
        stream.set_nodelay(true).expect("it is a TCP socket");
        stream
    }

    /// Everybody who might put it back: the injecting program, the guardian, the agent and the helper.
    ///
    /// # Panics
    /// They are not four.
    pub fn everybody(&self) -> Vec<i32> {
        let alive = processes::alive();
        let mut all = vec![self.inject.id() as i32];
        let mut next = 0;
        while let Some(parent) = all.get(next).copied() {
            let children = alive.values().filter(|process| process.parent == parent);
            all.extend(children.map(|process| process.pid));
            next += 1;
        }
        assert_eq!(all.len(), 4, "{all:?}");
        all
    }

    /// Ends it; what it was seen to do.
    ///
    /// # Panics
    /// Its end is not clean.
    #[track_caller]
    pub fn end(self) -> Value {
        kill(Pid::from_raw(self.inject.id() as i32), Signal::SIGINT).ok();
        self.wait()
    }

    /// Waits for its end; what it was seen to do.
    ///
    /// # Panics
    /// Its end is not clean.
    #[track_caller]
    pub fn wait(mut self) -> Value {
        let status = self.inject.wait().expect("it ends");
        self.ended = true;
        assert!(status.success(), "{status}");
        let ledger = self.state.path().join("state/ledger");
        let owed = std::fs::read_dir(ledger).into_iter().flatten().flatten();
        let owed: Vec<_> = owed
            .map(|file| file.file_name())
            .filter(|name| name.to_string_lossy().ends_with(".json"))
            .collect();
        assert!(owed.is_empty(), "{owed:?}");
        reports(&self.said, "ended").expect("it tells of its end")["effect"].clone()
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        if !self.ended {
            // A test has failed: the agent puts it back when nobody asks for it any more.
            self.inject.kill().ok();
            self.inject.wait().ok();
        }
    }
}

/// The last report of this kind.
fn reports(said: &tempfile::NamedTempFile, kind: &str) -> Option<Value> {
    let text = std::fs::read_to_string(said.path()).expect("it is there");
    let whole = text.lines().filter(|line| line.ends_with('}'));
    whole
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .rfind(|report| report["say"] == kind)
}

/// What the agent answers to arguments that it does not take: nothing is injected.
///
/// # Panics
/// They are taken.
pub fn refused(arguments: &Value) -> (Output, String) {
    let state = tempfile::tempdir().expect("a temporary folder can be made");
    let output = Command::new(programs::backburn_agent())
        .args(["inject", "--state"])
        .arg(state.path().join("state"))
        .args(["tcp-proxy", "--duration", "1s", "--arguments"])
        .arg(arguments.to_string())
        .output()
        .expect("the agent starts");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!output.status.success(), "{arguments}: {said}");
    let entries = std::fs::read_dir(state.path().join("state/ledger"));
    let entries = entries.into_iter().flatten().flatten();
    assert!(
        !entries
            .map(|file| file.file_name())
            .any(|name| name.to_string_lossy().ends_with(".json")),
        "{arguments}"
    );
    (output, said)
}
