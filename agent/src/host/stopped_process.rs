//! The door for writes into the memory of other processes, while all of their threads are stopped. They are stopped by tracing, so the
//! kernel lets them go on if this process dies at any moment.

use super::{Host, HostError};
use crate::processes::{ProcessId, ProcessTable, SeccompMode};
use crate::syscall_filter::{FilterInstruction, FilteredCall, SyscallFilter};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// How long the threads of a process may take to stop where they may be written.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a process goes on that was stopped where its memory must not be written.
const RETRY_DELAY: Duration = Duration::from_micros(200);
/// How much of a thread's stack is searched for signal handlers that return to where must not be written, in bytes.
const MAX_STACK_BYTES: usize = 256 << 10;
/// The code segment of 64-bit programs (`__USER_CS` of the kernel's `arch/x86/include/asm/segment.h`).
const USER_CODE_SEGMENT: u64 = 0x33;

/// `PTRACE_SECCOMP_GET_FILTER` of the kernel's `include/uapi/linux/ptrace.h`.
const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;

/// Bytes that are written at an address, where others are there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryWrite {
    /// The address in the process.
    pub address: u64,
    /// The bytes that must be there.
    pub before: Vec<u8>,
    /// The bytes that are written.
    pub after: Vec<u8>,
}

impl MemoryWrite {
    /// The addresses that are written, without the first.
    fn inner_addresses(&self) -> Range<u64> {
        let length = self.after.len() as u64;
        self.address.saturating_add(1)..self.address.saturating_add(length)
    }
}

impl Host {
    /// Writes into the memory of exactly this process, in this order, while none of its threads runs, and none is about to run, or to
    /// return from a signal handler to, what is written (but for the first byte of each write, before which an instruction ends).
    /// Returns whether the process was there. Nothing is written unless all bytes that must be there are there, and the filters of system
    /// calls (seccomp) of all threads permit these calls, which the written code makes.
    ///
    /// # Errors
    /// The process is traced by somebody else, did not stop in time, or its memory is not as expected.
    pub fn write_stopped(
        &self,
        what: &str,
        id: ProcessId,
        writes: &[MemoryWrite],
        calls: &[FilteredCall],
    ) -> Result<bool, HostError> {
        let keep_out: Vec<Range<u64>> = writes.iter().map(MemoryWrite::inner_addresses).collect();
        let work = || {
            let mut stopped = StoppedThreads::of(id);
            match stopped.stop_outside(&keep_out)? {
                true => stopped
                    .check_calls(calls)
                    .and_then(|()| stopped.write(writes)),
                false => Ok(false),
            }
        };
        self.effect(what, || {
            // The kernel lets go whatever a thread traces when that thread ends, also a victim's thread that waited for a device
            // and so could not be told to go on.
            std::thread::scope(|scope| {
                match std::thread::Builder::new()
                    .name("stop".into())
                    .spawn_scoped(scope, work)
                {
                    Ok(thread) => thread.join().unwrap_or_else(|_| {
                        Err(io::Error::other("the thread that stops it failed"))
                    }),
                    // There is no room for a thread: the caller's own ends soon enough.
                    Err(_) => work(),
                }
            })
        })
    }
}

/// The stopped threads of a process. They go on when this is dropped.
struct StoppedThreads {
    process: ProcessId,
    table: ProcessTable,
    /// Each with the signal that it stopped for, which it has not had yet; 0 where it stopped for none.
    threads: BTreeMap<i32, i32>,
}

impl Drop for StoppedThreads {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl StoppedThreads {
    fn of(process: ProcessId) -> Self {
        StoppedThreads {
            process,
            table: ProcessTable::default(),
            threads: BTreeMap::new(),
        }
    }

    /// Stops every thread where none is within `keep_out`. False where the process has ended.
    fn stop_outside(&mut self, keep_out: &[Range<u64>]) -> io::Result<bool> {
        let until = Instant::now() + STOP_TIMEOUT;
        loop {
            if !self.stop_all(until)? {
                return Ok(false);
            }
            if !self.is_within(keep_out)? {
                return Ok(true);
            }
            if Instant::now() > until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "one of its threads stays where the code is to be altered",
                ));
            }
            self.let_go();
            std::thread::sleep(RETRY_DELAY);
        }
    }

    /// Stops every thread of the process, those that start meanwhile as well. False where it has ended.
    fn stop_all(&mut self, until: Instant) -> io::Result<bool> {
        loop {
            if self.table.stat_of(self.process).is_none() {
                return Ok(false);
            }
            let mut new = Vec::new();
            for thread in self.table.threads(self.process.pid) {
                if !self.threads.contains_key(&thread) && self.seize(thread)? {
                    new.push(thread);
                }
            }
            for thread in &new {
                self.wait_for(*thread, until)?;
            }
            if new.is_empty() {
                return Ok(!self.threads.is_empty());
            }
        }
    }

    /// Has a thread stop. False where it has ended.
    fn seize(&mut self, thread: i32) -> io::Result<bool> {
        let pid = Pid::from_raw(thread);
        match ptrace::seize(pid, ptrace::Options::empty()) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(false),
            Err(_) if self.has_ended(thread) => return Ok(false),
            Err(error) => match self.table.thread_tracer(self.process.pid, thread) {
                // It was seized before, and waited for a device when it was let go.
                Some(tracer) if tracer == rustix::thread::gettid().as_raw_nonzero().get() => {}
                Some(tracer) => {
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        format!("thread {thread} cannot be stopped: process {tracer} traces it"),
                    ));
                }
                None => {
                    return Err(io::Error::new(
                        io::Error::from(error).kind(),
                        format!("thread {thread} cannot be stopped: {}", error.desc()),
                    ));
                }
            },
        }
        self.threads.insert(thread, 0);
        // A seized thread's number cannot be given out again, so this check is the last word.
        if self.table.stat_of(self.process).is_none() {
            return Err(io::Error::other(format!(
                "process {} ended, and its id is in use again",
                self.process
            )));
        }
        match ptrace::interrupt(pid) {
            Ok(()) | Err(Errno::ESRCH) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn state(&self, thread: i32) -> Option<char> {
        let stat = self.table.thread_stat(self.process.pid, thread);
        stat.map(|stat| stat.state)
    }

    fn has_ended(&self, thread: i32) -> bool {
        matches!(self.state(thread), None | Some('Z' | 'X'))
    }

    /// Waits until a thread is stopped. Its state is read, since other threads of this process wait for its children, and would be told
    /// of a stop as well.
    fn wait_for(&mut self, thread: i32, until: Instant) -> io::Result<()> {
        loop {
            match self.state(thread) {
                None | Some('Z' | 'X') => {
                    self.threads.remove(&thread);
                    take_notice(thread);
                    return Ok(());
                }
                // It stops before it runs any code of its own.
                Some('D') => return Ok(()),
                Some('t') => match ptrace::getsiginfo(Pid::from_raw(thread)) {
                    Ok(info) if info.si_code >> 8 == libc::PTRACE_EVENT_STOP => return Ok(()),
                    // A signal came first. It gets that when it is let go.
                    Ok(info) => {
                        self.threads.insert(thread, info.si_signo);
                        return Ok(());
                    }
                    // On its way to the stop.
                    Err(_) => {}
                },
                Some(_) => {}
            }
            if Instant::now() > until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("thread {thread} did not stop within {STOP_TIMEOUT:?}"),
                ));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Whether a thread is about to run code at one of these addresses, or to return to it from a signal handler.
    fn is_within(&self, places: &[Range<u64>]) -> io::Result<bool> {
        let is_inside = |address: u64| places.iter().any(|place| place.contains(&address));
        for thread in self.threads.keys() {
            match self.registers(*thread)? {
                Some((stack, next))
                    if !is_inside(next) && !self.returns_to(*thread, stack, is_inside) => {}
                None if self.has_ended(*thread) => {}
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    /// The stack pointer of a stopped thread, and the address of its next instruction. None where it has ended, or is not stopped.
    fn registers(&self, thread: i32) -> io::Result<Option<(u64, u64)>> {
        let file = format!("/proc/{}/task/{thread}/syscall", self.process.pid);
        let text = match std::fs::read_to_string(file) {
            Err(_) if self.has_ended(thread) => return Ok(None),
            text => text?,
        };
        // The last two words are the stack pointer and the instruction pointer, see proc_pid_syscall(5).
        let mut words = text.split_ascii_whitespace().rev();
        let mut number = || {
            let word = words.next()?.strip_prefix("0x")?;
            u64::from_str_radix(word, 16).ok()
        };
        let (next, stack) = (number(), number());
        Ok(stack.zip(next))
    }

    /// Whether a signal handler that a thread is in returns to one of these addresses: the kernel has put the registers of what was
    /// interrupted on the stack, the instruction pointer two words before the code segment (`struct sigcontext_64` of its
    /// `arch/x86/include/uapi/asm/sigcontext.h`).
    fn returns_to(&self, thread: i32, stack: u64, is_inside: impl Fn(u64) -> bool) -> bool {
        let mut bytes = vec![0; MAX_STACK_BYTES];
        let stack = stack & !7;
        let Ok(count) = self
            .memory(thread, false)
            .and_then(|memory| memory.read_at(&mut bytes, stack))
        else {
            // A thread without a stack is in no handler.
            return false;
        };
        let words: Vec<u64> = (bytes.get(..count).unwrap_or_default().chunks_exact(8))
            .map(|word| {
                word.iter()
                    .rev()
                    .fold(0, |number, byte| number << 8 | u64::from(*byte))
            })
            .collect();
        words
            .windows(3)
            .any(|at| is_inside(at[0]) && at[2] & 0xffff == USER_CODE_SEGMENT)
    }

    fn memory(&self, thread: i32, to_write: bool) -> io::Result<File> {
        let file = format!("/proc/{}/task/{thread}/mem", self.process.pid);
        File::options().read(true).write(to_write).open(file)
    }

    /// Checks that every thread is permitted to make these calls.
    fn check_calls(&self, calls: &[FilteredCall]) -> io::Result<()> {
        let confined = self.threads.keys().filter(|_| !calls.is_empty());
        for thread in confined {
            let not_permitted = |why: &str| {
                Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!("{why} of thread {thread} (seccomp)"),
                ))
            };
            let filters = match self.table.seccomp_mode(self.process.pid, *thread) {
                SeccompMode::None => continue,
                SeccompMode::Strict => {
                    return not_permitted("the clocks cannot be read by system calls: strict mode");
                }
                SeccompMode::Filter => filters(*thread),
            };
            let Ok(filters) = filters else {
                return not_permitted(
                    "whether the clocks may be read by system calls is not known, since the agent lacks CAP_SYS_ADMIN or the kernel CONFIG_CHECKPOINT_RESTORE: a filter",
                );
            };
            let is_permitted = |call| filters.iter().all(|filter| filter.permits(call));
            if filters.is_empty() || !calls.iter().all(is_permitted) {
                return not_permitted(
                    "the clocks cannot be read by system calls: `clock_gettime` is not permitted by a filter",
                );
            }
        }
        Ok(())
    }

    /// Does the writes. False where the process has ended.
    fn write(&self, writes: &[MemoryWrite]) -> io::Result<bool> {
        let Some((thread, _)) = self.threads.first_key_value() else {
            return Ok(false);
        };
        let memory = self.memory(*thread, true)?;
        for write in writes {
            let mut there = vec![0; write.before.len()];
            memory.read_exact_at(&mut there, write.address)?;
            if there != write.before {
                return Err(io::Error::other(format!(
                    "the memory of process {} at {:#x} is not as expected: something else has changed it",
                    self.process, write.address
                )));
            }
        }
        for write in writes {
            memory.write_all_at(&write.after, write.address)?;
        }
        Ok(true)
    }

    fn let_go(&mut self) {
        for (thread, signal) in std::mem::take(&mut self.threads) {
            // One that has ended meanwhile is waited for, so that its own parent hears of it.
            if !detach(thread, signal) {
                take_notice(thread);
            }
        }
    }
}

/// Lets a stopped thread go on untraced, with a signal or none (0). Whether it was stopped. (`nix` knows no real-time signals.)
#[allow(unsafe_code)]
fn detach(thread: i32, signal: i32) -> bool {
    // SAFETY: PTRACE_DETACH reads no memory of this process: its address is ignored and its data is the signal's number. That the
    // thread may be gone by now is an error that it returns, and no harm.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_DETACH,
            thread,
            std::ptr::null_mut::<libc::c_void>(),
            signal as libc::c_long,
        )
    };
    result == 0
}

/// The filters of system calls that a stopped thread is under, the newest first (ptrace(2), `PTRACE_SECCOMP_GET_FILTER`).
#[allow(unsafe_code)]
fn filters(thread: i32) -> nix::Result<Vec<SyscallFilter>> {
    let ask = |number: usize, to: *mut FilterInstruction| {
        // SAFETY: with no place to write to, the kernel only says how many instructions there are; otherwise it writes as many as it said,
        // and the place has room for them, since a filter never changes.
        let count = unsafe {
            libc::ptrace(
                PTRACE_SECCOMP_GET_FILTER,
                thread,
                number,
                to.cast::<libc::c_void>(),
            )
        };
        Errno::result(count)
    };
    let mut found = Vec::new();
    loop {
        let number = found.len();
        let length = match ask(number, std::ptr::null_mut()) {
            Err(Errno::ENOENT) => return Ok(found),
            length => length?,
        };
        let length = usize::try_from(length).unwrap_or_default();
        let mut program = vec![FilterInstruction::default(); length];
        ask(number, program.as_mut_ptr())?;
        found.push(SyscallFilter(program));
    }
}

/// Takes notice of a traced thread's end.
fn take_notice(thread: i32) {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    waitpid(Pid::from_raw(thread), Some(flags)).ok();
}
