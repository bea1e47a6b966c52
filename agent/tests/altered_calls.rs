//! System calls of running processes that fail, wait or are skipped, on the real kernel, and processes that are let go unharmed.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;
mod look;
mod made;
mod made_host;

use backburn_agent::helpers::HelperSpec;
use backburn_agent::plan::LocalHost;
use backburn_agent::processes::ProcessTable;
use common::{Helper, VictimProcess, until};
use look::{helper_of, plan};
use made_host::MadeHost;
use serde_json::{Value, json};
use std::io::{PipeWriter, Write as _};
use std::process::{Command, Stdio};

const LONG: u64 = 60_000;

/// Runs each line that it gets, and says what the name `said` is after it. A second thread counts as fast as it can, by a call for each step.
const RUNS: &str = "
import os, signal, sys, threading, time
steps = 0
def step():
    global steps
    while True:
        os.getppid(); steps += 1; time.sleep(0.001)
threading.Thread(target=step, daemon=True).start()
file = open(sys.argv[1], 'wb', buffering=0)
names = {'file': file, 'os': os, 'time': time, 'signal': signal, 'said': 'ready', 'steps': lambda: steps}
print('ready', flush=True)
for line in sys.stdin:
    try:
        exec(line, names)
    except OSError as error:
        names['said'] = error.strerror
    print(names['said'], flush=True)
";

struct Runner {
    victim: VictimProcess,
    stdin: PipeWriter,
    _folder: tempfile::TempDir,
}

impl Runner {
    fn start() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (read, stdin) = std::io::pipe().unwrap();
        let file = folder.path().join("file");
        let mut victim = VictimProcess::start_with(
            Command::new("python3").args(["-c", RUNS]).arg(file),
            Stdio::from(read),
        );
        assert_eq!(victim.line(), "ready");
        Runner {
            victim,
            stdin,
            _folder: folder,
        }
    }

    fn run(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        self.victim.line()
    }

    /// The helper that a fault on this process is planned with.
    fn planned(&self, fault: &str, mut arguments: Value) -> HelperSpec {
        arguments["process"] = json!({"pid": self.victim.id.pid});
        helper_of(&plan(&LocalHost::default(), fault, arguments).unwrap())
    }

    #[track_caller]
    fn is_whole(&mut self) {
        let table = ProcessTable::default();
        until("it is let go", || {
            table.tracer(self.victim.id.pid).is_none()
        });
        assert_eq!(self.run("said = os.fsync(file.fileno())"), "None");
        assert_eq!(
            self.run("before = steps(); time.sleep(0.05); said = steps() > before"),
            "True"
        );
    }
}

const FSYNC: &str = "said = os.fsync(file.fileno())";
/// How long a sync takes, in whole milliseconds.
const TIMED: &str = "begin = time.monotonic(); os.fsync(file.fileno()); said = int(1000 * (time.monotonic() - begin))";

#[test]
fn syscall_error_process_fails_with_the_error_and_recovers_when_the_helper_dies() {
    let table = ProcessTable::default();
    let mut runner = Runner::start();
    assert_eq!(runner.run(FSYNC), "None");
    let role = runner.planned(
        "syscall-error",
        json!({"calls": ["fsync", "fdatasync"], "error": "ENOSPC"}),
    );
    let mut helper = Helper::start(&role, LONG);
    assert!(
        helper
            .ready()
            .starts_with("1 of 1 processes traced, 2 threads"),
        "{}",
        helper.said
    );
    assert!(
        !role.helper().effect(helper.id.pid, &table).acts,
        "nothing was altered yet"
    );
    for _ in 0..20 {
        assert_eq!(runner.run(FSYNC), "No space left on device");
    }
    // Others are not affected, in no thread.
    assert_eq!(runner.run("said = file.write(b'word')"), "4");
    let effect = role.helper().effect(helper.id.pid, &table);
    assert!(effect.acts, "{effect:?}");
    assert_eq!(effect.figures["altered-calls"], 20.0);
    assert!(
        role.helper().residue(&table).unwrap().is_some(),
        "it is still traced"
    );
    helper.kill();
    runner.is_whole();
    assert_eq!(role.helper().residue(&table).unwrap(), None);
}

#[test]
fn syscall_error_share_of_calls_fails_for_that_share() {
    let mut runner = Runner::start();
    let role = runner.planned(
        "syscall-error",
        json!({"calls": "fsync", "error": "EIO", "percent": 30}),
    );
    let helper = Helper::start(&role, LONG);
    helper.ready();
    let failed = (0..200)
        .filter(|_| runner.run(FSYNC) == "Input/output error")
        .count();
    assert!((30..=90).contains(&failed), "{failed}");
    let effect = role
        .helper()
        .effect(helper.id.pid, &ProcessTable::default());
    assert_eq!(effect.figures["altered-calls"], failed as f64);
    assert_eq!(effect.figures["chosen-calls"], 200.0);
}

#[test]
fn syscall_latency_call_waits_while_other_threads_run() {
    let mut runner = Runner::start();
    let role = runner.planned(
        "syscall-latency",
        json!({"calls": "fsync", "delay": "200ms"}),
    );
    let mut helper = Helper::start(&role, LONG);
    helper.ready();
    let waited: u64 = runner.run(TIMED).parse().unwrap();
    assert!((200..1000).contains(&waited), "{waited}");
    let steps = "before = steps(); os.fsync(file.fileno()); said = steps() - before";
    let steps: u64 = runner.run(steps).parse().unwrap();
    assert!(steps > 20, "the other thread took {steps} steps");
    // In the middle of a wait, the call is done at once when the helper dies.
    writeln!(runner.stdin, "{TIMED}").unwrap();
    let effect = || {
        role.helper()
            .effect(helper.id.pid, &ProcessTable::default())
    };
    until("it waits", || effect().figures["altered-calls"] == 3.0);
    helper.kill();
    let waited: u64 = runner.victim.line().parse().unwrap();
    assert!(waited < 5_000, "{waited}");
    runner.is_whole();
}

#[test]
fn fsync_loss_process_is_told_success_and_nothing_is_synced() {
    let table = ProcessTable::default();
    let mut runner = Runner::start();
    let role = runner.planned("fsync-loss", json!({}));
    let mut helper = Helper::start(&role, LONG);
    helper.ready();
    // What is written was never sent to the disk, which the kernel counts.
    let write = "said = [file.write(b'0' * 4096) for _ in range(4)] and os.fsync(file.fileno())";
    assert_eq!(runner.run(write), "None");
    let effect = role.helper().effect(helper.id.pid, &table);
    assert_eq!(effect.figures["altered-calls"], 1.0);
    helper.kill();
    runner.is_whole();
}

#[test]
fn traced_process_gets_every_signal_and_stays_stopped_by_a_stop() {
    let table = ProcessTable::default();
    let mut runner = Runner::start();
    let count = "said = 0\ndef count(*_):\n    global said\n    said += 1\nsignal.signal(signal.SIGUSR1, count)\nsignal.signal(signal.SIGRTMIN + 2, count)";
    assert_eq!(runner.run(&format!("exec({count:?}, globals())")), "0");
    let role = runner.planned("syscall-error", json!({"calls": "fsync", "error": "EIO"}));
    let mut helper = Helper::start(&role, LONG);
    helper.ready();
    let send = "[(os.kill(os.getpid(), signal.SIGUSR1), os.kill(os.getpid(), signal.SIGRTMIN + 2)) for _ in range(50)]";
    assert_eq!(runner.run(send), "100");
    let pid = rustix::process::Pid::from_raw(runner.victim.id.pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    until("it stops", || {
        matches!(table.state(runner.victim.id), Some('t' | 'T'))
    });
    writeln!(runner.stdin, "pass").unwrap();
    helper.kill();
    until("it stays stopped", || {
        table.state(runner.victim.id) == Some('T')
    });
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert_eq!(runner.victim.line(), "100");
    runner.is_whole();
}

#[test]
fn tracer_killed_at_any_moment_leaves_the_process_unharmed() {
    let mut runner = Runner::start();
    let role = runner.planned(
        "syscall-error",
        json!({"calls": "getrandom", "error": "EINTR"}),
    );
    // The second thread makes a call a millisecond, so the helper is killed in all states.
    for round in 0..25 {
        let mut helper = Helper::start(&role, LONG);
        helper.ready();
        std::thread::sleep(std::time::Duration::from_micros(137 * round));
        helper.kill();
        runner.is_whole();
    }
}

#[test]
fn syscall_faults_bad_input_is_refused_with_the_rule() {
    let made = made::Made::new();
    let host = MadeHost::new(&made);
    let process = json!({"pid": 30});
    for (fault, arguments, at) in [
        (
            "syscall-error",
            json!({"process": process, "calls": "fsync"}),
            "$",
        ),
        (
            "syscall-error",
            json!({"process": process, "calls": "exit_group", "error": "EIO"}),
            "$.calls",
        ),
        (
            "syscall-error",
            json!({"process": process, "calls": [], "error": "EIO"}),
            "$.calls",
        ),
        (
            "syscall-error",
            json!({"process": process, "calls": "fsync", "error": "EWHAT"}),
            "$.error",
        ),
        (
            "syscall-error",
            json!({"process": process, "calls": "fsync", "error": "EIO", "percent": 0}),
            "$.percent",
        ),
        (
            "syscall-latency",
            json!({"process": process, "calls": "fsync", "delay": "0s"}),
            "$.delay",
        ),
        (
            "syscall-latency",
            json!({"process": process, "calls": "fsync", "delay": "2h"}),
            "$.delay",
        ),
        ("fsync-loss", json!({}), "$"),
    ] {
        let refusal = plan(&host, fault, arguments.clone()).unwrap_err();
        assert_eq!(refusal.rule, "arguments", "{arguments}");
        assert!(
            refusal
                .problems
                .iter()
                .any(|problem| problem.at.starts_with(at)),
            "{arguments}: {:?}",
            refusal.problems
        );
    }
    // One tracer at a time.
    let mut traced = Runner::start();
    let role = traced.planned("fsync-loss", json!({}));
    let mut helper = Helper::start(&role, LONG);
    helper.ready();
    let arguments =
        json!({"process": {"pid": traced.victim.id.pid}, "calls": "fsync", "error": "EIO"});
    let refusal = plan(&LocalHost::default(), "syscall-error", arguments).unwrap_err();
    assert_eq!(refusal.rule, "not-traceable");
    helper.kill();
    traced.is_whole();
}
