//! Owning the tables that harm packets: the kernel removes them when the socket that made them
//! is closed, which no death of this process can leave undone. Asked to end, by SIGTERM, it deletes
//! them first, which is sooner.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::evidence::effect;
use super::helper::{AlteredPlace, Helper};
use crate::netlink::{Family, PacketQueue, Socket, errno};
use crate::packet_filter::PacketFilter;
use crate::processes::ProcessTable;
use backburn_experiments::wire::Effect;
use nix::sys::signal::{SigSet, Signal};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A fault that may last longer than this looks its names up again,
const LONG_FAULT: Duration = Duration::from_secs(30);
/// so often.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(10);

impl Helper for PacketFilter {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self, process)
    }

    fn describe(&self) -> String {
        format!(
            "{} {}{}, by tables `{}` that it owns{}",
            self.effect,
            self.flows,
            self.place(),
            self.table,
            match self.closes_established() {
                true => "; and close their live TCP connections",
                false => "",
            }
        )
    }

    fn describe_end(&self) -> &'static str {
        if self.closes_established() {
            "the kernel removes the tables that it owned; connections that it closed stay closed"
        } else if self.effect.shaping().is_some() {
            "the kernel removes the tables that it owned, and the agent the devices that nothing goes to any more"
        } else {
            "the kernel removes the tables that it owned"
        }
    }

    fn holds(&self) -> Vec<String> {
        let flows = std::iter::once(self.held_flows());
        flows.chain(self.held_marks()).collect()
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Network(self.namespace.as_ref())
    }

    fn effect(&self, _: i32, _: &ProcessTable) -> Effect {
        let counted = match self.counted() {
            Ok(counted) => counted,
            Err(error) => return effect(false, format!("the kernel's counters: {error}"), &[]),
        };
        let done = self.effect.done();
        let mut seen = format!(
            "{} packets of the chosen flows, {} of them {done}",
            counted.chosen, counted.affected
        );
        let mut figures = vec![
            ("chosen-packets".to_owned(), counted.chosen as f64),
            (format!("{done}-packets"), counted.affected as f64),
            (format!("{done}-bytes"), counted.affected_bytes as f64),
        ];
        if self.closes_established() {
            seen += &format!(", {} live connections closed", counted.closed);
            figures.push(("closed-connections".to_owned(), counted.closed as f64));
        }
        if self.effect.shaping().is_some() {
            seen += &format!(", of which {} dropped", counted.dropped);
            figures.push(("dropped-packets".to_owned(), counted.dropped as f64));
        }
        if counted.added > 0 {
            seen += &format!(", {} addresses added since", counted.added);
            figures.push(("added-addresses".to_owned(), counted.added as f64));
        }
        Effect {
            // Rules count what they send to a device; the device counts what has come.
            acts: (counted.affected > 0 && (counted.taken > 0 || self.effect.shaping().is_none()))
                || counted.closed > 0,
            seen,
            figures: figures.into_iter().collect(),
            ..Effect::default()
        }
    }

    fn drift(&self) -> Vec<String> {
        self.find_drift().unwrap_or_default()
    }

    fn residue(&self, _: &ProcessTable) -> io::Result<Option<String>> {
        still_there(self)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        self.remove_shapers()
    }

    /// Whatever it does to packets, it made its tables and at the most a device for each direction.
    type Substitute = Self;

    fn substitute(written: &Value) -> Option<Self> {
        let mut most = json!({
            "table": written.get("table")?,
            "flows": {"protocol": "any", "direction": "both"},
            "harm": {"harm": "shape", "shape": {"corrupt": 0.0}},
        });
        if let Some(namespace) = written.get("namespace") {
            most["namespace"] = namespace.clone();
        }
        serde_json::from_value(most).ok()
    }

    fn ends_on_sigterm(&self) -> bool {
        true
    }
}

/// What is still there of a filter, for people.
pub(super) fn still_there(filter: &PacketFilter) -> io::Result<Option<String>> {
    let there = filter.leftovers()?;
    Ok((!there.is_empty()).then(|| format!("{} still there", there.join(" and "))))
}

fn run(filter: &PacketFilter, process: &HelperProcess) -> Result<(), HelperError> {
    hold_off_the_end()?;
    // From here: the resolver is asked in the network that the agent is in.
    let follow = follow_names(filter, process.deadline)?;
    enter(filter)?;
    // Kept until the end: closing it is the undo.
    let owner = Socket::open(Family::Netfilter).map_err(|error| refused(&error))?;
    let owner = Arc::new(Mutex::new(owner));
    let work = filter.effect.queue_work();
    let queue = match &work {
        Some(work) => Some(Arc::new(listen(filter, work.open)?)),
        None => None,
    };
    let swallowing = match filter.drops_in_queue() {
        true => Some(listen(filter, PacketQueue::swallow)?),
        false => None,
    };
    end_when_asked(
        filter.clone(),
        Arc::clone(&owner),
        queue.as_ref().map(Arc::clone),
    )?;
    // Somebody listens, and what shapes is there, before the first packet comes.
    let held = queue.as_deref();
    let number = held.or(swallowing.as_ref()).map_or(0, PacketQueue::number);
    let shapers = filter.make_shapers().map_err(|error| refused(&error))?;
    {
        let owner = locked(&owner);
        owner.transact(&filter.messages(&owner, process.deadline, number, shapers))
    }
    .map_err(|error| refused(&error))?;
    let mut seen = format!("tables `{}` made{}", filter.table, filter.place());
    if filter.closes_established() {
        // After the rules: no connection is made between.
        let closed = filter
            .close_established(&locked(&owner))
            .map_err(|error| refused(&error))?;
        seen += &format!(", {closed} connections closed");
    }
    if let Some(follow) = follow {
        // A thread that has ended follows nothing.
        follow.send(Arc::clone(&owner)).ok();
    }
    process.ready(seen)?;
    match (queue, work) {
        (Some(queue), Some(work)) => {
            let error = (work.work)(&queue);
            Err(HelperError::new(error.to_string()))
        }
        _ => process.wait_for_ever(),
    }
}

/// Has this thread live where the packets are.
pub(super) fn enter(filter: &PacketFilter) -> Result<(), HelperError> {
    let Some(namespace) = &filter.namespace else {
        return Ok(());
    };
    namespace.enter().map_err(|error| {
        HelperError::new(format!(
            "network namespace {}: can't be entered: {error}",
            namespace.path.display()
        ))
        .hint("entering requires root, or CAP_SYS_ADMIN in both namespaces")
    })
}

/// The owner's socket, for one thread at a time: each reads the answers to its own requests.
type TableOwner = Arc<Mutex<Socket>>;

fn locked(owner: &TableOwner) -> MutexGuard<'_, Socket> {
    owner.lock().unwrap_or_else(PoisonError::into_inner)
}

fn asked_to_end() -> SigSet {
    let mut asked = SigSet::empty();
    asked.add(Signal::SIGTERM);
    asked
}

/// Before there are other threads: each would have to hold SIGTERM off for itself.
fn hold_off_the_end() -> Result<(), HelperError> {
    asked_to_end()
        .thread_block()
        .map_err(|error| HelperError::new(format!("could not hold off SIGTERM: {error}")))
}

fn thread(life: impl FnOnce() + Send + 'static) -> Result<(), HelperError> {
    std::thread::Builder::new()
        .name(crate::processes::HELPER_NAME.into())
        .spawn(life)
        .map(|_| ())
        .map_err(|error| HelperError::new(format!("could not start a thread: {error}")))
}

/// Has a thread wait for SIGTERM, take the tables back and end this process.
fn end_when_asked(
    filter: PacketFilter,
    owner: TableOwner,
    queue: Option<Arc<PacketQueue>>,
) -> Result<(), HelperError> {
    thread(move || {
        let accept_up_to = queue.map(|queue| move || queue.accept_all());
        let over = asked_to_end().wait().map_err(io::Error::from);
        if let Err(error) = over.and_then(|_| filter.delete_tables(&locked(&owner), accept_up_to)) {
            // The end closes the socket, and that takes them back as well.
            tracing::debug!("the tables could not be deleted: {error}");
        }
        std::process::exit(0);
    })
}

/// Has a thread look names up again while a long fault acts, once it is given the owner's socket.
fn follow_names(
    filter: &PacketFilter,
    deadline: Duration,
) -> Result<Option<Sender<TableOwner>>, HelperError> {
    if filter.names.is_empty() || deadline <= LONG_FAULT {
        return Ok(None);
    }
    let mut filter = filter.clone();
    let (give, given) = channel::<TableOwner>();
    thread(move || {
        let Ok(owner) = given.recv() else { return };
        for time in 1.. {
            std::thread::sleep(LOOK_UP_INTERVAL);
            let new = filter.look_up();
            if new.count() > 0
                && let Err(error) = filter.add(new, &locked(&owner), time)
            {
                tracing::debug!("what names have come to could not be added: {error}");
            }
        }
    })?;
    Ok(Some(give))
}

/// Takes a packet queue that nobody else has.
pub(super) fn listen(
    filter: &PacketFilter,
    take: impl Fn(u16) -> io::Result<PacketQueue>,
) -> Result<PacketQueue, HelperError> {
    const TRIES: u16 = 64;
    let mut number = filter.first_queue();
    for _ in 0..TRIES {
        match take(number) {
            Ok(queue) => return Ok(queue),
            Err(error) if errno(&error) == Some(Errno::BUSY) => number = number.wrapping_add(1),
            Err(error) => return Err(refused(&error)),
        }
    }
    Err(HelperError::new(format!(
        "{TRIES} packet queues up to {number} all have listeners"
    )))
}

pub(super) fn refused(error: &io::Error) -> HelperError {
    let failed = HelperError::new(error.to_string());
    match errno(error) {
        Some(Errno::PERM) => failed.hint("network faults require root or CAP_NET_ADMIN"),
        _ => failed.hint("`backburn-agent doctor` tells what this kernel has"),
    }
}
