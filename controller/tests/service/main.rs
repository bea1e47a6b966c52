//! The controller's service over agents that are tasks: who may run what, when, on whose behalf and beside whom.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod actions;
mod api;
mod approvals;
mod audit_first;
mod ceilings;
mod condensed;
mod coverage;
mod locks;
mod mail;
mod notifications;
mod schedules;
mod suggestions;
#[path = "../support/mod.rs"]
mod support;
mod world;
