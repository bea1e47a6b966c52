//! Which experiments a suite consists of: files of directories and patterns, in order, and a shard of them.

use super::super::CommandFailure;
use super::super::output::shown_path;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The files of a suite in their order: what is named first comes first, and the files of one directory or pattern are sorted by their paths. A
/// file that is named twice is listed once.
///
/// # Errors
/// A name stands for no file.
pub(super) fn files(names: &[String]) -> Result<Vec<PathBuf>, CommandFailure> {
    let mut known = BTreeSet::new();
    let mut found = Vec::new();
    for name in names {
        for file in files_of(name)? {
            let real = std::fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
            if known.insert(real) {
                found.push(file);
            }
        }
    }
    Ok(found)
}

/// The files of one directory, one pattern, or one file.
fn files_of(name: &str) -> Result<Vec<PathBuf>, CommandFailure> {
    let path = Path::new(name);
    let invalid = |what: &str, hint: &str| {
        let shown = shown_path(path);
        CommandFailure::invalid(format!("`--suite {shown}`: {what}\nhint: {hint}"))
    };
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let is_directory = path.is_dir();
    let pattern = match is_directory {
        true => {
            let directory = glob::Pattern::escape(name.trim_end_matches('/'));
            format!("{directory}/**/*.json")
        }
        false if name.contains(['*', '?', '[']) => name.to_owned(),
        false => {
            return Err(invalid(
                "no such file or directory",
                "name a directory, or a pattern in quotes, for example `'experiments/**/*.json'`",
            ));
        }
    };
    // Hidden files are matched only by a pattern that names the dot.
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        require_literal_separator: true,
        ..glob::MatchOptions::new()
    };
    let paths = glob::glob_with(&pattern, options)
        .map_err(|error| invalid(error.msg, "`*`, `?`, `**` and `[a-z]` are the wildcards"))?;
    let mut found = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            let why = backburn_experiments::probes::io_error_text(error.error());
            invalid(
                &format!("{}: {why}", shown_path(error.path())),
                "make it readable",
            )
        })?;
        if path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(match is_directory {
            true => invalid(
                "there is no file `*.json` in this directory",
                "experiments are JSON files; a pattern selects others",
            ),
            false => invalid(
                "the pattern matches no file",
                "put it in quotes, so that the shell leaves it as it is",
            ),
        });
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    #[test]
    fn suite_files_are_sorted_once_each_and_hidden_ones_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in [
            "b.json",
            "a.json",
            "z/[c].json",
            "z/.hidden.json",
            ".git/d.json",
            "notes.txt",
        ] {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "{}").unwrap();
        }
        let names = |given: &[String]| -> Vec<String> {
            let found = files(given).unwrap();
            let inside = |file: &PathBuf| {
                file.strip_prefix(folder.path())
                    .unwrap()
                    .display()
                    .to_string()
            };
            found.iter().map(inside).collect()
        };
        assert_eq!(names(&[at("")]), ["a.json", "b.json", "z/[c].json"]);
        assert_eq!(names(&[at("*.json")]), ["a.json", "b.json"]);
        assert_eq!(
            names(&[at("**/*.json")]),
            ["a.json", "b.json", "z/[c].json"]
        );
        assert_eq!(names(&[at("z/[c].json")]), ["z/[c].json"]);
        assert_eq!(
            names(&[at("z"), at("b.json"), at("")]),
            ["z/[c].json", "b.json", "a.json"]
        );
        assert_eq!(names(&[at("notes.txt")]), ["notes.txt"]);
        for (wrong, why) in [
            ("no", "no such file"),
            ("*.yaml", "matches no file"),
            ("***", "wildcards"),
        ] {
            let failure = files(&[at(wrong)]).unwrap_err();
            assert!(
                failure.message.contains(why),
                "{wrong}: {}",
                failure.message
            );
        }
    }
}
