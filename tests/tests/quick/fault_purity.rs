//! A fault's plan cannot touch the host: the rooms that make plans name nothing by which a host is read or changed, but for the
//! read-only view that a plan is given (`HostView`).

use backburn_tests::programs::root;
use backburn_tests::source::{files, short, text, tokens};

/// The rooms whose code runs when a fault is planned.
const ROOMS: [&str; 2] = ["agent/src/faults", "agent/src/network"];

/// What they may use of the agent itself, of the standard library and of other crates.
const ALLOWED: [(&str, &[&str]); 3] = [
    (
        "crate",
        &[
            "changes",
            "dns",
            "faults",
            "helpers",
            "network",
            "packet_filter",
            "plan",
            "processes",
            "units",
        ],
    ),
    (
        "std",
        &[
            "borrow",
            "cmp",
            "collections",
            "fmt",
            "io",
            "iter",
            "ops",
            "path",
            "str",
            "time",
        ],
    ),
    // Addresses alone: sockets are in `std::net`.
    ("core", &["net"]),
];
const ALLOWED_CRATES: [&str; 4] = ["backburn_experiments", "schemars", "serde", "serde_json"];

/// What reads or changes a host without a path that shows it: functions of the rooms that are allowed, and methods of paths and addresses.
const FORBIDDEN: [&str; 20] = [
    "LocalHost",
    "ProcessTable",
    "Resolver",
    "bound",
    "canonicalize",
    "check_traceable",
    "exists",
    "is_dir",
    "is_file",
    "is_symlink",
    "metadata",
    "read_dir",
    "read_link",
    "read_own",
    "spawn",
    "stdin",
    "stdout",
    "to_socket_addrs",
    "try_out",
    "unsafe",
];

/// The crates that are known by name here; whatever else stands before `::` is a type or a module of the room.
const CRATES: [&str; 16] = [
    "alloc",
    "backburn_experiments",
    "clap",
    "core",
    "crate",
    "nix",
    "rand_chacha",
    "rcgen",
    "regex",
    "rustix",
    "rustls",
    "schemars",
    "serde",
    "serde_json",
    "std",
    "ureq",
];

/// The ways to a host that a source file names.
fn doors(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let is = |at: Option<usize>, what: &str| {
        at.and_then(|at| tokens.get(at))
            .is_some_and(|token| token == what)
    };
    let is_name = |token: &str| {
        token != "use" && token.starts_with(|first: char| first.is_alphanumeric() || first == '_')
    };
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if FORBIDDEN.contains(&token.as_str()) {
            found.push(token.clone());
        }
        let is_root = CRATES.contains(&token.as_str())
            && is(Some(at + 1), ":")
            && is(Some(at + 2), ":")
            // Not the end of another path; `::std` is none.
            && !(is(at.checked_sub(1), ":") && at > 2 && is_name(&tokens[at - 3]));
        let next = tokens.get(at + 3).map_or("", String::as_str);
        let allowed = ALLOWED.iter().find(|(name, _)| name == token);
        let is_allowed = match allowed {
            Some((_, rooms)) => rooms.contains(&next),
            None => ALLOWED_CRATES.contains(&token.as_str()),
        };
        if is_root && !is_allowed {
            found.push(format!("{token}::{next}"));
        }
    }
    found
}

#[test]
fn fault_plans_name_no_way_to_the_host() {
    let all: Vec<_> = ROOMS
        .iter()
        .flat_map(|room| files(&root().join(room), ".rs"))
        .collect();
    assert!(all.len() > 20, "{all:?}");
    let found: Vec<String> = all
        .iter()
        .flat_map(|file| {
            let doors = doors(&text(file)).into_iter();
            doors.map(|door| format!("{}: {door}", short(file)))
        })
        .collect();
    assert!(
        found.is_empty(),
        "a plan reads the host by `context.host` alone, and changes nothing:\n{}",
        found.join("\n")
    );
}

#[test]
fn ways_to_the_host_are_recognized() {
    for (source, door) in [
        ("use std::fs;", "std::fs"),
        ("use std::{fs, io};", "std::{"),
        ("fn f() { std::fs::write(\"a\", \"b\").ok(); }", "std::fs"),
        ("use ::std::process::Command;", "std::process"),
        ("use std::net::TcpStream;", "std::net"),
        ("use rustix::fs::open;", "rustix::fs"),
        ("use nix::unistd::unlink;", "nix::unistd"),
        ("use crate::host::Host;", "crate::host"),
        ("use crate::netlink::Socket;", "crate::netlink"),
        ("use crate::{host, plan::Plan};", "crate::{"),
        ("use crate::plan::LocalHost;", "LocalHost"),
        (
            "fn f(path: &std::path::Path) -> bool { path.is_dir() }",
            "is_dir",
        ),
        ("fn f() { \"db:1\".to_socket_addrs(); }", "to_socket_addrs"),
    ] {
        let found = doors(source);
        assert!(
            found.iter().any(|known| known == door),
            "{source}: {found:?}"
        );
    }
    for harmless in [
        "use core::net::IpAddr; use crate::plan::{Plan, PlanContext}; use serde_json::json;",
        "/// As `std::fs` does.\nfn f() -> &'static str { \"std::fs::write\" }",
        "#[cfg(test)]\nmod tests { use std::fs; }",
    ] {
        assert!(doors(harmless).is_empty(), "{harmless}");
    }
}
