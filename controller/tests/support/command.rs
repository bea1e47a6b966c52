//! Runs the program `backburn` as a person does, in a folder of the test's own and with nothing of the environment that would change it.
#![allow(dead_code)] // Not every test that shares this looks at all of it.

use std::path::Path;
use std::process::{Command, Output};

/// What a command printed, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The command with these words, with the state in the folder and without a controller.
pub fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(snapbox::cmd::cargo_bin!("backburn"));
    command
        .args(words)
        .current_dir(folder)
        .env("BACKBURN_STATE", folder.join("state"))
        .env("NO_COLOR", "1")
        .env_remove("BACKBURN_POLICY")
        .env_remove("BACKBURN_CONTROLLER");
    command
}

/// Runs the command to its end.
pub fn said(folder: &Path, words: &[&str]) -> Said {
    Said::from(command(folder, words).output().unwrap())
}
