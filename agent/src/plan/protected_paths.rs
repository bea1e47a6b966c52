//! Paths that no fault alters: what the agent needs to put things back, and what the policy protects.

use backburn_experiments::wire::Refusal;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The paths that no fault alters. Each stands for itself and all below it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProtectedPaths(Vec<ProtectedPath>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ProtectedPath {
    path: PathBuf,
    /// What it is, for people, e.g. `the state folder of the agent`.
    what: String,
}

impl ProtectedPaths {
    /// The state folder with its ledger, journals and pinned plug-ins, the policy's file, the agent's program, and what the policy protects.
    pub fn new(state: &Path, policy_file: &Path, protected: &[PathBuf]) -> Self {
        let program = std::env::current_exe().ok();
        let own = [
            (Some(state), "the state folder of the agent"),
            (Some(policy_file), "the policy of this host"),
            (program.as_deref(), "the program of the agent"),
        ];
        let own = own
            .into_iter()
            .filter_map(|(path, what)| Some((path?.to_owned(), what)));
        let owners = protected.iter();
        let owners = owners.map(|path| (path.clone(), "protected by the policy of this host"));
        let all = own.chain(owners).flat_map(|(path, what)| {
            let path = std::path::absolute(&path).unwrap_or(path);
            // By both names, where a link leads there.
            let whole = path.canonicalize().ok().filter(|whole| *whole != path);
            [Some(path), whole]
                .into_iter()
                .flatten()
                .map(|path| ProtectedPath {
                    path,
                    what: what.to_owned(),
                })
                .collect::<Vec<_>>()
        });
        ProtectedPaths(all.collect())
    }

    /// Checks that a path is neither protected nor a folder that contains something protected. The path must be absolute and without
    /// links.
    ///
    /// # Errors
    /// It is one of them: the refusal says which.
    pub fn check(&self, path: &Path) -> Result<(), Refusal> {
        let found = self.0.iter().find(|protected| {
            path.starts_with(&protected.path) || protected.path.starts_with(path)
        });
        match found {
            None => Ok(()),
            Some(protected) => Err(Refusal::new(
                "protected",
                format!(
                    "{} is protected: {} is {}",
                    path.display(),
                    protected.path.display(),
                    protected.what
                ),
            )
            .hint("choose another path; the owner of this host protects paths by `protect.paths` in the policy")),
        }
    }

    /// The paths that are protected.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|protected| protected.path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_paths_cover_what_is_below_and_the_folders_above() {
        let paths = ProtectedPaths::new(
            Path::new("/var/lib/agent-of-a-test"),
            Path::new("/etc/backburn/agent.json"),
            &["/srv/vault".into()],
        );
        for (path, is_free) in [
            ("/srv/vault", false),
            ("/srv/vault/key", false),
            ("/srv", false),
            ("/", false),
            ("/srv/vaults", true),
            ("/srv/other", true),
            ("/var/lib/agent-of-a-test/ledger/a.json", false),
            ("/etc/backburn/agent.json", false),
            ("/etc/backburn/agent.json.old", true),
        ] {
            assert_eq!(paths.check(Path::new(path)).is_ok(), is_free, "{path}");
        }
        let own = std::env::current_exe().unwrap();
        let refusal = paths.check(&own).unwrap_err();
        assert_eq!(refusal.rule, "protected");
        assert!(
            refusal.what.contains("the program of the agent"),
            "{refusal}"
        );
    }

    #[test]
    fn protected_path_reached_through_a_link_is_protected_by_both_names() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap().join("real");
        #[allow(clippy::disallowed_methods, reason = "a folder of the test's own")]
        {
            std::fs::create_dir(&real).unwrap();
            std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
        }
        let paths = ProtectedPaths::new(&folder.path().join("link"), Path::new("/none"), &[]);
        assert!(paths.check(&real.join("ledger")).is_err());
        assert!(paths.check(&folder.path().join("link")).is_err());
    }
}
