//! A small virtual machine with a kernel that has what this one lacks: Debian's, unpacked and not installed, emulated by qemu
//! without hardware help. The test's program starts itself again in it, for the one test, with the programs under test and those
//! that it needs, each with its libraries.

use crate::isolated::{skip, test_name};
use crate::programs;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set inside, to the test's name.
const INSIDE: &str = "BACKBURN_TEST_MACHINE";
/// What its init says when the test has ended, with the exit code.
const ENDED: &str = "the test ended with ";
/// From its start to its end; it takes a quarter of that on an idle machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// What emulates it, what it starts with, and what is looked at to make it.
const WANTED: [&str; 3] = ["qemu-system-x86_64", "busybox", "ldd"];

/// What stands for a module's parameters where the kernel is to load it by itself, when it wants it.
pub const ON_DEMAND: &str = "on-demand";

/// Runs the body of this test in a machine with these of the kernel's modules (each with those that it depends on, and with parameters, if any;
/// or a kind of interface with [`ON_DEMAND`]) and these programs.
///
/// # Panics
/// The test fails, the machine does not end in time, or the test is skipped under CI.
pub fn in_virtual_machine(modules: &[&str], needed: &[&str], test: impl FnOnce()) {
    run(modules, needed, None, test);
}

/// Like [`in_virtual_machine`], with a disk at [`DISK`] that stays, and started again whenever it has restarted or switched itself off before
/// the test has ended: the test's body begins anew each time. What the machine said, of all its starts.
///
/// The body runs in the machine and nowhere else, so nothing in it can restart the machine that tests run on.
///
/// # Panics
/// As above, or the machine goes down more than a few times.
pub fn in_restarting_virtual_machine(needed: &[&str], test: impl FnOnce()) -> Option<String> {
    let modules = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
    run(&modules, needed, Some(DISK_BYTES), test)
}

/// Where the disk of a machine that restarts is mounted in it.
pub const DISK: &str = "/disk";
/// How large it is.
const DISK_BYTES: u64 = 32 << 20;
/// How often a machine with a disk is started, at the most.
const MAX_STARTS: usize = 6;

/// Runs the body of this test in a machine, which has a disk of so many bytes where it may restart. What it said; none where the test is
/// skipped, or this is the machine.
fn run(
    modules: &[&str],
    needed: &[&str],
    disk: Option<u64>,
    test: impl FnOnce(),
) -> Option<String> {
    let name = test_name();
    let name = name.as_str();
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        test();
        return None;
    }
    if !cfg!(target_arch = "x86_64") {
        skip("the machine is one of x86-64");
        return None;
    }
    if let Some(missing) = WANTED
        .iter()
        .chain(needed)
        .find(|program| found(program).is_none())
    {
        skip(&format!(
            "`{missing}` is not installed; `tests/run` installs it"
        ));
        return None;
    }
    let kernel = unpacked();
    let Some(image) = within(&kernel.join("boot"), "vmlinuz") else {
        skip("there is no kernel in target/machine; `tests/run` fetches it");
        return None;
    };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let archive = folder.path().join("initramfs");
    fs::write(
        &archive,
        contents(name, &kernel, modules, needed, disk.is_some()),
    )
    .expect("a file can be written");
    let said = folder.path().join("said");
    let output = fs::File::create(&said).expect("a file can be made");
    let emulator = found(WANTED[0]).expect("it was there before");
    let mut command = Command::new(&emulator);
    command
        .args([
            "-accel",
            "tcg",
            "-cpu",
            "max,-cx16",
            "-m",
            "768",
            "-smp",
            "1",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(&image)
        .arg("-initrd")
        .arg(&archive)
        .args([
            "-append",
            "console=ttyS0 panic=-1 quiet loglevel=3 rdinit=/init",
        ])
        .args(["-L", &within_unpacked("usr/share/qemu")])
        .args(["-L", &within_unpacked("usr/share/seabios")])
        .envs(libraries(&emulator))
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a file can be had twice"))
        .stderr(output);
    if let Some(bytes) = disk {
        let image = folder.path().join("disk");
        let file = fs::File::create(&image).expect("a file can be made");
        file.set_len(bytes).expect("a file can be long");
        let made = Command::new("mke2fs")
            .args(["-q", "-t", "ext4"])
            .arg(&image)
            .status();
        assert!(made.expect("`mke2fs` starts").success());
        let drive = format!("file={},format=raw,if=virtio,cache=unsafe", image.display());
        command.args(["-drive", &drive]);
    }
    let until = Instant::now() + PATIENCE;
    let starts = disk.map_or(1, |_| MAX_STARTS);
    for _ in 0..starts {
        start(name, &mut command, &said, until);
        let text = fs::read(&said).unwrap_or_default();
        if String::from_utf8_lossy(&text).contains(ENDED) {
            break;
        }
    }
    let said = fs::read(&said).expect("it is there");
    let said = String::from_utf8_lossy(&said).replace('\r', "");
    println!("{said}");
    let ended = said.lines().find_map(|line| line.strip_prefix(ENDED));
    assert_eq!(ended, Some("0"), "{name} failed in its machine");
    Some(said)
}

/// Starts the machine and waits for its end.
fn start(name: &str, command: &mut Command, said: &Path, until: Instant) {
    let mut machine = command.spawn().expect("the machine starts");
    while machine
        .try_wait()
        .expect("a child can be waited for")
        .is_none()
    {
        if Instant::now() > until {
            machine.kill().ok();
            machine.wait().ok();
            let said = fs::read(said).unwrap_or_default();
            panic!(
                "{name}: the machine did not end within {PATIENCE:?}:\n{}",
                String::from_utf8_lossy(&said)
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first file in a folder whose name begins so.
fn within(folder: &Path, beginning: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|file| Some(file.ok()?.path()))
        .collect();
    found.sort();
    found.into_iter().find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(beginning))
    })
}

/// What the machine starts with.
fn contents(
    name: &str,
    kernel: &Path,
    modules: &[&str],
    needed: &[&str],
    has_disk: bool,
) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "tmp", "run", "modules", "programs"] {
        archive.folder(folder);
    }
    archive.console();
    let own = std::env::current_exe().expect("a test knows its own program");
    archive.program("programs/test", &own);
    archive.program("programs/backburn-agent", &programs::backburn_agent());
    for program in needed.iter().chain(&["busybox"]) {
        let file = found(program).unwrap_or_else(|| panic!("`{program}` is there"));
        // One that is told by a path is called by its file's name.
        let name = program.rsplit('/').next().unwrap_or(program);
        archive.program(&format!("bin/{name}"), &file);
    }
    let mut init = String::from("#!/bin/busybox sh\nexport PATH=/bin\n");
    for line in [
        "mount -t proc none /proc",
        "mount -t sysfs none /sys",
        "mount -t devtmpfs none /dev",
        "mount -t tmpfs none /tmp",
        "ip link set lo up",
    ] {
        init += &if line.starts_with("mount") {
            format!("busybox {line}\n")
        } else {
            format!("{line}\n")
        };
    }
    // What the kernel starts when it wants a module, here only for a kind of interface: `modprobe -q -- rtnl-link-KIND`.
    let loader = "#!/bin/busybox sh\nexec busybox insmod /modules/${3#rtnl-link-}.ko\n";
    archive.file("modules/load", 0o100_755, loader.as_bytes());
    init += "echo /modules/load > /proc/sys/kernel/modprobe\n";
    let all = every_module(&kernel.join("lib/modules"));
    let mut loaded = BTreeSet::new();
    for module in modules {
        let (module, parameters) = module.split_once(' ').unwrap_or((module, ""));
        load(
            module,
            parameters,
            &all,
            &mut loaded,
            &mut archive,
            &mut init,
        );
    }
    if has_disk {
        init += &format!("busybox mkdir {DISK}\nbusybox mount -t ext4 /dev/vda {DISK}\n");
    }
    init += &format!(
        "export {INSIDE}={name} BACKBURN_BINARIES=/programs RUST_BACKTRACE=0 CI=1\n\
         /programs/test {name} --exact --nocapture --test-threads=1\n\
         echo\necho \"{ENDED}$?\"\nbusybox reboot -f\n"
    )
    .replace("echo\necho", "code=$?\necho\necho")
    .replace("$?\"", "$code\"");
    archive.file("init", 0o100_755, init.as_bytes());
    archive.end()
}

/// What `tests/run` has unpacked.
fn unpacked() -> PathBuf {
    programs::root().join("target/machine/root")
}

fn within_unpacked(path: &str) -> String {
    unpacked().join(path).display().to_string()
}

/// Where a program is: installed, or unpacked; or where its path says.
pub fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["usr/bin", "bin"].map(|folder| unpacked().join(folder)))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Where an unpacked program finds its libraries.
pub fn libraries(program: &Path) -> Option<(&'static str, String)> {
    let folders = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(within_unpacked);
    (program.starts_with(unpacked())).then(|| ("LD_LIBRARY_PATH", folders.join(":")))
}

fn every_module(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).expect("the kernel has modules") {
        let path = file.expect("a folder can be read").path();
        if path.is_dir() {
            found.extend(every_module(&path));
        } else if path.extension().is_some_and(|ending| ending == "ko") {
            found.push(path);
        }
    }
    found
}

/// Puts a module into the archive and loads it, after those that it depends on.
fn load(
    name: &str,
    parameters: &str,
    all: &[PathBuf],
    loaded: &mut BTreeSet<String>,
    archive: &mut Archive,
    init: &mut String,
) {
    let plain = |text: &str| text.replace('-', "_");
    if !loaded.insert(plain(name)) {
        return;
    }
    let file = all.iter().find(|path| {
        path.file_stem()
            .is_some_and(|stem| plain(&stem.to_string_lossy()) == plain(name))
    });
    // What is built in has no file.
    let Some(file) = file else { return };
    let bytes = fs::read(file).expect("a module can be read");
    const DEPENDS: &[u8] = b"\0depends=";
    let place = bytes
        .windows(DEPENDS.len())
        .position(|some| some == DEPENDS);
    if let Some(place) = place {
        let rest = &bytes[place + DEPENDS.len()..];
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
        let names = String::from_utf8_lossy(&rest[..end]).into_owned();
        for other in names.split(',').filter(|name| !name.is_empty()) {
            load(other, "", all, loaded, archive, init);
        }
    }
    archive.file(&format!("modules/{name}.ko"), 0o100_644, &bytes);
    if parameters == ON_DEMAND {
        return;
    }
    writeln!(init, "busybox insmod /modules/{name}.ko {parameters}").expect("a text grows");
}

/// An archive as the kernel reads it (cpio, `newc`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        if !self.names.insert(name.to_owned()) {
            return;
        }
        let number = self.names.len() as u32;
        let length = contents.len() as u32;
        let name_length = name.len() as u32 + 1;
        let mut header = String::from("070701");
        for field in [
            number,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            device.0,
            device.1,
            name_length,
            0,
        ] {
            write!(header, "{field:08x}").expect("a text grows");
        }
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.fill();
        self.bytes.extend(contents);
        self.fill();
    }

    fn fill(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), &[]);
    }

    fn file(&mut self, name: &str, mode: u32, contents: &[u8]) {
        let folders = name.match_indices('/').map(|(at, _)| name[..at].to_owned());
        for folder in folders.collect::<Vec<_>>() {
            self.folder(&folder);
        }
        self.entry(name, mode, (0, 0), contents);
    }

    fn console(&mut self) {
        self.entry("dev/console", 0o020_600, (5, 1), &[]);
    }

    /// A program, and the libraries that it is started with, where they are here.
    fn program(&mut self, name: &str, file: &Path) {
        let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.file(name, 0o100_755, &bytes);
        let output = Command::new("ldd")
            .arg(file)
            .output()
            .expect("`ldd` starts");
        // A static program has none.
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            if let Some(path) = word.strip_prefix('/') {
                let bytes = fs::read(word).unwrap_or_else(|error| panic!("{word}: {error}"));
                self.file(path, 0o100_755, &bytes);
            }
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}
