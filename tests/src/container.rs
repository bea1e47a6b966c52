//! A container of a real runtime: runc, with Debian's busybox in it. It is put into a network namespace that is there already, as
//! container engines do; its processes, mounts and control group are its own.

use crate::machine::{found, libraries};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What is needed.
pub const WANTED: [&str; 2] = ["runc", "busybox"];

/// A container that sleeps. It goes with this.
pub struct Container {
    runtime: PathBuf,
    /// The runtime's records, and the bundle.
    folder: tempfile::TempDir,
    name: String,
    pid: i32,
}

impl Container {
    /// One in this network namespace, by its path.
    ///
    /// # Panics
    /// It does not start.
    pub fn new(network: &str) -> Self {
        let runtime = found(WANTED[0]).expect("runc is there");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let bundle = folder.path().join("bundle");
        for below in ["bin", "proc", "dev", "sys"] {
            let path = bundle.join("rootfs").join(below);
            std::fs::create_dir_all(path).expect("a folder can be made");
        }
        let busybox = found(WANTED[1]).expect("busybox is there");
        std::fs::copy(busybox, bundle.join("rootfs/bin/busybox")).expect("it can be copied");
        let made = Command::new(&runtime)
            .envs(libraries(&runtime))
            .args(["spec", "--bundle"])
            .arg(&bundle)
            .status();
        assert!(made.expect("runc starts").success());
        let file = bundle.join("config.json");
        let spec = std::fs::read(&file).expect("runc has written it");
        let mut spec: Value = serde_json::from_slice(&spec).expect("JSON");
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/busybox", "sleep", "1000"]);
        let namespaces = spec["linux"]["namespaces"].as_array_mut();
        for namespace in namespaces.expect("a list") {
            if namespace["type"] == "network" {
                namespace["path"] = network.into();
            }
        }
        std::fs::write(&file, spec.to_string()).expect("it can be written");
        // Its control groups bear this name, on a machine that others use too.
        let name = format!("backburn-test-{}", std::process::id());
        let mut container = Container {
            runtime,
            folder,
            name,
            pid: 0,
        };
        let started = container
            .runc(&["run", "--detach", "--bundle"])
            .arg(&bundle)
            .arg(&container.name)
            // A pipe would be held open by the container.
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        assert!(started.expect("runc starts").success(), "runc run");
        let state = container.runc(&["state", &container.name]).output();
        let state = state.expect("runc starts").stdout;
        let state: Value = serde_json::from_slice(&state).expect("JSON");
        assert_eq!(state["status"], "running", "{state}");
        container.pid = state["pid"].as_i64().expect("a number") as i32;
        container
    }

    fn runc(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.runtime);
        command
            .envs(libraries(&self.runtime))
            .arg("--root")
            .arg(self.folder.path().join("records"))
            .args(words);
        command
    }

    /// Its first process, as it is seen from here.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let deleted = self.runc(&["delete", "--force", &self.name]).status();
        if !deleted.is_ok_and(|deleted| deleted.success()) {
            eprintln!("the container {} is left", self.name);
        }
    }
}
