//! A program that is run, never through a shell. It has a process group of its own, so that it
//! is ended with its children; and it ends when we die, whatever we die of.

use super::{MOST, NoValue, plain, text_of, within};
use backburn_experiments::Span;
use backburn_experiments::document::ProcessProvider;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// `{status, stdout, stderr}`; the status of a program ended by a signal is that signal, negative.
pub(super) async fn measure(
    provider: &ProcessProvider,
    longest: Option<Span>,
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
fn at_home(path: &str) -> OsString {
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

/// Runs it to its end. When that takes too long, or the future is dropped, its group is killed.
pub(super) async fn run(
    mut command: Command,
    input: &[u8],
    longest: Option<Span>,
    name: &str,
) -> Result<Output, NoValue> {
    command.stdin(if input.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    });
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    die_with_us(&mut command);
    let child = command
        .spawn()
        .map_err(|error| NoValue::Broken(format!("`{name}`: {}", plain(&error))))?;
    let mut group = Group { child };
    within(longest, group.finish(input)).await?
}

/// A running program with whatever it started.
struct Group {
    child: Child,
}

impl Group {
    async fn finish(&mut self, input: &[u8]) -> Result<Output, NoValue> {
        let (stdin, stdout, stderr) = (
            self.child.stdin.take(),
            self.child.stdout.take(),
            self.child.stderr.take(),
        );
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that does not want its input may close it.
                stdin.write_all(input).await.ok();
            }
        };
        let ((), stdout, stderr) = tokio::join!(write, read(stdout), read(stderr));
        // Only now is the child reaped: until then its process id, and so its group's, is its own.
        let status = self
            .child
            .wait()
            .await
            .map_err(|error| NoValue::Broken(plain(&error)))?;
        Ok(Output {
            status,
            stdout: stdout?,
            stderr: stderr?,
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id {
            // Nobody is left to be told; a group that is gone already is what we want.
            killpg(Pid::from_raw(id), Signal::SIGKILL).ok();
        }
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, NoValue> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(MOST as u64 + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| NoValue::Broken(plain(&error)))?;
    }
    if bytes.len() > MOST {
        return Err(NoValue::Broken(format!(
            "it wrote more than {} MiB",
            MOST >> 20
        )));
    }
    Ok(bytes)
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
