//! A real name server, `dnsmasq`, in the network namespace of the thread that starts it, and askers: `dig`, the C library by
//! `getent`, and a plain one that shows every byte.

use crate::network::at;
use crate::wait::wait_within;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The programs that such a test wants, beside those of every network fault.
pub const PROGRAMS: [&str; 8] = [
    "unshare", "ip", "nft", "sleep", "mount", "dnsmasq", "dig", "getent",
];
/// The name that has addresses of both families and two texts.
pub const DB: &str = "db.example.org";
/// Its addresses.
pub const ADDRESSES: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// A name beside it, with an address of each family.
pub const OTHER: &str = "other.example.org";
/// Numbers of record types.
pub const A: u16 = 1;
/// See [`A`].
pub const TXT: u16 = 16;
/// See [`A`].
pub const AAAA: u16 = 28;
/// How long an answer is waited for, where one must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A name server that runs.
pub struct NameServer(Child);

impl NameServer {
    /// Starts one at these addresses, and returns when it answers.
    ///
    /// # Panics
    /// It does not answer.
    pub fn start(addresses: &[&str]) -> Self {
        Self::at_port(addresses, 53)
    }

    /// As [`NameServer::start`], at another port.
    ///
    /// # Panics
    /// It does not answer.
    pub fn at_port(addresses: &[&str], port: u16) -> Self {
        let long = "x".repeat(200);
        let texts = (0..15).map(|number| format!("--txt-record=long.example.org,{number}{long}"));
        let records = [
            format!("--host-record={DB},{}", ADDRESSES.join(",")),
            format!("--txt-record={DB},hello"),
            format!("--host-record={OTHER},192.0.2.2,2001:db8::2"),
        ];
        Self::run(addresses, port, records.into_iter().chain(texts))
    }

    /// Starts one that asks another and keeps what that says.
    ///
    /// # Panics
    /// It does not answer.
    pub fn caching(addresses: &[&str], upstream: &str) -> Self {
        Self::run(addresses, 53, [format!("--server={upstream}")].into_iter())
    }

    fn run(addresses: &[&str], port: u16, words: impl Iterator<Item = String>) -> Self {
        let mut command = Command::new("dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
            ])
            .args([
                "--no-hosts",
                "--pid-file=",
                "--user=root",
                "--bind-interfaces",
            ])
            .args(["--edns-packet-max=4096", "--local-ttl=30"])
            .args(
                addresses
                    .iter()
                    .map(|address| format!("--listen-address={address}")),
            )
            .arg(format!("--port={port}"))
            .args(words)
            .stdin(Stdio::null());
        let server = NameServer(command.spawn().expect("`dnsmasq` starts"));
        for address in addresses {
            wait_within(&format!("no answer from {address}"), PATIENCE, || {
                ask(at(address, port), OTHER, A, Duration::from_millis(100)).is_ok()
            });
        }
        server
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Asks by UDP, once, without EDNS; the bytes of the answer. The same question gives the same bytes.
///
/// # Errors
/// None came in time, or the socket's own.
pub fn ask(server: SocketAddr, name: &str, kind: u16, patience: Duration) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind(at(any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience))?;
    let mut question = vec![0x42, 0x42, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.push(0);
    question.extend([kind.to_be_bytes(), [0, 1]].concat());
    socket.send(&question)?;
    let mut room = [0; 4096];
    let length = socket.recv(&mut room)?;
    Ok(room[..length].to_vec())
}

/// The response code of an answer.
pub fn code(answer: &[u8]) -> u8 {
    answer[3] & 0x0f
}

/// How many records are in its answer section.
pub fn records(answer: &[u8]) -> u16 {
    u16::from_be_bytes([answer[6], answer[7]])
}

/// What `dig` says, or that it fails: nobody answers.
///
/// # Panics
/// It does not start.
pub fn dig(server: &str, words: &[&str]) -> Option<String> {
    let output = Command::new("dig")
        .arg(format!("@{server}"))
        .args(["+tries=1", "+time=10", "+noall", "+comments", "+answer"])
        .args(words)
        .output()
        .expect("`dig` starts");
    let said = String::from_utf8(output.stdout).expect("text");
    output.status.success().then_some(said)
}

/// The addresses that the C library finds, sorted.
///
/// # Panics
/// `getent` does not start.
pub fn found(name: &str) -> Vec<String> {
    let output = Command::new("getent")
        .args(["ahosts", name])
        .output()
        .expect("`getent` starts");
    let said = String::from_utf8(output.stdout).expect("text");
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let mut found: Vec<String> = said.lines().filter_map(first).collect();
    found.sort();
    found.dedup();
    found
}

/// Has the C library ask this server, and nobody else. Mounts, so the mount namespace must be the test's own.
///
/// # Panics
/// That can't be done.
pub fn resolve_by(folder: &Path, server: &str) {
    for (path, text) in [
        (
            "/etc/resolv.conf",
            format!("nameserver {server}\noptions attempts:1 timeout:5\n"),
        ),
        ("/etc/nsswitch.conf", "hosts: files dns\n".to_owned()),
    ] {
        let own = folder.join(path.trim_start_matches("/etc/"));
        std::fs::write(&own, text).expect("a file can be written");
        let status = Command::new("mount")
            .arg("--bind")
            .arg(&own)
            .arg(path)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "{path}");
    }
}
