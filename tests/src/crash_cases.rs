//! The faults of the catalogue as crash trials put them to the test: what arguments, for how long, and whether the victims live.

use crate::crash::Case;
use crate::crash_world::World;
use serde_json::json;

/// The programs that a trial needs.
pub const PROGRAMS: [&str; 11] = [
    "unshare",
    "mount",
    "umount",
    "python3",
    "strace",
    "nft",
    "tc",
    "ip",
    "sleep",
    "mkfs.ext4",
    "fsfreeze",
];

/// Long enough to be struck while it acts, short enough for hundreds of trials.
const SHORT: Option<&str> = Some("150ms");

/// The faults that hit the host as a whole, which are struck in a virtual machine only: `tests/tests/machine/host_power.rs`.
pub const MACHINE_ONLY: [&str; 2] = ["host-reboot", "host-shutdown"];
/// The helper of these, as the ledger names it.
pub const MACHINE_ONLY_HELPER: &str = "host-power";

/// The change that sets the clock of a host, as the ledger names it, which is tried in a virtual machine only:
/// `tests/tests/machine/host_clock.rs`.
pub const MACHINE_ONLY_CHANGE: &str = "host-clock";

/// The fault that needs a systemd, which is struck under one of the tests' own: `tests/tests/kernel/service_stop.rs`.
pub const SERVICE_CASE: Case = Case {
    name: "service-stop",
    fault: "service-stop",
    arguments: |world| json!({"unit": world.service()}),
    duration: SHORT,
    victims_survive: true,
};
/// The change of it, as the ledger names it.
pub const SERVICE_CHANGE: &str = "stopped-units";

/// Every other fault, in each way that it can do its harm.
pub const CASES: &[Case] = &[
    Case {
        name: "process-kill",
        fault: "process-kill",
        arguments: |world: &World| json!({"process": {"pid": world.threaded()}}),
        duration: None,
        victims_survive: false,
    },
    Case {
        name: "process-kill, asking first",
        fault: "process-kill",
        arguments: |world| json!({"process": {"pid": world.threaded()}, "grace": "100ms"}),
        duration: None,
        victims_survive: false,
    },
    Case {
        name: "process-pause, traced by us",
        fault: "process-pause",
        arguments: |world| json!({"process": {"pid": world.threaded()}}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "process-pause, by signal",
        fault: "process-pause",
        arguments: |world| json!({"process": {"pid": world.traced()}}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "process-pause, both ways",
        fault: "process-pause",
        arguments: |world| json!({"process": {"pid": [world.threaded(), world.traced()], "select": "all"}}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "clock-skew",
        fault: "clock-skew",
        arguments: |world| json!({"process": {"pid": world.threaded()}, "offset": "+1h"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "cpu-stress",
        fault: "cpu-stress",
        arguments: |_| json!({"workers": 1, "load-percent": 20}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "memory-fill",
        fault: "memory-fill",
        arguments: |_| json!({"size": "16MiB"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "disk-fill",
        fault: "disk-fill",
        arguments: |world| json!({"path": world.folder(), "reserve": "1MiB"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "fd-exhaust",
        fault: "fd-exhaust",
        arguments: |world| json!({"process": {"pid": [world.threaded(), world.traced()], "select": "all"}}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "process-exhaust",
        fault: "process-exhaust",
        arguments: |_| json!({"count": 300, "reserve": 64}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "io-stress",
        fault: "io-stress",
        arguments: |world| json!({"path": world.folder(), "size": "2MiB", "workers": 2, "rate": "1MB/s"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "syscall-error",
        fault: "syscall-error",
        arguments: |world| json!({"process": {"pid": world.threaded()}, "calls": "fsync", "error": "EIO"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "syscall-latency",
        fault: "syscall-latency",
        arguments: |world| json!({"process": {"pid": world.threaded()}, "calls": ["poll", "select"], "delay": "20ms"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "fsync-loss",
        fault: "fsync-loss",
        arguments: |world| json!({"process": {"pid": world.threaded()}}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "file-latency",
        fault: "file-latency",
        arguments: |world| json!({"path": world.folder(), "delay": "20ms", "jitter": "5ms"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "file-error",
        fault: "file-error",
        arguments: |world| json!({"path": world.folder(), "error": "EPERM", "percent": 50}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "file-corrupt",
        fault: "file-corrupt",
        arguments: |world| json!({"path": world.file(), "bytes": 3}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "filesystem-freeze",
        fault: "filesystem-freeze",
        arguments: |world| json!({"path": world.freezable()}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "mount-read-only",
        fault: "mount-read-only",
        arguments: |world| json!({"path": world.folder()}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "http-fail",
        fault: "http-fail",
        arguments: |_| json!({"listen": "127.0.0.1:15433", "upstream": "127.0.0.1:9", "status": 503}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "grpc-fail",
        fault: "grpc-fail",
        arguments: |_| json!({"listen": "127.0.0.1:15436", "upstream": "127.0.0.1:9", "status": "UNAVAILABLE"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "http-load",
        fault: "http-load",
        arguments: |_| json!({"url": "http://127.0.0.1:9/", "rate": 20}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "postgres-fail",
        fault: "postgres-fail",
        arguments: |_| json!({"listen": "127.0.0.1:15435", "upstream": "127.0.0.1:9", "code": "40001"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "redis-fail",
        fault: "redis-fail",
        arguments: |_| json!({"listen": "127.0.0.1:15434", "upstream": "127.0.0.1:9", "error": "ERR no"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "dns-fail",
        fault: "dns-fail",
        arguments: |_| json!({"names": ["db.example.org", "*.test"], "with": "timeout"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "dns-slow, elsewhere",
        fault: "dns-slow",
        arguments: |world| json!({"of": {"pid": world.wire().pid()}, "names": "*", "delay": "20ms"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "dns-spoof",
        fault: "dns-spoof",
        arguments: |_| json!({"names": "*", "server": "10.9.0.2", "addresses": ["10.9.0.3", "fd09::3"]}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-latency",
        fault: "network-latency",
        arguments: |_| json!({"to": "10.9.0.2", "delay": "20ms"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-latency, varying",
        fault: "network-latency",
        arguments: |_| json!({"to": "10.9.0.2", "delay": "20ms", "jitter": "5ms", "keep-order": false}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-bandwidth",
        fault: "network-bandwidth",
        arguments: |_| json!({"to": ["10.9.0.2", "fd09::2"], "rate": "1Mbit/s"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-bandwidth, elsewhere",
        fault: "network-bandwidth",
        arguments: |world| json!({"of": {"pid": world.wire().pid()}, "direction": "ingress", "rate": "1Mbit/s"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-corrupt",
        fault: "network-corrupt",
        arguments: |_| json!({"to": "10.9.0.2", "percent": 10}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-duplicate",
        fault: "network-duplicate",
        arguments: |_| json!({"to": "10.9.0.2", "percent": 10}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-reorder",
        fault: "network-reorder",
        arguments: |_| json!({"to": "10.9.0.2", "delay": "20ms", "percent": 10}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-loss, in bursts",
        fault: "network-loss",
        arguments: |_| json!({"to": "10.9.0.2", "gilbert-elliott": {"p": 5, "r": 25}}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-loss",
        fault: "network-loss",
        arguments: |_| json!({"to": ["10.9.0.2", "fd09::2"], "percent": 30}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-partition, elsewhere",
        fault: "network-partition",
        arguments: |world| json!({"of": {"pid": world.wire().pid()}, "ports": [80, "443-445"]}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-reject",
        fault: "network-reject",
        arguments: |_| json!({"from": "10.9.0.0/24", "except": "10.9.0.3", "established": "kill"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "tcp-proxy",
        fault: "tcp-proxy",
        arguments: |_| json!({"listen": "127.0.0.1:15432", "upstream": "127.0.0.1:9", "to-client": {"latency": "20ms"}}),
        duration: SHORT,
        victims_survive: true,
    },
];

/// The cases of helpers that leave nothing and make no change of their own, so that they come to the same effects as `cpu-stress`, which
/// is struck at every one: a few strikes while they act are enough. With `BACKBURN_CRASH_CASE` or `BACKBURN_CRASH_TRIALS`, they are
/// struck like the others.
const BRIEF: [&str; 12] = [
    "process-exhaust",
    "io-stress",
    "syscall-error",
    "syscall-latency",
    "fsync-loss",
    "file-latency",
    "file-error",
    "grpc-fail",
    "http-fail",
    "http-load",
    "postgres-fail",
    "redis-fail",
];

/// The cases of changes that are undone in a few effects, of which fewer ways to be killed are enough. With `BACKBURN_CRASH_CASE` or
/// `BACKBURN_CRASH_TRIALS`, they are struck like the others.
const FEWER_WAYS: [&str; 5] = [
    "clock-skew",
    "fd-exhaust",
    "file-corrupt",
    "filesystem-freeze",
    "mount-read-only",
];

/// Whether each case is to be struck in every way: it was asked for by name, or more trials were.
fn all_are_whole() -> bool {
    let all = ["BACKBURN_CRASH_CASE", "BACKBURN_CRASH_TRIALS"];
    all.iter().any(|name| std::env::var_os(name).is_some())
}

impl Case {
    /// Whether a few strikes while it acts are enough.
    pub fn is_brief(&self) -> bool {
        BRIEF.contains(&self.name) && !all_are_whole()
    }

    /// Whether fewer ways to be killed are enough, at each effect.
    pub fn has_fewer_ways(&self) -> bool {
        FEWER_WAYS.contains(&self.name) && !all_are_whole()
    }
}

/// The case of this name.
pub fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

/// The cases that are to be tried: those with `BACKBURN_CRASH_CASE` in their names, all where it is not set.
///
/// # Panics
/// There is none of such a name.
pub fn chosen() -> Vec<&'static Case> {
    let part = std::env::var("BACKBURN_CRASH_CASE").unwrap_or_default();
    let chosen: Vec<&Case> = CASES
        .iter()
        .filter(|case| case.name.contains(&part))
        .collect();
    assert!(!chosen.is_empty(), "no case has `{part}` in its name");
    chosen
}

/// How often everything is done: `BACKBURN_CRASH_TRIALS`, once where it is not set.
pub fn repeats() -> usize {
    let wanted = std::env::var("BACKBURN_CRASH_TRIALS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(1)
}
