//! Proxies that are not ours, beside which benchmarks measure: Noxious, and whatever else listens.

use crate::programs::root;
use crate::proxied::free;
use crate::wait::wait_within;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Another proxy, which ends with this.
pub struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Other {
    /// Starts it, and returns when it listens.
    ///
    /// # Panics
    /// It does not.
    pub fn start(mut command: Command, address: SocketAddr) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null());
        let other = Other(child.spawn().expect("it starts"));
        wait_within(
            &format!("{command:?} does not listen"),
            Duration::from_secs(10),
            || TcpStream::connect(address).is_ok(),
        );
        other
    }

    /// Starts Noxious, with a latency in milliseconds on what comes from upstream, if any; and where it listens.
    ///
    /// # Panics
    /// It does not listen.
    pub fn noxious(
        program: &Path,
        upstream: SocketAddr,
        latency: Option<u64>,
    ) -> (Self, SocketAddr) {
        let address = free();
        let mut command = Command::new(program);
        command.args([address.to_string(), upstream.to_string()]);
        command.args(latency.map(|latency| latency.to_string()));
        (Other::start(command, address), address)
    }
}

/// Noxious, built from the registry into the target folder; none where that does not work.
pub fn noxious() -> Option<PathBuf> {
    let target = root().join("target/noxious");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--locked", "--target-dir"])
        .arg(&target)
        .current_dir(root().join("tests/bench/noxious"))
        .status();
    let built = built.is_ok_and(|status| status.success());
    if !built {
        println!("noxious does not build here: there are no figures of it");
    }
    built.then(|| target.join("release/noxious-proxy"))
}

/// The median of times, and what 90 and 99 of 100 are not above.
///
/// # Panics
/// There are none.
pub fn percentiles(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [50, 90, 99].map(|percent| times[times.len() * percent / 100])
}
