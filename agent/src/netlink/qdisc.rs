//! Devices that only shape what is forwarded to them (`ifb`), and their queueing disciplines,
//! over rtnetlink. What is written there is in the host's order (`include/uapi/linux/pkt_sched.h`).

use super::interfaces::{Interface, interfaces};
use super::message::{self, Message, Payload, flags};
use super::socket::{Family, Socket, errno};
use rustix::io::Errno;
use std::io;
use std::path::Path;

/// `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_NEWQDISC`, `RTM_GETQDISC`.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_DISCIPLINE: u16 = 36;
const GET_DISCIPLINE: u16 = 38;
/// The length of `struct tcmsg`, in bytes.
const DISCIPLINE_HEADER: usize = 20;
/// The handle that a device's discipline is given, `1:`.
const HANDLE: u32 = 1 << 16;
/// The kind of such devices.
const KIND: &str = "ifb";
/// One less than IPv6 wants, so that the kernel gives it neither addresses nor routes. What is forwarded to it is not held against it.
const MTU: u32 = 1279;

/// A queueing discipline with its arguments, as the kernel wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    kind: &'static str,
    options: Payload,
}

/// What netem is to do; chances are shares of `u32::MAX`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Netem {
    /// The mean delay, in nanoseconds.
    pub latency: i64,
    /// How far delays vary, in nanoseconds.
    pub jitter: i64,
    /// How much each delay is like the one before.
    pub correlation: u32,
    /// What to add to the latency, in parts of the jitter, 8192 for one.
    pub table: Vec<i16>,
    /// Whether packets wait for those before them.
    pub keep_order: bool,
    /// The chance to be sent at once, and how much it is like the one before.
    pub reorder: (u32, u32),
    /// How far those are apart at the least.
    pub gap: u32,
    /// The chance to be sent twice.
    pub duplicate: u32,
    /// The chance to have a bit turned.
    pub corrupt: u32,
}

impl Qdisc {
    /// `tbf`: no faster than `rate` bytes a second, but for a burst of so many bytes; `queue` bytes may wait.
    pub fn tbf(rate: u64, burst: u32, queue: u32) -> Self {
        let mut fixed = rate_of(rate);
        fixed.extend([0; 12]);
        // The queue, the burst in ticks, which the attribute below says in bytes, and a size that only older programs ask for.
        for field in [queue, 0, 0] {
            fixed.extend(field.to_ne_bytes());
        }
        let mut options = Payload::default().put(1, &fixed);
        if u32::try_from(rate).is_err() {
            options = options.put(4, &rate.to_ne_bytes());
        }
        Qdisc {
            kind: "tbf",
            options: options.put(6, &burst.to_ne_bytes()),
        }
    }

    /// A `netem` discipline with these parameters.
    pub fn netem(netem: &Netem) -> Self {
        /// How many packets it holds at the most, as many as the agent's packet queues.
        const LIMIT: u32 = 1 << 18;
        let mut fixed = Vec::new();
        // The old fields for times are in ticks; attributes say them in nanoseconds.
        for field in [0, LIMIT, 0, netem.gap, netem.duplicate, 0] {
            fixed.extend(field.to_ne_bytes());
        }
        let pair = |one: u32, two: u32| [one.to_ne_bytes(), two.to_ne_bytes()].concat();
        let mut options = Payload::of(&fixed)
            .put(10, &netem.latency.to_ne_bytes())
            .put(11, &netem.jitter.to_ne_bytes());
        if netem.correlation > 0 {
            options = options.put(1, &[netem.correlation, 0, 0].map(u32::to_ne_bytes).concat());
        }
        if netem.jitter > 0 {
            let table: Vec<u8> = netem
                .table
                .iter()
                .flat_map(|value| value.to_ne_bytes())
                .collect();
            options = options.put(2, &table);
        }
        if netem.gap > 0 {
            options = options.put(3, &pair(netem.reorder.0, netem.reorder.1));
        }
        if netem.corrupt > 0 {
            options = options.put(4, &pair(netem.corrupt, 0));
        }
        if netem.keep_order {
            // A rate has packets wait for those before them; at this one sending takes no time itself.
            const ENDLESS: u64 = 1 << 50;
            let rate = [u32::MAX, 0, 0, 0].map(u32::to_ne_bytes).concat();
            options = options.put(6, &rate).put(8, &ENDLESS.to_ne_bytes());
        }
        Qdisc {
            kind: "netem",
            options,
        }
    }
}

/// `struct tc_ratespec`, for Ethernet, whose times the kernel reckons itself.
fn rate_of(rate: u64) -> Vec<u8> {
    const ETHERNET: u8 = 1;
    let mut bytes = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    bytes.extend(u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    bytes
}

/// `struct ifinfomsg`: which interface, and which of its flags are to be what.
fn link_header(index: u32, flags: u32, change: u32) -> Payload {
    let fields = [0, index, flags, change].map(u32::to_ne_bytes);
    Payload::of(&fields.concat())
}

fn do_it(what: String, kind: u16, more: u16, body: Payload) -> io::Result<()> {
    let question = Message {
        what,
        kind,
        flags: flags::REQUEST | flags::ACK | more,
        body,
    };
    let socket = Socket::open(Family::Route)?;
    socket.ask(&question, |_| Some(())).map(|_| ())
}

/// Makes a device that shapes what is forwarded to it, in the namespace of the thread; its number. The alias is how it is found again
/// where somebody renames it.
///
/// # Errors
/// What the kernel said; a part of it may be there.
pub fn make_shaper(name: &str, alias: &str, discipline: &Qdisc) -> io::Result<u32> {
    let info = Payload::default().text(1, KIND);
    let queue = 1u32.to_ne_bytes();
    let body = link_header(0, 0, 0)
        .text(3, name)
        .put(4, &MTU.to_ne_bytes())
        .put(31, &queue)
        .put(32, &queue)
        .nest(18, &info);
    let new = flags::CREATE | flags::EXCLUSIVE;
    do_it(format!("make device {name} ({KIND})"), NEW_LINK, new, body)?;
    let index = shaper(name, alias)?
        .ok_or_else(|| io::Error::other(format!("device {name} was made and is not there")))?
        .index;
    // The kernel takes no alias with what makes a device.
    do_it(
        format!("give device {name} an alias"),
        NEW_LINK,
        0,
        link_header(index, 0, 0).text(20, alias),
    )?;
    let kind = discipline.kind;
    let body = discipline_header(index)
        .text(1, kind)
        .nest(2, &discipline.options);
    do_it(
        format!("give device {name} the discipline {kind}"),
        NEW_DISCIPLINE,
        new,
        body,
    )?;
    const UP: u32 = 1;
    do_it(
        format!("bring device {name} up"),
        NEW_LINK,
        0,
        link_header(index, UP, UP),
    )?;
    Ok(index)
}

/// `struct tcmsg`: the root of an interface, with a handle of its own.
fn discipline_header(index: u32) -> Payload {
    let fields = [0, index, HANDLE, u32::MAX, 0].map(u32::to_ne_bytes);
    Payload::of(&fields.concat())
}

/// Does something that may have the kernel load the module of such devices. When it is loaded the module makes two that nobody asked
/// for, in the first network namespace: where that is the thread's, they are removed again. The kernel has no way to say "remove it if nobody
/// has touched it", so only what is just as the module made it goes, microseconds after a look at it.
pub fn without_module_devices<T>(deed: impl FnOnce() -> T) -> T {
    let modules = Path::new("/sys/module");
    let may_load = modules.exists() && !modules.join(KIND).exists();
    let before = if may_load { interfaces().ok() } else { None };
    let done = deed();
    if let Some(before) = before
        && let Ok(after) = interfaces()
    {
        for link in made_by_the_module(&before, &after) {
            let what = format!("remove device {}", link.name);
            if let Err(error) = do_it(what, DELETE_LINK, 0, link_header(link.index, 0, 0)) {
                tracing::debug!("what the module has made stays: {error}");
            }
        }
    }
    done
}

/// The two that the module makes when it is loaded as it comes; nothing where it has made others, which somebody has asked it for then
/// (`modprobe.d`), or where somebody has begun to use one of them.
fn made_by_the_module<'a>(before: &[Interface], after: &'a [Interface]) -> Vec<&'a Interface> {
    let is_new = |link: &&Interface| before.iter().all(|old| old.index != link.index);
    let is_numbered = |link: &&Interface| {
        let number = link.name.strip_prefix(KIND);
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let of_kind = after.iter().filter(|link| link.kind == KIND);
    let mut new: Vec<&Interface> = of_kind.filter(is_new).filter(is_numbered).collect();
    new.sort_by_key(|link| link.index);
    match new.as_slice() {
        [first, second]
            if [&first.name, &second.name] == ["ifb0", "ifb1"]
                && first.index.checked_add(1) == Some(second.index)
                && new.iter().all(|link| !link.up && link.discipline == "noop") =>
        {
            new
        }
        _ => Vec::new(),
    }
}

/// The device that shapes and has this alias, whatever its name is now; or this name, whatever its alias is now.
///
/// # Errors
/// What the kernel said.
pub fn shaper(name: &str, alias: &str) -> io::Result<Option<Interface>> {
    let shapers: Vec<Interface> = interfaces()?
        .into_iter()
        .filter(|link| link.kind == KIND)
        .collect();
    let by_alias = shapers.iter().find(|link| link.alias == alias);
    let by_name = || shapers.iter().find(|link| link.name == name);
    Ok(by_alias.or_else(by_name).cloned())
}

/// Removes a device by its number.
///
/// # Errors
/// What the kernel said, but for that there is none.
pub fn remove_shaper(device: &Interface) -> io::Result<()> {
    let what = format!("remove device {}", device.name);
    match do_it(what, DELETE_LINK, 0, link_header(device.index, 0, 0)) {
        Err(error) if errno(&error) == Some(Errno::NODEV) => Ok(()),
        other => other,
    }
}

/// The discipline at the root of a device, as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootQdisc {
    kind: String,
    handle: u32,
    options: Vec<u8>,
    /// How many packets have left it.
    pub sent: u64,
    /// How many it has dropped.
    pub dropped: u64,
    /// How many wait in it.
    pub waiting: u64,
}

impl RootQdisc {
    /// Whether it is still the discipline that was asked for, with the arguments that decide what it does.
    pub fn is(&self, wanted: &Qdisc) -> bool {
        // `struct tc_ratespec` has the rate at 8, and the limit of `struct tc_tbf_qopt` comes after two of them.
        let parts = |options: &[u8]| -> Vec<Option<Vec<u8>>> {
            let part = |kind, from: usize, to: usize| {
                let value = message::attribute(options, kind)?;
                Some(value.get(from..to)?.to_vec())
            };
            match wanted.kind {
                "tbf" => vec![part(1, 8, 12), part(1, 24, 28), part(4, 0, 8)],
                // They begin with `struct tc_netem_qopt`, whose fields after the latency are not in ticks.
                _ => {
                    let fixed = |from: usize, to: usize| options.get(from..to).map(<[u8]>::to_vec);
                    let rest = options.get(24..).unwrap_or_default();
                    let nanos = |kind| message::attribute(rest, kind).map(<[u8]>::to_vec);
                    // The jitter is not compared: newer kernels cap it.
                    vec![fixed(4, 20), nanos(10)]
                }
            }
        };
        self.kind == wanted.kind
            && self.handle == HANDLE
            && parts(&self.options) == parts(wanted.options.bytes())
    }
}

/// The discipline at the root of the device of this number; nothing where it has none of anybody's.
///
/// # Errors
/// What the kernel said.
pub fn root(index: u32) -> io::Result<Option<RootQdisc>> {
    let question = Message {
        what: "read what a queueing discipline counted".into(),
        kind: GET_DISCIPLINE,
        flags: flags::REQUEST | flags::DUMP,
        body: Payload::of(&[0; DISCIPLINE_HEADER]),
    };
    let found = Socket::open(Family::Route)?.ask(&question, |discipline| {
        let number = |at| message::long_at(discipline.body, at);
        if number(4)? != index || number(12)? != u32::MAX {
            return None;
        }
        let attributes = discipline.body.get(DISCIPLINE_HEADER..)?;
        // `TCA_STATS`, a `struct tc_stats`: bytes of 64 bits, then packets, drops, and further on what waits.
        let counted = message::attribute(attributes, 3)?;
        let count = |at| message::long_at(counted, at).map(u64::from);
        Some(RootQdisc {
            kind: message::text(message::attribute(attributes, 1)?),
            handle: number(8)?,
            options: message::attribute(attributes, 2)
                .unwrap_or_default()
                .to_vec(),
            sent: count(8)?,
            dropped: count(12)?,
            waiting: count(28)?,
        })
    })?;
    Ok(found.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Interface {
        Interface {
            index,
            name: name.into(),
            kind: KIND.into(),
            alias: String::new(),
            mtu: MTU,
            loopback: false,
            up: false,
            discipline: "noop".into(),
        }
    }

    #[test]
    fn qdisc_unused_default_devices_of_the_module_are_recognized() {
        let before = [link(3, "theirs")];
        let made = |more: &[Interface]| {
            let after = [&before[..], more].concat();
            made_by_the_module(&before, &after).len()
        };
        let pair = [link(4, "ifb0"), link(5, "ifb1")];
        assert_eq!(made(&pair), 2);
        assert_eq!(made(&[]), 0);
        assert_eq!(
            made(&[link(4, "ifb0"), link(5, "ifb1"), link(6, "bb12e")]),
            2
        );
        // Somebody has asked the module for others.
        assert_eq!(made(&pair[..1]), 0);
        assert_eq!(made(&[&pair[..], &[link(6, "ifb2")]].concat()), 0);
        // Somebody makes their own at the same time.
        assert_eq!(made(&[link(4, "ifb0"), link(9, "ifb1")]), 0);
        assert_eq!(made(&[link(4, "ifb1"), link(5, "ifb0")]), 0);
        // Somebody uses one of them.
        let used = |change: fn(&mut Interface)| {
            let mut pair = pair.clone();
            change(&mut pair[1]);
            made(&pair)
        };
        assert_eq!(used(|link| link.up = true), 0);
        assert_eq!(used(|link| link.discipline = "htb".into()), 0);
        assert_eq!(used(|link| link.kind = "veth".into()), 0);
        // They were there before.
        assert!(made_by_the_module(&pair, &pair).is_empty());
    }
}
