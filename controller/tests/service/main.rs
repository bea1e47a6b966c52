//! The controller's service over agents that are tasks: who may run what, when, on whose behalf and beside whom.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod actions;
mod api;
mod approvals;
mod audit_first;
mod ceilings;
mod coverage;
mod locks;
mod mail;
mod notifications;
mod schedules;
#[path = "../support/mod.rs"]
mod support;
mod world;
