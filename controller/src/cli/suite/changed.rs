//! Which files of a suite have changed since a commit, as git knows it.

use super::super::CommandFailure;
use backburn_experiments::terminal_text::escape;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The files that differ from the last commit that `base` and the current one have in common: what was committed since, what is not committed
/// yet, and what git does not know yet. Their real paths.
///
/// # Errors
/// The current directory is not in a repository, `base` names no commit of it, or git is missing.
pub(super) fn changed_files(base: &str) -> Result<BTreeSet<PathBuf>, CommandFailure> {
    if base.is_empty() || base.starts_with('-') {
        return Err(CommandFailure::invalid(format!(
            "`--only-changed {}`: expected a commit, for example `origin/main`",
            escape(base)
        )));
    }
    let top = line(git(&["rev-parse".as_ref(), "--show-toplevel".as_ref()])?);
    let common = git(&["merge-base".as_ref(), base.as_ref(), "HEAD".as_ref()]).map_err(|mut failure| {
        failure.message.push_str(&format!(
            "\nhint: the history back to `{}` is needed; a job that checks out only the last commit fetches the rest with `fetch-depth: 0` (GitHub) or `GIT_DEPTH: 0` (GitLab)",
            escape(base)
        ));
        failure
    })?;
    let common = line(common);
    let top = Path::new(&top);
    let in_top = |words: &[&OsStr]| git(&[&["-C".as_ref(), top.as_os_str()], words].concat());
    let lists = [
        in_top(
            &["diff", "--name-only", "--no-renames", "--no-ext-diff", "-z"]
                .map(OsStr::new)
                .iter()
                .copied()
                .chain([common.as_os_str(), "--".as_ref()])
                .collect::<Vec<_>>(),
        )?,
        in_top(&["ls-files", "--others", "--exclude-standard", "-z"].map(OsStr::new))?,
    ];
    let names = lists.iter().flat_map(|list| list.split(|byte| *byte == 0));
    let files = names
        .filter(|name| !name.is_empty())
        .map(|name| top.join(OsStr::from_bytes(name)));
    // What was removed has no real path, and is not in the suite either.
    Ok(files
        .filter_map(|file| std::fs::canonicalize(file).ok())
        .collect())
}

/// What git printed, without the end of its only line.
fn line(printed: Vec<u8>) -> OsString {
    OsStr::from_bytes(printed.strip_suffix(b"\n").unwrap_or(&printed)).to_owned()
}

/// Runs git in the current directory and returns what it prints.
fn git(words: &[&OsStr]) -> Result<Vec<u8>, CommandFailure> {
    let output = Command::new("git")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            let why = backburn_experiments::probes::io_error_text(&error);
            CommandFailure::invalid(format!("`--only-changed` requires git: {why}"))
        })?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            let why = match said.trim() {
                "" => "there is no common commit".into(),
                said => said.replace('\n', "; "),
            };
            Err(CommandFailure::invalid(format!(
                "`--only-changed`: git: {}",
                escape(&why)
            )))
        }
    }
}
