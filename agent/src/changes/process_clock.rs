//! The time of day that processes read. Their clock functions jump to code that adds an offset; what was at the entries is kept here,
//! and written back. Children inherit the altered code by fork, and are found by the mark that it bears. Nothing in the kernel ends this
//! one while a process lives, so the ledger and the guardian do.

use super::{Observed, ReversibleChange, count, listed};
use crate::helpers::effect;
use crate::host::{Host, HostError, MemoryWrite};
use crate::processes::{ProcessId, ProcessTable};
use crate::syscall_filter::FilteredCall;
use crate::vdso::{
    CLOCK_GETTIME, CLOCKS, ClockCode, ClockFunction, ClockOffset, ENTRY_BYTES, GETTIMEOFDAY,
    IS_KNOWN, NotSkewable, VdsoImage, jump, jump_target, mark_bytes,
};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{ChangeView, Effect};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

/// How often processes are listed in one undo: what a process forks while others are restored is found by another look.
const UNDO_LOOKS: usize = 3;

/// Processes that read another time of day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProcessClock {
    /// The name by which the altered code is found.
    pub mark: String,
    /// What is added to the time of day, in milliseconds.
    pub offset_ms: i64,
    /// The processes whose clock functions are altered.
    pub victims: Vec<SkewedProcess>,
}

/// A process with the places in its vDSO that are altered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SkewedProcess {
    /// The process that is altered.
    pub process: ProcessId,
    /// The address of its vDSO.
    pub vdso: u64,
    /// Where the code is written, counted in bytes from the beginning of the vDSO; zeros are there before.
    pub code: u64,
    /// How many bytes the code has.
    pub code_bytes: usize,
    /// The entries of the clock functions.
    pub entries: Vec<AlteredEntry>,
}

/// The entry of a clock function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlteredEntry {
    /// The function that begins there.
    pub function: ClockFunction,
    /// Where it begins, counted in bytes from the beginning of the vDSO.
    pub at: u64,
    /// The bytes that were there.
    pub before: [u8; ENTRY_BYTES],
}

/// What stands at the entry of a clock function now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    Original,
    /// A jump to the altered code.
    Altered,
    /// What somebody else has written since.
    Foreign,
}

/// The vDSO of a process as it is now, as far as a change may have altered it.
struct SeenVdso<'a> {
    plan: &'a SkewedProcess,
    bytes: Vec<u8>,
    mark: &'a [u8],
}

impl SeenVdso<'_> {
    fn at(&self, at: u64, length: usize) -> &[u8] {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(at..at.saturating_add(length));
        bytes.unwrap_or_default()
    }

    fn entry(&self, entry: &AlteredEntry) -> EntryState {
        let now = self.at(entry.at, ENTRY_BYTES);
        match jump_target(entry.at, now) {
            _ if now == entry.before => EntryState::Original,
            Some(to) if self.plan.code_range().contains(&to) => EntryState::Altered,
            _ => EntryState::Foreign,
        }
    }

    fn entries(&self, state: EntryState) -> impl Iterator<Item = &AlteredEntry> {
        let entries = self.plan.entries.iter();
        entries.filter(move |entry| self.entry(entry) == state)
    }

    fn has_code(&self) -> bool {
        self.at(self.plan.code, self.mark.len()) == self.mark
    }

    /// Whether anything of the change is there.
    fn is_altered(&self) -> bool {
        self.has_code() || self.entries(EntryState::Altered).next().is_some()
    }

    /// Whether every clock function leads to the code.
    fn is_skewed(&self) -> bool {
        let altered = self.entries(EntryState::Altered).count();
        self.has_code() && altered == self.plan.entries.len() && altered > 0
    }

    /// Writes back what the process had: first the entries, so that no thread comes to the code any more, and then the code. What others
    /// have written since stays, and the code with it, to which it may lead.
    fn restore(&self) -> [Vec<MemoryWrite>; 2] {
        let write = |at: u64, before: &[u8], after: Vec<u8>| MemoryWrite {
            address: self.plan.vdso.saturating_add(at),
            before: before.to_vec(),
            after,
        };
        let entries = self.entries(EntryState::Altered).map(|entry| {
            let now = self.at(entry.at, ENTRY_BYTES);
            write(entry.at, now, entry.before.to_vec())
        });
        let code = self.at(self.plan.code, self.plan.code_bytes);
        let is_led_to = self.entries(EntryState::Foreign).next().is_some();
        let code = (!is_led_to).then(|| write(self.plan.code, code, vec![0; code.len()]));
        [entries.collect(), code.into_iter().collect()]
    }
}

impl SkewedProcess {
    /// What would be altered in a process with this vDSO, given by its address and its bytes.
    ///
    /// # Errors
    /// Its clocks cannot be altered in it.
    pub fn of(
        process: ProcessId,
        vdso: Option<(u64, Vec<u8>)>,
        mark: &str,
    ) -> Result<Self, NotSkewable> {
        if !IS_KNOWN {
            return Err(NotSkewable::Machine);
        }
        let (vdso, bytes) = vdso.ok_or(NotSkewable::Missing)?;
        let image = VdsoImage::new(&bytes)?;
        let entries = image.entries()?;
        // The code is as long for any offset.
        let code_bytes = ClockCode::new(ClockOffset::millis(0), &mark_bytes(mark))
            .bytes
            .len();
        Ok(SkewedProcess {
            process,
            vdso,
            code: image.room(code_bytes)?,
            code_bytes,
            entries: (entries.into_iter())
                .map(|(function, at, before)| AlteredEntry {
                    function,
                    at,
                    before,
                })
                .collect(),
        })
    }

    fn code_range(&self) -> Range<u64> {
        self.code..self.code.saturating_add(self.code_bytes as u64)
    }

    /// What a process has now where this one has its vDSO; none where that is not mapped.
    fn see<'a>(
        &'a self,
        pid: i32,
        mark: &'a [u8],
        table: &ProcessTable,
    ) -> io::Result<Option<SeenVdso<'a>>> {
        let length = usize::try_from(self.code_range().end).unwrap_or(usize::MAX);
        let bytes = table.memory_of(pid, self.vdso, length.min(MAX_SEEN_BYTES))?;
        Ok(bytes.map(|bytes| SeenVdso {
            plan: self,
            bytes,
            mark,
        }))
    }

    /// The system calls that the code makes: for each clock that a vDSO knows, and for the time zone.
    fn calls(&self) -> Vec<FilteredCall> {
        let clocks = CLOCKS.into_iter().map(|clock| (CLOCK_GETTIME, clock));
        clocks
            .chain([(GETTIMEOFDAY, 0)])
            .map(|(number, argument)| FilteredCall {
                number,
                instruction: self.vdso.saturating_add(self.code),
                argument,
            })
            .collect()
    }

    /// Has the clock functions lead to the code.
    fn alter(&self, offset: ClockOffset, mark: &[u8]) -> Vec<MemoryWrite> {
        let code = ClockCode::new(offset, mark);
        let jumps = self.entries.iter().filter_map(|entry| {
            let to = self.code.saturating_add(code.begin(entry.function)?);
            Some(MemoryWrite {
                address: self.vdso.saturating_add(entry.at),
                before: entry.before.to_vec(),
                after: jump(entry.at, to).to_vec(),
            })
        });
        // The code first, so that the process is whole after each write.
        let body = MemoryWrite {
            address: self.vdso.saturating_add(self.code),
            before: vec![0; code.bytes.len()],
            after: code.bytes.clone(),
        };
        std::iter::once(body).chain(jumps).collect()
    }
}

/// Most bytes of a vDSO that are compared; a ledger entry that names more is wrong.
const MAX_SEEN_BYTES: usize = 64 << 10;

impl ProcessClock {
    fn ids(&self) -> Vec<ProcessId> {
        self.victims.iter().map(|victim| victim.process).collect()
    }

    /// Every process that has something of the change: victims, and what they have forked, each as it is now.
    fn altered<'a>(
        &'a self,
        mark: &'a [u8],
        table: &ProcessTable,
    ) -> io::Result<Vec<(ProcessId, SeenVdso<'a>)>> {
        let mut places = BTreeSet::new();
        let distinct: Vec<&SkewedProcess> = (self.victims.iter())
            .filter(|victim| places.insert((victim.vdso, victim.code)))
            .collect();
        let mut found = Vec::new();
        for pid in table.pids()? {
            // What may not be read is of another user, and so not forked by a victim; victims are looked at one by one.
            let seen = (distinct.iter())
                .filter_map(|victim| victim.see(pid, mark, table).ok()?)
                .find(SeenVdso::is_altered);
            if let (Some(seen), Some(id)) = (seen, table.identify(pid)) {
                found.push((id, seen));
            }
        }
        Ok(found)
    }
}

/// An offset in words, e.g. `5m later` or `1h earlier`.
pub(crate) fn offset_text(offset_ms: i64) -> String {
    let length = HumanDuration::millis(offset_ms.unsigned_abs());
    match offset_ms < 0 {
        true => format!("{length} earlier"),
        false => format!("{length} later"),
    }
}

impl ReversibleChange for ProcessClock {
    fn view(&self) -> ChangeView {
        ChangeView {
            kind: "process-clock".into(),
            apply: format!(
                "have the clock functions of {} report a time {}, under the mark {}",
                listed(&self.ids()),
                offset_text(self.offset_ms),
                self.mark
            ),
            undo: "write back the original code of these functions, in processes that these have forked as well".into(),
            if_agent_dies:
                "the guardian writes it back; without it, the next start or `revert --all`".into(),
        }
    }

    fn holds(&self) -> Vec<String> {
        // Whoever traces a process would keep it from being stopped here.
        let ids = self.ids();
        ids.iter().map(|id| format!("process:{id}")).collect()
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        let (offset, mark) = (ClockOffset::millis(self.offset_ms), mark_bytes(&self.mark));
        for victim in &self.victims {
            let what = format!("alter the clock functions of process {}", victim.process);
            let calls = victim.calls();
            host.write_stopped(&what, victim.process, &victim.alter(offset, &mark), &calls)?;
        }
        Ok(())
    }

    fn observe(&self, host: &Host) -> io::Result<Observed> {
        let mark = mark_bytes(&self.mark);
        // One that is hidden from the agent is not gone.
        for victim in &self.victims {
            let id = victim.process;
            if host.table.find(id)?.is_some()
                && let Err(error) = victim.see(id.pid, &mark, &host.table)
                && host.table.alive(id)
            {
                let what = format!("process {id}: its memory cannot be read: {error}");
                return Err(io::Error::other(what));
            }
        }
        let altered = self.altered(&mark, &host.table)?;
        let ids: Vec<ProcessId> = altered.iter().map(|(id, _)| *id).collect();
        let foreign: Vec<ProcessId> = (altered.iter())
            .filter(|(_, seen)| seen.entries(EntryState::Foreign).next().is_some())
            .map(|(id, _)| *id)
            .collect();
        Ok(if ids.is_empty() {
            Observed::Absent
        } else if foreign.is_empty() {
            Observed::Present(format!(
                "{} with altered clock functions: {}",
                count(ids.len(), "process", "processes"),
                listed(&ids)
            ))
        } else {
            Observed::Contested(format!(
                "{} with clock functions that something else has altered since: {}",
                count(foreign.len(), "process", "processes"),
                listed(&foreign)
            ))
        })
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        let mark = mark_bytes(&self.mark);
        let mut failed = None;
        for _ in 0..UNDO_LOOKS {
            let altered = self
                .altered(&mark, &host.table)
                .map_err(|source| HostError {
                    what: "list the processes with altered clock functions".into(),
                    source,
                })?;
            failed = None;
            let mut is_whole = true;
            for (id, seen) in altered {
                let [entries, code] = seen.restore();
                for (what, writes) in [
                    ("restore the clock functions", entries),
                    ("remove the altered code", code),
                ] {
                    if writes.is_empty() {
                        continue;
                    }
                    is_whole = false;
                    let what = format!("{what} of process {id}");
                    if let Err(error) = host.write_stopped(&what, id, &writes, &[]) {
                        failed = Some(error);
                        break;
                    }
                }
            }
            if is_whole || failed.is_some() {
                break;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn effect(&self, host: &Host) -> Effect {
        let mark = mark_bytes(&self.mark);
        let is_skewed = |victim: &&SkewedProcess| {
            let seen = victim.see(victim.process.pid, &mark, &host.table);
            let is_skewed = seen.ok().flatten().is_some_and(|seen| seen.is_skewed());
            is_skewed && host.table.stat_of(victim.process).is_some()
        };
        let skewed = self.victims.iter().filter(is_skewed).count();
        // One whose first thread has ended may go on by others.
        let has_gone =
            |victim: &&SkewedProcess| !host.table.alive(victim.process) && !is_skewed(victim);
        let gone = self.victims.iter().filter(has_gone).count();
        let mut seen = format!(
            "{skewed} of {} read a time {}",
            count(self.victims.len(), "process", "processes"),
            offset_text(self.offset_ms)
        );
        if gone > 0 {
            seen += &format!(", {gone} gone");
        }
        let figures = [
            ("skewed-processes", skewed as f64),
            ("gone-processes", gone as f64),
            ("offset-seconds", self.offset_ms as f64 / 1000.0),
        ];
        effect(skewed > 0, seen, &figures)
    }

    fn is_done(&self, _: &Host) -> bool {
        // As with processes that are stopped: victims that ended show in the effect.
        false
    }
}
