//! nf_tables, as far as faults need it: tables that belong to the socket that made them, their
//! chains, sets and rules as messages; and a look at which tables are there and what their rules counted.

use super::expression::Expression;
use super::message::{self, Message, Payload, flags};
use super::socket::{Socket, errno};
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::time::Duration;

/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message's kind.
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const NEW_SET: u16 = SUBSYSTEM | 9;
const GET_SET: u16 = SUBSYSTEM | 10;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const DELETE_ELEMENTS: u16 = SUBSYSTEM | 14;

/// `NFT_TABLE_F_OWNER`: the table goes when its owner's socket is closed, and nobody else may change it. Since Linux 5.12.
const OWNER: u32 = 2;
/// Flags of a set: `NFT_SET_CONSTANT`, `NFT_SET_INTERVAL`, `NFT_SET_TIMEOUT`.
const CONSTANT: u32 = 2;
const INTERVAL: u32 = 4;
const TIMEOUT: u32 = 0x10;
/// `NFT_SET_ELEM_INTERVAL_END`: the first value after an interval.
const INTERVAL_END: u32 = 1;
/// The most elements in one message: an attribute holds 64 KiB.
const MAX_ELEMENTS: usize = 500;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFamily {
    /// IPv4 and IPv6, at the hooks of the IP layers (`NFPROTO_INET`).
    Inet = 1,
    /// Whatever a device takes or sends (`NFPROTO_NETDEV`).
    Netdev = 5,
}

impl TableFamily {
    /// Both, in the order in which they are looked for.
    pub const ALL: [TableFamily; 2] = [TableFamily::Inet, TableFamily::Netdev];
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableFamily::Inet => "inet",
            TableFamily::Netdev => "netdev",
        })
    }
}

/// Where a chain sits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// Whatever arrives, before it is known for whom it is.
    Prerouting,
    /// What arrives for this namespace.
    Input,
    /// What only passes through.
    Forward,
    /// What leaves from this namespace.
    Output,
    /// What leaves, from this namespace or through it, when it is known by which device.
    Postrouting,
    /// What these devices take, before all that the IP layers do.
    Ingress(Vec<String>),
    /// What these devices send, after all that the IP layers do. Since Linux 5.16.
    Egress(Vec<String>),
}

impl Hook {
    fn number(&self) -> u32 {
        // `NF_INET_*`, `NF_NETDEV_INGRESS` and `NF_NETDEV_EGRESS`.
        match self {
            Hook::Ingress(_) => 0,
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
            Hook::Egress(_) => 1,
        }
    }
}

/// What the values of a set are; the numbers are `nft`'s, for its listings only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// IPv4 addresses, as `nft` numbers the types of keys.
    V4 = 7,
    /// IPv6 addresses, as `nft` numbers the types of keys.
    V6 = 8,
    /// Protocols on the wire.
    Protocol = 10,
    /// Ports of TCP and UDP.
    Port = 13,
    /// Numbers of any meaning, four bytes long.
    Number = 4,
    /// Marks of packets, in the host's order.
    Mark = 19,
}

impl Key {
    fn length(self) -> u32 {
        match self {
            Key::V4 | Key::Number | Key::Mark => 4,
            Key::V6 => 16,
            Key::Protocol | Key::Port => 2,
        }
    }
}

/// A table that is being described.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// Which packets it sees.
    pub layer: TableFamily,
    /// The name of the set.
    pub name: &'a str,
}

impl Table<'_> {
    fn message(
        &self,
        kind: u16,
        flags: u16,
        what: String,
        put: impl FnOnce(Payload) -> Payload,
    ) -> Message {
        Message {
            what: format!("{what} of table {} {}", self.layer, self.name),
            kind,
            flags: flags::REQUEST | flags,
            body: put(self.header().text(1, self.name)),
        }
    }

    fn header(&self) -> Payload {
        // `struct nfgenmsg`: the family, version 0, no resource.
        Payload::of(&[self.layer as u8, 0, 0, 0])
    }

    /// Makes the table, owned by the socket that sends this.
    pub fn make(&self) -> Message {
        Message {
            what: format!("make table {} {}", self.layer, self.name),
            kind: NEW_TABLE,
            flags: flags::REQUEST | flags::CREATE | flags::EXCLUSIVE,
            body: self.header().text(1, self.name).number(2, OWNER),
        }
    }

    /// Deletes the table with all that is in it. Packets pass by it from then on; the kernel frees it afterwards.
    pub fn delete(&self) -> Message {
        Message {
            what: format!("delete table {} {}", self.layer, self.name),
            kind: DELETE_TABLE,
            flags: flags::REQUEST,
            body: self.header().text(1, self.name),
        }
    }

    /// Removes all elements of a set.
    pub fn empty(&self, set: &str) -> Message {
        self.message(DELETE_ELEMENTS, 0, format!("empty set {set}"), |body| {
            body.text(2, set)
        })
    }

    /// Makes a chain that packets come to at a hook, with this priority, and which lets through what no rule of it is about.
    pub fn base_chain(&self, name: &str, hook: &Hook, priority: i32) -> Message {
        let mut at = Payload::default()
            .number(1, hook.number())
            .number(2, priority as u32);
        if let Hook::Ingress(devices) | Hook::Egress(devices) = hook {
            at = match devices.as_slice() {
                // Several in one chain are known since Linux 5.5, one for ever.
                [only] => at.text(3, only),
                many => {
                    let names = many
                        .iter()
                        .fold(Payload::default(), |names, name| names.text(1, name));
                    at.nest(4, &names)
                }
            };
        }
        let what = format!("make chain {name} at its hook");
        self.message(NEW_CHAIN, flags::CREATE, what, |body| {
            body.text(3, name)
                .nest(4, &at)
                .number(5, 1)
                .text(7, "filter")
        })
    }

    /// Makes a chain that packets come to from another one.
    pub fn chain(&self, name: &str) -> Message {
        self.message(
            NEW_CHAIN,
            flags::CREATE,
            format!("make chain {name}"),
            |body| body.text(3, name),
        )
    }

    /// Makes a set, with ranges of values, both ends within, sorted and apart from each other.
    pub fn ranges(
        &self,
        name: &str,
        id: u32,
        key: Key,
        ranges: &[(Vec<u8>, Vec<u8>)],
    ) -> Vec<Message> {
        let mut elements = Vec::new();
        for (first, last) in ranges {
            elements.push(element(first));
            // What ends with the highest value of all has no end.
            if let Some(after) = next(last) {
                elements.push(element(&after).number(3, INTERVAL_END));
            }
        }
        let mut messages = vec![self.set(name, id, key, CONSTANT | INTERVAL)];
        messages.extend(
            elements
                .chunks(MAX_ELEMENTS)
                .map(|some| self.elements(name, id, some)),
        );
        messages
    }

    /// Makes a set whose values the kernel removes by itself after a time.
    pub fn lease(
        &self,
        name: &str,
        id: u32,
        key: Key,
        values: &[Vec<u8>],
        after: Duration,
    ) -> Vec<Message> {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let elements: Vec<Payload> = values
            .iter()
            .map(|value| element(value).long(4, millis))
            .collect();
        vec![
            self.set(name, id, key, TIMEOUT),
            self.elements(name, id, &elements),
        ]
    }

    /// Makes a set of values, to which more may be added.
    pub fn values(&self, name: &str, id: u32, key: Key, values: &[Vec<u8>]) -> Vec<Message> {
        vec![self.set(name, id, key, 0), self.more(name, id, values)]
    }

    /// Adds values to a set of this name.
    pub fn more(&self, name: &str, id: u32, values: &[Vec<u8>]) -> Message {
        let elements: Vec<Payload> = values.iter().map(|value| element(value)).collect();
        self.elements(name, id, &elements)
    }

    fn set(&self, name: &str, id: u32, key: Key, flags: u32) -> Message {
        self.message(NEW_SET, flags::CREATE, format!("make set {name}"), |body| {
            body.text(2, name)
                .number(3, flags)
                .number(4, key as u32)
                .number(5, key.length())
                .number(10, id)
                // What `nft` keeps there: its type 0, with the order of the bytes, 2 for the network's.
                .put(13, &[0, 4, if key == Key::Mark { 1 } else { 2 }, 0, 0, 0])
        })
    }

    fn elements(&self, set: &str, id: u32, elements: &[Payload]) -> Message {
        let list = elements
            .iter()
            .fold(Payload::default(), |list, one| list.nest(1, one));
        self.message(
            NEW_ELEMENTS,
            flags::CREATE,
            format!("fill set {set}"),
            |body| body.text(2, set).nest(3, &list).number(4, id),
        )
    }

    /// Adds a rule after those of its chain. The comment is how it is known again when its counter is read.
    pub fn rule(&self, chain: &str, expressions: &[Expression], comment: &str) -> Message {
        let list = expressions
            .iter()
            .flat_map(Expression::encode)
            .fold(Payload::default(), |list, one| list.nest(1, &one));
        let what = format!("make a rule in chain {chain}");
        self.message(NEW_RULE, flags::CREATE | flags::APPEND, what, |body| {
            let body = body.text(2, chain).nest(4, &list);
            if comment.is_empty() {
                return body;
            }
            // `nft`'s own form of a comment: its type 0, its length, its text with a zero.
            let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
            let comment = [&[0, length][..], comment.as_bytes(), &[0]].concat();
            body.put(7, &comment)
        })
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// That can't be found out.
    pub fn is_there(&self, socket: &Socket) -> io::Result<bool> {
        let question = Message {
            what: format!("look for table {} {}", self.layer, self.name),
            kind: GET_TABLE,
            flags: flags::REQUEST | flags::ACK,
            body: self.header().text(1, self.name),
        };
        match socket.ask(&question, |_| Some(())) {
            Ok(found) => Ok(!found.is_empty()),
            Err(error) if errno(&error) == Some(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether it has a set of this name.
    ///
    /// # Errors
    /// That can't be found out.
    pub fn has_set(&self, socket: &Socket, set: &str) -> io::Result<bool> {
        let question = Message {
            what: format!("look for set {set} of table {} {}", self.layer, self.name),
            kind: GET_SET,
            flags: flags::REQUEST | flags::ACK,
            body: self.header().text(1, self.name).text(2, set),
        };
        match socket.ask(&question, |_| Some(())) {
            Ok(found) => Ok(!found.is_empty()),
            Err(error) if errno(&error) == Some(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What its rules counted: the comment, packets and bytes of each that has a counter.
    ///
    /// # Errors
    /// That can't be read. A table that is not there has counted nothing.
    pub fn counters(&self, socket: &Socket) -> io::Result<Vec<RuleCounter>> {
        let question = Message {
            what: format!("read the counters of table {} {}", self.layer, self.name),
            kind: GET_RULE,
            flags: flags::REQUEST | flags::DUMP,
            body: self.header().text(1, self.name),
        };
        match socket.ask(&question, |rule| count(self.name, rule.body)) {
            Err(error) if errno(&error) == Some(Errno::NOENT) => Ok(Vec::new()),
            other => other,
        }
    }
}

/// What a rule counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCounter {
    /// The comment of the rule, by which it is recognized.
    pub comment: String,
    /// The number of packets that the rule has counted.
    pub packets: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

fn count(table: &str, rule: &[u8]) -> Option<RuleCounter> {
    let rule = rule.get(message::NF_HEADER..)?;
    // Older kernels list every table's rules, whatever table was asked for.
    if message::text(message::attribute(rule, 1)?) != table {
        return None;
    }
    let comment = message::attribute(rule, 7)
        .and_then(|comment| comment.get(2..))
        .map(message::text)?;
    let counter = message::attributes(message::attribute(rule, 4)?)
        .into_iter()
        .find(|(_, step)| {
            message::attribute(step, 1).map(message::text).as_deref() == Some("counter")
        })?;
    let counter = message::attribute(counter.1, 2)?;
    Some(RuleCounter {
        comment,
        bytes: message::long(message::attribute(counter, 1)?)?,
        packets: message::long(message::attribute(counter, 2)?)?,
    })
}

fn element(key: &[u8]) -> Payload {
    Payload::default().nest(1, &Payload::default().put(1, key))
}

/// The value after this one, in the network's order; none after the highest.
fn next(value: &[u8]) -> Option<Vec<u8>> {
    let mut value = value.to_vec();
    for byte in value.iter_mut().rev() {
        let (more, carried) = byte.overflowing_add(1);
        *byte = more;
        if !carried {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nftables_successor_of_a_value_carries() {
        assert_eq!(next(&[10, 0, 0, 255]), Some(vec![10, 0, 1, 0]));
        assert_eq!(next(&[255, 255]), None);
    }

    #[test]
    fn nftables_verdict_is_encoded_as_by_nft() {
        use super::super::expression::RuleVerdict;
        // As `strace` showed it of `nft add rule … drop`: immediate, register 0, a verdict of 0.
        let encoded = Expression::Verdict(RuleVerdict::Drop).encode();
        let bytes = encoded[0].bytes();
        assert_eq!(
            bytes,
            [
                14, 0, 1, 0, b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0, 0, 0, //
                28, 0, 2, 128, //
                8, 0, 1, 0, 0, 0, 0, 0, //
                16, 0, 2, 128, 12, 0, 2, 128, 8, 0, 1, 0, 0, 0, 0, 0,
            ]
        );
    }
}
