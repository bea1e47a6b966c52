//! Reads an experiment from its file, with variables from the command line and the environment, and formats its problems.

use super::output::shown_path;
use super::{CommandFailure, EXIT_INVALID, HostOptions, print_stderr};
use backburn_agent::host::{Host, HostRole, Invocation};
use backburn_agent::plugins::PluginRegistry;
use backburn_agent::policy::HostPolicy;
use backburn_experiments::chaostoolkit::{self, convert};
use backburn_experiments::check::{self, Experiment, KnownFault, Sources};
use backburn_experiments::terminal_text::escape;
use backburn_experiments::wire::FaultDescription;
use backburn_experiments::{Problem, json};
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Configuration values that are given on the command line.
#[derive(Debug, Default, Args)]
pub(super) struct Variables {
    /// Configuration value that overrides the document's, converted to the type that the document declares or to TYPE (see `env_var_type`)
    #[arg(long = "var", value_name = "NAME[:TYPE]=VALUE")]
    variables: Vec<String>,
    /// File of configuration values: JSON with `configuration` and `secrets`, or a `.env` file of NAME=VALUE lines
    #[arg(long = "var-file", value_name = "FILE")]
    var_files: Vec<PathBuf>,
    #[command(flatten)]
    controls: ControlsOption,
}

/// How to treat the Chaos Toolkit's controls.
#[derive(Debug, Default, Args)]
pub(super) struct ControlsOption {
    /// Ignore the document's Chaos Toolkit controls, which are not supported; without this option they are an error
    #[arg(long = "ignore-controls")]
    ignore: bool,
}

impl ControlsOption {
    /// Removes the controls from a document if they are to be ignored, and reports which. Returns whether there were any.
    pub(super) fn leave_out(&self, file: &Path, document: &mut Value) -> bool {
        if !self.ignore {
            return false;
        }
        let left_out = chaostoolkit::without_controls(document);
        if !left_out.is_empty() {
            let left_out = left_out.join(", ");
            print_stderr(&format!(
                "note: {}: ignoring the controls {left_out}\n",
                shown_path(file)
            ));
        }
        !left_out.is_empty()
    }

    /// Removes the controls from the text of a document. A text without controls stays as it is, and so does one that is not
    /// JSON: its problems are reported when it is checked.
    fn leave_out_of_text(&self, file: &Path, text: String) -> String {
        let Ok(mut document) = json::read(&text) else {
            return text;
        };
        match self.leave_out(file, &mut document) {
            true => document.to_string(),
            false => text,
        }
    }
}

/// Values that override the document's.
#[derive(Debug, Default)]
struct VariableValues {
    /// Configuration values by name.
    configuration: Map<String, Value>,
    /// Secrets by scope.
    secrets: Map<String, Value>,
}

/// Why an experiment could not be loaded.
pub(super) enum LoadError {
    /// A file could not be read; the reason.
    Unreadable(String),
    /// The experiment is invalid; all of its problems.
    Invalid(Vec<Problem>),
}

impl Variables {
    /// The words of a command line that give the same values.
    pub(super) fn words(&self) -> Vec<OsString> {
        let values = self
            .variables
            .iter()
            .flat_map(|value| ["--var".into(), value.into()]);
        let files = self
            .var_files
            .iter()
            .flat_map(|file| ["--var-file".into(), file.into()]);
        let ignore = self.controls.ignore.then(|| "--ignore-controls".into());
        values.chain(files).chain(ignore).collect()
    }

    /// The files that values are read from.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.var_files
    }

    /// The text of a document, without its controls if they are to be ignored.
    pub(super) fn without_controls(&self, file: &Path, text: String) -> String {
        self.controls.leave_out_of_text(file, text)
    }

    /// Refuses `--ignore-controls` for an experiment that a controller stores, since those have no controls.
    ///
    /// # Errors
    /// The option was given.
    pub(super) fn refuse_ignored_controls_of_stored(&self) -> Result<(), CommandFailure> {
        match self.controls.ignore {
            true => Err(CommandFailure::invalid(
                "`--ignore-controls` requires a file: stored experiments have no controls\nhint: `backburn apply --ignore-controls FILE` stores an experiment without its controls",
            )),
            false => Ok(()),
        }
    }

    /// The configuration values, to be sent to a controller.
    ///
    /// # Errors
    /// A file cannot be read, a value is malformed, or secrets are given.
    pub(super) fn configuration(&self) -> Result<Map<String, Value>, CommandFailure> {
        let given = self.read()?;
        if !given.secrets.is_empty() {
            return Err(CommandFailure::invalid(
                "secrets from `--var-file` are not sent to a controller\nhint: the document names where the controller reads them: `{\"type\": \"file\", …}` or `{\"type\": \"env\", …}`",
            ));
        }
        Ok(given.configuration)
    }

    fn read(&self) -> Result<VariableValues, CommandFailure> {
        let VariableValues {
            mut configuration,
            mut secrets,
        } = VariableValues::default();
        for file in &self.var_files {
            let text = std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
            let own = if file
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                json::read_as::<Map<String, Value>>(&text).map_err(|problems| {
                    let what = json::in_one_line(&problems);
                    CommandFailure::invalid(format!("{}: {what}", shown_path(file)))
                })?
            } else {
                from_lines(&text).map_err(|line| {
                    CommandFailure::invalid(format!(
                        "{}: line {line}: expected NAME=VALUE",
                        shown_path(file)
                    ))
                })?
            };
            for (name, value) in own {
                match (name.as_str(), value) {
                    ("configuration", Value::Object(fields)) => configuration.extend(fields),
                    ("secrets", Value::Object(fields)) => secrets.extend(fields),
                    (_, value) => drop(configuration.insert(name, value)),
                }
            }
        }
        for variable in &self.variables {
            let (name, value) = one(variable)?;
            configuration.insert(name, value);
        }
        Ok(VariableValues {
            configuration,
            secrets,
        })
    }
}

fn from_lines(text: &str) -> Result<Map<String, Value>, usize> {
    let mut found = Map::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .strip_prefix("export ")
            .unwrap_or(line)
            .split_once('=')
            .ok_or(number + 1)?;
        let value = value.trim();
        let bare = ['"', '\'']
            .iter()
            .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        found.insert(name.trim().to_owned(), bare.unwrap_or(value).into());
    }
    Ok(found)
}

fn one(variable: &str) -> Result<(String, Value), CommandFailure> {
    let wrong = |why: &str| {
        CommandFailure::invalid(format!(
            "`--var {}`: {why}\nhint: for example `--var url=http://127.0.0.1`",
            escape(variable)
        ))
    };
    let (name, text) = variable
        .split_once('=')
        .ok_or_else(|| wrong("expected NAME=VALUE"))?;
    let (name, kind) = name
        .split_once(':')
        .map_or((name, None), |(name, kind)| (name, Some(kind)));
    if name.is_empty() {
        return Err(wrong("the name is missing"));
    }
    let value = match kind {
        // The document declares the type.
        None => text.into(),
        Some(kind) => match convert(kind, text.into()) {
            // Quoted, so that it stays text if the document declares no type.
            Some(Value::String(text)) => Value::String(text).to_string().into(),
            Some(value) => value,
            None => return Err(wrong(&format!("the value is not a valid `{kind}`"))),
        },
    };
    Ok((name.to_owned(), value))
}

fn unreadable(file: &Path, error: &std::io::Error) -> CommandFailure {
    let text = error.to_string();
    let why = text
        .split(" (os error")
        .next()
        .unwrap_or(&text)
        .to_lowercase();
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => hint_at_missing(file),
        std::io::ErrorKind::IsADirectory => "\nhint: name a file in it".to_owned(),
        _ => String::new(),
    };
    CommandFailure::invalid(format!("{}: {why}{hint}", shown_path(file)))
}

/// What may have been meant by a file that does not exist.
fn hint_at_missing(file: &Path) -> String {
    let with_suffix = file.with_added_extension("json");
    if with_suffix.is_file() {
        return format!("\nhint: did you mean `{}`?", shown_path(&with_suffix));
    }
    let is_name = file.components().count() == 1 && file.extension().is_none();
    match is_name {
        true => "\nhint: the name of an experiment that a controller stores requires `--controller HOST` or BACKBURN_CONTROLLER".to_owned(),
        false => String::new(),
    }
}

/// Reads the text of an experiment from a file; `-` is standard input.
pub(super) fn read(file: &Path) -> Result<String, CommandFailure> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut bytes);
        read.map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let bytes = bytes.map_err(|error| unreadable(file, &error))?;
    String::from_utf8(bytes).map_err(|_| {
        CommandFailure::invalid(format!("{}: the file is not valid UTF-8", shown_path(file)))
    })
}

/// Reads and checks an experiment from a file; `-` is standard input. The plug-ins are those of this host.
pub(super) fn load(
    file: &Path,
    variables: &Variables,
    host: &HostOptions,
) -> Result<Experiment, LoadError> {
    let text = read(file).map_err(|failure| LoadError::Unreadable(failure.message))?;
    let text = variables.without_controls(file, text);
    let given = variables
        .read()
        .map_err(|failure| LoadError::Unreadable(failure.message))?;
    let plugins = plugins_of_this_host(host);
    check(&text, &given.configuration, &given.secrets, &plugins).map_err(LoadError::Invalid)
}

/// Checks the text of an experiment against the faults that this program has and these plug-ins.
pub(crate) fn check(
    text: &str,
    configuration: &Map<String, Value>,
    secrets: &Map<String, Value>,
    plugins: &[FaultDescription],
) -> Result<Experiment, Vec<Problem>> {
    let sources = Sources {
        environment: &|name| std::env::var(name).ok(),
        file: &|path| {
            backburn::files::read_text(Path::new(path)).map_err(|error| {
                let text = error.to_string();
                text.split(" (os error")
                    .next()
                    .unwrap_or(&text)
                    .to_lowercase()
            })
        },
        variables: configuration,
        secrets,
    };
    check_with(text, &sources, plugins)
}

/// The plug-ins that this host's policy allows: the one that is named, else its usual file. A policy that cannot be read has none
/// here; whoever injects is told what is wrong with it.
fn plugins_of_this_host(host: &HostOptions) -> Vec<FaultDescription> {
    let policy = match HostPolicy::load(host.policy.as_deref()) {
        Ok(policy) if !policy.plugins.is_empty() => policy,
        _ => return Vec::new(),
    };
    let Some(state) = host.state.clone().or_else(|| super::default_state().ok()) else {
        return Vec::new();
    };
    let invocation = Invocation {
        prefix: vec!["agent".into()],
    };
    let host = Host::new(HostRole::Command, invocation);
    PluginRegistry::load(&host, &state, &policy).descriptions()
}

/// Checks the text of an experiment, with variables from these sources, against the faults that this program has and these plug-ins.
pub(super) fn check_with(
    text: &str,
    sources: &Sources<'_>,
    plugins: &[FaultDescription],
) -> Result<Experiment, Vec<Problem>> {
    let faults: Vec<KnownFault<'_>> = backburn_agent::faults::FAULTS
        .iter()
        .map(|fault| KnownFault {
            name: fault.name,
            one_shot: fault.one_shot,
            check: Box::new(|arguments| fault.check(arguments)),
        })
        .chain(plugins.iter().map(KnownFault::described))
        .collect();
    check::load(text, sources, &faults)
}

/// Reads and checks an experiment; its problems are the failure of the command.
pub(super) fn experiment(
    file: &Path,
    variables: &Variables,
    host: &HostOptions,
) -> Result<Experiment, CommandFailure> {
    load(file, variables, host).map_err(|wrong| CommandFailure {
        code: EXIT_INVALID,
        message: format_load_error(file, &wrong),
    })
}

/// Formats the problems of an experiment for people, without the leading `error:`.
pub(super) fn format_load_error(file: &Path, wrong: &LoadError) -> String {
    let problems = match wrong {
        LoadError::Unreadable(what) => return what.clone(),
        LoadError::Invalid(problems) => problems,
    };
    let count = if problems.len() == 1 {
        "1 problem".to_owned()
    } else {
        format!("{} problems", problems.len())
    };
    let mut out = format!("{}: {count}", shown_path(file));
    for problem in problems {
        out.push_str(&format!(
            "\n  {}: {}",
            escape(&problem.at),
            escape(&problem.what)
        ));
        if let Some(hint) = &problem.hint {
            out.push_str(&format!("\n    hint: {}", escape(hint)));
        }
    }
    out
}

/// Parses a value that is written like in an experiment document.
pub(super) fn document_value<T: DeserializeOwned>(word: &str) -> Result<T, String> {
    T::deserialize(&Value::from(word)).map_err(|error| error.to_string())
}
