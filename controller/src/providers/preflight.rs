//! Looks, before anything is done, whether the programs and Python functions are there that an experiment will run: that a
//! rollback has none must not be found out after the harm.

use super::process::{at_home, run};
use super::python::interpreter;
use super::{EnvironmentAccess, ProbeError, within};
use backburn_experiments::check::Experiment;
use backburn_experiments::document::{ProcessProvider, Provider, PythonProvider, RollbackStrategy};
use backburn_experiments::providers::{LocatedProvider, all_providers};
use backburn_experiments::{HumanDuration, Problem};
use backburn_programs::PROGRAM_FORMS;
use nix::unistd::{AccessFlags, access};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// How long all modules together may take to be imported.
const IMPORT_TIMEOUT: HumanDuration = HumanDuration::seconds(60);

/// What is not there of all that this host will run for an experiment; what agents of a fleet measure is theirs to know.
pub async fn missing(
    experiment: &Experiment,
    is_fleet: bool,
    environment: &EnvironmentAccess,
) -> Vec<Problem> {
    let plays_rollbacks = experiment.rollback_strategy != RollbackStrategy::Never;
    let here: Vec<LocatedProvider<'_>> = all_providers(experiment)
        .into_iter()
        .filter(|placed| {
            let measured_elsewhere = is_fleet && placed.activity.from.is_some() && !placed.judges;
            let played = plays_rollbacks || !placed.at.starts_with("$.rollbacks");
            played && !measured_elsewhere && !experiment.is_dry(placed.activity)
        })
        .collect();
    let mut problems = Vec::new();
    let mut functions = Vec::new();
    for placed in &here {
        match placed.provider {
            Provider::Process(process) => {
                if let Err(why) = program(process, environment) {
                    problems.push(problem(placed, &why, "install it, or correct its `path`"));
                }
            }
            Provider::Python(python) => functions.push((placed, python)),
            _ => {}
        }
    }
    if !functions.is_empty() {
        let wanted: Vec<&PythonProvider> = functions.iter().map(|(_, python)| *python).collect();
        for ((placed, _), why) in functions
            .iter()
            .zip(not_callable(&wanted, environment).await)
        {
            if let Some(why) = why {
                let hint = "install its package for this Python; BACKBURN_PYTHON names another one";
                problems.push(problem(placed, &why, hint));
            }
        }
    }
    for problem in &mut problems {
        problem.what = experiment
            .redactor
            .errors()
            .text(&problem.what)
            .into_owned();
    }
    problems
}

fn problem(placed: &LocatedProvider<'_>, why: &str, hint: &str) -> Problem {
    let name = &placed.activity.name;
    Problem::new(placed.at.as_str(), format!("`{name}` can't be run: {why}")).hint(hint)
}

/// Whether there is such a program that this process may run, along the `PATH` that it will be looked for with, and whether it may be
/// given its variables.
fn program(provider: &ProcessProvider, environment: &EnvironmentAccess) -> Result<(), String> {
    let variables = environment.of_program(provider)?;
    let path = at_home(&provider.path);
    let runs = |file: &Path| file.is_file() && access(file, AccessFlags::X_OK).is_ok();
    let shown = &provider.path;
    if shown.contains('/') {
        let file = PathBuf::from(path);
        return match (file.exists(), runs(&file)) {
            (_, true) => runnable(shown, &file),
            (true, false) => Err(format!("`{shown}` is not a program that may be run")),
            (false, false) => Err(format!("there is no program `{shown}`")),
        };
    }
    let folders = variables.get("PATH").cloned().unwrap_or_default();
    let mut files = std::env::split_paths(&folders).map(|folder| folder.join(&path));
    match files.find(|file| runs(file)) {
        Some(file) => runnable(shown, &file),
        None => Err(format!("there is no program `{shown}` along PATH")),
    }
}

/// Whether the kernel runs a file, or would leave it to a shell.
fn runnable(shown: &str, file: &Path) -> Result<(), String> {
    match backburn_programs::is_bare_text(file) {
        true => Err(format!(
            "`{shown}` is a text that names no interpreter; {PROGRAM_FORMS}"
        )),
        false => Ok(()),
    }
}

/// Why each of these functions can't be called; none for one that can.
async fn not_callable(
    wanted: &[&PythonProvider],
    environment: &EnvironmentAccess,
) -> Vec<Option<String>> {
    let python = interpreter();
    let name = python.to_string_lossy().into_owned();
    let mut command = Command::new(&python);
    command.arg("-c").arg(include_str!("look.py"));
    command.env_clear().envs(environment.of_python());
    let asked: Vec<Value> = wanted
        .iter()
        .map(|python| json!({"module": python.module, "func": python.func}))
        .collect();
    let input = Value::from(asked).to_string();
    let all = |why: String| vec![Some(why); wanted.len()];
    let imported = within(Some(IMPORT_TIMEOUT), run(command, input.as_bytes(), &name)).await;
    let output = match imported.and_then(|output| output) {
        Ok(output) => output,
        Err(ProbeError::NoAnswer(why) | ProbeError::Broken(why)) => {
            return all(format!("its module was not imported: {why}"));
        }
    };
    match serde_json::from_slice::<Vec<Option<String>>>(&output.stdout) {
        Ok(answers) if answers.len() == wanted.len() => answers,
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rev().find(|line| !line.trim().is_empty());
            all(format!(
                "`{name}` ended ({}) without saying whether its module is there: {}",
                output.status,
                last.unwrap_or("it printed nothing")
            ))
        }
    }
}
