//! Two ends of a wire, each in a network namespace of its own: here, and there. The test is here,
//! and makes sockets on both sides; nothing of it touches the machine's own network.

use crate::wait::wait_within;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Our own addresses.
pub const HERE: [&str; 2] = ["10.9.0.1", "fd09::1"];
/// The other side's.
pub const THERE: [&str; 2] = ["10.9.0.2", "fd09::2"];
/// The other side's second ones: flows beside those that are meant.
pub const BESIDE: [&str; 2] = ["10.9.0.3", "fd09::3"];
/// The interface here.
pub const DEVICE: &str = "here";

/// Runs `ip`.
///
/// # Panics
/// It fails.
pub fn ip(words: &[&str]) {
    let output = Command::new("ip")
        .args(words)
        .output()
        .expect("`ip` starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words:?}: {said}");
}

/// A process in a network namespace of its own, which keeps it.
///
/// # Panics
/// There is none in time.
pub fn keeper() -> Child {
    let mut keeper = Command::new("unshare")
        .args(["--net", "--", "sleep", "1000"])
        .spawn()
        .expect("`unshare` starts");
    let own = std::fs::read_link("/proc/self/ns/net").expect("a process is in a namespace");
    let path = format!("/proc/{}/ns/net", keeper.id());
    let until = Instant::now() + Duration::from_secs(10);
    while std::fs::read_link(&path).is_ok_and(|there| there == own) {
        let over = keeper.try_wait().expect("a child can be waited for");
        assert!(over.is_none() && Instant::now() < until, "{over:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    keeper
}

/// Does something in the network namespace of a process, e.g. makes a socket, which stays there.
///
/// # Panics
/// It can't be entered, or what is done panics.
pub fn within<T: Send>(pid: u32, deed: impl FnOnce() -> T + Send) -> T {
    let namespace =
        std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("the other side is there");
    std::thread::scope(|threads| {
        let side = threads.spawn(|| {
            nix::sched::setns(namespace.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("root may enter a namespace");
            deed()
        });
        side.join().expect("what is done there does not panic")
    })
}

/// The wire, and the other side's namespace.
pub struct Wire {
    /// A process that is in it, and keeps it.
    keeper: Child,
}

impl Wire {
    /// Makes both sides, without addresses. To be called in a network namespace of the test's own.
    ///
    /// # Panics
    /// It can't be made.
    pub fn bare() -> Self {
        Wire { keeper: keeper() }.joined()
    }

    fn joined(self) -> Self {
        let there = self.pid().to_string();
        ip(&[
            "link", "add", DEVICE, "type", "veth", "peer", "name", "there", "netns", &there,
        ]);
        self
    }

    /// Makes both sides, with their addresses, up.
    ///
    /// # Panics
    /// It can't be made.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let wire = Wire::bare();
        for address in HERE {
            ip(&["address", "add", &with_bits(address), "dev", DEVICE]);
        }
        ip(&["link", "set", DEVICE, "up"]);
        wire.there(|| {
            for address in THERE.into_iter().chain(BESIDE) {
                ip(&["address", "add", &with_bits(address), "dev", "there"]);
            }
            ip(&["link", "set", "lo", "up"]);
            ip(&["link", "set", "there", "up"]);
        });
        // Addresses of IPv6 are not used before it is known that nobody else has them.
        let tentative = || {
            let output = Command::new("ip")
                .args(["-6", "address", "show", "tentative"])
                .output();
            !output.expect("`ip` starts").stdout.is_empty()
        };
        wait_within(
            "the addresses stay tentative",
            Duration::from_secs(10),
            || !(tentative() || wire.there(tentative)),
        );
        wire
    }

    /// The process id of one that is on the other side.
    pub fn pid(&self) -> u32 {
        self.keeper.id()
    }

    /// The path of the other side's namespace.
    pub fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.keeper.id())
    }

    /// Does something on the other side, e.g. makes a socket, which stays there.
    ///
    /// # Panics
    /// What is done panics.
    pub fn there<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> T {
        within(self.pid(), deed)
    }

    /// Echoes on the other side: whatever comes to this port by TCP or UDP, at any address, goes back.
    pub fn echo(&self, port: u16) {
        let (tcp, udp) = self.there(|| sockets(port));
        serve(tcp, udp);
    }

    /// Counts what comes to this port by UDP on the other side.
    pub fn count(&self, address: &str, port: u16) -> Arc<AtomicU64> {
        let socket =
            self.there(|| UdpSocket::bind(at(address, port)).expect("a socket can be bound"));
        // A machine that is busy elsewhere is not to look like a loss: room for all until they are counted.
        setsockopt(&socket, RcvBufForce, &(16 << 20)).expect("root may make a buffer large");
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            let mut room = [0; 64];
            while socket.recv(&mut room).is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        count
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The kernel takes a namespace down some time after its last process; the wire is to be gone now.
        let removed = Command::new("ip").args(["link", "delete", DEVICE]).output();
        drop(removed);
        self.keeper.kill().ok();
        self.keeper.wait().ok();
    }
}

fn with_bits(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 64 } else { 24 })
}

/// Echoes here, on this port.
pub fn echo_here(port: u16) {
    let (tcp, udp) = sockets(port);
    serve(tcp, udp);
}

/// One pair for each address: an answer of a socket for all would come from whichever address is first.
fn sockets(port: u16) -> (TcpListener, Vec<UdpSocket>) {
    let every = SocketAddr::new("::".parse::<IpAddr>().expect("an address"), port);
    let udp = HERE.into_iter().chain(THERE).chain(BESIDE);
    let udp = udp
        .filter_map(|address| UdpSocket::bind(at(address, port)).ok())
        .collect();
    (
        TcpListener::bind(every).expect("a port can be listened on"),
        udp,
    )
}

fn serve(tcp: TcpListener, udp: Vec<UdpSocket>) {
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            std::thread::spawn(move || {
                let mut room = [0; 4096];
                let mut stream = stream;
                while let Ok(count @ 1..) = stream.read(&mut room) {
                    if stream.write_all(&room[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    for socket in udp {
        std::thread::spawn(move || {
            let mut room = [0; 2048];
            loop {
                match socket.recv_from(&mut room) {
                    Ok((count, from)) => drop(socket.send_to(&room[..count], from)),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // What was sent before was refused; that is no end.
                    Err(_) => {}
                }
            }
        });
    }
}

/// An address with a port.
///
/// # Panics
/// It is none.
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// A word there and back by TCP, on a connection of its own.
///
/// # Errors
/// What the connection said.
pub fn tcp(to: SocketAddr, patience: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"word")?;
    let mut room = [0; 4];
    stream.read_exact(&mut room)
}

/// A word there and back by UDP.
///
/// # Errors
/// What the socket said: that the port is unreachable, even where sending itself had an error; or that nothing came back in time.
pub fn udp(to: SocketAddr, patience: Duration) -> std::io::Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind(at(any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    let sent = socket.send(b"word");
    match (sent, socket.recv(&mut [0; 4])) {
        (Err(_), Err(heard)) if heard.kind() == ErrorKind::ConnectionRefused => Err(heard),
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        (Ok(_), Ok(_)) => Ok(()),
    }
}

/// Sends so many datagrams, with short breaks, so that whoever counts them keeps up.
///
/// # Panics
/// One can't be sent: a loss is silent.
pub fn send(to: SocketAddr, datagrams: u64) {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind(at(any, 0)).expect("a socket can be bound");
    for number in 0..datagrams {
        socket
            .send_to(&number.to_be_bytes(), to)
            .expect("whoever sends is not told of a loss");
        if number % 50 == 49 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
