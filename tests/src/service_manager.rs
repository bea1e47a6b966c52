//! A systemd of a test's own: the real one, as process 1 of process, mount and control-group namespaces of its own, with a `/run` and units of
//! its own. The test's program starts itself again as a service of it; when the test ends in any way, the kernel ends every process
//! that was started there. The systemd of the machine, if it has one, is not touched.

use crate::cgroups::Group;
use crate::isolated::{skip, test_name};
use crate::programs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set inside, to the test's name.
const INSIDE: &str = "BACKBURN_TEST_SYSTEMD";
/// From the start to the end of a test.
const PATIENCE: Duration = Duration::from_secs(300);
/// The service that a test runs as.
pub const OWN_SERVICE: &str = "test.service";
/// The service that crash trials stop.
pub const VICTIM: &str = "victim.service";
const SYSTEMD: &str = "/lib/systemd/systemd";
/// The environment that a test inside gets from outside.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "TMPDIR", "CI", "RUST_BACKTRACE"];

/// What is done before systemd starts: it gets a `/run`, control groups and configuration of its own.
const PREPARE: &str = r#"
set -e
mount -t tmpfs none /run
mkdir -p /run/lock /run/none
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /etc/systemd
mkdir -p /etc/systemd/system
mount --bind "$0/units" /lib/systemd/system
for folder in system-generators system-environment-generators; do
    if [ -d /lib/systemd/$folder ]; then mount --bind /run/none /lib/systemd/$folder; fi
done
exec env -i container=test PATH="$PATH" /lib/systemd/systemd --log-target=console --log-level=warning --show-status=no --unit=test.target
"#;

/// A unit file: its name and its content.
pub type UnitFile<'u> = (&'u str, &'u str);

/// Runs the body of this test as a service of a systemd, which has these units besides, in a network namespace of its own. Needs root, and is
/// skipped without.
///
/// # Panics
/// The test fails, or is skipped under CI.
pub fn under_systemd(needed: &[&str], units: &[UnitFile<'_>], test: impl FnOnce()) {
    let name = test_name();
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == *name) {
        crate::network::ip(&["link", "set", "lo", "up"]);
        return test();
    }
    if !nix::unistd::geteuid().is_root() {
        return skip("not root, and namespaces are made");
    }
    let programs = ["unshare", "mount", "systemctl", "ip"];
    let mut programs = programs.iter().chain(needed);
    if let Some(missing) = programs.find(|program| !programs::is_there(program)) {
        return skip(&format!(
            "`{missing}` is not installed; `tests/run` installs it"
        ));
    }
    if !Path::new(SYSTEMD).exists() {
        return skip("systemd is not installed; `tests/run` installs it");
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    write_units(&folder.path().join("units"), &name, folder.path(), units);
    // Tests run side by side in one process.
    let own = folder.path().file_name().expect("a folder has a name");
    let group = Group::new(&format!("systemd-{}", own.display()));
    let mut systemd = group
        .command("unshare")
        .args(["--mount", "--pid", "--fork", "--cgroup", "--mount-proc"])
        .args(["--kill-child=KILL", "--", "sh", "-c", PREPARE])
        .arg(folder.path())
        .stdin(Stdio::null())
        .spawn()
        .expect("`unshare` starts");
    let ended = folder.path().join("ended");
    let until = Instant::now() + PATIENCE;
    let mut status = None;
    while status.is_none() && Instant::now() < until {
        let has_left = systemd.try_wait().expect("a child can be waited for");
        status = std::fs::read_to_string(&ended)
            .ok()
            .filter(|text| text.ends_with('\n'));
        if has_left.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    systemd.kill().ok();
    systemd.wait().ok();
    remove_below(&group.0);
    let said = std::fs::read(folder.path().join("said")).unwrap_or_default();
    print!("{}", String::from_utf8_lossy(&said));
    let status = status.as_deref().map(str::trim);
    assert_eq!(status, Some("0"), "{name} failed under its systemd");
}

/// Writes the units of a systemd that starts little more than the test.
fn write_units(to: &Path, test: &str, folder: &Path, units: &[UnitFile<'_>]) {
    std::fs::create_dir(to).expect("a folder can be made");
    let write = |name: &str, content: &str| {
        std::fs::write(to.join(name), content).expect("a file can be written");
    };
    for target in [
        "basic", "paths", "shutdown", "slices", "sockets", "sysinit", "test", "timers", "umount",
    ] {
        write(
            &format!("{target}.target"),
            "[Unit]\nDefaultDependencies=no\n",
        );
    }
    write(
        "test.target",
        &format!("[Unit]\nDefaultDependencies=no\nWants={OWN_SERVICE}\n"),
    );
    let own = std::env::current_exe().expect("a test knows its own program");
    let binaries = programs::backburn();
    let binaries = binaries.parent().expect("a program is in a folder");
    let mut service = String::from("[Service]\nType=exec\nPrivateNetwork=yes\nTimeoutStopSec=1\n");
    let mut set = |line: &str| {
        service += line;
        service.push('\n');
    };
    let here = folder.display();
    set(&format!(
        "ExecStart={} {test} --exact --nocapture --test-threads=1",
        own.display()
    ));
    set(&format!("Environment={INSIDE}={test}"));
    set(&format!(
        "Environment=BACKBURN_BINARIES={}",
        binaries.display()
    ));
    for name in PASSED_ON {
        if let Ok(value) = std::env::var(name) {
            set(&format!("Environment=\"{name}={value}\""));
        }
    }
    for (name, value) in std::env::vars() {
        if name.starts_with("BACKBURN_CRASH") {
            set(&format!("Environment=\"{name}={value}\""));
        }
    }
    set(&format!("WorkingDirectory={}", programs::root().display()));
    set(&format!("StandardOutput=append:{here}/said"));
    set(&format!("StandardError=append:{here}/said"));
    set(&format!(
        "ExecStopPost=/bin/sh -c 'echo $EXIT_STATUS > {here}/ended'"
    ));
    write(OWN_SERVICE, &service);
    for (name, content) in units {
        write(name, content);
    }
}

/// Removes the control groups below one whose processes are ended.
fn remove_below(folder: &Path) {
    let Ok(below) = std::fs::read_dir(folder) else {
        return;
    };
    let folders: Vec<PathBuf> = below
        .filter_map(|entry| Some(entry.ok()?.path()).filter(|path| path.is_dir()))
        .collect();
    for folder in folders {
        remove_below(&folder);
        // It is busy until the kernel has taken leave of its processes.
        let until = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&folder).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What `systemctl` says with these words.
///
/// # Panics
/// It does not start.
pub fn systemctl(words: &[&str]) -> String {
    let output = Command::new("systemctl")
        .args(words)
        .output()
        .expect("`systemctl` starts");
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said += &String::from_utf8_lossy(&output.stderr);
    said.trim().to_owned()
}

/// Whether a unit runs, and the id of its latest start: `active` and 32 hexadecimal digits, e.g.
pub fn state(unit: &str) -> (String, String) {
    let said = systemctl(&["show", "--property=ActiveState,InvocationID", unit]);
    let of = |key: &str| {
        let value = said.lines().find_map(|line| line.strip_prefix(key));
        value.unwrap_or_default().to_owned()
    };
    (of("ActiveState="), of("InvocationID="))
}

/// The units that are of the agent's making.
pub fn units_of_backburn() -> Vec<String> {
    let said = systemctl(&[
        "list-units",
        "--all",
        "--plain",
        "--no-legend",
        "backburn-*",
    ]);
    said.lines().map(str::to_owned).collect()
}
