//! Where the programs under test are, and the oracle they are compared with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests has a parent")
}

/// The program `backburn`.
pub fn backburn() -> PathBuf {
    folder().join("backburn")
}

/// The program `backburn` of the version before: in the folder that `BACKBURN_PREVIOUS` names, where `tests/previous` has built it; without
/// that, this version's, so that the tests of both versions at least know how they go.
pub fn previous_backburn() -> PathBuf {
    match std::env::var_os("BACKBURN_PREVIOUS") {
        Some(folder) => Path::new(&folder).join("backburn"),
        None => backburn(),
    }
}

/// The slim program `backburn-agent`.
pub fn backburn_agent() -> PathBuf {
    folder().join("backburn-agent")
}

/// The folder of the programs: `BACKBURN_BINARIES` where `tests/run` has put what ships; else
/// what cargo builds now, so that `cargo test` alone never tests an old program.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| match std::env::var_os("BACKBURN_BINARIES") {
        Some(folder) => folder.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    // A test's own program is `target/PROFILE/deps/NAME-HASH`.
    let own = std::env::current_exe().expect("a test knows its own program");
    let folder = own
        .parent()
        .and_then(Path::parent)
        .expect("a test lies in target/PROFILE/deps")
        .to_owned();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args([
        "build",
        "--quiet",
        "-p",
        "backburn",
        "-p",
        "backburn-agent",
        "--bins",
    ]);
    // What cargo tells of the test's own crate is nothing to the crates that are built: some, as ring, are built again for it.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(
        cargo.status().expect("cargo starts").success(),
        "the programs do not build"
    );
    folder
}

/// The Python of a virtual environment that has the Chaos Toolkit: `BACKBURN_ORACLE`, or
/// `tests/.venv` where `tests/run` has made it.
pub fn oracle() -> Option<PathBuf> {
    let given = std::env::var_os("BACKBURN_ORACLE").map(PathBuf::from);
    // Not canonical: a virtual environment is found by the path its Python is started with.
    let python = given.unwrap_or_else(|| root().join("tests/.venv/bin/python"));
    python.exists().then_some(python)
}

/// Whether a program is there, along `PATH`.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
