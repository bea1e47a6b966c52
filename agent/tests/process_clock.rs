//! Processes that read a wrong time of day, on the real kernel: what their clocks report, what their children get, and that they are as
//! before afterwards, byte by byte.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]
#![cfg(all(target_arch = "x86_64", target_env = "gnu"))]

mod common;
mod look;
mod made;
mod made_host;

use backburn_agent::changes::{
    Change, Observed, ProcessClock, ReversibleChange as _, SkewedProcess,
};
use backburn_agent::plan::{LocalHost, Plan};
use backburn_agent::processes::{ProcessId, ProcessTable};
use backburn_agent::vdso::mark_bytes;
use backburn_experiments::wire::Refusal;
use common::{VictimProcess, until};
use look::{assert_refused_at, host, plan};
use made_host::MadeHost;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{PipeWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Evaluates each line that it gets. `clocks` are those of [`CLOCKS`], `gettimeofday` and `time`, in seconds.
const EVALUATES: &str = "
import ctypes, os, signal, subprocess, sys, threading, time
libc = ctypes.CDLL(None)
libc.time.restype = ctypes.c_long
def clocks():
    day = (ctypes.c_long * 2)()
    libc.gettimeofday(day, None)
    values = [time.clock_gettime(clock) for clock in (0, 5, 11, 1, 6, 7)]
    values += [day[0] + day[1] / 1e6, libc.time(None), time.time()]
    return ' '.join(f'{value:.6f}' for value in values)
def fork():
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGUSR1, lambda *_: print(clocks(), flush=True))
    while True:
        signal.pause()
def anew():
    return subprocess.check_output([sys.executable, '-c', 'import time; print(time.time())'], text=True).strip()
for _ in range(3):
    threading.Thread(target=signal.pause, daemon=True).start()
print('ready', flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
";

/// The clocks of real time, and those that are not altered.
const CLOCKS: [(i32, bool); 6] = [
    (libc::CLOCK_REALTIME, true),
    (libc::CLOCK_REALTIME_COARSE, true),
    (libc::CLOCK_TAI, true),
    (libc::CLOCK_MONOTONIC, false),
    (libc::CLOCK_MONOTONIC_COARSE, false),
    (libc::CLOCK_BOOTTIME, false),
];

/// How far a clock of a victim may be from this test's, in seconds, on a busy machine.
const TOLERANCE: f64 = 20.0;

fn own_clock(id: i32) -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::from_raw(id)).unwrap();
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// Checks what the clocks of a victim report, less those of this test.
#[track_caller]
fn assert_skewed_by(offset: f64, said: &str) {
    let values: Vec<f64> = said
        .split(' ')
        .map(|value| value.parse().unwrap())
        .collect();
    let expected = CLOCKS.map(|(id, is_real)| own_clock(id) + if is_real { offset } else { 0.0 });
    let day = own_clock(libc::CLOCK_REALTIME) + offset;
    let expected: Vec<f64> = expected.into_iter().chain([day; 3]).collect();
    assert_eq!(values.len(), expected.len(), "{said}");
    for (value, expected) in values.iter().zip(expected) {
        assert!(
            (value - expected).abs() < TOLERANCE,
            "{value} {expected}: {said}"
        );
    }
}

struct Evaluator {
    victim: VictimProcess,
    stdin: PipeWriter,
}

impl Evaluator {
    fn start() -> Self {
        let (read, stdin) = std::io::pipe().unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", EVALUATES]);
        let mut victim = VictimProcess::start_with(&mut command, Stdio::from(read));
        assert_eq!(victim.line(), "ready");
        Evaluator { victim, stdin }
    }

    fn id(&self) -> ProcessId {
        self.victim.id
    }

    fn evaluate(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        self.victim.line()
    }

    /// Forks a child, which reports its clocks at SIGUSR1.
    fn fork(&mut self) -> Child {
        let pid = self.evaluate("fork()").parse().unwrap();
        let id = ProcessTable::default().identify(pid).unwrap();
        // It has its handler when it waits for a signal.
        until("it waits", || {
            ProcessTable::default().state(id) == Some('S')
        });
        Child(id)
    }

    fn clocks_of(&mut self, child: &Child) -> String {
        kill(Pid::from_raw(child.0.pid), Signal::SIGUSR1).unwrap();
        self.victim.line()
    }
}

/// A child of a victim, killed when it is dropped.
struct Child(ProcessId);

impl Drop for Child {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.0.pid), Signal::SIGKILL).ok();
    }
}

fn vdso(id: ProcessId) -> Vec<u8> {
    let (_, bytes) = ProcessTable::default().vdso(id).unwrap().unwrap();
    bytes
}

/// That of this test, which nothing has altered.
fn pristine() -> Vec<u8> {
    let own = ProcessTable::default().identify(std::process::id() as i32);
    vdso(own.unwrap())
}

fn planned(pids: &[i32], offset: &str) -> Result<Plan, Refusal> {
    let arguments = json!({"process": {"pid": pids, "select": "all"}, "offset": offset});
    plan(&LocalHost::default(), "clock-skew", arguments)
}

fn change(plan: &Plan) -> ProcessClock {
    match plan.changes.as_slice() {
        [Change::ProcessClock(change)] => change.clone(),
        changes => panic!("{changes:?}"),
    }
}

/// Where the mark of a change lies in a process now; none where it bears none.
fn marked(id: ProcessId) -> Option<usize> {
    let mark = mark_bytes("trial-0");
    vdso(id).windows(mark.len()).position(|bytes| bytes == mark)
}

#[test]
fn clock_skew_shifts_the_time_of_day_until_it_is_undone() {
    let mut evaluator = Evaluator::start();
    let before = vdso(evaluator.id());
    assert_eq!(before, pristine());
    for (offset, seconds) in [
        ("+1h", 3600.0),
        ("-90d", -7_776_000.0),
        ("+49h 30m", 178_200.0),
    ] {
        let change = change(&planned(&[evaluator.id().pid], offset).unwrap());
        assert_eq!(change.observe(&host()).unwrap(), Observed::Absent);
        assert!(!change.effect(&host()).acts);
        // Right after none of it as well.
        change.undo(&host()).unwrap();
        assert_skewed_by(0.0, &evaluator.evaluate("clocks()"));
        change.apply(&host()).unwrap();
        assert_skewed_by(seconds, &evaluator.evaluate("clocks()"));
        let effect = change.effect(&host());
        assert!(
            effect.acts && effect.seen.contains("1 of 1 process"),
            "{effect:?}"
        );
        assert_eq!(effect.figures["offset-seconds"], seconds);
        assert!(matches!(
            change.observe(&host()).unwrap(),
            Observed::Present(_)
        ));
        change.undo(&host()).unwrap();
        change.undo(&host()).unwrap();
        assert_eq!(vdso(evaluator.id()), before);
        assert_eq!(change.observe(&host()).unwrap(), Observed::Absent);
        assert_skewed_by(0.0, &evaluator.evaluate("clocks()"));
    }
}

#[test]
fn clock_skew_is_inherited_by_fork_not_by_exec_and_undone_in_children() {
    let mut evaluator = Evaluator::start();
    let older = evaluator.fork();
    let change = change(&planned(&[evaluator.id().pid], "-1d").unwrap());
    change.apply(&host()).unwrap();
    let child = evaluator.fork();
    let clocks = evaluator.clocks_of(&child);
    assert_skewed_by(-86_400.0, &clocks);
    let clocks = evaluator.clocks_of(&older);
    assert_skewed_by(0.0, &clocks);
    let anew: f64 = evaluator.evaluate("anew()").parse().unwrap();
    assert!((anew - own_clock(libc::CLOCK_REALTIME)).abs() < TOLERANCE);
    // A second skew, of the child, is refused by the mark that it bears.
    let refusal = planned(&[child.0.pid], "+1h").unwrap_err();
    assert!(
        refusal.rule == "overlap" && refusal.what.contains("`trial-0`"),
        "{refusal:?}"
    );
    // Also where the victim itself has gone.
    evaluator.victim.child.kill().unwrap();
    evaluator.victim.child.wait().unwrap();
    let Observed::Present(seen) = change.observe(&host()).unwrap() else {
        panic!("the child is not seen")
    };
    assert!(seen.contains(&child.0.pid.to_string()), "{seen}");
    let effect = change.effect(&host());
    assert!(
        !effect.acts && effect.seen.ends_with("1 gone"),
        "{effect:?}"
    );
    change.undo(&host()).unwrap();
    assert_eq!(change.observe(&host()).unwrap(), Observed::Absent);
    assert_eq!(vdso(child.0), pristine());
}

#[test]
fn clock_skew_of_stopped_process_leaves_it_stopped() {
    let mut evaluator = Evaluator::start();
    let id = evaluator.id();
    let table = ProcessTable::default();
    kill(Pid::from_raw(id.pid), Signal::SIGSTOP).unwrap();
    until("it is stopped", || table.state(id) == Some('T'));
    let change = change(&planned(&[id.pid], "+1h").unwrap());
    change.apply(&host()).unwrap();
    // On its way back to the stop it runs none of its own code.
    let is_as_before = || table.tracer(id.pid).is_none() && table.state(id) == Some('T');
    until("it is let go, and stopped", is_as_before);
    kill(Pid::from_raw(id.pid), Signal::SIGCONT).unwrap();
    assert_skewed_by(3600.0, &evaluator.evaluate("clocks()"));
    kill(Pid::from_raw(id.pid), Signal::SIGSTOP).unwrap();
    until("it is stopped", || table.state(id) == Some('T'));
    change.undo(&host()).unwrap();
    until("it is let go, and stopped", is_as_before);
    assert_eq!(vdso(id), pristine());
    kill(Pid::from_raw(id.pid), Signal::SIGCONT).unwrap();
    assert_skewed_by(0.0, &evaluator.evaluate("clocks()"));
}

#[test]
fn clock_skew_of_process_whose_first_thread_has_ended_is_undone() {
    const ENDS: &str = "
import ctypes, sys, threading, time
libc = ctypes.CDLL(None)
threading.Thread(target=time.sleep, args=(1000,)).start()
print('ready', flush=True)
sys.stdin.readline()
libc.pthread_exit(None)
";
    let (read, mut stdin) = std::io::pipe().unwrap();
    let mut command = Command::new("python3");
    let mut victim = VictimProcess::start_with(command.args(["-c", ENDS]), Stdio::from(read));
    assert_eq!(victim.line(), "ready");
    let (id, table) = (victim.id, ProcessTable::default());
    let change = change(&planned(&[id.pid], "+1h").unwrap());
    change.apply(&host()).unwrap();
    stdin.write_all(b"end\n").unwrap();
    until("its first thread has ended", || {
        table.state(id) == Some('Z')
    });
    assert!(table.threads(id.pid).len() > 1, "others go on");
    let effect = change.effect(&host());
    assert!(effect.acts && !effect.seen.contains("gone"), "{effect:?}");
    assert!(matches!(
        change.observe(&host()).unwrap(),
        Observed::Present(_)
    ));
    change.undo(&host()).unwrap();
    assert_eq!(change.observe(&host()).unwrap(), Observed::Absent);
    let victim = &change.victims[0];
    let now = table
        .memory_of(id.pid, victim.vdso, pristine().len())
        .unwrap();
    assert_eq!(now, Some(pristine()));
}

#[test]
fn clock_skew_that_others_have_changed_since_is_contested_and_left() {
    let evaluator = Evaluator::start();
    let id = evaluator.id();
    let change = change(&planned(&[id.pid], "+1h").unwrap());
    change.apply(&host()).unwrap();
    let victim = &change.victims[0];
    let memory = std::fs::File::options()
        .write(true)
        .open(format!("/proc/{}/mem", id.pid))
        .unwrap();
    // As a debugger's breakpoint.
    let entry = victim.vdso + victim.entries[1].at;
    let mut ours = [0];
    ours.copy_from_slice(&vdso(id)[victim.entries[1].at as usize..][..1]);
    memory.write_all_at(&[0xCC], entry).unwrap();
    let Observed::Contested(seen) = change.observe(&host()).unwrap() else {
        panic!("it is not seen")
    };
    assert!(seen.contains(&id.pid.to_string()), "{seen}");
    change.undo(&host()).unwrap();
    assert!(marked(id).is_some(), "the code stays, to which it may lead");
    assert!(matches!(
        change.observe(&host()).unwrap(),
        Observed::Contested(_)
    ));
    memory.write_all_at(&ours, entry).unwrap();
    change.undo(&host()).unwrap();
    assert_eq!(vdso(id), pristine());
    assert_eq!(change.observe(&host()).unwrap(), Observed::Absent);
}

#[test]
fn clock_skew_of_traced_process_is_refused_and_its_undo_says_who_traces() {
    let evaluator = Evaluator::start();
    let id = evaluator.id();
    let change = change(&planned(&[id.pid], "+1h").unwrap());
    change.apply(&host()).unwrap();
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-p", &id.pid.to_string()])
        .spawn()
        .unwrap();
    let table = ProcessTable::default();
    until("it is traced", || {
        let threads = table.threads(id.pid);
        threads
            .iter()
            .all(|thread| table.thread_tracer(id.pid, *thread).is_some())
    });
    let refusal = planned(&[id.pid], "+1h").unwrap_err();
    assert_eq!(refusal.rule, "not-traceable");
    let failed = change.undo(&host()).unwrap_err().to_string();
    assert!(
        failed.contains(&format!("process {} traces it", tracer.id())),
        "{failed}"
    );
    assert!(matches!(
        change.observe(&host()).unwrap(),
        Observed::Present(_)
    ));
    kill(Pid::from_raw(tracer.id() as i32), Signal::SIGTERM).unwrap();
    tracer.wait().unwrap();
    change.undo(&host()).unwrap();
    assert_eq!(vdso(id), pristine());
}

#[test]
fn clock_skew_of_exited_or_replaced_process_alters_nothing() {
    let mut evaluator = Evaluator::start();
    let id = evaluator.id();
    let change = change(&planned(&[id.pid], "+1h").unwrap());
    evaluator
        .stdin
        .write_all(b"os.execvp('sleep', ['sleep', '60'])\n")
        .unwrap();
    until("it runs another program", || {
        ProcessTable::default().name(id.pid).as_deref() == Some("sleep")
    });
    // Its vDSO is elsewhere now, unless addresses are not random.
    let applied = change.apply(&host());
    change.undo(&host()).unwrap();
    assert_eq!(vdso(id), pristine());
    assert_eq!(change.observe(&host()).unwrap(), Observed::Absent);
    drop(applied);
    evaluator.victim.child.kill().unwrap();
    evaluator.victim.child.wait().unwrap();
    change.apply(&host()).unwrap();
    assert_eq!(change.observe(&host()).unwrap(), Observed::Absent);
}

/// Has a Python program be under a filter of system calls, which forbids those of these numbers, by killing.
fn confine(calls: &[u32]) -> String {
    let mut program = vec![(0x20, 0, 0, 0)];
    program.extend(
        calls
            .iter()
            .flat_map(|call| [(0x15, 0, 1, *call), (0x06, 0, 0, 0x8000_0000)]),
    );
    program.push((0x06, 0, 0, 0x7fff_0000_u32));
    let bytes: Vec<u8> = program
        .iter()
        .flat_map(|(code, yes, no, operand): &(u16, u8, u8, u32)| {
            [
                &code.to_le_bytes()[..],
                &[*yes, *no],
                &operand.to_le_bytes(),
            ]
            .concat()
        })
        .collect();
    format!(
        "(code := ctypes.create_string_buffer(bytes({bytes:?})), program := (ctypes.c_ulong * 2)({}, ctypes.addressof(code)), libc.prctl(38, 1, 0, 0, 0), libc.syscall(317, 1, 1, program))[2:]",
        program.len()
    )
}

#[test]
fn clock_skew_of_confined_process_is_applied_only_where_its_filters_permit_it() {
    if !common::is_root("clock_skew_of_confined_process") {
        return;
    }
    // swapon, as container runtimes forbid it, and clock_gettime.
    for (calls, is_permitted) in [(&[167][..], true), (&[167, 228], false), (&[96], false)] {
        let mut evaluator = Evaluator::start();
        assert_eq!(evaluator.evaluate(&confine(calls)), "(0, 0)");
        let planned = planned(&[evaluator.id().pid], "+1h").unwrap();
        assert!(
            notes(&planned).contains("has filters of system calls"),
            "{planned:?}"
        );
        let change = change(&planned);
        match change.apply(&host()) {
            Ok(()) => assert!(is_permitted),
            Err(error) => assert!(
                !is_permitted && error.to_string().contains("is not permitted"),
                "{error}"
            ),
        }
        let seconds = if is_permitted { 3600.0 } else { 0.0 };
        assert_skewed_by(seconds, &evaluator.evaluate("clocks()"));
        change.undo(&host()).unwrap();
        assert_eq!(vdso(evaluator.id()), pristine());
        assert_skewed_by(0.0, &evaluator.evaluate("clocks()"));
    }
}

/// How a victim is told to be one.
const BUSY: &str = "BACKBURN_TEST_BUSY";

/// The process that [`clock_skew_of_busy_process_never_harms_it`] hits: threads that read clocks as fast as they can, under a storm of
/// signals. It aborts where a clock reports anything but the right time, or the right time with the offset.
#[test]
#[allow(unsafe_code)]
fn busy_process_reads_clocks() {
    extern "C" fn ignore(_: i32) {}
    if std::env::var_os(BUSY).is_none() {
        return;
    }
    // SAFETY: the handler does nothing; the timer is this process's own.
    unsafe {
        let handler = ignore as extern "C" fn(i32) as libc::sighandler_t;
        libc::signal(libc::SIGALRM, handler);
        let often = libc::timeval {
            tv_sec: 0,
            tv_usec: 300,
        };
        let timer = libc::itimerval {
            it_interval: often,
            it_value: often,
        };
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
    }
    let ahead = || own_clock(libc::CLOCK_REALTIME) - own_clock(libc::CLOCK_MONOTONIC);
    let right = ahead();
    println!("\nready");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let off = ahead() - right;
                    if off.abs() > TOLERANCE && (off - 3600.0).abs() > TOLERANCE {
                        eprintln!("a clock is off by {off} s");
                        std::process::abort();
                    }
                }
            });
        }
    });
}

#[test]
fn clock_skew_of_busy_process_never_harms_it() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "busy_process_reads_clocks", "--nocapture"])
        .env(BUSY, "1");
    let mut victim = VictimProcess::start(&mut command);
    while victim.line() != "ready" {}
    let before = vdso(victim.id);
    assert_eq!(before, pristine());
    for round in 0..20 {
        // Not by a plan, which protects this very program.
        let vdso_now = ProcessTable::default().vdso(victim.id).unwrap();
        let change = ProcessClock {
            mark: "trial-0".into(),
            offset_ms: 3_600_000,
            victims: vec![SkewedProcess::of(victim.id, vdso_now, "trial-0").unwrap()],
        };
        change.apply(&host()).unwrap();
        assert!(change.effect(&host()).acts, "{round}");
        change.undo(&host()).unwrap();
        assert_eq!(change.observe(&host()).unwrap(), Observed::Absent);
        assert!(vdso(victim.id) == before, "{round}");
        assert!(
            victim.child.try_wait().unwrap().is_none(),
            "{round}: it has ended"
        );
    }
}

#[test]
fn clock_skew_takes_no_longer_than_the_stop_of_its_process() {
    let evaluator = Evaluator::start();
    let began = Instant::now();
    let change = change(&planned(&[evaluator.id().pid], "+1h").unwrap());
    change.apply(&host()).unwrap();
    change.undo(&host()).unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

/// A made-up host whose processes 30 to 33 have the vDSO of this test.
fn made_with_vdso() -> made::Made {
    let made = made::Made::new();
    let bytes = pristine();
    for pid in 30..=33 {
        let folder = made.path().join(pid.to_string());
        let end = 0x1000 + bytes.len();
        std::fs::write(
            folder.join("maps"),
            format!("00001000-{end:08x} r-xp 00000000 00:00 0                          [vdso]\n"),
        )
        .unwrap();
        let memory = std::fs::File::create(folder.join("mem")).unwrap();
        memory.write_all_at(&bytes, 0x1000).unwrap();
    }
    made
}

fn notes(plan: &Plan) -> String {
    plan.notes.join("\n")
}

#[test]
fn clock_skew_plan_names_who_is_altered_and_who_escapes() {
    let made = made_with_vdso();
    let host = MadeHost::new(&made);
    let all = |name: Value| json!({"process": {"name": name, "select": "all"}, "offset": "-5m"});
    let nginx = plan(&host, "clock-skew", all(json!("nginx"))).unwrap();
    assert_eq!(nginx.victims.len(), 4);
    let planned = change(&nginx);
    assert_eq!((planned.offset_ms, planned.victims.len()), (-300_000, 4));
    assert_eq!(planned.victims[0].entries.len(), 3);
    assert!(
        planned.view().apply.contains("5m earlier"),
        "{:?}",
        planned.view()
    );
    let said = notes(&nginx);
    for words in [
        "4 of 4",
        "end up to 5m early",
        "system calls of their own",
        "children",
        "statically linked",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // A data base without a vDSO, and two workers that are confined.
    for (pid, mode) in [(31, "1"), (32, "2")] {
        let thread = made.path().join(format!("{pid}/task/{pid}"));
        std::fs::create_dir_all(&thread).unwrap();
        std::fs::write(thread.join("status"), format!("Seccomp:\t{mode}\n")).unwrap();
    }
    let some = plan(&host, "clock-skew", all(json!(["nginx", "postgres"]))).unwrap();
    assert_eq!(some.victims.len(), 3);
    let said = notes(&some);
    for words in [
        "3 of 5",
        "nginx (31) is left alone: it may not ask",
        "nginx (32) has filters",
        "postgres (40) is left alone: it has no vDSO",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let none = plan(&host, "clock-skew", all(json!("postgres"))).unwrap_err();
    assert!(
        none.rule == "not-available" && none.what.contains("no vDSO"),
        "{none:?}"
    );
}

#[test]
fn clock_skew_plan_of_wrong_offset_is_refused() {
    let made = made_with_vdso();
    let host = MadeHost::new(&made);
    let arguments = json!({"process": {"pid": 30}});
    for offset in [
        json!("0s"),
        json!("11y"),
        json!("3651d"),
        json!("-3651d"),
        json!(0),
        json!(1e300),
        json!("100us"),
        json!(true),
    ] {
        assert_refused_at(
            &host,
            "clock-skew",
            arguments.clone(),
            &json!({"offset": offset}),
            "$.offset",
        );
    }
    for offset in [json!("3650d"), json!("-3650d"), json!("1ms"), json!(-0.001)] {
        let mut arguments = arguments.clone();
        arguments["offset"] = offset;
        plan(&host, "clock-skew", arguments).unwrap();
    }
    let protected = json!({"process": {"pid": 1}, "offset": "1h"});
    assert_eq!(
        plan(&host, "clock-skew", protected).unwrap_err().rule,
        "protected"
    );
}
