//! A program that is run, never through a shell, where the owner of this host allows it. Its own exit is its end: a daemon
//! that it leaves behind is left alone.

use super::capture::Capture;
use crate::children::MAX_ANSWER_BYTES;
use crate::host::wait_readable;
use crate::policy::HostPolicy;
use backburn_experiments::argv::argv;
use backburn_experiments::document::ProcessProvider;
use backburn_experiments::probes::{NoValue, plain, text_of};
use backburn_experiments::wire::Refusal;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

/// How often is looked whether a program has written too much.
const LOOK_EACH: Duration = Duration::from_millis(20);

/// The file of the program, where the policy allows it.
///
/// # Errors
/// It does not, or there is no such program.
fn allowed(provider: &ProcessProvider, policy: &HostPolicy) -> Result<PathBuf, Refusal> {
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
pub(super) fn measure(provider: &ProcessProvider, policy: &HostPolicy) -> Result<Value, NoValue> {
    let name = &provider.path;
    let broken = |error: io::Error| NoValue::Broken(format!("`{name}`: {}", plain(&error)));
    let program = allowed(provider, policy).map_err(|no| NoValue::Broken(no.to_string()))?;
    let argv = argv(provider).map_err(NoValue::Broken)?;
    let (stdout, stderr) = (
        Capture::new().map_err(broken)?,
        Capture::new().map_err(broken)?,
    );
    let mut command = crate::host::program(&program);
    // A group of its own: what it leaves running is not ended with the process that measures it.
    command
        .arg0(name)
        .args(argv.iter().skip(1))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(stdout.stream().map_err(broken)?)
        .stderr(stderr.stream().map_err(broken)?);
    for (name, value) in provider.env.iter().flatten() {
        command.env(name, text_of(value));
    }
    let mut child = command.spawn().map_err(broken)?;
    let status = end_of(&mut child, [&stdout, &stderr]).map_err(broken)?;
    let taken = |stream: Capture| match stream.take(MAX_ANSWER_BYTES as u64) {
        Ok(bytes) if bytes.len() > MAX_ANSWER_BYTES => Err(NoValue::Broken(format!(
            "it wrote more than {} MiB",
            MAX_ANSWER_BYTES >> 20
        ))),
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => Err(broken(error)),
    };
    Ok(json!({
        "status": status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)),
        "stdout": taken(stdout)?,
        "stderr": taken(stderr)?,
    }))
}

/// Waits for the program's own end; kills it where it has written too much.
fn end_of(child: &mut Child, streams: [&Capture; 2]) -> io::Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    while !wait_readable(&ended, LOOK_EACH)? {
        let mut lengths = streams.iter().map(|stream| stream.length());
        if lengths.any(|length| length.is_ok_and(|length| length > MAX_ANSWER_BYTES as u64)) {
            child.kill()?;
        }
    }
    child.wait()
}
