//! `backburn apply` and `backburn experiments`: what the controller keeps.

use super::super::experiment_source::ControlsOption;
use super::super::{CommandError, EXIT_INVALID, print, print_json, print_stderr};
use super::{ControllerOptions, columns, text};
use backburn_experiments::json;
use clap::{Args, Subcommand};
use imara_diff::{Algorithm, Diff, InternedInput};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(in crate::cli) struct ApplyCommand {
    /// Experiments, or folders of them; each is kept under its file's name without `.json`
    #[arg(required = true, value_name = "FILE|FOLDER")]
    files: Vec<PathBuf>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    controls: ControlsOption,
    #[command(flatten)]
    remote: ControllerOptions,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExperimentsCommand {
    #[command(subcommand)]
    what: Option<ExperimentsAction>,
    #[command(flatten)]
    remote: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum ExperimentsAction {
    /// Print an experiment's document
    Show {
        /// Its name
        name: String,
        /// A version [default: the latest]
        #[arg(long)]
        version: Option<u64>,
    },
    /// List an experiment's versions
    Versions {
        /// Its name
        name: String,
    },
    /// Remove an experiment; its history stays
    Remove {
        /// Its name
        name: String,
    },
}

/// The experiments that these paths mean, by name.
fn files(paths: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>, CommandError> {
    let unread = |path: &Path, error: std::io::Error| {
        CommandError::invalid(format!("{}: {error}", path.display()))
    };
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut take = |path: PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str());
        let Some(name) = name else {
            let what = format!("{}: its name is not text", path.display());
            return Err(CommandError::invalid(what));
        };
        match found.insert(name.to_owned(), path.clone()) {
            Some(other) => Err(CommandError::invalid(format!(
                "{} and {} would both be `{name}`",
                other.display(),
                path.display()
            ))),
            None => Ok(()),
        }
    };
    for path in paths {
        if !path.is_dir() {
            take(path.clone())?;
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| unread(path, error))?;
        for entry in entries {
            let file = entry.map_err(|error| unread(path, error))?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                take(file)?;
            }
        }
    }
    Ok(found)
}

pub(in crate::cli) fn apply(command: &ApplyCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    let files = files(&command.files)?;
    if files.is_empty() {
        return Err(CommandError::invalid(
            "there are no experiments there\nhint: files that end in `.json` are looked for in a folder",
        ));
    }
    let mut code = 0;
    for (name, path) in &files {
        let read = || -> Result<String, CommandError> {
            let text = std::fs::read_to_string(path)
                .map_err(|error| CommandError::invalid(error.to_string()))?;
            let mut document = json::read(&text)
                .map_err(|problems| CommandError::invalid(json::in_one_line(&problems)))?;
            command.controls.leave_out(path, &mut document);
            let at = format!("/api/v1/experiments/{name}");
            if command.dry_run {
                let before = client.call("GET", &at, None).map(|(_, kept)| kept);
                let before = before.map_or(Value::Null, |kept| kept["document"].clone());
                return Ok(match before == document {
                    true => format!("{name}: as it is\n"),
                    false => format!("{name}: would change\n{}", diff(&before, &document)),
                });
            }
            let (_, applied) = client.call("PUT", &at, Some(&document))?;
            let version = &applied["version"];
            Ok(match (applied["changed"] == true, &applied["before"]) {
                (false, _) => format!("{name}: version {version}, as it was\n"),
                (true, Value::Null) => format!("{name}: version {version}, new\n"),
                (true, before) => format!("{name}: version {version}\n{}", diff(before, &document)),
            })
        };
        match read() {
            Ok(said) => print(&said),
            // One that is wrong keeps none of the others out.
            Err(failure) => {
                print_stderr(&format!("error: {}: {}\n", path.display(), failure.what));
                code = if code == 0 {
                    failure.code.max(EXIT_INVALID)
                } else {
                    code
                };
            }
        }
    }
    Ok(code)
}

/// What changed, line by line, with three lines around.
fn diff(before: &Value, after: &Value) -> String {
    const CONTEXT_LINES: u32 = 3;
    let (before, after) = (pretty(before), pretty(after));
    let input = InternedInput::new(before.as_str(), after.as_str());
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    let mut out = String::new();
    let mut show = |sign, lines: &[imara_diff::Token]| {
        for line in lines {
            out.push_str(&format!("  {sign} {}\n", input.interner[*line].trim_end()));
        }
    };
    let lines = |range: std::ops::Range<u32>| range.start as usize..range.end as usize;
    let total = u32::try_from(input.before.len()).unwrap_or(u32::MAX);
    let mut hunks = diff.hunks().peekable();
    let mut shown = 0;
    while let Some(hunk) = hunks.next() {
        let (start, end) = (hunk.before.start, hunk.before.end);
        let next = hunks.peek().map_or(total, |next| next.before.start);
        let lead = start.saturating_sub(CONTEXT_LINES).max(shown);
        shown = end.saturating_add(CONTEXT_LINES).min(next);
        show(' ', &input.before[lines(lead..start)]);
        show('-', &input.before[lines(hunk.before)]);
        show('+', &input.after[lines(hunk.after)]);
        show(' ', &input.before[lines(end..shown)]);
    }
    out
}

fn pretty(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        value => format!("{value:#}\n"),
    }
}

pub(in crate::cli) fn main(command: &ExperimentsCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    match &command.what {
        None => {
            let (mut rows, mut after) = (Vec::new(), String::new());
            loop {
                let path = format!("/api/v1/experiments?limit=1000{after}");
                let (_, page) = client.call("GET", &path, None)?;
                let page = page.as_array().cloned().unwrap_or_default();
                let Some(last) = page.last() else { break };
                after = format!("&after={}", text(last, "name"));
                rows.extend(page.iter().map(|kept| {
                    let document = &kept["document"];
                    let scheduled = document.get("schedule").map(|_| "scheduled");
                    vec![
                        text(kept, "name").to_owned(),
                        format!("version {}", kept["version"]),
                        scheduled.unwrap_or_default().to_owned(),
                        text(document, "title").to_owned(),
                    ]
                }));
            }
            print(&columns(&rows));
        }
        Some(ExperimentsAction::Show { name, version }) => {
            let version = version.map(|version| format!("?version={version}"));
            let path = format!("/api/v1/experiments/{name}{}", version.unwrap_or_default());
            let (_, kept) = client.call("GET", &path, None)?;
            print_json(&kept["document"]);
        }
        Some(ExperimentsAction::Versions { name }) => {
            let path = format!("/api/v1/experiments/{name}/versions");
            let (_, versions) = client.call("GET", &path, None)?;
            let rows: Vec<Vec<String>> = versions
                .as_array()
                .into_iter()
                .flatten()
                .map(|version| {
                    let removed = match version["removed"] == true {
                        true => "removed",
                        false => "",
                    };
                    vec![
                        version["version"].to_string(),
                        text(version, "at").to_owned(),
                        text(version, "who").to_owned(),
                        removed.to_owned(),
                    ]
                })
                .collect();
            print(&columns(&rows));
        }
        Some(ExperimentsAction::Remove { name }) => {
            client.call("DELETE", &format!("/api/v1/experiments/{name}"), None)?;
            print_stderr(&format!("{name} is removed; its history stays\n"));
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::diff;
    use serde_json::json;

    #[test]
    fn diff_changed_lines_have_three_lines_around_each() {
        let before = json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let after = json!([1, 20, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        let wanted = "    [\n      1,\n  -   2,\n  +   20,\n      3,\n      4,\n      5,\n      9,\n      10,\n      11,\n  -   12\n  +   12,\n  +   13\n    ]\n";
        assert_eq!(diff(&before, &after), wanted);
        assert_eq!(diff(&before, &before), "");
        assert_eq!(diff(&json!(null), &json!([1])), "  + [\n  +   1\n  + ]\n");
        assert_eq!(
            diff(&json!([1, 2, 3]), &json!([7, 2, 9])),
            "    [\n  -   1,\n  +   7,\n      2,\n  -   3\n  +   9\n    ]\n"
        );
    }
}
