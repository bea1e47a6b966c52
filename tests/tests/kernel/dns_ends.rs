//! How DNS faults end, and where they do not begin: answers are whole whatever becomes of us, and what is wrong is said before
//! anything is touched.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::name_server::{A, DB, NameServer, OTHER, PATIENCE, PROGRAMS, ask, code};
use backburn_tests::network::at;
use backburn_tests::network_fault::{Fault, NEVER, figure, ruleset};
use backburn_tests::processes::{self, kill_at_once};
use backburn_tests::refusals::Refusals;
use backburn_tests::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SERVER: &str = "127.0.0.53";

#[test]
fn dns_fault_of_killed_processes_lets_answers_pass() {
    in_network_namespace(&PROGRAMS, || {
        let _server = NameServer::start(&[SERVER, "::1"]);
        let whole = |server| ask(at(server, 53), DB, A, PATIENCE).expect("an answer comes");
        let before = [whole(SERVER), whole("::1")];
        for (fault, rest) in [
            ("dns-fail", json!({"with": "timeout"})),
            ("dns-slow", json!({"delay": "30s"})),
            ("dns-spoof", json!({"addresses": "198.51.100.7"})),
        ] {
            let mut arguments = rest;
            arguments["names"] = json!("*");
            arguments["server"] = json!(["127.0.0.0/8", "::1"]);
            let mut fault = Fault::inject(fault, &arguments, "60s");
            for (server, before) in [SERVER, "::1"].into_iter().zip(&before) {
                let hit = ask(at(server, 53), DB, A, NEVER);
                assert!(hit.is_err() || hit.is_ok_and(|hit| hit != *before));
            }
            kill_at_once(&fault.everybody());
            let started = Instant::now();
            for (server, before) in [SERVER, "::1"].into_iter().zip(&before) {
                let again = || ask(at(server, 53), DB, A, Duration::from_millis(50));
                while !again().is_ok_and(|answer| answer == *before) {
                    assert!(started.elapsed() < PATIENCE, "still hit");
                }
            }
            println!(
                "answers whole {:?} after all were killed",
                started.elapsed()
            );
            fault.inject.wait().expect("it was killed");
            wait_within("tables are left", PATIENCE, || ruleset().is_empty());
            assert_eq!(fault.place.restart(None).code(), Some(0));
            assert!(fault.place.ledger().is_empty());
        }
    });
}

/// Nobody is dead and nobody does anything any more: the lease in the kernel runs out, and the deadline comes.
#[test]
fn dns_fault_of_stopped_processes_lets_answers_pass() {
    in_network_namespace(&PROGRAMS, || {
        let _server = NameServer::start(&[SERVER]);
        let arguments = json!({"names": "nobody.test", "server": SERVER});
        let mut fault = Fault::inject("dns-fail", &arguments, "1s");
        let everybody = fault.everybody();
        for pid in &everybody {
            kill(Pid::from_raw(*pid), Signal::SIGSTOP).expect("it is there to be stopped");
        }
        let started = Instant::now();
        while ask(at(SERVER, 53), DB, A, Duration::from_millis(20)).is_err() {
            assert!(started.elapsed() < PATIENCE, "still held up");
        }
        println!(
            "1 s, everybody stopped: answers whole after {:?}",
            started.elapsed()
        );
        for pid in everybody {
            // The helper's deadline has come; the others are still there.
            kill(Pid::from_raw(pid), Signal::SIGCONT).ok();
        }
        fault.inject.wait().expect("it ends");
        assert_eq!(ruleset(), "");
    });
}

/// Only the helper dies: what it would have altered goes on.
#[test]
fn dns_helper_that_died_blocks_no_answer() {
    in_network_namespace(&PROGRAMS, || {
        let _server = NameServer::start(&[SERVER]);
        let fault = Fault::inject("dns-fail", &json!({"names": "*", "server": SERVER}), "60s");
        let answer = || ask(at(SERVER, 53), DB, A, Duration::from_millis(200));
        assert!(answer().is_ok_and(|answer| code(&answer) == 2));
        let helper = processes::named("backburn-helper")
            .pop()
            .expect("it is there")
            .pid;
        kill_at_once(&[helper]);
        let until = Instant::now() + PATIENCE;
        while !answer().is_ok_and(|answer| code(&answer) == 0) {
            assert!(Instant::now() < until, "still hit");
        }
        fault.end();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn dns_fault_without_a_matching_question_has_no_effect() {
    in_network_namespace(&PROGRAMS, || {
        let _server = NameServer::start(&[SERVER]);
        let arguments =
            json!({"names": ["db.example.org", "*.other.example.org"], "server": SERVER});
        let fault = Fault::inject("dns-fail", &arguments, "60s");
        let answer = ask(at(SERVER, 53), OTHER, A, PATIENCE).expect("an answer comes");
        assert_eq!(code(&answer), 0);
        let effect = fault.end();
        assert_eq!(effect["acts"], false, "{effect}");
        assert_eq!(figure(&effect, "answer-packets"), 1.0);
        assert_eq!(figure(&effect, "failed-answers"), 0.0);
    });
}

#[test]
fn dns_name_held_by_a_fault_is_refused_to_another() {
    in_network_namespace(&PROGRAMS, || {
        let _server = NameServer::start(&[SERVER]);
        let arguments = json!({"names": "*.example.org", "delay": "1ms", "server": SERVER});
        let fault = Fault::inject("dns-slow", &arguments, "60s");
        let inject = |name: &str| {
            let arguments = json!({"names": name, "server": SERVER}).to_string();
            let words = [
                "inject",
                "dns-fail",
                "--duration",
                "100ms",
                "--arguments",
                &arguments,
            ];
            let status = fault.place.agent(&words, None).status();
            status.expect("the agent starts").code()
        };
        assert_eq!(inject("db.example.org"), Some(3));
        assert_eq!(inject("*"), Some(3));
        // This one nobody asks for meanwhile, but it may be injected.
        assert_eq!(inject("example.org"), Some(0));
        fault.end();
    });
}

/// The kernel loses whatever is in a queue when a hook goes, also one that was only tried.
#[test]
fn dns_plan_of_a_held_name_leaves_its_fault_acting() {
    in_network_namespace(&PROGRAMS, || {
        let _server = NameServer::start(&[SERVER]);
        let arguments = json!({"names": DB, "delay": "3s", "server": SERVER});
        let fault = Fault::inject("dns-slow", &arguments, "60s");
        std::thread::scope(|threads| {
            let held = threads.spawn(|| ask(at(SERVER, 53), DB, A, PATIENCE));
            let queued = || {
                let queues = std::fs::read_to_string("/proc/self/net/netfilter/nfnetlink_queue");
                let queues = queues.expect("there is a queue");
                queues.split_whitespace().nth(2) == Some("1")
            };
            wait_within("not held", PATIENCE, queued);
            for (fault, arguments) in [
                ("dns-fail", json!({"names": OTHER})),
                ("network-latency", json!({"ports": 80, "delay": "1ms"})),
                ("network-partition", json!({"ports": 80})),
            ] {
                let arguments = arguments.to_string();
                let words = ["plan", fault, "--duration", "5s", "--arguments", &arguments];
                let place = Place::default();
                let status = place.agent(&words, None).status();
                assert_eq!(status.expect("the agent starts").code(), Some(0), "{fault}");
            }
            let held = held.join().expect("the asker does not panic");
            assert_eq!(held.map(|answer| code(&answer)).ok(), Some(0));
        });
        fault.end();
    });
}

#[test]
fn dns_faults_of_two_names_act_at_once() {
    in_network_namespace(&PROGRAMS, || {
        let _server = NameServer::start(&[SERVER]);
        let answer = |name| ask(at(SERVER, 53), name, A, PATIENCE).expect("an answer comes");
        let whole = answer(DB);
        let arguments = json!({"names": DB, "delay": "200ms", "server": SERVER});
        let slow = Fault::inject("dns-slow", &arguments, "60s");
        let arguments = json!({"names": OTHER, "server": SERVER}).to_string();
        let words = [
            "inject",
            "dns-fail",
            "--duration",
            "60s",
            "--arguments",
            &arguments,
        ];
        let mut fail = slow
            .place
            .agent(&words, None)
            .spawn()
            .expect("the agent starts");
        let until = Instant::now() + PATIENCE;
        while code(&answer(OTHER)) == 0 {
            assert!(Instant::now() < until, "not injected");
        }
        let started = Instant::now();
        assert_eq!(answer(DB), whole);
        assert!(started.elapsed() >= Duration::from_millis(200));
        kill(Pid::from_raw(fail.id() as i32), Signal::SIGINT).expect("it is there");
        assert!(fail.wait().is_ok_and(|status| status.success()));
        assert_eq!(code(&answer(OTHER)), 0);
        let effect = slow.end();
        assert_eq!(figure(&effect, "slowed-answers"), 1.0, "{effect}");
    });
}

#[test]
fn dns_fault_with_wrong_arguments_is_refused_and_nothing_is_touched() {
    in_network_namespace(&PROGRAMS, || {
        let refusals = Refusals::new(|| ruleset().is_empty());
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let policy = folder.path().join("policy.json");
        std::fs::write(&policy, json!({"protect-ports": [53]}).to_string()).expect("it is written");
        let policy = policy.display().to_string();
        let refuses = |fault: &str, arguments: Value, code: i32, says: &[&str]| {
            refusals.inject(fault, &arguments, &[], code, says);
        };
        let fail = "dns-fail";
        refuses(fail, json!({}), 2, &["`names` is missing"]);
        refuses(
            fail,
            json!({"names": []}),
            2,
            &["$.names", "no name is given"],
        );
        refuses(
            fail,
            json!({"names": ["db.example.org", "a b", ""]}),
            2,
            &["$.names[1]", "$.names[2]"],
        );
        refuses(
            fail,
            json!({"names": "*db.example.org"}),
            2,
            &["$.names", "whole labels"],
        );
        refuses(
            fail,
            json!({"names": "bücher.example"}),
            2,
            &["$.names", "xn--"],
        );
        refuses(fail, json!({"names": "*", "with": "love"}), 2, &["$.with"]);
        refuses(
            fail,
            json!({"names": "*", "percent": 101}),
            2,
            &["$.percent", "100"],
        );
        refuses(
            fail,
            json!({"names": "*", "percent": -1}),
            2,
            &["$.percent"],
        );
        refuses(fail, json!({"names": "*", "percent": 0}), 2, &["$.percent"]);
        refuses(fail, json!({"names": "*", "port": 0}), 2, &["$.port"]);
        refuses(
            fail,
            json!({"names": "*", "server": "10.0.0.300"}),
            2,
            &["$.server"],
        );
        refuses(
            fail,
            json!({"names": "*", "server": "10.0.0.3:53"}),
            2,
            &["$.server", "`port`"],
        );
        refuses(
            fail,
            json!({"names": "*", "server": "no-such-host.invalid"}),
            3,
            &["$.server"],
        );
        refuses(
            fail,
            json!({"names": "*", "namespace": "no-such"}),
            3,
            &["$.namespace"],
        );
        refuses(
            fail,
            json!({"names": "*", "of": {"pid": 1}}),
            3,
            &["protected"],
        );
        refuses(fail, json!({"names": "*", "port": 22}), 3, &["protected"]);
        let arguments = json!({"names": "*"});
        refusals.inject(
            fail,
            &arguments,
            &["--policy", &policy],
            3,
            &["protect-ports"],
        );
        for delay in ["-1ms", "0s", "soon", "61s"] {
            refuses(
                "dns-slow",
                json!({"names": "*", "delay": delay}),
                2,
                &["$.delay"],
            );
        }
        refuses(
            "dns-slow",
            json!({"names": "*"}),
            2,
            &["`delay` is missing"],
        );
        let spoof = "dns-spoof";
        refuses(spoof, json!({"names": "*"}), 2, &["`addresses` is missing"]);
        refuses(
            spoof,
            json!({"names": "*", "addresses": []}),
            2,
            &["$.addresses"],
        );
        refuses(
            spoof,
            json!({"names": "*", "addresses": vec!["::1"; 17]}),
            2,
            &["$.addresses", "16"],
        );
        let addresses = json!(["192.0.2.1", "db.example.org", "192.0.2.0/24"]);
        refuses(
            spoof,
            json!({"names": "*", "addresses": addresses}),
            2,
            &["$.addresses[1]", "$.addresses[2]"],
        );
    });
}
