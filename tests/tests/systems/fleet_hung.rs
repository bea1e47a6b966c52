//! Agents of a fleet that are connected and do not answer, because a part of them is stopped: they are named within a lease, their
//! runs end, nobody waits for them, and what they owe is put back by whoever near them still lives.

use backburn_tests::fleet::{Ended, Fleet, Given, Host, LONG, PROGRAMS, pause, strike};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::wait::wait_within;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(3);
/// How late anything may be on a busy machine.
const SLACK: Duration = Duration::from_secs(5);
/// How long a run waits for an agent that does not answer to be ended by somebody near it.
const HUNG_WITHIN: Duration = Duration::from_secs(30);

fn fleet() -> Fleet {
    let agents: [(&str, &[&str]); 2] = [("web-1", &["role=web"]), ("web-2", &["role=web"])];
    let given = Given {
        lease: "3s",
        ..Given::default()
    };
    Fleet::new(&agents, given)
}

fn agent(fleet: &Fleet, name: &str) -> Value {
    let agents = fleet.says(&["agents", "--json"]).json();
    let mut agents = agents.as_array().into_iter().flatten();
    let agent = agents.find(|agent| agent["name"] == name);
    agent.expect("it is known").clone()
}

fn until_unresponsive(fleet: &Fleet, name: &str, is: bool) -> Duration {
    let began = Instant::now();
    wait_within(&format!("{name} is unresponsive: {is}"), LONG, || {
        agent(fleet, name)["unresponsive"] == is
    });
    began.elapsed()
}

/// What of this agent's processes hangs.
fn stop(pids: &[i32]) {
    pids.iter().for_each(|pid| strike(*pid, Signal::SIGSTOP));
}

fn go_on(pids: &[i32]) {
    pids.iter().for_each(|pid| strike(*pid, Signal::SIGCONT));
}

fn lost(ended: &Ended, agent: &str) -> String {
    let lost = ended.of("agent-lost");
    let lost = lost.iter().find(|lost| lost["agent"] == agent);
    let reason = lost.and_then(|lost| lost["reason"].as_str());
    reason
        .unwrap_or_else(|| panic!("{agent} is not lost: {ended:#?}"))
        .to_owned()
}

#[test]
fn agent_stopped_at_rest_is_unresponsive_within_a_lease_until_it_answers_again() {
    in_network_namespace(&PROGRAMS, || {
        let fleet = fleet();
        let [_, guardian, worker] = fleet.host("web-1").processes();
        let since = agent(&fleet, "web-1")["since"].clone();
        stop(&[guardian, worker]);
        let took = until_unresponsive(&fleet, "web-1", true);
        assert!(took < LEASE + SLACK, "{took:?}");
        let shown = fleet.says(&["agents"]);
        let row = shown.out.lines().find(|line| line.starts_with("web-1"));
        assert!(
            row.is_some_and(|row| row.contains("unresponsive")),
            "{shown:?}"
        );
        assert!(
            shown
                .err
                .contains("2 of them connected, 1 of those unresponsive"),
            "{shown:?}"
        );
        assert_eq!(agent(&fleet, "web-2")["unresponsive"], false);
        let metrics = fleet.ask("GET /metrics").text();
        assert!(
            metrics.contains("backburn_agents_unresponsive 1"),
            "{metrics}"
        );

        // Who would have to wait for its answers is told at once.
        let began = Instant::now();
        let refused = fleet.run("pause", &pause("web", "1s"));
        assert_eq!(refused.code, 3, "{refused:#?}");
        let described = fleet.ask("GET /api/v1/agents/web-1/faults");
        assert_eq!(described.status, 503);
        let halted = fleet.says(&["halt"]);
        assert_eq!(halted.code, 6, "{halted:?}");
        let row = halted.out.lines().find(|line| line.starts_with("web-1"));
        assert!(
            row.is_some_and(|row| row.contains("unresponsive")),
            "{halted:?}"
        );
        assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
        assert_eq!(fleet.says(&["resume"]).code, 0);

        go_on(&[guardian, worker]);
        until_unresponsive(&fleet, "web-1", false);
        assert_eq!(
            agent(&fleet, "web-1")["since"],
            since,
            "it is the same link"
        );
        assert!(
            fleet.log().contains("an agent answers again"),
            "{}",
            fleet.log()
        );
        assert_eq!(
            fleet.run("pause", &pause("web", "100ms")).verdict["owed"],
            serde_json::json!([])
        );
    });
}

#[test]
fn run_of_a_hung_agent_ends_with_what_its_guardian_reverts() {
    in_network_namespace(&PROGRAMS, || {
        let fleet = fleet();
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        for whom in ["worker", "guardian", "worker and guardian"] {
            println!("{whom}");
            let run = fleet.begin("pause", &pause("web", "10m"));
            victims.iter().for_each(|victim| victim.until_paused());
            let [_, guardian, worker] = fleet.host("web-1").processes();
            let began = Instant::now();
            match whom {
                "worker" => stop(&[worker]),
                "guardian" => stop(&[guardian]),
                _ => stop(&[worker, guardian]),
            }
            let ended = fleet.until_over(&run);
            let took = began.elapsed();
            victims.iter().for_each(|victim| victim.until_free());
            assert_eq!(ended.verdict["outcome"], "aborted", "{whom}: {ended:#?}");
            assert_eq!(
                ended.verdict["owed"],
                serde_json::json!([]),
                "{whom}: {ended:#?}"
            );
            // The connector gives one that is stopped two seconds, and takes a break of up to four before it dials again.
            assert!(
                took < LEASE + Duration::from_secs(8) + SLACK,
                "{whom}: {took:?}"
            );
            if whom == "worker and guardian" {
                let why = lost(&ended, "web-1");
                assert!(why.contains("unresponsive"), "{why}");
            }
            fleet.until_clean();
            fleet.until_connected();
        }
        assert_eq!(fleet.host("web-1").ours().len(), 3);
    });
}

#[test]
fn run_of_a_hung_connector_ends_not_clean_and_names_the_agent() {
    in_network_namespace(&PROGRAMS, || {
        let fleet = fleet();
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        for whom in ["connector", "all of them"] {
            println!("{whom}");
            let run = fleet.begin("pause", &pause("web", "10m"));
            victims.iter().for_each(|victim| victim.until_paused());
            let all = fleet.host("web-1").processes();
            let stopped = if whom == "connector" {
                &all[..1]
            } else {
                &all[..]
            };
            let began = Instant::now();
            stop(stopped);
            victims[1].until_free();
            if whom == "connector" {
                // Its lease is over, and it can still do all that it has to.
                victims[0].until_free();
                assert!(began.elapsed() < 2 * LEASE + SLACK, "{:?}", began.elapsed());
            }
            let ended = fleet.until_over(&run);
            let took = began.elapsed();
            assert!(took < LEASE + HUNG_WITHIN + SLACK, "{whom}: {took:?}");
            assert_eq!(ended.code, 6, "{whom}: {ended:#?}");
            let owed = ended.verdict["owed"].as_array().expect("a list");
            assert_eq!(owed.len(), 1, "{whom}: {ended:#?}");
            let why = lost(&ended, "web-1");
            assert!(why.contains("unresponsive"), "{why}");
            let said = format!("{:?}", ended.of("aborted"));
            assert!(said.contains("agent `web-1` did not reconnect"), "{said}");
            assert!(said.contains("backburn agent revert --all"), "{said}");
            assert_eq!(victims[0].is_paused(), whom == "all of them");

            go_on(stopped);
            victims[0].until_free();
            fleet.until_clean();
            fleet.until_connected();
        }
    });
}

#[test]
fn halt_with_hung_agents_reports_their_guardians() {
    in_network_namespace(&PROGRAMS, || {
        let fleet = fleet();
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        for whom in ["worker", "worker and guardian"] {
            println!("{whom}");
            fleet.begin("pause", &pause("web", "10m"));
            victims.iter().for_each(|victim| victim.until_paused());
            let [_, guardian, worker] = fleet.host("web-1").processes();
            match whom {
                "worker" => stop(&[worker]),
                _ => stop(&[worker, guardian]),
            }
            let began = Instant::now();
            let halted = fleet.says(&["halt", "--json"]);
            assert!(
                began.elapsed() < LEASE + SLACK,
                "{:?}: {halted:?}",
                began.elapsed()
            );
            let report = halted.json();
            let agents = report["agents"].as_array().expect("a list").clone();
            let of = |name: &str| agents.iter().find(|agent| agent["agent"] == name).cloned();
            let (hung, well) = (
                of("web-1").expect("it is named"),
                of("web-2").expect("it is named"),
            );
            assert!(well["took-ms"].is_f64(), "{report:#}");
            assert!(hung["took-ms"].is_null(), "{report:#}");
            match whom {
                "worker" => {
                    assert_eq!(hung["guardian"][0]["clean"], true, "{report:#}");
                    assert_eq!(report["clean"], true, "{report:#}");
                    assert_eq!(halted.code, 0);
                }
                _ => {
                    assert_eq!(hung["unresponsive"], true, "{report:#}");
                    assert_eq!(report["clean"], false, "{report:#}");
                    assert_eq!(halted.code, 6);
                }
            }
            victims.iter().for_each(|victim| victim.until_free());
            fleet.until_clean();
            fleet.until_connected();
            assert_eq!(fleet.says(&["resume"]).code, 0);
        }
    });
}
