//! How programs of a host or namespace find addresses, as their files say: hosts(5), resolv.conf(5), nsswitch.conf(5). The files may be
//! somebody else's: links lead nowhere beyond their root, nothing but regular files is opened, and little of them is read.

use crate::netlink::{NAMED_NAMESPACES, Namespace};
use crate::processes::{ProcessId, ProcessTable};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest file that is read, in bytes; people put millions of names into hosts files.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// The most name servers that are asked, as with the C library.
const MAX_SERVERS: usize = 3;
/// The most domains that a name is looked for in.
const MAX_SEARCH: usize = 16;

/// Whose files tell how names are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Viewpoint {
    /// Those of a network namespace with this name, as `ip netns exec` shows them: in `/etc/netns/NAME`, else this host's.
    Named(PathBuf),
    /// Those that this process sees.
    Process(ProcessId),
}

impl Viewpoint {
    /// That of who is in a namespace; none where nobody can be found who is.
    pub fn of(namespace: &Namespace, table: &ProcessTable) -> Option<Self> {
        if let Ok(name) = namespace.path.strip_prefix(NAMED_NAMESPACES)
            && name.components().count() == 1
        {
            return Some(Viewpoint::Named(name.to_owned()));
        }
        // `/proc/PID/ns/net`, or another path that somebody has given it.
        let pid = namespace.path.strip_prefix("/proc").ok().and_then(|path| {
            let pid = path.components().next()?.as_os_str().to_str()?;
            pid.parse::<i32>().ok()
        });
        let named = pid.and_then(|pid| table.identify(pid));
        let id = named.or_else(|| oldest_in(namespace, table))?;
        Some(Viewpoint::Process(id))
    }

    /// That of a process, where it sees other files than this one.
    pub fn of_process(id: ProcessId) -> Option<Self> {
        let mounts = |process: &str| {
            std::fs::metadata(format!("/proc/{process}/ns/mnt")).map(|namespace| namespace.ino())
        };
        let root = |process: &str| std::fs::read_link(format!("/proc/{process}/root"));
        let pid = id.pid.to_string();
        let same = mounts(&pid).ok() == mounts("self").ok() && root(&pid).ok() == root("self").ok();
        (!same).then_some(Viewpoint::Process(id))
    }

    /// Reads a file of `/etc`; none where there is none, or it can't be read.
    pub fn read(&self, name: &str, table: &ProcessTable) -> Option<String> {
        let etc = Path::new("etc").join(name);
        match self {
            Viewpoint::Named(namespace) => {
                let own = Path::new("etc/netns").join(namespace).join(name);
                let root = Path::new("/");
                read(root, &own).or_else(|| read(root, &etc))
            }
            Viewpoint::Process(id) => {
                let root = PathBuf::from(format!("/proc/{}/root", id.pid));
                let text = read(&root, &etc);
                // Another one may have its number by now.
                text.filter(|_| table.alive(*id))
            }
        }
    }
}

/// The process that is in a namespace for the longest time, other than helpers of the agent.
fn oldest_in(namespace: &Namespace, table: &ProcessTable) -> Option<ProcessId> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = pids.filter(|pid| {
        let path = format!("/proc/{pid}/ns/net");
        std::fs::metadata(path).is_ok_and(|file| file.ino() == namespace.inode)
            && table.name(*pid).as_deref() != Some(crate::processes::HELPER_NAME)
    });
    inside
        .filter_map(|pid| table.identify(pid))
        .min_by_key(|id| (id.start, id.pid))
}

/// This host's own file of `/etc`.
pub fn read_own(name: &str) -> Option<String> {
    read(Path::new("/"), &Path::new("etc").join(name))
}

/// The text of a file below a root that may be somebody else's: its links are followed there, and whatever it is, nothing waits for it.
#[expect(
    clippy::disallowed_methods,
    reason = "opened for reading, below a root that may be somebody else's"
)]
fn read(root: &Path, path: &Path) -> Option<String> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat2(CWD, root, folder, Mode::empty(), ResolveFlags::empty()).ok()?;
    let file = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let text = crate::files::read_handle(&file, MAX_FILE_BYTES).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// A name server: its address, and the interface that an address of a link is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameServer {
    /// The address of the server.
    pub address: IpAddr,
    /// The name of the interface over which the server is reached.
    pub interface: Option<String>,
}

/// What a file in the format of resolv.conf(5) says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// Whom to ask, in this order.
    pub servers: Vec<NameServer>,
    /// The domains that a name may be in.
    pub search: Vec<String>,
    /// How many dots a name has that is first looked for as it is.
    pub dots: usize,
    /// How long one server is waited for.
    pub timeout: Duration,
    /// How often all are asked.
    pub attempts: usize,
    /// Whether TCP is used from the beginning.
    pub by_tcp: bool,
}

impl ResolvConf {
    /// Reads it; what can't be read is passed over, as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut read = ResolvConf {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            by_tcp: false,
        };
        for line in text.lines().filter(|line| !line.starts_with([';', '#'])) {
            let line = line.split(" #").next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let Some(word) = words.next() else { continue };
                    let (address, interface) = match word.split_once('%') {
                        Some((address, interface)) => (address, Some(interface.to_owned())),
                        None => (word, None),
                    };
                    if let Ok(address) = address.parse() {
                        read.servers.push(NameServer { address, interface });
                    }
                }
                // The last line of them counts.
                Some("search" | "domain") => {
                    read.search = words.take(MAX_SEARCH).map(str::to_owned).collect();
                }
                Some("options") => words.for_each(|word| read.option(word)),
                _ => {}
            }
        }
        read
    }

    fn option(&mut self, word: &str) {
        let (key, value) = word.split_once(':').unwrap_or((word, ""));
        let number = value.parse::<u8>().ok();
        match (key, number) {
            ("ndots", Some(dots)) => self.dots = dots.min(15).into(),
            ("timeout", Some(seconds)) => {
                self.timeout = Duration::from_secs(seconds.clamp(1, 30).into());
            }
            ("attempts", Some(attempts)) => self.attempts = attempts.clamp(1, 5).into(),
            ("use-vc", _) => self.by_tcp = true,
            _ => {}
        }
    }

    /// Those that are asked; the one on the loopback where none is named.
    pub fn asked(&self) -> Vec<NameServer> {
        let mut servers = self.servers.clone();
        servers.truncate(MAX_SERVERS);
        if servers.is_empty() {
            servers.push(NameServer {
                address: [127, 0, 0, 1].into(),
                interface: None,
            });
        }
        servers
    }

    /// The names in full that a name may mean, in the order in which they are looked for.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let longer = self.search.iter().map(|domain| {
            let domain = domain.trim_matches('.');
            match domain {
                "" => name.to_owned(),
                domain => format!("{name}.{domain}"),
            }
        });
        let first = name.matches('.').count() >= self.dots;
        let mut all: Vec<String> = match first {
            true => std::iter::once(name.to_owned()).chain(longer).collect(),
            false => longer.chain(std::iter::once(name.to_owned())).collect(),
        };
        all.dedup();
        all
    }
}

/// The lines of hosts(5): an address, and its names.
pub fn hosts(text: &str) -> impl Iterator<Item = (IpAddr, Vec<&str>)> {
    text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let address = words.next()?;
        // An address of a link has its interface's name behind it.
        let address = address.split('%').next()?.parse().ok()?;
        Some((address, words.collect()))
    })
}

/// Where nsswitch.conf(5) says that hosts are looked for; nothing where it says nothing.
pub fn sources(text: &str) -> Option<Vec<String>> {
    text.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let sources = line.trim_start().strip_prefix("hosts:")?;
        Some(sources.split_whitespace().map(str::to_owned).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_parsed_as_by_the_c_library() {
        let read = ResolvConf::parse(
            "# nameserver 9.9.9.9\n;nameserver 9.9.9.9\nsearch a.test b.test\nnameserver 127.0.0.53 \n nameserver fe80::1%eth0\nnameserver x\noptions ndots:3 timeout:2 attempts:9 edns0 trust-ad\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n",
        );
        let addresses: Vec<String> = read
            .asked()
            .iter()
            .map(|server| format!("{} {:?}", server.address, server.interface))
            .collect();
        let expected = ["127.0.0.53 None", "fe80::1 Some(\"eth0\")", "10.0.0.1 None"];
        assert_eq!(addresses, expected);
        assert_eq!((read.dots, read.attempts), (3, 5));
        assert_eq!(read.timeout, Duration::from_secs(2));
        let candidates = |name: &str| read.candidates(name).join(" ");
        assert_eq!(candidates("db"), "db.a.test db.b.test db");
        assert_eq!(candidates("db."), "db");
        assert_eq!(
            candidates("a.b.c.d"),
            "a.b.c.d a.b.c.d.a.test a.b.c.d.b.test"
        );
        let empty = ResolvConf::parse("");
        assert_eq!(empty.asked()[0].address, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(empty.candidates("db"), ["db"]);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a made-up root")]
    fn links_do_not_lead_out_of_a_root_and_nothing_waits() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let root = folder.path();
        std::fs::create_dir_all(root.join("etc")).expect("a folder can be made");
        std::fs::create_dir_all(root.join("run")).expect("a folder can be made");
        std::fs::write(root.join("run/own"), "its own").expect("a file can be written");
        symlink("/run/own", root.join("etc/inside")).expect("a link can be made");
        symlink("../../../../run/own", root.join("etc/above")).expect("a link can be made");
        symlink("/proc/self/status", root.join("etc/outside")).expect("a link can be made");
        let fifo = root.join("etc/fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo can be made");
        let huge = std::fs::File::create(root.join("etc/huge")).expect("a file can be made");
        huge.set_len(1 << 40).expect("a file may have holes");
        let seen = |name: &str| read(root, &Path::new("etc").join(name));
        assert_eq!(seen("inside").as_deref(), Some("its own"));
        assert_eq!(seen("above").as_deref(), Some("its own"));
        assert_eq!(seen("outside"), None);
        assert_eq!(seen("fifo"), None);
        assert_eq!(seen("../etc"), None);
        assert_eq!(seen("huge"), None);
    }
}
