//! What decides: it drives a run from an experiment's document to its verdict. It speaks to
//! agents over links and never names the agent's crate; only the binary puts the two together.

pub mod api;
pub mod authority;
pub mod crew;
pub mod daemon;
pub mod door;
pub mod enrolment;
pub mod files;
pub mod fleet;
pub mod link;
pub mod providers;
pub mod runner;
pub mod service;
pub mod store;
