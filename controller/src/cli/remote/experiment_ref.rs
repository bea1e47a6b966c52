//! Which experiment a fleet is asked to run or to plan: one that the controller keeps, or a file that it does not keep.

use super::super::{CommandError, experiment_source, print_stderr};
use super::ControllerOptions;
use serde_json::Value;
use std::path::Path;

/// An experiment as a controller is asked for it.
pub(in crate::cli) enum RemoteExperiment {
    /// One that the controller keeps, by its name.
    Stored(String),
    /// The text of one that goes with the request.
    Inline(String),
}

impl RemoteExperiment {
    /// What `FILE|NAME` means where a controller is named: a file where there is one, else a name.
    ///
    /// # Errors
    /// The file cannot be read, the name is not text, or the controls of a kept experiment are to be left out.
    pub(in crate::cli) fn of(
        remote: &ControllerOptions,
        file: &Path,
        variables: &experiment_source::Variables,
    ) -> Result<Self, CommandError> {
        let is_file = file == Path::new("-") || (file.exists() && !file.is_dir());
        if !is_file {
            let name = file.to_str().ok_or_else(|| {
                CommandError::invalid(format!("{}: the name is not text", file.display()))
            })?;
            // A name that holds a `/` would ask for another path of the API.
            if name.contains('/') {
                return Err(CommandError::invalid(format!(
                    "{name}: no such file, and an experiment of the controller has no `/` in its name"
                )));
            }
            variables.refuse_controls_of_kept()?;
            return Ok(RemoteExperiment::Stored(name.to_owned()));
        }
        let text = experiment_source::read(file)?;
        let text = variables.without_controls(file, text);
        print_stderr(&format!(
            "{} goes to the fleet of {}, which does not keep it\n",
            file.display(),
            remote.host()
        ));
        Ok(RemoteExperiment::Inline(text))
    }

    /// The path of the API that runs or plans it (`what` is `runs` or `plan`); the request gets what belongs to it.
    pub(super) fn path(&self, request: &mut Value, what: &str) -> String {
        match (self, what) {
            (RemoteExperiment::Stored(name), what) => format!("/api/v1/experiments/{name}/{what}"),
            (RemoteExperiment::Inline(text), what) => {
                request["experiment"] = text.as_str().into();
                match what {
                    "plan" => "/api/v1/plans".to_owned(),
                    _ => "/api/v1/runs".to_owned(),
                }
            }
        }
    }
}
