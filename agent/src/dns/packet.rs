//! An IP packet around a message: where the message is, and the same packet around another one.

/// Numbers of transport protocols, and of IPv6's extension headers that may come before them.
const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// The length of IPv6's fixed header, and of UDP's.
const IPV6: usize = 40;
const UDP_HEADER: usize = 8;

/// A packet that was taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    bytes: &'a [u8],
    /// Whether it is of UDP; else it is of TCP.
    pub is_udp: bool,
    /// Where its transport header begins.
    transport: usize,
    /// What follows the transport header.
    pub payload: &'a [u8],
}

/// Takes a packet of UDP or TCP apart. A part of one that has no beginning is none.
pub(super) fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    let (protocol, transport) = match bytes.first()? >> 4 {
        4 => {
            let fragment = u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]);
            let length = usize::from(bytes.first()? & 0x0f) * 4;
            (fragment & 0x1fff == 0 && length >= 20).then_some((*bytes.get(9)?, length))?
        }
        6 => {
            let (mut protocol, mut at) = (*bytes.get(6)?, IPV6);
            loop {
                let length = match protocol {
                    HOP_BY_HOP | ROUTING | DESTINATION => {
                        (usize::from(*bytes.get(at + 1)?) + 1) * 8
                    }
                    FRAGMENT => {
                        let fragment =
                            u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]);
                        (fragment >> 3 == 0).then_some(8)?
                    }
                    _ => break (protocol, at),
                };
                protocol = *bytes.get(at)?;
                at += length;
            }
        }
        _ => return None,
    };
    let header = match protocol {
        UDP => UDP_HEADER,
        TCP => usize::from(bytes.get(transport + 12)? >> 4) * 4,
        _ => return None,
    };
    Some(Packet {
        bytes,
        is_udp: protocol == UDP,
        transport,
        payload: bytes.get(transport + header..)?,
    })
}

impl Packet<'_> {
    /// The same datagram with another payload, whole: what comes after it as other fragments belongs to nothing any more.
    /// None for TCP, whose stream would not go on.
    pub(super) fn with(&self, payload: &[u8]) -> Option<Vec<u8>> {
        if !self.is_udp {
            return None;
        }
        let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
        let ports = self.bytes.get(self.transport..self.transport + 4)?;
        let datagram = [ports, &length.to_be_bytes(), &[0, 0], payload].concat();
        let (mut packet, addresses) = match self.bytes.first()? >> 4 {
            4 => {
                let mut header = self.bytes.get(..self.transport)?.to_vec();
                let whole = u16::try_from(header.len() + datagram.len()).ok()?;
                header.splice(2..4, whole.to_be_bytes());
                // Of the fragment's field, only that it may not be taken apart.
                header.splice(6..8, [header.get(6)? & 0x40, 0]);
                header.splice(10..12, [0, 0]);
                let checksum = checksum(&[&header]);
                header.splice(10..12, checksum.to_be_bytes());
                (header, self.bytes.get(12..20)?)
            }
            _ => {
                // Extension headers were for the way here.
                let mut header = self.bytes.get(..IPV6)?.to_vec();
                header.splice(4..6, length.to_be_bytes());
                header.splice(6..7, [UDP]);
                (header, self.bytes.get(8..40)?)
            }
        };
        let pseudo = [[0, UDP], length.to_be_bytes()].concat();
        // A checksum of zero says that there is none.
        let checksum = match checksum(&[addresses, &pseudo, &datagram]) {
            0 => u16::MAX,
            other => other,
        };
        let at = packet.len() + 6;
        packet.extend(datagram);
        packet.splice(at..at + 2, checksum.to_be_bytes());
        Some(packet)
    }
}

/// The checksum of the internet (RFC 1071) over parts of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words
        .map(|word| match word {
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            [high] => u64::from(*high) << 8,
            _ => 0,
        })
        .sum();
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A datagram from port 53, of IPv4 or of IPv6, without checksums.
    pub(in super::super) fn datagram(v4: bool, payload: &[u8]) -> Vec<u8> {
        let length = (UDP_HEADER + payload.len()) as u16;
        let mut bytes = match v4 {
            true => {
                let mut header = vec![0x45, 0];
                header.extend((20 + length).to_be_bytes());
                header.extend([
                    0x12, 0x34, 0x60, 0, 64, UDP, 0, 0, 10, 0, 0, 53, 10, 0, 0, 1,
                ]);
                header
            }
            false => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([UDP, 64]);
                header.extend([0xfd; 16]);
                header.extend([0xfc; 16]);
                header
            }
        };
        bytes.extend([0, 53, 0x9c, 0x40]);
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        bytes
    }

    /// Sums of what has a right checksum come to nothing.
    fn is_right(packet: &[u8]) -> bool {
        let (addresses, transport) = match packet[0] >> 4 {
            4 if checksum(&[&packet[..20]]) == 0 => (12..20, 20),
            6 => (8..40, 40),
            _ => return false,
        };
        let datagram = &packet[transport..];
        let pseudo = [0, UDP, datagram[4], datagram[5]];
        checksum(&[&packet[addresses], &pseudo, datagram]) == 0
    }

    #[test]
    fn packet_checksum_matches_a_known_one() {
        // RFC 1071's own example, section 3.
        assert_eq!(
            checksum(&[&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]]),
            !0xddf2
        );
    }

    #[test]
    fn extension_headers_and_fragments() {
        let plain = datagram(false, b"word");
        let mut long = plain[..40].to_vec();
        long[6] = HOP_BY_HOP;
        long.extend([FRAGMENT, 0, 1, 4, 0, 0, 0, 0]);
        long.extend([UDP, 0, 0, 1, 0, 0, 0, 7]);
        long.extend(&plain[40..]);
        let packet = parse(&long).expect("its beginning is there");
        assert_eq!((packet.payload, packet.transport), (&b"word"[..], 56));
        let made = packet.with(b"words").expect("it is of UDP");
        assert_eq!(made.len(), 40 + UDP_HEADER + 5);
        assert!(is_right(&made));
        long[51] = 9;
        assert_eq!(parse(&long), None, "it is a later part");
        let mut later = datagram(true, b"word");
        later[7] = 1;
        assert_eq!(parse(&later), None, "it is a later part");
    }

    #[test]
    fn packet_tcp_payload_is_found_and_unchanged() {
        let mut segment = datagram(true, &[]);
        segment[9] = TCP;
        segment.truncate(20);
        let mut header = [0; 24];
        header[12] = 6 << 4;
        segment.extend(header);
        segment.extend(b"\0\x04word");
        let packet = parse(&segment).expect("it is one");
        assert_eq!((packet.is_udp, packet.payload), (false, &b"\0\x04word"[..]));
        assert_eq!(packet.with(b"other"), None);
    }

    proptest! {
        #[test]
        fn packet_replaced_payload_has_valid_checksums(
            v4 in any::<bool>(),
            before in proptest::collection::vec(any::<u8>(), 0..40),
            after in proptest::collection::vec(any::<u8>(), 0..700),
        ) {
            let bytes = datagram(v4, &before);
            let packet = parse(&bytes).expect("it is one");
            prop_assert_eq!(packet.payload, &before[..]);
            let made = packet.with(&after).expect("it is of UDP");
            prop_assert!(is_right(&made));
            prop_assert_eq!(parse(&made).expect("it is one").payload, &after[..]);
        }

        #[test]
        fn whatever_comes_is_read_or_left(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
            v4 in any::<bool>(),
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = if v4 { 0x40 } else { 0x60 } | *first & 0x0f;
            }
            if let Some(packet) = parse(&bytes) {
                prop_assert!(packet.payload.len() <= bytes.len());
                if packet.is_udp {
                    prop_assert!(packet.with(b"word").is_some());
                }
            }
        }
    }
}
