//! Plans of faults on a made-up host: what each takes from the host and what it refuses. No right is needed, and nothing of the machine
//! that the tests run on counts.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod made;
mod made_host;

use backburn_agent::faults::{PlanContext, find};
use backburn_agent::mounts::{Mount, MountIdentity, MountUser};
use backburn_agent::plan::{
    ForeignChain, FoundMount, ListeningSocket, Plan, ProtectedPaths, RequestLimits,
};
use backburn_agent::processes::{Cgroup, Protection};
use backburn_experiments::wire::Refusal;
use made_host::MadeHost;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

const GIB: u64 = 1 << 30;

/// The plan of a fault on a made-up host that a test has altered.
fn plan(fault: &str, arguments: Value, alter: impl FnOnce(&mut MadeHost)) -> Result<Plan, Refusal> {
    let made = made::Made::new();
    let mut host = MadeHost::new(&made);
    alter(&mut host);
    let context = PlanContext {
        host: &host,
        protection: &Protection::default(),
        protected_ports: &[22],
        protected_paths: &ProtectedPaths::default(),
        host_rules: &backburn_agent::plan::HostFaultRules::default(),
        request_limits: &RequestLimits::default(),
        control_connection: None,
        injection: "trial",
        first_mark: 0,
        held: &[],
        duration: Some("10s".parse().unwrap()),
        seed: 1,
    };
    let arguments = arguments.as_object().unwrap().clone();
    find(fault).unwrap().plan(&arguments, &context)
}

fn as_it_is(_: &mut MadeHost) {}

/// Whether a note or warning, or a refusal's text, holds these words.
#[track_caller]
fn assert_says(texts: &[String], words: &str) {
    assert!(texts.iter().any(|text| text.contains(words)), "{texts:?}");
}

/// What a refusal is about: its rule, and the places of its problems.
fn refused(result: Result<Plan, Refusal>) -> (String, Vec<String>) {
    let refusal = result.unwrap_err();
    let places = refusal.problems.into_iter().map(|problem| problem.at);
    (refusal.rule, places.collect())
}

/// The only helper of a plan, as it stands in the ledger.
fn helper(plan: &Plan) -> Value {
    assert_eq!(plan.changes.len(), 1, "{:?}", plan.changes);
    serde_json::to_value(&plan.changes[0]).unwrap()
}

/// The first value of this key anywhere in a value.
fn within<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(object) => object
            .get(key)
            .or_else(|| object.values().find_map(|inner| within(inner, key))),
        Value::Array(list) => list.iter().find_map(|inner| within(inner, key)),
        _ => None,
    }
}

#[test]
fn cpu_stress_of_missing_processor_is_refused() {
    let arguments = json!({"cpus": [1, 4]});
    let refusal = plan("cpu-stress", arguments.clone(), as_it_is).unwrap_err();
    assert_eq!(refusal.rule, "no-match");
    assert!(refusal.what.contains("processor 4"), "{refusal:?}");
    let larger = plan("cpu-stress", arguments, |host| host.processors = 5);
    assert_eq!(
        within(&helper(&larger.unwrap()), "workers"),
        Some(&json!(2))
    );
}

#[test]
fn memory_fill_beyond_reserve_takes_what_the_reserve_leaves() {
    let filled = plan(
        "memory-fill",
        json!({"percent": 100, "reserve": "1GiB"}),
        as_it_is,
    );
    let filled = filled.unwrap();
    assert_eq!(within(&helper(&filled), "bytes"), Some(&json!(3 * GIB)));
    assert_says(&filled.notes, "below the reserve");
    let all_reserved = plan("memory-fill", json!({"percent": 1}), |host| {
        host.memory.available = host.memory.total / 20;
    });
    assert_eq!(refused(all_reserved).0, "reserve");
}

#[test]
fn fill_until_a_level_takes_what_is_missing() {
    // Of 100 GiB, 90 are in use and 10 are available.
    let bytes = |arguments: Value| {
        let plan = plan("disk-fill", arguments, as_it_is).unwrap();
        assert_says(&plan.notes, "90GiB are in use");
        within(&helper(&plan), "bytes").cloned()
    };
    let until = |level: &str| json!({"path": "/data", "until": level});
    assert_eq!(bytes(until("95%")), Some(json!(5 * GIB)));
    assert_eq!(bytes(until("92GiB")), Some(json!(2 * GIB)));
    // The reserve is kept, here a twentieth.
    let kept = json!({"path": "/data", "until": "100%", "reserve": "5%"});
    assert_eq!(bytes(kept), Some(json!(5 * GIB)));
    let reached = plan("disk-fill", until("90%"), as_it_is).unwrap_err();
    assert_eq!(reached.rule, "no-match");
    assert!(
        reached.what.contains("90GiB of 100GiB are in use (90 %)"),
        "{reached}"
    );
    // What only root may take is neither in use nor available, as `df` counts.
    let with_root_share = plan("disk-fill", until("95%"), |host| {
        let system = host.file_systems.get_mut(Path::new("/data")).unwrap();
        (system.used, system.available) = (70 * GIB, 10 * GIB);
    });
    let with_root_share = with_root_share.unwrap();
    assert_eq!(
        within(&helper(&with_root_share), "bytes"),
        Some(&json!(6 * GIB))
    );
    // Of 8 GiB of memory, 4 are available.
    let memory = plan("memory-fill", json!({"until": "75%"}), as_it_is).unwrap();
    assert_eq!(within(&helper(&memory), "bytes"), Some(&json!(2 * GIB)));
    assert_says(&memory.notes, "2GiB are missing until 75%");
    let (rule, _) = refused(plan("memory-fill", json!({"until": "50%"}), as_it_is));
    assert_eq!(rule, "no-match");
    // A container of 2 GiB, of which half is in use.
    let contained = plan("memory-fill", json!({"until": "75%"}), |host| {
        (host.memory.total, host.memory.available) = (2 * GIB, GIB);
        host.memory.is_limited = true;
    });
    let contained = contained.unwrap();
    assert_eq!(within(&helper(&contained), "bytes"), Some(&json!(GIB / 2)));
    assert_says(&contained.notes, "control group may use 2GiB");
}

#[test]
fn latency_of_many_seconds_is_noted() {
    let delayed = |delay: Value| {
        plan(
            "network-latency",
            json!({"to": "10.0.0.7", "delay": delay}),
            as_it_is,
        )
        .unwrap()
    };
    assert_says(&delayed(json!(20)).notes, "`20ms` is milliseconds");
    let notes = delayed(json!("20ms")).notes;
    assert!(
        !notes.iter().any(|note| note.contains("milliseconds")),
        "{notes:?}"
    );
}

#[test]
fn disk_fill_beyond_file_size_limit_is_noted() {
    let arguments = json!({"path": "/data"});
    let filled = plan("disk-fill", arguments.clone(), as_it_is).unwrap();
    // A hundredth of the file system is kept back.
    assert_eq!(within(&helper(&filled), "bytes"), Some(&json!(9 * GIB)));
    assert_eq!(filled.victims[0].id, "device:7");
    assert!(filled.notes.is_empty(), "{:?}", filled.notes);
    let limited = plan("disk-fill", arguments, |host| {
        host.max_file_bytes = Some(GIB);
    });
    assert_says(&limited.unwrap().notes, "ulimit -f");
}

#[test]
fn disk_fill_of_something_else_than_a_folder_is_refused() {
    for path in ["data", "/nowhere", "/file"] {
        let refusal = plan("disk-fill", json!({"path": path}), |host| {
            let mut file = host.file_systems[std::path::Path::new("/data")];
            file.is_folder = false;
            host.file_systems.insert("/file".into(), file);
        });
        assert_eq!(refused(refusal).0, "no-match", "{path}");
    }
}

#[test]
fn process_of_another_user_is_refused_unless_the_agent_is_root() {
    let arguments = json!({"process": {"name": "postgres"}});
    assert!(plan("process-pause", arguments.clone(), as_it_is).is_ok());
    let own = plan("process-pause", arguments.clone(), |host| host.user_id = 70);
    assert!(own.is_ok(), "{own:?}");
    let other = plan("process-pause", arguments, |host| host.user_id = 33);
    assert_eq!(refused(other).0, "not-permitted");
}

#[test]
fn latency_without_netem_uses_a_packet_queue_and_warns() {
    let arguments = json!({"to": "db.example:5432", "delay": "100ms"});
    let with = plan("network-latency", arguments.clone(), as_it_is).unwrap();
    assert_says(&with.notes, "backend netem");
    assert!(with.warnings.is_empty(), "{:?}", with.warnings);
    let no_netem = |host: &mut MadeHost| host.has_netem = false;
    let without = plan("network-latency", arguments.clone(), no_netem).unwrap();
    assert_says(&without.notes, "backend nfqueue");
    assert_says(&without.warnings, "netem is not available");
    let mut strict = arguments.clone();
    strict["strict"] = json!(true);
    let strict = refused(plan("network-latency", strict, no_netem));
    assert_eq!(strict, ("strict".into(), vec!["$.strict".into()]));
    let mut leaving = arguments;
    leaving["direction"] = json!("egress");
    let leaving = refused(plan("network-latency", leaving, no_netem));
    assert_eq!(leaving, ("no-backend".into(), vec!["$.direction".into()]));
}

#[test]
fn names_become_addresses_and_unknown_ones_are_refused() {
    let found = plan("network-partition", json!({"to": "db.example"}), as_it_is);
    let to = within(&helper(&found.unwrap()), "to").cloned().unwrap();
    assert!(to.to_string().contains("10.0.0.7"), "{to}");
    let arguments = json!({"to": ["10.0.0.9", "other.example"], "interface": "eth1"});
    let refusal = refused(plan("network-partition", arguments, as_it_is));
    let places = vec!["$.to[1]".into(), "$.interface".into()];
    assert_eq!(refusal, ("no-match".into(), places));
}

#[test]
fn flows_of_protected_ports_only_are_refused() {
    let port = |port: u16| json!({"ports": port, "percent": 10});
    assert_eq!(
        refused(plan("network-loss", port(22), as_it_is)).0,
        "protected"
    );
    assert!(plan("network-loss", port(80), as_it_is).is_ok());
}

#[test]
fn packet_rules_that_the_kernel_refuses_are_not_permitted() {
    let refusal = plan(
        "network-loss",
        json!({"ports": 80, "percent": 10}),
        |host| {
            host.has_nftables = false;
        },
    );
    assert_eq!(refused(refusal).0, "not-permitted");
}

#[test]
fn partition_between_members_cuts_off_those_of_the_other_part() {
    let arguments = json!({"between": {
        "members": ["10.0.0.1", "db.example", "10.0.0.8"], "shape": "isolate", "one-way": true
    }});
    let cut = plan("network-partition", arguments.clone(), as_it_is).unwrap();
    assert_says(&cut.notes, "the 1st of 3 members");
    let flows = helper(&cut);
    let to = within(&flows, "to").unwrap().to_string();
    assert!(to.contains("10.0.0.7") && to.contains("10.0.0.8"), "{to}");
    assert_eq!(within(&flows, "direction"), Some(&json!("egress")));
    let nobody = plan("network-partition", arguments, |host| {
        host.addresses = vec![[10, 0, 0, 99].into()];
    });
    let nobody = refused(nobody);
    assert_eq!(
        nobody,
        ("no-match".into(), vec!["$.between.members".into()])
    );
}

#[test]
fn preflight_tells_what_would_hide_the_fault() {
    let arguments = json!({"to": ["10.0.0.1:80", "fd00::1"], "interface": "eth0", "with": "reset", "established": "keep"});
    let told = plan("network-reject", arguments, |host| {
        host.interfaces[1].up = false;
        let seen = &mut host.snapshot;
        seen.interfaces.clone_from(&host.interfaces);
        seen.has_ipv6 = false;
        seen.unreachable = vec!["fd00::1".parse().unwrap()];
        seen.own_destinations = vec![[10, 0, 0, 1].into()];
        seen.legacy_tables = vec![("iptables", vec!["filter".into()]), ("ip6tables", vec![])];
        seen.has_ipvs = true;
        seen.refusing_chains = vec![ForeignChain {
            name: "inet firewall input".into(),
            family: 1,
            hook: 1,
            priority: -400,
        }];
    });
    let told = told.unwrap();
    for words in [
        "`eth0` is down",
        "legacy iptables (tables `filter`)",
        "`inet firewall input`",
        "addresses of IPv6 are named",
        "no route leads to fd00::1",
        "nothing listens at 10.0.0.1:80",
    ] {
        assert_says(&told.notes, words);
    }
    assert_eq!(told.notes.len(), 6, "{:?}", told.notes);
    assert_says(&told.warnings, "IPVS");
}

#[test]
fn preflight_is_silent_where_nothing_is_in_the_way() {
    let arguments = json!({"to": "10.0.0.1:80", "with": "reset"});
    let told = plan("network-reject", arguments, |host| {
        host.snapshot.own_destinations = vec![[10, 0, 0, 1].into()];
        host.snapshot.listening = vec![ListeningSocket {
            tcp: true,
            at: "0.0.0.0:80".parse().unwrap(),
        }];
    });
    let told = told.unwrap();
    assert!(told.notes.is_empty(), "{:?}", told.notes);
    assert!(told.warnings.is_empty(), "{:?}", told.warnings);
}

#[test]
fn live_connections_that_would_be_closed_are_counted() {
    let arguments = json!({"to": "10.0.0.7:5432", "established": "kill"});
    let told = plan("network-reject", arguments, |host| {
        host.snapshot.live_connections = 3;
    });
    assert_says(&told.unwrap().notes, "3 live connections now");
}

#[test]
fn flows_of_a_process_are_those_of_its_control_group_where_nobody_else_is_in_it() {
    let arguments = json!({"of": {"name": "postgres"}, "percent": 10});
    let in_group = |members: Vec<i32>| {
        move |host: &mut MadeHost| {
            let cgroup = Cgroup {
                folder: "/sys/fs/cgroup/db.service".into(),
                level: 1,
                id: 4711,
            };
            host.cgroups.insert(40, (cgroup, members));
        }
    };
    let alone = plan("network-loss", arguments.clone(), in_group(vec![40])).unwrap();
    assert_eq!(within(&helper(&alone), "id"), Some(&json!(4711)));
    for alter in [in_group(vec![40, 41]), in_group(vec![40, 0])] {
        let refusal = refused(plan("network-loss", arguments.clone(), alter));
        assert_eq!(refusal, ("no-match".into(), vec!["$.of".into()]));
    }
    // In the root of all groups.
    let refusal = refused(plan("network-loss", arguments, as_it_is));
    assert_eq!(refusal, ("no-match".into(), vec!["$.of".into()]));
}

#[test]
fn bandwidth_with_room_for_less_than_a_packet_warns() {
    let arguments = json!({"to": "10.0.0.7", "rate": "1Mbit/s", "queue": "2kB"});
    let usual = plan("network-bandwidth", arguments.clone(), as_it_is).unwrap();
    assert_eq!(usual.warnings.len(), 1, "{:?}", usual.warnings);
    assert_says(&usual.warnings, "smaller than `burst`");
    let jumbo = plan("network-bandwidth", arguments, |host| host.mtu = 9000).unwrap();
    assert_says(&jumbo.warnings, "`queue` is smaller than a packet");
}

#[test]
fn dns_fault_spares_what_a_local_resolver_asks() {
    let arguments = json!({"names": "db.example"});
    let every = plan("dns-fail", arguments.clone(), as_it_is).unwrap();
    assert_eq!(within(&helper(&every), "to"), None);
    let local = plan("dns-fail", arguments, |host| {
        host.etc.insert("resolv.conf", "nameserver 127.0.0.53\n");
        host.etc.insert("hosts", "10.0.0.7 db.example\n");
    });
    let local = local.unwrap();
    let to = within(&helper(&local), "to").unwrap().to_string();
    assert!(to.contains("127.0.0.53"), "{to}");
    assert_says(&local.notes, "hosts(5)");
}

#[test]
fn proxy_at_an_address_that_is_taken_is_refused() {
    let arguments =
        json!({"listen": "127.0.0.1:15432", "upstream": "db.example:5432", "reset": "0s"});
    let listen: SocketAddr = "127.0.0.1:15432".parse().unwrap();
    let free = plan("tcp-proxy", arguments.clone(), as_it_is).unwrap();
    let upstream = within(&helper(&free), "upstream").unwrap().to_string();
    assert!(upstream.contains("10.0.0.7:5432"), "{upstream}");
    let taken = refused(plan("tcp-proxy", arguments.clone(), |host| {
        host.taken.push(listen)
    }));
    assert_eq!(taken, ("no-match".into(), vec!["$.listen".into()]));
    let unknown = refused(plan("tcp-proxy", arguments, |host| host.names.clear()));
    assert_eq!(unknown, ("no-match".into(), vec!["$.upstream".into()]));
}

/// An ext4 file system that is mounted at `/data` and, as others see it, at `/copy`.
fn with_mount(host: &mut MadeHost) {
    let mount = |number: u64, path: &str| Mount {
        number,
        parent: 1,
        device: "8:1".into(),
        root: "/".into(),
        path: path.into(),
        options: vec!["rw".into(), "noatime".into()],
        kind: "ext4".into(),
        is_file_system_read_only: false,
    };
    let (data, copy) = (mount(7, "/data"), mount(8, "/copy"));
    let found = FoundMount {
        path: "/data".into(),
        identity: MountIdentity {
            boot: "one".into(),
            number: 7,
            device: "8:1".into(),
            path: "/data".into(),
        },
        same_file_system: vec![data.clone(), copy],
        below: Vec::new(),
        namespace: 4711,
        processes_elsewhere: 3,
        is_permitted: true,
        mount: data,
    };
    host.mounts.insert("/data".into(), found);
}

fn user(writes: bool, is_own: bool) -> MountUser {
    MountUser {
        pid: 30,
        name: "nginx".into(),
        writes,
        is_own,
    }
}

#[test]
fn plan_of_a_mount_says_where_it_is_not_felt_and_who_is_in_the_way() {
    let arguments = json!({"path": "/data"});
    let read_only = plan("mount-read-only", arguments.clone(), |host| {
        with_mount(host);
        host.mount_users = vec![user(false, false)];
    });
    let read_only = read_only.unwrap();
    assert_says(&read_only.notes, "namespace 4711");
    assert_says(&read_only.notes, "elsewhere: /copy");
    assert_says(&read_only.warnings, "there are 3");
    let freeze = plan("filesystem-freeze", arguments.clone(), |host| {
        with_mount(host);
        host.mount_users = vec![user(true, false)];
    });
    let freeze = freeze.unwrap();
    assert_says(&freeze.warnings, "open for writing there: nginx (30)");
    assert_says(&freeze.notes, "/data, /copy");
    let if_agent_dies = &freeze.view().changes[0].if_agent_dies;
    assert!(
        if_agent_dies.contains("fsfreeze --unfreeze /data"),
        "{if_agent_dies}"
    );

    let rule = |fault: &str, alter: &dyn Fn(&mut MadeHost)| {
        let planned = plan(fault, arguments.clone(), |host| {
            with_mount(host);
            alter(host);
        });
        refused(planned).0
    };
    let both = ["mount-read-only", "filesystem-freeze"];
    let change = |alter: fn(&mut FoundMount)| {
        move |host: &mut MadeHost| alter(host.mounts.get_mut(Path::new("/data")).unwrap())
    };
    for fault in both {
        assert_eq!(
            rule(fault, &|host| host.mount_users = vec![user(false, true)]),
            "protected"
        );
        assert_eq!(
            rule(fault, &change(|found| found.is_permitted = false)),
            "not-permitted"
        );
        assert_eq!(
            rule(fault, &change(|found| found.path = "/data/app".into())),
            "no-match"
        );
        assert_eq!(
            rule(
                fault,
                &change(|found| found.mount.options = vec!["ro".into()])
            ),
            "no-match"
        );
        assert_eq!(
            rule(
                fault,
                &change(|found| found.mount.is_file_system_read_only = true)
            ),
            "no-match"
        );
        assert_eq!(
            rule(fault, &change(|found| found.mount.kind = "cgroup2".into())),
            "protected"
        );
    }
    assert_eq!(
        rule("mount-read-only", &|host| host.mount_users =
            vec![user(true, false)]),
        "busy"
    );
    assert_eq!(
        rule(
            "filesystem-freeze",
            &change(|found| found.mount.kind = "nfs4".into())
        ),
        "no-freeze"
    );
    assert_eq!(
        rule("filesystem-freeze", &|host| host.takes_writes = false),
        "frozen"
    );
    // Temporary files of the host lie on it.
    let shared = |host: &mut MadeHost| {
        let found = host.mounts[Path::new("/data")].clone();
        host.mounts.insert("/tmp".into(), found);
    };
    assert_eq!(rule("filesystem-freeze", &shared), "protected");
}
