//! How programs of a host or namespace find addresses: whom they ask, and what they find without asking. Looked at only.

use crate::dns::Pattern;
use crate::netlink::{NAMED, Namespace};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The most that is read of a file.
const MOST: u64 = 16 << 20;

/// What its files say; nothing where they can't be read.
#[derive(Debug, Default)]
pub(super) struct Resolution {
    /// The name servers of resolv.conf(5).
    servers: Vec<IpAddr>,
    /// The names of hosts(5), each with all that stands in its line.
    hosts: Vec<String>,
    /// Where nsswitch.conf(5) says that hosts are looked for.
    sources: Vec<String>,
}

impl Resolution {
    /// As seen in a namespace, or by us.
    pub(super) fn of(namespace: Option<&Namespace>) -> Self {
        let folders = match namespace {
            None => Some((PathBuf::from("/"), "etc".into())),
            Some(namespace) => match namespace.path.strip_prefix(NAMED) {
                // Where `ip netns exec` has them from.
                Ok(name) => Some(("/".into(), Path::new("etc/netns").join(name))),
                // `/proc/PID/ns/net`: as that process sees them.
                Err(_) => {
                    let process = namespace.path.parent().and_then(Path::parent);
                    process.map(|process| (process.join("root"), "etc".into()))
                }
            },
        };
        let text = |name: &str| {
            let (root, folder) = folders.as_ref()?;
            read(root, &folder.join(name))
        };
        Resolution::read(
            &text("resolv.conf").unwrap_or_default(),
            &text("hosts").unwrap_or_default(),
            &text("nsswitch.conf").unwrap_or_default(),
        )
    }

    fn read(resolv_conf: &str, hosts: &str, nsswitch: &str) -> Self {
        let words = |text: &str| -> Vec<Vec<String>> {
            let lines = text
                .lines()
                .map(|line| line.split('#').next().unwrap_or_default());
            lines
                .map(|line| line.split_whitespace().map(str::to_owned).collect())
                .collect()
        };
        let server = |line: Vec<String>| match line.as_slice() {
            // An address of a link is told with its interface.
            [key, server, ..] if key == "nameserver" => server.split('%').next()?.parse().ok(),
            _ => None,
        };
        let sources = words(nsswitch).into_iter().find_map(|line| {
            let (key, sources) = line.split_first()?;
            (key == "hosts:").then(|| sources.to_vec())
        });
        Resolution {
            servers: words(resolv_conf).into_iter().filter_map(server).collect(),
            hosts: words(hosts)
                .into_iter()
                .flat_map(|line| line.into_iter().skip(1))
                .collect(),
            sources: sources.unwrap_or_default(),
        }
    }

    /// The name servers, where one of them is on the loopback.
    pub(super) fn local_resolver(&self) -> Option<&[IpAddr]> {
        let is_local = |server: &IpAddr| server.to_canonical().is_loopback();
        self.servers.iter().any(is_local).then_some(&self.servers)
    }

    /// What people should know of ways around a name server.
    pub(super) fn asides(&self, names: &[Pattern]) -> Vec<String> {
        let mut notes = Vec::new();
        let known = self.hosts.iter().filter(|host| {
            let labels: Vec<&[u8]> = host.split('.').map(str::as_bytes).collect();
            // What means everything is not about the machine's own names.
            names
                .iter()
                .any(|name| !name.is_all() && name.matches(&labels))
        });
        let known: Vec<&str> = known.map(String::as_str).collect();
        if !known.is_empty() {
            let known = known.join(", ");
            notes.push(format!(
                "hosts(5) knows {known}: nobody need ask a name server for it"
            ));
        }
        if self.sources.iter().any(|source| source == "resolve") {
            notes.push(
                "nsswitch.conf has `resolve`: programs may ask systemd-resolved by a socket of its own, and only what that asks is seen here; `server` may name whom it asks".into(),
            );
        }
        notes
    }
}

/// The text of a file below a root that may be somebody else's: its links are followed there, and whatever it
/// is, nothing waits for it.
fn read(root: &Path, path: &Path) -> Option<String> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat2(CWD, root, folder, Mode::empty(), ResolveFlags::empty()).ok()?;
    let file = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let text = crate::files::read_handle(&file, MOST).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_they_are_written() {
        let resolution = Resolution::read(
            "# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53 \n nameserver fe80::1%eth0\nnameserver x\n",
            "127.0.0.1 localhost\n10.0.0.7\tDB.example.org db # ours\n",
            "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n",
        );
        let servers: [IpAddr; 2] = [[127, 0, 0, 53].into(), "fe80::1".parse().expect("one")];
        assert_eq!(resolution.local_resolver(), Some(&servers[..]));
        let names = |names: &[&str]| -> Vec<Pattern> {
            let parsed = names.iter().map(|name| name.parse().expect("a pattern"));
            parsed.collect()
        };
        let asides = resolution.asides(&names(&["*.example.org"]));
        assert!(
            asides.len() == 2 && asides[0].contains("DB.example.org"),
            "{asides:?}"
        );
        assert_eq!(resolution.asides(&names(&["*", "example.org"])).len(), 1);
        let plain = Resolution::read("nameserver 10.0.0.1", "127.0.0.1 localhost", "");
        assert_eq!(plain.local_resolver(), None);
        assert_eq!(plain.asides(&names(&["*"])), [""; 0]);
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
        symlink("/proc/self/status", root.join("etc/outside")).expect("a link can be made");
        let fifo = root.join("etc/fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo can be made");
        assert_eq!(
            read(root, Path::new("etc/inside")).as_deref(),
            Some("its own")
        );
        assert_eq!(read(root, Path::new("etc/outside")), None);
        assert_eq!(read(root, Path::new("etc/fifo")), None);
    }
}
