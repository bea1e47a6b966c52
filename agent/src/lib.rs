//! The part of Backburn that changes a host. A fault is a pure function from arguments and a read-only view of the host to a plan, and a
//! plan is a list of reversible changes. Only the engine applies and undoes changes, and it writes what it will owe to the ledger first.
//!
//! ```text
//! arguments ──fault──▶ plan ──ledger──▶ apply ──▶ observe ──▶ … ──▶ undo ──▶ observe ──▶ gone
//! ```

mod boot;
mod capabilities;
pub mod changes;
pub mod child_task;
pub mod children;
pub mod cli;
mod client_tls;
pub mod conform;
pub mod controller_link;
pub mod controller_socket;
pub mod dbus;
pub mod dns;
pub mod doctor;
pub mod engine;
pub mod exit_code;
pub mod faults;
pub mod files;
pub mod guardian;
pub mod heartbeat;
pub mod helpers;
pub mod host;
pub mod hung_agent;
pub mod labels;
pub mod ledger;
mod load_io;
pub mod local_abort_rules;
pub mod memory_limits;
pub mod metrics;
pub mod mounts;
pub mod netlink;
pub mod network;
pub mod packet_filter;
pub mod plan;
pub mod plugin_call;
pub mod plugins;
pub mod policy;
mod precise_timer;
pub mod probes;
pub mod processes;
pub mod syscall_filter;
pub mod systemd;
mod trusted_files;
pub mod units;
pub mod user_signals;
pub mod vdso;
mod worker;

pub use cli::{LogFormat, LogLevelSwitch, log_to_stderr, main};
