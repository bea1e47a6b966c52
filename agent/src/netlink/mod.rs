//! Speaking with the kernel about packets, over netlink, with no program in between: messages and
//! their attributes, sockets, the part of nf_tables that faults need, interfaces, and namespaces.
//! Why this is not a library's: `docs/decisions/own-netlink.md`.

mod chains;
mod expression;
mod interfaces;
mod message;
mod namespace;
mod nfqueue;
mod nftables;
mod qdisc;
mod sock_diag;
mod socket;

pub use chains::{ForeignChain, TableChain, has_nat, refusing_chains};
pub use expression::{Base, Compare, Expression, Meta, Original, RejectReply, RuleVerdict};
pub use interfaces::{Interface, LOOPBACK, addresses, interfaces};
pub use message::Message;
/// What tests/fuzz puts strange bytes to.
#[cfg(fuzzing)]
pub use message::{attributes, messages};
pub use namespace::{NAMED_NAMESPACES, Namespace, within};
pub use nfqueue::{PacketQueue, PacketVerdict, QueuedPacket, any_queue_in_use};
pub use nftables::{Hook, Key, RuleCounter, Table, TableFamily};
pub use qdisc::{
    Netem, Qdisc, RootQdisc, make_shaper, remove_shaper, root, shaper, without_module_devices,
};
#[cfg(fuzzing)]
pub use sock_diag::fuzz_connection;
pub use sock_diag::{
    ListeningSocket, TcpConnection, closes_connections, is_own_address, listening, tcp_connections,
};
pub use socket::{Family, NetlinkError, Socket, errno};
