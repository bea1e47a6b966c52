//! What a helper does, as data: on its command line, in the plan and in the ledger.

use super::{Proxy, disk};
use crate::dns::AnswerFilter;
use crate::packet_filter::PacketFilter;
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::HumanDuration;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// What a helper does as long as it lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "role",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum HelperSpec {
    /// Holds processes still by tracing them (ptrace). They run on when it dies.
    Hold {
        /// Who.
        victims: Vec<ProcessId>,
    },
    /// Keeps processors busy.
    Cpu {
        /// How many threads.
        workers: usize,
        /// How much of a processor each of them takes, in percent.
        load_percent: f64,
        /// The processors, by number, over which the threads are spread and on which they stay.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpus: Option<Vec<usize>>,
        /// How long the load takes to grow from nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ramp: Option<HumanDuration>,
    },
    /// Takes memory.
    Memory {
        /// How much, in bytes.
        bytes: u64,
        /// How much must stay available (`MemAvailable`), in bytes: never taken, and given back when others need it.
        reserve_bytes: u64,
        /// How long taking it is spread over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ramp: Option<HumanDuration>,
    },
    /// Fills a file system.
    Disk {
        /// A folder on it.
        directory: PathBuf,
        /// How much, in bytes.
        bytes: u64,
        /// How much must stay free to everyone, in bytes.
        reserve_bytes: u64,
        /// What the file is called for a moment on a file system without nameless files.
        name: String,
    },
    /// Asks processes to end, and kills those that have not done so in time.
    Terminate {
        /// Who.
        victims: Vec<ProcessId>,
        /// How long they have, in milliseconds.
        grace_ms: u64,
    },
    /// Owns nf_tables tables that harm packets. They go when it dies.
    #[serde(rename = "filter")]
    PacketFilter(Box<PacketFilter>),
    /// Reads the answers of name servers as they arrive, and alters some. The rest goes on as it came.
    Answers(Box<AnswerFilter>),
    /// Passes TCP connections on, and harms them. They break off when it dies.
    Proxy(Box<Proxy>),
}

impl HelperSpec {
    /// Whether it holds processes, and all of them have ended: the helper lives on and does nothing any more.
    pub fn has_nobody_to_hold(&self, table: &ProcessTable) -> bool {
        match self {
            HelperSpec::Hold { victims } => !victims.iter().any(|id| table.alive(*id)),
            _ => false,
        }
    }

    /// What it does, for people.
    pub fn describe(&self) -> String {
        match self {
            HelperSpec::Hold { victims } => format!("hold {} by tracing", listed(victims)),
            HelperSpec::Cpu {
                workers,
                load_percent,
                cpus,
                ramp,
            } => {
                let threads = if *workers == 1 { "thread" } else { "threads" };
                let mut text =
                    format!("{workers} {threads}, each busy for {load_percent}% of the time");
                if let Some(cpus) = cpus {
                    let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
                    text += &format!(", on processors {}", cpus.join(", "));
                }
                text + &over(*ramp)
            }
            HelperSpec::Memory {
                bytes,
                reserve_bytes,
                ramp,
            } => format!(
                "take {} of memory{}, with {} always left available",
                size(*bytes),
                over(*ramp),
                size(*reserve_bytes)
            ),
            HelperSpec::Disk {
                directory,
                bytes,
                reserve_bytes,
                ..
            } => format!(
                "fill {} in a nameless file in {}, with {} always left free",
                size(*bytes),
                directory.display(),
                size(*reserve_bytes)
            ),
            HelperSpec::Terminate { victims, grace_ms } => {
                format!(
                    "SIGTERM to {}, and SIGKILL to those left after {}",
                    listed(victims),
                    HumanDuration::millis(*grace_ms)
                )
            }
            HelperSpec::PacketFilter(filter) => format!(
                "{} {}{}, by tables `{}` that it owns{}",
                filter.harm,
                filter.flows,
                filter.place(),
                filter.table,
                match filter.closes_established() {
                    true => "; and close their live TCP connections",
                    false => "",
                }
            ),
            HelperSpec::Answers(answers) => format!(
                "{answers}{}, read as they arrive by a queue of tables `{}` that it owns",
                answers.filter.place(),
                answers.filter.table
            ),
            HelperSpec::Proxy(proxy) => proxy.describe(),
        }
    }

    /// What its death brings, for people.
    pub fn describe_end(&self) -> &'static str {
        match self {
            HelperSpec::Hold { .. } => "the kernel lets the held processes run on",
            HelperSpec::Cpu { .. } => "its threads end with it",
            HelperSpec::Memory { .. } => "the kernel frees the memory",
            HelperSpec::Disk { .. } => "the kernel frees the file, which has no name",
            HelperSpec::Terminate { .. } => "those not dead yet are not killed",
            HelperSpec::PacketFilter(filter) if filter.closes_established() => {
                "the kernel removes the tables that it owned; connections that it closed stay closed"
            }
            HelperSpec::PacketFilter(filter) if filter.harm.shapes() => {
                "the kernel removes the tables that it owned, and we the devices that nothing goes to any more"
            }
            HelperSpec::PacketFilter(_) => "the kernel removes the tables that it owned",
            HelperSpec::Answers(_) => {
                "the kernel removes the tables that it owned, and answers go on as they come"
            }
            HelperSpec::Proxy(_) => {
                "the kernel closes what it listened on and resets what passed through it"
            }
        }
    }

    /// Whether it gives back sooner what it has taken when it is asked to end (SIGTERM) than when it is killed.
    pub fn ends_when_asked(&self) -> bool {
        matches!(self, HelperSpec::PacketFilter(_))
    }

    /// What it holds alone, as `kind:which`.
    pub fn holds(&self) -> Vec<String> {
        match self {
            HelperSpec::Hold { victims } | HelperSpec::Terminate { victims, .. } => {
                victims.iter().map(|id| format!("process:{id}")).collect()
            }
            HelperSpec::Cpu { cpus: None, .. } => vec!["cpu".into()],
            HelperSpec::Cpu {
                cpus: Some(cpus), ..
            } => cpus.iter().map(|cpu| format!("cpu:{cpu}")).collect(),
            HelperSpec::Memory { .. } => vec!["memory".into()],
            HelperSpec::Disk { directory, .. } => {
                // Two folders of one file system are one thing to fill.
                let device = rustix::fs::stat(directory).map(|folder| folder.st_dev);
                vec![device.map_or_else(
                    |_| format!("disk:{}", directory.display()),
                    |device| format!("disk:{device}"),
                )]
            }
            HelperSpec::PacketFilter(filter) => {
                let flows = std::iter::once(filter.holds());
                flows.chain(filter.held_marks()).collect()
            }
            HelperSpec::Answers(answers) => answers.holds(),
            HelperSpec::Proxy(proxy) => vec![proxy.holds()],
        }
    }

    /// What others have changed of what it made, so that it no longer does what it is for; nothing where that can't be told. To be
    /// asked while it lives.
    pub fn drift(&self) -> Vec<String> {
        match self {
            HelperSpec::PacketFilter(filter) => filter.drift().unwrap_or_default(),
            HelperSpec::Answers(answers) => answers.filter.drift().unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// What is still there of it although it is dead, in words for people.
    ///
    /// # Errors
    /// Where that can't be looked at.
    pub fn residue(&self, table: &ProcessTable) -> io::Result<Option<String>> {
        match self {
            // A tracer's death and its tracees' release are one step of the kernel's, so whoever
            // is still held by one of ours is not released.
            HelperSpec::Hold { victims } => {
                // One that is hidden from us is not gone.
                for id in victims {
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
                let held: Vec<ProcessId> = victims.iter().filter(held).copied().collect();
                Ok((!held.is_empty()).then(|| format!("{} still held", listed(&held))))
            }
            HelperSpec::Disk {
                directory, name, ..
            } => {
                let file = disk::left_over(directory, name)?;
                Ok(file.map(|file| format!("{} is still there", file.display())))
            }
            HelperSpec::PacketFilter(filter) => left_over(filter),
            HelperSpec::Answers(answers) => left_over(&answers.filter),
            // The kernel closes a dead process's sockets before the process is gone.
            HelperSpec::Cpu { .. }
            | HelperSpec::Memory { .. }
            | HelperSpec::Terminate { .. }
            | HelperSpec::Proxy(_) => Ok(None),
        }
    }

    /// Removes what its death may leave: a file's name, where it died in the moment that it had one; devices that shaped packets.
    ///
    /// # Errors
    /// Where that can't be removed.
    #[allow(
        clippy::disallowed_methods,
        reason = "only called as an effect of the change that made the file"
    )]
    pub fn remove_leftovers(&self) -> io::Result<()> {
        let (directory, name) = match self {
            HelperSpec::Disk {
                directory, name, ..
            } => (directory, name),
            HelperSpec::PacketFilter(filter) => return filter.remove_leftovers(),
            _ => return Ok(()),
        };
        let Some(file) = disk::left_over(directory, name)? else {
            return Ok(());
        };
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn left_over(filter: &PacketFilter) -> io::Result<Option<String>> {
    let there = filter.residue()?;
    Ok((!there.is_empty()).then(|| format!("{} still there", there.join(" and "))))
}

fn over(ramp: Option<HumanDuration>) -> String {
    ramp.map(|ramp| format!(", growing over {ramp}"))
        .unwrap_or_default()
}

fn listed(victims: &[ProcessId]) -> String {
    let pids: Vec<String> = victims.iter().map(|id| id.pid.to_string()).collect();
    match pids.as_slice() {
        [pid] => format!("process {pid}"),
        pids => format!("processes {}", pids.join(", ")),
    }
}

/// A number of bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let places = usize::from(unit > 0 && amount.fract() > 0.049);
    format!("{amount:.places$} {}", UNITS[unit])
}
