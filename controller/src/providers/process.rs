//! A program that is run, never through a shell. Its own exit is its end: a daemon that it leaves behind is left alone. It has a
//! process group of its own, so that a terminal's Ctrl-C does not reach it; and it ends when we die, whatever we die of.

use super::capture::Capture;
use super::{MOST, NoValue, plain, text_of, within};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::ProcessProvider;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// How often is looked whether a program has written too much.
const LOOK_EACH: Duration = Duration::from_millis(20);

/// `{status, stdout, stderr}`; the status of a program ended by a signal is that signal, negative.
pub(super) async fn measure(
    provider: &ProcessProvider,
    longest: Option<HumanDuration>,
) -> Result<Value, NoValue> {
    let argv = backburn_experiments::argv::argv(provider).map_err(NoValue::Broken)?;
    let mut command = Command::new(at_home(&provider.path));
    command.args(argv.iter().skip(1));
    for (name, value) in provider.env.iter().flatten() {
        command.env(name, text_of(value));
    }
    let output = run(command, &[], provider.timeout.or(longest), &provider.path).await?;
    Ok(json!({
        "status": output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0)),
        "stdout": String::from_utf8_lossy(&output.stdout),
        "stderr": String::from_utf8_lossy(&output.stderr),
    }))
}

/// `~/` as a person means it.
pub(super) fn at_home(path: &str) -> OsString {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => std::path::Path::new(&home).join(rest).into(),
        _ => path.into(),
    }
}

/// What a program left.
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Runs it until it ends by itself; what it may have left running is left alone. When that takes too long, or the future is
/// dropped, the program is killed, and only the program.
pub(super) async fn run(
    mut command: Command,
    input: &[u8],
    longest: Option<HumanDuration>,
    name: &str,
) -> Result<Output, NoValue> {
    let broken = |error: io::Error| NoValue::Broken(format!("`{name}`: {}", plain(&error)));
    let (stdout, stderr) = (
        Capture::new().map_err(broken)?,
        Capture::new().map_err(broken)?,
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
    die_with_us(&mut command);
    let mut child = command.spawn().map_err(broken)?;
    let status = within(longest, end_of(&mut child, input, [&stdout, &stderr])).await??;
    let taken = |stream: Capture| match stream.take(MOST as u64) {
        Ok(bytes) if bytes.len() > MOST => Err(too_much()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(broken(error)),
    };
    Ok(Output {
        status,
        stdout: taken(stdout)?,
        stderr: taken(stderr)?,
    })
}

/// Waits for the program's own end, and hands it its input meanwhile. It is not waited for any longer once it has written too much.
async fn end_of(
    child: &mut Child,
    input: &[u8],
    streams: [&Capture; 2],
) -> Result<ExitStatus, NoValue> {
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
            ended = child.wait() => return ended.map_err(|error| NoValue::Broken(plain(&error))),
            () = &mut write => {}
            () = tokio::time::sleep(LOOK_EACH) => {
                if streams.iter().any(|stream| stream.length().is_ok_and(|length| length > MOST as u64)) {
                    return Err(too_much());
                }
            }
        }
    }
}

fn too_much() -> NoValue {
    NoValue::Broken(format!("it wrote more than {} MiB", MOST >> 20))
}

/// The kernel ends the program when our thread ends, even by SIGKILL. Its own children are not
/// ours to reach then. Source: prctl(2), `PR_SET_PDEATHSIG`.
#[allow(unsafe_code)]
fn die_with_us(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // We may have died before the line above.
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
