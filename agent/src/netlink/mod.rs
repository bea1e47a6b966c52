//! Speaking with the kernel about packets, over netlink, with no program in between: messages and
//! their attributes, sockets, the part of nf_tables that faults need, interfaces, and namespaces.
//! Why our own: `docs/decisions/own-netlink.md`.

mod connections;
mod expression;
mod links;
mod message;
mod namespace;
mod queue;
mod socket;
mod tables;

pub use connections::{TcpConnection, closes_connections, tcp_connections};
pub use expression::{Base, Compare, Expression, Meta, Rejection, Verdict};
pub use links::{LOOPBACK, Link, knows_discipline, links};
pub use message::Message;
pub use namespace::{NAMED, Namespace, within};
pub use queue::PacketQueue;
pub use socket::{Family, Refused, Socket, errno};
pub use tables::{Count, Hook, Key, Layer, Table};
