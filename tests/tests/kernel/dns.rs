//! DNS faults on the real kernel, with a real name server and real askers: the chosen names are hit, of IPv4 and IPv6, over the wire
//! and over the loopback; every other answer is the same to the byte.

use backburn_tests::cgroups::Group;
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::name_server::{
    A, AAAA, ADDRESSES, DB, NameServer, OTHER, PATIENCE, PROGRAMS, TXT, ask, code, dig, found,
    records, resolve_by,
};
use backburn_tests::network::{HERE, THERE, Wire, at, ip};
use backburn_tests::network_fault::{Fault, NEVER, figure, ruleset};
use serde_json::json;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs a test in namespaces of its own, where the C library asks this server.
fn asking(server: &str, test: impl FnOnce()) {
    in_network_namespace(&PROGRAMS, || {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        resolve_by(folder.path(), server);
        test();
    });
}

fn answer(server: SocketAddr, name: &str, kind: u16) -> Vec<u8> {
    ask(server, name, kind, PATIENCE).expect("an answer comes")
}

#[test]
fn dns_fail_fails_chosen_names_and_no_others() {
    asking(THERE[0], || {
        let wire = Wire::new();
        let _server = wire.there(|| NameServer::start(&THERE));
        for (there, kind) in THERE.into_iter().zip([A, AAAA]) {
            let server = at(there, 53);
            let whole = answer(server, DB, kind);
            assert_eq!((code(&whole), records(&whole)), (0, 1));
            let beside = answer(server, OTHER, kind);
            for (with, number) in [("servfail", 2), ("nxdomain", 3), ("refused", 5)] {
                let arguments = json!({"names": ["nobody.test", "DB.example.org."], "with": with});
                let fault = Fault::inject("dns-fail", &arguments, "60s");
                let failed = answer(server, DB, kind);
                assert_eq!((code(&failed), records(&failed)), (number, 0));
                // The same question, and nothing else.
                assert_eq!(failed[12..], whole[12..12 + DB.len() + 6]);
                assert_eq!(answer(server, OTHER, kind), beside);
                let said = dig(there, &["+dnssec", DB]).expect("an answer comes");
                assert!(said.contains(&with.to_uppercase()) && said.contains("EDNS: version: 0"));
                assert!(!said.contains("WARNING"), "{said}");
                let said = dig(there, &["+tcp", DB]).expect("an answer comes");
                assert!(said.contains(ADDRESSES[0]), "not over TCP: {said}");
                let effect = fault.end();
                assert_eq!(effect["acts"], true, "{effect}");
                assert_eq!(figure(&effect, "failed-answers"), 2.0, "{effect}");
                assert_eq!(figure(&effect, "answer-packets"), 3.0, "{effect}");
                assert_eq!(answer(server, DB, kind), whole);
            }
            let arguments = json!({"names": "db.example.org", "with": "timeout", "server": there});
            let fault = Fault::inject("dns-fail", &arguments, "60s");
            assert!(ask(server, DB, kind, NEVER).is_err());
            assert_eq!(dig(there, &["+tcp", "+time=1", DB]), None);
            assert_eq!(answer(server, OTHER, kind), beside);
            let said = dig(there, &["+tcp", OTHER]).expect("an answer comes");
            assert!(said.contains("192.0.2.2"), "{said}");
            let effect = fault.end();
            // TCP sends what was lost again.
            assert!(figure(&effect, "failed-answers") >= 2.0, "{effect}");
            assert_eq!(answer(server, DB, kind), whole);
        }
    });
}

#[test]
fn dns_spoof_answers_with_the_given_addresses() {
    asking(THERE[0], || {
        let wire = Wire::new();
        let _server = wire.there(|| NameServer::start(&THERE));
        for there in THERE {
            let server = at(there, 53);
            let text = answer(server, DB, TXT);
            let beside = answer(server, OTHER, AAAA);
            let both = json!({"names": "db.example.org", "addresses": ["198.51.100.7", "2001:db8::77", "198.51.100.8"]});
            let fault = Fault::inject("dns-spoof", &both, "60s");
            for words in [["+noedns", DB], ["+dnssec", DB]] {
                let said = dig(there, &words).expect("an answer comes");
                assert!(
                    said.contains("NOERROR") && !said.contains("WARNING"),
                    "{said}"
                );
                let lines = said.lines().filter(|line| line.starts_with(DB));
                let words: Vec<Vec<&str>> = lines
                    .map(|line| line.split_whitespace().collect())
                    .collect();
                let line = |address| vec!["db.example.org.", "1", "IN", "A", address];
                assert_eq!(words, [line("198.51.100.7"), line("198.51.100.8")]);
            }
            let said = dig(there, &[DB, "AAAA"]).expect("an answer comes");
            assert!(
                said.contains("2001:db8::77") && !said.contains(ADDRESSES[1]),
                "{said}"
            );
            assert_eq!(answer(server, DB, TXT), text, "other types stay");
            assert_eq!(answer(server, OTHER, AAAA), beside);
            assert_eq!(figure(&fault.end(), "spoofed-answers"), 3.0);

            // What there is not gets an address; and only one of the other family is none.
            assert_eq!(code(&answer(server, "no.example.org", A)), 5);
            let one = json!({"names": "*.example.org", "addresses": "2001:db8::77", "port": 53});
            let fault = Fault::inject("dns-spoof", &one, "60s");
            for (kind, number) in [(A, 0), (AAAA, 1)] {
                let made = answer(server, "no.example.org", kind);
                assert_eq!((code(&made), records(&made)), (0, number));
            }
            fault.end();
            assert_eq!(code(&answer(server, "no.example.org", A)), 5);
        }
        assert_eq!(found(DB), ADDRESSES);
        let arguments = json!({"names": "db.example.org", "addresses": "198.51.100.7"});
        let fault = Fault::inject("dns-spoof", &arguments, "60s");
        assert_eq!(found(DB), ["198.51.100.7"]);
        assert_eq!(found(OTHER), ["192.0.2.2", "2001:db8::2"]);
        fault.end();
        assert_eq!(found(DB), ADDRESSES);
    });
}

#[test]
fn dns_slow_delays_chosen_names_and_no_others() {
    asking(THERE[0], || {
        const DELAY: Duration = Duration::from_secs(1);
        let wire = Wire::new();
        let _server = wire.there(|| NameServer::start(&THERE));
        for there in THERE {
            let server = at(there, 53);
            let (whole, beside) = (answer(server, DB, A), answer(server, OTHER, A));
            let long = dig(
                there,
                &["+bufsize=4096", "+ignore", "long.example.org", "TXT"],
            );
            let arguments = json!({"names": ["db.example.org", "long.example.org"], "delay": "1s"});
            let fault = Fault::inject("dns-slow", &arguments, "60s");
            let timed = |deed: &dyn Fn()| {
                let started = Instant::now();
                deed();
                started.elapsed()
            };
            let mut took = vec![timed(&|| assert_eq!(answer(server, DB, A), whole))];
            took.push(timed(&|| {
                let said = dig(there, &["+tcp", DB]).expect("an answer comes");
                assert!(said.contains(ADDRESSES[0]), "{said}");
            }));
            // More than goes into one packet.
            took.push(timed(&|| {
                let said = dig(
                    there,
                    &["+bufsize=4096", "+ignore", "long.example.org", "TXT"],
                );
                let lines =
                    |said: &Option<String>| said.as_ref().map(|said| said.matches("TXT").count());
                assert_eq!((lines(&said), lines(&long)), (Some(15), Some(15)));
            }));
            let mut others: Vec<Duration> = (0..9)
                .map(|_| timed(&|| assert_eq!(answer(server, OTHER, A), beside)))
                .collect();
            others.sort();
            println!(
                "{there}: held for {DELAY:?}: {took:?}; beside it median {:?}",
                others[4]
            );
            assert!(took.iter().all(|took| *took >= DELAY), "{took:?}");
            assert!(others[4] < DELAY / 2, "{others:?}");
            let effect = fault.end();
            assert!(figure(&effect, "slowed-answers") >= 3.0, "{effect}");
        }
    });
}

/// An answer that comes in parts is put together, or its beginning is enough.
#[test]
fn dns_fail_of_a_fragmented_answer_fails_it_whole() {
    asking(THERE[0], || {
        let wire = Wire::new();
        let _server = wire.there(|| NameServer::start(&THERE));
        for there in THERE {
            let words = ["+bufsize=4096", "+ignore", "long.example.org", "TXT"];
            let fault = Fault::inject("dns-fail", &json!({"names": "long.example.org"}), "60s");
            let said = dig(there, &words).expect("an answer comes");
            assert!(
                said.contains("SERVFAIL") && !said.contains("WARNING"),
                "{said}"
            );
            fault.end();
            let said = dig(there, &words).expect("an answer comes");
            assert_eq!(said.matches("TXT").count(), 15, "{said}");
        }
    });
}

#[test]
fn dns_fault_on_a_loopback_resolver_spares_its_cache() {
    asking("127.0.0.53", || {
        let wire = Wire::new();
        let _server = wire.there(|| NameServer::start(&THERE[..1]));
        let _resolver = NameServer::caching(&["127.0.0.53", HERE[0]], THERE[0]);
        let resolver = at("127.0.0.53", 53);
        let for_others = |name| wire.there(|| answer(at(HERE[0], 53), name, A));
        let fault = Fault::inject("dns-fail", &json!({"names": "*.example.org"}), "60s");
        assert_eq!(code(&answer(resolver, DB, A)), 2);
        assert_eq!(found(DB), [""; 0]);
        // What it asked and keeps is whole, and so is what it tells others.
        assert_eq!(records(&for_others(DB)), 1);
        assert_eq!(records(&for_others(OTHER)), 1);
        let effect = fault.end();
        assert!(figure(&effect, "failed-answers") >= 2.0, "{effect}");
        assert_eq!(found(DB), ADDRESSES);

        // Where its own questions are meant, they are named.
        let arguments =
            json!({"names": "new.example.org", "addresses": "198.51.100.7", "server": THERE[0]});
        let fault = Fault::inject("dns-spoof", &arguments, "60s");
        assert_eq!(found("new.example.org"), ["198.51.100.7"]);
        assert!(figure(&fault.end(), "spoofed-answers") >= 2.0);
    });
}

#[test]
fn dns_fault_in_another_namespace_acts_by_process_and_by_path() {
    asking(THERE[0], || {
        let wire = Wire::new();
        let _server = NameServer::start(&HERE);
        // As in a container whose resolver is told on its own loopback.
        let _inner = wire.there(|| NameServer::start(&["127.0.0.11"]));
        let own = ruleset();
        for place in [
            json!({"of": {"pid": wire.pid()}}),
            json!({"namespace": wire.namespace()}),
        ] {
            let mut arguments = place;
            arguments["names"] = json!("db.example.org");
            let fault = Fault::inject("dns-fail", &arguments, "60s");
            assert_eq!(ruleset(), own, "nothing is made here");
            for server in [HERE[0], HERE[1], "127.0.0.11"] {
                assert_eq!(
                    code(&wire.there(|| answer(at(server, 53), DB, A))),
                    2,
                    "{server}"
                );
            }
            assert_eq!(code(&answer(at(HERE[0], 53), DB, A)), 0);
            assert_eq!(figure(&fault.end(), "failed-answers"), 3.0);
            assert_eq!(wire.there(ruleset), "");
        }
    });
}

#[test]
fn dns_fault_of_a_process_on_the_hosts_network_acts_by_its_cgroup() {
    asking(THERE[0], || {
        let wire = Wire::new();
        let _server = wire.there(|| NameServer::start(&THERE));
        let group = Group::new("asker");
        let mut sleeper = group
            .command("sleep")
            .arg("1000")
            .spawn()
            .expect("it starts");
        let asker = || {
            let words = ["+tries=1", "+time=5", &format!("@{}", THERE[0]), DB];
            let output = group
                .command("dig")
                .args(words)
                .output()
                .expect("it starts");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(asker().contains("status: NOERROR"));
        let arguments = json!({"names": DB, "of": {"pid": sleeper.id()}});
        let fault = Fault::inject("dns-fail", &arguments, "60s");
        assert!(asker().contains("status: SERVFAIL"));
        assert_eq!(
            code(&answer(at(THERE[0], 53), DB, A)),
            0,
            "who is in no group"
        );
        assert_eq!(figure(&fault.end(), "failed-answers"), 1.0);
        assert!(asker().contains("status: NOERROR"));
        sleeper.kill().expect("it is there to be killed");
        sleeper.wait().expect("it was killed");
    });
}

/// As Docker and Kubernetes do it: whoever asks knows another address and port than whoever answers.
#[test]
fn dns_spoof_answers_only_the_record_types_asked_for() {
    asking(THERE[0], || {
        const SERVICE: &str = "10.96.0.10";
        let wire = Wire::new();
        let _server = wire.there(|| NameServer::start(&THERE));
        let _embedded = NameServer::at_port(&["127.0.0.11"], 4053);
        ip(&["route", "add", SERVICE, "via", THERE[0]]);
        let rules = format!(
            "table ip nat {{
                chain out {{
                    type nat hook output priority -100
                    ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:4053
                    ip daddr {SERVICE} udp dport 53 dnat to {}:53
                }}
                chain post {{
                    type nat hook postrouting priority 100
                    ip saddr 127.0.0.11 udp sport 4053 snat to 127.0.0.11:53
                }}
            }}",
            THERE[0]
        );
        let status = Command::new("nft").arg(rules).status();
        assert!(status.is_ok_and(|status| status.success()));
        for server in ["127.0.0.11", SERVICE] {
            let arguments = json!({"names": "db.example.org", "server": server});
            let whole = answer(at(server, 53), DB, A);
            assert_eq!(code(&whole), 0);
            let fault = Fault::inject("dns-fail", &arguments, "60s");
            assert_eq!(code(&answer(at(server, 53), DB, A)), 2);
            // Not by its other name.
            assert_eq!(code(&answer(at(THERE[0], 53), DB, A)), 0);
            assert_eq!(figure(&fault.end(), "failed-answers"), 1.0);
            assert_eq!(answer(at(server, 53), DB, A), whole);
        }
    });
}

#[test]
fn dns_fail_hits_its_share_as_the_kernel_counts() {
    asking(THERE[0], || {
        const ASKED: u64 = 400;
        let _server = NameServer::start(&["127.0.0.1", "::1"]);
        // Somebody else's marks, on some answers.
        for rules in [
            "table inet marks { chain before { type filter hook input priority 0; meta nfproto ipv6 udp sport 53 meta mark set 0x1234; }; }",
            "table inet counts { chain after { type filter hook input priority 200; udp sport 53 meta mark 0x1234 counter; udp sport 53 meta mark 0 counter; }; }",
        ] {
            let status = Command::new("nft").arg(rules).status();
            assert!(status.is_ok_and(|status| status.success()));
        }
        let arguments =
            json!({"names": "db.example.org", "percent": 30, "server": ["127.0.0.0/8", "::1"]});
        let fault = Fault::inject("dns-fail", &arguments, "60s");
        let mut failed = 0;
        for number in 0..ASKED {
            let server = if number % 4 == 0 { "::1" } else { "127.0.0.1" };
            failed += u64::from(code(&answer(at(server, 53), DB, A)) == 2);
        }
        let effect = fault.end();
        println!("{failed} of {ASKED} failed at 30 %");
        // All but one of a thousand times.
        let wide = 3.29 * (ASKED as f64 * 0.3 * 0.7).sqrt() + 0.5;
        assert!(
            (failed as f64 - ASKED as f64 * 0.3).abs() <= wide,
            "{failed}"
        );
        assert_eq!(figure(&effect, "failed-answers"), failed as f64);
        assert_eq!(figure(&effect, "answer-packets"), ASKED as f64);
        // Every packet has its own mark again.
        let counted = ruleset();
        for (mark, packets) in [("0x00001234", ASKED / 4), ("0x00000000", ASKED * 3 / 4)] {
            let line = format!("meta mark {mark} counter packets {packets} ");
            assert!(counted.contains(&line), "no {line} in {counted}");
        }
    });
}
