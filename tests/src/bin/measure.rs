//! Runs a command, its output thrown away, and prints what it took as one JSON object: exit code,
//! wall time and processor time in milliseconds, peak memory in MiB. For the benches: small, so
//! that what is measured is the command and not what started it.

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().ok_or("usage: measure COMMAND [ARGUMENT]...")?;
    let mut command = Command::new(program);
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status()?;
    let wall = started.elapsed();
    // Its only child, and what that has waited for.
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let millis =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    println!(
        "{}",
        json!({
            "code": status.code(),
            "wall": wall.as_secs_f64() * 1e3,
            "processor": millis(usage.user_time()) + millis(usage.system_time()),
            "memory": usage.max_rss() as f64 / 1024.0,
        })
    );
    Ok(())
}
