//! How programs of a host or namespace resolve names: by which name servers, and which names they know without asking one.

use crate::dns::{NamePattern, ResolvConf, hosts, sources};
use crate::plan::{HostView, Namespace};
use core::net::IpAddr;

/// What the files of `/etc` say; empty where they cannot be read.
#[derive(Debug, Default)]
pub(super) struct NameResolution {
    /// The addresses of the name servers in resolv.conf(5).
    servers: Vec<IpAddr>,
    /// The names in hosts(5).
    hosts: Vec<String>,
    /// The sources of host names in nsswitch.conf(5).
    sources: Vec<String>,
}

impl NameResolution {
    /// As seen in a network namespace, or by the agent where none is given.
    pub(super) fn of(namespace: Option<&Namespace>, host: &dyn HostView) -> Self {
        let viewpoint = namespace.map(|namespace| host.viewpoint_in(namespace));
        let text = |name: &str| match &viewpoint {
            // Nobody is known to be in the namespace.
            Some(None) => String::new(),
            viewpoint => {
                let viewpoint = viewpoint.as_ref().and_then(Option::as_ref);
                host.etc_file(viewpoint, name).unwrap_or_default()
            }
        };
        NameResolution::read(&text("resolv.conf"), &text("hosts"), &text("nsswitch.conf"))
    }

    fn read(resolv_conf: &str, hosts_text: &str, nsswitch: &str) -> Self {
        let servers = ResolvConf::parse(resolv_conf).servers.into_iter();
        let names = hosts(hosts_text).flat_map(|(_, names)| names);
        NameResolution {
            servers: servers.map(|server| server.address).collect(),
            hosts: names.map(str::to_owned).collect(),
            sources: sources(nsswitch).unwrap_or_default(),
        }
    }

    /// All name servers, if one of them is on the loopback.
    pub(super) fn local_resolver(&self) -> Option<&[IpAddr]> {
        let is_local = |server: &IpAddr| server.to_canonical().is_loopback();
        self.servers.iter().any(is_local).then_some(&self.servers)
    }

    /// Notes on ways to resolve these names without asking a name server.
    pub(super) fn notes(&self, names: &[NamePattern]) -> Vec<String> {
        let mut notes = Vec::new();
        let known = self.hosts.iter().filter(|host| {
            let labels: Vec<&[u8]> = host.split('.').map(str::as_bytes).collect();
            // A pattern for all names is not meant for the machine's own.
            names
                .iter()
                .any(|name| !name.is_all() && name.matches(&labels))
        });
        let known: Vec<&str> = known.map(String::as_str).collect();
        if !known.is_empty() {
            let known = known.join(", ");
            notes.push(format!(
                "hosts(5) has {known}: programs need not ask a name server for it"
            ));
        }
        if self.sources.iter().any(|source| source == "resolve") {
            notes.push(
                "nsswitch.conf has `resolve`: programs may ask systemd-resolved over its own socket, and only its own questions are affected; name its servers as `server`".into(),
            );
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_they_are_written() {
        let resolution = NameResolution::read(
            "# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53 \n nameserver fe80::1%eth0\nnameserver x\n",
            "127.0.0.1 localhost\n10.0.0.7\tDB.example.org db # ours\n",
            "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n",
        );
        let servers: [IpAddr; 2] = [[127, 0, 0, 53].into(), "fe80::1".parse().expect("one")];
        assert_eq!(resolution.local_resolver(), Some(&servers[..]));
        let names = |names: &[&str]| -> Vec<NamePattern> {
            let parsed = names.iter().map(|name| name.parse().expect("a pattern"));
            parsed.collect()
        };
        let notes = resolution.notes(&names(&["*.example.org"]));
        assert!(
            notes.len() == 2 && notes[0].contains("DB.example.org"),
            "{notes:?}"
        );
        assert_eq!(resolution.notes(&names(&["*", "example.org"])).len(), 1);
        let plain = NameResolution::read("nameserver 10.0.0.1", "127.0.0.1 localhost", "");
        assert_eq!(plain.local_resolver(), None);
        assert_eq!(plain.notes(&names(&["*"])), [""; 0]);
    }
}
