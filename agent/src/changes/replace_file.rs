//! A file replaced by an edited copy, with its original kept whole beside it: the same inode, content, mode, owner, times and extended
//! attributes come back when it is undone, also after a reboot. Whoever has the original open goes on reading and writing it.
//!
//! ```text
//! write   .backburn-MARK-new   the edited copy, with all that the original has but its content
//! link    .backburn-MARK-kept  a second name of the original
//! rename  .backburn-MARK-new → FILE
//! undo:   .backburn-MARK-kept → FILE
//! ```
//!
//! At every moment the file has its name, and the original has one. `-kept` is never anything but the original, and `-new` never
//! anything but the copy, so that no inode number has to be trusted over a reboot.

use super::{Observed, ReversibleChange};
use crate::host::{CopyEdit, Host, HostError, MADE_FILE_PREFIX, OpenFolder};
use backburn_experiments::wire::{ChangeView, Effect};
use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A file that is replaced by an edited copy of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReplaceFile {
    /// The name of what is made for it, from the injection's id.
    pub mark: String,
    /// The file: an absolute path without links.
    pub path: PathBuf,
    /// What the file was when this was planned.
    pub original: OriginalFile,
    /// Length of the copy in bytes; none for the original's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// What the copy has instead of the original's bytes. Together with `length`, it must make the copy differ from the original.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<FilePatch>,
}

/// Bytes that stand in the copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePatch {
    /// From the beginning of the file, in bytes.
    pub offset: u64,
    /// The bytes, in base64.
    #[serde(with = "base64_text")]
    pub bytes: Vec<u8>,
}

/// What a regular file is, as far as `stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OriginalFile {
    /// Number of the file system's device, valid in this boot.
    pub device: u64,
    /// The number of its inode on that device.
    pub inode: u64,
    /// The length of its content in bytes.
    pub length: u64,
    /// Permissions, with the bits for set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// The number of the user who owns it.
    pub user: u32,
    /// The number of the group that owns it.
    pub group: u32,
    /// When the content was last changed, in seconds since 1970.
    pub modified: i64,
    /// The nanoseconds of that second.
    pub modified_nanoseconds: u64,
}

impl OriginalFile {
    /// What `stat` tells of a regular file; none for anything else.
    pub fn of(stat: &Stat) -> Option<Self> {
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| OriginalFile {
            device: stat.st_dev,
            inode: stat.st_ino,
            length: u64::try_from(stat.st_size).unwrap_or_default(),
            mode: stat.st_mode & 0o7777,
            user: stat.st_uid,
            group: stat.st_gid,
            modified: stat.st_mtime,
            modified_nanoseconds: stat.st_mtime_nsec,
        })
    }

    /// Whether a copy that nobody has changed since it was made could look like this, apart from its length.
    fn resembles(&self, other: &OriginalFile) -> bool {
        let traits = |file: &OriginalFile| {
            (
                file.mode,
                file.user,
                file.group,
                file.modified,
                file.modified_nanoseconds,
            )
        };
        traits(self) == traits(other)
    }
}

/// What is at the three names.
struct ReplacedPlace {
    folder: OpenFolder,
    /// What is at the path of the file itself.
    at_path: Option<Stat>,
    kept: Option<Stat>,
    copy: Option<Stat>,
    /// Whether the file is the copy, and nobody has changed it.
    is_copy: bool,
}

impl ReplacedPlace {
    /// Whether the original has both its own name and the second one.
    fn is_original_in_place(&self) -> bool {
        match (&self.at_path, &self.kept) {
            (Some(file), Some(kept)) => (file.st_dev, file.st_ino) == (kept.st_dev, kept.st_ino),
            _ => false,
        }
    }
}

impl ReplaceFile {
    fn name(&self) -> &Path {
        self.path.file_name().map(Path::new).unwrap_or(&self.path)
    }

    fn kept_name(&self) -> PathBuf {
        format!("{MADE_FILE_PREFIX}{}-kept", self.mark).into()
    }

    fn copy_name(&self) -> PathBuf {
        format!("{MADE_FILE_PREFIX}{}-new", self.mark).into()
    }

    /// Where the original is while it is replaced.
    fn kept_path(&self) -> PathBuf {
        self.path.with_file_name(self.kept_name())
    }

    fn copy_length(&self) -> u64 {
        let ends = self
            .patches
            .iter()
            .map(|patch| patch.offset.saturating_add(patch.bytes.len() as u64));
        let length = self.length.unwrap_or(self.original.length);
        ends.chain([length]).max().unwrap_or(length)
    }

    /// What is there; none where the folder is gone, and all that was in it.
    fn find(&self) -> io::Result<Option<ReplacedPlace>> {
        let folder = match OpenFolder::of(&self.path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let at_path = folder.stat(self.name())?;
        Ok(Some(ReplacedPlace {
            kept: folder.stat(&self.kept_name())?,
            copy: folder.stat(&self.copy_name())?,
            is_copy: match &at_path {
                Some(file) => self.is_copy(&folder, file)?,
                None => false,
            },
            at_path,
            folder,
        }))
    }

    /// Whether the file at the path is the copy as it was made.
    fn is_copy(&self, folder: &OpenFolder, file: &Stat) -> io::Result<bool> {
        let looks_so = OriginalFile::of(file).is_some_and(|file| {
            file.length == self.copy_length() && file.resembles(&self.original)
        });
        if !looks_so {
            return Ok(false);
        }
        let file = folder.open(self.name())?;
        for patch in &self.patches {
            let mut bytes = vec![0; patch.bytes.len()];
            match file.read_exact_at(&mut bytes, patch.offset) {
                Ok(()) if bytes == patch.bytes => {}
                Ok(()) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn contested(&self) -> String {
        format!(
            "{} was changed or removed by others while it was replaced, so it is left alone; its original is {}: move one over the other, or remove the one that is not wanted, then run `revert --all`",
            self.path.display(),
            self.kept_path().display()
        )
    }

    fn failed(&self, source: io::Error) -> HostError {
        HostError {
            what: format!("replace {}", self.path.display()),
            source,
        }
    }
}

impl ReversibleChange for ReplaceFile {
    fn view(&self) -> ChangeView {
        let path = self.path.display();
        ChangeView {
            kind: "replace".into(),
            apply: format!(
                "put an edited copy in the place of {path}; the original is kept as {}",
                self.kept_path().display()
            ),
            undo: format!("rename the original to {path}, with its inode, owner, mode, times and attributes"),
            if_agent_dies: "the guardian renames it back; without it, the next start or `revert --all` does, also after a reboot"
                .into(),
        }
    }

    fn holds(&self) -> Vec<String> {
        vec![format!("file:{}", self.path.display())]
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        let folder = OpenFolder::of(&self.path).map_err(|error| self.failed(error))?;
        let original = (folder.open(self.name())).map_err(|error| self.failed(error))?;
        let is = rustix::fs::fstat(&original).map_err(|error| self.failed(error.into()))?;
        if OriginalFile::of(&is) != Some(self.original) {
            let why = io::Error::other("it was changed after this was planned; inject again");
            return Err(self.failed(why));
        }
        let patches: Vec<(u64, Vec<u8>)> = (self.patches.iter())
            .map(|patch| (patch.offset, patch.bytes.clone()))
            .collect();
        let edit = CopyEdit {
            length: self.length,
            patches: &patches,
        };
        host.copy_beside(&folder, &original, &self.copy_name(), edit)?;
        host.link_beside(&folder, self.name(), &self.kept_name())?;
        let kept = (folder.stat(&self.kept_name())).map_err(|error| self.failed(error))?;
        let kept = kept.as_ref().and_then(OriginalFile::of);
        // An overlay may number the file anew when it gets a second name, so the numbers are not compared.
        if !kept.is_some_and(|kept| {
            kept.length == self.original.length && kept.resembles(&self.original)
        }) {
            let why = io::Error::other("it was changed while it was being replaced; inject again");
            return Err(self.failed(why));
        }
        host.rename_beside(&folder, &self.copy_name(), self.name())
    }

    fn observe(&self, _: &Host) -> io::Result<Observed> {
        let Some(found) = self.find()? else {
            return Ok(Observed::Absent);
        };
        let path = self.path.display();
        Ok(match (&found.kept, &found.copy) {
            (Some(_), _) if found.is_original_in_place() => Observed::Present(format!(
                "{path} is its original, which has a second name, {}",
                self.kept_path().display()
            )),
            (Some(_), _) if found.is_copy => Observed::Present(format!("{path} is replaced")),
            (Some(_), _) => Observed::Contested(self.contested()),
            (None, Some(_)) => Observed::Present(format!(
                "the copy for {path} is there, as {}",
                self.path.with_file_name(self.copy_name()).display()
            )),
            // Nobody but a stranger removes the name that keeps the original.
            (None, None) if found.is_copy => Observed::Present(format!(
                "{path} is the copy, and its original was removed by others: restore it from a backup"
            )),
            (None, None) => Observed::Absent,
        })
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        let Some(found) = self.find().map_err(|error| self.failed(error))? else {
            return Ok(());
        };
        if found.copy.is_some() {
            host.unlink_beside(&found.folder, &self.copy_name())?;
        }
        match found.kept {
            Some(_) if found.is_original_in_place() => {
                host.unlink_beside(&found.folder, &self.kept_name())
            }
            Some(_) if found.is_copy => {
                host.rename_beside(&found.folder, &self.kept_name(), self.name())
            }
            // What others have put there is told, and not overwritten.
            Some(_) | None => Ok(()),
        }
    }

    fn effect(&self, _: &Host) -> Effect {
        let found = self.find();
        let acts = matches!(&found, Ok(Some(found)) if found.is_copy && found.kept.is_some());
        let path = self.path.display();
        Effect {
            acts,
            seen: match &found {
                Ok(_) if acts => format!("{path} is replaced"),
                Ok(_) => format!("{path} is not what it was replaced by"),
                Err(error) => format!("{path} cannot be observed: {error}"),
            },
            figures: [("replaced-files".to_owned(), f64::from(u8::from(acts)))].into(),
            unmet: None,
        }
    }

    fn is_done(&self, _: &Host) -> bool {
        // What others have changed does not do what was asked for any more.
        self.find()
            .is_ok_and(|found| !found.is_some_and(|found| found.is_copy))
    }
}

/// Bytes as base64 in JSON.
mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(de::Error::custom)
    }
}
