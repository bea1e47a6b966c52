//! Restarting and switching off a host, in a small virtual machine with a disk that stays. The body of this test runs in that machine
//! and nowhere else; each of its boots goes on where the one before went down.

use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Cause, Command as Say, EndedInjection, Hello, Report};
use backburn_tests::crash::Place;
use backburn_tests::machine::{DISK, in_restarting_virtual_machine};
use backburn_tests::processes::{kill_at_once, of_backburn};
use backburn_tests::served::Served;
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

const ALLOWED: &str = r#"{"allow-host-faults": ["host-reboot", "host-shutdown"]}"#;
/// Longer than any boot of the test.
const LEASE: HumanDuration = HumanDuration::seconds(300);
/// Long enough for an emulated machine on a busy one.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent of this machine, as its controller has it.
struct Agent {
    served: Served,
    place: Place,
}

impl Agent {
    fn start(policy: &str) -> (Self, Hello) {
        let place = Place::staying(Path::new(DISK));
        let policy: Value = serde_json::from_str(policy).expect("JSON");
        let (mut served, hello) = Served::start(&place, &policy);
        served.beats(LEASE);
        (Agent { served, place }, hello)
    }

    fn policy_file(&self) -> PathBuf {
        self.place.state().with_extension("policy")
    }

    /// Asks for an injection; the answer, and the ends that were told before it.
    fn injects(&mut self, id: &str, fault: &str, arguments: &Value, lasts: Option<&str>) -> Report {
        let request = json!({"id": id, "run": "by-hand", "fault": fault, "duration": lasts, "seed": 1, "arguments": arguments});
        self.served.says(&Say::Inject {
            request: 7,
            injection: serde_json::from_value(request).expect("a request"),
        });
        loop {
            let heard = self.served.hears();
            if matches!(heard, Report::Injected { .. } | Report::Refused { .. }) {
                return heard;
            }
        }
    }

    #[track_caller]
    fn acts(&mut self, id: &str, fault: &str, arguments: &Value, lasts: Option<&str>) {
        let answer = self.injects(id, fault, arguments, lasts);
        assert!(matches!(answer, Report::Injected { .. }), "{answer:?}");
    }

    #[track_caller]
    fn is_refused(
        &mut self,
        fault: &str,
        arguments: &Value,
        lasts: Option<&str>,
    ) -> (String, String) {
        match self.injects("refused", fault, arguments, lasts) {
            Report::Refused { refusal, .. } => (refusal.rule.clone(), refusal.to_string()),
            answer => panic!("it is not refused: {answer:?}"),
        }
    }

    /// The next end that is told, which is of this injection.
    #[track_caller]
    fn ended(&mut self, id: &str) -> EndedInjection {
        loop {
            if let Report::Ended(ended) = self.served.hears() {
                assert_eq!(ended.injection, id);
                assert!(ended.clean, "{ended:?}");
                return ended;
            }
        }
    }

    fn pauses(&mut self, victim: &Child) {
        let arguments = json!({"process": {"pid": victim.id()}});
        self.acts("pause", "process-pause", &arguments, Some("250s"));
    }
}

fn victim() -> Child {
    Command::new("sleep").arg("600").spawn().expect("it starts")
}

fn boot() -> String {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(path).expect("a kernel has it");
    id.trim().to_owned()
}

/// The command line of a process, word by word.
fn words(pid: i32) -> Vec<String> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split('\0').map(str::to_owned).collect()
}

/// The machine goes down, or the test fails.
fn goes_down(agent: &mut Agent) -> ! {
    loop {
        // Nothing of what happened can be asked once the machine is down, so it is told before.
        println!("{:?}", agent.served.hears());
    }
}

/// What the agent finds of an injection of the boot before.
fn found_of(hello: &Hello, id: &str) {
    let before = std::fs::read_to_string(format!("{DISK}/boot")).expect("it was written");
    assert_eq!(hello.boot.as_deref(), Some(boot().as_str()));
    assert!(hello.owed.is_empty() && hello.held.is_empty(), "{hello:?}");
    let [ended] = &hello.recovered[..] else {
        panic!("{:?}", hello.recovered)
    };
    assert_eq!(
        (ended.injection.as_str(), ended.cause, ended.clean),
        (id, Cause::Finished, true)
    );
    let effect = ended.effect.as_ref().expect("it says what it came to");
    assert!(
        effect.acts && effect.seen.contains(&boot()) && effect.seen.contains(&before),
        "{effect:?}"
    );
}

fn keep_boot() {
    std::fs::write(format!("{DISK}/boot"), boot()).expect("the disk can be written");
}

/// Refusals, what calls it off, and a restart.
fn first_boot() {
    let (mut agent, _) = Agent::start("{}");
    for fault in ["host-reboot", "host-shutdown"] {
        let (rule, text) = agent.is_refused(fault, &json!({}), None);
        assert_eq!(rule, "policy");
        assert!(
            text.contains(&format!(r#""allow-host-faults": ["{fault}"]"#)),
            "{text}"
        );
    }
    drop(agent);

    let (mut agent, _) = Agent::start(ALLOWED);
    let (rule, text) = agent.is_refused("host-reboot", &json!({"after": "2m"}), None);
    assert!(
        rule == "arguments" && text.contains("from 100ms to 1m"),
        "{text}"
    );
    let mut paused = victim();
    agent.pauses(&paused);
    agent.acts("off-called", "host-reboot", &json!({"after": "60s"}), None);
    agent.ended("pause");
    let arguments = json!({"process": {"pid": paused.id()}});
    let (rule, text) = agent.is_refused("process-pause", &arguments, Some("9s"));
    assert!(rule == "overlap" && text.contains("off-called"), "{text}");
    agent.served.says(&Say::Revert {
        injection: "off-called".into(),
    });
    agent.ended("off-called");

    // The policy is asked again at the last moment.
    agent.acts("revoked", "host-reboot", &json!({"after": "1s"}), None);
    std::fs::write(agent.policy_file(), "{}").expect("the policy can be written");
    let effect = agent
        .ended("revoked")
        .effect
        .expect("it says what it came to");
    assert!(
        !effect.acts && effect.seen.contains("no longer allows"),
        "{effect:?}"
    );
    std::fs::write(agent.policy_file(), ALLOWED).expect("the policy can be written");

    keep_boot();
    agent.pauses(&paused);
    agent.acts("reboot", "host-reboot", &json!({"after": "500ms"}), None);
    agent.ended("pause");
    paused.kill().expect("it is there");
    paused.wait().expect("it was killed");
    goes_down(&mut agent);
}

/// The restart is seen; whoever of ours dies before the deed, it is not done; then the machine is switched off.
fn second_boot() {
    let (agent, hello) = Agent::start(ALLOWED);
    found_of(&hello, "reboot");
    drop(agent);
    for strike in ["worker", "serve", "helper", "all", "stopped"] {
        let (mut agent, hello) = Agent::start(ALLOWED);
        assert!(hello.owed.is_empty(), "{hello:?}");
        agent.acts("struck", "host-reboot", &json!({"after": "1s"}), None);
        let subcommand = if strike == "stopped" {
            "helper"
        } else {
            strike
        };
        let struck: Vec<i32> = (of_backburn().iter())
            .map(|process| process.pid)
            .filter(|pid| strike == "all" || words(*pid).iter().any(|word| word == subcommand))
            .collect();
        assert!(!struck.is_empty(), "{strike}");
        if strike == "stopped" {
            for pid in struck {
                let stop = nix::sys::signal::Signal::SIGSTOP;
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), stop).expect("it is there");
            }
            agent.ended("struck");
        } else {
            kill_at_once(&struck);
        }
        drop(agent);
        // Well beyond the time at which it would have gone down.
        std::thread::sleep(Duration::from_millis(1500));
        let (agent, hello) = Agent::start(ALLOWED);
        assert!(
            hello.owed.is_empty() && hello.held.is_empty(),
            "{strike}: {hello:?}"
        );
        assert!(agent.place.ledger().is_empty(), "{strike}");
        drop(agent);
        wait_within("nobody of ours is left", PATIENCE, || {
            of_backburn().is_empty()
        });
    }
    keep_boot();
    let (mut agent, _) = Agent::start(ALLOWED);
    agent.acts("off", "host-shutdown", &json!({"after": "500ms"}), None);
    goes_down(&mut agent);
}

#[test]
fn host_that_is_restarted_or_switched_off_is_evidence_in_its_next_boot() {
    let said = in_restarting_virtual_machine(&["sleep"], || {
        let count = PathBuf::from(format!("{DISK}/boots"));
        let boots = std::fs::read_to_string(&count).map_or(0, |text| text.len());
        std::fs::write(&count, "x".repeat(boots + 1)).expect("the disk can be written");
        match boots {
            0 => first_boot(),
            1 => second_boot(),
            2 => {
                let (_agent, hello) = Agent::start(ALLOWED);
                found_of(&hello, "off");
            }
            more => panic!("boot {more}"),
        }
    });
    let Some(said) = said else { return };
    // What the kernel says last: once for the deed, once for the end of the test.
    assert_eq!(said.matches("Restarting system").count(), 2, "{said}");
    assert_eq!(said.matches("Power down").count(), 1, "{said}");
}
