//! How the agent itself sees whether a plug-in's fault acts. What a plug-in says is no evidence.

use crate::files::read_regular;
use crate::netlink::listening;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Longest file that is looked into, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A look of the agent's own, which a plug-in declares for each change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "look", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EffectLook {
    /// The fault acts while a file contains a text.
    FileContains {
        /// The file's absolute path.
        path: PathBuf,
        /// The text that the file contains.
        text: String,
    },
    /// The fault acts while a path leads to something.
    FileExists {
        /// The absolute path that is looked at.
        path: PathBuf,
    },
    /// The fault acts while a path leads to nothing.
    FileMissing {
        /// The absolute path that is looked at.
        path: PathBuf,
    },
    /// The fault acts while something listens on a TCP port of the agent's network namespace.
    TcpListens {
        /// The port that is listened on.
        port: u16,
    },
}

impl EffectLook {
    /// Whether the fault is seen to act, with what was seen.
    ///
    /// # Errors
    /// It cannot be seen.
    pub fn take(&self) -> io::Result<(bool, String)> {
        Ok(match self {
            EffectLook::FileContains { path, text } => {
                let has = match read_regular(path, MAX_FILE_BYTES) {
                    Ok(content) => contains(&content, text.as_bytes()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                    Err(error) => return Err(error),
                };
                let verb = if has { "contains" } else { "does not contain" };
                (has, format!("{} {verb} `{text}`", path.display()))
            }
            EffectLook::FileExists { path } => {
                let is_there = exists(path)?;
                (is_there, presence(path, is_there))
            }
            EffectLook::FileMissing { path } => {
                let is_there = exists(path)?;
                (!is_there, presence(path, is_there))
            }
            EffectLook::TcpListens { port } => {
                let listens = listening()?
                    .iter()
                    .any(|socket| socket.tcp && socket.at.port() == *port);
                let verb = if listens {
                    "something listens"
                } else {
                    "nothing listens"
                };
                (listens, format!("{verb} on TCP port {port}"))
            }
        })
    }

    /// The path that is looked at, where there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            EffectLook::FileContains { path, .. }
            | EffectLook::FileExists { path }
            | EffectLook::FileMissing { path } => Some(path),
            EffectLook::TcpListens { .. } => None,
        }
    }
}

fn contains(content: &[u8], text: &[u8]) -> bool {
    !text.is_empty() && content.windows(text.len()).any(|part| part == text)
}

fn exists(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn presence(path: &Path, is_there: bool) -> String {
    let verb = if is_there { "is there" } else { "is not there" };
    format!("{} {verb}", path.display())
}
