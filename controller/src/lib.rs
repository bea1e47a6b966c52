//! The controller: it drives a run from an experiment's document to its verdict. It talks to agents over connections and does
//! not depend on the agent's crate; only the binary combines the two.

pub mod agent_connection;
pub mod agent_pool;
pub mod api;
mod condensed;
pub mod connection_slots;
pub mod files;
pub mod fleet;
mod journal_line;
pub mod listener;
pub mod local_page;
pub mod oidc;
pub mod page;
pub mod pki;
pub mod providers;
pub mod report;
pub mod request_id;
pub mod runner;
pub mod server;
pub mod service;
pub mod smtp;
pub mod store;
