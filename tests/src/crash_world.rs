//! A small world to harm, and its fingerprint: victims of several kinds, bystanders, a file system of its own, and a tree of canary
//! files on another. Made afresh for each trial. The trial is alone in its process, mount and network namespaces, so the fingerprint
//! takes in all of them; what other people have on the machine is not in it.

use crate::canary;
use crate::frozen_disk::FrozenDisk;
use crate::network::Wire;
use crate::processes::{self, Process};
use crate::service_manager::{self, VICTIM};
use crate::wait::wait_within;
use std::cell::Cell;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What there is to harm.
pub struct World {
    /// A process with four threads.
    threaded: Child,
    /// A process of one thread, under a tracer that is not ours.
    traced: Child,
    tracer: Child,
    /// One that nobody means.
    bystander: Child,
    files: tempfile::TempDir,
    /// A tree on the file system of temporary files, which no fault is told about.
    canaries: tempfile::TempDir,
    /// A folder with one file, which a fault may replace and put back: that changes when its names were changed last.
    replaceable: tempfile::TempDir,
    /// Whether a trial freezes the file system that can be frozen.
    freezes: Cell<bool>,
    /// Whether a trial stops the service [`VICTIM`].
    stops: Cell<bool>,
    /// To another network namespace.
    wire: Wire,
}

thread_local! {
    /// One for all trials of a test: it takes longer to make than a trial does.
    static DISK: FrozenDisk = FrozenDisk::new();
}

const THREADS: &str = "
import threading, time, sys
for _ in range(3):
    threading.Thread(target=lambda: time.sleep(1000), daemon=True).start()
print('ready', flush=True)
time.sleep(1000)
";

impl World {
    /// A fresh one. Needs root, `python3` and `strace`, and mount and network namespaces of its own.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let wire = Wire::bare();
        DISK.with(|_| {});
        let files = tempfile::tempdir().expect("a temporary folder can be made");
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                "size=16m",
                "trial",
                &files.path().display().to_string(),
            ],
        );
        canary::plant(files.path());
        let canaries = tempfile::tempdir().expect("a temporary folder can be made");
        canary::plant(canaries.path());
        let replaceable = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(replaceable.path().join("file"), [7; 5000]).expect("a file can be written");
        let mut threaded = start("python3", &["-c", THREADS]);
        wait_for_line(&mut threaded);
        let traced = start("sleep", &["1000"]);
        let tracer = start(
            "strace",
            &[
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-p",
                &traced.id().to_string(),
            ],
        );
        // Attaching stops it for a moment.
        wait_within("it is traced", std::time::Duration::from_secs(10), || {
            tracer_of(traced.id()) == Some(tracer.id()) && asleep(traced.id())
        });
        World {
            threaded,
            traced,
            tracer,
            bystander: start("sleep", &["1001"]),
            files,
            canaries,
            replaceable,
            freezes: Cell::new(false),
            stops: Cell::new(false),
            wire,
        }
    }

    /// A wire to another network namespace.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The process with threads.
    pub fn threaded(&self) -> u32 {
        self.threaded.id()
    }

    /// The process under a tracer.
    pub fn traced(&self) -> u32 {
        self.traced.id()
    }

    /// The folder of its file system.
    pub fn folder(&self) -> &Path {
        self.files.path()
    }

    /// A file that a fault may replace and put back.
    pub fn file(&self) -> PathBuf {
        self.replaceable.path().join("file")
    }

    /// Where a file system is mounted that can be frozen.
    pub fn freezable(&self) -> PathBuf {
        self.freezes.set(true);
        DISK.with(FrozenDisk::path)
    }

    /// A service of the systemd that the trial is under.
    pub fn service(&self) -> &'static str {
        self.stops.set(true);
        VICTIM
    }

    /// A path beside the folder, at which nothing is.
    pub fn marker(&self) -> std::path::PathBuf {
        self.files.path().with_extension("marker")
    }

    /// All of it that a fault could change, a line a thing.
    pub fn fingerprint(&self, with_victims: bool) -> String {
        let mut lines = Vec::new();
        let victims = [self.threaded.id(), self.traced.id()].map(|pid| pid as i32);
        let ours: Vec<i32> = processes::of_backburn()
            .iter()
            .map(|process| process.pid)
            .chain([std::process::id() as i32])
            .collect();
        for process in processes::alive().into_values() {
            let is_left_out = !with_victims && victims.contains(&process.pid);
            // Another run of a service has other processes; that it runs is looked at below.
            let of_service = || {
                let group = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid));
                group.is_ok_and(|group| group.contains(VICTIM))
            };
            if !ours.contains(&process.pid) && !is_left_out && !of_service() {
                lines.push(state(&process));
            }
        }
        for tree in [&self.files, &self.canaries] {
            lines.extend(canary::fingerprint(tree.path()));
        }
        lines.extend(names(self.replaceable.path()));
        lines.push(file(&self.file()));
        if self.freezes.get() && !DISK.with(FrozenDisk::takes_writes) {
            lines.push("frozen".to_owned());
        }
        if self.stops.get() {
            let (state, _) = service_manager::state(VICTIM);
            if state != "active" {
                lines.push(format!("{VICTIM} is {state}"));
            }
            lines.extend(service_manager::units_of_backburn());
        }
        // What a plug-in of a trial makes, see `crash_plugins`.
        lines.push(format!("marker {}", self.marker().exists()));
        let space =
            nix::sys::statvfs::statvfs(self.files.path()).expect("its file system is there");
        lines.push(format!("free {}", space.blocks_available()));
        for path in ["/proc/self/mountinfo", "/proc/self/cgroup"] {
            lines.push(std::fs::read_to_string(path).expect("/proc can be read"));
        }
        lines.extend(names(Path::new("/sys/class/net")));
        lines.push(output("nft", &["list", "ruleset"]));
        lines.push(output("ip", &["link"]));
        lines.extend(self.wire.there(|| {
            ["nft list ruleset", "ip link", "tc qdisc show"].map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                output(words[0], &words[1..])
            })
        }));
        lines.push(output("tc", &["qdisc", "show"]));
        lines.extend(listening());
        lines.join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.freezes.get() {
            DISK.with(FrozenDisk::thaw);
        }
        for child in [
            &mut self.tracer,
            &mut self.threaded,
            &mut self.traced,
            &mut self.bystander,
        ] {
            // One that a fault has killed is dead already.
            child.kill().ok();
            child.wait().ok();
        }
        run(
            "umount",
            &["--lazy", &self.files.path().display().to_string()],
        );
    }
}

/// All that can be told of a file but when its names were changed, with its inode.
fn file(path: &Path) -> String {
    let Ok(metadata) = path.symlink_metadata() else {
        return format!("{} is not there", path.display());
    };
    let content = std::fs::read(path).unwrap_or_default();
    format!(
        "file {} inode {} mode {:o} owner {}:{} links {} modified {}.{} content {content:?}",
        path.display(),
        metadata.ino(),
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.nlink(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

/// The TCP sockets that listen here, as `/proc/net` shows them: their local addresses.
fn listening() -> Vec<String> {
    let mut found = Vec::new();
    for file in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let sockets = text.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            // `TCP_LISTEN` of the kernel's include/net/tcp_states.h.
            (*fields.get(3)? == "0A").then(|| format!("{file} {}", fields[1]))
        });
        found.extend(sockets);
    }
    found.sort();
    found
}

/// A process and all of it that a fault could change: whether it runs or stands still, and for whom; its threads, owner, priority, processors,
/// limits, control groups and clock functions.
fn state(process: &Process) -> String {
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", process.pid));
    let (status, stat) = (
        of("status").unwrap_or_default(),
        of("stat").unwrap_or_default(),
    );
    let field = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key));
        value.unwrap_or_default().trim().replace('\t', " ")
    };
    // `nice` is the 19th field of all, the 17th after the name; see proc_pid_stat(5).
    let nice = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(16));
    format!(
        "process {}@{} {} {} tracer {:?} threads {:?} uid {} gid {} nice {} cpus {} oom {} cgroups {:?} limits {:?} clocks {:?}",
        process.pid,
        process.start,
        process.name,
        stands(process.state),
        tracer_of(process.pid as u32),
        threads(process.pid as u32),
        field("Uid:"),
        field("Gid:"),
        nice.unwrap_or_default(),
        field("Cpus_allowed_list:"),
        of("oom_score_adj").unwrap_or_default().trim(),
        of("cgroup").unwrap_or_default(),
        of("limits").unwrap_or_default(),
        clock_functions(process.pid),
    )
}

/// A number that stands for the bytes of a process's vDSO, by which it reads clocks; none where it has none.
fn clock_functions(pid: i32) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (from, to) = line.split(' ').next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (from, to) = (number(from)?, number(to)?);
    let mut bytes = vec![0; usize::try_from(to - from).ok()?];
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    memory.read_exact_at(&mut bytes, from).ok()?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Some(hasher.finish())
}

fn stands(state: char) -> &'static str {
    if matches!(state, 'T' | 't') {
        "stopped"
    } else {
        "runs"
    }
}

/// Whether it is asleep by itself, in every one of some looks.
fn asleep(pid: u32) -> bool {
    (0..10).all(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        processes::process(pid as i32).is_some_and(|process| process.state == 'S')
    })
}

fn threads(pid: u32) -> Vec<String> {
    let mut threads: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(|task| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
            Some(stands(state).to_owned())
        })
        .collect();
    threads.sort();
    threads
}

fn tracer_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"))?;
    tracer.trim().parse().ok().filter(|tracer| *tracer != 0)
}

fn names(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|file| Some(format!("{}/{:?}", folder.display(), file.ok()?.file_name())))
        .collect();
    found.sort();
    found
}

fn start(program: &str, words: &[&str]) -> Child {
    let child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("`{program}` starts: {error}"));
    // The kernel lets this process go on a moment before the other one has its program in place.
    wait_within(
        "it has its program",
        std::time::Duration::from_secs(10),
        || clock_functions(child.id() as i32).is_some(),
    );
    child
}

fn run(program: &str, words: &[&str]) {
    let status = Command::new(program)
        .args(words)
        .status()
        .unwrap_or_else(|error| panic!("`{program}` starts: {error}"));
    assert!(status.success(), "{program} {words:?}: {status}");
}

fn output(program: &str, words: &[&str]) -> String {
    let output = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("`{program}` starts: {error}"));
    format!("{program}: {}", String::from_utf8_lossy(&output.stdout))
}

fn wait_for_line(child: &mut Child) {
    let mut line = String::new();
    let stdout = child.stdout.take().expect("its standard output is piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("it says that it is ready");
    assert!(!line.is_empty(), "it died before it was ready");
}
