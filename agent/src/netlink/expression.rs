//! What a rule is made of: small steps that load something of a packet into a register, look at
//! it, count, or decide. The subset that faults need, with the kernel's own names
//! (`include/uapi/linux/netfilter/nf_tables.h`), which `nft --debug=netlink` shows.

use super::message::Payload;

/// Where in a packet a field lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// From the beginning of the IP header.
    Network = 1,
    /// From the beginning of the TCP, UDP or ICMP header.
    Transport = 2,
}

/// What is known of a packet besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// Its mark; 4 bytes in the host's order.
    Mark = 3,
    /// Its protocol on the wire, e.g. 0x0800 for IPv4; 2 bytes in the network's order.
    Protocol = 1,
    /// The number of the interface that it leaves by; 4 bytes in the host's order.
    Output = 5,
    /// The name of the interface that it came in by; 16 bytes.
    InputName = 6,
    /// The name of the interface that it leaves by; 16 bytes.
    OutputName = 7,
    /// The type of the interface that it came in by; 2 bytes in the host's order.
    InputType = 8,
    /// The type of the interface that it leaves by; 2 bytes in the host's order.
    OutputType = 9,
    /// Its family in the IP layers, `NFPROTO_*`; 1 byte.
    Family = 15,
    /// Its transport protocol, e.g. 6 for TCP; 1 byte.
    Transport = 16,
}

/// What a packet's connection had in its first packet, before addresses were translated (`NFT_CT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Original {
    /// The port that it came from; 2 bytes in the network's order, as the next.
    SourcePort = 11,
    /// The port that it went to.
    DestinationPort = 12,
    /// The address that it came from, of IPv4.
    SourceV4 = 19,
    /// The address that it went to, of IPv4.
    DestinationV4 = 20,
    /// The address that it came from, of IPv6.
    SourceV6 = 21,
    /// The address that it went to, of IPv6.
    DestinationV6 = 22,
}

/// How a register is compared; bytes by bytes, so numbers must be in the network's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// The register equals the value (`NFT_CMP_EQ`).
    Equal = 0,
    /// The register differs from the value (`NFT_CMP_NEQ`).
    Unequal = 1,
    /// The register is less than the value (`NFT_CMP_LT`).
    Less = 2,
    /// The register is at most the value (`NFT_CMP_LTE`).
    AtMost = 3,
    /// The register is at least the value (`NFT_CMP_GTE`).
    AtLeast = 5,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleVerdict {
    /// The packet is dropped (`NF_DROP`).
    Drop,
    /// Our chain has nothing against it.
    Accept,
    /// The other chain decides, and the packet does not come back.
    Goto(String),
}

/// How somebody is told that a packet was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReply {
    /// By a TCP reset.
    Reset,
    /// By ICMP or ICMPv6: `NFT_REJECT_ICMPX_*`, 1 for the port, 2 for the host, 3 for "prohibited".
    Unreachable(u8),
}

/// One step. Everything goes through the first register, but for what a step keeps meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads a field of the packet.
    Payload {
        /// The header that the offset counts from.
        base: Base,
        /// How far from there, in bytes.
        offset: u32,
        /// How long it is, in bytes.
        length: u32,
    },
    /// Loads what is known of the packet.
    Meta(Meta),
    /// Loads the number of the control group (version 2) that is so far below the root, of the socket that the packet is of;
    /// 8 bytes in the host's order. Does not go on where no socket of this namespace is known for it. Since Linux 5.13.
    SocketCgroup(u32),
    /// Loads what the packet's connection was before translation. Has the kernel track connections in the namespace. Does not go on
    /// where the connection is not tracked, or of another family. Only in the IP layers, after tracking (-200). Since Linux 4.17.
    Original(Original),
    /// Goes on where the register compares so.
    Compare(Compare, Vec<u8>),
    /// Keeps only these bits.
    Mask(Vec<u8>),
    /// Turns over the bits that are set here.
    Toggle(Vec<u8>),
    /// Sets the packet's mark.
    SetMark,
    /// Goes on where the register is in a set; or is not.
    Lookup {
        /// The name of the set that is searched.
        set: String,
        /// Whether it must be missing there.
        missing: bool,
    },
    /// Counts packets and bytes.
    Counter,
    /// As many packets as were counted before.
    CounterFrom(u64),
    /// Loads a number below `modulus`, in the network's order: the next one, or a random one.
    Number {
        /// One above the highest.
        modulus: u32,
        /// Whether it is random; else they go round.
        random: bool,
    },
    /// Decides what becomes of the packet.
    Verdict(RuleVerdict),
    /// Drops the packet and tells its sender.
    Reject(RejectReply),
    /// Hands the packet to whoever listens to this queue, in user space; with nobody there it goes on, and with one who takes
    /// none it is freed, and whoever sent it is told that it went out.
    Queue {
        /// The number of the queue.
        number: u16,
        /// By the older `NFQUEUE` target, where the kernel has no step of its own for it.
        by_target: bool,
    },
    /// Sets the mark of the packet.
    Mark(u32),
    /// Takes the packet away at a device's hook, and hands it to the device of this number.
    Forward(u32),
    /// Sends a copy by the device that the packet leaves by. The copy comes by the hook as well: it has this mark, and no other.
    Copy {
        /// The value of the mark.
        mark: u32,
    },
    /// Takes the packet away at a device's hook, and hands it to a device that there is not: it is freed there, and whoever
    /// sent it is told that it went out, as with a loss on the wire.
    Vanish,
}

/// `NFT_REG_1`; register 0 is the verdict.
const REGISTER: u32 = 1;
/// The second register, `NFT_REG_2`.
const OTHER: u32 = 2;

impl Expression {
    /// The step as an element of a rule's list.
    pub(super) fn encode(&self) -> Vec<Payload> {
        let element = |name: &str, data: Payload| Payload::default().text(1, name).nest(2, &data);
        let value = |bytes: &[u8]| Payload::default().put(1, bytes);
        let empty = Payload::default;
        let loaded = |bytes: &[u8]| {
            let body = empty().number(1, REGISTER).nest(2, &value(bytes));
            element("immediate", body)
        };
        let marked = |register| {
            let body = empty().number(2, Meta::Mark as u32).number(3, register);
            element("meta", body)
        };
        vec![match self {
            Expression::Payload {
                base,
                offset,
                length,
            } => element(
                "payload",
                empty()
                    .number(1, REGISTER)
                    .number(2, *base as u32)
                    .number(3, *offset)
                    .number(4, *length),
            ),
            Expression::Meta(key) => {
                element("meta", empty().number(1, REGISTER).number(2, *key as u32))
            }
            // The last is the direction, `IP_CT_DIR_ORIGINAL`.
            Expression::Original(key) => element(
                "ct",
                empty()
                    .number(1, REGISTER)
                    .number(2, *key as u32)
                    .put(3, &[0]),
            ),
            // `NFT_SOCKET_CGROUPV2`.
            Expression::SocketCgroup(level) => element(
                "socket",
                empty().number(1, 3).number(2, REGISTER).number(3, *level),
            ),
            Expression::Compare(how, bytes) => element(
                "cmp",
                empty()
                    .number(1, REGISTER)
                    .number(2, *how as u32)
                    .nest(3, &value(bytes)),
            ),
            Expression::Mask(mask) => element(
                "bitwise",
                empty()
                    .number(1, REGISTER)
                    .number(2, REGISTER)
                    .number(3, mask.len() as u32)
                    .nest(4, &value(mask))
                    .nest(5, &value(&vec![0; mask.len()])),
            ),
            Expression::Toggle(bits) => element(
                "bitwise",
                empty()
                    .number(1, REGISTER)
                    .number(2, REGISTER)
                    .number(3, bits.len() as u32)
                    .nest(4, &value(&vec![0xff; bits.len()]))
                    .nest(5, &value(bits)),
            ),
            // The source's register comes third.
            Expression::SetMark => element(
                "meta",
                empty().number(3, REGISTER).number(2, Meta::Mark as u32),
            ),
            Expression::Lookup { set, missing } => element(
                "lookup",
                empty()
                    .text(1, set)
                    .number(2, REGISTER)
                    .number(5, u32::from(*missing)),
            ),
            Expression::Counter => element("counter", empty().long(1, 0).long(2, 0)),
            Expression::CounterFrom(packets) => {
                element("counter", empty().long(1, 0).long(2, *packets))
            }
            Expression::Number { modulus, random } => {
                let number = empty()
                    .number(1, REGISTER)
                    .number(2, *modulus)
                    .number(3, u32::from(*random))
                    .number(4, 0);
                // It comes in the host's order, and comparing wants the network's.
                let turned = empty()
                    .number(1, REGISTER)
                    .number(2, REGISTER)
                    .number(3, 1)
                    .number(4, 4)
                    .number(5, 4);
                return vec![element("numgen", number), element("byteorder", turned)];
            }
            Expression::Verdict(verdict) => element(
                "immediate",
                empty()
                    .number(1, 0)
                    .nest(2, &empty().nest(2, &verdict.encode())),
            ),
            Expression::Reject(RejectReply::Reset) => {
                element("reject", empty().number(1, 1).put(2, &[0]))
            }
            Expression::Reject(RejectReply::Unreachable(code)) => {
                element("reject", empty().number(1, 2).put(2, &[*code]))
            }
            // `NFT_QUEUE_FLAG_BYPASS`.
            Expression::Queue {
                number,
                by_target: false,
            } => element(
                "queue",
                empty()
                    .put(1, &number.to_be_bytes())
                    .put(2, &1u16.to_be_bytes())
                    .put(3, &1u16.to_be_bytes()),
            ),
            Expression::Queue {
                number,
                by_target: true,
            } => {
                // `struct xt_NFQ_info_v3`, in the host's order and as long as a multiple of 8: number, how many, bypass.
                let fields = [*number, 1, 1, 0].map(u16::to_ne_bytes);
                element(
                    "target",
                    empty()
                        .text(1, "NFQUEUE")
                        .number(2, 3)
                        .put(3, &fields.concat()),
                )
            }
            Expression::Mark(mark) => return vec![loaded(&mark.to_ne_bytes()), marked(REGISTER)],
            Expression::Copy { mark } => {
                // The packet's own mark is kept in another register meanwhile.
                let load = |key: Meta, register| {
                    element("meta", empty().number(1, register).number(2, key as u32))
                };
                return vec![
                    load(Meta::Mark, OTHER),
                    loaded(&mark.to_ne_bytes()),
                    marked(REGISTER),
                    load(Meta::Output, REGISTER),
                    element("dup", empty().number(2, REGISTER)),
                    marked(OTHER),
                ];
            }
            Expression::Forward(device) => {
                return vec![
                    loaded(&device.to_ne_bytes()),
                    element("fwd", empty().number(1, REGISTER)),
                ];
            }
            // No device has the number 0.
            Expression::Vanish => return Expression::Forward(0).encode(),
        }]
    }
}

impl RuleVerdict {
    fn encode(&self) -> Payload {
        // `NF_DROP`, `NF_ACCEPT` and `NFT_GOTO`.
        match self {
            RuleVerdict::Drop => Payload::default().number(1, 0),
            RuleVerdict::Accept => Payload::default().number(1, 1),
            RuleVerdict::Goto(chain) => Payload::default().number(1, (-4i32) as u32).text(2, chain),
        }
    }
}
