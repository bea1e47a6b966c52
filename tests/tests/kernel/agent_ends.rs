//! The five things that hold a fault's end, each without the one before it, and by hand. What
//! dies at each single effect is `crash_conformance`'s; here are those that hang.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAMS: [&str; 2] = ["unshare", "sleep"];

struct Victim(Child);

impl Victim {
    fn start() -> Self {
        Victim(
            Command::new("sleep")
                .arg("1000")
                .spawn()
                .expect("`sleep` starts"),
        )
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn is_held(&self) -> bool {
        processes::process(self.pid() as i32)
            .is_some_and(|process| matches!(process.state, 'T' | 't'))
    }

    fn wait_until_held(&self, held: bool, patience: Duration) -> Duration {
        let started = Instant::now();
        while self.is_held() != held {
            assert!(
                started.elapsed() < patience,
                "after {patience:?}, held is still {}",
                !held
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        started.elapsed()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Pauses the victim from a process of its own, which is returned once the victim stands still.
fn pause(place: &Place, victim: &Victim, duration: &str) -> Child {
    let arguments = json!({"process": {"pid": victim.pid()}}).to_string();
    let words = [
        "inject",
        "process-pause",
        "--id",
        "trial",
        "--duration",
        duration,
        "--arguments",
        &arguments,
    ];
    let mut command = place.agent(&words, None);
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent starts");
    // Held before the agent has said so, it could still be called off.
    let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.starts_with("injected") {
        line.clear();
        let read = said.read_line(&mut line).expect("it speaks");
        assert!(read > 0, "it ended before it injected");
    }
    child.stderr = Some(said.into_inner());
    victim.wait_until_held(true, Duration::from_secs(5));
    child
}

/// The guardian and the worker below a process that injects.
fn agents(inject: &Child) -> (i32, i32) {
    let child_of = |parent: i32| {
        let children = processes::alive()
            .into_values()
            .filter(|process| process.parent == parent);
        children
            .map(|process| process.pid)
            .min()
            .expect("it has a child")
    };
    let guardian = child_of(inject.id() as i32);
    (guardian, child_of(guardian))
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it is there to get a signal");
}

fn nothing_is_owed(place: &Place) {
    let started = Instant::now();
    while !place.ledger().is_empty() {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "owed: {:?}",
            place.ledger()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn fault_whose_duration_is_over_is_reverted_by_the_worker() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        let mut inject = pause(&place, &victim, "300ms");
        assert_eq!(inject.wait().expect("it ends").code(), Some(0));
        assert!(!victim.is_held());
        nothing_is_owed(&place);
    });
}

#[test]
fn fault_of_a_stopped_controller_ends_with_its_lease() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        let mut inject = pause(&place, &victim, "10m");
        send(inject.id() as i32, Signal::SIGSTOP);
        let took = victim.wait_until_held(false, Duration::from_secs(10));
        assert!(
            took > Duration::from_secs(1),
            "the lease is not that short: {took:?}"
        );
        nothing_is_owed(&place);
        send(inject.id() as i32, Signal::SIGCONT);
        assert_eq!(inject.wait().expect("it ends").code(), Some(0));
    });
}

#[test]
fn fault_of_a_killed_controller_ends_with_its_link() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        let mut inject = pause(&place, &victim, "10m");
        inject.kill().expect("it is there to be killed");
        inject.wait().expect("it ends");
        // Far less than the lease.
        victim.wait_until_held(false, Duration::from_secs(2));
        nothing_is_owed(&place);
    });
}

#[test]
fn fault_of_a_killed_worker_is_reverted_by_the_guardian() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        let mut inject = pause(&place, &victim, "10m");
        let (_, worker) = agents(&inject);
        send(worker, Signal::SIGKILL);
        victim.wait_until_held(false, Duration::from_secs(2));
        assert_eq!(
            inject.wait().expect("it ends").code(),
            Some(4),
            "a lost agent is an aborted injection"
        );
        nothing_is_owed(&place);
    });
}

#[test]
fn fault_of_a_killed_guardian_is_reverted_by_the_worker() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        let mut inject = pause(&place, &victim, "10m");
        let (guardian, _) = agents(&inject);
        send(guardian, Signal::SIGKILL);
        victim.wait_until_held(false, Duration::from_secs(2));
        inject.wait().expect("it ends");
        nothing_is_owed(&place);
    });
}

#[test]
fn fault_of_stopped_processes_is_ended_by_the_kernel() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        let mut inject = pause(&place, &victim, "500ms");
        let (guardian, worker) = agents(&inject);
        for pid in [guardian, worker, inject.id() as i32] {
            send(pid, Signal::SIGSTOP);
        }
        // The helper's deadline is 2 s after the duration, and the kernel's own.
        let took = victim.wait_until_held(false, Duration::from_secs(6));
        assert!(
            took > Duration::from_secs(1),
            "nobody was there to end it before: {took:?}"
        );
        assert_eq!(
            place.ledger(),
            ["trial.json"],
            "nobody was there to strike it out"
        );
        for pid in [inject.id() as i32, guardian, worker] {
            send(pid, Signal::SIGCONT);
        }
        assert_eq!(inject.wait().expect("it ends").code(), Some(0));
        nothing_is_owed(&place);
    });
}

#[test]
fn fault_of_processes_killed_at_once_is_ended_by_the_kernel() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        let mut inject = pause(&place, &victim, "10m");
        let (guardian, worker) = agents(&inject);
        processes::kill_at_once(&[inject.id() as i32, guardian, worker]);
        let took = victim.wait_until_held(false, Duration::from_secs(2));
        println!("all three killed: the victim ran on after {took:?}");
        inject.wait().expect("it ends");
        assert_eq!(
            place.ledger(),
            ["trial.json"],
            "nobody was there to strike it out"
        );
        // Five: the next start settles the ledger first.
        assert_eq!(place.restart(None).code(), Some(0));
        nothing_is_owed(&place);
    });
}

#[test]
fn revert_by_hand_beside_a_living_agent_is_clean() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        let mut inject = pause(&place, &victim, "10m");
        let status = place
            .agent(&["status"], None)
            .status()
            .expect("the agent starts");
        assert_eq!(
            status.code(),
            Some(0),
            "what acts is owed, and its agent sees to it"
        );
        assert_eq!(
            place
                .agent(&["revert", "trial"], None)
                .status()
                .expect("the agent starts")
                .code(),
            Some(0)
        );
        victim.wait_until_held(false, Duration::from_millis(500));
        assert_eq!(inject.wait().expect("it ends by itself").code(), Some(0));
        nothing_is_owed(&place);
    });
}

#[test]
fn process_stopped_by_others_stays_stopped_after_a_pause() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        send(victim.pid() as i32, Signal::SIGSTOP);
        victim.wait_until_held(true, Duration::from_secs(1));
        let arguments = json!({"process": {"pid": victim.pid()}}).to_string();
        let words = [
            "inject",
            "process-pause",
            "--duration",
            "100ms",
            "--arguments",
            &arguments,
        ];
        assert_eq!(
            place
                .agent(&words, None)
                .status()
                .expect("the agent starts")
                .code(),
            Some(3)
        );
        assert!(victim.is_held(), "what was stopped stays stopped");
    });
}

#[test]
fn inject_ended_by_a_signal_reverts_first() {
    in_namespaces(&PROGRAMS, || {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let (place, victim) = (Place::default(), Victim::start());
            let mut inject = pause(&place, &victim, "10m");
            send(inject.id() as i32, signal);
            assert_eq!(inject.wait().expect("it ends").code(), Some(0), "{signal}");
            assert!(!victim.is_held());
            nothing_is_owed(&place);
        }
        // And so does one that is meant for the agent itself.
        for of_guardian in [true, false] {
            let (place, victim) = (Place::default(), Victim::start());
            let mut inject = pause(&place, &victim, "10m");
            let (guardian, worker) = agents(&inject);
            send(if of_guardian { guardian } else { worker }, Signal::SIGTERM);
            victim.wait_until_held(false, Duration::from_secs(2));
            inject.wait().expect("it ends");
            nothing_is_owed(&place);
        }
    });
}

#[test]
fn repeated_kill_selects_victims_anew_each_round() {
    in_namespaces(&PROGRAMS, || {
        let place = Place::default();
        // A supervisor in one line: it starts its child again, twenty times at most.
        let supervisor =
            "import subprocess\nfor _ in range(20):\n    subprocess.call(['sleep', '999'])\n";
        let mut python = Command::new("python3")
            .args(["-c", supervisor])
            .spawn()
            .expect("`python3` starts");
        let arguments =
            json!({"process": {"children-of": python.id()}, "expect-restart": {"within": "2s"}})
                .to_string();
        let supervised = |process: &processes::Process| {
            process.parent == python.id() as i32 && process.name == "sleep"
        };
        let started = Instant::now();
        while !processes::alive().values().any(supervised) {
            assert!(started.elapsed() < Duration::from_secs(10), "no child");
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = place
            .agent(
                &[
                    "inject",
                    "process-kill",
                    "--json",
                    "--every",
                    "200ms",
                    "--duration",
                    "1100ms",
                    "--arguments",
                    &arguments,
                ],
                None,
            )
            .stdout(Stdio::piped())
            .output()
            .expect("the agent starts");
        python.kill().expect("the supervisor is there");
        python.wait().expect("it ends");
        let said = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        assert_eq!(output.status.code(), Some(0), "{said}");
        let last: serde_json::Value =
            serde_json::from_str(said.lines().last().expect("it says something"))
                .expect("it is JSON");
        let gone = last["effect"]["figures"]["gone-processes"]
            .as_f64()
            .expect("it counts the dead");
        assert!((4.0..=6.0).contains(&gone), "five rounds of one: {said}");
        nothing_is_owed(&place);
    });
}

#[test]
fn repeated_kill_without_victims_goes_on_with_each_round() {
    in_namespaces(&PROGRAMS, || {
        let place = Place::default();
        let victims = || Command::new("sleep").arg("998").spawn();
        let mut victims: Vec<_> = (0..120)
            .map(|_| victims().expect("`sleep` starts"))
            .collect();
        // More rounds than an agent may have children: only the last one is still awaited.
        let arguments = json!({"process": {"command-line": "^sleep 998$", "select": {"count": 1}},
                               "expect-restart": {"within": "60s"}});
        let arguments = arguments.to_string();
        let words = ["inject", "process-kill", "--json", "--every", "100ms"];
        let more = ["--duration", "10s", "--arguments", &arguments];
        let output = place
            .agent(&[&words[..], &more].concat(), None)
            .stdout(Stdio::piped())
            .output()
            .expect("the agent starts");
        for victim in &mut victims {
            victim.kill().ok();
            victim.wait().expect("it ends");
        }
        let said = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        assert!(!said.contains("most at a time"), "{said}");
        nothing_is_owed(&place);
    });
}
