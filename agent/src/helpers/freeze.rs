//! Holding processes still by tracing them, instead of SIGSTOP: when the tracer dies the kernel
//! lets them run on, whatever happened to everybody else.
//!
//! Every thread is seized (nothing shows of that to it) and then interrupted, which stops it
//! outside of any signal: signals sent to it meanwhile stay pending, and one that was stopped
//! before is stopped after. Nothing here ever takes a signal away: stops are only looked at
//! (`WNOWAIT`), since a stop that was waited for and whose tracer dies has lost its signal.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::display::listed;
use super::evidence::effect;
use super::helper::{AlteredPlace, Helper};
use super::written::field;
use crate::capabilities::{CAP_SYS_PTRACE, has_capability};
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::wire::Effect;
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// How long a thread that is not waiting for a device may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a process can't be held by tracing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTraceable {
    /// This process traces it already, and there can be one only.
    Traced(i32),
    /// The kernel would not permit it; the text is for people.
    NotPermitted(String),
}

impl fmt::Display for NotTraceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotTraceable::Traced(tracer) => write!(f, "process {tracer} traces it already"),
            NotTraceable::NotPermitted(why) => f.write_str(why),
        }
    }
}

/// Whether this process could be held by tracing, as far as that shows without trying.
///
/// # Errors
/// Why not.
pub fn check_traceable(table: &ProcessTable, id: ProcessId) -> Result<(), NotTraceable> {
    let threads = table.threads(id.pid);
    if let Some(tracer) = threads
        .iter()
        .find_map(|thread| table.thread_tracer(id.pid, *thread))
    {
        return Err(NotTraceable::Traced(tracer));
    }
    let no = |why: &str| Err(NotTraceable::NotPermitted(why.to_owned()));
    // Linux's Yama (Documentation/admin-guide/LSM/Yama.rst): 0 classic, 1 descendants only, 2 with
    // the capability only, 3 nobody.
    let scope = yama_scope();
    if scope == 3 {
        return no("`kernel.yama.ptrace_scope` is 3: nobody may trace");
    }
    if has_capability(CAP_SYS_PTRACE) {
        return Ok(());
    }
    // `/proc/PID` belongs to root where a process keeps others from looking into it.
    let owner = table.metadata(id.pid, "").map(|folder| folder.st_uid).ok();
    if owner != Some(rustix::process::geteuid().as_raw()) {
        return no("it is another user's, and the agent lacks CAP_SYS_PTRACE");
    }
    match scope {
        0 => Ok(()),
        scope => no(&format!(
            "`kernel.yama.ptrace_scope` is {scope}, and the agent lacks CAP_SYS_PTRACE"
        )),
    }
}

/// The restriction that Yama puts on tracing; 0 where the kernel has no Yama.
pub(crate) fn yama_scope() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Freezes processes by tracing them (ptrace). They run on when the helper dies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Freeze {
    /// The processes that are frozen, each with all its threads.
    pub victims: Vec<ProcessId>,
}

impl Helper for Freeze {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(&self.victims, process)
    }

    fn describe(&self) -> String {
        format!("hold {} by tracing", listed(&self.victims))
    }

    fn describe_end(&self) -> &'static str {
        "the kernel lets the held processes run on"
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
        let victims = &self.victims;
        let alive: Vec<&ProcessId> = victims.iter().filter(|id| table.alive(**id)).collect();
        let stopped = alive
            .iter()
            .filter(|id| is_held(id.pid, helper, table))
            .count();
        let gone = victims.len() - alive.len();
        let mut seen = format!("{stopped} of {} processes stopped", victims.len());
        if gone > 0 {
            seen += &format!(", {gone} gone");
        }
        effect(
            stopped > 0,
            seen,
            &[
                ("stopped-processes", stopped as f64),
                ("gone-processes", gone as f64),
            ],
        )
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    /// A tracer's death and its tracees' release are one step of the kernel's, so a victim that a helper still traces is not released.
    fn residue(&self, table: &ProcessTable) -> io::Result<Option<String>> {
        // A process that is hidden from the agent is not gone.
        for id in &self.victims {
            table.find(*id)?;
        }
        let held = |id: &&ProcessId| {
            table.state(**id) == Some('t')
                && table
                    .tracer(id.pid)
                    .and_then(|tracer| table.name(tracer))
                    .as_deref()
                    == Some(crate::processes::HELPER_NAME)
        };
        let held: Vec<ProcessId> = self.victims.iter().filter(held).copied().collect();
        Ok((!held.is_empty()).then(|| format!("{} still held", listed(&held))))
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }

    type Substitute = Self;

    fn substitute(written: &Value) -> Option<Self> {
        let victims = field(written, "victims")?;
        Some(Freeze { victims })
    }

    fn is_idle(&self, table: &ProcessTable) -> bool {
        !self.victims.iter().any(|id| table.alive(*id))
    }
}

/// Whether every thread of a process is held by the helper, and none of them runs.
fn is_held(pid: i32, helper: i32, table: &ProcessTable) -> bool {
    let threads = table.threads(pid);
    let mut held = 0;
    for thread in threads {
        match table.thread_stat(pid, thread).map(|stat| stat.state) {
            None | Some('Z' | 'X') => {}
            Some('t' | 'D') if table.thread_tracer(pid, thread) == Some(helper) => held += 1,
            Some(_) => return false,
        }
    }
    held > 0
}

fn run(victims: &[ProcessId], process: &HelperProcess) -> Result<(), HelperError> {
    let mut tracer = Tracer {
        table: ProcessTable::default(),
        threads: BTreeMap::new(),
    };
    let mut gone = 0;
    for victim in victims {
        // Opened before it is compared, so what follows concerns this process and no other.
        match tracer.table.open_pidfd_checked(*victim) {
            Ok(Some(_)) => {}
            Ok(None) => gone += 1,
            Err(error) => {
                return Err(HelperError::new(format!(
                    "process {victim}: can't be opened: {error}"
                )));
            }
        }
    }
    // A thread may start another before it stops, so look again until there is no new one.
    loop {
        let mut new = 0;
        for victim in victims {
            new += tracer.seize(*victim)?;
        }
        tracer.wait_until_stopped()?;
        if new == 0 {
            break;
        }
    }
    let held: std::collections::BTreeSet<i32> = tracer
        .threads
        .values()
        .map(|thread| thread.process)
        .collect();
    if held.is_empty() {
        return Err(HelperError::new(format!(
            "none of the {} processes is there any more",
            victims.len()
        ))
        .hint("they ended between the plan and now; try again"));
    }
    let waiting = tracer
        .threads
        .values()
        .filter(|thread| !thread.stopped)
        .count();
    let threads = match tracer.threads.len() {
        1 => "1 thread".to_owned(),
        many => format!("{many} threads"),
    };
    let mut seen = format!(
        "{} of {} processes stopped, {threads}",
        held.len(),
        victims.len()
    );
    if waiting > 0 {
        seen += &format!("; {waiting} of them wait for a device and stop when that answers");
    }
    if gone > 0 {
        seen += &format!("; {gone} ended before");
    }
    process.ready(seen)?;
    // A held process that is killed reaches its own parent only after its tracer took notice.
    while !matches!(waitid(WaitId::All, ENDED), Err(rustix::io::Errno::CHILD)) {}
    process.wait_for_ever()
}

/// `__WALL`: threads and processes alike.
const ALL_KINDS: WaitIdOptions = WaitIdOptions::from_bits_retain(libc::__WALL as u32);
const ENDED: WaitIdOptions = WaitIdOptions::EXITED.union(ALL_KINDS);
const LOOK: WaitIdOptions = ENDED
    .union(WaitIdOptions::STOPPED)
    .union(WaitIdOptions::NOWAIT)
    .union(WaitIdOptions::NOHANG);

struct Tracer {
    table: ProcessTable,
    threads: BTreeMap<i32, Thread>,
}

struct Thread {
    process: i32,
    stopped: bool,
}

impl Tracer {
    /// Seizes and interrupts what is not yet seized of a process. Returns how many threads.
    fn seize(&mut self, victim: ProcessId) -> Result<usize, HelperError> {
        if !self.table.alive(victim)
            && !self
                .threads
                .values()
                .any(|thread| thread.process == victim.pid)
        {
            return Ok(0);
        }
        let mut new = 0;
        for thread in self.table.threads(victim.pid) {
            if self.threads.contains_key(&thread) {
                continue;
            }
            match ptrace::seize(Pid::from_raw(thread), ptrace::Options::empty()) {
                Ok(()) => {}
                Err(Errno::ESRCH) => continue,
                Err(error) => match self.refused(victim, thread, error) {
                    Some(failed) => return Err(failed),
                    None => continue,
                },
            }
            self.threads.insert(
                thread,
                Thread {
                    process: victim.pid,
                    stopped: false,
                },
            );
            // A seized thread's number can't be given out again, so this look is the last word.
            // A stranger is let go, unharmed and never stopped, when the helper exits.
            let is_of_victim = self.table.thread_stat(victim.pid, thread).is_some();
            if !is_of_victim || self.table.stat_of(victim).is_none() {
                return Err(HelperError::new(format!(
                    "process {victim} ended, and its id is in use again"
                ))
                .hint("try again"));
            }
            match ptrace::interrupt(Pid::from_raw(thread)) {
                Ok(()) | Err(Errno::ESRCH) => new += 1,
                Err(error) => {
                    return Err(HelperError::new(format!(
                        "process {victim}: thread {thread} can't be stopped: {error}"
                    )));
                }
            }
        }
        Ok(new)
    }

    /// Why a thread could not be seized; nothing where that is because it has ended.
    fn refused(&self, victim: ProcessId, thread: i32, error: Errno) -> Option<HelperError> {
        let state = self
            .table
            .thread_stat(victim.pid, thread)
            .map(|stat| stat.state);
        if matches!(state, None | Some('Z' | 'X')) {
            return None;
        }
        let failed = HelperError::new(format!(
            "process {victim} can't be held: thread {thread}: {error}"
        ));
        Some(match check_traceable(&self.table, victim) {
            Err(why) => failed.hint(why.to_string()),
            Ok(()) => {
                failed.hint("a security module or a container's seccomp profile may forbid tracing")
            }
        })
    }

    /// Waits until every thread is stopped, has ended, or waits for a device.
    fn wait_until_stopped(&mut self) -> Result<(), HelperError> {
        let until = Instant::now() + STOP_TIMEOUT;
        loop {
            let pending: Vec<i32> = self
                .threads
                .iter()
                .filter(|(_, thread)| !thread.stopped)
                .map(|(id, _)| *id)
                .collect();
            let mut running = None;
            for id in pending {
                let outcome = self.look_at(id);
                match outcome {
                    ThreadState::Stopped => self
                        .threads
                        .entry(id)
                        .and_modify(|thread| thread.stopped = true),
                    ThreadState::Ended => {
                        self.threads.remove(&id);
                        continue;
                    }
                    ThreadState::Running => {
                        let process = self.threads.get(&id).map_or(id, |thread| thread.process);
                        // It stops as soon as it comes back, before it runs any code of its own.
                        if self
                            .table
                            .thread_stat(process, id)
                            .is_some_and(|stat| stat.state != 'D')
                        {
                            running = Some(id);
                        }
                        continue;
                    }
                };
            }
            let Some(running) = running else {
                return Ok(());
            };
            if Instant::now() > until {
                return Err(HelperError::new(format!(
                    "thread {running} did not stop within {STOP_TIMEOUT:?}"
                )));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn look_at(&self, id: i32) -> ThreadState {
        let Some(pid) = rustix::process::Pid::from_raw(id) else {
            return ThreadState::Ended;
        };
        match waitid(WaitId::Pid(pid), LOOK) {
            Ok(Some(status)) => match status.trapping_signal() {
                Some(trapped) if trapped >> 8 == libc::PTRACE_EVENT_STOP => ThreadState::Stopped,
                // A signal came before the interruption: let it have its way, and be interrupted then.
                Some(signal) => {
                    resume_with(id, signal);
                    ThreadState::Running
                }
                // Ended: take notice, so that its own parent may.
                None => match waitid(WaitId::Pid(pid), ENDED.union(WaitIdOptions::NOHANG)) {
                    Ok(None) => ThreadState::Running,
                    Ok(Some(_)) | Err(_) => ThreadState::Ended,
                },
            },
            Ok(None) => ThreadState::Running,
            Err(_) => ThreadState::Ended,
        }
    }
}

enum ThreadState {
    Stopped,
    Running,
    Ended,
}

/// Lets a thread that stopped for a signal go on with that signal. (`nix` knows no real-time signals.)
#[allow(unsafe_code)]
fn resume_with(thread: i32, signal: i32) {
    // SAFETY: PTRACE_CONT reads no memory of this process: its address is ignored and its data is the
    // signal's number. That the thread may be gone by now is an error it returns, and no harm.
    unsafe {
        libc::ptrace(
            libc::PTRACE_CONT,
            thread,
            std::ptr::null_mut::<libc::c_void>(),
            signal as libc::c_long,
        );
    }
}
