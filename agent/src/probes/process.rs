//! A program that is run, never through a shell, where the owner of this host allows it.

use crate::children::MAX_ANSWER_BYTES;
use crate::policy::Policy;
use backburn_experiments::argv::argv;
use backburn_experiments::document::ProcessProvider;
use backburn_experiments::probes::{NoValue, plain, text_of};
use backburn_experiments::wire::Refusal;
use serde_json::{Value, json};
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::Stdio;

/// The file of the program, where the policy allows it.
///
/// # Errors
/// It does not, or there is no such program.
fn allowed(provider: &ProcessProvider, policy: &Policy) -> Result<PathBuf, Refusal> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| found(name, &path);
    let program = policy.permits_program(&provider.path, found)?;
    // The loader would run another file's code in the name of the one that is allowed. Source: ld.so(8).
    let loads = |name: &&String| name.starts_with("LD_");
    match provider
        .env
        .iter()
        .flatten()
        .map(|(name, _)| name)
        .find(loads)
    {
        Some(name) => Err(Refusal::new(
            "policy",
            format!("a program that is run for a controller gets no `{name}`"),
        )),
        None => Ok(program),
    }
}

/// A program by its name along `PATH`, or by its path.
fn found(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_absolute());
    }
    let runs = |file: &PathBuf| {
        file.is_absolute()
            && file.is_file()
            && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
    };
    std::env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(runs)
}

/// `{status, stdout, stderr}`; the status of a program ended by a signal is that signal, negative.
pub(super) fn measure(provider: &ProcessProvider, policy: &Policy) -> Result<Value, NoValue> {
    let name = &provider.path;
    let broken = |error: std::io::Error| NoValue::Broken(format!("`{name}`: {}", plain(&error)));
    let program = allowed(provider, policy).map_err(|no| NoValue::Broken(no.to_string()))?;
    let argv = argv(provider).map_err(NoValue::Broken)?;
    let mut command = crate::host::program(&program);
    command
        .arg0(name)
        .args(argv.iter().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, value) in provider.env.iter().flatten() {
        command.env(name, text_of(value));
    }
    let mut child = command.spawn().map_err(broken)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = std::thread::scope(|scope| {
        let stderr = scope.spawn(move || read(stderr));
        let stdout = read(stdout);
        let stderr = stderr.join();
        (
            stdout,
            stderr.unwrap_or_else(|_| Err(NoValue::Broken("its output could not be read".into()))),
        )
    });
    let status = child.wait().map_err(broken)?;
    Ok(json!({
        "status": status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)),
        "stdout": stdout?,
        "stderr": stderr?,
    }))
}

fn read(from: Option<impl Read>) -> Result<String, NoValue> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(MAX_ANSWER_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| NoValue::Broken(plain(&error)))?;
    }
    match bytes.len() > MAX_ANSWER_BYTES {
        true => Err(NoValue::Broken(format!(
            "it wrote more than {} MiB",
            MAX_ANSWER_BYTES >> 20
        ))),
        false => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
