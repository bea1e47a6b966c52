//! Runs a test where it can do no harm and leave nothing: in process and mount namespaces of
//! its own. The test's program starts itself again inside, as process 1, for the one test; when
//! it ends in any way, the kernel ends every process that was started there and drops every mount.

use std::process::Command;

/// Set inside, to the test's name.
const INSIDE: &str = "BACKBURN_TEST_INSIDE";

/// Says that a test is not run, and why. Under CI that is a failure.
///
/// # Panics
/// Where `CI` is set.
pub fn skip(test: &str, why: &str) {
    println!("SKIPPED: {test}: {why}");
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} is skipped under CI: {why}"
    );
}

/// Runs `test`, which is called `name` in its file, in namespaces of its own. Needs root, and the programs named.
///
/// # Panics
/// The test fails, or is skipped under CI.
pub fn privately(name: &str, programs: &[&str], test: impl FnOnce()) {
    inside(name, programs, &[], test);
}

/// As [`privately`], and in a network namespace of its own as well, where there is nothing but a loopback, which is up.
///
/// # Panics
/// The test fails, or is skipped under CI.
pub fn privately_networked(name: &str, programs: &[&str], test: impl FnOnce()) {
    inside(name, programs, &["--net"], || {
        crate::network::ip(&["link", "set", "lo", "up"]);
        test();
    });
}

fn inside(name: &str, programs: &[&str], more: &[&str], test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return test();
    }
    if !nix::unistd::geteuid().is_root() {
        return skip(name, "not root, and namespaces are made");
    }
    if let Some(missing) = programs
        .iter()
        .find(|program| !crate::programs::is_there(program))
    {
        return skip(
            name,
            &format!("`{missing}` is not installed; `tests/run` installs it"),
        );
    }
    // Built outside: cargo is none of what a test looks at.
    let programs = crate::programs::backburn();
    let own = std::env::current_exe().expect("a test knows its own program");
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child=KILL",
        ])
        .args(more)
        .arg("--")
        .arg(own)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .env(
            "BACKBURN_BINARIES",
            programs.parent().expect("a program is in a folder"),
        )
        .status()
        .expect("`unshare` starts");
    assert!(
        status.success(),
        "{name} failed inside its namespaces: {status}"
    );
}
