//! Faults on whole mounts, on file systems of the test's own, in a mount namespace of its own.

use backburn_agent::changes::{Observed, ReadOnlyMount, ReversibleChange as _};
use backburn_agent::helpers::{FrozenMount, HelperSpec};
use backburn_agent::host::{Host, HostRole, Invocation};
use backburn_agent::mounts::mounts;
use backburn_agent::processes::ProcessTable;
use backburn_tests::crash::Place;
use backburn_tests::frozen_disk::FrozenDisk;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::refusals::Refusals;
use backburn_tests::wait::wait_within;
use backburn_tests::{processes, programs};
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

fn inject(place: &Place, fault: &str, path: &Path) -> Child {
    let arguments = json!({"path": path}).to_string();
    let words = [
        "inject",
        fault,
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
            let mut injecting = inject(&place, "mount-read-only", mounted.path());
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
            refusals.inject("mount-read-only", &arguments, &[], 3, says);
        };
        let folder = mounted.path().join("folder");
        std::fs::create_dir(&folder).expect("a folder can be made");
        let point = format!("lies on the mount at {}", mounted.path().display());
        refused(
            json!({"path": folder}),
            &["not a mount point", &point, "`mount --bind"],
        );
        refusals.inject(
            "mount-read-only",
            &json!({"path": "data"}),
            &[],
            2,
            &["not an absolute path"],
        );
        refused(json!({"path": "/no/such"}), &["No such file", "`findmnt`"]);
        refused(json!({"path": "/"}), &["/ is protected"]);
        refused(
            json!({"path": "/proc"}),
            &["/proc is protected: `proc` is a file system of the kernel's own"],
        );
        refusals.inject(
            "mount-read-only",
            &json!({"path": mounted.path(), "options": "ro"}),
            &[],
            2,
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
        drop(refusals);
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
            3,
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

/// The processes of Backburn with this word on their command line.
fn processes_with(word: &str) -> Vec<Pid> {
    let all = processes::of_backburn().into_iter();
    let has_it = |pid: &i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        line.split('\0').any(|part| part == word) && name.trim() != "backburn-look"
    };
    all.map(|process| process.pid)
        .filter(has_it)
        .map(Pid::from_raw)
        .collect()
}

#[test]
fn filesystem_freeze_ends_in_every_way_and_loses_no_write() {
    in_namespaces(
        &["mount", "umount", "mkfs.ext4", "fsfreeze", "rmdir", "cp"],
        || {
            let disk = FrozenDisk::new();
            let path = disk.path();
            std::fs::write(path.join("before"), "x").expect("it takes writes");
            // Its end, its helper killed, its helper stopped, and all of Backburn but the helper killed at once.
            for way in [
                "end",
                "helper killed",
                "helper stopped",
                "agent and guardian killed",
            ] {
                let place = Place::default();
                let mut injecting = inject(&place, "filesystem-freeze", &path);
                wait_within("it is frozen", SOON, || {
                    !processes_with("helper").is_empty() && !disk.takes_writes()
                });
                assert_eq!(
                    std::fs::read(path.join("before")).expect("reads go on"),
                    b"x"
                );
                // Who writes meanwhile waits.
                let written = path.join(way.replace(' ', "-"));
                let mut writer = Command::new("cp");
                let mut writer = writer
                    .arg("/proc/self/comm")
                    .arg(&written)
                    .spawn()
                    .expect("`cp` starts");
                std::thread::sleep(Duration::from_millis(50));
                assert!(writer.try_wait().expect("it is a child").is_none(), "{way}");
                match way {
                    "end" => kill(Pid::from_raw(injecting.id() as i32), Signal::SIGINT)
                        .expect("it is there"),
                    "helper killed" | "helper stopped" => {
                        let signal = if way == "helper killed" {
                            Signal::SIGKILL
                        } else {
                            Signal::SIGSTOP
                        };
                        for helper in processes_with("helper") {
                            kill(helper, signal).expect("it is there");
                        }
                    }
                    _ => {
                        injecting.kill().expect("it is there");
                        for pid in [processes_with("guardian"), processes_with("worker")].concat() {
                            kill(pid, Signal::SIGKILL).ok();
                        }
                    }
                }
                wait_within(way, SOON, || {
                    writer.try_wait().expect("it is a child").is_some()
                });
                assert!(written.exists() && disk.takes_writes(), "{way}");
                wait_within("it ends", SOON, || {
                    injecting
                        .try_wait()
                        .expect("a child can be waited for")
                        .is_some()
                        && processes::of_backburn().is_empty()
                });
                if way == "agent and guardian killed" {
                    place.restart(None);
                }
                assert!(place.ledger().is_empty(), "{way}");
                assert!(!disk.thaw(), "{way}: it is still frozen");
            }
        },
    );
}

#[test]
fn filesystem_freeze_refuses_what_others_froze_and_what_the_host_needs() {
    in_namespaces(
        &["mount", "umount", "mkfs.ext4", "fsfreeze", "rmdir"],
        || {
            let disk = FrozenDisk::new();
            let memory = Mounted::new("noatime");
            let refusals = Refusals::new(|| true);
            let refused = |path: &Path, says: &[&str]| {
                refusals.inject("filesystem-freeze", &json!({"path": path}), &[], 3, says);
            };
            refused(Path::new("/"), &["/ is protected"]);
            refused(memory.path(), &["`tmpfs`", "ext4"]);
            // What lies on it by another mount is found all the same.
            run(&format!("mount --bind {} /var/tmp", disk.path().display()));
            refused(&disk.path(), &["/var/tmp lies on the same file system"]);
            run("umount /var/tmp");
            disk.freeze();
            refused(
                &disk.path(),
                &["takes no writes already", "fsfreeze --unfreeze"],
            );
            assert!(!disk.takes_writes());
            assert!(disk.thaw(), "what others froze is left to them");

            // What the helper leaves is seen and removed, by whoever comes after it.
            let all = mounts().expect("mounts are listed");
            let mount = all.into_iter().rfind(|mount| mount.path == disk.path());
            let mount = mount
                .expect("it is mounted")
                .identity()
                .expect("it has an identity");
            let spec = HelperSpec::from(FrozenMount { mount, device: 0 });
            assert_eq!(
                spec.helper()
                    .residue(&ProcessTable::default())
                    .expect("it is seen"),
                None
            );
            disk.freeze();
            assert!(
                spec.helper()
                    .residue(&ProcessTable::default())
                    .expect("it is seen")
                    .is_some()
            );
            for _ in 0..2 {
                spec.helper().remove_leftovers().expect("it can be thawed");
                assert_eq!(
                    spec.helper()
                        .residue(&ProcessTable::default())
                        .expect("it is seen"),
                    None
                );
            }
        },
    );
}
