//! Speaking with the kernel about packets, over netlink, with no program in between: messages and
//! their attributes, sockets, the part of nf_tables that faults need, interfaces, and namespaces.
//! Why our own: `docs/decisions/own-netlink.md`.

mod chains;
mod expression;
mod links;
mod message;
mod namespace;
mod nfqueue;
mod nftables;
mod qdisc;
mod sock_diag;
mod socket;

pub use chains::{Chain, ForeignChain, refusing_chains, translates};
pub use expression::{Base, Compare, Expression, Meta, Original, Rejection, Verdict};
pub use links::{LOOPBACK, Link, addresses, links};
pub use message::Message;
/// What tests/fuzz puts strange bytes to.
#[cfg(fuzzing)]
pub use message::{attributes, messages};
#[cfg(fuzzing)]
pub use sock_diag::fuzz_connection;
pub use namespace::{NAMED, Namespace, within};
pub use nfqueue::{Arrived, Onward, PacketQueue, queues_are_used};
pub use nftables::{Count, Hook, Key, Layer, Table};
pub use qdisc::{
    Discipline, Netem, Root, make_shaper, remove_shaper, root, shaper,
    without_what_the_module_makes,
};
pub use sock_diag::{
    Listening, TcpConnection, closes_connections, is_ours, listening, tcp_connections,
};
pub use socket::{Family, Refused, Socket, errno};
