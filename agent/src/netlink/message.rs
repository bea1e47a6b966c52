//! Messages of netlink: a header, mostly a few fixed bytes, then attributes, which may be nested.
//! The header and the attributes' lengths are in the host's order; what nf_tables writes inside
//! is in the network's.

/// The length of a message's header (`struct nlmsghdr`).
pub const HEADER: usize = 16;
/// The length of nfnetlink's own header (`struct nfgenmsg`).
pub const NF_HEADER: usize = 4;

/// `NLM_F_*` of the kernel's `include/uapi/linux/netlink.h`.
pub mod flags {
    /// This is a request: `NLM_F_REQUEST` of netlink(7).
    pub const REQUEST: u16 = 0x01;
    /// `NLM_F_ACK`: an answer even where nothing went wrong.
    pub const ACK: u16 = 0x04;
    /// `NLM_F_DUMP_INTR`: what was listed changed meanwhile.
    pub const INTERRUPTED: u16 = 0x10;
    /// `NLM_F_DUMP`: all of them.
    pub const DUMP: u16 = 0x300;
    /// `NLM_F_EXCL`: fail where it is there already.
    pub const EXCLUSIVE: u16 = 0x200;
    /// What does not exist is created: `NLM_F_CREATE` of netlink(7).
    pub const CREATE: u16 = 0x400;
    /// `NLM_F_APPEND`: after those that are there.
    pub const APPEND: u16 = 0x800;
}

/// The bit of an attribute's kind that says that there are attributes in it (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;
/// The bits of an attribute's kind that are not its kind: nested, and in the network's order.
const KIND: u16 = 0x3fff;

/// A message that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What is asked, for people: it is named where the kernel refuses.
    pub what: String,
    /// The kind, e.g. `NFT_MSG_NEWTABLE` with its subsystem.
    pub kind: u16,
    /// What is wanted of the kernel; see [`flags`].
    pub flags: u16,
    /// What follows the header.
    pub body: Payload,
}

/// What follows a header: fixed bytes, then attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload(Vec<u8>);

impl Payload {
    /// Starts with fixed bytes.
    pub fn of(fixed: &[u8]) -> Self {
        Payload(fixed.to_vec())
    }

    /// The bytes that were written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds an attribute with these bytes as its value.
    #[must_use]
    pub fn put(mut self, kind: u16, value: &[u8]) -> Self {
        // What does not fit would be cut off by the kernel's own field; no message of the agent's comes near it.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A number of 32 bits, in the network's order.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// A number of 64 bits, in the network's order.
    #[must_use]
    pub fn long(self, kind: u16, value: u64) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// A text, with the zero that ends it.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Attributes in an attribute.
    #[must_use]
    pub fn nest(self, kind: u16, inner: &Payload) -> Self {
        self.put(kind | NESTED, inner.bytes())
    }
}

impl Message {
    /// The message as it goes to the kernel, with this number.
    pub fn encode(&self, sequence: u32) -> Vec<u8> {
        let body = self.body.bytes();
        let length = (HEADER + body.len()) as u32;
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        // The sender: the kernel knows whose socket this is.
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

/// A message that came from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelMessage<'a> {
    /// The kind, which only the family of the message gives a meaning.
    pub kind: u16,
    /// The flags of the header (`NLM_F_…`).
    pub flags: u16,
    /// The number of the message that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages in what one read gave. What is cut short is the last of them.
pub fn messages(mut bytes: &[u8]) -> Vec<KernelMessage<'_>> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind), Some(flags), Some(sequence)) = (
        long_at(bytes, 0),
        short_at(bytes, 4),
        short_at(bytes, 6),
        long_at(bytes, 8),
    ) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length.min(bytes.len())) else {
            break;
        };
        found.push(KernelMessage {
            kind,
            flags,
            sequence,
            body,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The attributes in some bytes, with the kind of each. What is cut short ends the list.
pub fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (short_at(bytes, 0), short_at(bytes, 2)) {
        let length = length as usize;
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        found.push((kind & KIND, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The first attribute of this kind.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .into_iter()
        .find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// An attribute's text, without the zero that ends it.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value)
        .trim_end_matches('\0')
        .to_owned()
}

/// A number of 64 bits, in the network's order.
pub fn long(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

fn short_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A number of 32 bits in the host's order.
pub fn long_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn netlink_attributes_round_trip() {
        let inner = Payload::default().number(2, 7).text(3, "drop");
        let body = Payload::of(&[1, 0, 0, 0]).text(1, "table").nest(4, &inner);
        let found = attributes(&body.bytes()[4..]);
        assert_eq!(found.len(), 2);
        assert_eq!(text(found[0].1), "table");
        assert_eq!(found[1].0, 4);
        assert_eq!(attribute(found[1].1, 2), Some(&[0, 0, 0, 7][..]));
        assert_eq!(attribute(found[1].1, 3).map(text).as_deref(), Some("drop"));
    }

    #[test]
    fn netlink_message_round_trips() {
        let message = Message {
            what: "nothing".into(),
            kind: 0x0a01,
            flags: flags::REQUEST | flags::ACK,
            body: Payload::of(&[2, 0, 0, 0]).text(1, "five"),
        };
        let bytes = [message.encode(7), message.encode(8)].concat();
        assert_eq!(bytes.len() % 4, 0);
        let found = messages(&bytes);
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].kind, found[1].sequence), (0x0a01, 8));
        assert_eq!(
            attribute(&found[1].body[4..], 1).map(text).as_deref(),
            Some("five")
        );
    }

    proptest! {
        #[test]
        fn netlink_arbitrary_bytes_are_read_to_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                prop_assert!(message.body.len() <= bytes.len());
            }
            for (_, value) in attributes(&bytes) {
                prop_assert!(value.len() <= bytes.len());
            }
        }
    }
}
