//! A file that is replaced keeps its original whole: through each half of the work, twice undone, and with others in between.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use backburn_agent::changes::{
    Change, FilePatch, Observed, OriginalFile, ReplaceFile, ReversibleChange as _,
};
use backburn_agent::host::{CopyEdit, Host, HostRole, Invocation, OpenFolder};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

struct Trial {
    folder: tempfile::TempDir,
    host: Host,
    replace: ReplaceFile,
}

const CONTENT: &[u8] = b"listen 80;\nworkers 4;\n";
const KEPT: &str = ".backburn-trial-0-kept";
const COPY: &str = ".backburn-trial-0-new";

impl Trial {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("site.conf");
        std::fs::write(&path, CONTENT).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4640)).unwrap();
        // Not every file system has attributes of users.
        lsetxattr(&path, "user.note", b"keep", XattrFlags::CREATE).ok();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_000_000_000_123_456_789);
        let times = std::fs::FileTimes::new()
            .set_accessed(long_ago)
            .set_modified(long_ago);
        file.set_times(times).unwrap();
        let original = OriginalFile::of(&rustix::fs::stat(&path).unwrap()).unwrap();
        Trial {
            host: Host::new(HostRole::Command, Invocation { prefix: Vec::new() }),
            replace: ReplaceFile {
                mark: "trial-0".into(),
                path,
                original,
                length: None,
                patches: vec![FilePatch {
                    offset: 7,
                    bytes: b"99".to_vec(),
                }],
            },
            folder,
        }
    }

    fn path(&self) -> &Path {
        &self.replace.path
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path().with_file_name(name)
    }

    /// Everything that is to come back.
    fn whole(&self) -> String {
        let file = self.path().symlink_metadata().unwrap();
        let mut note = [0; 64];
        let length = lgetxattr(self.path(), "user.note", &mut note).unwrap_or(0);
        // Reading it must leave no trace in its access time.
        let folder = OpenFolder::of(self.path()).unwrap();
        let mut content = Vec::new();
        let mut opened = folder.open(Path::new("site.conf")).unwrap();
        opened.read_to_end(&mut content).unwrap();
        let atime = (file.atime(), file.atime_nsec());
        let mtime = (file.mtime(), file.mtime_nsec());
        format!(
            "{} {:o} {}:{} {atime:?} {mtime:?} links {} {:?} {:?} {:?}",
            file.ino(),
            file.mode(),
            file.uid(),
            file.gid(),
            file.nlink(),
            &note[..length],
            content,
            names(self.folder.path())
        )
    }

    fn observed(&self) -> Observed {
        self.replace.observe(&self.host).unwrap()
    }

    fn undo(&self) {
        self.replace.undo(&self.host).unwrap();
    }

    #[track_caller]
    fn assert_contested(&self) {
        let seen = self.observed();
        assert!(matches!(seen, Observed::Contested(_)), "{seen:?}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn replaced_file_undone_twice_is_its_original_in_all() {
    let trial = Trial::new();
    let before = trial.whole();
    trial.replace.apply(&trial.host).unwrap();
    assert_eq!(
        std::fs::read(trial.path()).unwrap(),
        b"listen 99;\nworkers 4;\n"
    );
    let copy = trial.path().metadata().unwrap();
    let original = trial.replace.original;
    assert_ne!(copy.ino(), original.inode);
    assert_eq!(
        (copy.mode() & 0o7777, copy.mtime()),
        (original.mode, original.modified)
    );
    assert!(matches!(trial.observed(), Observed::Present(_)));
    assert!(trial.replace.effect(&trial.host).acts);
    assert!(!trial.replace.is_done(&trial.host));
    for _ in 0..2 {
        trial.undo();
        assert_eq!(trial.observed(), Observed::Absent);
        assert_eq!(trial.whole(), before);
    }
    assert!(!trial.replace.effect(&trial.host).acts);
}

#[test]
fn replaced_file_undone_with_nothing_applied_stays() {
    let trial = Trial::new();
    let before = trial.whole();
    trial.undo();
    assert_eq!(trial.observed(), Observed::Absent);
    assert_eq!(trial.whole(), before);
}

#[test]
fn replaced_file_undone_between_any_two_steps_is_its_original() {
    for steps in 1..=2 {
        let trial = Trial::new();
        let before = trial.whole();
        let folder = OpenFolder::of(trial.path()).unwrap();
        let name = Path::new("site.conf");
        let patches = [(7, b"99".to_vec())];
        let edit = CopyEdit {
            length: None,
            patches: &patches,
        };
        let original = folder.open(name).unwrap();
        (trial.host)
            .copy_beside(&folder, &original, Path::new(COPY), edit)
            .unwrap();
        if steps == 2 {
            (trial.host)
                .link_beside(&folder, name, Path::new(KEPT))
                .unwrap();
        }
        assert!(matches!(trial.observed(), Observed::Present(_)), "{steps}");
        trial.undo();
        assert_eq!(trial.observed(), Observed::Absent, "{steps}");
        assert_eq!(trial.whole(), before, "{steps}");
    }
}

#[test]
fn replaced_file_may_be_shorter_or_longer() {
    for (length, offset) in [(Some(6), 0), (None, 40)] {
        let mut trial = Trial::new();
        let before = trial.whole();
        trial.replace.length = length;
        trial.replace.patches[0].offset = offset;
        trial.replace.apply(&trial.host).unwrap();
        let length = length.unwrap_or(42);
        assert_eq!(trial.path().metadata().unwrap().len(), length);
        assert!(trial.replace.effect(&trial.host).acts);
        trial.undo();
        assert_eq!(trial.whole(), before);
    }
}

#[test]
fn replaced_file_changed_by_others_is_contested_and_not_overwritten() {
    type Other = fn(&Trial);
    let others: [(&str, Other); 3] = [
        ("written to", |trial| {
            std::fs::write(trial.path(), b"theirs").unwrap()
        }),
        ("renamed over", |trial| {
            std::fs::write(trial.beside("new"), b"theirs").unwrap();
            std::fs::rename(trial.beside("new"), trial.path()).unwrap();
        }),
        ("mode", |trial| {
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(trial.path(), mode).unwrap();
        }),
    ];
    for (what, other) in others {
        let trial = Trial::new();
        trial.replace.apply(&trial.host).unwrap();
        other(&trial);
        let theirs = std::fs::read(trial.path()).unwrap();
        trial.undo();
        trial.assert_contested();
        assert!(trial.replace.is_done(&trial.host), "{what}");
        assert_eq!(std::fs::read(trial.path()).unwrap(), theirs, "{what}");
        assert_eq!(
            std::fs::read(trial.beside(KEPT)).unwrap(),
            CONTENT,
            "{what}"
        );
        // Whoever is told what to do can do it.
        std::fs::rename(trial.beside(KEPT), trial.path()).unwrap();
        assert_eq!(trial.observed(), Observed::Absent, "{what}");
    }
}

#[test]
fn replaced_file_removed_by_others_is_contested() {
    let trial = Trial::new();
    trial.replace.apply(&trial.host).unwrap();
    std::fs::remove_file(trial.path()).unwrap();
    trial.undo();
    trial.assert_contested();
    assert!(!trial.path().exists());
}

#[test]
fn replaced_file_whose_original_others_removed_is_not_called_gone() {
    let trial = Trial::new();
    trial.replace.apply(&trial.host).unwrap();
    std::fs::remove_file(trial.beside(KEPT)).unwrap();
    trial.undo();
    let Observed::Present(seen) = trial.observed() else {
        panic!("the original is lost");
    };
    assert!(seen.contains("restore it from a backup"), "{seen}");
}

#[test]
fn replace_of_a_file_changed_after_the_plan_does_nothing() {
    let trial = Trial::new();
    std::fs::write(trial.path(), b"newer").unwrap();
    let failed = trial.replace.apply(&trial.host).unwrap_err();
    assert!(
        failed
            .to_string()
            .contains("changed after this was planned"),
        "{failed}"
    );
    assert_eq!(names(trial.folder.path()), ["site.conf"]);
    assert_eq!(trial.observed(), Observed::Absent);
}

#[test]
fn replace_through_a_link_that_was_put_there_later_does_nothing() {
    let trial = Trial::new();
    let real = trial.beside("real");
    std::fs::rename(trial.path(), &real).unwrap();
    symlink(&real, trial.path()).unwrap();
    trial.replace.apply(&trial.host).unwrap_err();
    assert_eq!(std::fs::read(&real).unwrap(), CONTENT);
}

#[test]
fn doors_for_files_refuse_every_name_that_is_not_of_the_agent() {
    let trial = Trial::new();
    let folder = OpenFolder::of(trial.path()).unwrap();
    for name in ["site.conf", "../.backburn-a", ".backburn-a/../site.conf"] {
        let failed = trial
            .host
            .unlink_beside(&folder, Path::new(name))
            .unwrap_err();
        assert!(failed.to_string().contains("not a name"), "{failed}");
    }
    assert_eq!(std::fs::read(trial.path()).unwrap(), CONTENT);
}

#[test]
fn replace_in_the_ledger_is_read_back() {
    let change = Change::Replace(Trial::new().replace);
    let written = serde_json::to_value(&change).unwrap();
    assert_eq!(written["change"], "replace");
    assert_eq!(serde_json::from_value::<Change>(written).unwrap(), change);
}
