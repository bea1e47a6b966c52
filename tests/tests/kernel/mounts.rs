//! Faults on whole mounts, on file systems of the test's own, in a mount namespace of its own.

use backburn_agent::changes::{Observed, ReadOnlyMount, ReversibleChange as _};
use backburn_agent::host::{Host, HostRole, Invocation};
use backburn_agent::mounts::mounts;
use backburn_tests::crash::Place;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::programs;
use backburn_tests::refusals::Refusals;
use backburn_tests::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// `EROFS` of errno(3).
const READ_ONLY: i32 = 30;

fn run(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let status = Command::new(words[0]).args(&words[1..]).status();
    assert!(status.expect("it starts").success(), "{line}");
}

/// A file system of its own, mounted while this is there.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(options: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().display();
        run(&format!("mount -t tmpfs -o size=8m,{options} trial {path}"));
        Mounted(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The kernel's line of its mount.
    fn line(&self) -> String {
        let list = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc can be read");
        let path = format!(" {} ", self.path().display());
        let line = list.lines().rfind(|line| line.contains(&path));
        line.expect("it is mounted").to_owned()
    }

    fn change(&self) -> ReadOnlyMount {
        let all = mounts().expect("mounts are listed");
        let found = all.into_iter().rfind(|mount| mount.path == self.path());
        let mount = found.expect("it is mounted").identity();
        ReadOnlyMount {
            mark: "trial-0".into(),
            mount: mount.expect("it has an identity"),
        }
    }

    fn write(&self) -> Option<i32> {
        let path = self.path().join("written");
        let written = std::fs::write(path, "x");
        written
            .err()
            .map(|error| error.raw_os_error().expect("a kernel's error"))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(&format!("umount --lazy {}", self.path().display()));
    }
}

fn inject(place: &Place, arguments: &Value) -> Child {
    let arguments = arguments.to_string();
    let words = [
        "inject",
        "mount-read-only",
        "--id",
        "trial",
        "--duration",
        "60s",
        "--arguments",
        &arguments,
    ];
    let mut command = place.agent(&words, None);
    command.spawn().expect("the agent starts")
}

#[test]
fn mount_read_only_of_one_mount_comes_back_with_its_options() {
    in_namespaces(&["mount", "umount"], || {
        let mounted = Mounted::new("nosuid,nodev,noatime");
        let elsewhere = tempfile::tempdir().expect("a temporary folder can be made");
        let (path, other) = (mounted.path().display(), elsewhere.path().display());
        run(&format!("mount --bind {path} {other}"));
        let before = mounted.line();
        assert_eq!(mounted.write(), None);
        for ends_by_stranger in [false, true] {
            let place = Place::default();
            let mut injecting = inject(&place, &json!({"path": mounted.path()}));
            wait_within("it is read-only", SOON, || {
                mounted.write() == Some(READ_ONLY)
            });
            assert_eq!(mounted.line(), before.replacen(" rw,", " ro,", 1));
            std::fs::write(elsewhere.path().join("beside"), "x")
                .expect("the other mount is writable");
            if ends_by_stranger {
                run(&format!(
                    "mount -o remount,bind,rw,nosuid,nodev,noatime {path}"
                ));
            } else {
                kill(Pid::from_raw(injecting.id() as i32), Signal::SIGINT).expect("it is there");
            }
            wait_within("it ends", SOON, || {
                injecting
                    .try_wait()
                    .expect("a child can be waited for")
                    .is_some()
            });
            assert!(place.ledger().is_empty());
            assert_eq!(mounted.line(), before);
            assert_eq!(mounted.write(), None);
        }
        run(&format!("umount {other}"));
    });
}

#[test]
fn mount_read_only_refuses_what_it_could_not_do_or_revert() {
    in_namespaces(&["mount", "umount"], || {
        let mounted = Mounted::new("noatime");
        let before = mounted.line();
        let refusals = Refusals::new(|| mounted.line() == before);
        let refused = |arguments: Value, says: &[&str]| {
            refusals.inject("mount-read-only", &arguments, &[], 2, says);
        };
        let folder = mounted.path().join("folder");
        std::fs::create_dir(&folder).expect("a folder can be made");
        let point = format!("lies on the mount at {}", mounted.path().display());
        refused(
            json!({"path": folder}),
            &["not a mount point", &point, "`mount --bind"],
        );
        refused(json!({"path": "data"}), &["not an absolute path"]);
        refused(json!({"path": "/no/such"}), &["No such file", "`findmnt`"]);
        refused(json!({"path": "/"}), &["/ is protected"]);
        refused(
            json!({"path": "/proc"}),
            &["/proc is protected: `proc` is a file system of the kernel's own"],
        );
        refused(
            json!({"path": mounted.path(), "options": "ro"}),
            &["options"],
        );

        let written = File::create(mounted.path().join("log")).expect("a file can be made");
        let own = std::process::id().to_string();
        refused(
            json!({"path": mounted.path()}),
            &["open for writing", &own, "`process-kill`"],
        );
        drop(written);
        // The ledger lies there.
        let state = mounted.path().join("state").display().to_string();
        let arguments = json!({"path": mounted.path()}).to_string();
        let output = Command::new(programs::backburn_agent())
            .args([
                "plan",
                "mount-read-only",
                "--state",
                &state,
                "--arguments",
                &arguments,
            ])
            .stderr(Stdio::piped())
            .output();
        let said = output.expect("the agent starts").stderr;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("the state folder of the agent"), "{said}");
        run(&format!(
            "mount -o remount,bind,ro,noatime {}",
            mounted.path().display()
        ));
        let read_only = mounted.line();
        let refusals = Refusals::new(|| mounted.line() == read_only);
        refusals.inject(
            "mount-read-only",
            &json!({"path": mounted.path()}),
            &[],
            2,
            &["read-only already"],
        );
    });
}

#[test]
fn mount_that_others_made_read_only_is_left_to_them() {
    in_namespaces(&["mount", "umount"], || {
        let host = Host::new(HostRole::Command, Invocation { prefix: Vec::new() });
        let mounted = Mounted::new("noatime");
        let path = mounted.path().display();
        let change = mounted.change();
        run(&format!("mount -o remount,bind,ro,noatime {path}"));
        assert!(change.apply(&host).is_err());
        change.undo(&host).expect("there is nothing to undo");
        assert_eq!(mounted.write(), Some(READ_ONLY));
        assert_eq!(change.observe(&host).expect("it is seen"), Observed::Absent);
        run(&format!("mount -o remount,bind,rw,noatime {path}"));

        // Under another mount it cannot be reached, and is not called gone.
        let host = Host::new(HostRole::Command, Invocation { prefix: Vec::new() });
        change.apply(&host).expect("it is writable");
        run(&format!("mount -t tmpfs over {path}"));
        let error = change.undo(&host).expect_err("another mount lies over it");
        assert!(
            error.to_string().contains("another mount lies over it"),
            "{error}"
        );
        assert!(matches!(change.observe(&host), Ok(Observed::Present(_))));
        run(&format!("umount {path}"));
        for _ in 0..2 {
            change.undo(&host).expect("it is reached");
            assert_eq!(change.observe(&host).expect("it is seen"), Observed::Absent);
            assert_eq!(mounted.write(), None);
        }
        // One that is unmounted is gone.
        change.apply(&host).expect("it is writable");
        run(&format!("umount {path}"));
        assert_eq!(change.observe(&host).expect("it is seen"), Observed::Absent);
        run(&format!("mount -t tmpfs trial {path}"));
        assert_eq!(change.observe(&host).expect("it is seen"), Observed::Absent);
    });
}
