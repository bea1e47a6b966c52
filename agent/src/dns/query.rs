//! A question to a name server, and what its answer says (RFC 1035). Nothing here panics, whatever comes: it comes from a network.

use std::net::IpAddr;

const HEADER: usize = 12;
/// The most names that point to the next one, in one answer.
const MAX_ALIASES: usize = 16;
/// The most records that are read of an answer.
const MAX_RECORDS: usize = 1024;
const CNAME: u16 = 5;
const INTERNET: u16 = 1;

/// What addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordType {
    /// Addresses of IPv4 (RFC 1035).
    A = 1,
    /// Addresses of IPv6 (RFC 3596).
    Aaaa = 28,
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
    Failed(u8),
}

/// A question with this number; none for what is no name.
pub(super) fn question(id: u16, name: &str, kind: RecordType) -> Option<Vec<u8>> {
    let mut message = id.to_be_bytes().to_vec();
    // That recursion is wanted, and one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    // The longest name is of 255 bytes.
    if message.len() - HEADER > 255 {
        return None;
    }
    message.extend((kind as u16).to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    Some(message)
}

/// What a message says to this question; none where it is no answer to it.
pub(super) fn answer(message: &[u8], asked: &[u8]) -> Option<Response> {
    let flags = *message.get(2)?;
    let is_answer = message.get(..2)? == asked.get(..2)? && flags & 0xf8 == 0x80;
    if !is_answer || short(message, 4)? != 1 {
        return None;
    }
    let (name, at) = name(message, HEADER)?;
    let (asked_name, asked_at) = self::name(asked, HEADER)?;
    if name != asked_name || message.get(at..at + 4)? != asked.get(asked_at..asked_at + 4)? {
        return None;
    }
    let code = message.get(3)? & 0xf;
    if flags & 2 != 0 {
        return Some(Response::CutShort);
    }
    match code {
        0 => {}
        3 => return Some(Response::NoSuchName),
        code => return Some(Response::Failed(code)),
    }
    let kind = short(asked, asked_at)?;
    Some(addresses(message, at + 4, name, kind))
}

fn addresses(message: &[u8], start: usize, name: String, kind: u16) -> Response {
    let count = short(message, 6).map_or(0, usize::from).min(MAX_RECORDS);
    let mut records = Vec::new();
    let mut at = start;
    for _ in 0..count {
        let Some((record, next)) = record(message, at) else {
            break;
        };
        records.push(record);
        at = next;
    }
    let mut owner = name.clone();
    for _ in 0..MAX_ALIASES {
        let own = records.iter().filter(|record| record.owner == owner);
        let found: Vec<IpAddr> = own
            .clone()
            .filter(|record| record.kind == kind)
            .filter_map(|record| match record.data.len() {
                4 => <[u8; 4]>::try_from(record.data).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(record.data).ok().map(IpAddr::from),
            })
            .collect();
        if !found.is_empty() {
            return Response::Addresses(found);
        }
        let alias = own.clone().find(|record| record.kind == CNAME);
        let next = alias.and_then(|record| self::name(message, record.data_at));
        match next {
            Some((next, _)) if next != owner => owner = next,
            _ => break,
        }
    }
    match owner == name {
        true => Response::Addresses(Vec::new()),
        false => Response::Alias(owner),
    }
}

struct ResourceRecord<'a> {
    owner: String,
    kind: u16,
    data: &'a [u8],
    data_at: usize,
}

fn record(message: &[u8], at: usize) -> Option<(ResourceRecord<'_>, usize)> {
    let (owner, at) = name(message, at)?;
    let (kind, class) = (short(message, at)?, short(message, at + 2)?);
    let length = usize::from(short(message, at + 8)?);
    let data_at = at + 10;
    let data = message.get(data_at..data_at + length)?;
    let kind = if class == INTERNET { kind } else { 0 };
    let record = ResourceRecord {
        owner,
        kind,
        data,
        data_at,
    };
    Some((record, data_at + length))
}

/// A name in lower case without its last dot, and what comes after it.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut after = None;
    // Names that point back for ever are none.
    for _ in 0..128 {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some((text, after.unwrap_or(at + 1))),
            1..=63 => {
                let label = message.get(at + 1..at + 1 + length)?;
                if !text.is_empty() {
                    text.push('.');
                }
                // A dot in a label would make another name of it; nothing that is asked for has one.
                let shown = label.iter().map(|byte| match byte {
                    b'.' => '\u{fffd}',
                    byte if byte.is_ascii_graphic() => char::from(byte.to_ascii_lowercase()),
                    _ => '\u{fffd}',
                });
                text.extend(shown);
                at += 1 + length;
            }
            0xc0.. => {
                after.get_or_insert(at + 2);
                at = usize::from(short(message, at)? & 0x3fff);
            }
            _ => return None,
        }
        if text.len() > 1024 {
            return None;
        }
    }
    None
}

fn short(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(
        message.get(at..at + 2)?.try_into().ok()?,
    ))
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
