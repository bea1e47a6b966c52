//! What a fault could have changed, to be compared: files with content, mode, owner, times and extended attributes, and processes.

use crate::plugin_call::sha256;
use crate::processes::ProcessTable;
use rustix::fs::{lgetxattr, llistxattr};
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Most files of a fingerprint. A folder with more is taken in part, which the report says.
const MAX_FILES: usize = 5_000;
/// Longest file whose content is compared, in bytes; of a longer one the length and the times are.
const MAX_CONTENT_BYTES: u64 = 16 << 20;
/// Longest extended attribute, in bytes.
const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;

/// The state of the places that a fault may touch: the fields of each thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint(BTreeMap<String, ThingFields>);

/// What is known of one thing, by the names of its fields.
type ThingFields = BTreeMap<&'static str, String>;

/// A field of a thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// The thing, e.g. a path.
    pub thing: String,
    /// Which field of it, e.g. `modified`.
    pub field: &'static str,
    /// What was there and what is, in words.
    pub text: String,
}

impl Fingerprint {
    /// Takes the fingerprint of these folders and files with all that is in them, and of these processes.
    pub(super) fn take(places: &[PathBuf], processes: &[i32]) -> Self {
        let mut lines = BTreeMap::new();
        for place in places {
            look(place, &mut lines);
        }
        let table = ProcessTable::default();
        for pid in processes {
            let state = match table.stat(*pid) {
                Some(stat) if stat.state == 'T' || stat.state == 't' => "stopped",
                Some(stat) if !stat.is_dead() => "there",
                _ => "gone",
            };
            lines.insert(
                format!("process {pid}"),
                ThingFields::from([("state", state.to_owned())]),
            );
            let vdso = table.identify(*pid).map(|id| table.vdso(id));
            if let Some(Ok(Some((_, bytes)))) = vdso {
                let hash = sha256(&bytes);
                let hash = hash.get(..16).unwrap_or_default().to_owned();
                let hash = ThingFields::from([("content", hash)]);
                lines.insert(format!("clock functions of process {pid}"), hash);
            }
        }
        Fingerprint(lines)
    }

    /// What differs, each field of each thing.
    pub(super) fn differences(&self, now: &Fingerprint) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut add = |thing: &str, field, text| {
            found.push(Difference {
                thing: thing.to_owned(),
                field,
                text,
            });
        };
        for (thing, before) in &self.0 {
            let Some(after) = now.0.get(thing) else {
                add(thing, "presence", format!("{thing} is gone"));
                continue;
            };
            for (field, was) in before {
                match after.get(field) {
                    Some(is) if is == was => {}
                    Some(is) => add(
                        thing,
                        field,
                        format!("{thing}: {field} was `{was}` and is `{is}`"),
                    ),
                    None => add(
                        thing,
                        field,
                        format!("{thing}: {field} was `{was}`, and it is something else now"),
                    ),
                }
            }
        }
        for thing in now.0.keys().filter(|thing| !self.0.contains_key(*thing)) {
            add(thing, "presence", format!("{thing} is new"));
        }
        found
    }
}

fn look(path: &Path, lines: &mut BTreeMap<String, ThingFields>) {
    // A file that went between two looks is one that is not there.
    let Ok(metadata) = path.symlink_metadata() else {
        return;
    };
    if lines.len() >= MAX_FILES {
        return;
    }
    lines.insert(path.display().to_string(), describe(path, &metadata));
    if metadata.is_dir() {
        let mut inside: Vec<PathBuf> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        inside.sort();
        for path in inside {
            look(&path, lines);
        }
    }
}

fn describe(path: &Path, metadata: &Metadata) -> ThingFields {
    let mut fields = ThingFields::from([
        ("mode", format!("{:o}", metadata.mode())),
        ("owner", format!("{}:{}", metadata.uid(), metadata.gid())),
    ]);
    fields.insert("attributes", format!("{:?}", attributes(path)));
    if metadata.is_dir() {
        // Its times tell that a name was made or removed meanwhile, as every undo by renaming does.
        return fields;
    }
    fields.insert("length", metadata.len().to_string());
    let modified = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
    fields.insert("modified", modified);
    if metadata.is_symlink() {
        let to = std::fs::read_link(path).unwrap_or_default();
        fields.insert("link", to.display().to_string());
    } else if metadata.is_file() && metadata.len() <= MAX_CONTENT_BYTES {
        let content = crate::files::read_regular(path, MAX_CONTENT_BYTES);
        let hash = content.map(|content| sha256(&content)).unwrap_or_default();
        fields.insert("content", hash.get(..16).unwrap_or_default().to_owned());
    }
    fields
}

/// The extended attributes of a file, each with its value.
fn attributes(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0; MAX_ATTRIBUTE_BYTES];
    let length = llistxattr(path, &mut names).unwrap_or(0);
    names.truncate(length);
    let mut value = vec![0; MAX_ATTRIBUTE_BYTES];
    let names = names.split(|byte| *byte == 0);
    names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let length = lgetxattr(path, name, &mut value).unwrap_or(0);
            let content = value.get(..length).unwrap_or_default();
            let hash = sha256(content);
            (
                String::from_utf8_lossy(name).into_owned(),
                hash.get(..8).unwrap_or_default().to_owned(),
            )
        })
        .collect()
}
