//! What an answer of DNS says, as the `dns` provider shows it: its code in words, and its records as zone files write them.

use backburn_experiments::dns_message::record_types::OPT;
use backburn_experiments::dns_message::{Header, MessageReader};
use backburn_experiments::hexadecimal;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

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
    let mut reader = MessageReader::new(message);
    let header = reader.header().filter(Header::is_answer)?;
    for _ in 0..header.questions {
        reader.name()?;
        reader.take(4)?;
    }
    let mut found = Vec::new();
    let mut code = header.code();
    for number in 0..header.records() {
        let mut record = reader.record()?;
        if record.kind == OPT {
            code |= u16::from(record.time_to_live[0]) << 4;
        }
        if record.kind == wanted && number < u32::from(header.answers) {
            found.push(text_of(record.kind, &mut record.data)?);
        }
    }
    Some(Reply {
        id: header.id,
        is_truncated: header.is_truncated(),
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

/// A text with its length before it, in a byte.
fn counted_text(reader: &mut MessageReader<'_>) -> Option<String> {
    let length = reader.byte()?;
    let bytes = reader.take(length.into())?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// A name with a dot at its end, whose unusual bytes are escaped (RFC 1035, 5.1).
fn name(reader: &mut MessageReader<'_>) -> Option<String> {
    let labels = reader.name()?;
    if labels.is_empty() {
        return Some(".".into());
    }
    let mut name = String::new();
    for label in labels {
        write_label(&mut name, label);
    }
    Some(name)
}

/// The data of a record as text, as zone files write it; bytes that are no text are replaced. Types without a text of their own are
/// written as any type can be (RFC 3597, 5).
fn text_of(kind: u16, data: &mut MessageReader<'_>) -> Option<String> {
    Some(match kind {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(data.rest()?).ok()?).to_string(),
        28 => Ipv6Addr::from(<[u8; 16]>::try_from(data.rest()?).ok()?).to_string(),
        // NS, CNAME, PTR, DNAME, ANAME
        2 | 5 | 12 | 39 | 65305 => name(data)?,
        // SOA
        6 => {
            let mut text = format!("{} {}", name(data)?, name(data)?);
            for _ in 0..5 {
                write!(text, " {}", data.long()?).ok()?;
            }
            text
        }
        // HINFO
        13 => format!("{} {}", counted_text(data)?, counted_text(data)?),
        // MX
        15 => format!("{} {}", data.short()?, name(data)?),
        // TXT
        16 => {
            let mut text = String::new();
            while !data.is_at_end() {
                text += &counted_text(data)?;
            }
            text
        }
        // SRV
        33 => {
            let (priority, weight, port) = (data.short()?, data.short()?, data.short()?);
            format!("{priority} {weight} {port} {}", name(data)?)
        }
        // NAPTR
        35 => {
            let (order, preference) = (data.short()?, data.short()?);
            let [flags, services, expression] = [
                counted_text(data)?,
                counted_text(data)?,
                counted_text(data)?,
            ];
            let replacement = name(data)?;
            format!(
                "{order} {preference} \"{flags}\" \"{services}\" \"{expression}\" {replacement}"
            )
        }
        // SSHFP
        44 => {
            let (algorithm, hash) = (data.byte()?, data.byte()?);
            format!("{algorithm} {hash} {}", hexadecimal(data.rest()?))
        }
        // TLSA and SMIMEA
        52 | 53 => {
            let (usage, selector, matching) = (data.byte()?, data.byte()?, data.byte()?);
            format!(
                "{usage} {selector} {matching} {}",
                hexadecimal(data.rest()?)
            )
        }
        // CAA
        257 => {
            let (flags, tag) = (data.byte()?, counted_text(data)?);
            let value = String::from_utf8_lossy(data.rest()?);
            format!("{flags} {tag} \"{value}\"")
        }
        _ => {
            let bytes = data.rest()?;
            format!("\\# {} {}", bytes.len(), hexadecimal(bytes))
        }
    })
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
    use backburn_experiments::dns_message::{HEADER_LENGTH, question};
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
