//! Wrong input and wrong circumstances, at the agent: a clear error that says which rule and what
//! would do, nothing touched, nothing lost.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::refusals::Refusals;
use backburn_tests::wait::wait_within;
use backburn_tests::{processes, programs};
use serde_json::json;
use std::process::{Child, Command, Output, Stdio};

fn victim() -> Child {
    Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("`sleep` starts")
}

fn end(mut victim: Child) {
    victim.kill().expect("the victim is there");
    victim.wait().expect("it ends");
}

fn run(place: &Place, words: &[&str]) -> Output {
    place
        .agent(words, None)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("the agent starts")
}

#[test]
fn wrong_options_and_arguments_are_refused() {
    let refusals = Refusals::new(|| true);
    let inject = |rest: &[&'static str]| [&["inject"], rest].concat();
    refusals.words(
        &inject(&["process-pauze"]),
        2,
        &["process-pauze", "process-pause"],
    );
    refusals.words(
        &inject(&["process-pause", "--process-name", "x"]),
        2,
        &["duration", "hint"],
    );
    refusals.words(
        &inject(&["process-kill", "--process-name", "x", "--duration", "1s"]),
        2,
        &["one-shot", "every"],
    );
    refusals.words(
        &inject(&["process-pause", "--duration", "soon"]),
        2,
        &["soon", "1m30s"],
    );
    refusals.words(&inject(&["process-pause", "--duration", "-1s"]), 2, &[]);
    refusals.words(
        &inject(&["process-pause", "--duration", "1s"]),
        2,
        &["`process` is missing"],
    );
    refusals.words(
        &inject(&["process-pause", "--duration", "1s", "--arguments", "{"]),
        2,
        &["--arguments"],
    );
    refusals.words(
        &inject(&["process-pause", "--duration", "1s", "--arguments", "[]"]),
        2,
        &["an object"],
    );
    let unknown = r#"{"process": {"nmae": "x"}, "foo": 1}"#;
    refusals.words(
        &[
            "inject",
            "process-pause",
            "--duration",
            "1s",
            "--arguments",
            unknown,
        ],
        2,
        &["$.process.nmae", "`name`", "$.foo"],
    );
    refusals.words(
        &inject(&["process-kill", "--process-name", "x", "--signal", "STOP"]),
        2,
        &["$.signal"],
    );
    refusals.words(
        &inject(&["process-kill", "--process-command-line", "("]),
        2,
        &["$.process.command-line"],
    );
    refusals.words(
        &inject(&["cpu-stress", "--duration", "1s", "--load-percent", "200"]),
        2,
        &["$.load-percent", "100"],
    );
    refusals.words(
        &inject(&["cpu-stress", "--duration", "1s", "--cpus", "4096"]),
        3,
        &["no processor 4096", "hint"],
    );
    refusals.words(
        &inject(&["memory-fill", "--duration", "1s"]),
        2,
        &["size", "percent"],
    );
    refusals.words(
        &inject(&["memory-fill", "--duration", "1s", "--size", "many"]),
        2,
        &["$.size"],
    );
    refusals.words(
        &inject(&["disk-fill", "--duration", "1s", "--path", "/nowhere"]),
        3,
        &["/nowhere", "hint"],
    );
    refusals.words(
        &inject(&["disk-fill", "--duration", "1s", "--path", "here"]),
        3,
        &["absolute"],
    );
    refusals.words(
        &["revert", "nothing"],
        3,
        &["no injection `nothing` is owed"],
    );
    refusals.words(&["faults", "cpu-stres"], 2, &["cpu-stress"]);
}

#[test]
fn missing_or_protected_victims_are_refused() {
    let refusals = Refusals::new(|| true);
    let kill = |rest: &[&'static str]| [&["inject", "process-kill"], rest].concat();
    refusals.words(
        &kill(&["--process-name", "no-such-process"]),
        3,
        &["no-match", "no-such-process"],
    );
    refusals.words(&kill(&["--process-pid", "1"]), 3, &["protected"]);
    refusals.words(&kill(&["--process-pid", "2"]), 3, &["rule"]);
    // Whoever started us is spared, as whom a fault is made for is.
    let parent = std::os::unix::process::parent_id().to_string();
    refusals.words(
        &["inject", "process-kill", "--process-pid", &parent],
        3,
        &["protected", "Backburn was started from it"],
    );
    let few = victim();
    let many = json!({"process": {"pid": few.id(), "select": {"count": 3}}}).to_string();
    refusals.words(&["inject", "process-kill", "--arguments", &many], 3, &["3"]);
    let percent = json!({"process": {"pid": few.id(), "select": {"percent": 10}}}).to_string();
    refusals.words(
        &["inject", "process-kill", "--arguments", &percent],
        3,
        &["rounds down", "hint"],
    );
    end(few);
}

#[test]
fn host_policy_overrides_the_request() {
    let refusals = Refusals::new(|| true);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("policy.json");
    let path = file.display().to_string();
    let with = |policy: &str, words: &[&str], code: i32, says: &[&str]| {
        std::fs::write(&file, policy).expect("the policy can be written");
        let words: Vec<&str> = ["inject"]
            .iter()
            .chain(words)
            .copied()
            .chain(["--policy", &path])
            .collect();
        refusals.words(&words, code, says);
    };
    let stress = ["cpu-stress", "--duration", "5s", "--workers", "1"];
    with(
        r#"{"deny-faults": ["cpu-stress"]}"#,
        &stress,
        3,
        &["policy", "deny-faults"],
    );
    with(
        r#"{"allow-faults": ["process-kill"]}"#,
        &stress,
        3,
        &["policy", "allow-faults"],
    );
    with(
        r#"{"max-duration": "1s"}"#,
        &stress,
        3,
        &["longer than the 1s"],
    );
    with(r#"{"max-victims": 0}"#, &stress, 3, &["max-victims"]);
    with(r#"{"max-faults": 0}"#, &stress, 3, &["max-faults"]);
    with(
        r#"{"max-victim": 0, "deny-faults": "x"}"#,
        &stress,
        2,
        &["$.max-victim", "max-victims", "$.deny-faults"],
    );
    let nobody = r#"{"deny-faults": ["cpu-stres"], "allow-programs": ["curl", "./x"], "protect": {"users": ["no-such-user"]}}"#;
    with(
        nobody,
        &stress,
        2,
        &[
            "$.deny-faults[0]",
            "$.allow-programs[1]",
            "`cpu-stress`?",
            "$.protect.users[0]",
            "no-such-user",
        ],
    );
    with("{", &stress, 2, &["policy.json"]);
    let sleeper = victim();
    let pid = sleeper.id().to_string();
    with(
        r#"{"protect": {"names": ["sleep"]}}"#,
        &["process-kill", "--process-pid", &pid],
        3,
        &["protected", "sleep"],
    );
    end(sleeper);
    refusals.words(
        &[
            "inject",
            "cpu-stress",
            "--duration",
            "1s",
            "--policy",
            "/nowhere.json",
        ],
        2,
        &["/nowhere.json"],
    );
}

#[test]
fn agent_without_root_hits_only_its_own_users_processes() {
    in_namespaces(&["unshare", "setpriv", "sleep"], || {
        let sleeper = victim();
        let state = tempfile::tempdir().expect("a temporary folder can be made");
        std::os::unix::fs::chown(state.path(), Some(65534), Some(65534)).expect("root may");
        // The program itself may lie where that user may not look.
        let program = state.path().join("backburn-agent");
        std::fs::copy(programs::backburn_agent(), &program).expect("the program can be copied");
        let output = Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
                "--",
            ])
            .arg(&program)
            .args([
                "inject",
                "process-kill",
                "--process-pid",
                &sleeper.id().to_string(),
                "--state",
            ])
            .arg(state.path().join("state"))
            .output()
            .expect("`setpriv` starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(
            said.contains("not-permitted") && said.contains("run as root"),
            "{said}"
        );
        end(sleeper);
    });
}

#[test]
fn fault_without_a_ledger_entry_is_not_injected() {
    in_namespaces(&["unshare", "mount", "sleep"], || {
        let sleeper = victim();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mount = |words: &[&str]| {
            let status = Command::new("mount")
                .args(words)
                .arg(folder.path())
                .status()
                .expect("`mount` starts");
            assert!(status.success(), "mount {words:?}: {status}");
        };
        mount(&["-t", "tmpfs", "-o", "size=64k", "full"]);
        std::fs::create_dir_all(folder.path().join("ledger")).expect("there is room for a folder");
        // Not one page is left.
        let mut filled =
            std::fs::File::create(folder.path().join("filler")).expect("there is room for a name");
        while std::io::Write::write_all(&mut filled, &[0; 4096]).is_ok() {}
        let inject = |say: &str| {
            let output = Command::new(programs::backburn_agent())
                .args([
                    "inject",
                    "process-kill",
                    "--process-pid",
                    &sleeper.id().to_string(),
                    "--state",
                ])
                .arg(folder.path())
                .output()
                .expect("the agent starts");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{said}");
            assert!(said.contains(say) && said.contains("hint"), "{said}");
            assert!(
                processes::process(sleeper.id() as i32).is_some_and(|process| process.state != 'Z')
            );
        };
        inject("No space left on device");
        let left: Vec<_> = std::fs::read_dir(folder.path().join("ledger"))
            .expect("it is there")
            .collect();
        assert!(
            left.iter()
                .all(|file| file.as_ref().is_ok_and(|file| file.file_name() == "lock")),
            "{left:?}"
        );
        drop(filled);
        mount(&["-o", "remount,ro"]);
        inject("Read-only file system");
        end(sleeper);
    });
}

#[test]
fn resource_held_by_an_injection_is_refused_to_another() {
    in_namespaces(&["unshare", "sleep"], || {
        let place = Place::default();
        let sleeper = victim();
        let arguments = json!({"process": {"pid": sleeper.id()}}).to_string();
        let pause = |id| {
            [
                "inject",
                "process-pause",
                "--id",
                id,
                "--duration",
                "2s",
                "--arguments",
                &arguments,
            ]
            .map(str::to_owned)
        };
        let words = pause("first");
        let mut first = place
            .agent(&words.each_ref().map(String::as_str), None)
            .spawn()
            .expect("the agent starts");
        wait_within(
            "the first did not act",
            std::time::Duration::from_secs(5),
            || processes::process(sleeper.id() as i32).is_some_and(|process| process.state == 't'),
        );
        let words = pause("second");
        let second = run(&place, &words.each_ref().map(String::as_str));
        let said = String::from_utf8_lossy(&second.stderr);
        assert_eq!(second.status.code(), Some(3), "{said}");
        assert!(
            said.contains("overlap") && said.contains("`first`"),
            "{said}"
        );
        assert_eq!(first.wait().expect("it ends").code(), Some(0));
        assert!(place.ledger().is_empty());
        end(sleeper);
    });
}

#[test]
fn recycled_process_id_is_never_hit() {
    in_namespaces(&["unshare", "sleep"], || {
        // An entry of another life: this id, but another start time. Undoing it must not touch today's process.
        let place = Place::default();
        let sleeper = victim();
        let process = processes::process(sleeper.id() as i32).expect("it is there");
        let stale = format!("{}@{}", process.pid, process.start + 1);
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(process.pid),
            nix::sys::signal::Signal::SIGSTOP,
        )
        .expect("it is there to be stopped");
        let ledger = place.state().join("ledger");
        std::fs::create_dir_all(&ledger).expect("a folder can be made");
        let entry = json!({
            "version": 1, "injection": "stale", "run": "r", "fault": "process-pause", "victims": [],
            "changes": [{"change": "stop", "victims": [stale]}],
            "owner": {"boot": "another", "worker": "999999@1", "guardian": "999998@1"},
        });
        std::fs::write(ledger.join("stale.json"), entry.to_string())
            .expect("an entry can be written");
        assert_eq!(place.restart(None).code(), Some(0));
        assert!(place.ledger().is_empty());
        let now = processes::process(process.pid).expect("it is there");
        assert_eq!(now.state, 'T', "somebody else's stop was undone");
        end(sleeper);
    });
}

#[test]
fn unreadable_ledger_entry_stays_owed() {
    let place = Place::default();
    let ledger = place.state().join("ledger");
    std::fs::create_dir_all(&ledger).expect("a folder can be made");
    std::fs::write(ledger.join("torn.json"), "{\"version\": 1, \"inj")
        .expect("a file can be written");
    for words in [&["status"][..], &["revert", "--all"]] {
        let output = run(&place, words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{words:?}: {said}");
        assert!(said.contains("torn") && said.contains("hint"), "{said}");
    }
    assert_eq!(place.ledger(), ["torn.json"]);
}
