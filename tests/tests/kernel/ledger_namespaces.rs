//! Gone is what was seen to be gone: who is in another namespace than the one that an entry was written in, or is not shown every
//! process, neither calls its owner dead nor strikes it out.

use backburn_tests::crash::Place;
use backburn_tests::isolated::{in_namespaces, in_network_namespace, skip};
use backburn_tests::paused_victim::{Victim, kill_all_of_ours, pause, run, said};
use backburn_tests::programs;
use backburn_tests::wait::wait_until;
use serde_json::Value;
use std::process::{Command, Stdio};

const PROGRAMS: [&str; 4] = ["unshare", "nsenter", "sleep", "strace"];

/// What is done from a place that can't see the entry `one` is refused there, and leaves it and its victim as they are.
fn stays_owed(place: &Place, victim: &Victim, around: &[&str], hint: &str) {
    for words in [&["revert", "--all"][..], &["revert", "one"], &["status"]] {
        let output = run(place, around, words);
        let said = said(&output);
        assert_eq!(
            output.status.code(),
            Some(6),
            "{around:?} {words:?}: {said}"
        );
        assert!(
            said.contains("be seen") && said.contains(hint),
            "{around:?} {words:?}: {said}"
        );
        assert!(
            !said.contains("reverted in "),
            "{around:?} {words:?}: {said}"
        );
        assert_eq!(place.ledger(), ["one.json"], "{around:?} {words:?}: {said}");
        assert!(victim.is_stopped(), "{around:?} {words:?}: {said}");
    }
}

fn is_put_back(place: &Place, victim: &Victim, around: &[&str]) {
    let output = run(place, around, &["revert", "--all"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{around:?}: {said}");
    assert!(said.contains("one reverted in "), "{said}");
    assert!(place.ledger().is_empty(), "{said}");
    wait_until("the victim runs on", || !victim.is_stopped());
}

const OTHER_PIDS: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

#[test]
fn revert_from_another_pid_namespace_is_refused_and_stays_owed() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        let inject = pause(&place, &victim);
        // Whether its owner lives makes no difference to who can't see it.
        stays_owed(&place, &victim, &OTHER_PIDS, "pid namespace");
        kill_all_of_ours(inject);
        stays_owed(&place, &victim, &OTHER_PIDS, "pid namespace");
        // The ids of one namespace, seen by somebody of another.
        stays_owed(
            &place,
            &victim,
            &["unshare", "--pid", "--fork"],
            "/proc shows another pid namespace",
        );
        is_put_back(&place, &victim, &["env"]);
    });
}

#[test]
fn inject_from_another_pid_namespace_leaves_what_it_cannot_see() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        kill_all_of_ours(pause(&place, &victim));
        let words = [
            "inject",
            "memory-fill",
            "--duration",
            "200ms",
            "--size",
            "16MiB",
        ];
        let output = run(&place, &OTHER_PIDS, &words);
        assert_eq!(output.status.code(), Some(6), "{}", said(&output));
        assert!(
            said(&output).contains("one (process-pause) is not reverted"),
            "{}",
            said(&output)
        );
        assert_eq!(place.ledger(), ["one.json"]);
        assert!(victim.is_stopped());
        // Who is shown the processes of others would hit the wrong ones.
        let output = run(&place, &["unshare", "--pid", "--fork"], &words);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        is_put_back(&place, &victim, &["env"]);
    });
}

#[test]
fn revert_with_a_hidden_victim_is_refused_and_stays_owed() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        kill_all_of_ours(pause(&place, &victim));
        let in_shell = |script: &str| {
            ["unshare", "--mount", "sh", "-c"]
                .map(str::to_owned)
                .into_iter()
                .chain([format!("{script} && exec \"$@\""), "sh".into()])
                .collect::<Vec<_>>()
        };
        for (script, hint) in [
            (
                "mount -t tmpfs none /proc".to_owned(),
                "is not the kernel's process table",
            ),
            ("umount -l /proc".into(), "/proc"),
            (
                format!("mount -t tmpfs none /proc/{}", victim.pid),
                "exists but cannot be seen",
            ),
        ] {
            let around = in_shell(&script);
            let around: Vec<&str> = around.iter().map(String::as_str).collect();
            let output = run(&place, &around, &["revert", "--all"]);
            let said = said(&output);
            assert_eq!(output.status.code(), Some(6), "{script}: {said}");
            assert!(
                said.contains(hint) && !said.contains("reverted in "),
                "{script}: {said}"
            );
            assert_eq!(place.ledger(), ["one.json"], "{script}: {said}");
            assert!(victim.is_stopped(), "{script}: {said}");
        }
        is_put_back(&place, &victim, &["env"]);
    });
}

#[test]
fn revert_from_another_time_namespace_reverts() {
    in_namespaces(&PROGRAMS, || {
        let shifted =
            |seconds: &'static str| ["unshare", "--time", "--boottime", seconds, "--fork"];
        for seconds in ["86400", "-7"] {
            let (place, victim) = (Place::default(), Victim::start());
            let inject = pause(&place, &victim);
            // Its owner is alive, whatever the clock says.
            let output = run(&place, &shifted(seconds), &["status"]);
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            assert!(said(&output).contains("  alive  "), "{}", said(&output));
            kill_all_of_ours(inject);
            is_put_back(&place, &victim, &shifted(seconds));
        }
    });
}

#[test]
fn revert_on_the_host_names_the_place_and_is_clean_once_nobody_is_there() {
    let own = std::fs::read_link("/proc/self/ns/pid").expect("it is there");
    if !nix::unistd::geteuid().is_root() || own.as_os_str() != "pid:[4026531836]" {
        return skip(
            "not root in the machine's first pid namespace, in which every process is seen",
        );
    }
    if let Some(missing) = PROGRAMS.iter().find(|program| !programs::is_there(program)) {
        return skip(&format!("`{missing}` is not installed"));
    }
    let place = Place::default();
    // Like a container: process 1 of a namespace, with a victim and an agent in it.
    let script = r#"strace -o /dev/null sleep 1000 & while ! victim=$(pgrep -x sleep); do :; done; sleep 0.2
        exec "$0" inject process-pause --id one --duration 10m --state "$1" --arguments "{\"process\":{\"pid\":$victim}}""#;
    let mut inside = Command::new("unshare")
        .args([
            "--pid",
            "--mount",
            "--fork",
            "--mount-proc",
            "--kill-child=KILL",
            "sh",
            "-c",
            script,
        ])
        .arg(programs::backburn_agent())
        .arg(place.state())
        .stderr(Stdio::null())
        .spawn()
        .expect("`unshare` starts");
    wait_until("it injects", || !place.ledger().is_empty());
    let output = run(&place, &["env"], &["revert", "--all"]);
    let refused = said(&output);
    assert_eq!(output.status.code(), Some(6), "{refused}");
    let target = refused
        .split("nsenter --target ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let target = target.expect("a process that is there is named").to_owned();
    assert!(
        refused.contains("--pid --mount backburn-agent revert --all"),
        "{refused}"
    );
    // As it says.
    let output = run(
        &place,
        &["nsenter", "--target", &target, "--pid", "--mount"],
        &["status"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    inside.kill().expect("it is there to be killed");
    inside.wait().expect("it ends");
    wait_until("nobody is there any more", || {
        let output = run(&place, &["env"], &["revert", "--all"]);
        output.status.code() == Some(0)
    });
    assert!(place.ledger().is_empty());
}

/// An entry of a shaper, as its agent wrote it in this network namespace, with an owner that is dead.
fn shaper_of_a_dead_agent(place: &Place) -> Value {
    let words = [
        "inject",
        "network-bandwidth",
        "--id",
        "one",
        "--duration",
        "10m",
        "--arguments",
        r#"{"rate": "1Mbit", "interface": "lo"}"#,
    ];
    let inject = place.agent(&words, None).spawn().expect("the agent starts");
    wait_until("it shapes", || devices().contains("bb"));
    kill_all_of_ours(inject);
    let text = std::fs::read_to_string(place.state().join("ledger/one.json")).expect("it is owed");
    serde_json::from_str(&text).expect("an entry is JSON")
}

fn devices() -> String {
    let output = Command::new("ip")
        .args(["-o", "link"])
        .output()
        .expect("`ip` starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn revert_from_another_network_namespace_leaves_what_it_cannot_see() {
    in_network_namespace(&["unshare", "ip", "tc"], || {
        let place = Place::default();
        shaper_of_a_dead_agent(&place);
        assert!(
            devices().contains("bb"),
            "a shaper stays when all of ours die"
        );
        let output = run(&place, &["unshare", "--net"], &["revert", "--all"]);
        assert_eq!(output.status.code(), Some(6), "{}", said(&output));
        assert!(
            said(&output).contains("network namespace"),
            "{}",
            said(&output)
        );
        assert_eq!(place.ledger(), ["one.json"]);
        assert!(devices().contains("bb"));
        let output = run(&place, &["env"], &["revert", "--all"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(!devices().contains("bb"), "{}", devices());
    });
}
