//! Messages of DNS as the `dns` provider needs them (RFC 1035): it asks one question, and reads the code and the records of the answer. What
//! comes back comes from a network: nothing here panics or runs on, whatever the bytes are.

use backburn_experiments::hexadecimal;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The length of a header, in bytes.
const HEADER_LENGTH: usize = 12;
/// The longest name as it is sent, in bytes, with the length of each label and the end (RFC 1035, 2.3.4).
const MAX_NAME_LENGTH: usize = 255;
/// The longest label, in bytes (RFC 1035, 2.3.4).
const MAX_LABEL_LENGTH: usize = 63;
/// The class of the internet.
const INTERNET: u16 = 1;
/// The bits of a header's flags: this is an answer, it was cut short, recursion is desired.
const ANSWER: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
/// The type of the record that carries the upper bits of the code (RFC 6891, 6.1.3).
const OPT: u16 = 41;

/// The types of records that can be asked for, with their numbers (IANA, "Resource Record (RR) TYPEs").
const RECORD_TYPES: [(&str, u16); 35] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("NULL", 10),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("SIG", 24),
    ("KEY", 25),
    ("AAAA", 28),
    ("SRV", 33),
    ("NAPTR", 35),
    ("CERT", 37),
    ("DNAME", 39),
    ("DS", 43),
    ("SSHFP", 44),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
    ("TLSA", 52),
    ("SMIMEA", 53),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("OPENPGPKEY", 61),
    ("CSYNC", 62),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("ANY", 255),
    ("URI", 256),
    ("CAA", 257),
    ("ANAME", 65305),
];

/// The number of a type of records, from its name in capital letters; none if no such type can be asked for.
pub(super) fn record_type(name: &str) -> Option<u16> {
    let known = RECORD_TYPES.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number)
}

/// The message that asks for the records of one type that a name has.
///
/// # Errors
/// The name cannot be asked for; says why.
pub(super) fn question(id: u16, name: &str, record_type: u16) -> Result<Vec<u8>, String> {
    let mut message = Vec::with_capacity(64);
    for field in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
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

/// An answer of a name server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// The number of the question that it answers.
    pub id: u16,
    /// Whether it was cut short to fit a datagram.
    pub is_truncated: bool,
    /// The response code in words, e.g. `No Error`.
    pub code: &'static str,
    /// The data of the answered records of the type that was asked for, as text.
    pub answers: Vec<String>,
}

/// Reads an answer; of its records those of this type. None if the bytes are no complete answer.
pub(super) fn read_reply(message: &[u8], wanted: u16) -> Option<Reply> {
    let mut reader = Reader { message, at: 0 };
    let (id, flags) = (reader.short()?, reader.short()?);
    if flags & ANSWER == 0 {
        return None;
    }
    let [questions, answers, authorities, additional] = [
        reader.short()?,
        reader.short()?,
        reader.short()?,
        reader.short()?,
    ];
    for _ in 0..questions {
        reader.name()?;
        reader.skip(4)?;
    }
    let mut found = Vec::new();
    let mut code = flags & 0x0f;
    for number in 0..u32::from(answers) + u32::from(authorities) + u32::from(additional) {
        reader.name()?;
        let (kind, _class) = (reader.short()?, reader.short()?);
        let upper_bits = reader.take(4)?[0];
        let length = usize::from(reader.short()?);
        let end = reader.at.checked_add(length)?;
        if kind == OPT {
            code |= u16::from(upper_bits) << 4;
        }
        if kind == wanted && number < u32::from(answers) {
            let mut data = Reader {
                message: message.get(..end)?,
                at: reader.at,
            };
            found.push(data.text_of(kind)?);
        }
        reader.skip(length)?;
    }
    Some(Reply {
        id,
        is_truncated: flags & TRUNCATED != 0,
        code: code_in_words(code),
        answers: found,
    })
}

/// A response code in words (IANA, "DNS RCODEs").
fn code_in_words(code: u16) -> &'static str {
    match code {
        0 => "No Error",
        1 => "Form Error",
        2 => "Server Failure",
        3 => "Non-Existent Domain",
        4 => "Not Implemented",
        5 => "Query Refused",
        6 => "Name should not exist",
        7 => "RR Set should not exist",
        8 => "RR Set does not exist",
        9 => "Not authorized",
        10 => "Name not in zone",
        16 => "Bad option versions",
        17 => "Key not recognized",
        18 => "Signature out of time window",
        19 => "Bad TKEY mode",
        20 => "Duplicate key name",
        21 => "Algorithm not supported",
        22 => "Bad truncation",
        23 => "Bad server cookie",
        _ => "Unknown response code",
    }
}

/// A place in a message. Everything that reads gives none where the message ends before.
struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let bytes = self.message.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(|_| ())
    }

    fn rest(&mut self) -> Option<&'m [u8]> {
        self.take(self.message.len().checked_sub(self.at)?)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn short(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    fn long(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// A text with its length before it, in a byte.
    fn counted_text(&mut self) -> Option<String> {
        let length = self.byte()?;
        let bytes = self.take(length.into())?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A name with a dot at its end, whose unusual bytes are escaped (RFC 1035, 5.1). It may continue at an earlier place of the message.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut before, mut length) = (self.at, None, 0);
        loop {
            let byte = *self.message.get(at)?;
            match byte {
                0 => break,
                1..=63 => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(byte))?;
                    length += label.len() + 1;
                    if length > MAX_NAME_LENGTH {
                        return None;
                    }
                    write_label(&mut name, label);
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
        if name.is_empty() {
            name.push('.');
        }
        Some(name)
    }

    /// The data of a record as text, as zone files write it; bytes that are no text are replaced. Types without a text of their own are
    /// written as any type can be (RFC 3597, 5).
    fn text_of(&mut self, kind: u16) -> Option<String> {
        Some(match kind {
            1 => Ipv4Addr::from(<[u8; 4]>::try_from(self.rest()?).ok()?).to_string(),
            28 => Ipv6Addr::from(<[u8; 16]>::try_from(self.rest()?).ok()?).to_string(),
            // NS, CNAME, PTR, DNAME, ANAME
            2 | 5 | 12 | 39 | 65305 => self.name()?,
            // SOA
            6 => {
                let mut text = format!("{} {}", self.name()?, self.name()?);
                for _ in 0..5 {
                    write!(text, " {}", self.long()?).ok()?;
                }
                text
            }
            // HINFO
            13 => format!("{} {}", self.counted_text()?, self.counted_text()?),
            // MX
            15 => format!("{} {}", self.short()?, self.name()?),
            // TXT
            16 => {
                let mut text = String::new();
                while self.at < self.message.len() {
                    text += &self.counted_text()?;
                }
                text
            }
            // SRV
            33 => {
                let (priority, weight, port) = (self.short()?, self.short()?, self.short()?);
                format!("{priority} {weight} {port} {}", self.name()?)
            }
            // NAPTR
            35 => {
                let (order, preference) = (self.short()?, self.short()?);
                let [flags, services, expression] = [
                    self.counted_text()?,
                    self.counted_text()?,
                    self.counted_text()?,
                ];
                let replacement = self.name()?;
                format!(
                    "{order} {preference} \"{flags}\" \"{services}\" \"{expression}\" {replacement}"
                )
            }
            // SSHFP
            44 => {
                let (algorithm, hash) = (self.byte()?, self.byte()?);
                format!("{algorithm} {hash} {}", hexadecimal(self.rest()?))
            }
            // TLSA and SMIMEA
            52 | 53 => {
                let (usage, selector, matching) = (self.byte()?, self.byte()?, self.byte()?);
                format!(
                    "{usage} {selector} {matching} {}",
                    hexadecimal(self.rest()?)
                )
            }
            // CAA
            257 => {
                let (flags, tag) = (self.byte()?, self.counted_text()?);
                let value = String::from_utf8_lossy(self.rest()?);
                format!("{flags} {tag} \"{value}\"")
            }
            _ => {
                let bytes = self.rest()?;
                format!("\\# {} {}", bytes.len(), hexadecimal(bytes))
            }
        })
    }
}

/// Adds a label and its dot to a name.
fn write_label(name: &mut String, label: &[u8]) {
    for byte in label {
        match byte {
            b'-' | b'_' | b'*' => name.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => name.push(char::from(*byte)),
            byte if byte.is_ascii_graphic() => {
                name.push('\\');
                name.push(char::from(*byte));
            }
            byte => *name += &format!("\\{byte:03}"),
        }
    }
    name.push('.');
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Message, MessageType, ResponseCode};
    use hickory_proto::rr::rdata::{CAA, MX, SOA, SRV, TXT};
    use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
    use proptest::prelude::*;
    use std::str::FromStr as _;

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    /// An answer as another implementation writes it, names compressed.
    fn written(data: Vec<RData>, code: ResponseCode) -> Message {
        let mut message = Message::query();
        message.metadata.id = 0xabcd;
        message.metadata.message_type = MessageType::Response;
        message.metadata.response_code = code;
        for data in data {
            message.add_answer(Record::from_rdata(name("www.example.org."), 60, data));
        }
        message
    }

    fn all_kinds() -> Vec<RData> {
        let host = || name("mail.example.org.");
        vec![
            RData::A(rdata::A::new(192, 0, 2, 7)),
            RData::AAAA(rdata::AAAA("2001:db8::7".parse().unwrap())),
            RData::NS(rdata::NS(host())),
            RData::CNAME(rdata::CNAME(host())),
            RData::PTR(rdata::PTR(name("."))),
            RData::MX(MX::new(10, host())),
            RData::TXT(TXT::new(vec!["v=spf1 ".into(), "-all \"é\"".into()])),
            RData::SRV(SRV::new(1, 2, 5060, host())),
            RData::SOA(SOA::new(
                host(),
                name("a\\.b.example.org."),
                7,
                3600,
                60,
                -1,
                5,
            )),
            RData::CAA(CAA::new_issue(false, Some(name("ca.example.org")), vec![])),
        ]
    }

    #[test]
    fn reply_of_each_kind_reads_as_another_implementation_writes_it() {
        let message = written(all_kinds(), ResponseCode::NoError);
        let bytes = message.to_vec().unwrap();
        for data in all_kinds() {
            let kind = u16::from(data.record_type());
            let reply = read_reply(&bytes, kind).unwrap();
            assert_eq!((reply.id, reply.code), (0xabcd, "No Error"));
            // The other implementation writes a signed number there (RFC 1035 has none).
            let wanted = data.to_string().replace(" -1 ", " 4294967295 ");
            assert_eq!(reply.answers, [wanted], "{:?}", data.record_type());
        }
    }

    #[test]
    fn reply_codes_are_those_of_another_implementation() {
        for code in 0..=10 {
            let code = ResponseCode::from_low(code);
            let bytes = written(vec![], code).to_vec().unwrap();
            assert_eq!(read_reply(&bytes, 1).unwrap().code, code.to_str());
        }
    }

    #[test]
    fn question_is_what_another_implementation_reads() {
        for (text, wanted) in [
            ("www.example.org", "www.example.org."),
            ("www.example.org.", "www.example.org."),
            ("_sip._tcp.example.org", "_sip._tcp.example.org."),
            (".", "."),
        ] {
            let bytes = question(7, text, record_type("SRV").unwrap()).unwrap();
            let read = Message::from_vec(&bytes).unwrap();
            assert!(read.metadata.recursion_desired && read.metadata.id == 7);
            assert_eq!(read.queries[0].name().to_string(), wanted);
            assert_eq!(read.queries[0].query_type(), RecordType::SRV);
        }
        let long = "a.".repeat(128);
        for wrong in ["a..b", ".a", "müller.example", &"x".repeat(64), &long] {
            assert!(question(7, wrong, 1).is_err(), "{wrong}");
        }
    }

    #[test]
    fn record_types_have_the_numbers_of_another_implementation() {
        for (name, number) in RECORD_TYPES {
            // Newer than that implementation.
            if name != "URI" {
                let wanted = RecordType::from_str(name).map(u16::from).unwrap();
                assert_eq!(number, wanted, "{name}");
            }
        }
        assert_eq!(record_type("NO"), None);
    }

    #[test]
    fn name_that_points_to_itself_is_no_answer() {
        let mut bytes = written(vec![], ResponseCode::NoError).to_vec().unwrap();
        bytes[7] = 1;
        for pointer in [[0xc0, 12], [0xc0, 14], [0xff, 0xff]] {
            let record = [&pointer[..], &[0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 7]].concat();
            assert_eq!(read_reply(&[&bytes[..], &record].concat(), 1), None);
        }
    }

    proptest! {
        #[test]
        fn reply_damaged_anywhere_is_read_or_refused(
            at in 0usize..600,
            byte in any::<u8>(),
            cut in 0usize..600,
            kind in prop_oneof![Just(1u16), Just(2), Just(6), Just(15), Just(16), Just(33), Just(257), Just(48)],
        ) {
            let mut bytes = written(all_kinds(), ResponseCode::NoError).to_vec().unwrap();
            let whole = bytes.len();
            bytes[at % whole] = byte;
            bytes.truncate(cut.max(1));
            if let Some(reply) = read_reply(&bytes, kind) {
                prop_assert!(bytes.len() >= HEADER_LENGTH && reply.answers.len() <= usize::from(u16::MAX));
            }
        }
    }
}
