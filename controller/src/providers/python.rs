//! A Python function, so that the Chaos Toolkit's extension packages work as they are. The user's
//! own `python3` runs it in a child process, JSON in and JSON out (`call.py`).

use super::{ProbeContext, ProbeError, process};
use backburn_experiments::probes::PythonProvider;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use tokio::process::Command;

/// The Python that runs functions: the user's own, unless BACKBURN_PYTHON names another.
pub(super) fn interpreter() -> OsString {
    std::env::var_os("BACKBURN_PYTHON").unwrap_or_else(|| OsString::from("python3"))
}

/// What the function returned. An `ActivityFailed`, a connection error or a time-out that it
/// raises is no answer, anything else a broken check.
pub(super) async fn measure(
    provider: &PythonProvider,
    context: &ProbeContext,
) -> super::ProbeResult {
    let interpreter = interpreter();
    let name = interpreter.to_string_lossy().into_owned();
    let mut command = Command::new(interpreter);
    command.arg("-c").arg(include_str!("call.py"));
    command
        .env_clear()
        .envs(context.access.environment.of_python());
    let input = json!({
        "module": provider.module,
        "func": provider.func,
        "arguments": provider.arguments.clone().unwrap_or_default(),
        "configuration": context.configuration,
        "secrets": secrets(provider, context),
    });
    let output = process::run(command, input.to_string().as_bytes(), &name).await?;
    let answer: Map<String, Value> = serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("it printed nothing");
        ProbeError::Broken(format!(
            "`{name}` ended without an answer ({}): {last}",
            output.status
        ))
    })?;
    let place = format!("{}.{}", provider.module, provider.func);
    match answer.into_iter().next() {
        Some((kind, value)) if kind == "output" => Ok(value),
        Some((kind, why)) if kind == "no-answer" => Err(ProbeError::NoAnswer(format!(
            "`{place}`: {}",
            super::value_text(&why)
        ))),
        Some((_, why)) => Err(ProbeError::Broken(format!(
            "`{place}`: {}",
            super::value_text(&why)
        ))),
        None => Err(ProbeError::Broken(format!(
            "`{place}`: the answer is empty"
        ))),
    }
}

/// The scopes that the function asks for, put together, and the activity's own over them;
/// nothing where there are neither.
fn secrets(provider: &PythonProvider, context: &ProbeContext) -> Option<Map<String, Value>> {
    let named = |scopes: &Value| -> Vec<String> {
        scopes
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|scope| scope.as_str().map(str::to_owned))
            .collect()
    };
    let own = context.own_secrets.as_ref();
    if provider.secrets.is_none() && own.is_none() {
        return None;
    }
    let scopes = provider
        .secrets
        .clone()
        .into_iter()
        .flatten()
        .chain(own.map(named).unwrap_or_default());
    let mut secrets = Map::new();
    for scope in scopes {
        secrets.extend(
            context
                .secrets
                .get(&scope)
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
        );
    }
    secrets.extend(own.and_then(Value::as_object).cloned().unwrap_or_default());
    Some(secrets)
}
