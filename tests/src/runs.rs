//! What a run of ours leaves behind: its journal.

use backburn_experiments::journal::Entry;
use std::path::{Path, PathBuf};

/// The entries of the newest journal below a folder.
///
/// # Panics
/// There is none, or a line of it is no event.
pub fn newest_journal(folder: &Path) -> Vec<Entry> {
    let journal = journals(folder)
        .pop()
        .unwrap_or_else(|| panic!("no journal below {}", folder.display()));
    let text = std::fs::read_to_string(&journal).expect("a journal can be read");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// Every journal (`*.jsonl`) below a folder, oldest first.
pub fn journals(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "jsonl")
            {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| path.metadata().and_then(|file| file.modified()).ok());
    found
}
