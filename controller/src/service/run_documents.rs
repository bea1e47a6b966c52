//! The documents of runs: what they may read on the controller's host, and which programs they may run there.

use super::local_program_policy;
use super::{RequestedDocument, RunSpec, Service};
use crate::store::missing_secrets;
use backburn_experiments::check::{Experiment, Sources};
use backburn_experiments::{Problem, substitute};
use serde_json::{Map, Value};
use std::path::Path;

impl Service {
    /// Parses a stored document. The policy decides what it may read on the controller's host, and whether it may run
    /// programs there; variables are data, and do not choose what is read.
    ///
    /// # Errors
    /// All problems of the document.
    pub fn load_experiment(
        &self,
        document: &Value,
        variables: &Map<String, Value>,
    ) -> Result<Experiment, Vec<Problem>> {
        let mut problems = missing_secrets(document);
        problems.extend(substitute::chosen_sources(document, variables));
        if !problems.is_empty() {
            return Err(problems);
        }
        let secrets = Map::new();
        let policy = self.policy();
        let sources = Sources {
            environment: &|name| {
                Some(name)
                    .filter(|name| policy.may_read_variable(name))
                    .and_then(|name| std::env::var(name).ok())
            },
            file: &|path| {
                if !policy.may_read_file(Path::new(path)) {
                    return Err("the controller's policy does not allow experiments to read this file; allowed are the files in its `folders`".into());
                }
                crate::files::read_text(Path::new(path)).map_err(|error| error.to_string())
            },
            variables,
            secrets: &secrets,
        };
        self.permitted(self.checked(&document.to_string(), &sources)?)
    }

    /// Checks a document. A request over the API has no command line, so problems of variables name the request's field.
    fn checked(&self, text: &str, sources: &Sources<'_>) -> Result<Experiment, Vec<Problem>> {
        (self.check)(text, sources).map_err(|mut problems| {
            for problem in &mut problems {
                if let Some(name) = problem.at.strip_prefix("--var ") {
                    problem.at = format!("$.variables.{name}");
                }
            }
            problems
        })
    }

    /// Parses the document of a request. One that is not stored may read nothing on the controller's host.
    pub(super) fn load_requested(&self, spec: &RunSpec) -> Result<Experiment, Vec<Problem>> {
        if let RequestedDocument::Stored(document) = &spec.document {
            return self.load_experiment(document, &spec.variables);
        }
        let refused = spec.document.foreign_sources(&spec.variables);
        if !refused.is_empty() {
            return Err(refused);
        }
        let sources = Sources {
            environment: &|_| None,
            file: &|_| Err("it is a file of the controller's host".into()),
            variables: &spec.variables,
            secrets: &Map::new(),
        };
        self.permitted(self.checked(&spec.document.text(), &sources)?)
    }

    /// Checks that the policy allows the programs that the experiment would run on the controller's host.
    fn permitted(&self, experiment: Experiment) -> Result<Experiment, Vec<Problem>> {
        let mut problems =
            local_program_policy::problems(&experiment, &self.policy().allow_programs);
        // The name of an activity may come from a file.
        for problem in &mut problems {
            experiment.redactor.errors().redact(&mut problem.what);
        }
        match problems.is_empty() {
            true => Ok(experiment),
            false => Err(problems),
        }
    }
}
