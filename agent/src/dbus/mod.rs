//! A small client of D-Bus, for a program that is spoken to directly and not through a bus: calls and their answers, in the types
//! that systemd uses. Everything has a time limit and a size limit, since the other side may hang or send anything.
//!
//! The format is that of the D-Bus specification, <https://dbus.freedesktop.org/doc/dbus-specification.html>.

mod connection;
mod message;
mod value;

pub use connection::{BusConnection, CallError};
pub use message::Call;
pub use value::{BusWriter, Value};
