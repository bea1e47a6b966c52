//! What of an answer's bytes is of use here (RFC 1035): its header, its one question, and its OPT record. What can't
//! be read is no message, and goes on as it came. Nothing here panics, whatever comes: it comes from a network.

use backburn_experiments::dns_message::record_types::{A, AAAA, ANY, HTTPS, OPT, SVCB};
use backburn_experiments::dns_message::{HEADER_LENGTH, INTERNET, MessageReader};
use std::net::IpAddr;

/// What every asker takes (RFC 1035, 2.3.4).
const SMALLEST_ROOM: usize = 512;
/// How long a made-up record may be kept, in seconds: what is cached outlives the fault.
const TIME_TO_LIVE: u32 = 1;
/// The question of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    /// The labels of the name that was asked for, from the left; none for the root.
    pub labels: Vec<&'a [u8]>,
    /// The type that was asked for.
    kind: u16,
    /// Where it ends in the message.
    end: usize,
}

/// What a rewritten answer says: the numbers of response codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0,
    ServerFailure = 2,
    NoSuchName = 3,
    Refused = 5,
}

impl Question<'_> {
    /// Which of these addresses answer it. None where addresses have no say in its answer.
    pub(super) fn addresses(&self, all: &[IpAddr]) -> Option<Vec<IpAddr>> {
        let wanted = |v4, v6| {
            let fits = |address: &&IpAddr| if address.is_ipv4() { v4 } else { v6 };
            all.iter().filter(fits).copied().collect()
        };
        match self.kind {
            A => Some(wanted(true, false)),
            AAAA => Some(wanted(false, true)),
            ANY => Some(wanted(true, true)),
            // They would tell the true addresses as hints, and those would be taken first.
            SVCB | HTTPS => Some(Vec::new()),
            _ => None,
        }
    }
}

/// The question of a message that is an answer to one.
pub(super) fn question(message: &[u8]) -> Option<Question<'_>> {
    let mut reader = MessageReader::new(message);
    let header = reader.header()?;
    if !header.is_answer() || !header.is_query() || header.questions != 1 {
        return None;
    }
    let labels = reader.name()?;
    // Nothing comes before a question that its name could point to.
    let length: usize = labels.iter().map(|label| 1 + label.len()).sum();
    if reader.place() != HEADER_LENGTH + length + 1 {
        return None;
    }
    let (kind, class) = (reader.short()?, reader.short()?);
    (class == INTERNET).then_some(Question {
        labels,
        kind,
        end: reader.place(),
    })
}

/// The answer to the same question with this code and these addresses instead of what it had. What the
/// server says of itself in its OPT record stays, as whoever asked may think little of a server that has none.
pub(super) fn rewritten(
    message: &[u8],
    question: &Question<'_>,
    code: Code,
    addresses: &[IpAddr],
) -> Option<Vec<u8>> {
    let mut answer = message.get(..question.end)?.to_vec();
    // Of the flags stay: that it is an answer, that recursion was wanted and is to be had, that checking was disabled. Not
    // that it is authoritative, cut short or proved.
    let (first, second) = (message.get(2)? & 0x81, message.get(3)? & 0x90);
    answer.splice(2..4, [first, second | code as u8]);
    let opt = opt(message);
    let mut records = 0u16;
    for address in addresses {
        let (kind, data) = match address {
            IpAddr::V4(address) => (A, address.octets().to_vec()),
            IpAddr::V6(address) => (AAAA, address.octets().to_vec()),
        };
        if answer.len() + 12 + data.len() + opt.as_ref().map_or(0, Vec::len) > SMALLEST_ROOM {
            break;
        }
        // The name is the question's, which begins right after the header.
        answer.extend((0xc000 | HEADER_LENGTH as u16).to_be_bytes());
        answer.extend(kind.to_be_bytes());
        answer.extend(INTERNET.to_be_bytes());
        answer.extend(TIME_TO_LIVE.to_be_bytes());
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
        records += 1;
    }
    let counts = [records, 0, u16::from(opt.is_some())].map(u16::to_be_bytes);
    answer.splice(6..HEADER_LENGTH, counts.concat());
    answer.extend(opt.unwrap_or_default());
    Some(answer)
}

/// The OPT record (RFC 6891), without its part of the response code. None where there is none, or it is not to be had.
fn opt(message: &[u8]) -> Option<Vec<u8>> {
    let mut reader = MessageReader::new(message);
    let header = reader.header()?;
    for _ in 0..header.questions {
        reader.name()?;
        reader.take(4)?;
    }
    for number in 0..header.records() {
        let start = reader.place();
        let record = reader.record()?;
        let is_additional = number >= header.records() - u32::from(header.additional);
        if record.kind == OPT && is_additional && record.owner.is_empty() {
            let mut record = message.get(start..reader.place())?.to_vec();
            // After its empty name, its type and its class.
            *record.get_mut(5)? = 0;
            return Some(record);
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use backburn_experiments::dns_message::MAX_NAME_LENGTH;
    use proptest::prelude::*;

    /// An answer to `WWW.example.org` with one address, an authority and an OPT record that has an option.
    pub(in super::super) fn answer(kind: u16) -> Vec<u8> {
        let mut message = vec![
            0xab, 0xcd, 0x87, 0xb0, 0, 1, 0, 1, 0, 1, 0, 1, // AA, TC, RD; RA, AD and CD
            3, b'W', b'W', b'W', 7, b'e', b'x', b'a', b'm', b'p', b'l', b'e', 3, b'o', b'r', b'g',
            0,
        ];
        message.extend([kind.to_be_bytes(), [0, 1]].concat());
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 192, 0, 2, 1]);
        message.extend([
            0xc0, 16, 0, 2, 0, 1, 0, 0, 14, 16, 0, 5, 2, b'n', b's', 0xc0, 16,
        ]);
        message.extend([
            0, 0, 41, 4, 208, 1, 0, 128, 0, 0, 8, 0, 10, 0, 4, 1, 2, 3, 4,
        ]);
        message
    }

    const KEPT: [u8; 19] = [
        0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 8, 0, 10, 0, 4, 1, 2, 3, 4,
    ];

    #[test]
    fn dns_message_question_is_parsed() {
        let message = answer(A);
        let question = question(&message).expect("there is one");
        assert_eq!(question.labels, [&b"WWW"[..], b"example", b"org"]);
        assert_eq!((question.kind, question.end), (A, 33));
        let mut asked = message.clone();
        asked[2] &= 0x7f;
        assert_eq!(super::question(&asked), None, "it is no answer");
        let mut update = message.clone();
        update[2] |= 0x28;
        assert_eq!(super::question(&update), None, "it is another operation");
        let mut chaos = message;
        chaos[32] = 3;
        assert_eq!(super::question(&chaos), None, "it is another class");
    }

    #[test]
    fn dns_failure_has_its_code_and_keeps_only_the_servers_record() {
        let message = answer(A);
        let question = question(&message).expect("there is one");
        let failed = rewritten(&message, &question, Code::ServerFailure, &[]).expect("it is made");
        let head = [0xab, 0xcd, 0x81, 0x92, 0, 1, 0, 0, 0, 0, 0, 1];
        assert_eq!(failed, [&head[..], &message[12..33], &KEPT].concat());
        // Cut within the OPT record: it is left out.
        let cut = &message[..message.len() - 1];
        let failed = rewritten(cut, &question, Code::NoSuchName, &[]).expect("it is made");
        assert_eq!(failed.len(), 33);
        assert_eq!((failed[3], failed[11]), (0x93, 0));
    }

    #[test]
    fn dns_spoofed_addresses_match_the_queried_type() {
        let both: [IpAddr; 2] = [[192, 0, 2, 9].into(), "2001:db8::9".parse().expect("one")];
        for (kind, wanted) in [
            (A, Some(&both[..1])),
            (AAAA, Some(&both[1..])),
            (ANY, Some(&both[..])),
            (HTTPS, Some(&both[..0])),
            (16, None),
        ] {
            let message = answer(kind);
            let found = question(&message).expect("there is one").addresses(&both);
            assert_eq!(found.as_deref(), wanted, "{kind}");
        }
        let message = answer(ANY);
        let question = question(&message).expect("there is one");
        let spoofed = rewritten(&message, &question, Code::NoError, &both).expect("it is made");
        assert_eq!(spoofed[6..12], [0, 2, 0, 0, 0, 1]);
        let first = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 9];
        assert_eq!(spoofed[33..49], first);
        assert_eq!(spoofed[49..61], [0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 1, 0, 16]);
        assert!(spoofed.ends_with(&KEPT));
        let many = vec![both[1]; 100];
        let spoofed = rewritten(&message, &question, Code::NoError, &many).expect("it is made");
        assert!(spoofed.len() <= SMALLEST_ROOM && spoofed.len() > SMALLEST_ROOM - 28);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_left(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            kind in prop_oneof![Just(A), Just(AAAA), Just(ANY)],
            at in 0usize..80,
            byte in any::<u8>(),
            cut in 0usize..90,
        ) {
            // Noise; noise behind a header and a question that are right; and a whole answer with a byte changed, cut short.
            let right = answer(kind);
            let behind = [&right[..33], &bytes].concat();
            let mut changed = right.clone();
            let last = changed.len() - 1;
            changed[at.min(last)] = byte;
            changed.truncate(cut);
            for message in [bytes, behind, changed] {
                let Some(question) = question(&message) else { continue };
                let names: usize = question.labels.iter().map(|label| label.len() + 1).sum();
                prop_assert!(names < MAX_NAME_LENGTH && question.end <= message.len());
                let address: IpAddr = [192, 0, 2, 9].into();
                let made = rewritten(&message, &question, Code::NoError, &[address]);
                let made = made.expect("what has a question can be answered");
                let again = super::question(&made).expect("it has the same question");
                prop_assert_eq!(again, question);
            }
        }
    }
}
