//! Agents that are lost in the midst of a run, because a part of them is killed or their link is cut: the run ends,
//! everything is put back, and they come again.

use backburn_tests::fleet::{Ended, Fleet, Given, Host, LONG, PROGRAMS, pause, strike};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::ip;
use backburn_tests::processes::kill_at_once;
use backburn_tests::wait::wait_within;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::process::Command;

fn assert_aborted(ended: &Ended, agent: &str) {
    assert_eq!(ended.verdict["outcome"], "aborted", "{ended:#?}");
    assert_eq!(ended.code, 4, "{ended:#?}");
    assert_eq!(ended.verdict["owed"], json!([]), "{ended:#?}");
    let lost = ended.of("agent-lost");
    // Who hears nothing may still be heard: it says itself that its lease is over.
    let told = ended.of("aborted");
    let told = told.iter().any(|abort| abort["rule"] == "lease");
    assert!(
        told || lost.iter().any(|lost| lost["agent"] == agent),
        "{ended:#?}"
    );
}

#[test]
fn run_of_an_agent_with_any_process_killed_ends_and_it_reconnects() {
    in_network_namespace(&PROGRAMS, || {
        let agents: [(&str, &[&str]); 2] = [("web-1", &["role=web"]), ("web-2", &["role=web"])];
        let mut fleet = Fleet::new(&agents, Given::default());
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        for whom in ["worker", "guardian", "connector", "all of them"] {
            println!("{whom}");
            let run = fleet.begin("pause", &pause("web", "10m"));
            victims.iter().for_each(|victim| victim.until_paused());
            let [connector, guardian, worker] = fleet.host("web-1").processes();
            match whom {
                "worker" => strike(worker, Signal::SIGKILL),
                "guardian" => strike(guardian, Signal::SIGKILL),
                "connector" => strike(connector, Signal::SIGKILL),
                _ => drop(kill_at_once(&[connector, guardian, worker])),
            }
            victims.iter().for_each(|victim| victim.until_free());
            // Whoever starts services starts it again.
            let host = fleet.host_mut("web-1");
            if ["connector", "all of them"].contains(&whom) {
                host.reap();
                host.connect();
            }
            assert_aborted(&fleet.until_over(&run), "web-1");
            fleet.until_clean();
            fleet.until_connected();
        }
        assert_eq!(fleet.run("pause", &pause("web", "100ms")).code, 0);
        for host in &fleet.hosts {
            assert_eq!(host.ours().len(), 3, "{:?}", host.ours());
        }
    });
}

/// Has a packet filter drop what matches.
fn drop_there(mut nft: Command, rule: &str) {
    let rules = format!(
        "table ip cut {{ chain cut {{ type filter hook input priority 0; policy accept; {rule} drop; }}; }}"
    );
    let status = nft.arg(rules).status().expect("it starts");
    assert!(status.success(), "{rule}: {status}");
}

fn let_through(mut nft: Command) {
    let status = nft.args(["delete", "table", "ip", "cut"]).status();
    assert!(status.is_ok_and(|status| status.success()));
}

fn is_connected(fleet: &Fleet, name: &str) -> bool {
    let agents = fleet.says(&["agents", "--json"]).json();
    let agent = agents
        .as_array()
        .into_iter()
        .flatten()
        .find(|agent| agent["name"] == name);
    agent.expect("it is known")["connected"] == true
}

#[test]
fn run_over_a_cut_link_ends_within_the_lease() {
    let programs = [&PROGRAMS[..], &["nft", "tc"]].concat();
    in_network_namespace(&programs, || {
        let agents: [(&str, &[&str]); 4] = [
            ("gone", &["role=gone"]),
            ("deaf", &["role=deaf"]),
            ("mute", &["role=mute"]),
            ("slow", &["role=slow"]),
        ];
        let given = Given {
            lease: "3s",
            ..Given::default()
        };
        let fleet = Fleet::new(&agents, given);
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        let slow = fleet.host("slow");
        // A page of text takes a second, either way.
        let lame = ["qdisc", "add", "dev"];
        let shaped = [
            "root", "tbf", "rate", "16kbit", "burst", "1600", "latency", "10s",
        ];
        let status = Command::new("tc")
            .args(lame)
            .arg(&slow.port)
            .args(shaped)
            .status();
        assert!(status.is_ok_and(|status| status.success()));
        let status = slow
            .command("tc")
            .args(lame)
            .arg("lan")
            .args(shaped)
            .status();
        assert!(status.is_ok_and(|status| status.success()));

        let cut = ["gone", "deaf", "mute"];
        let runs: Vec<String> = cut
            .iter()
            .map(|name| fleet.begin(name, &pause(name, "10m")))
            .collect();
        let lame = fleet.begin("slow", &pause("slow", "4s"));
        victims.iter().for_each(|victim| victim.until_paused());
        // Half open: nobody is told. One way: to the agent, or from it.
        ip(&["link", "set", &fleet.host("gone").port, "down"]);
        drop_there(fleet.host("deaf").command("nft"), "ip saddr 10.8.0.254");
        let mute = format!("ip saddr {}", fleet.host("mute").address);
        drop_there(Command::new("nft"), &mute);
        victims[..3].iter().for_each(|victim| victim.until_free());
        wait_within("the controller knows", LONG, || {
            !cut.iter().any(|name| is_connected(&fleet, name))
        });
        // It holds those of which it hears nothing until they can say that nothing is left.
        let open = fleet.ask("GET /api/v1/runs?open=true").json();
        for run in [&runs[0], &runs[2]] {
            let is = |open: &Value| open["id"] == run.as_str();
            assert!(open.as_array().expect("a list").iter().any(is), "{open:#}");
        }
        ip(&["link", "set", &fleet.host("gone").port, "up"]);
        let_through(fleet.host("deaf").command("nft"));
        let_through(Command::new("nft"));
        for (name, run) in cut.iter().zip(&runs) {
            assert_aborted(&fleet.until_over(run), name);
        }
        let ended = fleet.until_over(&lame);
        assert_eq!(ended.code, 0, "{ended:#?}");
        fleet.until_clean();
        fleet.until_connected();
        for name in cut {
            assert_eq!(fleet.run(name, &pause(name, "100ms")).code, 0);
        }
    });
}
