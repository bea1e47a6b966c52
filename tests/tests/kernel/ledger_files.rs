//! Whoever can write to the ledger can have things undone by the rights of whoever reads it: so nothing is read that somebody else may
//! have written, nothing is followed, and nothing keeps anybody waiting. And what we write ourselves can be read again.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::paused_victim::{run, said};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NOBODY: Option<u32> = Some(65534);

/// An entry of an agent that died with another boot, by which a file is removed.
fn entry(file: &Path) -> Value {
    json!({
        "version": 1, "injection": "planted", "run": "r", "fault": "disk-fill", "victims": [],
        "changes": [{"change": "helper", "mark": "planted-0", "deadline": "5s", "role": {
            "role": "disk", "directory": file.parent(), "bytes": 1, "reserve-bytes": 1, "name": file.file_name().and_then(|name| name.to_str()),
        }}],
        "owner": {"boot": "another", "worker": "999999@1", "guardian": "999998@1"},
    })
}

/// A ledger, and a file of root's that a planted entry is about.
struct Trap {
    place: Place,
    folder: tempfile::TempDir,
}

impl Trap {
    fn new() -> Self {
        let trap = Trap {
            place: Place::default(),
            folder: tempfile::tempdir().expect("a folder can be made"),
        };
        std::fs::create_dir_all(trap.ledger()).expect("a folder can be made");
        std::fs::set_permissions(trap.ledger(), std::fs::Permissions::from_mode(0o700))
            .expect("it is ours");
        std::fs::write(trap.file(), "precious").expect("it can be written");
        trap
    }

    fn ledger(&self) -> PathBuf {
        self.place.state().join("ledger")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(".backburn-planted-0")
    }

    fn path(&self) -> PathBuf {
        self.ledger().join("planted.json")
    }

    fn plant(&self) {
        std::fs::write(self.path(), entry(&self.file()).to_string()).expect("it can be written");
    }

    /// Neither an agent that starts nor a hand believes what is there; both say why.
    fn is_not_believed(&self, how: &str, why: &str) {
        for words in [
            &["revert", "--all"][..],
            &[
                "inject",
                "memory-fill",
                "--duration",
                "2s",
                "--size",
                "16MiB",
            ],
        ] {
            let started = Instant::now();
            let output = run(&self.place, &["timeout", "60"], words);
            let said = said(&output);
            assert!(
                matches!(output.status.code(), Some(3 | 6)),
                "{how} {words:?}: {:?} {said}",
                output.status
            );
            assert!(said.contains(why), "{how} {words:?}: {said}");
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{how} {words:?}: it waited"
            );
            let text = std::fs::read_to_string(self.file());
            assert_eq!(
                text.ok().as_deref(),
                Some("precious"),
                "{how} {words:?}: {said}"
            );
        }
    }
}

#[test]
fn entry_writable_by_others_is_not_believed() {
    in_namespaces(&["unshare", "timeout", "mkfifo"], || {
        let mode = |path: &Path, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).expect("it is ours");
        };
        let trap = Trap::new();
        trap.plant();
        chown(trap.path(), NOBODY, NOBODY).expect("root may");
        trap.is_not_believed("another's entry", "belongs to user 65534");

        let trap = Trap::new();
        trap.plant();
        mode(&trap.path(), 0o666);
        trap.is_not_believed("an entry that all may write to", "others can write to it");

        let trap = Trap::new();
        trap.plant();
        chown(trap.ledger(), NOBODY, NOBODY).expect("root may");
        trap.is_not_believed("another's ledger", "belongs to user 65534");

        let trap = Trap::new();
        trap.plant();
        mode(&trap.ledger(), 0o777);
        trap.is_not_believed("a ledger that all may write to", "others can write to it");

        let trap = Trap::new();
        trap.plant();
        chown(trap.place.state(), NOBODY, NOBODY).expect("root may");
        trap.is_not_believed("another's state folder", "belongs to user 65534");

        let trap = Trap::new();
        let elsewhere = trap.folder.path().join("planted.json");
        std::fs::write(&elsewhere, entry(&trap.file()).to_string()).expect("it can be written");
        symlink(&elsewhere, trap.path()).expect("a link can be made");
        trap.is_not_believed("a link", "it is a symbolic link");

        let trap = Trap::new();
        symlink("/nowhere", trap.path()).expect("a link can be made");
        trap.is_not_believed("a dangling link", "it is a symbolic link");

        let trap = Trap::new();
        let made = std::process::Command::new("mkfifo")
            .arg(trap.path())
            .status();
        assert!(made.expect("`mkfifo` starts").success());
        trap.is_not_believed("a FIFO", "not a regular file");

        let trap = Trap::new();
        symlink("/dev/zero", trap.path()).expect("a link can be made");
        trap.is_not_believed("a link to a device", "it is a symbolic link");

        let trap = Trap::new();
        let huge = std::fs::File::create(trap.path()).expect("it can be made");
        huge.set_len(1 << 40).expect("it takes no room");
        mode(&trap.path(), 0o600);
        trap.is_not_believed("a huge entry", "bytes");

        let trap = Trap::new();
        std::fs::remove_dir_all(trap.ledger()).expect("it is there");
        let elsewhere = trap.folder.path().join("ledger");
        std::fs::create_dir(&elsewhere).expect("a folder can be made");
        symlink(&elsewhere, trap.ledger()).expect("a link can be made");
        trap.is_not_believed("a link in the ledger's place", "not a folder");
    });
}

#[test]
fn entry_naming_a_foreign_file_removes_nothing() {
    in_namespaces(&["unshare"], || {
        // In a ledger that is ours: whoever may write to that may do worse, but a mistake must not.
        let place = Place::default();
        let ledger = place.state().join("ledger");
        std::fs::create_dir_all(&ledger).expect("a folder can be made");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let kept = |name: &str, path: &Path, why: &str| {
            let mut value = entry(&folder.path().join("x"));
            value["changes"][0]["role"]["name"] = json!(name);
            std::fs::write(ledger.join("planted.json"), value.to_string())
                .expect("it can be written");
            let output = run(&place, &["env"], &["revert", "--all"]);
            assert_eq!(output.status.code(), Some(6), "{name}: {}", said(&output));
            assert!(said(&output).contains(why), "{name}: {}", said(&output));
            assert!(path.symlink_metadata().is_ok(), "{name} was removed");
        };
        let path = folder.path().join("precious");
        std::fs::write(&path, "").expect("it can be written");
        kept("precious", &path, "no name that a helper gives");
        let other = folder.path().join("other");
        std::fs::create_dir(&other).expect("a folder can be made");
        std::fs::write(other.join(".backburn-x-0"), "").expect("it can be written");
        kept(
            "other/.backburn-x-0",
            &other.join(".backburn-x-0"),
            "no name that a helper gives",
        );
        let path = folder.path().join(".backburn-planted-1");
        std::fs::write(&path, "").expect("it can be written");
        chown(&path, NOBODY, NOBODY).expect("root may");
        kept(".backburn-planted-1", &path, "is not a file that a helper");
        // The one that a helper may have left goes.
        chown(&path, Some(0), Some(0)).expect("root may");
        let output = run(&place, &["env"], &["revert", "--all"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(!path.exists());
    });
}

#[test]
fn staged_entry_does_not_follow_links_and_stale_ones_are_cleared() {
    in_namespaces(&["unshare", "touch"], || {
        let trap = Trap::new();
        let (staged, stale, fresh) = (
            trap.ledger().join("one.new"),
            trap.ledger().join("old.new"),
            trap.ledger().join("fresh.new"),
        );
        symlink(trap.file(), &staged).expect("a link can be made");
        std::fs::write(&fresh, "").expect("it can be written");
        std::fs::write(&stale, "").expect("it can be written");
        let aged = std::process::Command::new("touch")
            .args(["-d", "2 hours ago"])
            .arg(&stale)
            .status();
        assert!(aged.expect("`touch` starts").success());
        let words = [
            "inject",
            "memory-fill",
            "--id",
            "one",
            "--duration",
            "2s",
            "--size",
            "16MiB",
        ];
        let output = run(&trap.place, &["env"], &words);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(
            std::fs::read_to_string(trap.file()).ok().as_deref(),
            Some("precious")
        );
        assert!(
            staged.symlink_metadata().is_err(),
            "it was renamed, and removed at the end"
        );
        assert!(!stale.exists(), "nobody commits it any more");
        assert!(fresh.exists(), "somebody may commit it yet");
    });
}

#[test]
fn lock_that_is_no_regular_file_keeps_nobody_waiting() {
    in_namespaces(&["unshare", "timeout", "mkfifo"], || {
        let words = [
            "inject",
            "memory-fill",
            "--duration",
            "2s",
            "--size",
            "16MiB",
        ];
        let trap = Trap::new();
        let lock = trap.ledger().join("lock");
        let refused = |how: &str| {
            let started = Instant::now();
            let output = run(&trap.place, &["timeout", "60"], &words);
            assert_eq!(output.status.code(), Some(3), "{how}: {}", said(&output));
            assert!(said(&output).contains("lock"), "{how}: {}", said(&output));
            assert!(
                started.elapsed() < Duration::from_secs(15),
                "{how}: it waited"
            );
            std::fs::remove_file(&lock).expect("it is there");
        };
        let made = std::process::Command::new("mkfifo").arg(&lock).status();
        assert!(made.expect("`mkfifo` starts").success());
        refused("a FIFO");
        symlink(trap.file(), &lock).expect("a link can be made");
        refused("a link");
        let output = run(&trap.place, &["env"], &words);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    });
}

#[test]
fn duration_beyond_the_limit_is_refused_and_nothing_is_owed() {
    in_namespaces(&["unshare"], || {
        for duration in ["876000h", "8760h1s", "3153600000", "99999999999999h"] {
            let place = Place::default();
            let words = [
                "inject",
                "memory-fill",
                "--size",
                "16MiB",
                "--duration",
                duration,
            ];
            let output = run(&place, &["env"], &words);
            assert_eq!(
                output.status.code(),
                Some(2),
                "{duration}: {}",
                said(&output)
            );
            assert!(place.ledger().is_empty(), "{duration}");
        }
    });
}

#[test]
fn entry_of_a_century_long_fault_is_reverted() {
    in_namespaces(&["unshare"], || {
        let place = Place::default();
        let ledger = place.state().join("ledger");
        std::fs::create_dir_all(&ledger).expect("a folder can be made");
        let fixtures = backburn_tests::programs::root().join("agent/tests/ledger_entries");
        for name in [
            "old-century.json",
            "cpu.json",
            "kill.json",
            "pause-hold.json",
            "pause-stop.json",
            "old-stuck.json",
        ] {
            let text = std::fs::read_to_string(fixtures.join(name)).expect("it is there");
            std::fs::write(ledger.join(name), text).expect("it can be written");
        }
        let output = run(&place, &["env"], &["revert", "--all"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(place.ledger().is_empty());
    });
}

#[test]
fn entry_of_a_later_version_is_reported_and_untouched() {
    in_namespaces(&["unshare"], || {
        let trap = Trap::new();
        let mut later = entry(&trap.file());
        later["version"] = json!(2);
        std::fs::write(trap.path(), later.to_string()).expect("it can be written");
        trap.is_not_believed("a later version", "the program that wrote it");
        assert_eq!(trap.place.ledger(), ["planted.json"]);
    });
}

#[test]
fn membership_writable_by_others_is_not_obeyed() {
    in_namespaces(&["unshare", "timeout", "mkfifo"], || {
        let trap = Trap::new();
        let path = trap.place.state().join("controller.json");
        let refused = |how: &str, why: &str| {
            let output = run(&trap.place, &["timeout", "60"], &["connect"]);
            assert_eq!(output.status.code(), Some(2), "{how}: {}", said(&output));
            assert!(said(&output).contains(why), "{how}: {}", said(&output));
            std::fs::remove_file(&path).expect("it is there");
        };
        std::fs::write(&path, "{}").expect("it can be written");
        refused("ours", "missing field");
        std::fs::write(&path, "{}").expect("it can be written");
        chown(&path, NOBODY, NOBODY).expect("root may");
        refused("another's", "belongs to user 65534");
        symlink("/dev/zero", &path).expect("a link can be made");
        refused("a link", "it is a symbolic link");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("`mkfifo` starts").success());
        refused("a FIFO", "not a regular file");
    });
}
