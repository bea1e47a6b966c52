//! `backburn apply` and `backburn experiments`: what the controller keeps.

use super::super::source::Controls;
use super::super::{Failure, INVALID, print, print_json, say};
use super::{Remote, columns, text};
use backburn_experiments::json;
use clap::{Args, Subcommand};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};
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
    controls: Controls,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExperimentsCommand {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum What {
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
fn files(paths: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let unread = |path: &Path, error: std::io::Error| {
        Failure::invalid(format!("{}: {error}", path.display()))
    };
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut take = |path: PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str());
        let Some(name) = name else {
            let what = format!("{}: its name is not text", path.display());
            return Err(Failure::invalid(what));
        };
        match found.insert(name.to_owned(), path.clone()) {
            Some(other) => Err(Failure::invalid(format!(
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

pub(in crate::cli) fn apply(command: &ApplyCommand) -> Result<u8, Failure> {
    let client = command.remote.client()?;
    let files = files(&command.files)?;
    if files.is_empty() {
        return Err(Failure::invalid(
            "there are no experiments there\nhint: files that end in `.json` are looked for in a folder",
        ));
    }
    let mut code = 0;
    for (name, path) in &files {
        let read = || -> Result<String, Failure> {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::invalid(error.to_string()))?;
            let mut document = json::read(&text)
                .map_err(|problems| Failure::invalid(json::in_one_line(&problems)))?;
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
                say(&format!("error: {}: {}\n", path.display(), failure.what));
                code = if code == 0 {
                    failure.code.max(INVALID)
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
    let (before, after) = (pretty(before), pretty(after));
    let diff = TextDiff::from_lines(&before, &after);
    let mut out = String::new();
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        for change in hunk.iter_changes() {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            out.push_str(&format!("  {sign} {}\n", change.value().trim_end()));
        }
    }
    out
}

fn pretty(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        value => format!("{value:#}\n"),
    }
}

pub(in crate::cli) fn main(command: &ExperimentsCommand) -> Result<u8, Failure> {
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
        Some(What::Show { name, version }) => {
            let version = version.map(|version| format!("?version={version}"));
            let path = format!("/api/v1/experiments/{name}{}", version.unwrap_or_default());
            let (_, kept) = client.call("GET", &path, None)?;
            print_json(&kept["document"]);
        }
        Some(What::Versions { name }) => {
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
        Some(What::Remove { name }) => {
            client.call("DELETE", &format!("/api/v1/experiments/{name}"), None)?;
            say(&format!("{name} is removed; its history stays\n"));
        }
    }
    Ok(0)
}
