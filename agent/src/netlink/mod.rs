//! Speaking with the kernel about packets, over netlink, with no program in between: messages and
//! their attributes, sockets, the part of nf_tables that faults need, interfaces, and namespaces.
//! Why our own: `docs/decisions/own-netlink.md`.

mod chains;
mod sock_diag;
mod qdisc;
mod expression;
mod interfaces;
mod message;
mod namespace;
mod nfqueue;
mod socket;
mod nftables;

pub use chains::{TableChain, ForeignChain, refusing_chains, has_nat};
pub use sock_diag::{
    ListeningSocket, TcpConnection, closes_connections, is_own_address, listening, tcp_connections,
};
pub use qdisc::{
    Qdisc, Netem, RootQdisc, make_shaper, remove_shaper, root, shaper,
    without_module_devices,
};
pub use expression::{Base, Compare, Expression, Meta, Original, Rejection, RuleVerdict};
pub use interfaces::{LOOPBACK, Interface, addresses, interfaces};
pub use message::Message;
pub use namespace::{NAMED_NAMESPACES, Namespace, within};
pub use nfqueue::{QueuedPacket, PacketVerdict, PacketQueue, any_queue_in_use};
pub use socket::{Family, NetlinkError, Socket, errno};
pub use nftables::{RuleCounter, Hook, Key, TableFamily, Table};
