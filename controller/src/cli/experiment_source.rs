//! Where an experiment comes from: its file, the variables given, the environment; and how what
//! is wrong with it is shown.

use super::{CommandError, EXIT_INVALID, print_stderr};
use backburn_experiments::check::{self, Experiment, KnownFault, Sources};
use backburn_experiments::chaostoolkit::{self, convert};
use backburn_experiments::{Problem, json};
use clap::Args;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Values given on the command line.
#[derive(Debug, Default, Args)]
pub(super) struct Variables {
    /// A configuration value that goes before the document's, and becomes what the document says that it is. TYPE as in `env_var_type`
    #[arg(long = "var", value_name = "NAME[:TYPE]=VALUE")]
    variables: Vec<String>,
    /// A file of them: JSON with `configuration` and `secrets`, or lines of NAME=VALUE in a `.env` file
    #[arg(long = "var-file", value_name = "FILE")]
    var_files: Vec<PathBuf>,
    #[command(flatten)]
    controls: ControlsOption,
}

/// What becomes of the Chaos Toolkit's controls.
#[derive(Debug, Default, Args)]
pub(super) struct ControlsOption {
    /// Leave the document's Chaos Toolkit controls out: they are not played, and refused without this
    #[arg(long = "ignore-controls")]
    ignore: bool,
}

impl ControlsOption {
    /// Takes the controls out of a document, where that is wanted, and says which. Whether there were any.
    pub(super) fn leave_out(&self, file: &Path, document: &mut Value) -> bool {
        if !self.ignore {
            return false;
        }
        let left_out = chaostoolkit::without_controls(document);
        if !left_out.is_empty() {
            let left_out = left_out.join(", ");
            print_stderr(&format!(
                "note: {}: controls are left out: {left_out}\n",
                file.display()
            ));
        }
        !left_out.is_empty()
    }

    /// The same, of a text. One that has none stays as it is, and so does one that is no JSON, for
    /// whoever says what is wrong with it.
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

/// Values that go before the document's.
#[derive(Debug, Default)]
struct VariableValues {
    /// The configuration's.
    configuration: Map<String, Value>,
    /// The secrets', by scope.
    secrets: Map<String, Value>,
}

/// Why there is no experiment.
pub(super) enum LoadError {
    /// It could not be read.
    Unreadable(String),
    /// What is wrong with it.
    Wrong(Vec<Problem>),
}

impl Variables {
    /// The text of a document without its controls, where that is wanted.
    pub(super) fn without_controls(&self, file: &Path, text: String) -> String {
        self.controls.leave_out_of_text(file, text)
    }

    /// Refuses to leave out the controls of an experiment that a controller keeps: it has none.
    pub(super) fn refuse_controls_of_kept(&self) -> Result<(), CommandError> {
        match self.controls.ignore {
            true => Err(CommandError::invalid(
                "`--ignore-controls` is for a file: what a controller keeps has no controls\nhint: `backburn apply --ignore-controls FILE` keeps it without them",
            )),
            false => Ok(()),
        }
    }

    /// The configuration's values, for a controller.
    pub(super) fn configuration(&self) -> Result<Map<String, Value>, CommandError> {
        let given = self.read()?;
        if !given.secrets.is_empty() {
            return Err(CommandError::invalid(
                "a controller is handed no secrets by `--var-file`\nhint: the document says where the controller reads them: `{\"type\": \"file\", …}` or `{\"type\": \"env\", …}`",
            ));
        }
        Ok(given.configuration)
    }

    fn read(&self) -> Result<VariableValues, CommandError> {
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
                    CommandError::invalid(format!("{}: {what}", file.display()))
                })?
            } else {
                from_lines(&text).map_err(|line| {
                    CommandError::invalid(format!(
                        "{}: line {line} is not NAME=VALUE",
                        file.display()
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

fn one(variable: &str) -> Result<(String, Value), CommandError> {
    let wrong = |why: &str| {
        CommandError::invalid(format!(
            "`--var {variable}`: {why}\nhint: e.g. `--var url=http://127.0.0.1`"
        ))
    };
    let (name, text) = variable
        .split_once('=')
        .ok_or_else(|| wrong("it is not of the form NAME=VALUE"))?;
    let (name, kind) = name
        .split_once(':')
        .map_or((name, None), |(name, kind)| (name, Some(kind)));
    if name.is_empty() {
        return Err(wrong("it has no name"));
    }
    let value = match kind {
        // What it becomes is the document's to say.
        None => text.into(),
        Some(kind) => match convert(kind, text.into()) {
            // In quotes, so that it stays text where the document does not say so.
            Some(Value::String(text)) => Value::String(text).to_string().into(),
            Some(value) => value,
            None => return Err(wrong(&format!("its value does not become `{kind}`"))),
        },
    };
    Ok((name.to_owned(), value))
}

fn unreadable(file: &Path, error: &std::io::Error) -> CommandError {
    let text = error.to_string();
    let why = text
        .split(" (os error")
        .next()
        .unwrap_or(&text)
        .to_lowercase();
    CommandError::invalid(format!("{}: {why}", file.display()))
}

/// The text of the experiment in this file; `-` is standard input.
pub(super) fn read(file: &Path) -> Result<String, CommandError> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut bytes);
        read.map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let bytes = bytes.map_err(|error| unreadable(file, &error))?;
    String::from_utf8(bytes)
        .map_err(|_| CommandError::invalid(format!("{}: it is not text in UTF-8", file.display())))
}

/// Reads and checks the experiment in this file; `-` is standard input.
pub(super) fn load(file: &Path, variables: &Variables) -> Result<Experiment, LoadError> {
    let text = read(file).map_err(|failure| LoadError::Unreadable(failure.what))?;
    let text = variables.without_controls(file, text);
    let given = variables
        .read()
        .map_err(|failure| LoadError::Unreadable(failure.what))?;
    check(&text, &given.configuration, &given.secrets).map_err(LoadError::Wrong)
}

/// Checks an experiment's text against the faults that this program has.
pub(crate) fn check(
    text: &str,
    configuration: &Map<String, Value>,
    secrets: &Map<String, Value>,
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
    check_with(text, &sources)
}

/// The same, with values from wherever these sources have them.
pub(super) fn check_with(text: &str, sources: &Sources<'_>) -> Result<Experiment, Vec<Problem>> {
    let faults: Vec<KnownFault<'_>> = backburn_agent::faults::FAULTS
        .iter()
        .map(|fault| KnownFault {
            name: fault.name,
            one_shot: fault.one_shot,
            check: Box::new(|arguments| fault.check(arguments)),
        })
        .collect();
    check::load(text, sources, &faults)
}

/// The experiment, or its problems as this command's failure.
pub(super) fn experiment(file: &Path, variables: &Variables) -> Result<Experiment, CommandError> {
    load(file, variables).map_err(|wrong| CommandError {
        code: EXIT_INVALID,
        what: shown(file, &wrong),
    })
}

/// What is wrong, for people: without `error:` before it.
pub(super) fn shown(file: &Path, wrong: &LoadError) -> String {
    let problems = match wrong {
        LoadError::Unreadable(what) => return what.clone(),
        LoadError::Wrong(problems) => problems,
    };
    let count = if problems.len() == 1 {
        "1 problem".to_owned()
    } else {
        format!("{} problems", problems.len())
    };
    let mut out = format!("{}: {count}", file.display());
    for problem in problems {
        out.push_str(&format!("\n  {}: {}", problem.at, problem.what));
        if let Some(hint) = &problem.hint {
            out.push_str(&format!("\n    hint: {hint}"));
        }
    }
    out
}
