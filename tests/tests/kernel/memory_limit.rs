//! Filling memory where the agent's control group limits it, as in a container.

use backburn_tests::cgroups::Group;
use backburn_tests::crash::Place;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::programs;
use backburn_tests::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// How long filling may take on a busy machine.
const LONG: Duration = Duration::from_secs(30);

#[test]
fn memory_filled_until_a_level_counts_in_the_limit_of_the_control_group() {
    in_namespaces(&["sh"], || {
        let (group, place) = (Group::of_memory("limited", 512 * MIB), Place::default());
        let agent = programs::backburn_agent();
        let agent = agent.to_str().expect("a path of letters");
        let words = |verb: &str, level: &str| {
            let mut command = group.command(agent);
            command.arg(verb).arg("--state").arg(place.state());
            command.args([
                "memory-fill",
                "--until",
                level,
                "--reserve",
                "64MiB",
                "--json",
            ]);
            command.args(["--duration", "60s"]).stderr(Stdio::null());
            command
        };
        let planned = words("plan", "60%").output().expect("it starts");
        let said = String::from_utf8_lossy(&planned.stdout);
        assert!(said.contains("control group may use 512MiB"), "{said}");

        let mut injecting = words("inject", "60%");
        let mut child = injecting.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut said = Vec::new();
        for line in lines.map_while(Result::ok) {
            let report: Value = serde_json::from_str(&line).unwrap_or_default();
            if report["say"] == "injected" {
                // It goes on filling after that. Room for the agent itself, and pages of files that count only as long as nobody needs them.
                wait_within("the level is reached", LONG, || {
                    let used = group.memory_in_use() / MIB;
                    assert!(used <= 420, "{used} MiB are in use");
                    used >= 230
                });
                // It is known now: the fault need not last.
                kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it is there");
            }
            said.push(line);
        }
        assert_eq!(
            child.wait().expect("it is a child").code(),
            Some(0),
            "{said:#?}"
        );
        assert!(
            said.iter().any(|line| line.contains("\"injected\"")),
            "{said:#?}"
        );
        assert!(place.ledger().is_empty());

        // Much less than the host has, and more than the group may use.
        let refused = words("plan", "2GiB").output().expect("it starts");
        let said = String::from_utf8_lossy(&refused.stdout);
        assert!(said.contains("below the reserve"), "{said}");
    });
}
