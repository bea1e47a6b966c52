//! `inject` by hand: whom it never hits, and that its exit code and its last words say what became
//! of the fault.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::wait::wait_within;
use backburn_tests::{processes, programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A process that is killed when it goes out of scope.
struct Victim(Child);

impl Victim {
    fn start(command: &mut Command) -> Self {
        Victim(command.spawn().expect("it starts"))
    }

    /// A shell that says on a line when it has set this trap, then lives for a minute or so.
    fn with_trap(trap: &str) -> Self {
        let script = format!("{trap}; echo ready; while :; do sleep 0.1; done");
        let mut victim = Victim::start(
            Command::new("sh")
                .args(["-c", &script])
                .stdout(Stdio::piped()),
        );
        let out = victim.0.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("it speaks");
        victim
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn is_alive(&self) -> bool {
        processes::process(self.0.id() as i32).is_some_and(|found| found.state != 'Z')
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn run(place: &Place, words: &[&str]) -> Output {
    let mut command = place.agent(words, None);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("the agent starts")
}

/// Asserts the exit code and that all of these were said; returns everything that was said.
#[track_caller]
fn says(output: &Output, code: i32, parts: &[&str]) -> String {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "`{part}` is not said: {said}");
    }
    said
}

#[test]
fn ancestors_of_inject_are_spared_and_named() {
    in_namespaces(&["timeout", "sh", "setsid"], || {
        let place = Place::default();
        let agent = programs::backburn_agent();
        let state = place.state().display().to_string();
        // Below a shell, a time limit, and in a session of its own whose leader has let go of it.
        let script = format!(
            "# paymentsvc\ntimeout 20 {} inject process-kill --state {state} --process-command-line paymentsvc --process-select all; echo $?",
            agent.display()
        );
        for words in [vec!["sh", "-c"], vec!["setsid", "--wait", "sh", "-c"]] {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).arg(&script);
            let output = command.output().expect("it starts");
            let said = says(&output, 0, &["3\n"]);
            for part in [
                "protected",
                "timeout (",
                "sh (",
                "Backburn was started from it",
            ] {
                assert!(said.contains(part), "`{part}` is not said: {said}");
            }
        }
        // And whoever only passes the command on, as ssh does, or has it quoted.
        let words = format!(
            "{} inject process-kill --state '{state}' --process-command-line \"paymentsvc\"",
            agent.display()
        );
        let client = Victim::start(
            Command::new("sleep")
                .args(["1000"])
                .arg0(format!("ssh host {words}")),
        );
        let output = Command::new("sh").args(["-c", &words]).output();
        let said = says(
            &output.expect("it starts"),
            3,
            &["its command line contains that of"],
        );
        assert!(said.contains("protected"), "{said}");
        drop(client);
        // Where the one that is meant is there, it alone is hit.
        let victim = Victim::start(Command::new("sleep").arg0("paymentsvc").arg("1000"));
        let output = Command::new("sh").args(["-c", &script]).output();
        let output = output.expect("it starts");
        says(&output, 0, &["0\n", "1 gone", "spared", "timeout ("]);
        assert!(!victim.is_alive());
    });
}

#[test]
fn session_leader_of_an_orphaned_inject_is_spared() {
    in_namespaces(&["sh", "setsid"], || {
        let place = Place::default();
        let said = place.state().with_file_name("said");
        // The parent of the inject ends at once, so that process 1 becomes it.
        let script = format!(
            "# paymentsvc\n(({} inject process-kill --state {} --process-command-line paymentsvc >{said} 2>&1; echo $? >>{said}.code) &); while ! [ -s {said}.code ]; do sleep 0.01; done",
            programs::backburn_agent().display(),
            place.state().display(),
            said = said.display(),
        );
        let status = Command::new("setsid")
            .args(["--wait", "sh", "-c", &script])
            .status()
            .expect("it starts");
        let said = std::fs::read_to_string(&said).expect("it was said");
        assert!(status.success(), "{said}");
        assert!(said.contains("protected"), "{said}");
    });
}

#[test]
fn fault_never_injected_exits_3_and_says_why() {
    in_namespaces(&["sh", "prlimit", "mount"], || {
        let place = Place::default();
        let agent = programs::backburn_agent();
        let folder = place.state().with_file_name("disk");
        std::fs::create_dir_all(&folder).expect("a folder");
        let mount = |words: &[&str]| {
            let status = Command::new("mount").args(words).arg(&folder).status();
            assert!(status.expect("mount starts").success());
        };
        mount(&["-t", "tmpfs", "-o", "size=64m", "none"]);
        let path = folder.display().to_string();
        let with_limit = |limit: &str, words: &[&str]| {
            let output = Command::new("prlimit")
                .arg(limit)
                .arg("--")
                .arg(&agent)
                .arg(words[0])
                .arg("--state")
                .arg(place.state())
                .args(&words[1..])
                .output();
            output.expect("prlimit starts")
        };
        let fill = ["inject", "disk-fill", "--duration", "1s", "--path", &path];
        let memory = [
            "inject",
            "memory-fill",
            "--duration",
            "1s",
            "--size",
            "1GiB",
        ];
        says(
            &with_limit("--fsize=1048576", &fill),
            3,
            &["error: ", "ulimit -f"],
        );
        // Enough address space for the agent, and not for what is asked.
        says(
            &with_limit("--as=700000000", &memory),
            3,
            &["error: ", "ulimit -v"],
        );
        // Too few descriptors and processes for an agent to start, or to do anything.
        for limit in ["--nofile=6", "--nofile=12"] {
            says(
                &with_limit(limit, &memory),
                3,
                &["error: ", "Too many open files"],
            );
        }
        mount(&["-o", "remount,ro"]);
        says(
            &run(&place, &fill),
            3,
            &["error: ", "Read-only file system"],
        );
        assert!(place.ledger().is_empty(), "{:?}", place.ledger());
    });
}

#[test]
fn victim_that_ends_during_its_pause_exits_9() {
    in_namespaces(&["sleep"], || {
        let place = Place::default();
        let victim = Victim::start(Command::new("sleep").arg("1000"));
        let words = [
            "inject",
            "process-pause",
            "--json",
            "--duration",
            "2s",
            "--process-pid",
            &victim.pid(),
        ];
        let mut inject = place
            .agent(&words, None)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let out = inject.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(out).lines();
        let acts =
            |line: std::io::Result<String>| line.is_ok_and(|it| it.contains("\"acts\":true"));
        assert!(lines.any(acts), "it is never seen to act");
        kill(Pid::from_raw(victim.0.id() as i32), Signal::SIGKILL).expect("it is there");
        lines.for_each(drop);
        let output = inject.wait_with_output().expect("it ends");
        says(&output, 9, &["ended before its time", "0 of 1", "1 gone"]);
    });
}

#[test]
fn ignored_or_blocked_signal_has_no_effect() {
    in_namespaces(&["sh", "python3", "unshare"], || {
        let place = Place::default();
        let inject = |victim: &Victim, signal: &str| {
            let words = ["inject", "process-kill", "--json", "--signal", signal];
            run(
                &place,
                &[&words[..], &["--process-pid", &victim.pid()]].concat(),
            )
        };
        for signal in ["TERM", "INT", "QUIT"] {
            let ignoring = Victim::with_trap(&format!("trap '' {signal}"));
            let said = says(
                &inject(&ignoring, signal),
                0,
                &["is ignored: it has no effect"],
            );
            assert!(!said.contains("\"acts\":true"), "{said}");
            assert!(ignoring.is_alive());
        }
        let handler = Victim::with_trap("trap : TERM USR1");
        let said = says(&inject(&handler, "TERM"), 0, &["0 gone"]);
        assert!(!said.contains("\"acts\":true"), "{said}");
        // What has no meaning of its own is seen to be taken, and no more.
        let said = says(&inject(&handler, "USR1"), 0, &["taken by 1"]);
        assert!(said.contains("\"acts\":true"), "{said}");
        let said = says(&inject(&handler, "INT"), 0, &["1 gone"]);
        assert!(said.contains("\"acts\":true"), "{said}");
        let blocking = "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\nprint('ready', flush=True)\ntime.sleep(1000)";
        let blocking = Victim::start(Command::new("python3").args(["-c", blocking]));
        wait_within("it blocks the signal", Duration::from_secs(20), || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", blocking.pid()));
            status.is_ok_and(|status| status.contains("SigBlk:\t0000000000004000"))
        });
        let said = says(
            &inject(&blocking, "TERM"),
            0,
            &["is blocked", "not taken yet by 1"],
        );
        assert!(!said.contains("\"acts\":true"), "{said}");
        // The first process of a pid namespace, without a handler.
        let unshare = ["--pid", "--fork", "--kill-child=KILL", "sleep", "1000"];
        let unshare = Victim::start(Command::new("unshare").args(unshare));
        let child = || {
            let all = processes::alive().into_values();
            let of = |found: &processes::Process| found.parent == unshare.0.id() as i32;
            all.filter(of).find(|found| found.name == "sleep")
        };
        wait_within("it is there", Duration::from_secs(20), || child().is_some());
        let pid = child().map_or(0, |child| child.pid).to_string();
        let words = [
            "inject",
            "process-kill",
            "--json",
            "--signal",
            "TERM",
            "--process-pid",
            &pid,
        ];
        let said = says(
            &run(&place, &words),
            0,
            &["first process of a pid namespace"],
        );
        assert!(!said.contains("\"acts\":true"), "{said}");
    });
}

#[test]
fn traced_process_is_paused_unless_its_tracer_holds_it() {
    in_namespaces(&["strace", "sh"], || {
        let place = Place::default();
        // It makes a system call all the time, and is stopped at each.
        let busy = [
            "-o",
            "/dev/null",
            "sh",
            "-c",
            "while :; do kill -0 $$; done",
        ];
        let strace = Victim::start(Command::new("strace").args(busy));
        let child_of = |parent: u32| {
            let all = processes::alive().into_values();
            let mut of = all.filter(|found| found.parent == parent as i32);
            of.find(|found| found.name == "sh")
        };
        let mut traced = None;
        wait_within("it is traced", Duration::from_secs(20), || {
            traced = child_of(strace.0.id()).map(|child| child.pid);
            traced.is_some_and(|pid| {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
                status.is_ok_and(|it| it.contains(&format!("TracerPid:\t{}\n", strace.0.id())))
            })
        });
        let traced = traced.unwrap_or_default().to_string();
        let pause = [
            "inject",
            "process-pause",
            "--duration",
            "1s",
            "--process-pid",
        ];
        for _ in 0..3 {
            let output = run(&place, &[&pause[..], &[&traced]].concat());
            says(&output, 0, &["traces it already", "1 of 1 process stopped"]);
        }
        let switches = || {
            let status = std::fs::read_to_string(format!("/proc/{traced}/status"));
            let status = status.unwrap_or_default();
            let line = status.lines().find(|it| it.starts_with("voluntary_ctxt"));
            line.map(str::to_owned)
        };
        let before = switches();
        wait_within("it runs on", Duration::from_secs(20), || {
            switches() != before
        });

        // Where the tracer itself gets nowhere, as a debugger at its prompt, so does the process.
        let tracer = Pid::from_raw(strace.0.id() as i32);
        kill(tracer, Signal::SIGSTOP).expect("it is there");
        wait_within("the tracer is stopped", Duration::from_secs(20), || {
            processes::process(tracer.as_raw()).is_some_and(|found| found.state == 'T')
        });
        let pid = traced.parse().unwrap_or_default();
        wait_within("the process waits for it", Duration::from_secs(20), || {
            processes::process(pid).is_some_and(|found| found.state == 't')
        });
        let output = run(&place, &[&pause[..], &[&traced]].concat());
        says(
            &output,
            3,
            &["stopped already", "stopped by its tracer strace"],
        );
        kill(tracer, Signal::SIGCONT).expect("it is there");
    });
}
