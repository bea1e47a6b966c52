//! Commands that are sent to a controller over its HTTP API: one file for each kind of resource.

pub(super) mod actions;
pub(super) mod agents;
pub(super) mod approvals;
pub(super) mod audit;
mod client;
pub(super) mod coverage;
mod event_stream;
mod experiment_ref;
pub(super) mod experiments;
mod follow;
pub(super) mod game_days;
pub(super) mod halt;
mod lock_options;
pub(super) mod login;
mod note_lines;
pub(super) mod notes;
pub(super) mod run_report;
mod run_view;
pub(super) mod runs;
pub(super) mod status;
pub(super) mod suggest;
pub(super) mod tokens;

pub(super) use client::ControllerOptions;
pub(super) use experiment_ref::RemoteExperiment;
pub(super) use lock_options::LockOptions;
