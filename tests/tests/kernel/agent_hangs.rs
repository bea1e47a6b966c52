//! What hangs harms nobody: paths that do not answer, a name server that is silent, a ledger that somebody keeps locked, and
//! processes of our own that are stopped. Every end comes all the same.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use backburn_experiments::HumanDuration;
use backburn_experiments::document::{HostMetric, HostProvider};
use backburn_experiments::wire::{
    Cause, Command as Say, EndedInjection, InjectionRequest, Refusal, Report,
};
use backburn_tests::crash::Place;
use backburn_tests::hung_files::HungFiles;
use backburn_tests::isolated::{in_namespaces, in_network_namespace};
use backburn_tests::processes;
use backburn_tests::served::Served;
use backburn_tests::wait::wait_until;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

const PROGRAMS: [&str; 3] = ["python3", "sleep", "unshare"];

/// A process to be paused; killed at the end.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let child = Command::new("sleep").arg("1000").spawn();
        Sleeper(child.expect("`sleep` starts"))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    fn wait_until_held(&self, held: bool) {
        wait_until(if held { "it is held" } else { "it runs on" }, || {
            let process = processes::process(self.pid()).expect("it is there");
            matches!(process.state, 'T' | 't') == held
        });
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn request(
    id: &str,
    fault: &str,
    duration: Option<HumanDuration>,
    arguments: &Value,
) -> InjectionRequest {
    serde_json::from_value(json!({
        "id": id, "run": "run", "fault": fault, "arguments": arguments, "seed": 1,
        "duration": duration,
    }))
    .expect("a request")
}

fn pause(id: &str, victim: &Sleeper, duration: HumanDuration) -> Say {
    let arguments = json!({"process": {"pid": victim.pid()}});
    Say::Inject {
        request: 1,
        injection: request(id, "process-pause", Some(duration), &arguments),
    }
}

/// The next report that `wanted` takes; others are left out, but a refusal of what was asked first fails the test.
fn hear<T>(served: &mut Served, wanted: impl Fn(&Report) -> Option<T>) -> T {
    loop {
        let report = served.hears();
        if let Some(found) = wanted(&report) {
            return found;
        }
        assert!(
            !matches!(&report, Report::Refused { request: 1, .. }),
            "{report:?}"
        );
    }
}

fn injected(report: &Report) -> Option<()> {
    matches!(report, Report::Injected { .. }).then_some(())
}

fn ended(report: &Report) -> Option<EndedInjection> {
    match report {
        Report::Ended(ended) => Some(ended.clone()),
        _ => None,
    }
}

/// An agent that has paused the victim as injection `one`, and whose lease is a minute.
fn pausing(place: &Place, victim: &Sleeper, duration: HumanDuration) -> Served {
    let (mut served, _) = Served::start(place, &json!({}));
    served.beats(HumanDuration::seconds(60));
    served.says(&pause("one", victim, duration));
    hear(&mut served, injected);
    served
}

fn refused(number: u64) -> impl Fn(&Report) -> Option<Refusal> {
    move |report| match report {
        Report::Refused { request, refusal } if *request == number => Some(refusal.clone()),
        _ => None,
    }
}

/// The worker of an agent, whose guardian is known.
fn worker_of(served: &Served) -> i32 {
    let guardian = served.agent.id() as i32;
    let all = processes::of_backburn();
    let worker = all.iter().find(|process| process.parent == guardian);
    worker.expect("it has a worker").pid
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it is there");
}

#[test]
fn plan_of_a_path_that_is_no_file_is_refused() {
    in_namespaces(&PROGRAMS, || {
        let place = Place::default();
        let (mut served, _) = Served::start(&place, &json!({}));
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
        std::os::unix::fs::symlink("fifo", path("to-fifo")).unwrap();
        std::fs::write(path("empty"), "").unwrap();
        let huge = std::fs::File::create(path("huge")).unwrap();
        huge.set_len(1 << 40).unwrap();
        let odd = [
            path("fifo"),
            path("to-fifo"),
            path("dangling"),
            path("huge"),
            path("empty"),
            folder.path().to_owned(),
            "/dev/zero".into(),
            "/dev/tty".into(),
            "/proc/kmsg".into(),
        ];
        let asked = |path: &Path| {
            vec![
                ("process-pause", json!({"process": {"pid-file": path}})),
                (
                    "process-pause",
                    json!({"process": {"name": "sleep", "except": {"pid-file": path}}}),
                ),
                ("network-loss", json!({"namespace": path, "percent": 10})),
            ]
        };
        let mut number = 100;
        for (fault, arguments) in odd.iter().flat_map(|path| asked(path)) {
            number += 1;
            let wanted = request("odd", fault, Some(HumanDuration::seconds(1)), &arguments);
            served.beats(HumanDuration::seconds(60));
            served.says(&Say::Plan {
                request: number,
                injection: wanted,
            });
            let refusal = hear(&mut served, refused(number));
            assert!(
                !refusal.to_string().contains("hung"),
                "{arguments}: it was opened and waited for: {refusal}"
            );
        }
    });
}

#[test]
fn fault_beside_hung_lookups_ends_in_time() {
    in_namespaces(&PROGRAMS, || {
        let (place, files) = (Place::default(), HungFiles::new());
        let victims = [Sleeper::start(), Sleeper::start()];
        let mut served = pausing(&place, &victims[0], HumanDuration::millis(1500));
        // Each of these waits for a file system that does not answer.
        let (pid_file, folder) = (files.path("pid"), files.path("folder"));
        let hung = [
            ("process-pause", json!({"process": {"pid-file": pid_file}})),
            ("disk-fill", json!({"path": folder})),
            (
                "network-loss",
                json!({"namespace": files.path("net"), "percent": 10}),
            ),
            ("process-pause", json!({"process": {"pid-file": pid_file}})),
        ];
        for (number, (fault, arguments)) in (10..).zip(&hung) {
            let id = format!("hung-{number}");
            let injection = request(&id, fault, Some(HumanDuration::seconds(1)), arguments);
            served.says(&match number {
                13 => Say::Inject {
                    request: number,
                    injection,
                },
                _ => Say::Plan {
                    request: number,
                    injection,
                },
            });
        }
        served.says(&Say::Measure {
            request: 20,
            metric: HostProvider {
                metric: HostMetric::DiskFreePercent,
                path: Some(folder.display().to_string()),
            },
        });
        // In this order: nothing of what hangs was waited for.
        let first = hear(&mut served, |report| match report {
            Report::Refused { request, .. } => Some(format!("refused {request}")),
            Report::Measured { request, .. } => Some(format!("measured {request}")),
            Report::Ended(ended) => Some(format!("ended {} {:?}", ended.injection, ended.cause)),
            _ => None,
        });
        assert_eq!(first, "ended one Finished");
        victims[0].wait_until_held(false);
        // Nor does another one's beginning or end wait, and what was not planned yet is called off.
        served.says(&pause("two", &victims[1], HumanDuration::seconds(600)));
        hear(&mut served, injected);
        served.says(&Say::RevertAll {
            request: 30,
            run: None,
        });
        let called_off = hear(&mut served, refused(13));
        assert!(called_off.what.contains("cancelled"), "{called_off}");
        assert_eq!(hear(&mut served, ended).cause, Cause::ControllerRequest);
        let owed = hear(&mut served, |report| match report {
            Report::AllReverted { owed, .. } => Some(owed.clone()),
            _ => None,
        });
        assert_eq!(owed, []);
        // Those that hang are given up in their own time.
        let mut given_up = Vec::new();
        while given_up.len() < 4 {
            served.beats(HumanDuration::seconds(60));
            match served.hears() {
                Report::Refused { request, refusal } => {
                    assert!(refusal.to_string().contains("hung"), "{refusal}");
                    given_up.push(request);
                }
                Report::Measured { request, value } => {
                    assert!(value.is_err_and(|why| why.contains("hung")));
                    given_up.push(request);
                }
                _ => {}
            }
        }
        given_up.sort_unstable();
        assert_eq!(given_up, [10, 11, 12, 20]);
        drop(files);
    });
}

#[test]
fn abort_rule_on_a_hung_path_does_not_delay_other_rules() {
    in_namespaces(&PROGRAMS, || {
        let (place, files) = (Place::default(), HungFiles::new());
        let victim = Sleeper::start();
        let (mut served, _) = Served::start(&place, &json!({}));
        let rules = json!([
            {"name": "disk", "every": "100ms", "failures": 1,
             "host": {"metric": "disk-free-percent", "path": files.path("folder"), "below": 100}},
            {"name": "busy", "every": "100ms", "failures": 3, "host": {"metric": "processes", "above": 0}},
        ]);
        served.beats(HumanDuration::seconds(60));
        served.says(&Say::Watch {
            run: "run".into(),
            rules: serde_json::from_value(rules).expect("rules"),
        });
        served.says(&pause("one", &victim, HumanDuration::seconds(600)));
        let rule = hear(&mut served, |report| match report {
            Report::AbortRuleTriggered { rule, .. } => Some(rule.clone()),
            _ => None,
        });
        assert_eq!(rule, "busy");
        assert_eq!(hear(&mut served, ended).cause, Cause::AbortRule);
        victim.wait_until_held(false);
        drop(files);
    });
}

#[test]
fn fault_while_a_name_server_is_silent_ends_in_time() {
    in_network_namespace(&PROGRAMS, || {
        let place = Place::default();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
        let bound = Command::new("mount")
            .arg("--bind")
            .arg(&file)
            .arg("/etc/resolv.conf")
            .status();
        assert!(bound.expect("`mount` starts").success());
        // It takes every question and answers none.
        let _silent = std::net::UdpSocket::bind("127.0.0.1:53").expect("nobody else is here");
        let victim = Sleeper::start();
        let mut served = pausing(&place, &victim, HumanDuration::millis(1500));
        for number in 10..14 {
            let arguments = json!({"to": "nobody.example.org", "percent": 10});
            let id = format!("named-{number}");
            served.says(&Say::Plan {
                request: number,
                injection: request(
                    &id,
                    "network-loss",
                    Some(HumanDuration::seconds(1)),
                    &arguments,
                ),
            });
        }
        let first = hear(&mut served, |report| match report {
            Report::Refused { request, .. } => Some(format!("refused {request}")),
            Report::Ended(ended) => Some(format!("ended {}", ended.injection)),
            _ => None,
        });
        assert_eq!(first, "ended one");
        victim.wait_until_held(false);
        for _ in 0..4 {
            served.beats(HumanDuration::seconds(60));
            hear(&mut served, |report| {
                matches!(report, Report::Refused { .. }).then_some(())
            });
        }
    });
}

#[test]
fn reverts_with_a_locked_ledger_do_not_wait() {
    in_namespaces(&PROGRAMS, || {
        let place = Place::default();
        let victims: Vec<Sleeper> = (0..4).map(|_| Sleeper::start()).collect();
        let (mut served, _) = Served::start(&place, &json!({}));
        served.beats(HumanDuration::seconds(60));
        for (number, victim) in victims.iter().enumerate() {
            served.says(&pause(
                &format!("pause-{number}"),
                victim,
                HumanDuration::seconds(600),
            ));
            hear(&mut served, injected);
        }
        let lock = place.state().join("ledger/lock");
        let lock = std::fs::File::options().write(true).open(lock).unwrap();
        let lock = Flock::lock(lock, FlockArg::LockExclusive).expect("it is free");
        served.says(&Say::RevertAll {
            request: 2,
            run: None,
        });
        for _ in &victims {
            let ended = hear(&mut served, ended);
            assert!(ended.clean, "{ended:?}");
            // The lock would have been waited for 5 s by each.
            assert!(ended.took < HumanDuration::seconds(4), "{ended:?}");
        }
        drop(lock);
        assert_eq!(place.ledger(), Vec::<String>::new());
    });
}

#[test]
fn stopped_worker_is_ended_by_its_guardian() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Sleeper::start());
        let mut served = pausing(&place, &victim, HumanDuration::seconds(600));
        send(worker_of(&served), Signal::SIGSTOP);
        let ended = hear(&mut served, ended);
        assert_eq!(
            (ended.cause, ended.clean),
            (Cause::AgentDied, true),
            "{ended:?}"
        );
        victim.wait_until_held(false);
        assert_eq!(served.agent.wait().expect("it ends").code(), Some(0));
        assert_eq!(place.ledger(), Vec::<String>::new());
        wait_until("nobody is left", || processes::of_backburn().is_empty());
    });
}

#[test]
fn stopped_worker_at_rest_is_left_alone_and_ended_on_request() {
    in_namespaces(&PROGRAMS, || {
        let place = Place::default();
        let (mut served, _) = Served::start(&place, &json!({}));
        send(worker_of(&served), Signal::SIGSTOP);
        // Nothing is owed, so nobody looks: at rest nobody wakes.
        std::thread::sleep(Duration::from_secs(3));
        assert!(served.agent.try_wait().expect("it can be asked").is_none());
        send(served.agent.id() as i32, Signal::SIGTERM);
        served.agent.wait().expect("it ends");
        wait_until("nobody is left", || processes::of_backburn().is_empty());
    });
}

#[test]
fn stopped_guardian_is_ended_by_the_worker() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Sleeper::start());
        let mut served = pausing(&place, &victim, HumanDuration::seconds(600));
        send(served.agent.id() as i32, Signal::SIGSTOP);
        let ended = hear(&mut served, ended);
        assert_eq!(
            (ended.cause, ended.clean),
            (Cause::AgentDied, true),
            "{ended:?}"
        );
        victim.wait_until_held(false);
        wait_until("nobody is left", || processes::of_backburn().is_empty());
        assert_eq!(place.ledger(), Vec::<String>::new());
    });
}

#[test]
fn status_of_a_stopped_agent_says_so() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Sleeper::start());
        let mut served = pausing(&place, &victim, HumanDuration::seconds(3));
        let both = [served.agent.id() as i32, worker_of(&served)];
        let status = || {
            let mut status = place.agent(&["status", "--json"], None);
            let output = status.stdout(std::process::Stdio::piped()).output();
            let output = output.expect("the agent starts");
            let said: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
            (said["owed"][0].clone(), output.status.code())
        };
        let (row, code) = status();
        assert_eq!(
            (row["agent"].as_str(), code),
            (Some("alive"), Some(0)),
            "{row}"
        );
        for pid in both {
            send(pid, Signal::SIGSTOP);
        }
        let (row, code) = status();
        assert_eq!(
            (row["agent"].as_str(), code),
            (Some("stopped"), Some(6)),
            "{row}"
        );
        wait_until("it is overdue", || {
            status().0["overdue-seconds"].is_number()
        });
        for pid in both {
            send(pid, Signal::SIGCONT);
        }
        assert!(hear(&mut served, ended).clean);
    });
}
