//! A program that is run, never through a shell. Its own exit is its end: a daemon that it leaves behind is left alone. It has a
//! process group of its own, so that a terminal's Ctrl-C does not reach it; and it ends when this process dies, whatever the cause.

use super::capture::ProgramOutput;
use super::{EnvironmentAccess, MAX_OUTPUT_BYTES, ProbeError, ProbeResult, io_error_text};
use backburn_experiments::probes::{ProcessProvider, exit_value, output_too_long};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// How often the length of what a program has written is checked.
const OUTPUT_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Runs the program until it ends by itself.
pub(super) async fn measure(
    provider: &ProcessProvider,
    environment: &EnvironmentAccess,
) -> ProbeResult {
    let argv = provider.argv().map_err(ProbeError::Broken)?;
    let variables = environment
        .of_program(provider)
        .map_err(ProbeError::Broken)?;
    let mut command = Command::new(at_home(&provider.path));
    command.args(argv.iter().skip(1));
    // A program that is named without a folder is found along the `PATH` that it is given.
    command.env_clear().envs(variables);
    let Output {
        status,
        stdout,
        stderr,
    } = run(command, &[], &provider.path).await?;
    Ok(exit_value(status.code(), status.signal(), &stdout, &stderr))
}

/// A path in which `~/` stands for the home folder.
pub(super) fn at_home(path: &str) -> OsString {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => std::path::Path::new(&home).join(rest).into(),
        _ => path.into(),
    }
}

/// The exit status and the output of a program.
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Runs a program until it ends by itself; what it has left running is left alone. When the future is dropped, the program is killed, and
/// only the program.
pub(super) async fn run(
    mut command: Command,
    input: &[u8],
    name: &str,
) -> Result<Output, ProbeError> {
    let broken =
        |error: io::Error| ProbeError::Broken(format!("`{name}`: {}", io_error_text(&error)));
    let (stdout, stderr) = (
        ProgramOutput::new().map_err(broken)?,
        ProgramOutput::new().map_err(broken)?,
    );
    command.stdin(if input.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    });
    command
        .stdout(stdout.stream().map_err(broken)?)
        .stderr(stderr.stream().map_err(broken)?)
        .process_group(0)
        .kill_on_drop(true);
    end_with_parent(&mut command);
    let program = PathBuf::from(command.as_std().get_program());
    backburn_programs::without_shell(command.as_std_mut(), None).map_err(broken)?;
    let started = command.spawn();
    let mut child = started.map_err(|error| broken(backburn_programs::explain(error, &program)))?;
    let status = end_of(&mut child, input, [&stdout, &stderr]).await?;
    let taken = |stream: ProgramOutput| match stream.take(MAX_OUTPUT_BYTES as u64) {
        Ok(bytes) if bytes.len() > MAX_OUTPUT_BYTES => Err(output_too_long(MAX_OUTPUT_BYTES)),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(broken(error)),
    };
    Ok(Output {
        status,
        stdout: taken(stdout)?,
        stderr: taken(stderr)?,
    })
}

/// Waits until the program ends by itself, and gives it its input meanwhile. Gives up once it has written too much.
async fn end_of(
    child: &mut Child,
    input: &[u8],
    streams: [&ProgramOutput; 2],
) -> Result<ExitStatus, ProbeError> {
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not want its input may close it.
            stdin.write_all(input).await.ok();
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(write);
    loop {
        tokio::select! {
            ended = child.wait() => return ended.map_err(|error| ProbeError::Broken(io_error_text(&error))),
            () = &mut write => {}
            () = tokio::time::sleep(OUTPUT_CHECK_INTERVAL) => {
                if streams.iter().any(|stream| stream.length().is_ok_and(|length| length > MAX_OUTPUT_BYTES as u64)) {
                    return Err(output_too_long(MAX_OUTPUT_BYTES));
                }
            }
        }
    }
}

/// Has the kernel kill the program when the thread that starts it ends, even by SIGKILL. The program's own children are not reached.
/// Source: prctl(2), `PR_SET_PDEATHSIG`.
#[allow(unsafe_code)]
fn end_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above.
        if nix::unistd::getppid() == parent {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::NotConnected))
        }
    };
    // SAFETY: between fork and exec only prctl and getppid are called, which are safe after a
    // signal (signal-safety(7)); nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(prepare);
    }
}
