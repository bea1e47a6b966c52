//! What touches a host. A fault is a pure function from arguments and a look at the host to a
//! plan; a plan is a list of changes; the engine is the only caller of their deeds, and writes
//! what it will owe into the ledger first.
//!
//! ```text
//! arguments ──fault──▶ plan ──ledger──▶ apply ──▶ observe ──▶ … ──▶ undo ──▶ observe ──▶ gone
//! ```

pub mod changes;
pub mod child_task;
pub mod children;
pub mod cli;
pub mod controller_link;
pub mod controller_socket;
pub mod dns;
pub mod doctor;
pub mod engine;
pub mod exit_code;
pub mod faults;
pub mod files;
pub mod packet_filter;
pub mod guardian;
pub mod heartbeat;
pub mod helpers;
pub mod host;
pub mod hung_agent;
pub mod labels;
pub mod ledger;
pub mod local_abort_rules;
pub mod metrics;
pub mod netlink;
pub mod network;
pub mod plan;
pub mod policy;
mod precise_timer;
pub mod probes;
pub mod processes;
pub mod units;
pub mod worker;

pub use cli::{log_to_stderr, main};
