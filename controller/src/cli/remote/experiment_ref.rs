//! The experiment that a fleet is asked to run or to plan: one that the controller stores, or a file that it does not store.

use super::super::experiment_source::{self, Variables};
use super::super::output::shown_path;
use super::super::{CommandFailure, EXIT_INVALID, print_stderr};
use super::ControllerOptions;
use super::client::{Client, LockedAnswer};
use super::lock_options::RequestedLock;
use backburn::api::types::{InlineRunRequest, StartRunRequest};
use backburn_experiments::terminal_text::escape;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// An experiment for a run on a fleet.
#[derive(Clone)]
pub(in crate::cli) enum RemoteExperiment {
    /// An experiment that the controller stores, by its name.
    Stored(String),
    /// The text of an experiment, which is sent with the request.
    Inline(String),
}

impl RemoteExperiment {
    /// Reads `FILE|NAME`: a file if there is one of that name, otherwise the name of a stored experiment.
    ///
    /// # Errors
    /// The file cannot be read, the name is not valid, or the controls of a stored experiment are to be ignored.
    pub(in crate::cli) fn resolve(
        controller: &ControllerOptions,
        file: &Path,
        variables: &Variables,
    ) -> Result<Self, CommandFailure> {
        let is_file = file == Path::new("-") || (file.exists() && !file.is_dir());
        if !is_file {
            let name = file.to_str().ok_or_else(|| {
                CommandFailure::invalid(format!(
                    "{}: the name is not valid UTF-8",
                    shown_path(file)
                ))
            })?;
            // A name with a `/` would lead to another path of the API.
            if name.contains('/') {
                return Err(CommandFailure::invalid(format!(
                    "{name}: no such file, and the name of a stored experiment contains no `/`"
                )));
            }
            if let Some(stored) = name.strip_suffix(".json") {
                return Err(CommandFailure::invalid(format!(
                    "{}: no such file\nhint: an experiment that the controller stores has no `.json` in its name: `{}`; `backburn experiments` lists them",
                    escape(name),
                    escape(stored)
                )));
            }
            variables.refuse_ignored_controls_of_stored()?;
            return Ok(RemoteExperiment::Stored(name.to_owned()));
        }
        let text = experiment_source::read(file)?;
        let text = variables.without_controls(file, text);
        print_stderr(&format!(
            "sending {} to the controller {}, which does not store it\n",
            shown_path(file),
            controller.host()
        ));
        Ok(RemoteExperiment::Inline(text))
    }

    /// Asks the controller to run the experiment, with this lock if one is given.
    pub(super) fn run<T: DeserializeOwned>(
        &self,
        client: &Client,
        seed: Option<u64>,
        variables: Map<String, Value>,
        lock: Option<RequestedLock<'_>>,
    ) -> Result<LockedAnswer<T>, CommandFailure> {
        self.send(client, seed, variables, lock, ("runs", "/api/v1/runs"))
    }

    /// Asks the controller what a run of the experiment would affect.
    pub(super) fn plan<T: DeserializeOwned>(
        &self,
        client: &Client,
        seed: Option<u64>,
        variables: Map<String, Value>,
    ) -> Result<T, CommandFailure> {
        match self.send(client, seed, variables, None, ("plan", "/api/v1/plans"))? {
            LockedAnswer::Free(plan) => Ok(plan),
            LockedAnswer::Held(failure) => Err(failure),
        }
    }

    fn send<T: DeserializeOwned>(
        &self,
        client: &Client,
        seed: Option<u64>,
        variables: Map<String, Value>,
        lock: Option<RequestedLock<'_>>,
        (stored_operation, inline_path): (&str, &str),
    ) -> Result<LockedAnswer<T>, CommandFailure> {
        let lock_wait = lock.map_or(0, |lock| lock.wait_seconds);
        let lock = lock.map(|lock| lock.name.to_owned());
        match self {
            RemoteExperiment::Stored(name) => {
                let path = format!("/api/v1/experiments/{name}/{stored_operation}");
                let version = None;
                let request = StartRunRequest {
                    version,
                    seed,
                    variables,
                    lock,
                    lock_wait,
                };
                client
                    .post_with_lock(&path, &request)
                    .map_err(|mut failure| {
                        // What a rule refused is stored, and was meant.
                        if failure.code == EXIT_INVALID {
                            failure.message.push_str(&hint_at_file(name));
                        }
                        failure
                    })
            }
            RemoteExperiment::Inline(text) => {
                let request = InlineRunRequest {
                    experiment: text.clone(),
                    seed,
                    variables,
                    // They are removed already, so that the note names their JSON paths in the file.
                    ignore_controls: false,
                    lock,
                    lock_wait,
                };
                client.post_with_lock(inline_path, &request)
            }
        }
    }
}

/// A hint at the file that may have been meant by the name of a stored experiment; empty if there is none.
fn hint_at_file(name: &str) -> String {
    let file = format!("{name}.json");
    match Path::new(&file).is_file() {
        true => {
            let file = escape(&file);
            format!(
                "\nhint: the file `{file}` is in this directory: `backburn run {file}` runs it on the fleet without storing it"
            )
        }
        false => String::new(),
    }
}
