//! A program that is run, never through a shell, where the owner of this host allows it. Its own exit is its end: a daemon
//! that it leaves behind is left alone.

use super::capture::OutputCapture;
use crate::children::MAX_ANSWER_BYTES;
use crate::host::wait_readable;
use crate::policy::HostPolicy;
use backburn_experiments::probes::{
    ProbeError, ProbeResult, ProcessProvider, exit_value, io_error_text, output_too_long,
};
use backburn_experiments::program_environment;
use backburn_experiments::wire::Refusal;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

/// How often the length of what a program has written is checked.
const OUTPUT_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The file of the program, where the policy allows it.
///
/// # Errors
/// It does not, or there is no such program.
fn allowed(provider: &ProcessProvider, policy: &HostPolicy) -> Result<PathBuf, Refusal> {
    let path = policy.program_environment.path();
    let found = |name: &str| found(name, path.as_ref());
    let arguments =
        program_environment::arguments(provider).map_err(|why| Refusal::new("invalid", why))?;
    policy.permits_program(&provider.path, &arguments, found)
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

/// Runs the program until it ends by itself.
pub(super) fn measure(provider: &ProcessProvider, policy: &HostPolicy) -> ProbeResult {
    let name = &provider.path;
    let broken =
        |error: io::Error| ProbeError::Broken(format!("`{name}`: {}", io_error_text(&error)));
    let program = allowed(provider, policy).map_err(|no| ProbeError::Broken(no.to_string()))?;
    let argv = provider.argv().map_err(ProbeError::Broken)?;
    let (stdout, stderr) = (
        OutputCapture::new().map_err(broken)?,
        OutputCapture::new().map_err(broken)?,
    );
    let mut command = crate::host::program(&program);
    // A group of its own: what it leaves running is not ended with the process that measures it.
    command
        .args(argv.iter().skip(1))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(stdout.stream().map_err(broken)?)
        .stderr(stderr.stream().map_err(broken)?);
    let environment = &policy.program_environment;
    let variables = environment
        .variables(provider, |name| std::env::var_os(name))
        .map_err(ProbeError::Broken)?;
    command.env_clear().envs(variables);
    backburn_programs::without_shell(&mut command, Some(OsStr::new(name))).map_err(broken)?;
    let started = command.spawn();
    let mut child = started.map_err(|error| broken(backburn_programs::explain(error, &program)))?;
    let status = end_of(&mut child, [&stdout, &stderr]).map_err(broken)?;
    let output = |stream: OutputCapture| match stream.take(MAX_ANSWER_BYTES as u64) {
        Ok(bytes) if bytes.len() > MAX_ANSWER_BYTES => Err(output_too_long(MAX_ANSWER_BYTES)),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(broken(error)),
    };
    let (stdout, stderr) = (output(stdout)?, output(stderr)?);
    Ok(exit_value(status.code(), status.signal(), &stdout, &stderr))
}

/// Waits for the program's own end; kills it where it has written too much.
fn end_of(child: &mut Child, streams: [&OutputCapture; 2]) -> io::Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    while !wait_readable(&ended, OUTPUT_CHECK_INTERVAL)? {
        let mut lengths = streams.iter().map(|stream| stream.length());
        if lengths.any(|length| length.is_ok_and(|length| length > MAX_ANSWER_BYTES as u64)) {
            child.kill()?;
        }
    }
    child.wait()
}
