//! What this kernel can do to packets, tried in a network namespace of its own that ends with its thread.

use super::{Availability, HostFinding, finding};
use crate::netlink::{
    self, Expression, Family, Hook, Key, Message, PacketQueue, RejectReply, Socket, Table,
    TableFamily,
};
use crate::packet_filter::Shaping;
use nix::sched::{CloneFlags, unshare};
use std::io;

/// The name of the tables that are tried.
const TRIAL_NAME: &str = "backburn-doctor";
const INET: Table<'_> = Table {
    layer: TableFamily::Inet,
    name: TRIAL_NAME,
};
const NETDEV: Table<'_> = Table {
    layer: TableFamily::Netdev,
    name: TRIAL_NAME,
};

/// Examines what network faults require.
pub(super) fn examine() -> Vec<HostFinding> {
    let trial = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(vec![
            owner(),
            egress(),
            copies(),
            packet_rules(),
            queue(),
            name_servers(),
            process(),
            connection_closing(),
        ])
    });
    let attempted: io::Result<Vec<HostFinding>> = match trial.join() {
        Ok(attempted) => attempted,
        Err(_) => Err(io::Error::other("the examination ended early")),
    };
    // These create a namespace of their own, and check in this one what a kernel module adds.
    let shaped = |attempted: Vec<HostFinding>| {
        attempted
            .into_iter()
            .chain([bandwidth(), netem()])
            .collect()
    };
    attempted.map(shaped).unwrap_or_else(|error| {
        vec![finding(
            "network faults",
            Availability::No,
            format!("no network namespace can be created to try them in: {error}"),
            "network faults require root, or CAP_NET_ADMIN and CAP_SYS_ADMIN",
        )]
    })
}

fn check_messages(messages: &[Message]) -> io::Result<()> {
    Socket::open(Family::Netfilter)?.check(messages)
}

fn owner() -> HostFinding {
    match check_messages(&[INET.make()]) {
        Ok(()) => finding(
            "nf_tables",
            Availability::Yes,
            "tables that the kernel removes together with their owner",
            "",
        ),
        Err(error) => finding(
            "nf_tables",
            Availability::No,
            error.to_string(),
            "network faults require nf_tables with the `owner` flag: Linux 5.12 or later with CONFIG_NF_TABLES_INET",
        ),
    }
}

fn egress() -> HostFinding {
    let hook = Hook::Egress(vec!["lo".into()]);
    let chain = [NETDEV.make(), NETDEV.base_chain("leaving", &hook, 0)];
    let silent = NETDEV.rule("leaving", &[Expression::Vanish], "");
    match check_messages(&[&chain[..], &[silent]].concat()) {
        Ok(()) => finding(
            "egress hook",
            Availability::Yes,
            "leaving packets can be dropped silently at their device",
            "",
        ),
        Err(error) => finding(
            "egress hook",
            Availability::No,
            error.to_string(),
            "packets can only be dropped as they arrive (`direction: ingress`); requires Linux 5.17 or later with CONFIG_NETFILTER_EGRESS and CONFIG_NFT_FWD_NETDEV",
        ),
    }
}

fn copies() -> HostFinding {
    let hook = Hook::Egress(vec!["lo".into()]);
    let copy = NETDEV.rule("leaving", &[Expression::Copy { mark: 1 }], "");
    match check_messages(&[NETDEV.make(), NETDEV.base_chain("leaving", &hook, 0), copy]) {
        Ok(()) => finding(
            "packet copies",
            Availability::Yes,
            "leaving packets can be duplicated by nf_tables itself",
            "",
        ),
        Err(error) => finding(
            "packet copies",
            Availability::No,
            error.to_string(),
            "`network-duplicate` requires netem, or Linux 5.17 with CONFIG_NFT_DUP_NETDEV",
        ),
    }
}

fn packet_rules() -> HostFinding {
    let number = |random| Expression::Number { modulus: 2, random };
    let packet_rules = [
        (
            "random",
            "`network-loss` with `percent`",
            vec![number(true)],
        ),
        (
            "every n-th",
            "`network-loss` with `every-nth` or `gilbert-elliott`",
            vec![number(false)],
        ),
        (
            "reset",
            "`network-reject` by reset",
            vec![
                Expression::Meta(netlink::Meta::Transport),
                Expression::Compare(netlink::Compare::Equal, vec![6]),
                Expression::Reject(RejectReply::Reset),
            ],
        ),
        (
            "unreachable",
            "`network-reject` by ICMP",
            vec![Expression::Reject(RejectReply::Unreachable(1))],
        ),
    ];
    let missing: Vec<String> = packet_rules
        .iter()
        .filter_map(|(_, fault, steps)| {
            let messages = [
                INET.make(),
                INET.base_chain("arriving", &Hook::Input, 0),
                INET.rule("arriving", steps, ""),
            ];
            check_messages(&messages)
                .err()
                .map(|error| format!("{fault} ({error})"))
        })
        .collect();
    if missing.is_empty() {
        let names: Vec<&str> = packet_rules.iter().map(|(name, _, _)| *name).collect();
        return finding("packet rules", Availability::Yes, names.join(", "), "");
    }
    finding(
        "packet rules",
        if missing.len() == packet_rules.len() {
            Availability::No
        } else {
            Availability::Partly
        },
        format!("missing for {}", missing.join(", ")),
        "requires CONFIG_NFT_NUMGEN and CONFIG_NFT_REJECT_INET",
    )
}

fn check_queue(by_target: bool) -> io::Result<()> {
    let step = Expression::Queue {
        number: 0,
        by_target,
    };
    check_messages(&[
        INET.make(),
        INET.base_chain("arriving", &Hook::Input, 0),
        INET.rule("arriving", &[step], ""),
    ])
}

fn queue() -> HostFinding {
    match (check_queue(false), check_queue(true)) {
        (Ok(()), _) => finding("packet queue", Availability::Yes, "by nf_tables itself", ""),
        (Err(_), Ok(())) => finding(
            "packet queue",
            Availability::Yes,
            "by the NFQUEUE target",
            "",
        ),
        (Err(error), Err(_)) => finding(
            "packet queue",
            Availability::No,
            error.to_string(),
            "packets cannot be delayed in user space; requires CONFIG_NFT_QUEUE, or CONFIG_NETFILTER_XT_TARGET_NFQUEUE with CONFIG_NFT_COMPAT",
        ),
    }
}

/// Whether packets can be read and changed, and changed packets told from others.
fn name_servers() -> HostFinding {
    let read = || {
        check_queue(false).or_else(|_| check_queue(true))?;
        let signed = [
            Expression::Meta(netlink::Meta::Mark),
            Expression::Lookup {
                set: "marks".into(),
                missing: false,
            },
            Expression::Toggle(vec![0xff; 4]),
            Expression::SetMark,
        ];
        let mut messages = vec![INET.make(), INET.base_chain("arriving", &Hook::Input, 0)];
        messages.extend(INET.values("marks", 1, Key::Mark, &[vec![0; 4]]));
        messages.push(INET.rule("arriving", &signed, ""));
        check_messages(&messages)?;
        PacketQueue::read(0).map(|_| ())
    };
    match read() {
        Ok(()) => finding(
            "name servers",
            Availability::Yes,
            "a packet queue can read their answers as they arrive",
            "",
        ),
        Err(error) => finding(
            "name servers",
            Availability::No,
            error.to_string(),
            "`dns-fail`, `dns-slow` and `dns-spoof` require a packet queue and CONFIG_NETFILTER_NETLINK_QUEUE",
        ),
    }
}

fn process() -> HostFinding {
    let steps = [
        Expression::SocketCgroup(1),
        Expression::Compare(netlink::Compare::Equal, vec![0; 8]),
    ];
    let rule = |chain| INET.rule(chain, &steps, "");
    let kernel = check_messages(&[
        INET.make(),
        INET.base_chain("arriving", &Hook::Prerouting, 0),
        INET.base_chain("leaving", &Hook::Output, 0),
        rule("arriving"),
        rule("leaving"),
    ]);
    match kernel {
        Ok(()) => finding(
            "flows of a process",
            Availability::Yes,
            "selected by network namespace, or by the control group of their sockets",
            "",
        ),
        Err(error) => finding(
            "flows of a process",
            Availability::Partly,
            format!("selected by network namespace only: {error}"),
            "for a process in the host's own network, Linux 5.13 or later is required, with CONFIG_NFT_SOCKET and CONFIG_SOCK_CGROUP_DATA",
        ),
    }
}

fn connection_closing() -> HostFinding {
    match netlink::closes_connections() {
        Ok(()) => finding(
            "live connections",
            Availability::Yes,
            "the kernel can close them",
            "",
        ),
        Err(error) => finding(
            "live connections",
            Availability::No,
            error.to_string(),
            "`network-reject` does not support `established: kill`, which requires CONFIG_INET_DIAG_DESTROY",
        ),
    }
}

fn bandwidth() -> HostFinding {
    let shape = Shaping::Bandwidth {
        rate: 1_000_000,
        burst: 10_000,
        queue: 30_000,
    };
    let hint = "`network-bandwidth` requires the `ifb` and `sch_tbf` modules, or CONFIG_IFB and CONFIG_NET_SCH_TBF";
    match shape.try_on_kernel() {
        Ok(()) => finding(
            "bandwidth",
            Availability::Yes,
            "backend tbf, on a device that the fault creates (ifb)",
            "",
        ),
        Err(error) => finding("bandwidth", Availability::No, error.to_string(), hint),
    }
}

fn netem() -> HostFinding {
    let backend = "latency, jitter, corruption, duplicates and reordering";
    match Shaping::Duplicate(1.0).try_on_kernel() {
        Ok(()) => finding(
            "netem",
            Availability::Yes,
            format!(
                "backend netem for {backend}, in both directions, on a device that the fault creates (ifb)"
            ),
            "",
        ),
        Err(error) => finding(
            "netem",
            Availability::Partly,
            format!("backend nfqueue for {backend}, in one direction each: {error}"),
            "only netem supports both directions; requires the `sch_netem` and `ifb` modules, or CONFIG_NET_SCH_NETEM and CONFIG_IFB",
        ),
    }
}
