//! The form of DNS messages on the wire (RFC 1035): how a question is written, and how headers, names and records are read. Everything that
//! reads gives none where the message ends before or is not well-formed: bytes come from a network, and nothing here panics or runs on,
//! whatever they are.

/// The length of a header, in bytes.
pub const HEADER_LENGTH: usize = 12;
/// The longest name as it is sent, in bytes, with the length of each label and the end (RFC 1035, 2.3.4).
pub const MAX_NAME_LENGTH: usize = 255;
/// The longest label, in bytes (RFC 1035, 2.3.4).
pub const MAX_LABEL_LENGTH: usize = 63;
/// The class of the internet.
pub const INTERNET: u16 = 1;

/// The numbers of the types of records that more than one reader knows (IANA, "Resource Record (RR) TYPEs").
pub mod record_types {
    /// An address of IPv4.
    pub const A: u16 = 1;
    /// Another name of the same thing.
    pub const CNAME: u16 = 5;
    /// An address of IPv6 (RFC 3596).
    pub const AAAA: u16 = 28;
    /// What a server says of itself, and the upper bits of the response code (RFC 6891, 6.1).
    pub const OPT: u16 = 41;
    /// A service, with hints at its addresses (RFC 9460).
    pub const SVCB: u16 = 64;
    /// A web service, with hints at its addresses (RFC 9460).
    pub const HTTPS: u16 = 65;
    /// Every type there is.
    pub const ANY: u16 = 255;
}

/// The message that asks for the records of one type that a name has, with recursion.
///
/// # Errors
/// The name cannot be asked for; says why.
pub fn question(id: u16, name: &str, record_type: u16) -> Result<Vec<u8>, String> {
    let mut message = Vec::with_capacity(64);
    for field in [id, Header::RECURSION_DESIRED, 1, 0, 0, 0] {
        message.extend(field.to_be_bytes());
    }
    let labels = name.strip_suffix('.').unwrap_or(name);
    if !labels.is_empty() {
        for label in labels.split('.') {
            if !label.is_ascii() {
                return Err("DNS knows ASCII only: write the `xn--…` form of the name".into());
            }
            match u8::try_from(label.len()) {
                Ok(length) if (1..=MAX_LABEL_LENGTH).contains(&label.len()) => message.push(length),
                _ => {
                    return Err(format!(
                        "`{label}` has {} characters between dots, a name has 1 to {MAX_LABEL_LENGTH}",
                        label.len()
                    ));
                }
            }
            message.extend(label.as_bytes());
        }
    }
    message.push(0);
    if message.len() - HEADER_LENGTH > MAX_NAME_LENGTH {
        return Err(format!("a name has at most {MAX_NAME_LENGTH} characters"));
    }
    for field in [record_type, INTERNET] {
        message.extend(field.to_be_bytes());
    }
    Ok(message)
}

/// The header of a message (RFC 1035, 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The number by which an answer is told to be one to a question.
    pub id: u16,
    /// All flags, with the operation and the response code among them.
    flags: u16,
    /// How many questions there are.
    pub questions: u16,
    /// How many records answer.
    pub answers: u16,
    /// How many records name who knows more.
    pub authorities: u16,
    /// How many further records there are.
    pub additional: u16,
}

impl Header {
    const RECURSION_DESIRED: u16 = 0x0100;
    const TRUNCATED: u16 = 0x0200;
    const OPERATION: u16 = 0x7800;
    const ANSWER: u16 = 0x8000;

    /// Whether this is an answer.
    pub fn is_answer(&self) -> bool {
        self.flags & Self::ANSWER != 0
    }

    /// Whether it asks for records, or answers that, and is no other operation.
    pub fn is_query(&self) -> bool {
        self.flags & Self::OPERATION == 0
    }

    /// Whether it was cut short to fit a datagram.
    pub fn is_truncated(&self) -> bool {
        self.flags & Self::TRUNCATED != 0
    }

    /// The response code, without the bits that an OPT record has.
    pub fn code(&self) -> u16 {
        self.flags & 0x0f
    }

    /// How many records there are in all.
    pub fn records(&self) -> u32 {
        [self.answers, self.authorities, self.additional]
            .map(u32::from)
            .iter()
            .sum()
    }
}

/// A record (RFC 1035, 4.1.3).
#[derive(Debug, Clone)]
pub struct ResourceRecord<'m> {
    /// The labels of the name that has it, from the left; none for the root.
    pub owner: Vec<&'m [u8]>,
    /// The number of its type.
    pub kind: u16,
    /// The number of its class.
    pub class: u16,
    /// How long it may be kept, in seconds; an OPT record has other things there.
    pub time_to_live: [u8; 4],
    /// Stands at its data, and ends with them.
    pub data: MessageReader<'m>,
}

/// A place in a message, from which is read.
#[derive(Debug, Clone)]
pub struct MessageReader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> MessageReader<'m> {
    /// At the beginning of a message.
    pub fn new(message: &'m [u8]) -> Self {
        MessageReader { message, at: 0 }
    }

    /// How many bytes of the message come before this place.
    pub fn place(&self) -> usize {
        self.at
    }

    /// Whether nothing comes after this place.
    pub fn is_at_end(&self) -> bool {
        self.at >= self.message.len()
    }

    /// The next bytes.
    pub fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let bytes = self.message.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    /// All that is left.
    pub fn rest(&mut self) -> Option<&'m [u8]> {
        self.take(self.message.len().checked_sub(self.at)?)
    }

    /// The next bytes, as many as an array has.
    pub fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.take(LENGTH)?.try_into().ok()
    }

    /// A number of one byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    /// A number of two bytes.
    pub fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A number of four bytes.
    pub fn long(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A header.
    pub fn header(&mut self) -> Option<Header> {
        Some(Header {
            id: self.short()?,
            flags: self.short()?,
            questions: self.short()?,
            answers: self.short()?,
            authorities: self.short()?,
            additional: self.short()?,
        })
    }

    /// The labels of a name, from the left; none for the root. It may continue at an earlier place of the message.
    pub fn name(&mut self) -> Option<Vec<&'m [u8]>> {
        let mut labels = Vec::new();
        let (mut at, mut before, mut length) = (self.at, None, 0);
        loop {
            let byte = *self.message.get(at)?;
            match byte {
                0 => break,
                1..=63 => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(byte))?;
                    length += label.len() + 1;
                    // The end is a byte, too.
                    if length >= MAX_NAME_LENGTH {
                        return None;
                    }
                    labels.push(label);
                    at += 1 + label.len();
                }
                0xc0.. => {
                    let low = *self.message.get(at + 1)?;
                    let target = usize::from(u16::from_be_bytes([byte & 0x3f, low]));
                    // Only to what was there before this name, and ever further back, so that it ends.
                    if target >= before.map_or(self.at, |(limit, _)| limit) {
                        return None;
                    }
                    before = Some((target, before.map_or(at + 2, |(_, end)| end)));
                    at = target;
                }
                _ => return None,
            }
        }
        self.at = before.map_or(at + 1, |(_, end)| end);
        Some(labels)
    }

    /// A record. The next place is after it.
    pub fn record(&mut self) -> Option<ResourceRecord<'m>> {
        let owner = self.name()?;
        let (kind, class, time_to_live) = (self.short()?, self.short()?, self.array()?);
        let length = usize::from(self.short()?);
        let at = self.at;
        self.take(length)?;
        let data = MessageReader {
            message: self.message.get(..self.at)?,
            at,
        };
        Some(ResourceRecord {
            owner,
            kind,
            class,
            time_to_live,
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_longer_than_a_name_may_be_is_none() {
        // Labels of 63, 63, 63 and 61 bytes are 254 with their lengths, and 255 with the end; one byte more is too long.
        let written = |last: usize| {
            let mut name = [63, 63, 63, last].map(|length| {
                let mut label = vec![b'a'; length + 1];
                label[0] = length as u8;
                label
            });
            name[3].push(0);
            name.concat()
        };
        assert_eq!(written(61).len(), MAX_NAME_LENGTH);
        let labels = MessageReader::new(&written(61))
            .name()
            .map(|name| name.len());
        assert_eq!(labels, Some(4));
        assert_eq!(MessageReader::new(&written(62)).name(), None);
    }

    #[test]
    fn name_that_points_forward_or_to_itself_is_none() {
        // `b.a`, then the same by pointing at `a`, then at itself, then at what comes after it.
        let message = b"\x01b\x01a\0\x01c\xc0\x02\xc0\x09\xc0\x0d\x01d\0";
        let at = |at| MessageReader { message, at };
        assert_eq!(at(0).name(), Some(vec![&b"b"[..], b"a"]));
        let mut reader = at(5);
        assert_eq!(reader.name(), Some(vec![&b"c"[..], b"a"]));
        assert_eq!(reader.place(), 9);
        assert_eq!(reader.name(), None);
        assert_eq!(at(11).name(), None);
        assert_eq!(at(13).name(), Some(vec![&b"d"[..]]));
    }

    #[test]
    fn record_ends_where_its_length_says() {
        let message = b"\x01a\0\0\x10\0\x01\0\0\0\x09\0\x03\x02hi\xff";
        let mut reader = MessageReader::new(message);
        let record = reader.record().expect("it is whole");
        assert_eq!((record.kind, record.class), (16, INTERNET));
        assert_eq!(record.owner, [b"a"]);
        assert_eq!(record.time_to_live, [0, 0, 0, 9]);
        assert_eq!(record.data.clone().rest(), Some(&b"\x02hi"[..]));
        assert_eq!(reader.rest(), Some(&b"\xff"[..]));
        assert!(MessageReader::new(&message[..15]).record().is_none());
    }
}
