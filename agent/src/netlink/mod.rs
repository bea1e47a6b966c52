//! Speaking with the kernel about packets, over netlink, with no program in between: messages and
//! their attributes, sockets, the part of nf_tables that faults need, interfaces, and namespaces.
//! Why our own: `docs/decisions/own-netlink.md`.

mod chains;
mod connections;
mod disciplines;
mod expression;
mod links;
mod message;
mod namespace;
mod queue;
mod socket;
mod tables;

pub use chains::{Chain, ForeignChain, refusing_chains, translates};
pub use connections::{
    Listening, TcpConnection, closes_connections, is_ours, listening, tcp_connections,
};
pub use disciplines::{
    Discipline, Netem, Root, make_shaper, remove_shaper, root, shaper,
    without_what_the_module_makes,
};
pub use expression::{Base, Compare, Expression, Meta, Original, Rejection, Verdict};
pub use links::{LOOPBACK, Link, addresses, links};
pub use message::Message;
pub use namespace::{NAMED, Namespace, within};
pub use queue::{Arrived, Onward, PacketQueue, queues_are_used};
pub use socket::{Family, Refused, Socket, errno};
pub use tables::{Count, Hook, Key, Layer, Table};
