//! A question to a name server, and what its answer says (RFC 1035). Nothing here panics, whatever comes: it comes from a network.

use backburn_experiments::dns_message::record_types::{A, AAAA, CNAME};
use backburn_experiments::dns_message::{self, INTERNET, MessageReader, ResourceRecord};
use std::net::IpAddr;

/// The most names that point to the next one, in one answer.
const MAX_ALIASES: usize = 16;
/// The most records that are read of an answer.
const MAX_RECORDS: usize = 1024;

/// What addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordType {
    /// Addresses of IPv4 (RFC 1035).
    A = A as isize,
    /// Addresses of IPv6 (RFC 3596).
    Aaaa = AAAA as isize,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Response {
    /// The addresses. None where there are none of that kind, and no alias that goes on.
    Addresses(Vec<IpAddr>),
    /// The name is another's, of which nothing is said.
    Alias(String),
    /// There is no such name.
    NoSuchName,
    /// The answer is longer than what came.
    CutShort,
    /// The server can't or does not want to say: the number of its response code.
    Failed(u16),
}

/// A question with this number; none for what is no name.
pub(super) fn question(id: u16, name: &str, kind: RecordType) -> Option<Vec<u8>> {
    dns_message::question(id, name, kind as u16).ok()
}

/// What a message says to this question; none where it is no answer to it.
pub(super) fn answer(message: &[u8], asked: &[u8]) -> Option<Response> {
    let (mut reader, mut question) = (MessageReader::new(message), MessageReader::new(asked));
    let (header, asked_header) = (reader.header()?, question.header()?);
    let is_answer = header.is_answer() && header.is_query() && header.id == asked_header.id;
    if !is_answer || header.questions != 1 {
        return None;
    }
    let (name, asked_name) = (text(&reader.name()?), text(&question.name()?));
    let (kind, class) = (question.short()?, question.short()?);
    if name != asked_name || (reader.short()?, reader.short()?) != (kind, class) {
        return None;
    }
    if header.is_truncated() {
        return Some(Response::CutShort);
    }
    match header.code() {
        0 => Some(addresses(reader, header.answers, name, kind)),
        3 => Some(Response::NoSuchName),
        code => Some(Response::Failed(code)),
    }
}

/// What the records after this place say of a name.
fn addresses(mut reader: MessageReader<'_>, count: u16, name: String, kind: u16) -> Response {
    let count = usize::from(count).min(MAX_RECORDS);
    let records: Vec<ResourceRecord<'_>> = std::iter::from_fn(|| reader.record())
        .take(count)
        .filter(|record| record.class == INTERNET)
        .collect();
    let mut owner = name.clone();
    for _ in 0..MAX_ALIASES {
        let own = records.iter().filter(|record| text(&record.owner) == owner);
        let found: Vec<IpAddr> = own
            .clone()
            .filter(|record| record.kind == kind)
            .filter_map(|record| {
                let data = record.data.clone().rest()?;
                match data.len() {
                    4 => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
                    _ => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
                }
            })
            .collect();
        if !found.is_empty() {
            return Response::Addresses(found);
        }
        let alias = own.clone().find(|record| record.kind == CNAME);
        match alias.and_then(|record| record.data.clone().name()) {
            Some(next) if text(&next) != owner => owner = text(&next),
            _ => break,
        }
    }
    match owner == name {
        true => Response::Addresses(Vec::new()),
        false => Response::Alias(owner),
    }
}

/// A name in lower case without its last dot.
fn text(labels: &[&[u8]]) -> String {
    // A dot in a label would make another name of it; nothing that is asked for has one.
    let shown = |byte: &u8| match byte {
        b'.' => '\u{fffd}',
        byte if byte.is_ascii_graphic() => char::from(byte.to_ascii_lowercase()),
        _ => '\u{fffd}',
    };
    let labels: Vec<String> = labels
        .iter()
        .map(|label| label.iter().map(shown).collect())
        .collect();
    labels.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(asked: &[u8], flags: [u8; 2], records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let mut message = asked.to_vec();
        message.splice(2..4, flags);
        message.splice(6..8, (records.len() as u16).to_be_bytes());
        for (owner, kind, data) in records {
            message.extend_from_slice(owner);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 9]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend_from_slice(data);
        }
        message
    }

    #[test]
    fn dns_answer_with_aliases_is_followed() {
        let asked = question(7, "WWW.test", RecordType::A).expect("a name");
        let own = [0xc0, 12];
        let db = b"\x02db\x04test\0";
        let plain = with(
            &asked,
            [0x81, 0x80],
            &[(&own, 1, &[10, 0, 0, 1]), (&own, 1, &[10, 0, 0, 2])],
        );
        let two = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        assert_eq!(answer(&plain, &asked), Some(Response::Addresses(two)));
        let alias = with(
            &asked,
            [0x81, 0x80],
            &[(&own, 5, db), (db, 1, &[10, 0, 0, 3])],
        );
        let one = vec![[10, 0, 0, 3].into()];
        assert_eq!(answer(&alias, &asked), Some(Response::Addresses(one)));
        let open = with(
            &asked,
            [0x81, 0x80],
            &[(&own, 5, db), (b"\x01x\0", 1, &[10, 0, 0, 3])],
        );
        assert_eq!(
            answer(&open, &asked),
            Some(Response::Alias("db.test".into()))
        );
        let none = with(&asked, [0x81, 0x80], &[]);
        assert_eq!(answer(&none, &asked), Some(Response::Addresses(Vec::new())));
        let itself = with(&asked, [0x81, 0x80], &[(&own, 5, &own)]);
        assert_eq!(
            answer(&itself, &asked),
            Some(Response::Addresses(Vec::new()))
        );
        assert_eq!(
            answer(&with(&asked, [0x81, 0x83], &[]), &asked),
            Some(Response::NoSuchName)
        );
        assert_eq!(
            answer(&with(&asked, [0x83, 0x80], &[]), &asked),
            Some(Response::CutShort)
        );
        assert_eq!(
            answer(&with(&asked, [0x81, 0x82], &[]), &asked),
            Some(Response::Failed(2))
        );
        // Another's answer, another question's, a question.
        let mut other = plain.clone();
        other[1] = 8;
        assert_eq!(answer(&other, &asked), None);
        let sixth = question(7, "www.test", RecordType::Aaaa).expect("a name");
        assert_eq!(answer(&plain, &sixth), None);
        assert_eq!(answer(&asked, &asked), None);
        assert_eq!(question(1, "a..b", RecordType::A), None);
        assert_eq!(question(1, &"a.".repeat(130), RecordType::A), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_left(
            more in proptest::collection::vec(any::<u8>(), 0..200),
            count in any::<u16>(),
        ) {
            let asked = question(7, "www.test", RecordType::A).expect("a name");
            let mut message = with(&asked, [0x81, 0x80], &[]);
            message.splice(6..8, count.to_be_bytes());
            message.extend(&more);
            answer(&message, &asked);
            answer(&more, &asked);
        }
    }
}
