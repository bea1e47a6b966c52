//! Files that run on a fleet without being kept, and what Ctrl-C does to whoever watches a run.

use backburn_tests::fleet::{Fleet, Given, LONG, PROGRAMS, Said, pause, said};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A command to the controller from somebody whose own host must stay as it is; its state folder is `state`.
fn command(fleet: &Fleet, words: &[&str]) -> Command {
    let mut command = fleet.command(words);
    command.env("BACKBURN_STATE", fleet.folder().join("state"));
    command
}

fn says(fleet: &Fleet, words: &[&str]) -> Said {
    said(&mut command(fleet, words))
}

fn hash(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output();
    let text = String::from_utf8(output.expect("it starts").stdout).expect("text");
    text.split_whitespace().next().expect("a hash").to_owned()
}

/// Waits until a command says these words on standard error; whatever else it says then is for the taking.
fn until_said(child: &mut Child, words: &str) -> impl FnOnce() -> String + use<> {
    let stderr = child.stderr.take().expect("it is piped");
    let mut lines = BufReader::new(stderr);
    let mut so_far = String::new();
    while !so_far.contains(words) {
        let read = lines.read_line(&mut so_far).expect("it is text");
        assert!(read > 0, "it never said `{words}`: {so_far}");
    }
    move || {
        lines.read_to_string(&mut so_far).expect("it is text");
        so_far
    }
}

fn interrupt(child: &Child) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it is there");
}

#[test]
fn run_of_a_file_with_a_controller_named_acts_on_the_fleet_only() {
    let programs = [&PROGRAMS[..], &["sha256sum"]].concat();
    in_network_namespace(&programs, || {
        let agents: [(&str, &[&str]); 2] = [("a", &["role=a"]), ("pay", &["role=pay"])];
        let policy =
            json!({"rules": [{"name": "two of us", "labels": {"role": "pay"}, "approval": true}]});
        let given = Given {
            policy: Some(policy),
            ..Given::default()
        };
        let fleet = Fleet::new(&agents, given);
        let victim = fleet.host("a").victim();
        let file = |name: &str, document: &Value| fleet.file(name, document).display().to_string();
        let long = file("long", &pause("a", "10m"));

        // Planned there, and not here.
        let planned = says(&fleet, &["plan", &long]);
        assert_eq!(planned.code, 0, "{planned:?}");
        assert!(planned.out.contains("on a, seed"), "{planned:?}");
        let viewer = fleet.token("eve", "viewer");
        for words in [["plan", &long], ["run", &long]] {
            let refused = fleet.says_as(&viewer, &words);
            assert_eq!(refused.code, 3, "{refused:?}");
            assert!(refused.err.contains("operator"), "{refused:?}");
        }

        // Run there, by the controller of the environment and by one that is named.
        let begun = says(&fleet, &["run", &long]);
        assert_eq!(begun.code, 0, "{begun:?}");
        let run = begun.out.trim().to_owned();
        victim.until_paused();
        let shown = fleet.shown(&run);
        assert!(shown["experiment"].is_null(), "{shown:#}");
        let kept = says(&fleet, &["experiments"]);
        assert_eq!(
            (kept.out.as_str(), kept.err.as_str()),
            ("", "no experiments are stored\n")
        );
        let events = fleet.ask(&format!("GET /api/v1/runs/{run}/events")).json();
        let hash = hash(Path::new(&long));
        assert_eq!(events[0]["entry"]["sha256"], hash.as_str(), "{events:#}");
        let audit = says(&fleet, &["audit"]).out;
        assert!(audit.contains(&hash), "{audit}");
        assert!(
            !fleet.folder().join("state").exists(),
            "nothing was done here"
        );
        assert_eq!(fleet.says(&["stop", &run]).code, 0);
        assert_eq!(fleet.until_over(&run).code, 4);
        victim.until_free();
        let brief = file("brief", &pause("a", "100ms"));
        let ran = said(
            command(
                &fleet,
                &[
                    "run",
                    &brief,
                    "--wait",
                    "--json",
                    "--controller",
                    "10.8.0.254:7420",
                ],
            )
            .env_remove("BACKBURN_CONTROLLER"),
        );
        assert_eq!(ran.code, 0, "{ran:?}");

        // What needs a second person can only wait where it is kept.
        let pay = file("pay", &pause("pay", "100ms"));
        let refused = says(&fleet, &["run", &pay]);
        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(
            refused.err.contains("`backburn apply FILE`") && refused.err.contains("`two of us`"),
            "{refused:?}"
        );

        // Nothing of the controller's own.
        let mut reads = pause("a", "100ms");
        reads["configuration"] = json!({
            "home": {"type": "env", "key": "HOME", "default": "x"},
            "plain": 1,
        });
        reads["secrets"] = json!({"s": {"t": {"type": "file", "path": "/etc/hostname"}}});
        let reading = file("reads", &reads);
        for verb in ["plan", "run"] {
            let refused = says(&fleet, &[verb, &reading]);
            assert_eq!(refused.code, 2, "{refused:?}");
            for place in ["$.configuration.home", "$.secrets.s.t"] {
                assert!(refused.err.contains(place), "{place}: {refused:?}");
            }
            let refused = says(
                &fleet,
                &[verb, &brief, "--var", r#"x={"type":"env","key":"HOME"}"#],
            );
            assert_eq!(refused.code, 2, "{refused:?}");
        }
        let mut handed = reads;
        handed.as_object_mut().expect("an object").remove("secrets");
        let handed = file("handed", &handed);
        let planned = says(&fleet, &["plan", &handed, "--var", "home=/here"]);
        assert_eq!(planned.code, 0, "{planned:?}");

        // Here only where that is said.
        let acts = json!({"title": "t", "description": "d", "method": [{
            "type": "action", "name": "touch",
            "provider": {"type": "process", "path": "touch", "arguments": [fleet.folder().join("here")]}}]});
        let acts = file("acts", &acts);
        let refused = says(&fleet, &["run", &acts]);
        assert_eq!(
            refused.code, 2,
            "programs of the controller's host: {refused:?}"
        );
        assert!(!fleet.folder().join("here").exists());
        let ran = says(&fleet, &["run", &acts, "--local"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(fleet.folder().join("here").exists() && fleet.folder().join("state").exists());
        let planned = says(&fleet, &["plan", &acts, "--local"]);
        assert_eq!(planned.code, 0, "{planned:?}");
    });
}

#[test]
fn interrupt_detaches_a_follower_and_ends_a_waited_run() {
    in_network_namespace(&PROGRAMS, || {
        let fleet = Fleet::new(&[("a", &["role=a"])], Given::default());
        let victim = fleet.host("a").victim();
        let run = fleet.begin("long", &pause("a", "10m"));
        victim.until_paused();
        let mut following = fleet
            .command(&["runs", &run, "--follow"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let rest = until_said(&mut following, "effect observed");
        interrupt(&following);
        let code = following.wait().expect("it ends").code();
        let heard = rest();
        assert_eq!(code, Some(130), "{heard}");
        assert!(heard.contains(&format!("`backburn stop {run}`")), "{heard}");
        assert!(victim.is_paused());
        assert!(fleet.shown(&run)["ended"].is_null());
        assert_eq!(fleet.says(&["stop", &run]).code, 0);
        assert_eq!(fleet.until_over(&run).code, 4);
        victim.until_free();
        fleet.until_connected();

        let mut waiting = fleet
            .command(&["run", "long", "--wait"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let rest = until_said(&mut waiting, "Ctrl-C stops it");
        wait_within("the victim is paused", LONG, || victim.is_paused());
        interrupt(&waiting);
        let code = waiting.wait().expect("it ends").code();
        assert_eq!(code, Some(4), "{}", rest());
        victim.until_free();
    });
}
