//! Altering chosen system calls of running processes by tracing them: a call is skipped and gives what is wanted instead, or is
//! made to wait before it is done. When the tracer dies the kernel lets the processes go, wherever they are.
//!
//! A call is skipped in one step, at its entry: its number becomes -1 and its result what is wanted. So nothing is half done where
//! this process dies between two steps. Signals are passed on without taking them away first (`WNOWAIT`): a stop for a signal that
//! was waited for and whose tracer dies has lost its signal.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::display::listed;
use super::event_counts::{EventCount, event_counts};
use super::evidence::{effect, effect_of_living};
use super::freeze::{Freeze, check_traceable};
use super::helper::{AlteredPlace, Helper};
use super::written::field;
use crate::precise_timer::{poll_timeout, use_precise_timers};
use crate::processes::{HELPER_NAME, ProcessId, ProcessTable};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Instant;

/// Alters chosen system calls of processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tamper {
    /// The processes, each with all its threads.
    pub victims: Vec<ProcessId>,
    /// The numbers of the calls.
    pub calls: BTreeSet<i64>,
    /// The calls, for people.
    pub names: String,
    /// What becomes of them.
    pub alteration: CallAlteration,
    /// The chance of each call to be altered, in percent.
    pub percent: f64,
    /// What that is drawn from.
    pub seed: u64,
}

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallAlteration {
    /// It is not done, and returns this: the negative of an error's number, or 0 for success.
    Result(i32),
    /// It is done so much later.
    Delay(HumanDuration),
}

impl Helper for Tamper {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self, process)
    }

    fn describe(&self) -> String {
        let share = match self.percent {
            percent if percent < 100.0 => format!("{percent} % of "),
            _ => String::new(),
        };
        let what = match self.alteration {
            CallAlteration::Result(0) => "are skipped and report success".to_owned(),
            CallAlteration::Result(error) => {
                format!("fail with {}", Errno::from_raw(-error))
            }
            CallAlteration::Delay(delay) => format!("wait for {delay} first"),
        };
        format!(
            "trace {}: {share}calls of {} {what}",
            listed(&self.victims),
            self.names
        )
    }

    fn describe_end(&self) -> &'static str {
        "the kernel lets the traced processes run on, untraced"
    }

    fn holds(&self) -> Vec<String> {
        self.victims
            .iter()
            .map(|id| format!("process:{id}"))
            .collect()
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Nowhere
    }

    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect {
        effect_of_living(helper, table, |id, table| {
            let traced = self
                .victims
                .iter()
                .filter(|victim| table.alive(**victim))
                .filter(|victim| table.tracer(victim.pid) == Some(id.pid))
                .count();
            let counts = event_counts(id, table)?;
            let (chosen, altered) = (*counts.first()?, *counts.get(1)?);
            let seen = format!(
                "{altered} of {chosen} calls altered, {traced} of {} processes traced",
                self.victims.len()
            );
            let figures = [
                ("altered-calls", altered as f64),
                ("chosen-calls", chosen as f64),
                ("traced-processes", traced as f64),
            ];
            Some(effect(traced > 0 && altered > 0, seen, &figures))
        })
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    /// A tracer's death and its tracees' release are one step of the kernel's.
    fn residue(&self, table: &ProcessTable) -> io::Result<Option<String>> {
        for id in &self.victims {
            table.find(*id)?;
        }
        let traced = |id: &&ProcessId| {
            table.alive(**id)
                && table
                    .tracer(id.pid)
                    .and_then(|tracer| table.name(tracer))
                    .as_deref()
                    == Some(HELPER_NAME)
        };
        let traced: Vec<ProcessId> = self.victims.iter().filter(traced).copied().collect();
        Ok((!traced.is_empty()).then(|| format!("{} still traced", listed(&traced))))
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }

    type Substitute = Freeze;

    fn substitute(written: &Value) -> Option<Freeze> {
        let victims = field(written, "victims")?;
        Some(Freeze { victims })
    }

    fn is_idle(&self, table: &ProcessTable) -> bool {
        !self.victims.iter().any(|id| table.alive(*id))
    }
}

/// `AUDIT_ARCH_X86_64` of the kernel's `include/uapi/linux/audit.h`: a call of a 64-bit program.
const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;

fn run(tamper: &Tamper, process: &HelperProcess) -> Result<(), HelperError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        HelperError::new(format!("could not {what}: {error}"))
    };
    use_precise_timers().map_err(|error| failed("set its timers", &error))?;
    // Blocked and read from a descriptor, since that can be waited for together with a time.
    let mut stops = SigSet::empty();
    stops.add(Signal::SIGCHLD);
    stops
        .thread_block()
        .map_err(|error| failed("block SIGCHLD", &error))?;
    let stops = SignalFd::with_flags(&stops, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|error| failed("listen for stops", &error))?;
    let count = || EventCount::new().map_err(|error| failed("count", &error));
    let mut tracer = SyscallTracer {
        tamper,
        chosen: count()?,
        altered: count()?,
        rng: ChaCha8Rng::seed_from_u64(tamper.seed),
        waiting: BTreeMap::new(),
    };
    let table = ProcessTable::default();
    let mut threads = BTreeSet::new();
    let mut processes = 0;
    for victim in &tamper.victims {
        let before = threads.len();
        seize_all(&table, *victim, &mut threads)?;
        processes += usize::from(threads.len() > before);
    }
    if threads.is_empty() {
        return Err(HelperError::new(format!(
            "none of the {} processes is there any more",
            tamper.victims.len()
        ))
        .hint("they ended between the plan and now; try again"));
    }
    process.ready(format!(
        "{processes} of {} processes traced, {} threads",
        tamper.victims.len(),
        threads.len()
    ))?;
    loop {
        // First the signals, then the stops that they are about: one that comes in between signals again.
        while matches!(stops.read_signal(), Ok(Some(_))) {}
        while let Some(stop) = ThreadStop::next() {
            tracer.handle(stop);
        }
        let now = Instant::now();
        tracer.release_due(now);
        let due = tracer.waiting.keys().next().map(|(due, _)| *due);
        // A failure to wait would only make this loop turn faster.
        poll(
            &mut [PollFd::new(&stops, PollFlags::IN)],
            poll_timeout(due, now).as_ref(),
        )
        .ok();
    }
}

/// Seizes and interrupts every thread of a process. One that starts meanwhile is either found by the next listing or traced from its
/// first step by its creator's options.
fn seize_all(
    table: &ProcessTable,
    victim: ProcessId,
    threads: &mut BTreeSet<i32>,
) -> Result<(), HelperError> {
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_TRACECLONE;
    loop {
        let mut new = 0;
        if !table.alive(victim) {
            return Ok(());
        }
        for thread in table.threads(victim.pid) {
            if threads.contains(&thread) {
                continue;
            }
            match ptrace::seize(Pid::from_raw(thread), options) {
                Ok(()) => {}
                Err(Errno::ESRCH) => continue,
                Err(error) => {
                    let own = std::process::id() as i32;
                    let state = table.thread_stat(victim.pid, thread).map(|stat| stat.state);
                    let is_gone = matches!(state, None | Some('Z' | 'X'));
                    if is_gone || table.thread_tracer(victim.pid, thread) == Some(own) {
                        continue;
                    }
                    let failed = HelperError::new(format!(
                        "process {victim} cannot be traced: thread {thread}: {error}"
                    ));
                    return Err(match check_traceable(table, victim) {
                        Err(why) => failed.hint(why.to_string()),
                        Ok(()) => failed.hint(
                            "a security module or a container's seccomp profile may forbid tracing",
                        ),
                    });
                }
            }
            // A seized thread's number cannot be given out again, so this check is the last word. A stranger is let go, unharmed,
            // when this process exits.
            if table.stat_of(victim).is_none() {
                return Err(HelperError::new(format!(
                    "process {victim} ended, and its id is in use again"
                ))
                .hint("try again"));
            }
            match ptrace::interrupt(Pid::from_raw(thread)) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => {
                    return Err(HelperError::new(format!(
                        "process {victim}: thread {thread} cannot be traced: {error}"
                    )));
                }
            }
            threads.insert(thread);
            new += 1;
        }
        if new == 0 {
            return Ok(());
        }
    }
}

/// Why a thread does not run.
enum ThreadStop {
    /// At the entry to a system call, or at its end.
    Call(i32),
    /// For a signal, which it gets when it goes on.
    Signal(i32, i32),
    /// For the whole process, by a stopping signal: it stays so.
    Group(i32),
    /// For the tracer alone.
    Event(i32),
    /// The thread has ended.
    End(i32),
}

impl ThreadStop {
    /// The next of a thread that waits for this process, without taking it away; none where none waits.
    #[allow(unsafe_code)]
    fn next() -> Option<Self> {
        let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | libc::WNOHANG | libc::__WALL;
        // SAFETY: all of `siginfo_t` may be zero; waitid(2) writes into it and nowhere else; the fields that are read are those that
        // it fills in for a child's change of state.
        let (thread, kind, status) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            if libc::waitid(libc::P_ALL, 0, &raw mut info, flags) != 0 {
                return None;
            }
            (info.si_pid(), info.si_code, info.si_status())
        };
        if thread == 0 {
            return None;
        }
        Some(match kind {
            libc::CLD_TRAPPED if status == libc::SIGTRAP | 0x80 => ThreadStop::Call(thread),
            libc::CLD_TRAPPED if status >> 8 == libc::PTRACE_EVENT_STOP => match status & 0xff {
                libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
                    ThreadStop::Group(thread)
                }
                _ => ThreadStop::Event(thread),
            },
            libc::CLD_TRAPPED if status >> 8 != 0 => ThreadStop::Event(thread),
            libc::CLD_TRAPPED | libc::CLD_STOPPED => ThreadStop::Signal(thread, status),
            _ => ThreadStop::End(thread),
        })
    }
}

/// Takes notice of a thread's stop or end.
#[allow(unsafe_code)]
fn take_notice(thread: i32, of: i32) {
    // SAFETY: as above; that the thread may be gone is an error that is returned, and no harm.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = of | libc::WNOHANG | libc::__WALL;
        libc::waitid(libc::P_PID, thread as libc::id_t, &raw mut info, flags);
    }
}

/// Lets a thread go on by one of ptrace's ways, with a signal or none (0). (`nix` knows no real-time signals.)
#[allow(unsafe_code)]
fn go_on(thread: i32, way: libc::c_uint, signal: i32) {
    // SAFETY: these requests read no memory of this process: the address is ignored and the data is the signal's number. That the
    // thread may be gone by now is an error that is returned, and no harm.
    unsafe {
        libc::ptrace(
            way,
            thread,
            std::ptr::null_mut::<libc::c_void>(),
            signal as libc::c_long,
        );
    }
}

struct SyscallTracer<'a> {
    tamper: &'a Tamper,
    /// Calls that were chosen by their numbers.
    chosen: EventCount,
    /// Those of them that were altered.
    altered: EventCount,
    rng: ChaCha8Rng,
    /// The threads that wait at the entry to a call, by the time when they go on.
    waiting: BTreeMap<(Instant, i32), ()>,
}

impl SyscallTracer<'_> {
    fn handle(&mut self, stop: ThreadStop) {
        match stop {
            ThreadStop::Call(thread) => {
                if let Some(due) = self.alter(thread) {
                    // Noticed, or it would be the next one for ever. No signal can be lost by that.
                    take_notice(thread, libc::WSTOPPED);
                    self.waiting.insert((due, thread), ());
                } else {
                    go_on(thread, libc::PTRACE_SYSCALL, 0);
                }
            }
            ThreadStop::Signal(thread, signal) => go_on(thread, libc::PTRACE_SYSCALL, signal),
            ThreadStop::Group(thread) => {
                take_notice(thread, libc::WSTOPPED);
                go_on(thread, libc::PTRACE_LISTEN, 0);
            }
            ThreadStop::Event(thread) => go_on(thread, libc::PTRACE_SYSCALL, 0),
            ThreadStop::End(thread) => take_notice(thread, libc::WEXITED),
        }
    }

    /// Alters the call that a thread is at the entry of, if it is one to be altered. When it is to go on, where it waits.
    fn alter(&mut self, thread: i32) -> Option<Instant> {
        let number = entered_call(thread)?;
        if !self.tamper.calls.contains(&number) {
            return None;
        }
        self.chosen.add(1);
        let draw = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        if 100.0 * draw >= self.tamper.percent {
            return None;
        }
        match self.tamper.alteration {
            CallAlteration::Result(result) => {
                if skip_call(thread, result) {
                    self.altered.add(1);
                }
                None
            }
            CallAlteration::Delay(delay) => {
                self.altered.add(1);
                Instant::now().checked_add(delay.0)
            }
        }
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(first) = self.waiting.first_entry()
            && first.key().0 <= now
        {
            let ((_, thread), ()) = first.remove_entry();
            go_on(thread, libc::PTRACE_SYSCALL, 0);
        }
    }
}

/// The number of the call that a thread is at the entry of; none where it is at a call's end, or the call is of another kind of program.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn entered_call(thread: i32) -> Option<i64> {
    let info = ptrace::syscall_info(Pid::from_raw(thread)).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY || info.arch != AUDIT_ARCH_X86_64 {
        return None;
    }
    let registers = ptrace::getregs(Pid::from_raw(thread)).ok()?;
    i64::try_from(registers.orig_rax).ok()
}

/// Has the kernel skip the call that a thread is at the entry of. Whether it does.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn skip_call(thread: i32, result: i32) -> bool {
    let Ok(mut registers) = ptrace::getregs(Pid::from_raw(thread)) else {
        return false;
    };
    registers.orig_rax = u64::MAX;
    registers.rax = i64::from(result) as u64;
    ptrace::setregs(Pid::from_raw(thread), registers).is_ok()
}

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
fn entered_call(_: i32) -> Option<i64> {
    None
}

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
fn skip_call(_: i32, _: i32) -> bool {
    false
}
