//! Runs a test where it can do no harm and leaves nothing: in process and mount namespaces of its own. The test's program starts
//! itself again inside, as process 1, for that one test; when the test ends in any way, the kernel ends every process that was
//! started there and drops every mount.

use std::process::Command;

/// The environment variable that tells a test inside its namespaces which one it is.
const INSIDE: &str = "BACKBURN_TEST_INSIDE";

/// The path of the test that this thread runs, as libtest filters know it, e.g. `crashes::helper_that_dies_leaves_nothing`.
///
/// # Panics
/// This is not the thread that libtest made for the test.
pub fn test_name() -> String {
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main");
    name.expect("a test asks for its name in its own thread")
        .to_owned()
}

/// Runs the body of a benchmark, whose program has no tests, in a thread with a name that stands for a test's.
///
/// # Panics
/// The body does, or a thread cannot be started.
pub fn with_name(name: &str, body: impl FnOnce() + Send) {
    std::thread::scope(|threads| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn_scoped(threads, body).expect("a thread starts");
        thread.join().expect("the benchmark does not panic");
    });
}

/// Says that this test is not run, and why. With `CI` set that is a failure.
///
/// # Panics
/// `CI` is set.
pub fn skip(why: &str) {
    let test = test_name();
    println!("SKIPPED: {test}: {why}");
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} is skipped under CI: {why}"
    );
}

/// Runs the body of this test in process and mount namespaces of its own. Needs root and the programs named, and is skipped without.
///
/// # Panics
/// The test fails, or is skipped under CI.
pub fn in_namespaces(programs: &[&str], test: impl FnOnce()) {
    inside(programs, &[], test);
}

/// As [`in_namespaces`], and in a network namespace of its own as well, which has nothing but a loopback that is up.
///
/// # Panics
/// The test fails, or is skipped under CI.
pub fn in_network_namespace(programs: &[&str], test: impl FnOnce()) {
    inside(programs, &["--net"], || {
        crate::network::ip(&["link", "set", "lo", "up"]);
        test();
    });
}

fn inside(programs: &[&str], more: &[&str], test: impl FnOnce()) {
    let name = test_name();
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == *name) {
        return test();
    }
    if !nix::unistd::geteuid().is_root() {
        return skip("not root, and namespaces are made");
    }
    if let Some(missing) = programs
        .iter()
        .find(|program| !crate::programs::is_there(program))
    {
        return skip(&format!(
            "`{missing}` is not installed; `tests/run` installs it"
        ));
    }
    // Built outside: no test should see cargo among its processes.
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
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, &name)
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
